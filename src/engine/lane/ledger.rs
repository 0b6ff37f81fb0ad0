//! What has been obtained and is not committed yet. While it cannot be committed, nothing more is
//! obtained: at most one batch is ever at stake.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::{
    model::{Applied, AuditEntry, Change, Notice},
    schedule::Steady,
    store::{Decided, Store, StoreError, Tidings},
};

const SHORTEST_TROUBLE: Duration = Duration::from_millis(500);
const LONGEST_TROUBLE: Duration = Duration::from_secs(30);
/// Notices that wait while the store cannot be written; older ones are let go.
const NOTICES_KEPT: usize = 1024;

/// How a write ended.
pub(super) type Written = Result<Vec<Applied>, StoreError>;

/// Uncommitted results, and what is written at the moment.
pub(super) struct Ledger {
    store: Store,
    most: usize,
    pending: Vec<Decided>,
    /// Being committed, or to be tried again.
    batch: Vec<Decided>,
    tidings: Tidings,
    /// Being told in one transaction with the batch.
    telling: Tidings,
    writing: Option<BoxFuture<'static, Written>>,
    /// When the last write began.
    began: Steady,
    trouble: Option<Trouble>,
    /// When the last trouble ended, and the gap that it had grown to.
    relapse: Option<(Steady, Duration)>,
    /// So many entries are committed one by one, to find the one that the store chokes on.
    singly: usize,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    gap: Duration,
    retry_at: Steady,
    told: bool,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("uncommitted", &self.uncommitted())
            .field("trouble", &self.trouble)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    pub(super) fn new(store: Store, max_in_flight: usize) -> Self {
        Self {
            store,
            most: (4 * max_in_flight).max(256),
            pending: Vec::new(),
            batch: Vec::new(),
            tidings: Tidings::default(),
            telling: Tidings::default(),
            writing: None,
            began: Steady::ZERO,
            trouble: None,
            relapse: None,
            singly: 0,
        }
    }

    /// Takes a result, and what to tell of it.
    pub(super) fn add(&mut self, change: Change, notices: Vec<Notice>) {
        self.pending.push(Decided { change, notices });
    }

    /// Takes a notice that is about no row.
    pub(super) fn tell(&mut self, notice: Notice) {
        let notices = &mut self.tidings.notices;
        if notices.len() == NOTICES_KEPT {
            notices.remove(0);
        }
        notices.push(notice);
    }

    /// Takes an entry of the audit trail.
    pub(super) fn audit(&mut self, entry: AuditEntry) {
        self.tidings.audits.push(entry);
    }

    /// Every result that is not committed.
    pub(super) fn all(&self) -> impl Iterator<Item = &Decided> {
        self.pending.iter().chain(&self.batch)
    }

    /// How many results are not committed.
    pub(super) fn uncommitted(&self) -> usize {
        self.pending.len() + self.batch.len()
    }

    /// Whether nothing at all is left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.writing.is_none()
            && self.uncommitted() == 0
            && self.tidings.is_empty()
            && self.telling.is_empty()
    }

    /// How many more calls may be in flight besides `in_flight`, so that what they bring is at most
    /// one batch.
    pub(super) fn room(&self, in_flight: usize) -> usize {
        self.most.saturating_sub(in_flight + self.uncommitted())
    }

    /// Whether more may be obtained.
    pub(super) fn is_open(&self) -> bool {
        self.trouble.is_none()
    }

    /// Why nothing more may be obtained.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| &*trouble.reason)
    }

    /// When the next write is tried, while there is trouble.
    pub(super) fn retry_at(&self) -> Option<Steady> {
        if self.writing.is_some() {
            return None;
        }
        self.trouble.as_ref().map(|trouble| trouble.retry_at)
    }

    /// The store failed.
    pub(super) fn failed(&mut self, error: &StoreError, now: Steady) {
        let relapse = self
            .relapse
            .take_if(|(ended, _)| now < *ended + LONGEST_TROUBLE);
        let (gap, told) = match (&self.trouble, relapse) {
            (Some(trouble), _) => ((trouble.gap * 2).min(LONGEST_TROUBLE), trouble.told),
            // It works for a moment and fails again: the same trouble.
            (None, Some((_, gap))) => ((gap * 2).min(LONGEST_TROUBLE), true),
            (None, None) => {
                tracing::error!(%error, uncommitted = self.uncommitted(), "nothing is obtained until the store works");
                (SHORTEST_TROUBLE, false)
            }
        };
        self.trouble = Some(Trouble {
            reason: error.to_string(),
            gap,
            retry_at: now + gap,
            told,
        });
    }

    /// The trouble that nobody was told of yet, once; the notice about it is the next write, and so
    /// finds out when the store works again.
    pub(super) fn untold_trouble(&mut self) -> Option<String> {
        let trouble = self.trouble.as_mut()?;
        (!std::mem::replace(&mut trouble.told, true)).then(|| trouble.reason.clone())
    }

    /// Begins to write what there is to write, unless a write is under way or it is too soon after
    /// one that failed.
    pub(super) fn begin(&mut self, now: Timestamp, steady: Steady) {
        let too_soon = self.retry_at().is_some_and(|at| steady < at);
        if self.writing.is_some() || too_soon {
            return;
        }
        if self.batch.is_empty() {
            let count = if self.singly > 0 {
                1
            } else {
                self.pending.len()
            };
            self.batch = self
                .pending
                .drain(..count.min(self.pending.len()))
                .collect();
        }
        if self.telling.is_empty() {
            self.telling = std::mem::take(&mut self.tidings);
        }
        if self.batch.is_empty() && self.telling.is_empty() {
            return;
        }
        let (store, batch, telling) =
            (self.store.clone(), self.batch.clone(), self.telling.clone());
        self.began = steady;
        self.writing = Some(Box::pin(async move {
            store.commit_and_tell(batch, telling, now).await
        }));
    }

    /// Waits for the write under way, for ever where there is none.
    pub(super) async fn committed(&mut self) -> Written {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let written = writing.await;
        self.writing = None;
        written
    }

    /// How long the write took that ends now.
    pub(super) fn took(&self, now: Steady) -> Duration {
        now.saturating_sub(self.began)
    }

    /// A write succeeded: hands out what was committed.
    pub(super) fn settled(&mut self, now: Steady) -> Vec<Decided> {
        self.telling = Tidings::default();
        self.singly = self.singly.saturating_sub(1);
        if let Some(trouble) = self.trouble.take() {
            tracing::info!("the store works again");
            self.relapse = Some((now, trouble.gap));
        }
        std::mem::take(&mut self.batch)
    }

    /// The store choked on the batch for a reason that time does not mend. Entries are then tried
    /// one by one; the one that fails alone is handed out, so that it stops nobody else. What is told
    /// besides goes with the next, and is let go where it alone is what cannot be written.
    pub(super) fn choked(&mut self) -> Option<Decided> {
        if self.batch.len() > 1 {
            self.singly = self.batch.len();
            let rest = std::mem::take(&mut self.pending);
            self.pending = std::mem::take(&mut self.batch);
            self.pending.extend(rest);
            return None;
        }
        self.singly = self.singly.saturating_sub(1);
        let choker = self.batch.pop();
        if choker.is_none() {
            self.telling = Tidings::default();
        }
        choker
    }
}
