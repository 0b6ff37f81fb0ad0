//! What waits for one operation: its rows in order, its pace and its health.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use super::Moment;
use crate::{
    config::Limit,
    model::{Num, Operation, Record},
    schedule::{Health, Pace, Steady},
    store::Work,
};

/// Rows in hand are read again after this long: their order may have changed.
const FRESH: Duration = Duration::from_secs(1);

/// One operation of a lane.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) operation: Operation,
    pub(super) pace: Pace,
    pub(super) health: Health,
    pub(super) in_flight: usize,
    /// Due rows in hand, the most urgent first.
    pub(super) ready: VecDeque<Record>,
    read_at: Steady,
    /// When rows may be due that are not in hand.
    pub(super) look_at: Option<Timestamp>,
    /// Rows that were probed in this outage; see [`Queue::passed_over`].
    probed: BTreeSet<Num>,
    probes: u32,
    limit: Limit,
}

/// Which rows of the store an operation works on.
pub(super) fn work(operation: Operation) -> Work {
    match operation {
        Operation::CreateWithToken => Work::Create,
        _ => Work::Issue,
    }
}

impl Queue {
    pub(super) fn new(operation: Operation, limit: Limit) -> Self {
        Self {
            operation,
            pace: Pace::new(limit),
            health: Health::default(),
            in_flight: 0,
            ready: VecDeque::new(),
            read_at: Steady::ZERO,
            look_at: Some(Timestamp::MIN),
            probed: BTreeSet::new(),
            probes: 0,
            limit,
        }
    }

    /// Rows may have become due.
    pub(super) fn look_again(&mut self) {
        self.look_at = Some(Timestamp::MIN);
    }

    /// A row will be due then.
    pub(super) fn due_at(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |look| look.min(at)));
    }

    /// Whether the rows in hand should be read (again).
    pub(super) fn wants_rows(&self, now: Moment) -> bool {
        if self.ready.is_empty() {
            self.look_at.is_some_and(|at| at <= now.wall)
        } else {
            now.steady >= self.read_at + FRESH
        }
    }

    pub(super) fn hold(&mut self, rows: Vec<Record>, now: Moment) {
        self.ready = rows.into();
        self.read_at = now.steady;
    }

    /// How many rows to take into hand at once: some rounds' worth, so that the ordering query is
    /// not run for each call.
    pub(super) fn handful(&self) -> usize {
        (self.limit.calls as usize / 8).clamp(64, 1024)
    }

    /// Rows that the next probe passes over. The most urgent identity is probed first; but every
    /// second probe goes to one that was not tried yet, so that an identity that fails for a reason
    /// of its own cannot keep the others waiting.
    pub(super) fn passed_over(&self) -> Option<&BTreeSet<Num>> {
        (self.probes % 2 == 1 && !self.probed.is_empty()).then_some(&self.probed)
    }

    /// Every waiting row was tried once; start over.
    pub(super) fn forget_probed(&mut self) {
        self.probed.clear();
    }

    /// This row is being probed.
    pub(super) fn probe(&mut self, num: Num) {
        self.probed.insert(num);
        self.probes += 1;
    }

    /// The outage is over.
    pub(super) fn end_probing(&mut self) {
        self.probed.clear();
        self.probes = 0;
    }
}
