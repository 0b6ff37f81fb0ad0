//! A connection to the daemon, from both of its ends: the client's, with one question and its answer, a deadline and
//! a limit; and the slots of the server, few for callers without any right, some that only root gets, some that only
//! users get who have few. Who is turned away is told why, and it is true.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    marker::PhantomData,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, header};
use tokio::time::timeout;

use super::{
    away::AGE,
    endpoint::Endpoint,
    peer::{CallerStanding, Peer, Turns},
    problem::{Problem, ProblemType},
    wire::CLIENT_HEADER,
};
use crate::{
    model::{RESERVED, percent_encoded},
    transport,
};

/// What the command line calls itself.
pub(super) const OWN_LABEL: &str = concat!("renewd/", env!("CARGO_PKG_VERSION"));
/// How long an answer may take besides the wait that was asked for.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer: a page of a listing.
const LARGEST: usize = 32 * 1024 * 1024;

/// Why the daemon could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no daemon answers on {}: {source}", path.display())]
    Unreachable { path: PathBuf, source: io::Error },
    #[error("the daemon on {} broke the connection off; its log may say why", path.display())]
    Broken {
        path: PathBuf,
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("the daemon on {} did not answer within {} s", path.display(), waited.as_secs())]
    Silent {
        path: PathBuf,
        /// How long it was given.
        waited: Duration,
    },
    /// The daemon says no, and why.
    #[error("{0}")]
    Problem(Problem),
    /// The answer makes no sense.
    #[error(
        "the daemon's answer to {target} cannot be read ({why}): do daemon and command have the same version?"
    )]
    Unreadable {
        target: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A daemon, found by its socket. Each question is a connection of its own.
#[derive(Debug, Clone)]
pub struct DaemonClient {
    pub(super) path: PathBuf,
    /// In seconds; below zero where the last answer told none.
    age: Arc<AtomicI64>,
}

/// A question to an endpoint that is being put together.
pub(super) struct ClientCall<'a, E> {
    client: &'a DaemonClient,
    target: String,
    label: &'a str,
    body: Result<Vec<u8>, serde_json::Error>,
    within: Duration,
    endpoint: PhantomData<E>,
}

impl<'a, E: Endpoint> ClientCall<'a, E> {
    /// What is asked for besides the path; a key without a value is left out.
    pub(super) fn query<const N: usize>(mut self, pairs: [(&str, Option<String>); N]) -> Self {
        for (key, value) in pairs {
            debug_assert!(E::QUERY.contains(&key), "{} takes no {key}", E::PATH);
            if let Some(value) = value {
                let sign = if self.target.contains('?') { '&' } else { '?' };
                self.target.push(sign);
                self.target.push_str(&format!("{key}={}", encoded(&value)));
            }
        }
        self
    }

    /// The page after this cursor.
    pub(super) fn after(self, cursor: Option<&str>) -> Self {
        self.query([("after", cursor.map(str::to_owned))])
    }

    pub(super) fn body(mut self, body: &E::Body) -> Self {
        self.body = serde_json::to_vec(body);
        self
    }

    /// How long the answer may take, where that is longer than usual.
    pub(super) fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Under another name than the command line's.
    pub(super) fn labelled(mut self, label: &'a str) -> Self {
        self.label = label;
        self
    }

    #[cfg(test)]
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) async fn send(self) -> Result<E::Answer, ClientError> {
        let target = &self.target;
        let wrong = |error: serde_json::Error| unreadable(target, &error.to_string());
        let body = self.body.map_err(wrong)?;
        let request = self.client.request(E::METHOD, target, self.label)?;
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(body);
        let sent = self.client.send(target, request, self.within);
        serde_json::from_slice(sent.await?.body()).map_err(wrong)
    }
}

/// The path of an endpoint with these names in its places, in their order. Names of the model are safe in a path
/// as they are.
fn filled(path: &str, names: &[&dyn Display]) -> String {
    let mut names = names.iter();
    let segments = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{') {
            Some(_) => names.next().map(ToString::to_string).unwrap_or_default(),
            None => segment.to_owned(),
        });
    segments.collect::<Vec<_>>().join("/")
}

