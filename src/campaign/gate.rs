//! What stands between an operation and ACS: its pace and its health.

use crate::{
    config::Limit,
    schedule::{Health, Pace, Press, Steady},
};

/// One operation of one resource.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) pace: Pace,
    pub(super) health: Health,
    pub(super) in_flight: usize,
}

impl Gate {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            pace: Pace::new(limit),
            health: Health::default(),
            in_flight: 0,
        }
    }

    /// Whether health lets one more call start.
    pub(super) fn is_open(&self, now: Steady) -> bool {
        self.health.room(self.in_flight, None, now) > 0
    }

    /// When one of so many waiting calls may start that could not now.
    pub(super) fn ready_at(&mut self, waiting: usize, now: Steady) -> Option<Steady> {
        if self.health.is_probing() {
            return self.health.probe_at(None);
        }
        if !self.is_open(now) {
            return None;
        }
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        self.pace.ready_at(waiting, Press::Ordinary, now)
    }
}
