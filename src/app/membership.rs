//! How this machine stands in a cluster, and what goes on for that on each of its machines and where one leads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::RunError;
use crate::{
    acs::Client,
    clock::Clock,
    cluster::{LateCalls, LeaseHandle},
    config::Settings,
    model::SinkAt,
    store::{Store, StoreError},
    worker::Task,
};

/// How often it is looked what other machines changed: each look is a wake-up of a machine that has nothing to do, and a
/// new token lies in the files of all machines within about this time.
const HEEDED_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether ACS is reached, and how long an answer is waited for.
const PROBED_EVERY: Duration = Duration::from_secs(5);
const PROBED_FOR: Duration = Duration::from_secs(5);
/// So many probes that fail in a row mean that it is not; after the first the next one comes sooner.
const PROBES: u32 = 2;
const PROBED_AGAIN: Duration = Duration::from_secs(2);
/// Whoever tried so often in vain to begin to lead lets another one.
const IN_VAIN: u32 = 3;
/// How often it is looked whether the sinks of this machine are in the database: a person may have had it forgotten.
const SINKS_EVERY: Duration = Duration::from_secs(30);
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
    /// The sinks that are configured here.
    pub(super) sinks: watch::Sender<Vec<SinkAt>>,
    /// How often in a row it was tried in vain to begin to lead.
    pub(super) in_vain: watch::Sender<u32>,
}

impl Membership {
    /// One by this configuration, and who asks whether ACS is reached.
    pub(super) fn new(handle: LeaseHandle, digest: watch::Sender<String>) -> Self {
        Self {
            handle,
            digest,
            hosts: watch::Sender::default(),
            sinks: watch::Sender::default(),
            in_vain: watch::Sender::default(),
        }
    }

    /// Tells of another configuration, and whose hosts are asked by it.
    pub(super) fn adopt(&self, settings: &Settings, store: &Store, hosts: Vec<Arc<Client>>) {
        self.digest.send_replace(digest(settings, store));
        self.hosts.send_replace(hosts);
        self.sinks.send_replace(settings.sinks_at());
        self.in_vain.send_replace(0);
    }

    /// Counts what it has come to that this machine was to begin to lead. A database that does not answer, and another
    /// machine that leads by now, say nothing about this one.
    pub(super) fn tried_to_lead(&self, failed: Option<&RunError>) {
        match failed {
            None => _ = self.in_vain.send_replace(0),
            Some(RunError::Store(
                StoreError::Away { .. }
                | StoreError::Full { .. }
                | StoreError::Busy { .. }
                | StoreError::Closed { .. }
                | StoreError::NotLeader { .. },
            )) => {}
            Some(_) => self.in_vain.send_modify(|tries| *tries += 1),
        }
    }
}

/// What is compared with the configurations of the other machines.
pub(super) fn digest(settings: &Settings, store: &Store) -> String {
    settings.digest_with(|secret| store.mark(secret))
}

/// Looks what this machine lacks to lead: hosts of the resources that do not answer at all, files that must be written
/// before they are called, and that it could begin.
pub(super) struct Probe {
    pub(super) store: Store,
    pub(super) hosts: watch::Receiver<Vec<Arc<Client>>>,
    pub(super) in_vain: watch::Receiver<u32>,
    pub(super) lacks: watch::Sender<u32>,
    /// How often in a row a host did not answer.
    pub(super) failed: BTreeMap<String, u32>,
    /// How often in a row the files could not be written.
    pub(super) unwritten: u32,
}

impl Probe {
    /// When this machine starts the first answer counts.
    fn count(&mut self, answers: &[(String, bool)]) {
        let unasked = if self.failed.is_empty() {
            PROBES - 1
        } else {
            0
        };
        self.failed = answers
            .iter()
            .map(|(host, is_reached)| {
                let before = self.failed.get(host).copied().unwrap_or(unasked);
                (host.clone(), if *is_reached { 0 } else { before + 1 })
            })
            .collect();
        let is_written = self.store.withdrawn_trouble().is_none();
        self.unwritten = if is_written { 0 } else { self.unwritten + 1 };
    }

    /// A host weighs as much as the files; more than all, that it cannot begin to lead.
    fn lacks(&self) -> u32 {
        let failed = self.failed.values().filter(|failed| **failed >= PROBES);
        let lacks = match *self.in_vain.borrow() >= IN_VAIN {
            true => self.failed.len() + 2,
            false => failed.count() + usize::from(self.unwritten >= PROBES),
        };
        u32::try_from(lacks).unwrap_or(u32::MAX)
    }
}

impl Task for Probe {
    async fn step(&mut self) -> Duration {
        let hosts = self.hosts.borrow_and_update().clone();
        let asked = hosts
            .iter()
            .map(|host| async { (host.peer().to_owned(), host.is_reached(PROBED_FOR).await) });
        let answers = join_all(asked).await;
        self.count(&answers);
        let now = self.lacks();
        self.lacks
            .send_if_modified(|before| std::mem::replace(before, now) != now);
        let is_new = |failed: &u32| (1..PROBES).contains(failed);
        match self.failed.values().any(is_new) {
            true => PROBED_AGAIN,
            false => PROBED_EVERY,
        }
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

/// Has the sinks of this machine in the database, also after it was forgotten there and came back.
pub(super) struct OwnSinks {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) sinks: watch::Receiver<Vec<SinkAt>>,
}

impl Task for OwnSinks {
    async fn step(&mut self) -> Duration {
        let sinks = self.sinks.borrow_and_update().clone();
        if let Err(error) = self.store.bind_sinks(&sinks, self.clock.now()).await {
            // Who keeps the lease tells, once, that the database is away.
            tracing::debug!(%error, "the sinks of this node are looked for again");
        }
        SINKS_EVERY
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
