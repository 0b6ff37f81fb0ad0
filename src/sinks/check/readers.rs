//! Readers and admins that this system does not know.

use crate::{
    accounts,
    config::{FileSinkSettings, Finding, Settings, Severity},
    model::Reader,
};

/// Everyone named in the settings whom the system does not know.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let admins = settings.daemon.admins.iter().enumerate();
    let mut findings: Vec<Finding> = admins
        .filter_map(|(at, admin)| unknown(admin, format!("daemon.admins[{at}]")))
        .collect();
    for (number, spec) in settings.identities.iter().enumerate() {
        let readers = spec.readers.iter().enumerate();
        findings.extend(readers.filter_map(|(at, reader)| {
            unknown(reader, format!("identity[{number}].readers[{at}]"))
        }));
    }
    findings
}

/// Those of a bundle.
pub(super) fn of_bundle(sink: &FileSinkSettings, path: &str) -> Vec<Finding> {
    let readers = sink.readers.iter().flatten().enumerate();
    let unknown =
        readers.filter_map(|(at, reader)| unknown(reader, format!("{path}.readers[{at}]")));
    unknown.collect()
}

fn unknown(reader: &Reader, path: String) -> Option<Finding> {
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
