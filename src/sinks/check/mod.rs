//! Problems of the sinks that can be found before anything is delivered, by a look at the configuration and the
//! machine; what is wrong in the text alone, `config` has found before.
//!
//! | what | is found |
//! |---|---|
//! | file sinks | that cannot work, or that the unit's sandbox closes |
//! | folders on the way | where somebody besides root and the daemon could put another file or folder in its place |
//! | owners | files for somebody who does not exist, or to whom the daemon may not give them |
//! | programs | that are not there, or that the unit's sandbox does not let run: with the drop-in that does |
//! | readers, admins | whom this system does not know |
//! | templates | that cannot be read, or that fail with a document made up for them |
//! | webhooks | that cannot be made |

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::{
    accounts,
    config::{
        ContentType, EventBody, ExecSinkSettings, FileSinkSettings, Finding, Settings, Severity,
        SinkSettings, WebhookSinkSettings,
    },
    model::{Reader, SinkName},
    sandbox::{self, Unit},
    sinks::{
        file::{PathPattern, template},
        webhook::{WebhookError, WebhookSink, body},
    },
    transport::TransportSetupError,
};

/// Everything about sinks, and about those who read from them, that cannot work or looks odd. Paths
/// count the sinks of a kind in the order of the files, as in `sink.file[0].path`.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = of_readers(settings);
    let trusted = Trusted::of(settings);
    let (mut files, mut webhooks, mut programs) = (0, 0, 0);
    for sink in &settings.sinks {
        match sink {
            SinkSettings::File(file) => {
                let path = format!("sink.file[{files}]");
                findings.extend(of_file(file, &path, settings, &trusted));
                findings.extend(of_template(file, &path));
                findings.extend(of_owner(file, &path, settings));
                findings.extend(of_bundle(file, &path));
                findings.extend(of_users(&file.name, &path, settings));
                files += 1;
            }
            SinkSettings::Webhook(webhook) => {
                let path = format!("sink.webhook[{webhooks}]");
                findings.extend(of_webhook(webhook, &path));
                webhooks += 1;
            }
            SinkSettings::Exec(exec) => {
                let path = format!("sink.exec[{programs}]");
                findings.extend(of_program(exec, &path, settings, &trusted));
                findings.extend(of_users(&exec.name, &path, settings));
                programs += 1;
            }
        }
    }
    findings
}

/// A sink that none of those declared names: it is easily forgotten, and nothing would be delivered. Who comes by a
/// source or an import may name it.
fn of_users(name: &SinkName, path: &str, settings: &Settings) -> Option<Finding> {
    let declared = &settings.identities;
    let is_named = declared
        .iter()
        .any(|spec| spec.declared.sinks.contains(name));
    let is_odd = !declared.is_empty() && settings.sources.is_empty() && !is_named;
    is_odd.then(|| Finding {
        path: format!("{path}.name"),
        severity: Severity::Warning,
        message: format!("no [[identity]] names the sink {name}, so nothing is delivered to it"),
        hint: Some(format!(
            "write `sinks = [\"{name}\"]` in each [[identity]] whose token belongs there"
        )),
    })
}

/// What is wrong with one file sink and the folder that it leads to, if anything.
fn of_file(
    sink: &FileSinkSettings,
    path: &str,
    settings: &Settings,
    trusted: &Trusted,
) -> Vec<Finding> {
    let finding = |severity, message, hint| Finding {
        path: format!("{path}.path"),
        severity,
        message,
        hint,
    };
    let pattern: PathPattern = match sink.path.parse() {
        Ok(pattern) => pattern,
        Err(error) => return vec![finding(Severity::Error, format!("{error}"), None)],
    };
    let root = pattern.root();
    let problem = symlink(&root).or_else(|| unsafe_folder(&root)).or_else(|| {
        match Unit::running(&settings.daemon.state_dir) {
            Some(unit) => sandboxed(&root, settings, &unit),
            None => not_writable(&root),
        }
    });
    let is_wrong = problem
        .as_ref()
        .is_some_and(|p| p.severity == Severity::Error);
    let problem = problem.map(|problem| finding(problem.severity, problem.message, problem.hint));
    let exposed = match is_wrong {
        true => Vec::new(),
        false => trusted.exposed([root.as_path()], &format!("{path}.path")),
    };
    problem.into_iter().chain(exposed).collect()
}

