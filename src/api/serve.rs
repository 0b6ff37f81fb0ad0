//! Accepts connections and serves them, bounded: so many in all, so many per user, headers so
//! large, idle so long.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{patient::Patient, peer::Peer};

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one user other than root.
    pub per_user: usize,
    /// Bytes of the request line and all headers.
    pub header_bytes: usize,
    /// How long a connection may take to send the next request's headers, idle time included.
    pub idle: Duration,
    /// How long a connection may take nothing of what is sent to it.
    pub patience: Duration,
}

impl Bounds {
    /// The local socket. The unit allows 8192 files.
    pub(super) const SOCKET: Self = Self {
        connections: 4096,
        per_user: 1024,
        header_bytes: 16 * 1024,
        idle: Duration::from_secs(30),
        patience: Duration::from_secs(60),
    };
    /// TCP, where only probes, scrapers and a page come.
    pub(super) const TCP: Self = Self {
        connections: 256,
        per_user: usize::MAX,
        ..Self::SOCKET
    };
}

/// Seats that root alone gets: an operator must get in when everybody else has filled the house.
const FOR_ROOT: usize = 64;
/// What may wait on a connection to be read or to be sent.
const BUFFER: usize = 64 * 1024;
/// How long requests that are being answered may take after the listener closed.
const GRACE: Duration = Duration::from_secs(2);
/// How long to leave a listener alone that cannot accept (no more files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// What a user with too many connections reads; the end of the connection ends it.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n\
Retry-After: 1\r\nConnection: close\r\n\r\n\
{\"type\":\"throttled\",\"title\":\"Too many requests\",\"status\":503,\"detail\":\"this user has too many connections open\"}";

/// Serves the local socket until `stop`. Each request carries the [`Peer`] that connected.
pub(super) async fn serve_unix(
    listener: &UnixListener,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let users = Users::default();
    let mut connections = JoinSet::new();
    while let Some((stream, slot)) = next(&slots, listener.accept(), &mut connections, &stop).await
    {
        let Some((stream, _)) = stream else { continue };
        let Ok(cred) = stream.peer_cred() else {
            continue;
        };
        let peer = Peer {
            uid: cred.uid(),
            gid: cred.gid(),
        };
        let Some(seat) = users.seat(peer.uid, bounds) else {
            turn_away(stream);
            continue;
        };
        let router = router.clone().layer(axum::Extension(peer));
        let served = serve_connection(stream, router, bounds, stop.clone());
        connections.spawn(async move {
            served.await;
            drop((slot, seat));
        });
    }
    finish(connections).await;
}

/// Serves TCP until `stop`.
pub(super) async fn serve_tcp(
    listener: &TcpListener,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    while let Some((stream, slot)) = next(&slots, listener.accept(), &mut connections, &stop).await
    {
        let Some((stream, _)) = stream else { continue };
        let served = serve_connection(stream, router.clone(), bounds, stop.clone());
        connections.spawn(async move {
            served.await;
            drop(slot);
        });
    }
    finish(connections).await;
}

/// The next connection, once there is a slot for it; `None` at the end. A failure to accept is not
/// the end: it is logged, and the listener is left alone for a moment.
async fn next<S>(
    slots: &Arc<Semaphore>,
    accept: impl Future<Output = io::Result<S>>,
    connections: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Option<(Option<S>, OwnedSemaphorePermit)> {
    while connections.try_join_next().is_some() {}
    let accepted = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        match accept.await {
            Ok(stream) => Some((Some(stream), slot)),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                Some((None, slot))
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        accepted = accepted => accepted,
    }
}

async fn serve_connection<S>(stream: S, router: Router, bounds: Bounds, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.idle)
        .max_header_size(bounds.header_bytes)
        .max_buf_size(BUFFER)
        .serve_connection(
            TokioIo::new(Patient::new(stream, bounds.patience)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn finish(mut connections: JoinSet<()>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::debug!("connections were cut at the end of the grace period");
    }
}

fn turn_away(mut stream: UnixStream) {
    // The buffer of a new socket takes this at once; a caller that went away needs no answer.
    let written = futures_util::FutureExt::now_or_never(stream.write_all(TOO_MANY));
    tracing::debug!(
        told = written.is_some(),
        "a user with too many connections was turned away"
    );
}

/// How many connections each user has.
#[derive(Debug, Clone, Default)]
struct Users(Arc<Mutex<BTreeMap<u32, usize>>>);

/// One connection of a user; counted until dropped.
#[derive(Debug)]
struct Seat {
    users: Users,
    uid: u32,
}

impl Users {
    /// A seat, unless this user has too many, or all but root's are taken.
    fn seat(&self, uid: u32, bounds: Bounds) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = counts.values().sum();
        let count = counts.get(&uid).copied().unwrap_or(0);
        let full = taken + FOR_ROOT >= bounds.connections;
        if uid != 0 && (count >= bounds.per_user || full) {
            return None;
        }
        counts.insert(uid, count + 1);
        Some(Seat {
            users: self.clone(),
            uid,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::AsyncReadExt;

    const QUICK: Bounds = Bounds {
        connections: 8 + FOR_ROOT,
        per_user: 2,
        header_bytes: 8192,
        idle: Duration::from_millis(50),
        patience: Duration::from_secs(60),
    };

    async fn talk(request: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let router = Router::new().route(
            "/who",
            get(|peer: axum::Extension<Peer>| async move { peer.uid.to_string() }),
        );
        let stop = CancellationToken::new();
        let server = serve_unix(&listener, router, QUICK, stop.clone());
        let client = async {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            // A connection that is cut in the middle of a request may end with a reset.
            if let Err(error) = stream.read_to_end(&mut answer).await {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            stop.cancel();
            String::from_utf8(answer).unwrap()
        };
        tokio::join!(server, client).1
    }

    #[tokio::test]
    async fn the_peer_is_known_and_an_idle_connection_is_closed() {
        let answer = talk(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let own = rustix::process::getuid().as_raw().to_string();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with(&own),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let answer = talk(b"").await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn headers_are_bounded() {
        let long = "x".repeat(QUICK.header_bytes);
        let request = format!("GET /who HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n");
        let answer = talk(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[test]
    fn each_user_has_its_own_seats_and_root_always_one() {
        let users = Users::default();
        let first = users.seat(1000, QUICK).unwrap();
        let _second = users.seat(1000, QUICK).unwrap();
        assert!(users.seat(1000, QUICK).is_none());
        assert!(users.seat(1001, QUICK).is_some());
        drop(first);
        assert!(users.seat(1000, QUICK).is_some());
        assert!((0..3).all(|_| users.seat(0, QUICK).is_some()));
    }

    #[test]
    fn the_words_for_too_many_are_a_whole_answer() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("Connection: close"));
        let problem: super::super::problem::Problem = serde_json::from_str(body).unwrap();
        assert_eq!(problem.kind, super::super::problem::ProblemType::Throttled);
    }
}
