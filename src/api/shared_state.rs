//! What the parts of the daemon publish for the endpoints, and what only `app` can do, as commands.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::{
    readiness::DaemonLife,
    wire::{Reloaded, StoreUsed},
};
use crate::{
    config::{DaemonSettings, Finding, JobSettings, Renewal},
    model::{
        Amiss, ClusterStanding, DispatcherView, KeysView, Lapse, Name, RenewerView, ResourceName,
        SinkAt, SinkName, SourceName, SourceReport, SourceView, StoreStanding, Tested, TrustFile,
    },
    schedule::{Declared, Gate},
    store::Cause,
};

/// The parts of the daemon.
#[derive(Debug, Clone)]
pub struct SharedState {
    /// `[daemon]`, of which admins and `page_names` are read again for each request.
    pub daemon: DaemonSettings,
    /// How far its life has come.
    pub life: DaemonLife,
    /// Whether the store may be used; while it may not, there are no other parts.
    pub standing: StoreStanding,
    /// What this start took over from `identities.jsonl` and `withdrawn.jsonl` because the store did not know it.
    pub brought_up: Option<String>,
    /// What the renewers publish; its names are the resources that there are.
    pub renewers: BTreeMap<ResourceName, watch::Receiver<RenewerView>>,
    /// What lets the calls of each resource start.
    pub gates: BTreeMap<ResourceName, Arc<Mutex<Gate>>>,
    /// What each resource allows, and what is declared of it, for estimates and plans.
    pub declared: BTreeMap<ResourceName, Declared>,
    /// When each resource's campaign runner last decided.
    pub runners: BTreeMap<ResourceName, watch::Receiver<Option<Timestamp>>>,
    /// `[[job]]`, for listings and runs by hand.
    pub jobs: Vec<JobSettings>,
    /// When the loop of the jobs last decided, where there are any.
    pub jobs_decided: Option<watch::Receiver<Option<Timestamp>>>,
    /// What those publish that replace keys.
    pub keys: BTreeMap<ResourceName, watch::Receiver<KeysView>>,
    /// The sinks that are configured, here or for other machines of a cluster.
    pub sinks: Vec<SinkName>,
    /// What the dispatchers publish; its names are the sinks that this machine serves.
    pub dispatchers: BTreeMap<SinkAt, watch::Receiver<DispatcherView>>,
    /// The sources that are configured, here or for other machines of a cluster.
    pub configured_sources: Vec<SourceName>,
    /// What the sources publish; their names are the sources that are read here.
    pub sources: BTreeMap<SourceName, watch::Receiver<SourceView>>,
    /// What is wrong with the file of the store.
    pub store_moved: watch::Receiver<Option<Amiss>>,
    /// Files of certificates that are trusted, as they were read last.
    pub trusted: watch::Receiver<BTreeMap<PathBuf, TrustFile>>,
    /// When the configuration was last taken over.
    pub configured_at: Timestamp,
    /// Why the last reload was refused, if it was.
    pub reload_refused: Option<Amiss>,
    /// Whom the configuration declares, and who is not taken over; why.
    pub not_taken: Vec<(Name, String)>,
    /// `[renewal]`, for identities that are added over the socket.
    pub renewal: Renewal,
    /// How this machine stands among those that share the store, where others do.
    pub cluster: Option<watch::Receiver<ClusterStanding>>,
}

/// What only `app` can do.
#[derive(Debug)]
pub enum Command {
    /// Read the configuration again, all or nothing.
    Reload {
        /// The effect, or every problem as text for a person.
        answer: oneshot::Sender<Result<Reloaded, String>>,
    },
    /// A person says that the store may be used from now on.
    UseStore {
        permission: Permission,
        /// Who, for the audit trail.
        cause: Cause,
        /// Done, or why it is not, for a person.
        answer: oneshot::Sender<Result<StoreUsed, String>>,
    },
    /// Look at what is wrong around this process.
    Examine {
        /// All of it, the worst first.
        answer: oneshot::Sender<Vec<Finding>>,
    },
    /// A file of certificates that are trusted holds something else: parts that trust it begin anew.
    Retrust,
    /// Ask a sink's dispatcher something; nothing happens where there is none.
    Sink { name: SinkAt, ask: SinkAsk },
    /// Look at a source now.
    Source {
        name: SourceName,
        /// Take its list over; `None` only compares.
        apply: Option<ApplySource>,
        /// What came of it; the text says why nothing did.
        answer: oneshot::Sender<Result<SourceReport, String>>,
    },
}

