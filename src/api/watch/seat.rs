//! Where the hub leaves what a watcher has not been sent yet: of each identity the newest alone, and
//! never more than so many, however slow the reader is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::event::Event;
use crate::model::Name;

/// Events that may wait; beyond it the watcher reads the full state again, page by page.
const MOST_WAITING: usize = 1024;

/// What a watcher wants to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interest {
    /// These identities.
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

/// One watcher's.
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
    /// Nothing.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::tests::holding, model::Timestamp, schedule::Grounds};

    fn event(name: &str, seq: u64) -> Arc<Event> {
        Arc::new(Event::of(
            holding(name),
            seq,
            &Grounds::default(),
            Timestamp::UNIX_EPOCH,
        ))
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