struct PathProblem {
    severity: Severity,
    message: String,
    hint: Option<String>,
}

/// No link is followed on the way to a token file.
fn symlink(root: &Path) -> Option<PathProblem> {
    let is_link = |part: &&Path| fs::symlink_metadata(part).is_ok_and(|m| m.is_symlink());
    let link = root.ancestors().find(is_link)?;
    let leads_to = fs::canonicalize(link).ok();
    let rest = root.strip_prefix(link).unwrap_or(Path::new(""));
    Some(PathProblem {
        severity: Severity::Error,
        message: format!(
            "{} is a symbolic link, and none is followed on the way to a token file",
            link.display()
        ),
        hint: leads_to.map(|target| format!("write {} instead", target.join(rest).display())),
    })
}

/// The nearest folder that exists must be one, and neither it nor any above it may take entries from
/// everybody: whoever can replace a folder can replace what is in it.
fn unsafe_folder(root: &Path) -> Option<PathProblem> {
    let existing = nearest(root);
    let error = |message, hint| PathProblem {
        severity: Severity::Error,
        message,
        hint: Some(hint),
    };
    if !existing.is_dir() {
        let message = format!("{} is not a folder", existing.display());
        return Some(error(message, "choose another path".to_owned()));
    }
    let open = existing.ancestors().find(|part| is_open(part, root))?;
    let shown = open.display();
    Some(error(
        format!("every user may write to {shown}, so anyone could replace token files"),
        format!("chmod o-w {shown}, or choose another folder"),
    ))
}

/// Whether everybody may add and remove entries of a folder. Where it is sticky, only their owners
/// remove them, so it will do above a folder that exists, or as a folder of our own.
fn is_open(folder: &Path, root: &Path) -> bool {
    let Ok(metadata) = fs::metadata(folder) else {
        return false;
    };
    let mode = metadata.permissions().mode();
    let is_ours = metadata.uid() == crate::accounts::own_uid();
    let is_guarded = mode & 0o1000 != 0 && (is_ours || folder != root);
    mode & 0o002 != 0 && !is_guarded
}

/// Whoever checks may be another user than the daemon's, so this is no more than a warning.
fn not_writable(root: &Path) -> Option<PathProblem> {
    let existing = nearest(root);
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    let refusal = accessat(CWD, existing, wanted, AtFlags::EACCESS).err()?;
    Some(PathProblem {
        severity: Severity::Warning,
        message: format!(
            "this user cannot write to {}: {refusal}",
            existing.display()
        ),
        hint: Some("the daemon's user needs the right to".to_owned()),
    })
}

fn nearest(root: &Path) -> &Path {
    let mut parts = root.ancestors();
    parts.find(|part| part.exists()).unwrap_or(Path::new("/"))
}

/// Folders that the unit closes or hides.
fn sandboxed(root: &Path, settings: &Settings, unit: &Unit) -> Option<PathProblem> {
    let runtime_dir = settings.daemon.socket.parent();
    if runtime_dir.is_some_and(|folder| root.starts_with(folder)) {
        return None;
    }
    let shown = root.display();
    let warning = |message, hint| PathProblem {
        severity: Severity::Warning,
        message,
        hint: Some(hint),
    };
    let is_temporary = unit
        .hides(root)
        .iter()
        .any(|hidden| hidden.line == "PrivateTmp=no");
    if is_temporary || root.starts_with(&settings.daemon.state_dir) {
        return Some(warning(
            format!("under the unit nobody but the daemon can enter {shown}"),
            "keep token files below /run/renewd".to_owned(),
        ));
    }
    let lines = unit.missing_for_writing(root);
    if lines.is_empty() {
        return None;
    }
    let message = format!("the sandbox of the unit closes {shown}");
    Some(warning(
        message,
        format!("make the folder, {}", sandbox::remedy(&lines)),
    ))
}

