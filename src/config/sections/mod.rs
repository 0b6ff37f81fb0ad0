//! One file per section of the configuration: each takes its keys off the tree and checks them.

mod cluster;
mod daemon;
mod entra;
mod identity;
mod job;
mod references;
mod resource;
mod sink_exec;
mod sink_file;
mod sink_webhook;
mod source;

use std::sync::LazyLock;

use super::keys::{
    Preset::{Nothing, Required},
    Table, Takes, Vocabulary, key,
};
use super::{
    ClusterSettings, DaemonSettings, Renewal, ResourceSettings, StoreSettings,
    problem::Note,
    reader::{Item, Located, Section},
};
use crate::model::ResourceName;
use cluster::CLUSTER;
use daemon::{DAEMON, STORE};
pub use entra::{entra_of_environment, entra_with_secret, is_guid, is_tenant, judge_origin};
use identity::{IDENTITY, RENEWAL};
use job::JOB;
use resource::RESOURCE;
use sink_exec::SINK_EXEC;
use sink_file::SINK_FILE;
use sink_webhook::SINK_WEBHOOK;
use source::SOURCE;
pub(super) use {
    cluster::{Draft as ClusterDraft, check_homes},
    identity::Draft as IdentityDraft,
    job::Draft as JobDraft,
    references::SECRET_REFERENCE,
    sink_exec::Draft as ExecSinkDraft,
    sink_file::Draft as FileSinkDraft,
    sink_webhook::Draft as WebhookSinkDraft,
    source::Draft as SourceDraft,
};

/// All that may stand at the top level.
pub(super) static ROOT: Table = Table {
    name: "",
    header: "the top level",
    says: "",
    groups: &[&[
        key(
            "daemon",
            Takes::Table(&DAEMON),
            Nothing,
            "{}",
            "The process",
        ),
        key("store", Takes::Table(&STORE), Nothing, "{}", "The database"),
        key(
            "cluster",
            Takes::Table(&CLUSTER),
            Nothing,
            "{}",
            "Several machines",
        )
        .commented(),
        key(
            "renewal",
            Takes::Table(&RENEWAL),
            Nothing,
            "{}",
            "When tokens are renewed",
        ),
        key(
            "resource",
            Takes::Tables(&RESOURCE),
            Required,
            "[{}]",
            "Azure Communication Services",
        ),
        key(
            "identity",
            Takes::Tables(&IDENTITY),
            Nothing,
            "[{}]",
            "Who gets tokens",
        ),
        key(
            "sink",
            Takes::Table(&SINK),
            Nothing,
            "{}",
            "Where tokens go",
        ),
        key(
            "job",
            Takes::Tables(&JOB),
            Nothing,
            "[{}]",
            "Work by the calendar",
        ),
        key(
            "source",
            Takes::Table(&SOURCE),
            Nothing,
            "{}",
            "Identities that others own",
        ),
    ]],
};

static SINK: Table = Table {
    name: "sink",
    header: "[sink]",
    says: "",
    groups: &[&[
        key("file", Takes::Tables(&SINK_FILE), Nothing, "[{}]", ""),
        key("webhook", Takes::Tables(&SINK_WEBHOOK), Nothing, "[{}]", ""),
        key("exec", Takes::Tables(&SINK_EXEC), Nothing, "[{}]", ""),
    ]],
};

pub(super) static VOCABULARY: LazyLock<Vocabulary> =
    LazyLock::new(|| Vocabulary::new(&ROOT, &SECRET_REFERENCE));

/// The keys that a running daemon cannot follow, such as `daemon.listen`.
pub fn restart_keys() -> Vec<String> {
    VOCABULARY.restart_keys()
}

/// Everything that was read, before the sections are held against each other. A part that is wrong
/// is missing, and was told of.
#[derive(Debug)]
pub(super) struct Drafts {
    pub(super) daemon: DaemonSettings,
    pub(super) store: Option<StoreSettings>,
    pub(super) cluster: Option<ClusterDraft>,
    /// The cluster of a shared database of which nothing else is said.
    pub(super) cluster_of_host: Option<ClusterSettings>,
    pub(super) renewal: Renewal,
    pub(super) resources: Vec<ResourceDraft>,
    /// Nobody wrote one, not even a wrong one.
    pub(super) no_resource: bool,
    pub(super) identities: Vec<IdentityDraft>,
    pub(super) file_sinks: Vec<FileSinkDraft>,
    pub(super) webhook_sinks: Vec<WebhookSinkDraft>,
    pub(super) exec_sinks: Vec<ExecSinkDraft>,
    pub(super) jobs: Vec<JobDraft>,
    pub(super) sources: Vec<SourceDraft>,
}

/// A resource and the places that others point at.
#[derive(Debug)]
pub(super) struct ResourceDraft {
    pub(super) name: Option<Located<ResourceName>>,
    pub(super) settings: Option<ResourceSettings>,
}

pub(super) fn read(mut root: Section<'_>, reading: &super::reader::Inputs<'_>) -> Drafts {
    let renewal = identity::read_defaults(root.inner("renewal"));
    let (daemon, owner) = daemon::read(root.inner("daemon"), reading.environment);
    let store = daemon::read_store(root.inner("store"), (&daemon, owner));
    let cluster = root.optional("cluster").and_then(Item::section);
    let (cluster, cluster_of_host) = cluster::read(cluster, reading.environment);
    let no_resource = root.optional("resource").is_none();
    let resources = entries(&mut root, "resource", resource::read);
    let identities = entries(&mut root, "identity", |section| {
        identity::read(section, &renewal)
    });
    let mut sinks = root.inner("sink");
    let file_sinks = entries(&mut sinks, "file", sink_file::read);
    let webhook_sinks = entries(&mut sinks, "webhook", sink_webhook::read);
    let exec_sinks = entries(&mut sinks, "exec", sink_exec::read);
    sinks.finish();
    let sources = source::read_all(root.inner("source"), &renewal);
    let jobs = entries(&mut root, "job", job::read);
    root.finish();
    Drafts {
        daemon,
        store,
        cluster,
        cluster_of_host,
        renewal,
        resources,
        no_resource,
        identities,
        file_sinks,
        webhook_sinks,
        exec_sinks,
        jobs,
        sources,
    }
}

/// `[daemon] socket`, whatever is wrong elsewhere.
pub(super) fn declared_socket(mut root: Section<'_>) -> Option<std::path::PathBuf> {
    daemon::declared_socket(root.inner("daemon"))
}

fn entries<'a, T>(
    section: &mut Section<'a>,
    key: &'static str,
    read: impl FnMut(Section<'a>) -> T,
) -> Vec<T> {
    let item = section.optional(key);
    item.map(|item| {
        let sections = item.sections().into_iter();
        let read_on = sections.take_while(|_| !item.is_enough());
        read_on.map(read).collect()
    })
    .unwrap_or_default()
}
