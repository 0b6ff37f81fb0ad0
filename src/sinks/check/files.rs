//! File sinks that cannot work, or that the unit's sandbox closes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::{
    config::{FileSinkSettings, Finding, Settings, Severity},
    sandbox::{self, Unit},
    sinks::file::PathPattern,
};

use super::Trusted;

/// What is wrong with one file sink and the folder that it leads to, if anything.
pub(super) fn check(
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

struct Problem {
    severity: Severity,
    message: String,
    hint: Option<String>,
}

/// No link is followed on the way to a token file.
fn symlink(root: &Path) -> Option<Problem> {
    let is_link = |part: &&Path| fs::symlink_metadata(part).is_ok_and(|m| m.is_symlink());
    let link = root.ancestors().find(is_link)?;
    let leads_to = fs::canonicalize(link).ok();
    let rest = root.strip_prefix(link).unwrap_or(Path::new(""));
    Some(Problem {
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
fn unsafe_folder(root: &Path) -> Option<Problem> {
    let existing = nearest(root);
    let error = |message, hint| Problem {
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
fn not_writable(root: &Path) -> Option<Problem> {
    let existing = nearest(root);
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    let refusal = accessat(CWD, existing, wanted, AtFlags::EACCESS).err()?;
    Some(Problem {
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
fn sandboxed(root: &Path, settings: &Settings, unit: &Unit) -> Option<Problem> {
    let runtime_dir = settings.daemon.socket.parent();
    if runtime_dir.is_some_and(|folder| root.starts_with(folder)) {
        return None;
    }
    let shown = root.display();
    let warning = |message, hint| Problem {
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
