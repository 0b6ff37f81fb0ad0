//! Everything that is wrong around this process: what every room finds in its section, and what only
//! a look at the machine and at the receivers tells.

mod receivers;
mod space;

pub use receivers::reach;

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Supervisor, check};
use crate::{
    accounts,
    clock::Clock,
    config::{Finding, Settings, Severity},
    model::{Name, Timestamp, short_duration},
    pool, sinks,
};

/// Backups are made at least weekly, where they are made.
const OLD_BACKUP: Duration = Duration::from_hours(8 * 24);
/// Identities of the store that are looked at.
const MOST: usize = 5000;

/// Looks at everything; the worst comes first. `settings.identities` are those that there are.
pub async fn examine(settings: Settings, clock: &Clock) -> Vec<Finding> {
    let mut findings = receivers::examine(&settings, clock).await;
    let names: Vec<Name> = settings.identities.iter().map(|s| s.name.clone()).collect();
    let look = pool::LOOKS.run(move || {
        let mut findings = without_guesses(check(&settings));
        findings.extend(sinks::examine(&settings));
        findings.extend(space::examine(&settings));
        findings
    });
    findings.extend(look.await.unwrap_or_else(|error| {
        vec![Finding {
            path: "doctor".to_owned(),
            severity: Severity::Error,
            message: format!("this machine could not be looked at: {error}"),
            hint: Some("report it with the daemon's log".to_owned()),
        }]
    }));
    for finding in &mut findings {
        finding.path = with_name(&finding.path, &names);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// As whom this process looks.
pub fn own_user() -> String {
    accounts::user_of(accounts::own_uid()).name
}

/// Looks for a running daemon, beside its loops: receivers may be slow to answer.
pub(super) fn answer(supervisor: &Supervisor, answer: oneshot::Sender<Vec<Finding>>) {
    let (settings, store) = (supervisor.settings().clone(), supervisor.store.clone());
    let clock = supervisor.clock.clone();
    let mut findings = keys(supervisor);
    tokio::spawn(async move {
        let records = store.list(None, MOST).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the identities could not be looked at");
            Vec::new()
        });
        let identities = records.into_iter().map(|record| record.spec).collect();
        let settings = Settings {
            identities,
            ..settings
        };
        // A store that cannot be read is told elsewhere.
        let last = store.last_backup().await.ok().flatten();
        findings.extend(backup_finding(last, clock.now()));
        // Whoever asked may have gone in the meantime.
        findings.extend(examine(settings, &clock).await);
        answer.send(findings).ok();
    });
}

/// Backups that were made once and are not made any more.
fn backup_finding(last: Option<Timestamp>, now: Timestamp) -> Option<Finding> {
    let age = Duration::try_from(now.duration_since(last?)).unwrap_or_default();
    (age > OLD_BACKUP).then(|| Finding {
        path: "store".to_owned(),
        severity: Severity::Warning,
        message: format!("the last backup was made {} ago", short_duration(age)),
        hint: Some("renewd store backup FILE; look at what made it until then".to_owned()),
    })
}

/// Keys that do not work, and tokens that may be dead because of theirs.
fn keys(supervisor: &Supervisor) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (resource, view) in supervisor.key_views() {
        let mut add = |message, hint| {
            findings.push(Finding {
                path: format!("resource {resource}"),
                severity: Severity::Error,
                message,
                hint: Some(hint),
            });
        };
        if let Some(none) = &view.none_works {
            add(none.told(&resource), format!("renewd key set {resource}"));
        }
        for doubt in view.doubts.iter().filter(|doubt| doubt.tokens > 0) {
            add(doubt.told(), format!("renewd key status {resource}"));
        }
    }
    findings
}

/// `check` has to guess what the sandbox closes. Here the folders themselves were asked.
fn without_guesses(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.retain(|finding| {
        let of_a_folder =
            finding.path.starts_with("sink.file[") && finding.path.ends_with("].path");
        !(of_a_folder && finding.severity == Severity::Warning)
    });
    findings
}

/// Identities come from the store here, so their name tells more than their place in a file.
fn with_name(path: &str, names: &[Name]) -> String {
    let known: Option<String> = path.strip_prefix("identity[").and_then(|rest| {
        let (number, key) = rest.split_once(']')?;
        let name = names.get(number.parse::<usize>().ok()?)?;
        Some(format!("identity {name}{key}"))
    });
    known.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_named() {
        let names = ["ada".parse().unwrap(), "bob".parse().unwrap()];
        for (path, shown) in [
            ("identity[1].readers[0]", "identity bob.readers[0]"),
            ("identity[7].readers[0]", "identity[7].readers[0]"),
            ("sink.file[1].path", "sink.file[1].path"),
        ] {
            assert_eq!(with_name(path, &names), shown);
        }
    }

    #[test]
    fn guesses_about_folders_give_way_to_what_was_seen() {
        let finding = |path: &str, severity| Finding {
            path: path.to_owned(),
            severity,
            message: String::new(),
            hint: None,
        };
        let kept = without_guesses(vec![
            finding("sink.file[0].path", Severity::Warning),
            finding("sink.file[0].path", Severity::Error),
            finding("sink.file[0].mode", Severity::Warning),
        ]);
        assert_eq!(kept.len(), 2);
    }
}