impl DaemonClient {
    /// The daemon that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            path: socket.into(),
            age: Arc::new(AtomicI64::new(-1)),
        }
    }

    /// How old the last answer was, where it came from the mirror of a node whose database is away.
    pub fn age(&self) -> Option<Duration> {
        let seconds = self.age.load(Ordering::Relaxed);
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// A question to an endpoint, with the names that its path takes.
    pub(super) fn call<E: Endpoint>(&self, _: E, names: &[&dyn Display]) -> ClientCall<'_, E> {
        ClientCall {
            client: self,
            target: filled(E::PATH, names),
            label: OWN_LABEL,
            body: Ok(Vec::new()),
            within: ANSWER,
            endpoint: PhantomData,
        }
    }

    /// A question that is being put together. It goes over a connection of its own, to the socket and nowhere else.
    pub(super) fn request(
        &self,
        method: Method,
        target: &str,
        label: &str,
    ) -> Result<reqwest::RequestBuilder, ClientError> {
        let local = transport::local(&self.path);
        let local = local.map_err(|error| unreadable(target, &error.to_string()))?;
        let request = local.request(method, format!("http://localhost{target}"));
        Ok(request.header(CLIENT_HEADER, label))
    }

    /// One question; an answer that is no success is an error.
    pub(super) async fn send(
        &self,
        target: &str,
        request: reqwest::RequestBuilder,
        within: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let answered = async {
            let mut answer = self.head(request, within).await?;
            let age = answer.headers().get(AGE).and_then(|age| age.to_str().ok());
            let age = age.and_then(|age| age.parse().ok()).unwrap_or(-1);
            self.age.store(age, Ordering::Relaxed);
            let mut whole = BytesMut::new();
            while let Some(piece) = self.piece(&mut answer, within).await? {
                if whole.len() + piece.len() > LARGEST {
                    return Err(unreadable(target, "it is too large"));
                }
                whole.extend_from_slice(&piece);
            }
            let mut response = Response::new(whole.freeze());
            *response.status_mut() = answer.status();
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            Ok(response)
        };
        let answer = timeout(within, answered).await;
        let answer = answer.map_err(|_| self.silent(within))??;
        if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        match serde_json::from_slice(answer.body()) {
            Ok(problem) => Err(ClientError::Problem(problem)),
            Err(_) => Err(unreadable(target, answer.status().as_str())),
        }
    }

    /// What an answer begins with.
    pub(super) async fn head(
        &self,
        request: reqwest::RequestBuilder,
        within: Duration,
    ) -> Result<reqwest::Response, ClientError> {
        let answer = timeout(within, request.send()).await;
        let answer = answer.map_err(|_| self.silent(within))?;
        answer.map_err(|error| self.failed(error))
    }

    /// The next piece of an answer; `None` after the last.
    pub(super) async fn piece(
        &self,
        answer: &mut reqwest::Response,
        within: Duration,
    ) -> Result<Option<Bytes>, ClientError> {
        let piece = timeout(within, answer.chunk()).await;
        let piece = piece.map_err(|_| self.silent(within))?;
        piece.map_err(|error| self.failed(error))
    }

    fn silent(&self, waited: Duration) -> ClientError {
        ClientError::Silent {
            path: self.path.clone(),
            waited,
        }
    }

    fn failed(&self, error: reqwest::Error) -> ClientError {
        let path = self.path.clone();
        match error.is_connect() {
            true => ClientError::Unreachable {
                path,
                source: transport::io_error(&error),
            },
            false => ClientError::Broken {
                path,
                source: error.without_url(),
            },
        }
    }
}

/// A text as a query takes it.
pub(super) fn encoded(text: &str) -> String {
    percent_encoded(text, RESERVED)
}

pub(super) fn unreadable(target: &str, why: &str) -> ClientError {
    ClientError::Unreadable {
        target: target.to_owned(),
        why: why.to_owned(),
    }
}

/// How many may sit.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotLimits {
    pub all: usize,
    /// Those of one user other than root.
    pub of_user: usize,
    /// Those of all callers without any right.
    pub of_strangers: usize,
    /// Those of one such user.
    pub of_stranger: usize,
    /// Those of callers of whom the system is being asked, and as many of them whose uids are in the system's own block.
    pub of_unknown: usize,
    /// Those of another block of such uids.
    pub of_unknown_block: usize,
    /// Those of one such user.
    pub of_unknown_user: usize,
    /// Left to root: an operator must get in when everybody else has taken every seat.
    pub for_root: usize,
    /// Left to users who have few.
    pub for_newcomers: usize,
}

