//! Everybody who watches, each at a seat: what changed is left there once, and taken at the reader's pace. A seat
//! keeps the newest event of each identity alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::problem::{Problem, ProblemType};
use crate::{
    model::{Name, Reader, TokenDocument, Version},
    schedule::Standing,
};

/// Names that are watched at once, each as often as it is: what watchers may take is counted by them.
pub(super) const MOST_WATCHED: usize = 96 * 1024;
/// Those of one user other than root.
const MOST_WATCHED_BY_USER: usize = 32 * 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Hub {
    seats: Arc<Mutex<Seats>>,
}

#[derive(Debug, Default)]
struct Seats {
    last: u64,
    seats: BTreeMap<u64, Arc<Seat>>,
    by_name: BTreeMap<Name, BTreeSet<u64>>,
    everything: BTreeSet<u64>,
    /// What each user watches.
    weights: BTreeMap<u32, usize>,
}

/// A seat that is kept until dropped.
#[derive(Debug)]
pub(super) struct WatchTicket {
    hub: Hub,
    number: u64,
    uid: u32,
    interest: Interest,
    pub(super) seat: Arc<Seat>,
}

impl Hub {
    /// A seat for whatever changes from now on.
    ///
    /// # Errors
    /// When this user, or all together, watch as much as may be watched.
    pub(super) fn sit(&self, uid: u32, interest: Interest) -> Result<WatchTicket, Problem> {
        let mut seats = self.seats();
        let weight = interest.weight();
        seats.admit(uid, weight)?;
        seats.last += 1;
        let (number, seat) = (seats.last, Arc::new(Seat::default()));
        seats.seats.insert(number, Arc::clone(&seat));
        match &interest {
            Interest::All => {
                seats.everything.insert(number);
            }
            Interest::These(names) => {
                for name in names {
                    seats
                        .by_name
                        .entry(name.clone())
                        .or_default()
                        .insert(number);
                }
            }
        }
        drop(seats);
        Ok(WatchTicket {
            hub: self.clone(),
            number,
            uid,
            interest,
            seat,
        })
    }

    pub(super) fn is_watched(&self, name: &Name) -> bool {
        let seats = self.seats();
        !seats.everything.is_empty() || seats.by_name.contains_key(name)
    }

    pub(super) fn leave(&self, event: &Arc<Event>) {
        for seat in self.seats().of(&event.name) {
            seat.leave(event);
        }
    }

    pub(super) fn lose_all(&self) {
        for seat in self.seats().seats.values() {
            seat.lose();
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Counts what a user watches more, within bounds.
    fn admit(&mut self, uid: u32, weight: usize) -> Result<(), Problem> {
        let refuse = |who: &str, most: usize| {
            let why = format!("{who} {most} names at once, which is the most; come again later");
            Err(Problem::new(ProblemType::Busy, why).retry_after(Duration::from_secs(5)))
        };
        let all: usize = self.weights.values().sum();
        let own = self.weights.get(&uid).copied().unwrap_or(0);
        if uid != 0 && own + weight > MOST_WATCHED_BY_USER {
            return refuse("this user watches", MOST_WATCHED_BY_USER);
        }
        if all + weight > MOST_WATCHED {
            return refuse("all users together watch", MOST_WATCHED);
        }
        self.weights.insert(uid, own + weight);
        Ok(())
    }

    fn of(&self, name: &Name) -> impl Iterator<Item = &Arc<Seat>> {
        let named = self.by_name.get(name).into_iter().flatten();
        let numbers = named.chain(&self.everything);
        numbers.filter_map(|number| self.seats.get(number))
    }
}

impl Drop for WatchTicket {
    fn drop(&mut self) {
        let mut seats = self.hub.seats();
        if let Some(own) = seats.weights.get_mut(&self.uid) {
            *own = own.saturating_sub(self.interest.weight());
            if *own == 0 {
                seats.weights.remove(&self.uid);
            }
        }
        seats.seats.remove(&self.number);
        seats.everything.remove(&self.number);
        if let Interest::These(names) = &self.interest {
            for name in names {
                if let Some(numbers) = seats.by_name.get_mut(name) {
                    numbers.remove(&self.number);
                    if numbers.is_empty() {
                        seats.by_name.remove(name);
                    }
                }
            }
        }
    }
}

/// Events that may wait; beyond it the watcher reads the full state again, page by page.
const MOST_WAITING: usize = 1024;

/// What a watcher wants to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interest {
    These(BTreeSet<Name>),
    /// All that there are.
    All,
}

impl Interest {
    /// For how many names it counts: as many events may wait for it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::These(names) => names.len(),
            Self::All => MOST_WAITING,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Seat {
    waiting: Mutex<Waiting>,
    woken: Notify,
}

/// By the number of the change, so that the oldest goes first: whoever comes again with the number
/// of the last event that was sent gets everything that still waited.
#[derive(Debug, Default)]
struct Waiting {
    events: BTreeMap<u64, Arc<Event>>,
    numbers: BTreeMap<Name, u64>,
    lost: bool,
}

/// What there is for a watcher.
#[derive(Debug)]
pub(super) enum Taken {
    /// The oldest that waits.
    Event(Arc<Event>),
    /// Too much has happened: the full state has to be read again.
    Lost,
    Nothing,
}

impl Seat {
    /// Leaves an event, in place of an older one of the same identity.
    pub(super) fn leave(&self, event: &Arc<Event>) {
        let mut waiting = self.waiting();
        if let Some(older) = waiting.numbers.insert(event.name.clone(), event.seq) {
            waiting.events.remove(&older);
        }
        waiting.events.insert(event.seq, Arc::clone(event));
        if waiting.events.len() > MOST_WAITING {
            waiting.lose();
        }
        drop(waiting);
        self.woken.notify_one();
    }

