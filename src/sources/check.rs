//! Sources that cannot be read, or that the shipped unit's sandbox closes.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::{
    accounts,
    config::{Finding, Settings, Severity, SourceKind, SourceSettings},
    model::Reader,
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
            sandboxed(path, &format!("{at}.path"), settings)
                .or_else(|| unreadable(path, &format!("{at}.path"), settings))
        }
        SourceKind::Exec { command, .. } => program(command.first()?, &format!("{at}.command")),
    }
}

/// Whoever checks may be another user than the daemon's, so this is no more than a warning.
fn unreadable(path: &Path, at: &str, settings: &Settings) -> Option<Finding> {
    if is_run_by_unit(settings) {
        return None;
    }
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

fn program(program: &str, at: &str) -> Option<Finding> {
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

/// A daemon whose state lies elsewhere than where the shipped unit puts it is not run by the unit.
fn is_run_by_unit(settings: &Settings) -> bool {
    settings.daemon.state_dir.starts_with("/var/lib")
}

/// Folders that the shipped unit (`systemd/renewd.service`) hides.
fn sandboxed(path: &Path, at: &str, settings: &Settings) -> Option<Finding> {
    if !is_run_by_unit(settings) {
        return None;
    }
    let below_any = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let shown = path.display();
    let lines = if below_any(&["/home", "/root", "/run/user"]) {
        "ProtectHome=read-only"
    } else if below_any(&["/tmp", "/var/tmp"]) {
        "PrivateTmp=no"
    } else if below_any(&["/boot", "/lost+found", "/media", "/mnt", "/srv"]) {
        "InaccessiblePaths="
    } else {
        return None;
    };
    Some(Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("the sandbox of the shipped unit hides {shown}"),
        hint: Some(format!(
            "run `systemctl edit renewd` and add {lines} below [Service]"
        )),
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
