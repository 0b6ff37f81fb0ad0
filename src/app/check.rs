//! Asks every room what it finds in its section, before anything is built; and says what the daemon may take
//! of threads and files at most, by which the unit's limits are set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{
    acs,
    config::{
        EntraKind, Finding, LoadedSecret, ResourceSettings, Settings, Severity, SinkSettings,
        SourceKind,
    },
    model::{ResourceName, State},
    pool,
    schedule::{self, Declared},
    sinks, sources,
    store::{self, Store, StoreError},
};

/// What the rooms find. The configuration turns the paths into lines and carets.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let resources = settings.resources.iter().enumerate();
    let mut findings: Vec<Finding> = resources
        .flat_map(|(n, resource)| acs::check(resource, &format!("resource[{n}]")))
        .collect();
    findings.extend(sinks::check(settings));
    findings.extend(exposed(settings));
    findings.extend(sources::check(settings));
    findings.extend(schedule::check_jobs(&settings.jobs));
    findings
}

/// What is wrong with the room that the limits leave: an error in `check`. A daemon that runs does what it can, so to
/// it all of that is odd and no more.
pub fn check_room(settings: &Settings) -> Vec<Finding> {
    schedule::check_room(settings)
}

/// The same for a daemon, as warnings.
pub(super) fn odd_room(settings: &Settings) -> impl Iterator<Item = Finding> {
    let odd = |finding| Finding {
        severity: Severity::Warning,
        ..finding
    };
    check_room(settings).into_iter().map(odd)
}

/// The same by the identities that the store knows, where those are more than are declared: what is to be said of
/// which resources.
pub(super) async fn stored_room(
    store: &Store,
    settings: &Settings,
    declared: &BTreeMap<ResourceName, Declared>,
) -> Result<Vec<(ResourceName, String)>, StoreError> {
    let counts = store.counts().await?;
    let mut odd = Vec::new();
    for (resource, declared) in declared {
        let states = counts.identities.get(resource);
        let wants = |state: &State| matches!(state, State::New | State::Active | State::Late);
        let known = states
            .into_iter()
            .flatten()
            .filter(|(state, _)| wants(state));
        let known: u64 = known.map(|(_, count)| count).sum();
        let is_news = known
            > declared
                .cohorts
                .iter()
                .map(|cohort| cohort.identities)
                .sum();
        let capacity = declared.capacity(known, &settings.renewal);
        let finding = capacity.finding(String::new()).filter(|_| is_news);
        odd.extend(finding.map(|finding| (resource.clone(), finding.message)));
    }
    Ok(odd)
}

/// Folders in which somebody could swap what the daemon keeps, trusts or runs: those of the configuration and every
/// path that it names, but for lists of identities, which are others' to write, and files of consumers, which `sinks`
/// looks at. Each folder is told once.
fn exposed(settings: &Settings) -> Vec<Finding> {
    let trusted = sinks::Trusted::of(settings);
    let mut told = BTreeSet::new();
    let mut findings = trusted.exposed([settings.daemon.state_dir.as_path()], "daemon.state_dir");
    let read_from = settings.read_from.iter();
    let read_from = read_from.map(|path| (CONFIGURATION.to_owned(), path.as_path()));
    findings.extend(
        read_from
            .clone()
            .filter(|(_, path)| path.is_dir())
            .flat_map(|(key, folder)| trusted.exposed([folder], &key)),
    );
    for (key, file) in read_from.chain(named_files(settings)) {
        // Where a link leads to matters as much as where it lies.
        let real = fs::canonicalize(file).ok();
        let both = [Some(file), real.as_deref()].into_iter().flatten();
        findings.extend(trusted.exposed(both.clone().filter_map(Path::parent), &key));
        findings.extend(trusted.writable(file, &key));
    }
    findings.retain(|finding| told.insert(finding.message.clone()));
    findings
}

/// What is said of the configuration itself.
const CONFIGURATION: &str = "configuration";