    /// Tells the watcher to read the full state again.
    pub(super) fn lose(&self) {
        self.waiting().lose();
        self.woken.notify_one();
    }

    /// Takes what comes next.
    pub(super) fn take(&self) -> Taken {
        let mut waiting = self.waiting();
        if std::mem::take(&mut waiting.lost) {
            return Taken::Lost;
        }
        match waiting.events.pop_first() {
            Some((_, event)) => {
                waiting.numbers.remove(&event.name);
                Taken::Event(event)
            }
            None => Taken::Nothing,
        }
    }

    /// Returns once there is something, or at once if something was left since the last time.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn lose(&mut self) {
        *self = Self {
            lost: true,
            ..Self::default()
        };
    }
}

/// How soon a reader that lost its connection should come again, in milliseconds.
const COME_AGAIN_MS: u32 = 1000;

/// The state of one identity, rendered once for everybody who watches it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: Name,
    pub(super) version: Version,
    /// Who may see it.
    pub(super) readers: Vec<Reader>,
    /// When the token in it ends, by our clock; `None` where it holds none.
    pub(super) ends_at: Option<Timestamp>,
    /// The number of the change that made it.
    pub(super) seq: u64,
    data: Bytes,
}

impl Event {
    /// What a watcher may be told of a row at this instant, given how its resource stands.
    pub(super) fn of(
        (document, stands): (TokenDocument, Standing),
        readers: Vec<Reader>,
        seq: u64,
        now: Timestamp,
    ) -> Self {
        let end = match stands {
            Standing::Good { left } | Standing::Doubtful { left, .. } => {
                now.checked_add(left).unwrap_or(Timestamp::MAX)
            }
            Standing::None | Standing::Dead { .. } => Timestamp::MIN,
        };
        Self {
            name: document.name.clone(),
            version: document.version,
            readers,
            ends_at: document.token.as_ref().map(|_| end),
            seq,
            data: Bytes::from_owner(document.to_json()),
        }
    }

    /// Whether what it says of the token still holds.
    pub(super) fn is_good(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }

    /// The event as it goes out, numbered.
    pub(super) fn frame(&self, id: u64) -> Bytes {
        let head = format!("id: {id}\nevent: token\ndata: ");
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + self.data.len() + 2));
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.data);
        bytes.extend_from_slice(b"\n\n");
        // Wiped when the last part of it has been written.
        Bytes::from_owner(bytes)
    }
}

/// The first frame: how soon to come again.
pub(super) fn welcome() -> Bytes {
    Bytes::from(format!("retry: {COME_AGAIN_MS}\n\n"))
}

/// Moves the reader's place in the stream without telling it anything.
pub(super) fn place(id: u64) -> Bytes {
    Bytes::from(format!("id: {id}\n\n"))
}

/// Says that the connection lives.
pub(super) fn heartbeat() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// The last that a watcher hears of an identity that it may no longer read.
pub(super) fn forbidden(name: &Name, problem: &Problem) -> Bytes {
    let mut document = serde_json::to_value(problem).unwrap_or_default();
    document["name"] = name.as_str().into();
    Bytes::from(format!("event: forbidden\ndata: {document}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{tests::holding, tokens::shown},
        schedule::Grounds,
    };

    fn event(name: &str, seq: u64) -> Arc<Event> {
        let (now, holding) = (Timestamp::UNIX_EPOCH, holding(name));
        let readers = holding.record.spec.declared.readers.clone();
        let document = shown(holding, &Grounds::default(), now);
        Arc::new(Event::of(document, readers, seq, now))
    }

    fn taken(seat: &Seat) -> Vec<u64> {
        let mut all = Vec::new();
        while let Taken::Event(event) = seat.take() {
            all.push(event.seq);
        }
        all
    }

    #[test]
    fn the_newest_of_each_waits_and_the_oldest_number_goes_first() {
        let seat = Seat::default();
        for (name, seq) in [("anna", 10), ("bert", 12), ("anna", 15)] {
            seat.leave(&event(name, seq));
        }
        assert_eq!(taken(&seat), [12, 15]);
        seat.leave(&event("anna", 16));
        assert_eq!(taken(&seat), [16]);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_no_more_than_so_much() {
        let seat = Seat::default();
        for seq in 0..=MOST_WAITING as u64 {
            seat.leave(&event(&format!("n{seq}"), seq));
        }
        assert!(matches!(seat.take(), Taken::Lost));
        assert!(matches!(seat.take(), Taken::Nothing));
    }
}
