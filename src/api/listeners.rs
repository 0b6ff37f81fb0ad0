//! Binds what the configuration says and serves it until told to stop.

use std::{convert::Infallible, net::SocketAddr, os::unix::net::UnixListener};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    guard::Door,
    handle::Api,
    local, public,
    serve::{Bounds, serve_tcp, serve_unix},
    socket::{self, BoundSocket, ListenError},
    watch::Hub,
};
use crate::config::DaemonSettings;

/// Bound, and not yet served: callers wait in the queue meanwhile.
#[derive(Debug)]
pub struct Listeners {
    socket: BoundSocket,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Binds the local socket and, where one is set, the TCP address; or takes what the service
    /// manager holds open (`socket`, `listen`) in place of either.
    pub async fn bind(
        daemon: &DaemonSettings,
        (socket, listen): (Option<UnixListener>, Option<std::net::TcpListener>),
    ) -> Result<Self, ListenError> {
        let tcp = match (listen, daemon.listen) {
            (Some(listen), _) => Some(TcpListener::from_std(listen).map_err(ListenError::Passed)?),
            (None, Some(address)) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| ListenError::Tcp { address, source })?,
            ),
            (None, None) => None,
        };
        let socket = match socket {
            Some(socket) => socket::take_over(socket)?,
            None => socket::bind(&daemon.socket).await?,
        };
        Ok(Self { socket, tcp })
    }

    /// Where TCP is listened on, with the port that was found for port 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves until `stop`; long polls are then answered at once.
    pub async fn serve(self, api: Api, stop: CancellationToken) -> Result<(), Infallible> {
        let api = Api {
            stop: stop.clone(),
            ..api
        };
        let local = local::router(api.clone());
        let telling = Hub::run(api.clone(), stop.clone());
        let on_socket = serve_unix(&self.socket.listener, local, Bounds::SOCKET, stop.clone());
        let on_tcp = async {
            let Some(tcp) = &self.tcp else { return };
            let loopback = tcp
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback());
            let door = if loopback {
                Door::Loopback
            } else {
                Door::Network
            };
            serve_tcp(
                tcp,
                public::router(api.clone(), door),
                Bounds::TCP,
                stop.clone(),
            )
            .await;
        };
        let counting = api.reads.keep(&api, stop.clone());
        tokio::join!(on_socket, on_tcp, telling, counting);
        api.reads.write(&api.store).await;
        Ok(())
    }
}