/// The files that the configuration names, with the keys that name them.
fn named_files(settings: &Settings) -> Vec<(String, &Path)> {
    let (daemon, store) = (&settings.daemon, &settings.store);
    let mut files: Vec<(String, Option<&Path>)> = vec![
        ("daemon.socket".to_owned(), Some(&daemon.socket)),
        ("store.path".to_owned(), store.place.file()),
        (
            "store.url".to_owned(),
            store
                .place
                .database()
                .and_then(|database| database.from.file()),
        ),
        (
            "store.ca_file".to_owned(),
            store
                .place
                .database()
                .and_then(|database| database.ca_file.as_deref()),
        ),
        (
            "store.seal_key".to_owned(),
            store.seal_key.as_ref().and_then(file_of),
        ),
        (
            "store.withdrawn_copy".to_owned(),
            store.withdrawn_copy.as_deref(),
        ),
    ];
    for (number, resource) in settings.resources.iter().enumerate() {
        let of = |key: &str, file| (format!("resource[{number}].{key}"), file);
        let secrets = resource.credential.secrets().into_iter();
        files.extend(secrets.map(|(key, secret)| of(key, file_of(secret))));
        files.push(of("entra.token_file", token_file(resource)));
        files.push(of("ca_file", resource.ca_file.as_deref()));
    }
    let mut kinds = BTreeMap::new();
    for sink in &settings.sinks {
        files.extend(files_of_sink(sink, &mut kinds));
    }
    let mut programs = 0;
    for source in &settings.sources {
        if let SourceKind::Exec { command, .. } = &source.kind {
            let key = format!("source.exec[{programs}].command");
            files.push((key.clone(), command.first().map(Path::new)));
            files.push((key, script_of(command)));
            programs += 1;
        }
    }
    let named = files.into_iter();
    named.filter_map(|(key, file)| Some((key, file?))).collect()
}

/// Paths count the sinks of a kind in the order of the files.
fn files_of_sink<'a>(
    sink: &'a SinkSettings,
    kinds: &mut BTreeMap<&'static str, usize>,
) -> Vec<(String, Option<&'a Path>)> {
    let kind = match sink {
        SinkSettings::File(_) => "file",
        SinkSettings::Webhook(_) => "webhook",
        SinkSettings::Exec(_) => "exec",
    };
    let count = kinds.entry(kind).or_default();
    let of = |key: &str, file| (format!("sink.{kind}[{count}].{key}"), file);
    let files = match sink {
        SinkSettings::File(sink) => {
            let template = sink.template.as_ref();
            vec![of("template", template.and_then(|one| one.file.as_deref()))]
        }
        SinkSettings::Webhook(sink) => {
            let secrets = sink.secrets.iter();
            let mut files: Vec<_> = secrets.map(|one| of("secrets", file_of(one))).collect();
            files.push(of("ca_file", sink.ca_file.as_deref()));
            files
        }
        // `sinks` looks at its program.
        SinkSettings::Exec(sink) => vec![of("command", script_of(&sink.command))],
    };
    *count += 1;
    files
}

/// Programs that run the file which is named to them, whatever the version in their names.
const INTERPRETERS: [&str; 14] = [
    "sh", "bash", "dash", "ksh", "zsh", "busybox", "python", "perl", "ruby", "node", "php", "lua",
    "env", "timeout",
];

/// The script that a command runs by an interpreter.
fn script_of(command: &[String]) -> Option<&Path> {
    let (program, arguments) = command.split_first()?;
    let name = Path::new(program).file_name()?.to_str()?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let script = arguments.iter().find(|word| word.starts_with('/'))?;
    INTERPRETERS.contains(&name).then(|| Path::new(script))
}

/// Whoever may swap a pod's token decides who calls.
fn token_file(resource: &ResourceSettings) -> Option<&Path> {
    match &resource.credential.entra()?.kind {
        EntraKind::WorkloadIdentity { token_file, .. } => Some(token_file),
        _ => None,
    }
}

fn file_of(secret: &LoadedSecret) -> Option<&Path> {
    secret.from.file()
}

/// Threads, however much is asked: the first one, the workers, those for what blocks, the store's.
pub const THREADS: usize = 1 + pool::WORKERS + pool::BLOCKING + store::THREADS;
/// Where the system gives fewer, so many are left to the store and to a few programs.
pub const SPARE: usize = store::THREADS + 8;