/// Whoever may write to a folder may rename and remove what is in it, unless it is theirs alone to remove.
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Those whose folders are as safe as the daemon itself.
#[derive(Debug, Clone)]
pub struct Trusted(BTreeSet<u32>);

impl Trusted {
    /// Root, the daemon's user, and whoever looks.
    pub fn of(settings: &Settings) -> Self {
        let state_dir = &settings.daemon.state_dir;
        let of_unit = Unit::running(state_dir)
            .and_then(|unit| accounts::user(unit.user()?))
            .map(|user| user.uid);
        let of_state = fs::metadata(state_dir).map(|found| found.uid()).ok();
        let both = [of_unit, of_state].into_iter().flatten();
        Self(both.chain([0, accounts::own_uid()]).collect())
    }

    /// Every folder at or above these in which somebody else could swap what is below: a warning each.
    pub fn exposed<'a>(
        &self,
        folders: impl IntoIterator<Item = &'a Path>,
        path: &str,
    ) -> Vec<Finding> {
        let mut found: BTreeSet<(PathBuf, String, String)> = BTreeSet::new();
        let mut looked_at: BTreeSet<&Path> = BTreeSet::new();
        for folder in folders {
            for part in folder.ancestors() {
                let is_last = part == folder;
                if !looked_at.insert(part) && !is_last {
                    continue;
                }
                found.extend(
                    self.exposure(part, is_last)
                        .map(|(who, remedy)| (part.to_owned(), who, remedy)),
                );
            }
        }
        let finding = |(folder, who, remedy): (PathBuf, String, String)| Finding {
            path: path.to_owned(),
            severity: Severity::Warning,
            message: format!(
                "{who} could put something else in the place of what lies below {}",
                folder.display()
            ),
            hint: Some(format!("{remedy}, or choose another folder")),
        };
        found.into_iter().map(finding).collect()
    }

    /// Whether somebody else could change what is in this file: a warning.
    pub fn writable(&self, file: &Path, path: &str) -> Option<Finding> {
        let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        let shown = file.display();
        let owner = || accounts::user_of(found.uid()).name;
        let (who, remedy) = match found.mode() {
            _ if !self.0.contains(&found.uid()) => (
                format!("its owner {}", owner()),
                format!("chown root {shown}"),
            ),
            mode if mode & OTHERS_WRITE != 0 => {
                ("everybody".to_owned(), format!("chmod o-w {shown}"))
            }
            mode if mode & GROUP_WRITES != 0 => {
                let group = accounts::group_of(found.gid()).name;
                (format!("the group {group}"), format!("chmod g-w {shown}"))
            }
            _ => return None,
        };
        Some(Finding {
            path: path.to_owned(),
            severity: Severity::Warning,
            message: format!("{who} could change {shown}"),
            hint: Some(remedy),
        })
    }

    /// Who could, and what ends it.
    fn exposure(&self, folder: &Path, is_last: bool) -> Option<(String, String)> {
        let found = fs::metadata(folder).ok()?;
        let (mode, shown) = (found.mode(), folder.display());
        if !self.0.contains(&found.uid()) {
            let owner = accounts::user_of(found.uid()).name;
            return Some((format!("its owner {owner}"), format!("chown root {shown}")));
        }
        let is_guarded = mode & STICKY != 0 && !(is_last && found.uid() != accounts::own_uid());
        if mode & OTHERS_WRITE != 0 && !is_guarded {
            return Some(("everybody".to_owned(), format!("chmod o-w {shown}")));
        }
        if mode & GROUP_WRITES != 0 && !is_guarded {
            let group = accounts::group_of(found.gid()).name;
            return Some((
                format!("the group {group}, or whom its ACL names,"),
                format!("chmod g-w {shown}"),
            ));
        }
        None
    }
}

