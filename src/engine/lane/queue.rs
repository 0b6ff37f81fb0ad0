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
    /// The earliest due time of all that wait, in hand or not, when rows were last read.
    pub(super) earliest: Option<Timestamp>,
    /// When rows may be due that are not in hand.
    pub(super) look_at: Option<Timestamp>,
    limit: Limit,
}

/// A line of rows that wait for one operation. Those that fail by themselves wait in a line of their
/// own, so that they keep nobody waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) operation: Operation,
    pub(super) alone: bool,
}

impl Line {
    /// Those that are not known to fail by themselves.
    pub(super) fn main(operation: Operation) -> Self {
        Self {
            operation,
            alone: false,
        }
    }

    /// Those that are.
    pub(super) fn alone(operation: Operation) -> Self {
        Self {
            operation,
            alone: true,
        }
    }

    /// Which rows of the store it is.
    pub(super) fn work(self) -> (Work, bool) {
        let work = match self.operation {
            Operation::CreateWithToken => Work::Create,
            _ => Work::Issue,
        };
        (work, self.alone)
    }
}

/// The lines of an operation.
#[derive(Debug)]
pub(super) struct Queues {
    main: Queue,
    alone: Queue,
    /// What those that fail by themselves have saved up of the permits of the others.
    saved: u32,
}

/// While others wait, those that fail by themselves get one permit after so many of theirs.
const TENTH: u32 = 10;
/// More than so many are not saved up.
const MOST_SAVED: u32 = 3;

impl Queues {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            main: Queue::new(limit),
            alone: Queue::new(limit),
            saved: 0,
        }
    }

    pub(super) fn line(&self, line: Line) -> &Queue {
        match line.alone {
            true => &self.alone,
            false => &self.main,
        }
    }

    pub(super) fn line_mut(&mut self, line: Line) -> &mut Queue {
        match line.alone {
            true => &mut self.alone,
            false => &mut self.main,
        }
    }

    pub(super) fn both(&mut self) -> [&mut Queue; 2] {
        [&mut self.main, &mut self.alone]
    }

    /// Whether it is the turn of one that fails by itself, although others wait.
    pub(super) fn tenth_is_saved(&self) -> bool {
        self.saved >= TENTH
    }

    /// A call starts.
    pub(super) fn started(&mut self, alone: bool) {
        match alone {
            true => self.saved = self.saved.saturating_sub(TENTH),
            false => self.saved = (self.saved + 1).min(TENTH * MOST_SAVED),
        }
    }
}

impl Queue {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            ready: VecDeque::new(),
            read_at: Steady::ZERO,
            earliest: None,
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
