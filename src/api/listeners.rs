//! Binds what the configuration says and serves it until told to stop.

use std::{
    convert::Infallible, io, net::SocketAddr, os::unix::net::UnixListener as StdUnixListener,
    sync::Arc, time::Duration,
};

use axum::Router;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::{
    guard::Door,
    handle::{Api, Unbound},
    local, public,
    seats::{Limits, Seats},
    serve::{serve_tcp, serve_unix},
    socket::{self, BoundSocket, ListenError},
    watch,
};
use crate::{config::DaemonSettings, model::Amiss};

/// Between two looks at the file of the local socket.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Between two attempts to listen on a TCP address that was refused.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Bound, and not yet served: callers wait in the queue meanwhile.
#[derive(Debug)]
pub struct Listeners {
    socket: BoundSocket,
    tcp: Tcp,
}

/// TCP, which carries health, metrics and the page: no token waits for it, so that a start does not
/// either.
#[derive(Debug)]
enum Tcp {
    Off,
    Bound(TcpListener),
    Refused {
        address: SocketAddr,
        source: io::Error,
    },
}

impl Listeners {
    /// Binds the local socket and, where one is set, the TCP address; or takes what the service
    /// manager holds open (`socket`, `listen`) in place of either.
    pub async fn bind(
        daemon: &DaemonSettings,
        (socket, listen): (Option<StdUnixListener>, Option<std::net::TcpListener>),
    ) -> Result<Self, ListenError> {
        let tcp = match (listen, daemon.listen) {
            (Some(listen), _) => {
                Tcp::Bound(TcpListener::from_std(listen).map_err(ListenError::Passed)?)
            }
            (None, Some(address)) => match TcpListener::bind(address).await {
                Ok(tcp) => Tcp::Bound(tcp),
                Err(source) => Tcp::Refused { address, source },
            },
            (None, None) => Tcp::Off,
        };
        let socket = match socket {
            Some(socket) => socket::take_over(socket)?,
            None => socket::bind(&daemon.socket).await?,
        };
        Ok(Self { socket, tcp })
    }

    /// Where TCP is listened on, with the port that was found for port 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.tcp {
            Tcp::Bound(tcp) => tcp.local_addr().ok(),
            Tcp::Off | Tcp::Refused { .. } => None,
        }
    }

    /// Serves until `stop`; long polls are then answered at once.
    pub async fn serve(self, api: Api, stop: CancellationToken) -> Result<(), Infallible> {
        let api = Api {
            stop: stop.clone(),
            ..api
        };
        let Self { socket, tcp } = self;
        let local = local::router(api.clone());
        let telling = watch::run(api.clone(), stop.clone());
        let on_socket = serve_socket(socket, &api, local, &stop);
        let on_tcp = async {
            let Some(tcp) = tcp.bound(&api, &stop).await else {
                return;
            };
            let loopback = tcp
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback());
            let door = if loopback {
                Door::Loopback
            } else {
                Door::Network
            };
            serve_tcp(&tcp, public::router(api.clone(), door), stop.clone()).await;
        };
        let counting = api.reads.keep(&api.store, stop.clone());
        tokio::join!(on_socket, on_tcp, telling, counting);
        api.reads.write(&api.store).await;
        Ok(())
    }
}

/// Serves the local socket, and looks after its file: one that is gone is made again, while those who
/// are connected by the old one go on.
async fn serve_socket(
    mut socket: BoundSocket,
    api: &Api,
    router: Router,
    stop: &CancellationToken,
) {
    let mut serving = FuturesUnordered::new();
    let seats = Seats::new(Limits::SOCKET);
    let served = |listener: Arc<UnixListener>| {
        let (seats, router, stop) = (seats.clone(), router.clone(), stop.clone());
        async move { serve_unix(&listener, (api, &seats), router, stop).await }
    };
    serving.push(served(Arc::clone(&socket.listener)));
    loop {
        tokio::select! {
            biased;
            ended = serving.next() => if ended.is_none() { return },
            () = tokio::time::sleep(LOOK_AGAIN), if !stop.is_cancelled() => {
                let before = api.socket.borrow().clone();
                let amiss = socket.look_after(&mut |new| serving.push(served(new))).await;
                let now = Amiss::still(amiss, before.as_ref(), api.clock.now());
                if now != before {
                    match &now {
                        Some(amiss) => tracing::error!("{}", amiss.what),
                        None => tracing::info!("the local socket can be reached again"),
                    }
                    api.socket.send_replace(now);
                }
            }
        }
    }
}

impl Tcp {
    /// The listener; where the address was refused it is tried again, and everybody who looks is
    /// told why, until it binds. `None` where TCP is off, or when `stop` comes first.
    async fn bound(self, api: &Api, stop: &CancellationToken) -> Option<TcpListener> {
        let (address, source) = match self {
            Self::Off => return None,
            Self::Bound(tcp) => return Some(tcp),
            Self::Refused { address, source } => (address, source),
        };
        tracing::error!(
            %address, error = %source,
            "[daemon] listen cannot be listened on; tokens are kept fresh all the same, and it is tried again every 5 s"
        );
        api.unbound
            .send_replace(Some(Unbound::new(address, &source)));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(BIND_AGAIN) => {}
            }
            match TcpListener::bind(address).await {
                Ok(tcp) => {
                    tracing::info!(%address, "[daemon] listen is listened on now");
                    api.unbound.send_replace(None);
                    return Some(tcp);
                }
                Err(source) => {
                    api.unbound
                        .send_replace(Some(Unbound::new(address, &source)));
                }
            }
        }
    }
}
