//! The dispatcher of a bundle: one file for all identities of a sink. Changes gather for a moment, then
//! the file is written once and every identity in it is settled at the version that was written.

use std::time::Duration;

use super::{
    super::restore::{Gathered, gather},
    Dispatcher, Payload,
};
use crate::{
    model::{Num, Placed, Version},
    schedule::{Steady, delivery_gap, quarantine_gap},
    sinks::FileSink,
    store::{Settled, StoreError},
};

/// So long changes gather: a burst becomes one write.
const GATHERING: Duration = Duration::from_millis(200);
/// Between two writes, at the least; a large bundle takes a tenth of the time at most.
const REST: Duration = Duration::from_secs(1);
const REST_FACTOR: u32 = 9;
/// The bundle that there is stays for so long, at most, where it may hold live tokens that are not known here.
const LACKING_FOR: Duration = Duration::from_mins(10);

/// What a bundle's dispatcher remembers.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    /// When it is to be written, if it is.
    pub(super) write_at: Option<Steady>,
    rests_until: Steady,
    pub(super) is_writing: bool,
    /// How many identities had left when it was read for the last write; unknown before the first.
    losses: Option<i64>,
    /// When it was read first.
    first_read: Option<Steady>,
    /// Until when it stays as it is, at most, while it lacks some.
    stays_until: Option<Steady>,
    failures: u32,
}

/// What is being written.
#[derive(Debug, Clone)]
pub(super) struct BundleLoad {
    /// Identities that wait for it, at the version that is in it.
    waiting: Vec<(Num, Version)>,
    count: usize,
    losses: i64,
    began: Steady,
}

impl Dispatcher {
    /// Writes the bundle if it is time to.
    pub(super) async fn start_bundle(&mut self, files: FileSink) -> Result<(), StoreError> {
        if self.look && !self.bundle.is_writing && self.outbox.is_idle() {
            self.notice_changes().await?;
        }
        let steady = self.clock.steady();
        let is_due = self.bundle.write_at.is_some_and(|at| steady >= at);
        if !is_due || self.bundle.is_writing || !self.may_start() {
            return Ok(());
        }
        let now = self.clock.now();
        let gathered = gather(&self.store, &self.name, now).await?;
        if self.keeps_what_is_there(&gathered, &files, steady).await {
            return Ok(());
        }
        let Gathered {
            members,
            waiting,
            broken,
            losses,
            ..
        } = gathered;
        self.set_aside(broken);
        let load = BundleLoad {
            waiting,
            count: members.len(),
            losses,
            began: steady,
        };
        let attempt = async move {
            let written = files.deliver_bundle(members, now).await;
            written.map_err(|error| crate::sinks::SinkFailure::new(error.to_string()))
        };
        let id = self.attempts.spawn(attempt).id();
        self.rate.began(steady);
        self.payload.insert(id, Payload::Bundle(load));
        self.bundle.is_writing = true;
        self.bundle.write_at = None;
        Ok(())
    }

    /// Whether the bundle that there is stays for now, as it may hold live tokens that are not known here.
    async fn keeps_what_is_there(
        &mut self,
        gathered: &Gathered,
        files: &FileSink,
        began: Steady,
    ) -> bool {
        let first = *self.bundle.first_read.get_or_insert(began);
        if !gathered.lacks(began < first + LACKING_FOR) {
            self.bundle.stays_until = None;
            return false;
        }
        let before = self.bundle.losses;
        let has_left = before.is_some_and(|before| before != gathered.losses);
        if has_left || !gathered.may_stay(files).await {
            return false;
        }
        let until = *self.bundle.stays_until.get_or_insert(began + LACKING_FOR);
        let keeps = began < until;
        if keeps {
            self.bundle.losses = Some(gathered.losses);
            self.bundle.write_at = None;
            self.bundle_rests(began);
            self.want_bundle(GATHERING);
        }
        keeps
    }

    /// Whether somebody waits for a version, or has left.
    async fn notice_changes(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let pending = self.store.pending(&self.name, now, 1, &self.busy).await?;
        let losses = self.store.losses(&self.name).await?;
        self.next_at = pending.next_at;
        self.look = false;
        if !pending.deliveries.is_empty() || self.bundle.losses != Some(losses) {
            self.want_bundle(GATHERING);
        }
        Ok(())
    }

    /// Has the bundle written so much later, when it has rested.
    pub(super) fn want_bundle(&mut self, later: Duration) {
        let at = (self.clock.steady() + later).max(self.bundle.rests_until);
        self.bundle.write_at.get_or_insert(at);
    }

    /// The bundle holds what was read for it.
    pub(super) async fn bundle_arrived(&mut self, load: BundleLoad, placed: Option<Placed>) {
        let BundleLoad {
            waiting,
            count,
            losses,
            began,
        } = load;
        self.bundle_rests(began);
        self.bundle.failures = 0;
        self.bundle.losses = Some(losses);
        tracing::debug!(sink = %self.name, identities = count, waiting = waiting.len(), "bundle delivered");
        for (num, version) in waiting {
            let sink = self.name.clone();
            self.outbox.add(Settled::Delivered { sink, num, version });
        }
        if let Err(error) = self.store.place_bundle(&self.name, placed).await {
            self.outbox.failed(&error, self.clock.steady());
            self.bundle.losses = None;
        }
    }

    /// The bundle could not be written: everybody in it waits on.
    pub(super) fn bundle_failed(&mut self, load: BundleLoad, error: &str) {
        self.bundle_rests(load.began);
        self.bundle.failures = self.bundle.failures.saturating_add(1);
        let gap = delivery_gap(self.bundle.failures, &mut self.rng);
        let next_at = self.clock.now() + gap;
        for (num, version) in load.waiting {
            self.outbox.add(Settled::Failed {
                sink: self.name.clone(),
                num,
                version,
                next_at,
                error: error.to_owned(),
            });
        }
        // Nobody may be waiting: it is somebody's leaving, or drift, that could not be written.
        self.want_bundle(gap);
    }

    fn bundle_rests(&mut self, began: Steady) {
        let steady = self.clock.steady();
        let took = steady.saturating_sub(began);
        self.bundle.is_writing = false;
        self.bundle.rests_until = steady + REST.max(took.saturating_mul(REST_FACTOR));
        self.look = true;
    }

    fn set_aside(&mut self, broken: Vec<(Num, Version, String)>) {
        for (num, version, error) in broken {
            tracing::error!(sink = %self.name, row = num, %error, "an identity is left out of the bundle");
            let next_at = self.clock.now() + quarantine_gap(10, &mut self.rng);
            self.outbox.add(Settled::Failed {
                sink: self.name.clone(),
                num,
                version,
                next_at,
                error,
            });
        }
    }
}
