//! How attempts ended, settled in the store in batches while further attempts go on.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    model::Num,
    schedule::Steady,
    store::{Settled, Store, StoreError},
};

/// So many unsettled results and nothing new is attempted: what could not be noted would be
/// delivered again after a crash.
const FULL: usize = 1024;
/// After a failure of the store, the next try.
const RETRY: Duration = Duration::from_secs(1);

/// Results that wait to be settled, and those on their way.
pub(super) struct Ledger {
    store: Store,
    waiting: Vec<Settled>,
    settling: Option<Settling>,
    retry_at: Option<Steady>,
    /// The last thing that was said about the store, so that it is said once.
    said: Option<String>,
}

struct Settling {
    batch: Vec<Settled>,
    commit: BoxFuture<'static, Result<(), StoreError>>,
    began: Steady,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({} unsettled)", self.len())
    }
}

impl Ledger {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            waiting: Vec::new(),
            settling: None,
            retry_at: None,
            said: None,
        }
    }

    pub(super) fn add(&mut self, settled: Settled) {
        self.waiting.push(settled);
    }

    /// Results not in the store yet.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.settling.as_ref().map_or(0, |s| s.batch.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more may be attempted: not while the store is in trouble.
    pub(super) fn is_open(&self, now: Steady) -> bool {
        self.len() < FULL && self.retry_at.is_none_or(|at| now >= at)
    }

    /// When a failed batch is tried again.
    pub(super) fn retry_at(&self) -> Option<Steady> {
        self.retry_at
    }

    /// Notes that the store failed: it is left alone for a moment.
    pub(super) fn trouble(&mut self, error: &StoreError, now: Steady) {
        self.retry_at = Some(now + RETRY);
        let text = error.to_string();
        if self.said.as_ref() != Some(&text) {
            tracing::error!(%error, "deliveries wait for the store");
            self.said = Some(text);
        }
    }

    /// Starts to settle what waits, unless that is going on or was refused a moment ago.
    pub(super) fn begin(&mut self, now: Steady) {
        let is_early = self.retry_at.is_some_and(|at| now < at);
        if self.settling.is_some() || is_early {
            return;
        }
        self.retry_at = None;
        if self.waiting.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.waiting);
        let (store, entries) = (self.store.clone(), batch.clone());
        self.settling = Some(Settling {
            batch,
            commit: Box::pin(async move { store.settle(entries).await }),
            began: now,
        });
    }

    /// Waits for the batch on its way; gives the rows that are settled. Never ends while there is none.
    pub(super) async fn settled(&mut self) -> Vec<Num> {
        let Some(settling) = &mut self.settling else {
            return std::future::pending().await;
        };
        let result = (&mut settling.commit).await;
        let Some(Settling { batch, began, .. }) = self.settling.take() else {
            return Vec::new();
        };
        match result {
            Ok(()) => {
                self.said = None;
                batch.iter().map(num).collect()
            }
            Err(error) => {
                self.trouble(&error, began);
                let later = std::mem::replace(&mut self.waiting, batch);
                self.waiting.extend(later);
                Vec::new()
            }
        }
    }
}

fn num(settled: &Settled) -> Num {
    match settled {
        Settled::Delivered { num, .. }
        | Settled::Failed { num, .. }
        | Settled::Placed { num, .. } => *num,
    }
}
