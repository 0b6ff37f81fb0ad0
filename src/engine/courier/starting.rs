//! What may start: the longest waiting first, as far as breaker, receiver and slots allow.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Courier,
    landing::{Cargo, Parcel},
};
use crate::{
    sinks::{self, Sink},
    store::{self, StoreError},
};

/// Rows read at once.
const PAGE: usize = 64;
/// So many results that are not settled, and nothing new is attempted.
const UNSETTLED: usize = 1024;
/// Rows read while only a probe may go out.
const PROBE_PAGE: usize = 4;

impl Courier {
    pub(super) async fn start_what_may(&mut self) -> Result<(), StoreError> {
        if !self.has_room() {
            return Ok(());
        }
        if self.look {
            match self.store.sink_disabled(&self.name).await {
                // Nobody can say: it goes on as it was. The store has told of it.
                Err(StoreError::Unreadable { .. }) => {}
                disabled => self.disabled = disabled?,
            }
        }
        self.start_notice().await?;
        if let Sink::File(files) = &self.sink
            && files.is_bundle()
        {
            let files = files.clone();
            self.start_bundle(files).await?;
            return self.look_at_files().await;
        }
        while self.may_start() {
            let Some(delivery) = self.next_delivery().await? else {
                break;
            };
            self.start(delivery).await;
        }
        self.look_at_files().await
    }

    /// Whether how one more attempt ends could be kept: what could not be noted would be delivered again
    /// after a crash.
    fn has_room(&self) -> bool {
        self.outbox.is_open() && self.outbox.unnoted() < UNSETTLED
    }

    /// Whether one more attempt may go out.
    pub(super) fn may_start(&self) -> bool {
        let steady = self.clock.steady();
        self.disabled.is_none()
            && self.attempts.len() < self.sink.max_in_flight()
            && self.has_room()
            && self.quiet_until.is_none_or(|until| steady >= until)
            && self.rate.opens_at(steady).is_none()
            && self.breaker.admits(self.attempts.len(), steady)
    }

    async fn next_delivery(&mut self) -> Result<Option<store::Delivery>, StoreError> {
        if self.queue.is_empty() && self.look {
            self.read_queue().await?;
        }
        Ok(self.queue.pop_front())
    }

    async fn read_queue(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        // A probe asks whether the receiver is back, whoever's turn it is.
        let (until, limit) = match self.breaker.probe_at() {
            Some(_) => (Timestamp::MAX, PROBE_PAGE),
            None => (now, PAGE),
        };
        let found = self
            .store
            .pending(&self.name, until, limit, &self.busy)
            .await?;
        self.look = found.len() == limit;
        self.busy.extend(found.iter().map(|delivery| delivery.num));
        self.queue.extend(found);
        self.next_at = self.store.next_pending(&self.name, &self.busy).await?;
        Ok(())
    }

    /// Begins an attempt at what is newest now.
    async fn start(&mut self, delivery: store::Delivery) {
        let now = self.clock.now();
        let consignment = match self.store.consignment(delivery.num).await {
            Ok(Some(consignment)) => consignment,
            // The identity is gone, and its row of the ledger with it.
            Ok(None) => {
                self.busy.remove(&delivery.num);
                return;
            }
            Err(error) => {
                let parcel = Parcel::new(&delivery, delivery.wanted, delivery.expires_at);
                return self.quarantine(Cargo::Parcel(parcel), error.to_string());
            }
        };
        let dead = self.dead(&consignment);
        let document = Arc::new(consignment.document);
        let expires_at = document.token.as_ref().and(document.expires_at);
        let parcel = Parcel::new(&delivery, document.version, expires_at);
        if let Some(why) = dead {
            return self.park(&parcel, why);
        }
        let (sink, readers) = (self.sink.clone(), consignment.readers);
        let attempt = async move {
            sink.deliver(sinks::Delivery { document, readers }, now)
                .await
        };
        let id = self.attempts.spawn(attempt).id();
        self.rate.began(self.clock.steady());
        self.cargo.insert(id, Cargo::Parcel(parcel));
    }

    /// Gives back what was read and not started, so that it is read anew when its time comes.
    pub(super) fn empty_queue(&mut self) {
        for delivery in self.queue.drain(..) {
            self.busy.remove(&delivery.num);
        }
        self.look = true;
    }
}
