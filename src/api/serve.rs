//! Accepts connections and serves them, bounded: so many in all, so many per user or address, headers so
//! large, a request so long.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::FutureExt as _;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    handle::Api,
    peer::{Peer, Standing},
    problem::Problem,
    seats::Seats,
    stalled_write::StalledWrite,
    worded::Worded,
};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of the request line and all headers.
    pub header_bytes: usize,
    /// How long a connection may take to send the next request's headers, idle time included.
    pub idle: Duration,
    /// How long a connection may take nothing of what is sent to it.
    pub patience: Duration,
    /// How long it may last; for ever where its requests have deadlines of their own.
    pub life: Option<Duration>,
    /// Whether a connection may bring more than one request.
    pub requests_follow: bool,
}

impl Bounds {
    /// The local socket.
    pub(super) const SOCKET: Self = Self {
        header_bytes: 16 * 1024,
        idle: Duration::from_secs(30),
        patience: Duration::from_secs(60),
        life: None,
        requests_follow: true,
    };
    /// The same for callers without any right.
    pub(super) const STRANGER: Self = Self {
        idle: Duration::from_secs(5),
        patience: Duration::from_secs(5),
        life: Some(Duration::from_secs(60)),
        ..Self::SOCKET
    };
    /// TCP, where only probes, scrapers and a page come: one request each.
    pub(super) const TCP: Self = Self {
        idle: Duration::from_secs(5),
        patience: Duration::from_secs(10),
        life: Some(Duration::from_secs(30)),
        requests_follow: false,
        ..Self::SOCKET
    };
}

/// What may wait on a connection to be read, and as much to be sent.
pub(super) const BUFFER: usize = 16 * 1024;
/// What the system may keep of what a connection has not taken yet; it counts twice as much for itself.
pub(super) const UNSENT: usize = 16 * 1024;
/// Connections over TCP at once.
pub(super) const TCP_CONNECTIONS: usize = 256;
/// Those of one address whose request has not come yet: of more, the oldest are cut.
const UNFINISHED: usize = 128;
/// How long requests that are being answered may take after the listener closed.
const GRACE: Duration = Duration::from_secs(2);
/// How long to leave a listener alone that cannot accept (no more files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Serves the local socket until `stop`. Each request carries the [`Peer`] that connected.
pub(super) async fn serve_unix(
    listener: &UnixListener,
    (api, seats): (&Api, &Seats),
    router: Router,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    while let Some(stream) = next(listener.accept(), &mut connections, &stop).await {
        let Some((stream, _)) = stream else { continue };
        let Ok(cred) = stream.peer_cred() else {
            continue;
        };
        let peer = Peer {
            uid: cred.uid(),
            gid: cred.gid(),
        };
        let known = api.rights.remembered_standing(api, peer);
        let caller = Caller {
            stream,
            peer,
            seats: seats.clone(),
        };
        let (router, stop) = (router.clone(), stop.clone());
        if let Some(standing) = known {
            connections.spawn(caller.serve(standing, router, stop));
            continue;
        }
        match seats.take(peer, Standing::Unknown) {
            Err(problem) => turn_away(caller.stream, &problem),
            Ok(meanwhile) => {
                let api = api.clone();
                connections.spawn(async move {
                    let standing = api.rights.standing(&api, peer).await;
                    drop(meanwhile);
                    match standing {
                        Ok(standing) => caller.serve(standing, router, stop).await,
                        Err(problem) => turn_away(caller.stream, &problem),
                    }
                });
            }
        }
    }
    finish(connections).await;
}

/// Somebody who connected to the socket.
struct Caller {
    stream: UnixStream,
    peer: Peer,
    seats: Seats,
}