/// What is wrong with `owner` and `group` of one file sink.
fn of_owner(sink: &FileSinkSettings, path: &str, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let owner = sink
        .owner
        .as_deref()
        .map(|name| (name, accounts::user(name)));
    let group = sink
        .group
        .as_deref()
        .map(|name| (name, accounts::group(name)));
    if let Some((name, None)) = owner {
        findings.push(unknown_owner(format!("{path}.owner"), "user", name));
    }
    if let Some((name, None)) = group {
        findings.push(unknown_owner(format!("{path}.group"), "group", name));
    }
    let key = if owner.is_some() { "owner" } else { "group" };
    let is_asked = owner.is_some() || group.is_some();
    if is_asked && findings.is_empty() {
        findings.extend(missing_privilege(settings).map(|(message, hint)| Finding {
            path: format!("{path}.{key}"),
            severity: Severity::Warning,
            message,
            hint: Some(hint),
        }));
    }
    findings
}

fn unknown_owner(path: String, kind: &str, name: &str) -> Finding {
    Finding {
        path,
        severity: Severity::Error,
        message: format!("this system knows no {kind} {name:?}"),
        hint: Some("create it, for instance by sysusers.d, or correct the name".to_owned()),
    }
}

/// What the daemon lacks to give files away, and how it gets it. The daemon itself looks at what it
/// has; whoever else checks, at what its unit says.
fn missing_privilege(settings: &Settings) -> Option<(String, String)> {
    let Some(unit) = Unit::running(&settings.daemon.state_dir) else {
        let hint = "the daemon needs CAP_CHOWN for `owner` and `group`";
        return (!may_chown()).then(|| {
            let message = "this user may not give files away";
            (message.to_owned(), hint.to_owned())
        });
    };
    let lines = unit.missing(&sandbox::CHOWN);
    let message = "the sandbox of the unit does not let the daemon give files away";
    (!lines.is_empty()).then(|| (message.to_owned(), sandbox::remedy(&lines)))
}

/// Whether this process has CAP_CHOWN, the first of the capabilities (`linux/capability.h`).
fn may_chown() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

/// Programs that gain privileges, which `NoNewPrivileges=` forbids.
const PRIVILEGED: [&str; 4] = ["sudo", "su", "pkexec", "doas"];

/// What is odd about one exec sink. None of it is an error: the program may come later than the
/// daemon, and no token waits for it.
fn of_program(
    sink: &ExecSinkSettings,
    path: &str,
    settings: &Settings,
    trusted: &Trusted,
) -> Vec<Finding> {
    let Some(program) = sink.command.first().map(Path::new) else {
        return Vec::new();
    };
    let odd = |(message, hint): (String, String)| Finding {
        path: format!("{path}.command"),
        severity: Severity::Warning,
        message,
        hint: Some(hint),
    };
    if let Some(problem) = missing_program(program).or_else(|| replaceable(program)) {
        return vec![odd(problem)];
    }
    let real = fs::canonicalize(program).unwrap_or_default();
    let exposed = trusted.exposed(real.parent(), &format!("{path}.command"));
    let Some(unit) = Unit::running(&settings.daemon.state_dir) else {
        return exposed;
    };
    let closed = hidden(program, &unit)
        .or_else(|| privileged(program))
        .or_else(|| not_executable(program, &unit));
    closed
        .into_iter()
        .chain(needs_polkit(sink))
        .map(odd)
        .chain(exposed)
        .collect()
}

type Oddity = (String, String);

fn missing_program(program: &Path) -> Option<Oddity> {
    let shown = program.display();
    match fs::metadata(program) {
        Err(error) => Some((
            format!("the program {shown} cannot be found: {error}"),
            "install it, or correct its path".to_owned(),
        )),
        Ok(metadata) if !metadata.is_file() => Some((
            format!("{shown} is not a file"),
            "name the program itself".to_owned(),
        )),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Some((
            format!("{shown} is not executable"),
            format!("run chmod +x {shown}"),
        )),
        Ok(_) => None,
    }
}

