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
use rustix::net::RecvFlags;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    connection::{Seat, Seats},
    handle::Api,
    peer::{CallerStanding, Peer},
    problem::Problem,
    stream::{StalledWrite, Worded},
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
    /// What holds for the local socket.
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
/// Connections over TCP at once, from this machine and as many from others.
pub(super) const TCP_CONNECTIONS: usize = 256;
/// Those of one address elsewhere whose request has not come yet: of more, the oldest are cut.
const UNFINISHED: usize = 128;
/// How long a request that has come is left to be worked on before it gives way, and how often that is looked at.
const WORK: Duration = Duration::from_secs(1);
const BREATH: Duration = Duration::from_millis(5);
/// Callers who were turned away and hear of it a moment later, so that whoever comes again at once comes seldom.
pub(super) const TURNED_AWAY: usize = 1024;
/// So much later they hear of it.
const MOMENT: Duration = Duration::from_secs(1);
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
    let away = Away::default();
    while let Some(stream) = next(listener.accept(), &mut connections, &stop).await {
        let Some((stream, _)) = stream else { continue };
        let Ok(cred) = stream.peer_cred() else {
            continue;
        };
        let peer = Peer {
            uid: cred.uid(),
            gid: cred.gid(),
        };
        let known = api.rights.remembered_standing(peer);
        let caller = Caller {
            stream,
            peer,
            seats: seats.clone(),
        };
        let sitting = seats.take(peer, known.unwrap_or(CallerStanding::Unknown));
        let seat = match sitting {
            Ok(seat) => seat,
            Err(problem) => {
                if let Some(told) = away.tell(caller.stream, problem, stop.clone()) {
                    connections.spawn(told);
                }
                continue;
            }
        };
        let (router, stop) = (router.clone(), stop.clone());
        if let Some(standing) = known {
            connections.spawn(caller.serve(seat, standing, router, stop));
            continue;
        }
        let (api, away) = (api.clone(), away.clone());
        connections.spawn(async move {
            let standing = api.rights.standing(peer).await;
            drop(seat);
            let seated = standing.and_then(|standing| {
                let seat = caller.seats.take(peer, standing)?;
                Ok((seat, standing))
            });
            match seated {
                Ok((seat, standing)) => caller.serve(seat, standing, router, stop).await,
                Err(problem) => {
                    if let Some(told) = away.tell(caller.stream, problem, stop) {
                        told.await;
                    }
                }
            }
        });
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
    /// Serves whoever has a seat.
    async fn serve(
        self,
        seat: Seat,
        standing: CallerStanding,
        router: Router,
        stop: CancellationToken,
    ) {
        let Self { stream, peer, .. } = self;
        let bounds = match standing {
            CallerStanding::Stranger | CallerStanding::Unknown => Bounds::STRANGER,
            CallerStanding::Trusted | CallerStanding::Reader => Bounds::SOCKET,
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
        waiting.let_begin(from.ip()).await;
        let place = waiting.admit(from.ip());
        if has_come(&stream) {
            place.reached(Stage::Heard);
        }
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            bound_unsent(&stream);
            let cut = place.cut.clone();
            let place = Arc::new(place);
            let heard = |_: &mut Request<Incoming>| {
                place.reached(Stage::Heard);
                Answering(Arc::clone(&place))
            };
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

/// Serves one connection; each request is marked before it is answered, and the mark dropped once the answer begins.
async fn serve_connection<S, M>(
    stream: S,
    (router, mark): (Router, impl Fn(&mut Request<Incoming>) -> M),
    bounds: Bounds,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        let marked = mark(&mut request);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(marked);
            answer
        }
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

/// Those who were turned away and have not been told so yet; all clones are the same.
#[derive(Debug, Clone)]
struct Away(Arc<Semaphore>);

impl Default for Away {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNED_AWAY)))
    }
}

impl Away {
    /// Tells why in a moment; at once, without anything left to do, where many wait to be told already.
    fn tell(
        &self,
        stream: UnixStream,
        why: Problem,
        stop: CancellationToken,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            turn_away(stream, &why);
            return None;
        };
        Some(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(MOMENT) => {}
            }
            turn_away(stream, &why);
            drop(place);
        })
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

/// Whether the head of the request is there already, so that the connection gives way to slower ones.
fn has_come(stream: &TcpStream) -> bool {
    let mut head = [0; 2048];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = rustix::net::recv(stream, &mut head, flags);
    seen.is_ok_and(|(seen, _)| head[..seen].windows(4).any(|end| end == b"\r\n\r\n"))
}

/// Connections over TCP. Of more than there is room for the oldest is cut: first of those whose request has not
/// come yet, then of those that do not take the answer. Whoever sends at once and takes the answer is neither.
/// Connections from this machine and from others have room of their own.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    last: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    address: IpAddr,
    stage: Stage,
    cut: CancellationToken,
}

/// How far a connection is; the first ones give way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Its request has not come.
    Silent,
    /// It takes the answer.
    Answered,
    /// Its request has been worked on for long.
    Late,
    /// Its request is worked on.
    Heard,
}

/// A request that is worked on until this is dropped.
struct Answering(Arc<Place>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.reached(Stage::Answered);
    }
}

/// One connection's, until dropped.
#[derive(Debug)]
struct Place {
    waiting: Waiting,
    number: u64,
    cut: CancellationToken,
}

impl Places {
    /// Whether all that there is room for are worked on, and not for long yet.
    fn have_just_come(&self, address: IpAddr) -> bool {
        let here = address.is_loopback();
        let alike = self.open.values();
        let mut alike = alike.filter(|open| open.address.is_loopback() == here);
        alike.clone().count() >= TCP_CONNECTIONS && alike.all(|open| open.stage == Stage::Heard)
    }

