//! What callers may do: asked of the system once, remembered for a moment, for all endpoints alike.
//!
//! Who a caller is and whom the names in `readers` and `admins` mean is remembered, not what follows from it:
//! a change of either list counts at once, and only the system's own answers may be some seconds old.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, OnceCell, Semaphore, SemaphorePermit, watch},
    time::timeout,
};

use super::{
    peer::{Caller, CallerStanding, Peer, Principal, Right, right},
    problem::{Problem, ProblemType},
    shared_state::SharedState,
};
use crate::{
    accounts,
    clock::Clock,
    model::{Name, Reader, Record},
    pool,
    store::{Led, Store},
};

/// How long an answer of the system holds.
const HOLDS: Duration = Duration::from_secs(5);
/// How long whoever was granted something counts as a reader, whatever the lists say of their name: an
/// account may have several.
const KNOWN: Duration = Duration::from_mins(10);
/// Answers of each kind that are kept at once.
const MOST: usize = 4096;
/// Callers of whom nothing is known that are asked about at once: half of the threads for such questions.
const ABOUT_UNKNOWN: usize = 2;
/// Queues for those questions, one at a time from each.
const QUEUES: usize = 64;
/// How long the system may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The answers; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    clock: Clock,
    store: Store,
    shared_state: watch::Receiver<Arc<SharedState>>,
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    memory: Mutex<Memory>,
    /// Questions about callers of whom nothing is known: the other threads are left to readers, however many
    /// names a caller goes by.
    unknown: Semaphore,
    /// Where they wait, each block of uids by itself.
    queues: [Semaphore; QUEUES],
    /// One question about names at a time: whoever comes meanwhile finds the answer there.
    resolving: tokio::sync::Mutex<()>,
    /// How often the system was asked.
    #[cfg(test)]
    asked: std::sync::atomic::AtomicUsize,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            memory: Mutex::default(),
            unknown: Semaphore::new(ABOUT_UNKNOWN),
            queues: std::array::from_fn(|_| Semaphore::new(1)),
            resolving: tokio::sync::Mutex::default(),
            #[cfg(test)]
            asked: std::sync::atomic::AtomicUsize::new(0),
        }
    }
}

impl Known {
    /// The turn to be asked about: first among the uids of one's own block, so that whoever comes as many users of a
    /// block keeps nobody waiting but those.
    async fn turn(&self, peer: Peer) -> Result<[SemaphorePermit<'_>; 2], AcquireError> {
        let block = peer.block() as usize;
        let queue = match block {
            0 => 0,
            block => 1 + block % (QUEUES - 1),
        };
        let own = self.queues[queue].acquire().await?;
        Ok([own, self.unknown.acquire().await?])
    }
}

#[derive(Debug, Default)]
struct Memory {
    callers: Answers<Peer, Arc<OnceCell<Arc<Caller>>>>,
    principals: Answers<Reader, Option<Principal>>,
    standings: Answers<Peer, CallerStanding>,
    known: Answers<Peer, ()>,
}

/// Answers with the time of the question.
#[derive(Debug)]
struct Answers<K, V>(BTreeMap<K, (Duration, V)>);

impl<K, V> Default for Answers<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Clone> Answers<K, V> {
    fn get(&self, key: &K, now: Duration, holds: Duration) -> Option<V> {
        let (since, value) = self.0.get(key)?;
        (now < *since + holds).then(|| value.clone())
    }

    fn keep(&mut self, key: K, value: V, now: Duration, holds: Duration) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (since, _)| now < *since + holds);
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, (now, value));
    }
}

impl Rights {
    pub(super) fn new(
        clock: Clock,
        store: Store,
        shared_state: watch::Receiver<Arc<SharedState>>,
    ) -> Self {
        Self {
            clock,
            store,
            shared_state,
            known: Arc::default(),
        }
    }

    /// Who may control the daemon besides root and its own user, as the configuration says now.
    fn admins(&self) -> Vec<Reader> {
        self.shared_state.borrow().daemon.admins.clone()
    }

