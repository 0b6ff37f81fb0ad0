//! Holds the sections against each other: names are unique, what is referred to is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use super::{
    Settings, SinkSettings, capacity,
    reader::{Located, one_of},
    report::{Note, Report},
    sections::{
        Drafts, ExecSinkDraft, FileSinkDraft, IdentityDraft, SourceDraft, WebhookSinkDraft,
    },
    suspicion::shown,
    tree::Span,
};
use crate::model::{ResourceName, SinkName};

/// Checks every reference and joins the sections; `None` where something is wrong and was told of.
pub(super) fn link(drafts: Drafts, report: &Report) -> Option<Settings> {
    check_names(&drafts, report);
    let names = Names::collect(&drafts);
    let targets: Vec<Option<ResourceName>> = drafts
        .identities
        .iter()
        .map(|identity| names.resource_of(&User::of_identity(identity), report))
        .collect();
    for identity in &drafts.identities {
        names.check_sinks(&identity.sinks, report);
    }
    for sink in &drafts.exec_sinks {
        names.check_sinks(&sink.after, report);
        check_after(sink, &drafts, report);
    }
    let source_targets: Vec<Option<ResourceName>> = drafts
        .sources
        .iter()
        .map(|source| names.resource_of(&User::of_source(source), report))
        .collect();
    for source in &drafts.sources {
        names.check_sinks(&source.sinks, report);
    }
    check_paths(&drafts, report);
    let users = drafts.identities.iter().zip(&targets);
    capacity::warn(&drafts.resources, users, report);
    join(drafts, targets, source_targets)
}

fn join(
    drafts: Drafts,
    targets: Vec<Option<ResourceName>>,
    source_targets: Vec<Option<ResourceName>>,
) -> Option<Settings> {
    let resources = drafts.resources.into_iter().map(|draft| draft.settings);
    let identities = drafts.identities.into_iter().zip(targets);
    let identities = identities.map(|(identity, resource)| identity.spec(resource));
    let sources = drafts.sources.into_iter().zip(source_targets);
    let sources = sources.map(|(source, resource)| source.settings(resource));
    let files = drafts.file_sinks.into_iter().map(FileSinkDraft::settings);
    let webhooks = drafts
        .webhook_sinks
        .into_iter()
        .map(WebhookSinkDraft::settings);
    let programs = drafts.exec_sinks.into_iter().map(ExecSinkDraft::settings);
    let sinks = files
        .map(|sink| sink.map(SinkSettings::File))
        .chain(webhooks.map(|sink| sink.map(SinkSettings::Webhook)))
        .chain(programs.map(|sink| sink.map(SinkSettings::Exec)));
    Some(Settings {
        daemon: drafts.daemon,
        store: drafts.store?,
        renewal: drafts.renewal,
        resources: resources.collect::<Option<_>>()?,
        identities: identities.collect::<Option<_>>()?,
        sinks: sinks.collect::<Option<_>>()?,
        jobs: drafts
            .jobs
            .into_iter()
            .map(|draft| draft.settings)
            .collect::<Option<_>>()?,
        sources: sources.collect::<Option<_>>()?,
    })
}

/// Tells of names that are given twice, and of a configuration without any resource.
fn check_names(drafts: &Drafts, report: &Report) {
    let resources = drafts.resources.iter().filter_map(|r| r.name.as_ref());
    unique("resources are called", resources, report);
    let jobs = drafts.jobs.iter().filter_map(|job| job.name.as_ref());
    unique("jobs are called", jobs, report);
    let identities = || drafts.identities.iter();
    unique(
        "identities are called",
        identities().filter_map(|i| i.name.as_ref()),
        report,
    );
    unique(
        "identities have the id",
        identities().filter_map(|i| i.id.as_ref()),
        report,
    );
    let sources = drafts
        .sources
        .iter()
        .filter_map(|source| source.name.as_ref());
    unique("sources are called", sources, report);
    unique("sinks are called", sink_names(drafts), report);
    let paths = drafts
        .file_sinks
        .iter()
        .filter_map(|sink| sink.path.as_ref());
    unique("file sinks write to", paths, report);
    if drafts.no_resource {
        let note = Note::error(Span::new(0, 0..0), "there is no [[resource]]");
        let hint = "at least one is needed, with a `name` and a `connection_string`";
        report.add(note.nowhere().absence().hint(hint));
    }
}

fn sink_names(drafts: &Drafts) -> impl Iterator<Item = &Located<SinkName>> {
    sinks(drafts).flatten()
}

/// The names of all sinks; `None` where one is wrong and was told of.
fn sinks(drafts: &Drafts) -> impl Iterator<Item = Option<&Located<SinkName>>> {
    let files = drafts.file_sinks.iter().map(|sink| &sink.name);
    let webhooks = drafts.webhook_sinks.iter().map(|sink| &sink.name);
    let programs = drafts.exec_sinks.iter().map(|sink| &sink.name);
    files.chain(webhooks).chain(programs).map(Option::as_ref)
}

/// What refers to a resource.
struct User<'a> {
    header: &'static str,
    head: Span,
    resource: Option<&'a Located<ResourceName>>,
    resource_left_out: bool,
}

