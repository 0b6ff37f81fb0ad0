//! How this machine stands in a cluster, and what goes on for that on each of its machines and where one leads.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    acs::Client,
    clock::Clock,
    cluster::{LateCalls, LeaseHandle},
    config::Settings,
    store::Store,
    worker::Task,
};

/// How often it is looked what other machines changed: each look is a wake-up of a machine that has nothing to do, and a
/// new token lies in the files of all machines within about this time.
const HEEDED_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether ACS is reached, and how long an answer is waited for.
const PROBED_EVERY: Duration = Duration::from_secs(10);
const PROBED_FOR: Duration = Duration::from_secs(5);
/// So many probes that fail in a row mean that it is not.
const PROBES: u32 = 2;
/// How often it is looked whether a former leader may have revoked what was issued since.
const LATE_CALLS_EVERY: Duration = Duration::from_secs(2);
/// How often changes that every machine has seen are dropped.
const CHANGES_EVERY: Duration = Duration::from_mins(1);

/// How this machine stands in a cluster, for the supervisor.
pub(super) struct Membership {
    pub(super) handle: LeaseHandle,
    pub(super) digest: watch::Sender<String>,
    /// Whose hosts are asked whether they are reached.
    pub(super) hosts: watch::Sender<Vec<Arc<Client>>>,
}

impl Membership {
    /// Tells of another configuration, and whose hosts are asked by it.
    pub(super) fn adopt(&self, settings: &Settings, store: &Store, hosts: Vec<Arc<Client>>) {
        self.digest.send_replace(digest(settings, store));
        self.hosts.send_replace(hosts);
    }
}

/// What is compared with the configurations of the other machines.
pub(super) fn digest(settings: &Settings, store: &Store) -> String {
    settings.digest_with(|secret| store.mark(secret))
}

/// Looks whether the hosts of all resources answer at all, and whether the files that must be written before they are
/// called can be.
pub(super) struct Probe {
    pub(super) store: Store,
    pub(super) hosts: watch::Receiver<Vec<Arc<Client>>>,
    pub(super) reaches: watch::Sender<bool>,
    pub(super) failed: u32,
}

impl Task for Probe {
    async fn step(&mut self) -> Duration {
        let hosts = self.hosts.borrow_and_update().clone();
        let mut reached = self.store.withdrawn_trouble().is_none();
        for host in hosts {
            reached &= host.is_reached(PROBED_FOR).await;
        }
        self.failed = if reached { 0 } else { self.failed + 1 };
        let now = self.failed < PROBES;
        self.reaches.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        PROBED_EVERY
    }
}

/// Hears what other machines changed.
pub(super) struct Heeding(pub(super) Store, pub(super) Clock);

impl Task for Heeding {
    async fn step(&mut self) -> Duration {
        // Where the database is away, that is told by whoever keeps the lease.
        self.0.heed_others(self.1.now()).await.ok();
        HEEDED_EVERY
    }
}

/// Drops changes that every machine has seen.
pub(super) struct OldChanges(pub(super) Store);

impl Task for OldChanges {
    async fn step(&mut self) -> Duration {
        if let Err(error) = self.0.prune_changes().await {
            tracing::debug!(%error, "changes that were seen stay a while longer");
        }
        CHANGES_EVERY
    }
}

impl Task for LateCalls {
    async fn step(&mut self) -> Duration {
        if let Err(error) = self.answer().await {
            // Who keeps the lease tells, once, that the database is away.
            if error.is_unwritable() {
                tracing::debug!(%error, "what a former leader may have revoked is looked at later");
            } else {
                tracing::warn!(%error, "what a former leader may have revoked is looked at again");
            }
        }
        LATE_CALLS_EVERY
    }
}