    /// What this peer may do now where `readers` may read: root, the daemon's own user and admins control.
    pub(super) async fn of(&self, peer: Peer, readers: &[Reader]) -> Result<Right, Problem> {
        let own = accounts::own_uid();
        if peer.uid == 0 || peer.uid == own {
            return Ok(Right::Control);
        }
        let now = self.clock.steady();
        let admins = self.admins();
        let caller = self.caller(peer, now).await?;
        let all: BTreeSet<&Reader> = admins.iter().chain(readers).collect();
        let known = self.principals(&all, now).await?;
        let meant = |list: &[Reader]| -> Vec<Principal> {
            let found = list.iter().filter_map(|reader| known.get(reader).copied());
            found.flatten().collect()
        };
        let right = right(&caller, own, &meant(&admins), &meant(readers));
        if right != Right::None {
            self.memory().known.keep(peer, (), now, KNOWN);
        }
        Ok(right)
    }

    /// The identity of this name for those who may read it. To everybody else one that there is not and one
    /// that is not theirs are the same, in answer and in work; only admins learn that there is none.
    pub(super) async fn admit(
        &self,
        peer: Option<Peer>,
        name: Option<&Name>,
    ) -> Result<Record, Problem> {
        let peer = peer.ok_or_else(not_for_you)?;
        let asked = match name {
            Some(name) => name.clone(),
            None => nobody()?,
        };
        let led = self.store.led_to(vec![asked]).await?.pop();
        match self.permit(peer, led).await? {
            Some(record) if name.is_some() => Ok(record),
            _ => Err(Problem::new(
                ProblemType::Unknown,
                "there is no identity of this name",
            )),
        }
    }

    /// What a name led to, for those who may know: nothing there is told to admins alone.
    pub(super) async fn permit(
        &self,
        peer: Peer,
        led: Option<Led>,
    ) -> Result<Option<Record>, Problem> {
        let (readers, record) = match led {
            Some(Led::There(record)) => (record.spec.declared.readers.clone(), Some(*record)),
            Some(Led::Nowhere(others)) => (others.unwrap_or_default(), None),
            None => (Vec::new(), None),
        };
        match self.of(peer, &readers).await? {
            Right::Control => Ok(record),
            Right::Read if record.is_some() => Ok(record),
            Right::Read | Right::None => Err(not_for_you()),
        }
    }

    /// Whether this peer may do anything at all, as far as is remembered.
    pub(super) fn remembered_standing(&self, peer: Peer) -> Option<CallerStanding> {
        if peer.uid == 0 || peer.uid == accounts::own_uid() {
            return Some(CallerStanding::Trusted);
        }
        let (memory, now) = (self.memory(), self.clock.steady());
        if memory.known.get(&peer, now, KNOWN).is_some() {
            return Some(CallerStanding::Reader);
        }
        memory.standings.get(&peer, now, HOLDS)
    }

    /// Whether this peer may do anything at all, by the names of its user and groups.
    pub(super) async fn standing(&self, peer: Peer) -> Result<CallerStanding, Problem> {
        if let Some(standing) = self.remembered_standing(peer) {
            return Ok(standing);
        }
        let turn = timeout(ANSWER, self.known.turn(peer)).await;
        let _turn = turn.map_err(|_| unanswered())?;
        if let Some(standing) = self.remembered_standing(peer) {
            return Ok(standing);
        }
        let now = self.clock.steady();
        let caller = self.caller(peer, now).await?;
        let admins = self.admins();
        let may = caller.names.iter().any(|name| admins.contains(name))
            || self.store.may_any_read(caller.names.clone()).await?;
        let standing = if may {
            CallerStanding::Reader
        } else {
            CallerStanding::Stranger
        };
        self.memory().standings.keep(peer, standing, now, HOLDS);
        Ok(standing)
    }

    /// How the audit trail names a peer: `uid 1000 (anna)`.
    pub(super) async fn actor(&self, peer: Peer) -> String {
        match self.caller(peer, self.clock.steady()).await {
            Ok(caller) if caller.name != peer.uid.to_string() => {
                format!("uid {} ({})", peer.uid, caller.name)
            }
            _ => format!("uid {}", peer.uid),
        }
    }