impl Caller {
    /// Serves whoever gets a seat, and tells whoever gets none why.
    async fn serve(self, standing: Standing, router: Router, stop: CancellationToken) {
        let Self {
            stream,
            peer,
            seats,
        } = self;
        let seat = match seats.take(peer, standing) {
            Ok(seat) => seat,
            Err(problem) => return turn_away(stream, &problem),
        };
        let bounds = match standing {
            Standing::Stranger | Standing::Unknown => Bounds::STRANGER,
            Standing::Trusted | Standing::Reader => Bounds::SOCKET,
        };
        bound_unsent(&stream);
        let turns = seat.turns();
        let mark = move |request: &mut Request<Incoming>| {
            let about = request.extensions_mut();
            about.insert(peer);
            about.insert(standing);
            about.insert(turns.clone());
        };
        serve_connection(stream, (router, mark), bounds, stop).await;
        drop(seat);
    }
}

/// Serves TCP until `stop`: one request for each connection.
pub(super) async fn serve_tcp(listener: &TcpListener, router: Router, stop: CancellationToken) {
    let waiting = Waiting::default();
    let mut connections = JoinSet::new();
    while let Some(stream) = next(listener.accept(), &mut connections, &stop).await {
        let Some((stream, from)) = stream else {
            continue;
        };
        let Some(place) = waiting.admit(from.ip()) else {
            tracing::debug!("a connection over TCP was refused: all are being answered");
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            bound_unsent(&stream);
            let cut = place.cut.clone();
            let heard = move |_: &mut Request<Incoming>| place.heard();
            let served = serve_connection(stream, (router, heard), Bounds::TCP, stop);
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = served => {}
            }
        });
    }
    finish(connections).await;
}

/// The next connection; `None` at the end. A failure to accept is not the end: it is logged, and the
/// listener is left alone for a moment.
async fn next<S>(
    accept: impl Future<Output = io::Result<S>>,
    connections: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Option<Option<S>> {
    while connections.try_join_next().is_some() {}
    let accepted = async {
        match accept.await {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                None
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        accepted = accepted => Some(accepted),
    }
}

/// Serves one connection; each request is marked before it is answered.
async fn serve_connection<S>(
    stream: S,
    (router, mark): (Router, impl Fn(&mut Request<Incoming>)),
    bounds: Bounds,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        mark(&mut request);
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(bounds.requests_follow)
        .header_read_timeout(bounds.idle)
        .max_header_size(bounds.header_bytes)
        .max_buf_size(BUFFER)
        .serve_connection(
            TokioIo::new(Worded::new(StalledWrite::new(stream, bounds.patience))),
            service,
        );
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        }
    };
    let ended = match bounds.life {
        None => served.await,
        Some(life) => match timeout(life, served).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::debug!("a connection was cut: it lasted too long");
                return;
            }
        },
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

/// Bounds what the system keeps for a connection that takes nothing: it is memory of this process's.
fn bound_unsent(stream: &impl std::os::fd::AsFd) {
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(stream, UNSENT) {
        tracing::debug!(%error, "a connection keeps the system's own bound of what is unsent");
    }
}

/// Tells why and ends the connection. The buffer of a new socket takes that at once; a caller that went away
/// needs no answer.
fn turn_away(mut stream: UnixStream, why: &Problem) {
    let told = stream.write_all(&why.whole_answer()).now_or_never();
    // What was sent already is taken, so that the answer is not lost to a reset.
    let mut sent = [0; 4096];
    for _ in 0..4 {
        if !matches!(stream.try_read(&mut sent), Ok(1..)) {
            break;
        }
    }
    tracing::debug!(
        told = told.is_some(),
        why = why.detail,
        "a caller was turned away"
    );
}

/// Connections over TCP: those whose request has not come yet give way, the oldest first, so that slow ones
/// blind nobody.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    last: u64,
    open: usize,
    unfinished: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// One connection's, until dropped.
#[derive(Debug)]
struct Place {
    waiting: Waiting,
    number: u64,
    cut: CancellationToken,
}

