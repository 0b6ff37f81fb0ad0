//! Files that are to be given to somebody else: whether that is anybody, and whether the daemon may.

use std::{fs, path::Path};

use crate::{
    accounts,
    config::{FileSinkSettings, Finding, Settings, Severity},
    sinks::file::CHOWN_DROP_IN,
};

use super::files::is_run_by_unit;

/// Where a unit and its drop-ins lie, the operator's first.
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const UNIT: &str = "renewd.service";

/// What is wrong with `owner` and `group` of one file sink.
pub(super) fn check(sink: &FileSinkSettings, path: &str, settings: &Settings) -> Vec<Finding> {
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
        findings.push(unknown(format!("{path}.owner"), "user", name));
    }
    if let Some((name, None)) = group {
        findings.push(unknown(format!("{path}.group"), "group", name));
    }
    let key = if owner.is_some() { "owner" } else { "group" };
    let is_asked = owner.is_some() || group.is_some();
    if is_asked && findings.is_empty() {
        findings.extend(missing(settings).map(|(message, hint)| Finding {
            path: format!("{path}.{key}"),
            severity: Severity::Warning,
            message,
            hint: Some(hint),
        }));
    }
    findings
}

fn unknown(path: String, kind: &str, name: &str) -> Finding {
    Finding {
        path,
        severity: Severity::Error,
        message: format!("this system knows no {kind} {name:?}"),
        hint: Some("create it, for instance by sysusers.d, or correct the name".to_owned()),
    }
}

/// What the daemon lacks to give files away, and how it gets it. The daemon itself looks at what it
/// has; whoever else checks, at what its unit says.
fn missing(settings: &Settings) -> Option<(String, String)> {
    if !is_run_by_unit(settings) {
        return (!may_chown()).then(|| {
            let message = "this user may not give files away".to_owned();
            (
                message,
                "the daemon needs CAP_CHOWN for `owner` and `group`".to_owned(),
            )
        });
    }
    let lines = missing_lines(&unit_text(UNIT_FOLDERS.iter().map(Path::new)));
    if lines.is_empty() {
        return None;
    }
    Some((
        "the sandbox of the unit does not let the daemon give files away".to_owned(),
        format!(
            "run `systemctl edit renewd` and add {} below [Service]",
            lines.join(" and ")
        ),
    ))
}

/// The lines of the drop-in that no file of the unit has.
fn missing_lines(text: &str) -> Vec<&'static str> {
    let has = |line: &&str| {
        let Some((key, word)) = line.split_once('=') else {
            return false;
        };
        text.lines().map(str::trim).any(|found| {
            found.split_once('=').is_some_and(|(k, value)| {
                k.trim() == key && value.split_whitespace().any(|w| w == word)
            })
        })
    };
    CHOWN_DROP_IN
        .into_iter()
        .filter(|line| !has(line))
        .collect()
}

/// The unit and all its drop-ins, one after the other.
fn unit_text<'a>(folders: impl Iterator<Item = &'a Path>) -> String {
    let mut text = String::new();
    for folder in folders {
        let drop_ins = fs::read_dir(folder.join(format!("{UNIT}.d")));
        let drop_ins = drop_ins
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let named = drop_ins.filter(|path| path.extension().is_some_and(|end| end == "conf"));
        for path in [folder.join(UNIT)].into_iter().chain(named) {
            text.push_str(&fs::read_to_string(path).unwrap_or_default());
            text.push('\n');
        }
    }
    text
}

/// Whether this process has CAP_CHOWN, the first of the capabilities (`linux/capability.h`).
fn may_chown() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_missing_lines_are_named() {
        assert_eq!(
            missing_lines("[Service]\nAmbientCapabilities=\n"),
            CHOWN_DROP_IN
        );
        let partly =
            "AmbientCapabilities=CAP_NET_ADMIN CAP_CHOWN\nCapabilityBoundingSet = CAP_CHOWN\n";
        assert_eq!(missing_lines(partly), ["SystemCallFilter=@chown"]);
        assert!(missing_lines(&CHOWN_DROP_IN.join("\n")).is_empty());
        assert_eq!(
            missing_lines("#AmbientCapabilities=CAP_CHOWN"),
            CHOWN_DROP_IN
        );
    }

    #[test]
    fn drop_ins_count() {
        let folder = tempfile::tempdir().unwrap();
        let drop_ins = folder.path().join("renewd.service.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::write(folder.path().join("renewd.service"), "[Service]").unwrap();
        fs::write(drop_ins.join("chown.conf"), CHOWN_DROP_IN.join("\n")).unwrap();
        fs::write(drop_ins.join("chown.conf~"), "x").unwrap();
        let text = unit_text([folder.path()].into_iter());
        assert!(
            missing_lines(&text).is_empty() && !text.contains('x'),
            "{text}"
        );
    }
}