impl SlotLimits {
    /// The local socket. The unit allows 8192 files.
    pub(super) const SOCKET: Self = Self {
        all: 4096,
        of_user: 1024,
        of_strangers: 32,
        of_stranger: 8,
        of_unknown: 512,
        of_unknown_block: 128,
        of_unknown_user: 64,
        for_root: 64,
        for_newcomers: 512,
    };
}

/// So many are few.
const FEW: usize = 8;

/// Requests of one user that are worked on at once, streams and long polls that wait left out.
const fn turns(standing: CallerStanding) -> usize {
    match standing {
        CallerStanding::Trusted => 256,
        CallerStanding::Reader => 16,
        CallerStanding::Stranger | CallerStanding::Unknown => 4,
    }
}

/// The seats; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    limits: SlotLimits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_standing: BTreeMap<CallerStanding, usize>,
    users: BTreeMap<(u32, CallerStanding), User>,
    /// Of callers of whom the system is being asked, by block of uids.
    blocks: BTreeMap<u32, usize>,
}

#[derive(Debug)]
struct User {
    seats: usize,
    turns: Turns,
}

/// One connection's; taken until dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    user: (u32, CallerStanding),
    /// Where it is counted.
    block: Option<u32>,
    turns: Turns,
}

impl Seats {
    pub(super) fn new(limits: SlotLimits) -> Self {
        Self {
            limits,
            taken: Arc::default(),
        }
    }

