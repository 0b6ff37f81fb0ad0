//! File sinks that cannot work, or that the shipped unit's sandbox closes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::served;
use crate::{
    config::{FileSinkSettings, Finding, Settings, Severity},
    sinks::file::PathPattern,
};

/// What is wrong with one file sink, and with the folder that it leads to.
pub(super) fn check(sink: &FileSinkSettings, path: &str, settings: &Settings) -> Vec<Finding> {
    let at = format!("{path}.path");
    let finding = |severity, message, hint| Finding {
        path: at.clone(),
        severity,
        message,
        hint,
    };
    let pattern: PathPattern = match sink.path.parse() {
        Ok(pattern) => pattern,
        Err(error) => return vec![finding(Severity::Error, format!("{error}"), None)],
    };
    let mut findings = Vec::new();
    if !pattern.is_per_identity() && served(settings, &sink.name).count() > 1 {
        let message = "several identities would share this one file".to_owned();
        let hint = "put {name} into the path".to_owned();
        findings.push(finding(Severity::Error, message, Some(hint)));
    }
    let root = pattern.root();
    let problem = symlink(&root)
        .or_else(|| not_ready(&root))
        .or_else(|| sandboxed(&root, settings));
    findings.extend(problem.map(|p| finding(p.severity, p.message, p.hint)));
    findings.extend(access(sink, path));
    findings
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

/// The nearest folder that exists must take new entries, and from nobody but us.
fn not_ready(root: &Path) -> Option<Problem> {
    let error = |message, hint: &str| Problem {
        severity: Severity::Error,
        message,
        hint: Some(hint.to_owned()),
    };
    let existing = root
        .ancestors()
        .find(|part| part.exists())
        .unwrap_or(Path::new("/"));
    let shown = existing.display();
    let metadata = fs::metadata(existing).ok()?;
    if !metadata.is_dir() {
        return Some(error(
            format!("{shown} is not a folder"),
            "choose another path",
        ));
    }
    let mode = metadata.permissions().mode();
    let is_ours = metadata.uid() == crate::accounts::own_uid();
    let is_shared = mode & 0o002 != 0 && !(mode & 0o1000 != 0 && (is_ours || existing != root));
    if is_shared {
        let message =
            format!("every user may write to {shown}, so anyone could replace token files");
        return Some(error(
            message,
            "run chmod o-w on it, or choose another folder",
        ));
    }
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    let refusal = accessat(CWD, existing, wanted, AtFlags::EACCESS).err()?;
    let message = format!(
        "{} cannot be {}: {refusal}",
        shown,
        if existing == root {
            "written"
        } else {
            "given new folders"
        }
    );
    let hint = "the daemon's user needs the right to write there; under systemd, ReadWritePaths= may be missing too";
    Some(error(message, hint))
}

/// Folders that the shipped unit (`systemd/renewd.service`) closes or hides. A daemon whose state lies
/// elsewhere than where the unit puts it is not run by the unit.
fn sandboxed(root: &Path, settings: &Settings) -> Option<Problem> {
    let state_dir = &settings.daemon.state_dir;
    let runtime_dir = settings.daemon.socket.parent();
    let is_below = |folder: &Path| root.starts_with(folder);
    if !state_dir.starts_with("/var/lib") || runtime_dir.is_some_and(is_below) {
        return None;
    }
    let below_any = |folders: &[&str]| folders.iter().any(|folder| is_below(Path::new(folder)));
    let shown = root.display();
    let warning = |message, hint| Problem {
        severity: Severity::Warning,
        message,
        hint: Some(hint),
    };
    if is_below(state_dir) || below_any(&["/tmp", "/var/tmp"]) {
        let message = format!("under the shipped unit nobody but the daemon can enter {shown}");
        return Some(warning(
            message,
            "keep token files below /run/renewd".to_owned(),
        ));
    }
    let mut lines = format!("ReadWritePaths={shown}");
    if below_any(&["/home", "/root", "/run/user"]) {
        lines.insert_str(0, "ProtectHome=no and ");
    }
    if below_any(&["/boot", "/lost+found", "/media", "/mnt", "/srv", "/root"]) {
        lines.insert_str(0, "InaccessiblePaths= and ");
    }
    Some(warning(
        format!("the sandbox of the shipped unit closes {shown}"),
        format!("make the folder, run `systemctl edit renewd` and add {lines} below [Service]"),
    ))
}

/// A mode that gives tokens to everyone, or takes them from the daemon.
fn access(sink: &FileSinkSettings, path: &str) -> Option<Finding> {
    let (severity, message) = if sink.mode & 0o007 != 0 {
        (
            Severity::Warning,
            format!(
                "mode {:04o} lets every user of this machine at the tokens",
                sink.mode
            ),
        )
    } else if sink.mode & 0o7111 != 0 {
        (
            Severity::Warning,
            format!(
                "mode {:04o} has bits that mean nothing on a token file",
                sink.mode
            ),
        )
    } else {
        return None;
    };
    Some(Finding {
        path: format!("{path}.mode"),
        severity,
        message,
        hint: Some("leave it at 0600 and name the identity's `readers`".to_owned()),
    })
}
