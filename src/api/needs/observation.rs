//! What is known of the daemon at one instant, and how a need is told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;

use super::super::{
    handle::Unbound,
    wire::{Need, NeedKind},
};
use crate::{
    config::JobSettings,
    model::{
        ClusterStanding, Counts, CreationsWaiting, DatabaseAway, DispatcherView, GoneHeld,
        KeyChange, KeysView, Lapse, Name, NoticeKind, RenewerView, ResourceName, SelfCheckFindings,
        Served, SinkAt, SourceName, StoreStanding, TrustFile,
    },
    store::{Disk, FailingAlone, JobRan, Order, Resealing, Withheld},
};

/// What is known at one instant.
#[derive(Debug, Clone)]
pub(in crate::api) struct Observed<'a> {
    pub standing: &'a StoreStanding,
    pub now: Timestamp,
    pub since: Timestamp,
    pub renewers: &'a BTreeMap<ResourceName, RenewerView>,
    pub dispatchers: &'a BTreeMap<SinkAt, DispatcherView>,
    /// Sinks that other machines of the cluster serve.
    pub beside: &'a BTreeMap<SinkAt, DispatcherView>,
    pub counts: &'a Counts,
    /// What is known of the access keys of each resource.
    pub keys: &'a BTreeMap<ResourceName, KeysView>,
    /// Who holds a live token, where that is known.
    pub served: Option<&'a Served>,
    /// Some of those who hold none, by what serves them.
    pub lacking: &'a BTreeMap<String, Vec<Name>>,
    /// Replacements of access keys that are not over.
    pub key_changes: &'a [KeyChange],
    /// The database, while it is away.
    pub away: Option<&'a DatabaseAway>,
    /// Why the store cannot be read, or not all of it.
    pub unreadable: Option<&'a str>,
    /// What the daemon stands on.
    pub self_check: &'a SelfCheckFindings,
    /// Some of the late identities of each resource that has any.
    pub late: &'a BTreeMap<ResourceName, Late>,
    /// Identities that fail by themselves, by resource.
    pub failing: &'a BTreeMap<ResourceName, FailingAlone>,
    /// Where ACS says of too many identities at once that they are gone.
    pub gone: &'a [GoneHeld],
    /// Who waits for a person's word before it is created.
    pub creations: &'a [CreationsWaiting],
    /// How jobs went, also those that are configured no more.
    pub jobs: &'a [JobRan],
    pub configured_jobs: &'a [JobSettings],
    /// What people ordered and is not carried out yet.
    pub orders: &'a [Order],
    /// How far the replacement of the seal key is.
    pub resealing: Option<&'a Resealing>,
    /// What is withdrawn and has not reached a sink.
    pub withheld: &'a [Withheld],
    /// Sources whose list is not taken over.
    pub lapses: &'a BTreeMap<SourceName, Lapse>,
    /// Files of certificates that are trusted.
    pub trusted: &'a BTreeMap<PathBuf, TrustFile>,
    /// How far the wall clock has stepped, in seconds, unconfirmed.
    pub held_step_secs: Option<i64>,
    /// How the disk of the store is.
    pub disk: Disk,
    /// The TCP address that is refused.
    pub unbound: Option<&'a Unbound>,
    /// The resources that are configured, whether their renewers are here or not.
    pub configured: &'a BTreeSet<ResourceName>,
    /// Where this machine does not lead, what is told and not over.
    pub told: &'a BTreeMap<String, NoticeKind>,
    /// How this machine stands in its cluster, where there is one.
    pub cluster: Option<&'a ClusterStanding>,
}

/// The late identities of one resource.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Late {
    pub count: u64,
    /// The most pressing of them.
    pub names: Vec<Name>,
}

pub(super) fn need(kind: NeedKind, subject: &str, message: String) -> Need {
    Need {
        kind,
        subject: subject.to_owned(),
        message,
        because: None,
        names: Vec::new(),
        since: None,
        command: Some(command(kind, subject)),
    }
}

/// The command to begin with, where none is nearer at hand.
fn command(kind: NeedKind, subject: &str) -> String {
    match kind {
        NeedKind::NoKey => format!("renewd key set {subject}"),
        NeedKind::Doubtful | NeedKind::KeyRefused => format!("renewd key status {subject}"),
        NeedKind::Outage
        | NeedKind::EntraUnreachable
        | NeedKind::EntraRefused
        | NeedKind::Held
        | NeedKind::GoneHeld => "renewd check --online".to_owned(),
        NeedKind::Gone => "renewd identity list --state gone".to_owned(),
        NeedKind::CreationsWait | NeedKind::CreationRefused => {
            "renewd identity list --state new".to_owned()
        }
        NeedKind::SinkDisabled | NeedKind::SinkFailing | NeedKind::SinkBehind => {
            format!("renewd delivery list --sink {subject}")
        }
        NeedKind::Contention => "renewd plan".to_owned(),
        NeedKind::Unconfigured => {
            format!("renewd identity list --select \"resource = '{subject}'\"")
        }
        NeedKind::Clock => "timedatectl".to_owned(),
        NeedKind::Stuck => "journalctl -u renewd -n 50".to_owned(),
        _ => "renewd doctor".to_owned(),
    }
}

pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
