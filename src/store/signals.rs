//! Who is told of a commit: the signals that workers wait for, and the changes of versions that a watch stream resumes
//! from, whoever made them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    db::{Changed, Effects},
    nodes::{ChangeKind, SharedChange, SharedNews},
};

/// How many changes are kept for those who resume a watch stream.
const KEPT: usize = 4096;

/// Counters that rise with what happened; cheap to clone.
#[derive(Clone)]
pub(super) struct Signals {
    pub(super) due: watch::Sender<u64>,
    pub(super) wanted: watch::Sender<u64>,
    pub(super) campaigns: watch::Sender<u64>,
    /// In a cluster, with which entry the files of this machine end.
    pub(super) files_end_at: Arc<AtomicU64>,
    /// The files of this machine end elsewhere than the journal, or the database goes less far than was heard.
    pub(super) files_lag: watch::Sender<u64>,
    recent: Arc<Mutex<Recent>>,
}

struct Recent {
    /// Changes after this number are all in the list.
    since: u64,
    list: VecDeque<Changed>,
    /// The last number that was heard of; not each is that of a change in the list.
    upto: u64,
}

impl Recent {
    fn shorten(&mut self) {
        while self.list.len() > KEPT {
            self.since = self.list.pop_front().map_or(self.since, |c| c.seq);
        }
    }
}

impl Signals {
    /// Starts after the last number of the watch stream.
    pub(super) fn since(seq: u64) -> Self {
        Self {
            due: watch::Sender::new(0),
            wanted: watch::Sender::new(0),
            campaigns: watch::Sender::new(0),
            files_end_at: Arc::default(),
            files_lag: watch::Sender::new(0),
            recent: Arc::new(Mutex::new(Recent {
                since: seq,
                list: VecDeque::new(),
                upto: seq,
            })),
        }
    }

    pub(super) fn tell(&self, effects: Effects) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.list.extend(effects.changed);
            recent.upto = recent.list.back().map_or(recent.upto, |c| c.seq);
            recent.shorten();
        }
        self.raise(effects.due, effects.wanted, effects.campaigns);
    }

    /// From now on it counts from this number: what was before it is not known here.
    pub(super) fn begin_at(&self, seq: u64) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            *recent = Recent {
                since: seq,
                list: VecDeque::new(),
                upto: seq,
            };
        }
        self.wanted.send_modify(|n| *n += 1);
    }

    /// Tells of what several machines changed, each change once.
    pub(super) fn heed(&self, news: SharedNews) {
        if news.journal != self.files_end_at.load(Ordering::SeqCst) || news.upto < self.seq() {
            self.files_lag.send_modify(|n| *n += 1);
        }
        let (mut due, mut wanted, mut campaigns) = (news.gap, news.gap, news.gap);
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if news.gap && news.upto > recent.upto {
                recent.list.clear();
                recent.since = news.upto;
            }
            for SharedChange { seq, kind } in news.changes {
                if seq <= recent.upto {
                    continue;
                }
                match kind {
                    ChangeKind::Version { num, name, version } => {
                        wanted = true;
                        recent.list.push_back(Changed {
                            seq,
                            num,
                            name,
                            version,
                        });
                    }
                    ChangeKind::Signals(signals) => {
                        due |= signals.due;
                        wanted |= signals.wanted;
                        campaigns |= signals.campaigns;
                    }
                    ChangeKind::Row(_) => {}
                }
                recent.upto = seq;
            }
            recent.upto = recent.upto.max(news.upto);
            recent.shorten();
        }
        self.raise(due, wanted, campaigns);
    }

    fn raise(&self, due: bool, wanted: bool, campaigns: bool) {
        for (signal, happened) in [
            (&self.due, due),
            (&self.wanted, wanted),
            (&self.campaigns, campaigns),
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
        recent.upto
    }
}