impl Waiting {
    /// A place; `None` where every connection there may be is being answered.
    fn admit(&self, address: IpAddr) -> Option<Place> {
        let mut places = self.places();
        let of_address = places
            .unfinished
            .iter()
            .filter(|(_, (of, _))| *of == address);
        let oldest_of_address = of_address.clone().next().map(|(number, _)| *number);
        let is_full = places.open >= TCP_CONNECTIONS;
        let cut = if of_address.count() >= UNFINISHED {
            oldest_of_address
        } else if is_full {
            Some(
                places
                    .unfinished
                    .first_key_value()
                    .map(|(number, _)| *number)?,
            )
        } else {
            None
        };
        if let Some((_, token)) = cut.and_then(|number| places.unfinished.remove(&number)) {
            token.cancel();
        }
        places.last += 1;
        places.open += 1;
        let (number, cut) = (places.last, CancellationToken::new());
        places.unfinished.insert(number, (address, cut.clone()));
        drop(places);
        Some(Place {
            waiting: self.clone(),
            number,
            cut,
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its request has come: it is answered, and gives way to nobody.
    fn heard(&self) {
        self.waiting.places().unfinished.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.waiting.places();
        places.open -= 1;
        places.unfinished.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::AsyncReadExt;

    const QUICK: Bounds = Bounds {
        header_bytes: 8192,
        idle: Duration::from_millis(50),
        patience: Duration::from_secs(60),
        life: None,
        requests_follow: true,
    };

    async fn talk(request: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let router = Router::new().route(
            "/who",
            get(|peer: axum::Extension<Peer>| async move { peer.uid.to_string() }),
        );
        let mark = |request: &mut Request<Incoming>| {
            request.extensions_mut().insert(Peer { uid: 7, gid: 7 });
        };
        let served = serve_connection(server, (router, mark), QUICK, CancellationToken::new());
        let asked = async {
            client.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        tokio::join!(served, asked).1
    }

    #[tokio::test]
    async fn the_peer_is_known_and_an_idle_connection_is_closed() {
        let answer = talk(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with('7'),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed() {
        let answer = talk(b"").await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn what_the_library_refuses_is_a_problem_document_too() {
        let long = "x".repeat(QUICK.header_bytes);
        for (request, status, kind) in [
            (
                format!("GET /who HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n"),
                431,
                "headers-too-large",
            ),
            (
                "GET /who HTTP/1.1\r\nno header\r\n\r\n".to_owned(),
                400,
                "invalid",
            ),
            ("nonsense\r\n\r\n".to_owned(), 400, "invalid"),
        ] {
            let answer = talk(request.as_bytes()).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(head.contains("application/problem+json"), "{answer}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["type"], kind, "{answer}");
            assert_eq!(problem["status"], status, "{answer}");
        }
    }

    #[test]
    fn slow_connections_give_way_and_those_that_are_answered_do_not() {
        let waiting = Waiting::default();
        let slow: IpAddr = "127.0.0.1".parse().unwrap();
        let places: Vec<Place> = (0..270).filter_map(|_| waiting.admit(slow)).collect();
        let cut = places.iter().filter(|place| place.cut.is_cancelled());
        assert_eq!(cut.count(), 270 - UNFINISHED);
        drop(places);
        let answered: Vec<Place> = (0..TCP_CONNECTIONS)
            .filter_map(|_| waiting.admit(slow))
            .collect();
        answered.iter().for_each(Place::heard);
        assert!(waiting.admit(slow).is_none());
        drop(answered);
        let many: Vec<Place> = (0..300_u32)
            .filter_map(|n| waiting.admit(std::net::Ipv4Addr::from_bits(0x7f00_0000 + n).into()))
            .collect();
        assert!(
            many[0].cut.is_cancelled(),
            "addresses are cheap: all together are bounded"
        );
        assert!(!many[299].cut.is_cancelled());
        drop(many);
        assert_eq!(waiting.places().open, 0);
    }
}
