//! What the store tells others after a commit: rows became due, versions rose, a campaign began.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::db::{Changed, Effects};

/// How many changes are kept for those who resume a watch stream.
const KEPT: usize = 4096;

/// Counters that rise with what happened; cheap to clone.
#[derive(Clone)]
pub(super) struct Signals {
    pub(super) due: watch::Sender<u64>,
    pub(super) wanted: watch::Sender<u64>,
    pub(super) campaigns: watch::Sender<u64>,
    recent: Arc<Mutex<Recent>>,
}

struct Recent {
    /// Changes after this number are all in the list.
    since: u64,
    list: VecDeque<Changed>,
}

impl Signals {
    /// Starts after the last number of the watch stream.
    pub(super) fn since(seq: u64) -> Self {
        Self {
            due: watch::Sender::new(0),
            wanted: watch::Sender::new(0),
            campaigns: watch::Sender::new(0),
            recent: Arc::new(Mutex::new(Recent {
                since: seq,
                list: VecDeque::new(),
            })),
        }
    }

    pub(super) fn tell(&self, effects: Effects) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.list.extend(effects.changed);
            while recent.list.len() > KEPT {
                recent.since = recent.list.pop_front().map_or(recent.since, |c| c.seq);
            }
        }
        for (signal, happened) in [
            (&self.due, effects.due),
            (&self.wanted, effects.wanted),
            (&self.campaigns, effects.campaigns),
        ] {
            if happened {
                signal.send_modify(|n| *n += 1);
            }
        }
    }

    /// The changes after `seq`, or `None` when they are no longer all known.
    pub(super) fn after(&self, seq: u64) -> Option<Vec<Changed>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if seq < recent.since {
            return None;
        }
        let at = recent.list.partition_point(|c| c.seq <= seq);
        Some(recent.list.range(at..).cloned().collect())
    }

    /// The number of the newest change.
    pub(super) fn seq(&self) -> u64 {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.list.back().map_or(recent.since, |c| c.seq)
    }
}