    /// All that are worked on have had their time.
    fn are_late(&mut self, address: IpAddr) {
        let here = address.is_loopback();
        let worked_on =
            |open: &&mut Open| open.address.is_loopback() == here && open.stage == Stage::Heard;
        let all = self.open.values_mut().filter(worked_on);
        all.for_each(|open| open.stage = Stage::Late);
    }

    /// Who gives way to a new connection from this address, if anybody must.
    fn in_the_way(&self, address: IpAddr) -> Option<u64> {
        let here = address.is_loopback();
        let alike = || {
            let open = self.open.iter();
            open.filter(move |(_, open)| open.address.is_loopback() == here)
        };
        let is_own = |open: &Open| open.address == address && open.stage == Stage::Silent;
        let own = || alike().filter(|(_, open)| is_own(open));
        if alike().count() >= TCP_CONNECTIONS {
            let first = alike().min_by_key(|(number, open)| (open.stage, **number));
            first.map(|(number, _)| *number)
        } else if !here && own().count() >= UNFINISHED {
            own().next().map(|(number, _)| *number)
        } else {
            None
        }
    }
}

impl Waiting {
    /// Waits while all that there is room for have just come and are worked on: nobody is cut before it could begin.
    async fn let_begin(&self, address: IpAddr) {
        let address = address.to_canonical();
        let mut waited = Duration::ZERO;
        while self.places().have_just_come(address) {
            if waited >= WORK {
                self.places().are_late(address);
                return;
            }
            tokio::time::sleep(BREATH).await;
            waited += BREATH;
        }
    }

    /// A place; who is in the way is cut.
    fn admit(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let mut places = self.places();
        let in_the_way = places.in_the_way(address);
        if let Some(open) = in_the_way.and_then(|number| places.open.remove(&number)) {
            open.cut.cancel();
        }
        places.last += 1;
        let (number, cut) = (places.last, CancellationToken::new());
        let open = Open {
            address,
            stage: Stage::Silent,
            cut: cut.clone(),
        };
        places.open.insert(number, open);
        drop(places);
        Place {
            waiting: self.clone(),
            number,
            cut,
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn reached(&self, stage: Stage) {
        if let Some(open) = self.waiting.places().open.get_mut(&self.number) {
            open.stage = stage;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.places().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::collections::BTreeSet;
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

    fn cut(places: &[Place]) -> Vec<usize> {
        let numbered = places.iter().enumerate();
        let cut = numbered.filter(|(_, place)| place.cut.is_cancelled());
        cut.map(|(number, _)| number).collect()
    }

    #[test]
    fn slow_connections_give_way_before_those_that_are_worked_on() {
        let waiting = Waiting::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let places: Vec<Place> = (0..200).map(|_| waiting.admit(address)).collect();
        assert_eq!(cut(&places), (0..200 - UNFINISHED).collect::<Vec<_>>());
        drop(places);
        let here: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let all: Vec<Place> = (0..TCP_CONNECTIONS).map(|_| waiting.admit(here)).collect();
        let reach = |places: &[Place], stage| places.iter().for_each(|place| place.reached(stage));
        reach(&all[..100], Stage::Heard);
        reach(&all[100..200], Stage::Answered);
        let more: Vec<Place> = (0..60)
            .map(|_| {
                let place = waiting.admit(here);
                place.reached(Stage::Heard);
                place
            })
            .collect();
        let first: BTreeSet<usize> = (200..TCP_CONNECTIONS).chain(100..104).collect();
        assert_eq!(cut(&all).into_iter().collect::<BTreeSet<_>>(), first);
        // Where all are worked on, whoever takes longest gives way: there is room for a probe at all times.
        reach(&all, Stage::Heard);
        let probe = waiting.admit(here);
        assert!(all[0].cut.is_cancelled() && !probe.cut.is_cancelled());
        drop((all, more, probe));
        assert!(waiting.places().open.is_empty());
    }

    /// A burst of requests that have come waits in the line rather than that one of them is cut.
    #[tokio::test(start_paused = true)]
    async fn nobody_is_cut_before_it_could_begin() {
        let waiting = Waiting::default();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let mut all: Vec<Place> = (0..TCP_CONNECTIONS).map(|_| waiting.admit(here)).collect();
        let clock = crate::clock::Clock::simulated(jiff::Timestamp::UNIX_EPOCH);
        let began = clock.steady();
        let took = || clock.steady() - began;
        waiting.let_begin(here).await;
        assert_eq!(took(), Duration::ZERO, "silent ones give way at once");
        all.iter().for_each(|place| place.reached(Stage::Heard));
        waiting.let_begin(here).await;
        assert_eq!(took(), WORK, "who takes longer gives way");
        waiting.let_begin(here).await;
        assert_eq!(took(), WORK);
        assert_eq!(cut(&all), Vec::<usize>::new());
        let another = waiting.admit(here);
        another.reached(Stage::Heard);
        assert_eq!(cut(&all), [0]);
        all.clear();
        waiting.let_begin(here).await;
        assert_eq!(took(), WORK);
    }

    #[test]
    fn a_flood_from_other_machines_leaves_the_room_of_this_one_alone() {
        let waiting = Waiting::default();
        let probe = waiting.admit("127.0.0.1".parse().unwrap());
        let many: Vec<Place> = (0..600_u32)
            .map(|n| waiting.admit(std::net::Ipv4Addr::from_bits(0xc000_0200 + n).into()))
            .collect();
        assert!(!probe.cut.is_cancelled());
        assert_eq!(
            cut(&many),
            (0..600 - TCP_CONNECTIONS).collect::<Vec<_>>(),
            "addresses are cheap: all together are bounded"
        );
    }
}