    /// A seat, or why there is none.
    pub(super) fn take(&self, peer: Peer, standing: CallerStanding) -> Result<Seat, Problem> {
        let mut taken = self.taken();
        let user = (peer.uid, standing);
        let own = taken.users.get(&user).map_or(0, |user| user.seats);
        let block = (standing == CallerStanding::Unknown).then(|| peer.block());
        if let Some(why) = self.limits.full(&taken, own, (standing, block)) {
            return Err(Problem::new(ProblemType::Throttled, why).retry_after(AGAIN));
        }
        taken.all += 1;
        *taken.by_standing.entry(standing).or_default() += 1;
        if let Some(block) = block {
            *taken.blocks.entry(block).or_default() += 1;
        }
        let entry = taken.users.entry(user).or_insert_with(|| User {
            seats: 0,
            turns: Turns::of(turns(standing)),
        });
        entry.seats += 1;
        let turns = entry.turns.clone();
        drop(taken);
        Ok(Seat {
            seats: self.clone(),
            user,
            block,
            turns,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When whoever was turned away may come again.
const AGAIN: Duration = Duration::from_secs(1);

/// The block of uids in which the users of a system are.
const SYSTEM: u32 = 0;

impl Taken {
    /// Seats of callers of whom the system is being asked, in its own block of uids or in all others.
    fn asked_about(&self, in_system: bool) -> usize {
        let alike = self.blocks.iter();
        let alike = alike.filter(|(block, _)| (**block == SYSTEM) == in_system);
        alike.map(|(_, seats)| seats).sum()
    }
}

impl SlotLimits {
    /// Why somebody who has `own` seats gets no other.
    fn full(
        &self,
        taken: &Taken,
        own: usize,
        (standing, block): (CallerStanding, Option<u32>),
    ) -> Option<String> {
        let alike = taken.by_standing.get(&standing).copied().unwrap_or(0);
        let asked_about = block.map_or(0, |block| taken.asked_about(block == SYSTEM));
        let in_block = block.and_then(|block| taken.blocks.get(&block));
        let in_block = in_block.filter(|_| block != Some(SYSTEM));
        match standing {
            CallerStanding::Unknown
                if own >= self.of_unknown_user
                    || asked_about >= self.of_unknown
                    || in_block.is_some_and(|taken| *taken >= self.of_unknown_block) =>
            {
                Some(format!(
                    "the system is still being asked who this user is, and {alike} connections wait for such answers"
                ))
            }
            CallerStanding::Trusted if taken.all >= self.all => Some(format!(
                "renewd has {} connections open, which is the most",
                self.all
            )),
            CallerStanding::Trusted => None,
            CallerStanding::Stranger if own >= self.of_stranger => Some(format!(
                "this user may read no identity here, and {} connections are the most that such a user may have",
                self.of_stranger
            )),
            CallerStanding::Stranger if alike >= self.of_strangers => Some(format!(
                "this user may read no identity here, and the {} connections are taken that all such users have together",
                self.of_strangers
            )),
            CallerStanding::Reader if own >= self.of_user => Some(format!(
                "this user has {} connections open, which is the most",
                self.of_user
            )),
            CallerStanding::Reader | CallerStanding::Stranger | CallerStanding::Unknown => {
                let left = self.for_root + if own < FEW { 0 } else { self.for_newcomers };
                (taken.all + left >= self.all).then(|| {
                    format!("renewd has {} connections open: the last ones are for root and for users with fewer than {FEW}", taken.all)
                })
            }
        }
    }
}

impl Seat {
    /// The turns of its user.
    pub(super) fn turns(&self) -> Turns {
        self.turns.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Some(count) = taken.by_standing.get_mut(&self.user.1) {
            *count -= 1;
        }
        if let Some(block) = self.block
            && let Some(count) = taken.blocks.get_mut(&block)
        {
            *count -= 1;
            if *count == 0 {
                taken.blocks.remove(&block);
            }
        }
        if let Some(user) = taken.users.get_mut(&self.user) {
            user.seats -= 1;
            if user.seats == 0 {
                taken.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: SlotLimits = SlotLimits {
        all: 80,
        of_user: 20,
        of_strangers: 6,
        of_stranger: 2,
        of_unknown: 12,
        of_unknown_block: 4,
        of_unknown_user: 2,
        for_root: 4,
        for_newcomers: 16,
    };

    fn fill(seats: &Seats, uid: u32, standing: CallerStanding) -> (Vec<Seat>, String) {
        let mut taken = Vec::new();
        loop {
            match seats.take(Peer { uid, gid: uid }, standing) {
                Ok(seat) => taken.push(seat),
                Err(problem) => return (taken, problem.detail),
            }
        }
    }

    #[test]
    fn callers_without_rights_share_few_seats_and_hear_so() {
        let seats = Seats::new(SMALL);
        let all: Vec<_> = (1..=3)
            .map(|uid| fill(&seats, uid, CallerStanding::Stranger))
            .collect();
        assert!(all.iter().all(|(taken, _)| taken.len() == 2));
        assert!(
            all[0].1.contains("2 connections are the most"),
            "{}",
            all[0].1
        );
        let (none, why) = fill(&seats, 9, CallerStanding::Stranger);
        assert!(none.is_empty() && why.contains("all such users"), "{why}");
        assert_eq!(fill(&seats, 9, CallerStanding::Reader).0.len(), 20);
        drop(all);
        assert_eq!(fill(&seats, 9, CallerStanding::Stranger).0.len(), 2);
    }

    #[test]
    fn whoever_comes_as_many_users_leaves_seats_to_those_who_come_for_the_first_time() {
        let seats = Seats::new(SMALL);
        let fill_all = |uids: std::ops::Range<u32>| -> Vec<_> {
            let each = uids.map(|uid| fill(&seats, uid, CallerStanding::Unknown).0);
            each.flatten().collect()
        };
        let many = fill_all(100_000..100_100);
        assert_eq!(many.len(), SMALL.of_unknown_block);
        let more = fill_all(1_000_000..1_300_000);
        assert_eq!(many.len() + more.len(), SMALL.of_unknown);
        let (taken, why) = fill(&seats, 7, CallerStanding::Unknown);
        assert_eq!(taken.len(), SMALL.of_unknown_user, "{why}");
        assert!(why.contains("14 connections wait"), "{why}");
        let others = fill_all(8..20);
        assert_eq!(taken.len() + others.len(), SMALL.of_unknown);
        drop((more, others));
        drop((many, taken));
        assert!(seats.taken().blocks.is_empty());
    }

    #[test]
    fn readers_who_take_all_they_can_leave_some_to_others_and_root() {
        let seats = Seats::new(SMALL);
        let many: Vec<_> = (1..=4)
            .map(|uid| fill(&seats, uid, CallerStanding::Reader))
            .collect();
        assert!(many[0].1.contains("this user has 20"), "{}", many[0].1);
        assert!(many[3].1.contains("fewer than 8"), "{}", many[3].1);
        let (few, _) = fill(&seats, 7, CallerStanding::Reader);
        assert!(!few.is_empty());
        let (root, why) = fill(&seats, 0, CallerStanding::Trusted);
        assert!(root.len() >= SMALL.for_root, "{}", root.len());
        assert!(why.contains("80 connections"), "{why}");
        drop((many, few, root));
        assert_eq!(seats.taken().all, 0);
        assert!(seats.taken().users.is_empty());
    }
}
