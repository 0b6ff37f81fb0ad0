//! Looks at every file again from time to time: somebody may have changed it, its mode or its ACL, or
//! removed it. What is not as the store says is mended; what is right is only read.

use std::{sync::Arc, time::Duration};

use super::{Courier, landing::Cargo};
use crate::{
    model::{Name, Num},
    schedule::Steady,
    sinks::{self, Outcome, Receipt, Sink, SinkFailure},
    store::{self, Settled, StoreError},
};

/// Between two looks at all files.
const EVERY: Duration = Duration::from_mins(5);
/// All looks together take a hundredth of the time at most.
const SHARE: u32 = 100;
/// Files looked at at once; deliveries find room beside them.
const AT_ONCE: usize = 4;

/// How far the look at all files is.
#[derive(Debug, Default)]
pub(super) struct Verifying {
    /// When the next one begins.
    begins_at: Option<Steady>,
    /// The last row that was looked at, while one is going on.
    after: Option<Num>,
    began: Steady,
    in_flight: usize,
}

/// A file that is being looked at.
#[derive(Debug, Clone)]
pub(super) struct Look {
    num: Num,
    name: Name,
}

impl Verifying {
    /// The files are right now; the next look is due after the usual time.
    pub(super) fn rest(&mut self, now: Steady, took: Duration) {
        self.after = None;
        self.begins_at = Some(now + EVERY.max(took.saturating_mul(SHARE)));
    }

    /// When there is something to do.
    pub(super) fn wakes_at(&self) -> Option<Steady> {
        match self.after {
            Some(_) => (self.in_flight == 0).then_some(self.began),
            None => self.begins_at,
        }
    }
}

impl Courier {
    /// Looks at some files, if it is time to and nothing else waits.
    pub(super) async fn look_at_files(&mut self) -> Result<(), StoreError> {
        let steady = self.clock.steady();
        let Sink::File(files) = &self.sink else {
            return Ok(());
        };
        let is_time = self.verifying.wakes_at().is_some_and(|at| steady >= at);
        if !is_time || !self.may_start() || !self.queue.is_empty() {
            return Ok(());
        }
        if files.is_bundle() {
            self.want_bundle(Duration::ZERO);
            self.verifying.rest(steady, Duration::ZERO);
            return Ok(());
        }
        let after = match self.verifying.after {
            Some(after) => after,
            None => {
                self.verifying.began = steady;
                0
            }
        };
        let page = self
            .store
            .delivered_page(&self.name, after, AT_ONCE)
            .await?;
        let Some(last) = page.last() else {
            let took = steady.saturating_sub(self.verifying.began);
            self.verifying.rest(steady, took);
            return Ok(());
        };
        self.verifying.after = Some(last.num);
        for row in page {
            self.look_at(row).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, row: store::Delivery) -> Result<(), StoreError> {
        if row.is_pending() || self.busy.contains(&row.num) {
            return Ok(());
        }
        let Some(consignment) = self.store.consignment(row.num).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        if self.dead(&consignment).is_some() {
            return Ok(());
        }
        let document = Arc::new(consignment.document);
        let (sink, readers) = (self.sink.clone(), consignment.readers);
        let delivery = sinks::Delivery { document, readers };
        let look = async move { sink.deliver(delivery, now).await };
        let id = self.attempts.spawn(look).id();
        let (num, name) = (row.num, row.name);
        self.busy.insert(num);
        self.verifying.in_flight += 1;
        self.cargo.insert(id, Cargo::Look(Look { num, name }));
        Ok(())
    }

    /// How a look ended. What could not be mended is delivered anew, with the retries of a delivery.
    pub(super) async fn looked(&mut self, look: Look, found: Result<Receipt, SinkFailure>) {
        let Look { num, name } = look;
        self.verifying.in_flight = self.verifying.in_flight.saturating_sub(1);
        self.look |= self.verifying.in_flight == 0;
        match found {
            Ok(Receipt {
                outcome: Outcome::Unchanged,
                ..
            }) => {
                self.busy.remove(&num);
            }
            Ok(Receipt { placed, .. }) => {
                tracing::warn!(sink = %self.name, identity = %name, "a file was not as it should be and has been mended");
                let sink = self.name.clone();
                self.outbox.add(Settled::Placed { sink, num, placed });
            }
            Err(failure) => {
                tracing::warn!(sink = %self.name, identity = %name, error = %failure, "a file is not as it should be");
                let (sink, now) = (Some(self.name.clone()), self.clock.now());
                if let Err(error) = self.store.redeliver(num, sink, now).await {
                    self.outbox.failed(&error, self.clock.steady());
                }
                self.busy.remove(&num);
            }
        }
    }
}