impl<'a> User<'a> {
    fn of_identity(draft: &'a IdentityDraft) -> Self {
        Self {
            header: "[[identity]]",
            head: draft.head,
            resource: draft.resource.as_ref(),
            resource_left_out: draft.resource_left_out,
        }
    }

    fn of_source(draft: &'a SourceDraft) -> Self {
        Self {
            header: draft.header,
            head: draft.head,
            resource: draft.resource.as_ref(),
            resource_left_out: draft.resource_left_out,
        }
    }
}

/// The names that others may refer to.
struct Names<'a> {
    resources: Vec<&'a ResourceName>,
    sinks: BTreeSet<&'a str>,
    /// Some resource or sink has no valid name, so an unknown reference may mean that one.
    unsure: bool,
}

impl<'a> Names<'a> {
    fn collect(drafts: &'a Drafts) -> Self {
        let resources = || drafts.resources.iter().map(|resource| &resource.name);
        Self {
            resources: resources().flatten().map(|name| &name.value).collect(),
            sinks: sink_names(drafts).map(|name| name.value.as_str()).collect(),
            unsure: resources().any(Option::is_none) || sinks(drafts).any(|name| name.is_none()),
        }
    }

    fn resource_of(&self, identity: &User<'_>, report: &Report) -> Option<ResourceName> {
        let words = || self.resources.iter().map(|name| name.as_str());
        let Some(wanted) = identity.resource else {
            if !identity.resource_left_out {
                return None;
            }
            return match self.resources[..] {
                [only] => Some(only.clone()),
                [] => None,
                _ => {
                    let names = words().collect::<Vec<_>>().join(", ");
                    let note = Note::error(
                        identity.head,
                        format!("{} needs `resource`: there are several", identity.header),
                    );
                    report.add(note.hint(format!("one of {names}")).absence());
                    None
                }
            };
        };
        if self.resources.contains(&&wanted.value) {
            return Some(wanted.value.clone());
        }
        if !self.resources.is_empty() && !self.unsure {
            let message = format!("there is no resource {}", shown(wanted.value.as_str()));
            let hint = one_of(wanted.value.as_str(), words());
            report.add(Note::error(wanted.span, message).hint(hint).absence());
        }
        None
    }

    fn check_sinks(&self, sinks: &[Located<SinkName>], report: &Report) {
        if self.unsure {
            return;
        }
        for wanted in sinks {
            let word = wanted.value.as_str();
            if self.sinks.contains(word) {
                continue;
            }
            let hint = if self.sinks.is_empty() {
                "there is no sink at all; write one as [[sink.file]], [[sink.webhook]] or [[sink.exec]]".to_owned()
            } else {
                one_of(word, self.sinks.iter().copied())
            };
            let note = Note::error(wanted.span, format!("there is no sink {}", shown(word)));
            report.add(note.hint(hint).absence());
        }
    }
}

/// Tells of every name that is given twice, with both places.
fn unique<'a, T: Ord + Display + 'a>(
    what: &str,
    names: impl Iterator<Item = &'a Located<T>>,
    report: &Report,
) {
    let mut first: BTreeMap<&T, Span> = BTreeMap::new();
    for name in names {
        if let Some(known) = first.get(&name.value) {
            let message = format!("two {what} {}", shown(&name.value.to_string()));
            report.add(Note::error(name.span, message).see(*known, "the first is at"));
        } else {
            first.insert(&name.value, name.span);
        }
    }
}

/// A program waits for files and receivers; two that waited for each other would never run.
fn check_after(sink: &ExecSinkDraft, drafts: &Drafts, report: &Report) {
    let programs = || {
        drafts
            .exec_sinks
            .iter()
            .filter_map(|sink| sink.name.as_ref())
    };
    for wanted in &sink.after {
        if programs().any(|name| name.value == wanted.value) {
            let name = shown(wanted.value.as_str());
            let note = Note::error(
                wanted.span,
                format!("`after` cannot name {name}, which is a program itself"),
            );
            report.add(note.hint(
                "name [[sink.file]] and [[sink.webhook]] sinks; a program can run another itself",
            ));
        }
    }
}

/// Two tokens must never go to the same file.
fn check_paths(drafts: &Drafts, report: &Report) {
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for sink in drafts
        .identities
        .iter()
        .flat_map(|identity| &identity.sinks)
    {
        *users.entry(sink.value.as_str()).or_default() += 1;
    }
    let of_sources: BTreeSet<&str> = drafts
        .sources
        .iter()
        .flat_map(|source| &source.sinks)
        .map(|sink| sink.value.as_str())
        .collect();
    for sink in &drafts.file_sinks {
        let (Some(name), Some(path)) = (&sink.name, &sink.path) else {
            continue;
        };
        let users = users.get(name.value.as_str()).copied().unwrap_or_default();
        if sink.bundle || path.value.contains("{name}") {
            continue;
        }
        let hint = "put {name} into the path, or say bundle = true";
        if users > 1 {
            let message = format!("{users} identities would write to this one file");
            report.add(Note::error(path.span, message).hint(hint));
        } else if of_sources.contains(name.value.as_str()) {
            let message = "all identities of a source would write to this one file";
            report.add(Note::error(path.span, message).hint(hint));
        }
    }
}