/// A person's word that lets a store be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Although it is not known what was withdrawn.
    Accept,
    /// Although it belonged to another machine.
    Adopt,
}

/// What a dispatcher can be asked.
#[derive(Debug)]
pub enum SinkAsk {
    /// Attempt what is due now, whatever breaker and receiver said.
    GoOn,
    /// Hand a synthetic document over.
    Test { answer: oneshot::Sender<Tested> },
}

/// The order to take a source's list over now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplySource {
    /// Who orders it, for the audit trail.
    pub actor: String,
    /// Whether `max_removal` is set aside this once.
    pub confirmed: bool,
}

impl SharedState {
    /// How this machine stands in its cluster, where there is one.
    pub(super) fn cluster_standing(&self) -> Option<ClusterStanding> {
        let cluster = self.cluster.as_ref();
        cluster.map(|standing| standing.borrow().clone())
    }

    /// Whether another machine of a cluster leads, or none: then what only a leader runs is not here.
    pub(super) fn follows(&self) -> bool {
        let standing = self.cluster_standing();
        standing.is_some_and(|standing| standing.epoch().is_none())
    }

    /// The resources that are configured, whether their renewers are here or not.
    pub(super) fn resources(&self) -> impl Iterator<Item = &ResourceName> {
        let elsewhere = self.declared.keys().filter(|_| self.renewers.is_empty());
        self.renewers.keys().chain(elsewhere)
    }

    /// What each renewer published last.
    pub fn renewer_views(&self) -> BTreeMap<ResourceName, RenewerView> {
        self.renewers
            .iter()
            .map(|(name, view)| (name.clone(), view.borrow().clone()))
            .collect()
    }

    /// What is known of each resource's access keys.
    pub(super) fn key_views(&self) -> BTreeMap<ResourceName, KeysView> {
        self.keys
            .iter()
            .map(|(name, view)| (name.clone(), view.borrow().clone()))
            .collect()
    }

    /// When each campaign runner last decided.
    pub(super) fn runner_decisions(&self) -> BTreeMap<ResourceName, Option<Timestamp>> {
        self.runners
            .iter()
            .map(|(name, decided)| (name.clone(), *decided.borrow()))
            .collect()
    }

    /// What each dispatcher published last.
    pub fn dispatcher_views(&self) -> BTreeMap<SinkAt, DispatcherView> {
        self.dispatchers
            .iter()
            .map(|(name, view)| (name.clone(), view.borrow().clone()))
            .collect()
    }

    /// Each loop with its last decision, for the watchdog; named as in `/readyz`.
    pub fn decisions(&self) -> Vec<(String, Option<Timestamp>)> {
        let renewers = self.renewers.iter();
        let renewers =
            renewers.map(|(name, view)| (format!("renewer {name}"), view.borrow().decided_at));
        let sinks = self.dispatchers.iter();
        let sinks = sinks.map(|(name, view)| (format!("sink {name}"), view.borrow().decided_at));
        let runners = self.runners.iter();
        let runners =
            runners.map(|(name, decided)| (format!("campaigns {name}"), *decided.borrow()));
        let jobs = self.jobs_decided.iter();
        let jobs = jobs.map(|decided| ("jobs".to_owned(), *decided.borrow()));
        let keys = self.keys.iter();
        let keys = keys.map(|(name, view)| (format!("keys {name}"), view.borrow().decided_at));
        renewers
            .chain(runners)
            .chain(keys)
            .chain(jobs)
            .chain(sinks)
            .collect()
    }

    /// What each source published last.
    pub(super) fn source_views(&self) -> BTreeMap<SourceName, SourceView> {
        self.sources
            .iter()
            .map(|(name, view)| (name.clone(), view.borrow().clone()))
            .collect()
    }

    /// Sources whose list is not taken over, and why.
    pub(super) fn lapses(&self) -> BTreeMap<SourceName, Lapse> {
        self.sources
            .iter()
            .filter_map(|(name, view)| Some((name.clone(), view.borrow().lapse.clone()?)))
            .collect()
    }

    /// What the renewer of this resource published last; nothing where there is no such renewer.
    pub(super) fn renewer(&self, resource: &ResourceName) -> RenewerView {
        self.renewers
            .get(resource)
            .map(|view| view.borrow().clone())
            .unwrap_or_default()
    }
}
