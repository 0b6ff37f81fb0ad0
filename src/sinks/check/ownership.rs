//! Files that are to be given to somebody else: whether that is anybody, and whether the daemon may.

use std::fs;

use crate::{
    accounts,
    config::{FileSinkSettings, Finding, Settings, Severity},
    sandbox::{self, Unit},
};

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
