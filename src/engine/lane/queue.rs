//! What waits for one operation: its rows in order.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use super::Moment;
use crate::{
    config::Limit,
    model::{Operation, Record},
    schedule::Steady,
    store::Work,
};

/// Rows in hand are read again after this long: their order may have changed.
const FRESH: Duration = Duration::from_secs(1);

/// One operation of a lane.
#[derive(Debug)]
pub(super) struct Queue {
    /// Due rows in hand, the most urgent first.
    pub(super) ready: VecDeque<Record>,
    read_at: Steady,
    /// When rows may be due that are not in hand.
    pub(super) look_at: Option<Timestamp>,
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
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            ready: VecDeque::new(),
            read_at: Steady::ZERO,
            look_at: Some(Timestamp::MIN),
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
}
