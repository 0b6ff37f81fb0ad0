//! Sources that cannot be read, or that the unit's sandbox closes.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::{
    accounts,
    config::{Finding, Settings, Severity, SourceKind, SourceSettings},
    model::Reader,
    sandbox::{self, Unit},
};

/// Everything about sources that cannot work or looks odd. Paths count the sources of a kind in the
/// order of the files, as in `source.sqlite[0].path`.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kind in ["sqlite", "exec", "file"] {
        let sources = settings
            .sources
            .iter()
            .filter(|source| source.kind.word() == kind);
        for (at, source) in sources.enumerate() {
            let path = format!("source.{kind}[{at}]");
            findings.extend(of_kind(source, &path, settings));
            findings.extend(unbounded(source, &path));
            let readers = source.readers.iter().enumerate();
            findings.extend(
                readers.filter_map(|(n, reader)| unknown(reader, format!("{path}.readers[{n}]"))),
            );
        }
    }
    findings
}

fn of_kind(source: &SourceSettings, at: &str, settings: &Settings) -> Option<Finding> {
    match &source.kind {
        SourceKind::Sqlite { path, .. } | SourceKind::File { path } => {
            let at = format!("{at}.path");
            match Unit::running(&settings.daemon.state_dir) {
                Some(unit) => hidden(path, &at, &unit),
                None => unreadable(path, &at),
            }
        }
        SourceKind::Exec { command, .. } => {
            let program = command.first()?;
            let at = format!("{at}.command");
            not_executable(program, &at).or_else(|| closed(program, &at, settings))
        }
    }
}

/// What a list may grant without any bound.
fn unbounded(source: &SourceSettings, at: &str) -> Option<Finding> {
    let open: Vec<&str> = [
        ("max_scopes", source.max_scopes.is_none()),
        ("max_readers", source.max_readers.is_none()),
        ("max_lifetime", source.max_lifetime.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, is_open)| is_open.then_some(key))
    .collect();
    (!open.is_empty()).then(|| Finding {
        path: format!("{at}.name"),
        severity: Severity::Warning,
        message: format!(
            "whoever writes the list of {} grants what they like: {} {} left out",
            source.name,
            open.join(", "),
            if open.len() == 1 { "is" } else { "are" }
        ),
        hint: Some(
            "such as max_scopes = [\"chat\"], max_readers = [\"app\"] and max_lifetime = \"24h\"; \
             a row that asks for more is refused"
                .to_owned(),
        ),
    })
}

/// Whoever checks may be another user than the daemon's, so this is no more than a warning.
fn unreadable(path: &Path, at: &str) -> Option<Finding> {
    let refusal = accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).err()?;
    Some(Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("this user cannot read {}: {refusal}", path.display()),
        hint: Some(
            "the daemon's user needs the right to; `renewd source test NAME` tries it".to_owned(),
        ),
    })
}

fn not_executable(program: &str, at: &str) -> Option<Finding> {
    let refusal = accessat(CWD, program, Access::EXEC_OK, AtFlags::EACCESS).err()?;
    Some(Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("this user cannot run {program}: {refusal}"),
        hint: Some(
            "the daemon's user needs the right to; `renewd source test NAME` tries it".to_owned(),
        ),
    })
}

/// What the unit does not run.
fn closed(program: &str, at: &str, settings: &Settings) -> Option<Finding> {
    let unit = Unit::running(&settings.daemon.state_dir)?;
    let program = Path::new(program);
    let hidden = unit.hides(program).into_iter();
    let hidden = hidden.map(|hidden| hidden.line.to_owned());
    let lines: Vec<String> = hidden.chain(unit.missing_for_running(program)).collect();
    (!lines.is_empty()).then(|| Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("the sandbox of the unit does not run {}", program.display()),
        hint: Some(format!(
            "{}; whatever else the program runs has to be named there, too",
            sandbox::remedy(&lines)
        )),
    })
}

/// What the unit hides.
fn hidden(path: &Path, at: &str, unit: &Unit) -> Option<Finding> {
    let hidden = unit.hides(path);
    let lines: Vec<&str> = hidden.iter().map(|hidden| hidden.line).collect();
    (!lines.is_empty()).then(|| Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("the sandbox of the unit hides {}", path.display()),
        hint: Some(sandbox::remedy(&lines)),
    })
}

fn unknown(reader: &Reader, path: String) -> Option<Finding> {
    let (kind, name) = match reader {
        Reader::User(name) if accounts::user(name).is_none() => ("user", name),
        Reader::Group(name) if accounts::group(name).is_none() => ("group", name),
        _ => return None,
    };
    Some(Finding {
        path,
        severity: Severity::Error,
        message: format!("this system knows no {kind} {name:?}"),
        hint: Some("create it, or correct the name; a group is written \"group:NAME\"".to_owned()),
    })
}
