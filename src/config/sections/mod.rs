//! One file per section of the configuration: each takes its keys off the tree and checks them.

mod daemon;
mod identity;
mod job;
mod references;
mod renewal;
mod resource;
mod sink;
mod sink_exec;
mod sink_file;
mod sink_webhook;
mod source;
mod store;

use super::{
    DaemonSettings, Renewal, ResourceSettings, StoreSettings,
    reader::{Item, Located, Section},
    report::Note,
};
use crate::model::ResourceName;
pub(super) use {
    identity::Draft as IdentityDraft, job::Draft as JobDraft, sink_exec::Draft as ExecSinkDraft,
    sink_file::Draft as FileSinkDraft, sink_webhook::Draft as WebhookSinkDraft,
    source::Draft as SourceDraft,
};

/// Everything that was read, before the sections are held against each other. A part that is wrong
/// is missing, and was told of.
#[derive(Debug)]
pub(super) struct Drafts {
    pub(super) daemon: DaemonSettings,
    pub(super) store: Option<StoreSettings>,
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
    /// Where `limits` stands, or else the header.
    pub(super) limits_at: super::tree::Span,
    pub(super) limits: super::Limits,
    pub(super) settings: Option<ResourceSettings>,
}

/// Reads every section.
pub(super) fn read(mut root: Section<'_>, reading: &super::reader::Reading<'_>) -> Drafts {
    let renewal = match root
        .optional("renewal")
        .and_then(|item| item.section("renewal", "{}"))
    {
        Some(section) => renewal::read_defaults(section),
        None => Renewal::default(),
    };
    let (daemon, owner) = daemon::read(
        root.optional("daemon")
            .and_then(|item| item.section("daemon", "{}"))
            .unwrap_or_else(|| Section::left_out("daemon", reading)),
        reading.environment,
    );
    let store = store::read(
        root.optional("store")
            .and_then(|item| item.section("store", "{}"))
            .unwrap_or_else(|| Section::left_out("store", reading)),
        (&daemon, owner),
    );
    let no_resource = root.optional("resource").is_none();
    let resources = entries(&mut root, "resource", resource::read);
    let identities = entries(&mut root, "identity", |section| {
        identity::read(section, &renewal)
    });
    let (mut file_sinks, mut webhook_sinks, mut exec_sinks) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(mut sinks) = root
        .optional("sink")
        .and_then(|item| item.section("sink", "{}"))
    {
        file_sinks = entries_of(sinks.optional("file"), "sink.file", sink_file::read);
        webhook_sinks = entries_of(
            sinks.optional("webhook"),
            "sink.webhook",
            sink_webhook::read,
        );
        exec_sinks = entries_of(sinks.optional("exec"), "sink.exec", sink_exec::read);
        sinks.finish();
    }
    let sources = source::read_all(root.optional("source"), &renewal);
    let jobs = entries(&mut root, "job", job::read);
    root.finish();
    Drafts {
        daemon,
        store,
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

fn entries<'a, T>(
    root: &mut Section<'a>,
    name: &'static str,
    read: impl FnMut(Section<'a>) -> T,
) -> Vec<T> {
    entries_of(root.optional(name), name, read)
}

fn entries_of<'a, T>(
    item: Option<Item<'a>>,
    name: &'static str,
    read: impl FnMut(Section<'a>) -> T,
) -> Vec<T> {
    item.map(|item| item.sections(name).into_iter().map(read).collect())
        .unwrap_or_default()
}