#[cfg(test)]
mod check_tests {
    use super::*;
    use crate::config::{self, Environment, Source};
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
    };

    /// The keys that name a file which somebody must not swap, and what lies there.
    const FILES: [(&str, &str, &str); 11] = [
        ("daemon.socket", "s", ""),
        ("store.path", "renewd.db", ""),
        (
            "store.seal_key",
            "key",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        ),
        ("store.withdrawn_copy", "withdrawn.jsonl", ""),
        ("resource[0].connection_string", "a.cs", STRING),
        ("resource[0].secondary_connection_string", "b.cs", STRING),
        ("resource[0].ca_file", "ca.pem", ""),
        (
            "sink.webhook[0].secrets",
            "secret",
            "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        ),
        ("sink.webhook[0].ca_file", "ca.pem", ""),
        ("sink.file[0].template", "t", "{{ token }}"),
        ("source.exec[0].command", "list", "#!/bin/sh"),
    ];
    const STRING: &str =
        "endpoint=https://contoso.communication.azure.com/;accesskey=c2VjcmV0LWtleQ==";

    /// Folders that everybody may write, each with one of the files.
    fn exposed_files(dir: &Path) -> [PathBuf; 11] {
        FILES.map(|(key, name, text)| {
            let folder = dir.join(key);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
            let file = folder.join(name);
            if key != "daemon.socket" {
                fs::write(&file, text).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            }
            file
        })
    }

    /// What a configuration says that names them all.
    fn naming(dir: &Path, files: &[PathBuf; 11]) -> Settings {
        // A link in a good folder is no better than where it leads to.
        let link = dir.join("ca.pem");
        symlink(&files[6], &link).unwrap();
        let root = dir.display();
        let mut shown = files.each_ref().map(|file| file.display().to_string());
        shown[6] = link.display().to_string();
        let [
            socket,
            store,
            seal,
            copy,
            first,
            second,
            ca,
            hook,
            hook_ca,
            template,
            list,
        ] = &shown;
        let text = format!(
            r#"
[daemon]
state_dir = "{root}"
socket = "{socket}"
[store]
path = "{store}"
seal_key = {{ file = "{seal}" }}
withdrawn_copy = "{copy}"
[[resource]]
name = "contoso"
connection_string = {{ file = "{first}" }}
secondary_connection_string = {{ file = "{second}" }}
ca_file = "{ca}"
[[sink.webhook]]
name = "hook"
url = "https://hook.example"
secrets = [{{ file = "{hook}" }}]
ca_file = "{hook_ca}"
[[sink.file]]
name = "files"
path = "{root}/tokens/{{name}}"
template = {{ file = "{template}" }}
[[source.exec]]
name = "list"
command = ["{list}"]
scopes = ["chat"]
"#
        );
        let path = dir.join("renewd.toml");
        fs::write(&path, text).unwrap();
        let environment = Environment::given(std::iter::empty::<(String, String)>(), "web-1", true);
        let loaded = config::load(&Source { path, environment });
        let settings = loaded.unwrap_or_else(|problems| panic!("{problems:?}"));
        settings.settings
    }

    /// What everybody may write is told under this key, and no more once it is closed.
    fn is_told(settings: &Settings, key: &str, open: &Path, closed: u32) {
        let mode = |mode| fs::set_permissions(open, fs::Permissions::from_mode(mode)).unwrap();
        let told = |finding: &Finding| {
            finding.path == key && finding.message.contains(&open.display().to_string())
        };
        mode(closed | 0o002);
        let found = exposed(settings);
        assert!(found.iter().any(told), "{key}: {found:#?}");
        mode(closed);
        assert_eq!(exposed(settings), [], "{key}");
    }

    /// A configuration in a folder of its own, with a part beside it, that runs two scripts by interpreters.
    fn running(own: &Path, beside: &Path, [hook, list]: [&Path; 2]) -> Settings {
        let root = own.parent().unwrap().display();
        let main = format!(
            "[daemon]\nstate_dir = \"{root}\"\nsocket = \"{root}/s\"\n[[resource]]\nname = \"contoso\"\n\
             connection_string = {{ file = \"{root}/a.cs\" }}\n"
        );
        let part = format!(
            "[[sink.exec]]\nname = \"hook\"\ncommand = [\"/bin/sh\", \"-eu\", \"{}\"]\n[[source.exec]]\n\
             name = \"list\"\ncommand = [\"/usr/bin/env\", \"python3.11\", \"{}\"]\nscopes = [\"chat\"]\n",
            hook.display(),
            list.display()
        );
        let path = own.join("renewd.toml");
        fs::write(&path, main).unwrap();
        fs::write(beside.join("more.toml"), part).unwrap();
        let environment = Environment::given(std::iter::empty::<(String, String)>(), "web-1", true);
        let loaded = config::load(&Source { path, environment });
        let settings = loaded.unwrap_or_else(|problems| panic!("{problems:?}"));
        settings.settings
    }

    #[test]
    fn where_the_configuration_lies_and_what_an_interpreter_runs_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let [own, beside, scripts] =
            ["own", "own/conf.d", "scripts"].map(|name| dir.path().join(name));
        for folder in [&own, &beside, &scripts] {
            fs::create_dir(folder).unwrap();
        }
        let (hook, list) = (scripts.join("hook.sh"), scripts.join("list.py"));
        for (file, text) in [(&hook, ""), (&list, ""), (&dir.path().join("a.cs"), STRING)] {
            fs::write(file, text).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let settings = running(&own, &beside, [&hook, &list]);
        for (key, open, closed) in [
            (CONFIGURATION, &own, 0o755),
            (CONFIGURATION, &own.join("renewd.toml"), 0o644),
            (CONFIGURATION, &beside, 0o755),
            (CONFIGURATION, &beside.join("more.toml"), 0o644),
            ("sink.exec[0].command", &hook, 0o755),
            ("source.exec[0].command", &list, 0o755),
        ] {
            is_told(&settings, key, open, closed);
        }
    }

    #[test]
    fn every_file_that_the_configuration_names_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let files = exposed_files(dir.path());
        let settings = naming(dir.path(), &files);
        let found = exposed(&settings);
        for ((key, ..), file) in FILES.iter().zip(&files) {
            let folder = file.parent().unwrap().display().to_string();
            let named = found.iter().any(|finding| {
                finding.path == *key && finding.message.ends_with(&format!("below {folder}"))
            });
            assert!(named, "{key}: {found:#?}");
            fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(exposed(&settings), []);
        fs::set_permissions(&files[8], fs::Permissions::from_mode(0o646)).unwrap();
        let found = exposed(&settings);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].path, "sink.webhook[0].ca_file");
        let told = format!("everybody could change {}", files[8].display());
        assert!(found[0].message.contains(&told), "{found:#?}");
    }
}

