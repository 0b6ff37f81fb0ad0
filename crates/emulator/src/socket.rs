//! Carries requests from sockets to a function and its replies back, resets and hangs included.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{answer::Reply, call::Outgoing};

/// A function from request to reply.
pub(super) type Replying = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Reply> + Send + Sync>;

/// The largest request; the control API takes many tokens at once.
const LARGEST: usize = 32 << 20;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections may take to end once the server stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// The first byte of a TLS record that begins a handshake.
const CLIENT_HELLO: u8 = 0x16;

/// Serves connections until `stop`; those that are open may finish what they began, for a second.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    replying: Replying,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = Connection {
                        tls: tls.clone(),
                        replying: Arc::clone(&replying),
                        watcher: graceful.watcher(),
                    };
                    connections.spawn(connection.serve(stream));
                }
                // Out of descriptors, most likely: others must end before one more can begin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(listener);
    // Hanging ones never end by themselves; dropping the set ends them.
    tokio::time::timeout(FAREWELL, graceful.shutdown())
        .await
        .ok();
}

struct Connection {
    tls: Option<TlsAcceptor>,
    replying: Replying,
    watcher: Watcher,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let ended = self.carry(stream).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn carry(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(tls) = self.tls else {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] == CLIENT_HELLO {
                tracing::warn!(
                    "a client speaks TLS to the plain http port; its connection was closed at once"
                );
                return Ok(());
            }
            return exchange(stream, self.replying, self.watcher, |stream| stream).await;
        };
        let accepted = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
        let stream = accepted.map_err(|_| io::ErrorKind::TimedOut)??;
        exchange(stream, self.replying, self.watcher, |tls| tls.get_ref().0).await
    }
}

/// Answers every request of one connection. `socket` finds the TCP socket under the stream, which a
/// reset has to reach.
async fn exchange<S>(
    stream: S,
    replying: Replying,
    watcher: Watcher,
    socket: impl Fn(&S) -> &TcpStream,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let reset = Arc::new(Notify::new());
    // Lingering for no time makes the kernel send RST when the socket is closed. The stream itself is
    // out of reach once it is served, so a duplicate of its descriptor is kept for that.
    let handle = rustix::io::dup(socket(&stream))?;
    let service = service_fn(|request| {
        let (replying, reset) = (Arc::clone(&replying), Arc::clone(&reset));
        async move { Ok::<_, hyper::Error>(answer(request, &replying, &reset).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let connection = watcher.watch(connection);
    tokio::select! {
        biased;
        () = reset.notified() => {
            rustix::net::sockopt::set_socket_linger(&handle, Some(Duration::ZERO))?;
            Ok(())
        }
        ended = connection => ended.map_err(io::Error::other),
    }
}

async fn answer(
    request: Request<Incoming>,
    replying: &Replying,
    reset: &Notify,
) -> Response<Outgoing> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LARGEST).collect().await else {
        let mut refusal = Response::new(Outgoing::whole(Bytes::new()));
        *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return refusal;
    };
    let request = Request::from_parts(parts, body.to_bytes());
    match replying(request).await {
        Reply::Answer(answer) => answer.map(Outgoing::whole),
        Reply::Truncated { answer, sent } => answer.map(|body| Outgoing::truncated(&body, sent)),
        Reply::Hang => std::future::pending().await,
        Reply::Reset => {
            reset.notify_one();
            std::future::pending().await
        }
    }
}