/// Whoever can replace the program gets the tokens.
fn replaceable(program: &Path) -> Option<Oddity> {
    let real = fs::canonicalize(program).ok()?;
    let is_open = |path: &&Path| {
        let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
        mode & 0o002 != 0 && mode & 0o1000 == 0
    };
    let open = real.ancestors().find(is_open)?;
    Some((
        format!(
            "every user may write to {}, so anyone could put a program of their own there and get the tokens",
            open.display()
        ),
        "run chmod o-w on it, or install the program elsewhere".to_owned(),
    ))
}

fn hidden(program: &Path, unit: &Unit) -> Option<Oddity> {
    let real = fs::canonicalize(program).ok()?;
    let hidden = unit.hides(&real).into_iter().next()?;
    Some((
        format!(
            "the sandbox of the unit hides everything below {}",
            hidden.folder
        ),
        "install the program elsewhere, such as in /usr/local/bin".to_owned(),
    ))
}

fn privileged(program: &Path) -> Option<Oddity> {
    let name = program.file_name()?.to_str()?;
    PRIVILEGED.contains(&name).then(|| {
        (
            format!("{name} cannot gain privileges under the shipped unit"),
            "let the consumer act by itself: the unit renewd-notify@.path, `renewd exec` or `renewd follow`"
                .to_owned(),
        )
    })
}

/// The unit runs only what `ExecPaths=` names; a script needs its interpreter, too.
fn not_executable(program: &Path, unit: &Unit) -> Option<Oddity> {
    let lines = unit.missing_for_running(program);
    if lines.is_empty() {
        return None;
    }
    let message = format!("the sandbox of the unit does not run {}", program.display());
    let more = "whatever else the program runs has to be named there, too";
    Some((message, format!("{}; {more}", sandbox::remedy(&lines))))
}

/// A unit that is reloaded by another user than root: polkit decides, and says no unless told.
fn needs_polkit(sink: &ExecSinkSettings) -> Option<Oddity> {
    const RULES: &str = "/etc/polkit-1/rules.d/50-renewd.rules";
    let (program, arguments) = sink.command.split_first()?;
    if !program.ends_with("/systemctl") || Path::new(RULES).exists() {
        return None;
    }
    let mut words = arguments.iter().filter(|word| !word.starts_with('-'));
    let (verb, unit) = (words.next()?, words.next()?);
    let unit = if unit.contains('.') {
        unit.clone()
    } else {
        format!("{unit}.service")
    };
    Some((
        format!("polkit does not let the user renewd {verb} {unit}"),
        format!(
            "write into {RULES}: polkit.addRule(function (action, subject) {{ \
             if (action.id == \"org.freedesktop.systemd1.manage-units\" && subject.user == \"renewd\" \
             && action.lookup(\"unit\") == \"{unit}\" && action.lookup(\"verb\") == \"{verb}\") \
             return polkit.Result.YES; }}); or use the unit renewd-notify@.path, which needs none of this"
        ),
    ))
}

/// Everyone named in the settings whom the system does not know.
fn of_readers(settings: &Settings) -> Vec<Finding> {
    let admins = settings.daemon.admins.iter().enumerate();
    let mut findings: Vec<Finding> = admins
        .filter_map(|(at, admin)| unknown_reader(admin, format!("daemon.admins[{at}]")))
        .collect();
    for (number, spec) in settings.identities.iter().enumerate() {
        let readers = spec.declared.readers.iter().enumerate();
        findings.extend(readers.filter_map(|(at, reader)| {
            unknown_reader(reader, format!("identity[{number}].readers[{at}]"))
        }));
    }
    findings
}