#[cfg(test)]
mod allowance_tests {
    use super::*;
    use crate::{api, sinks, sources};

    /// Processes and threads of one program of an operator's, a shell and what it starts.
    const TASKS_OF_PROGRAM: usize = 4;
    /// What a daemon of 100,000 identities takes for itself, in bytes: rather more than is measured.
    const OWN: usize = 256 << 20;

    /// Processes and threads of the whole unit.
    const TASKS: usize = THREADS
        + sinks::PROGRAMS * TASKS_OF_PROGRAM
        + sources::AT_ONCE * (TASKS_OF_PROGRAM + sources::THREADS_OF_READER);

    /// Memory of the whole unit, but for programs of operators.
    const MEMORY: usize = OWN + api::MEMORY + sources::AT_ONCE * sources::MEMORY_OF_READER;

    const UNIT: &str = include_str!("../../systemd/renewd.service");

    fn limit(key: &str) -> usize {
        let start = format!("{key}=");
        let text = UNIT.lines().find_map(|line| line.strip_prefix(&start));
        let text = text.unwrap();
        match text.strip_suffix('M') {
            Some(number) => number.parse::<usize>().unwrap() << 20,
            None => text.parse().unwrap(),
        }
    }

    #[test]
    fn the_limits_of_the_unit_fit_what_is_allowed_at_most() {
        println!("{TASKS} tasks, {} MiB", MEMORY >> 20);
        assert!(limit("TasksMax") >= TASKS, "{TASKS} tasks");
        assert!(limit("TasksMax") <= 2 * TASKS, "{TASKS} tasks");
        assert!(limit("MemoryHigh") >= MEMORY, "{} MiB", MEMORY >> 20);
        assert!(limit("MemoryMax") > limit("MemoryHigh"));
        assert!(limit("MemoryMax") <= MEMORY * 3 / 2, "{} MiB", MEMORY >> 20);
        assert!(
            limit("LimitNOFILE") >= api::CONNECTIONS + 2048,
            "files beside connections"
        );
        assert!(UNIT.lines().any(|line| line == "OOMPolicy=continue"));
    }
}
