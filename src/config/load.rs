//! From files to settings: read, parse, take the sections, and hold them against each other. Names are
//! unique, what is referred to is there, and the limits of a resource carry the renewals of its identities.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    path::{Path, PathBuf},
};

use super::{
    ConfigProblem, Owner, Place, Places, Problems, Settings, Severity, SinkSettings, Source,
    file::{File, Unreadable},
    problem::{Note, ProblemReport},
    quantity::{is_plain, quoted},
    reader::{Inputs, Located, Section, one_of},
    sections::{
        self, Drafts, ExecSinkDraft, FileSinkDraft, IdentityDraft, SourceDraft, WebhookSinkDraft,
    },
    syntax,
    tree::Span,
};
use crate::model::{ResourceName, SinkName};

/// A configuration that can work.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// Where it says so.
    pub places: Places,
    /// What can work but is odd.
    pub warnings: Vec<ConfigProblem>,
}

/// Reads the main file, then `conf.d/*.toml` beside it, and every secret they refer to.
///
/// Files add to each other: lists of sections follow one another in the order of the files, and a
/// key that is set in two files is an error, so no order decides what wins.
///
/// # Errors
/// With every mistake at once, and the warnings between them.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let report = ProblemReport::default();
    let files = read_files(&source.path, &report);
    let (root, broken) = syntax::parse(&files, &report);
    let places = Places::new(files, root, broken);
    let settings = if places.files.is_empty() {
        None
    } else {
        let reading = Inputs {
            files: &places.files,
            environment: &source.environment,
            report: &report,
            vocabulary: &sections::VOCABULARY,
        };
        let section = Section::new(&sections::ROOT, Span::new(0, 0..0), &places.root, &reading);
        let drafts = sections::read(section, &reading);
        // What was not read is not missing.
        let settings = (!report.is_full()).then(|| link(drafts, &report)).flatten();
        settings.map(|settings| Settings {
            read_from: read_from(&source.path, &places),
            ..settings
        })
    };
    let mut problems = report.into_problems(&places);
    let failed = Places::any_error(&problems);
    match settings {
        Some(settings) if !failed => Ok(Loaded {
            settings,
            places,
            warnings: problems,
        }),
        _ => {
            if !failed {
                problems.push(incomplete(&source.path));
            }
            Err(Problems(problems))
        }
    }
}

/// The files that were read, and the folder in which more are looked for.
fn read_from(main: &Path, places: &Places) -> Vec<PathBuf> {
    let beside = Some(folder_beside(main)).filter(|folder| folder.is_dir());
    let files = places.files.iter().map(|file| file.path.clone());
    let all = files.chain(beside);
    all.map(|path| std::path::absolute(&path).unwrap_or(path))
        .collect()
}

/// `conf.d`, whose files follow the main one.
fn folder_beside(main: &Path) -> PathBuf {
    main.parent().unwrap_or(Path::new("")).join("conf.d")
}

impl Source {
    /// Where a command finds the daemon. One rule holds for both sides: what was named; `[daemon] socket` of
    /// the configuration, as far as this user may read it; then the places of [`Environment::sockets`], of
    /// which the daemon takes the first, and a command the first at which something lies.
    pub fn socket_to_ask(&self) -> PathBuf {
        let said = self.environment.socket.clone();
        if let Some(socket) = said.or_else(|| declared_socket(self)) {
            return socket;
        }
        let places = self.environment.sockets();
        if let Some(found) = places.iter().find(|place| place.exists()) {
            return found.clone();
        }
        // None is there. Who has a configuration of his own means his own daemon.
        match self.path.exists() {
            true => self.environment.default_socket(),
            false => places.last().cloned().unwrap_or_default(),
        }
    }
}

/// `[daemon] socket` as the files say it, for a command that looks for its daemon: no mistake elsewhere and no
/// secret that cannot be read keeps it from that.
fn declared_socket(source: &Source) -> Option<PathBuf> {
    let report = ProblemReport::default();
    let files = read_files(&source.path, &report);
    if !files
        .iter()
        .any(|file| file.text.as_str().contains("socket"))
    {
        return None;
    }
    let (root, _) = syntax::parse(&files, &report);
    let reading = Inputs {
        files: &files,
        environment: &source.environment,
        report: &report,
        vocabulary: &sections::VOCABULARY,
    };
    let section = Section::new(&sections::ROOT, Span::new(0, 0..0), &root, &reading);
    sections::declared_socket(section)
}

/// The main file and those beside it, without those that cannot be read: they are told of.
fn read_files(main: &Path, report: &ProblemReport) -> Vec<File> {
    let hint = "write it (the README has examples), or say where it is with --config PATH; this user must be able to read it";
    let Some(first) = read_file(main, Some(hint), report) else {
        return Vec::new();
    };
    let more = parts(&folder_beside(main), report);
    let more = more.iter().filter_map(|path| read_file(path, None, report));
    std::iter::once(first).chain(more).collect()
}

fn read_file(path: &Path, hint: Option<&str>, report: &ProblemReport) -> Option<File> {
    match File::read(path) {
        Ok(file) => Some(file),
        Err(Unreadable { message, at }) => {
            report.add_file(place(path, at), message, hint.filter(|_| at.is_none()));
            None
        }
    }
}

/// `*.toml` in a directory in the order of their names, without hidden ones.
fn parts(directory: &Path, report: &ProblemReport) -> Vec<PathBuf> {
    let entries =
        match std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let message = format!("cannot list this directory: {error}");
                report.add_file(place(directory, None), message, None);
                return Vec::new();
            }
        };
    let visible = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.ends_with(".toml") && !name.starts_with('.')
    };
    let mut paths: Vec<_> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(visible)
        .collect();
    paths.sort();
    paths
}

