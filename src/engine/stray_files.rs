//! Takes files back that nobody speaks of any more: their sink or their identity is gone, or they lie
//! elsewhere now. The store notes them in the transaction that lets go of them, so this goes on after
//! a restart. Only what still is what we wrote is removed.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    model::{SinkName, Timestamp},
    sinks::{FileSink, file::TakenBack},
    store::{Store, StoreError, Stray},
    worker::{self, Task},
};

/// Files looked at in one go.
const BATCH: usize = 64;
/// After a commit, until one looks: more of the same may follow.
const BREATH: Duration = Duration::from_millis(200);
/// Without any sign, one looks all the same.
const EVERY: Duration = Duration::from_mins(1);
/// A file that could not be removed is tried again so much later.
const AGAIN: Duration = Duration::from_mins(10);

/// The file sinks that there are, by name.
pub type FileSinks = Arc<[(SinkName, FileSink)]>;

/// The loop that takes files back.
#[derive(Debug)]
pub struct StrayFiles {
    /// Where strays are noted.
    store: Store,
    clock: Clock,
    /// The sinks that keep files now.
    sinks: watch::Receiver<FileSinks>,
    wanted: watch::Receiver<u64>,
    /// Whether it was said that they wait for the store.
    said: bool,
}

impl Task for StrayFiles {
    async fn step(&mut self) -> Duration {
        match self.take_back().await {
            Ok(count) => {
                self.said = false;
                if count == BATCH { BREATH } else { EVERY }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::error!(%error, "files left behind wait for the store");
                }
                EVERY
            }
        }
    }

    async fn woken(&mut self) {
        // The sender lives as long as the store.
        if self.wanted.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(BREATH).await;
    }
}

impl StrayFiles {
    /// Takes files back that are noted in this store, beside these sinks.
    pub fn new(store: Store, clock: Clock, sinks: watch::Receiver<FileSinks>) -> Self {
        Self {
            wanted: store.wanted_signal(),
            store,
            clock,
            sinks,
            said: false,
        }
    }

    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // It never fails.
        worker::repeat(self, stop).await.ok();
    }

    /// Looks at the strays of the moment; how many there were.
    async fn take_back(&self) -> Result<usize, StoreError> {
        let strays = self.store.strays(self.clock.now(), BATCH).await?;
        let mut settled = Vec::with_capacity(strays.len());
        for stray in &strays {
            settled.push((stray.num, self.deal_with(stray).await?));
        }
        if !settled.is_empty() {
            let files = settled.len();
            self.store.settle_strays(settled).await?;
            tracing::info!(files, "files that nobody wants any more were seen to");
        }
        Ok(strays.len())
    }

    /// Deals with one; the instant at which to try again, if that is needed.
    async fn deal_with(&self, stray: &Stray) -> Result<Option<Timestamp>, StoreError> {
        let path = &stray.placed.path;
        if self.is_claimed(stray).await? {
            return Ok(None);
        }
        let shown = path.display();
        let taken = FileSink::take_back(stray.placed.clone(), self.clock.is_simulated()).await;
        match taken {
            Ok(TakenBack::Removed) => {
                tracing::debug!(sink = stray.sink, path = %shown, "a file that nobody wants any more was removed");
            }
            Ok(TakenBack::Gone) => {}
            Ok(TakenBack::NotOurs) => {
                tracing::warn!(sink = stray.sink, path = %shown, "a file that was ours holds something else now and is left alone");
            }
            Err(error) => {
                tracing::warn!(sink = stray.sink, %error, "a file that nobody wants any more could not be removed");
                return Ok(Some(self.clock.now() + AGAIN));
            }
        }
        Ok(None)
    }

    /// Whether a sink that there is now keeps, or is about to write, a file at that place.
    async fn is_claimed(&self, stray: &Stray) -> Result<bool, StoreError> {
        let path = &stray.placed.path;
        let sinks = self.sinks.borrow().clone();
        let whose = stray.name.as_ref().zip(stray.resource.as_ref());
        let mut of_anybody = Vec::new();
        let mut of_this = Vec::new();
        for (name, sink) in sinks.iter() {
            if sink.is_fixed_at(path) {
                of_anybody.push(name.clone());
            } else if whose.is_some_and(|(name, resource)| sink.path_for(name, resource) == *path) {
                of_this.push(name.clone());
            }
        }
        Ok(self
            .store
            .is_claimed(path.clone(), of_anybody, None)
            .await?
            || self
                .store
                .is_claimed(path.clone(), of_this, stray.name.clone())
                .await?)
    }
}