/// Those of a bundle.
fn of_bundle(sink: &FileSinkSettings, path: &str) -> Vec<Finding> {
    let readers = sink.readers.iter().flatten().enumerate();
    let unknown =
        readers.filter_map(|(at, reader)| unknown_reader(reader, format!("{path}.readers[{at}]")));
    unknown.collect()
}

fn unknown_reader(reader: &Reader, path: String) -> Option<Finding> {
    let (kind, name, how) = match reader {
        Reader::User(name) if accounts::user(name).is_none() => {
            ("user", name, "a group is written \"group:NAME\"")
        }
        Reader::Group(name) if accounts::group(name).is_none() => {
            ("group", name, "a user is written without \"group:\"")
        }
        _ => return None,
    };
    Some(Finding {
        path,
        severity: Severity::Error,
        message: format!("this system knows no {kind} {name:?}"),
        hint: Some(format!(
            "create it, for instance by sysusers.d, or correct the name; {how}"
        )),
    })
}

/// What is wrong with a file sink's template, if anything.
fn of_template(sink: &FileSinkSettings, path: &str) -> Option<Finding> {
    let settings = sink.template.as_ref()?;
    let error = template::check(&settings.text, sink.bundle)?;
    let path = match &error.range {
        Some(range) => format!("{path}.template@{}..{}", range.start, range.end),
        None => format!("{path}.template"),
    };
    Some(Finding {
        path,
        severity: Severity::Error,
        hint: hint(error.unknown.as_deref(), sink.bundle),
        message: error.message,
    })
}

/// What is wrong with the template of a webhook's body, if anything.
fn of_body(sink: &WebhookSinkSettings, path: &str) -> Option<Finding> {
    let EventBody::Template(settings) = &sink.body else {
        return None;
    };
    let is_json = sink.content_type == ContentType::Json;
    let error = body::check(&settings.text, is_json)?;
    let hint = match (&error.unknown, &error.range) {
        (Some(_), _) => Some(format!("it knows {}", body::FIELDS.join(", "))),
        (None, None) => Some(
            "quote what it puts in by the filter json, such as {{ message|json }}; or say content_type = \"text/plain\""
                .to_owned(),
        ),
        _ => None,
    };
    let path = match &error.range {
        Some(range) => format!("{path}.body@{}..{}", range.start, range.end),
        None => format!("{path}.body"),
    };
    Some(Finding {
        path,
        severity: Severity::Error,
        hint,
        message: error.message,
    })
}

fn hint(unknown: Option<&str>, is_bundle: bool) -> Option<String> {
    let word = unknown?;
    let known = template::FIELDS.join(", ");
    let base = word.split(['.', '[', ' ']).next().unwrap_or(word);
    Some(match is_bundle {
        true if template::FIELDS.contains(&base) => format!(
            "a bundle's template goes through all: {{% for i in identities %}} … {{{{ i.{base} }}}} … {{% endfor %}}"
        ),
        true => format!(
            "it knows {}; each of them has {known}",
            template::IDENTITIES
        ),
        false => format!("it knows {known}"),
    })
}

/// What is wrong with one webhook, if anything.
fn of_webhook(sink: &WebhookSinkSettings, path: &str) -> Option<Finding> {
    if let Some(finding) = of_body(sink, path) {
        return Some(finding);
    }
    let error = WebhookSink::new(sink, "check", None).err()?;
    let key = match &error {
        WebhookError::Endpoint(_) => "url".to_owned(),
        WebhookError::NoSecret(_) => "secrets".to_owned(),
        WebhookError::Secret { index, .. } => format!("secrets[{index}]"),
        WebhookError::Pattern(_) => "events".to_owned(),
        WebhookError::Body(_) => "body".to_owned(),
        WebhookError::Transport(TransportSetupError::Proxy(_)) => "proxy".to_owned(),
        WebhookError::Transport(_) => "ca_file".to_owned(),
    };
    Some(Finding {
        path: format!("{path}.{key}"),
        severity: Severity::Error,
        message: error.to_string(),
        hint: None,
    })
}