    async fn caller(&self, peer: Peer, now: Duration) -> Result<Arc<Caller>, Problem> {
        let cell = {
            let mut memory = self.memory();
            match memory.callers.get(&peer, now, HOLDS) {
                Some(cell) => cell,
                None => {
                    let cell = Arc::default();
                    memory.callers.keep(peer, Arc::clone(&cell), now, HOLDS);
                    cell
                }
            }
        };
        let asked = cell.get_or_try_init(|| self.ask(move || Caller::ask(peer)));
        Ok(Arc::clone(asked.await?))
    }

    /// Whom these names mean; names that the system does not know mean nobody.
    async fn principals(
        &self,
        wanted: &BTreeSet<&Reader>,
        now: Duration,
    ) -> Result<BTreeMap<Reader, Option<Principal>>, Problem> {
        let (mut known, missing) = self.remembered(wanted, now);
        if missing.is_empty() {
            return Ok(known);
        }
        let _alone = self.known.resolving.lock().await;
        let missing: BTreeSet<&Reader> = missing.iter().collect();
        let (more, missing) = self.remembered(&missing, now);
        known.extend(more);
        if missing.is_empty() {
            return Ok(known);
        }
        let asked = move || -> Vec<(Reader, Option<Principal>)> {
            let asked = missing.into_iter().map(|reader| {
                let meant = Principal::of(&reader);
                (reader, meant)
            });
            asked.collect()
        };
        let found = self.ask(asked).await?;
        let mut memory = self.memory();
        for (reader, meant) in found.iter().cloned() {
            memory.principals.keep(reader, meant, now, HOLDS);
        }
        known.extend(Arc::unwrap_or_clone(found));
        Ok(known)
    }

    fn remembered(
        &self,
        wanted: &BTreeSet<&Reader>,
        now: Duration,
    ) -> (BTreeMap<Reader, Option<Principal>>, Vec<Reader>) {
        let memory = self.memory();
        let (mut known, mut missing) = (BTreeMap::new(), Vec::new());
        for reader in wanted {
            match memory.principals.get(reader, now, HOLDS) {
                Some(meant) => {
                    known.insert((*reader).clone(), meant);
                }
                None => missing.push((*reader).clone()),
            }
        }
        (known, missing)
    }

    /// Asks the system. It may take as long as a directory server takes, so within bounds.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Arc<T>, Problem> {
        #[cfg(test)]
        self.known
            .asked
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match timeout(ANSWER, pool::ACCOUNTS.run(work)).await {
            Ok(Ok(answer)) => Ok(Arc::new(answer)),
            _ => Err(unanswered()),
        }
    }

    /// How often the system was asked so far.
    #[cfg(test)]
    pub(super) fn asked(&self) -> usize {
        self.known.asked.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.known
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for somebody else's identity and for one that does not exist.
pub(super) fn not_for_you() -> Problem {
    Problem::new(
        ProblemType::Forbidden,
        "there is no identity of this name that you may read: ask for your user or group to be \
         put into its `readers`",
    )
}

fn unanswered() -> Problem {
    let why = "the system's user database does not answer, so nobody knows who you are";
    Problem::new(ProblemType::Busy, why).retry_after(HOLDS)
}

/// A name to look for in the place of what is no name.
fn nobody() -> Result<Name, Problem> {
    let name = "0".parse();
    name.map_err(|_| Problem::new(ProblemType::Internal, "no name is valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_a_while_and_memory_is_bounded() {
        let mut answers = Answers::default();
        answers.keep(1, "a", Duration::ZERO, HOLDS);
        assert_eq!(answers.get(&1, HOLDS / 2, HOLDS), Some("a"));
        assert_eq!(answers.get(&1, HOLDS, HOLDS), None);
        for key in 0..2 * MOST {
            answers.keep(key, "b", Duration::ZERO, HOLDS);
        }
        assert!(answers.0.len() <= MOST);
    }
}