fn place(path: &Path, at: Option<(usize, usize)>) -> Place {
    let (line, column) = at.unwrap_or_default();
    Place {
        path: path.to_owned(),
        line,
        column,
        excerpt: None,
    }
}

/// Never seen as long as every part that is missing was told of.
fn incomplete(path: &Path) -> ConfigProblem {
    ConfigProblem {
        severity: Severity::Error,
        place: Some(place(path, None)),
        message: "this configuration is incomplete in a way that renewd cannot name".to_owned(),
        hint: Some("this is a mistake in renewd; please report it with the file".to_owned()),
        related: Vec::new(),
    }
}

/// Checks every reference and joins the sections; `None` where something is wrong and was told of.
pub(super) fn link(drafts: Drafts, report: &ProblemReport) -> Option<Settings> {
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
    check_cluster(&drafts, report);
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
    let (mut daemon, mut store) = (drafts.daemon, drafts.store?);
    let cluster = drafts.cluster.map(|draft| draft.settings);
    let cluster = cluster.or(drafts.cluster_of_host);
    let cluster = cluster.filter(|_| store.is_shared());
    if let Some(cluster) = &cluster {
        store.node = Some(cluster.node.clone());
        if store.owner.instance.is_none() {
            daemon.instance = cluster.name.to_string();
        }
        // The machines of a cluster differ; what it is called does not.
        store.owner = Owner {
            instance: Some(cluster.name.to_string()),
            machine: None,
        };
    }
    Some(Settings {
        cluster,
        daemon,
        store,
        renewal: drafts.renewal,
        resources: resources.collect::<Option<_>>()?,
        identities: identities.collect::<Option<_>>()?,
        sinks: sinks.collect::<Option<_>>()?,
        sinks_elsewhere: Vec::new(),
        sources_elsewhere: Vec::new(),
        alike: None,
        jobs: drafts
            .jobs
            .into_iter()
            .map(|draft| draft.settings)
            .collect::<Option<_>>()?,
        sources: sources.collect::<Option<_>>()?,
        read_from: Vec::new(),
    })
}

/// Only a store that is shared has machines to name.
fn check_cluster(drafts: &Drafts, report: &ProblemReport) {
    let Some(store) = &drafts.store else { return };
    if let Some(cluster) = &drafts.cluster {
        cluster.check(store.is_shared(), report);
    }
    let files = drafts.file_sinks.iter().map(|sink| &sink.nodes);
    let programs = drafts.exec_sinks.iter().map(|sink| &sink.nodes);
    let sources = drafts.sources.iter().map(|source| &source.nodes);
    let homes = files.chain(programs).chain(sources);
    sections::check_homes(homes, store.is_shared(), report);
}

/// Tells of names that are given twice, and of a configuration without any resource.
fn check_names(drafts: &Drafts, report: &ProblemReport) {
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
        let hint = "at least one is needed, with a `name` and a `connection_string`, or an `endpoint` and [resource.entra]";
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

    fn resource_of(&self, identity: &User<'_>, report: &ProblemReport) -> Option<ResourceName> {
        let words = || self.resources.iter().map(|name| name.as_str());
        let Some(wanted) = identity.resource else {
            if !identity.resource_left_out {
                return None;
            }
            return match self.resources[..] {
                [only] => Some(only.clone()),
                [] => None,
                _ => {
                    let shown = words().filter(|name| is_plain(name));
                    let names = shown.collect::<Vec<_>>().join(", ");
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
            let message = unknown("resource", wanted.value.as_str());
            let hint = one_of(wanted.value.as_str(), words());
            report.add(Note::error(wanted.span, message).hint(hint).absence());
        }
        None
    }

    fn check_sinks(&self, sinks: &[Located<SinkName>], report: &ProblemReport) {
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
            let note = Note::error(wanted.span, unknown("sink", word));
            report.add(note.hint(hint).absence());
        }
    }
}

fn unknown(kind: &str, name: &str) -> String {
    match quoted(name) {
        Some(name) => format!("there is no {kind} {name}"),
        None => format!("there is no {kind} of this name"),
    }
}

/// Tells of every name that is given twice, with both places.
fn unique<'a, T: Ord + Display + 'a>(
    what: &str,
    names: impl Iterator<Item = &'a Located<T>>,
    report: &ProblemReport,
) {
    let mut first: BTreeMap<&T, Span> = BTreeMap::new();
    for name in names {
        if let Some(known) = first.get(&name.value) {
            let shown = quoted(&name.value.to_string());
            let message = format!("two {what} {}", shown.as_deref().unwrap_or("the same"));
            report.add(Note::error(name.span, message).see(*known, "the first is at"));
        } else {
            first.insert(&name.value, name.span);
        }
    }
}

/// A program waits for files and receivers; two that waited for each other would never run.
fn check_after(sink: &ExecSinkDraft, drafts: &Drafts, report: &ProblemReport) {
    let programs = || {
        drafts
            .exec_sinks
            .iter()
            .filter_map(|sink| sink.name.as_ref())
    };
    for wanted in &sink.after {
        if programs().any(|name| name.value == wanted.value) {
            let message = match quoted(wanted.value.as_str()) {
                Some(name) => format!("`after` cannot name {name}, which is a program itself"),
                None => "`after` cannot name a program".to_owned(),
            };
            let note = Note::error(wanted.span, message);
            report.add(note.hint(
                "name [[sink.file]] and [[sink.webhook]] sinks; a program can run another itself",
            ));
        }
    }
}

/// Two tokens must never go to the same file.
fn check_paths(drafts: &Drafts, report: &ProblemReport) {
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
