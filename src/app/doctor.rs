//! Everything that is wrong around this process: what every room finds in its section, and what only a look at
//! the machine tells: receivers that do not answer or whose clock makes signatures look stale, file
//! systems that are nearly full.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use jiff::SignedDuration;
use rustix::fs::statfs;
use tokio::sync::oneshot;

use super::{Supervisor, check, reload};
use crate::{
    accounts,
    acs::ConnectionString,
    clock::Clock,
    config::{
        self, CredentialSettings, Finding, LoadedSecret, ResourceSettings, SecretRef, Settings,
        Severity, SinkSettings, Source, WebhookSinkSettings,
    },
    model::{KeyRole, KeysView, Name, ResourceName, Timestamp, short_duration},
    pool,
    sinks::{self, SinkFailure, WebhookSink, file::PathPattern, webhook::ProbeAnswer},
    store::{Store, try_database},
};

/// Backups are made at least weekly, where they are made.
const OLD_BACKUP: Duration = Duration::from_hours(8 * 24);
/// Identities of the store that are looked at.
const MOST: usize = 5000;

/// Looks at everything; the worst comes first. `settings.identities` are those that there are.
pub async fn examine(settings: Settings, clock: &Clock) -> Vec<Finding> {
    let mut findings = receivers(&settings, clock).await;
    let names: Vec<Name> = settings.identities.iter().map(|s| s.name.clone()).collect();
    let look = pool::LOOKS.run(move || {
        let mut findings = without_guesses(check(&settings));
        findings.extend(sinks::examine(&settings));
        findings.extend(space(&settings));
        findings.extend(database(&settings));
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
pub(super) fn answer(
    supervisor: &Supervisor,
    source: &Source,
    answer: oneshot::Sender<Vec<Finding>>,
) {
    let (settings, store) = (supervisor.settings().clone(), supervisor.store.clone());
    let clock = supervisor.clock.clone();
    let mut findings = keys(supervisor);
    let (running, source, views) = (settings.clone(), source.clone(), supervisor.key_views());
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
        // Where no thread is free for it, what looks at the machine says so.
        let look = pool::LOOKS.run(move || {
            let read = read_again(&source, &running);
            (read, running)
        });
        if let Ok((read, running)) = look.await {
            findings.extend(on_disk(read, &running, &views, &store).await);
        }
        // A store that cannot be read is told elsewhere.
        let last = store.last_backup().await.ok().flatten();
        findings.extend(backup_finding(last, clock.now()));
        // Whoever asked may have gone in the meantime.
        findings.extend(examine(settings, &clock).await);
        answer.send(findings).ok();
    });
}

/// The configuration and its secrets as a reload or a restart would read them now; nothing where it is the one that
/// runs, of whose refusals the rooms tell below, or the first line of why it is refused.
fn read_again(source: &Source, running: &Settings) -> Result<Option<Settings>, String> {
    let refused = match reload::read(source) {
        Ok((new, _)) => return Ok(Some(new)),
        Err(refused) => refused.to_string(),
    };
    let loaded = config::load(source).map(|loaded| without_keys(loaded.settings, running));
    match loaded {
        Ok(settings) if settings == *running => Ok(None),
        _ => Err(refused.lines().next().unwrap_or_default().to_owned()),
    }
}

/// What is to be said of what was read.
async fn on_disk(
    read: Result<Option<Settings>, String>,
    running: &Settings,
    keys: &[(ResourceName, KeysView)],
    store: &Store,
) -> Option<Finding> {
    let finding = |severity, message: String, fix: &str| Finding {
        path: "configuration".to_owned(),
        severity,
        message,
        hint: Some(fix.to_owned()),
    };
    let new = match read {
        Ok(new) => new?,
        Err(refused) => {
            let message = format!(
                "what is on the disk is refused ({refused}): it cannot be reloaded, and renewd would not start with it"
            );
            return Some(finding(Severity::Error, message, "renewd check"));
        }
    };
    let restart = reload::needs_restart(running, &new);
    if !restart.is_empty() {
        let keys = restart.join(", ");
        let message = format!("what is on the disk needs a restart, because {keys} changed");
        let fix = "systemctl restart renewd";
        return Some(finding(Severity::Warning, message, fix));
    }
    // A store that cannot be read is told elsewhere.
    let plan = store
        .plan_reconcile(&new.identities, &new.sinks_at())
        .await
        .ok();
    let mut differs = Vec::new();
    for resource in new.resources.iter().filter(|one| has_other_key(one, keys)) {
        differs.push(format!("{} has another access key", resource.name));
    }
    differs.extend(
        plan.filter(|plan| !plan.is_unchanged())
            .map(|plan| format!("identities: {plan}")),
    );
    if without_keys(new, running) != *running {
        differs.push("settings".to_owned());
    }
    let message = format!(
        "what is on the disk is not taken over yet ({})",
        differs.join("; ")
    );
    let fix = "systemctl reload renewd";
    (!differs.is_empty()).then(|| finding(Severity::Warning, message, fix))
}

/// Keys that were replaced while the daemon runs are known by it, and not by the settings of its start.
fn has_other_key(resource: &ResourceSettings, keys: &[(ResourceName, KeysView)]) -> bool {
    let Some((_, view)) = keys.iter().find(|(name, _)| *name == resource.name) else {
        return false;
    };
    let keys = resource.credential.keys().into_iter();
    let read = keys
        .flat_map(|keys| [KeyRole::Primary, KeyRole::Secondary].map(|role| keys.of(role)))
        .flatten()
        .filter_map(|one| ConnectionString::parse(&one.secret).ok());
    let known = |key: &str| view.status.keys.iter().any(|one| one.fingerprint == key);
    read.into_iter()
        .any(|string| !known(string.key.fingerprint()))
}

/// The same but for identities, which the store tells, access keys, which are compared by themselves, and what proves to
/// Entra ID who calls, where that is a file: another one is taken up with the next bearer.
fn without_keys(mut settings: Settings, running: &Settings) -> Settings {
    settings.identities.clone_from(&running.identities);
    for resource in &mut settings.resources {
        if let Some(ours) = running
            .resources
            .iter()
            .find(|one| one.name == resource.name)
        {
            without_keys_of(&mut resource.credential, &ours.credential);
        }
    }
    settings
}

fn without_keys_of(new: &mut CredentialSettings, ours: &CredentialSettings) {
    let (new, ours) = match (new, ours) {
        (CredentialSettings::Keys(new), CredentialSettings::Keys(ours)) => (new, ours),
        (CredentialSettings::Entra(new), CredentialSettings::Entra(ours)) => {
            let secret = ours.kind.secret().map(|(_, ours)| ours);
            let is_file = |secret: &&LoadedSecret| matches!(secret.from, SecretRef::File(_));
            if let Some((new, ours)) = new.kind.secret_mut().zip(secret.filter(is_file)) {
                new.secret = ours.secret.clone();
            }
            return;
        }
        _ => return,
    };
    new.connection_string.secret = ours.connection_string.secret.clone();
    if let (Some(new), Some(ours)) = (
        &mut new.secondary_connection_string,
        &ours.secondary_connection_string,
    ) {
        new.secret = ours.secret.clone();
    }
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

/// How long one of them may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The libraries refuse a signature that is older or newer than this.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(300);
/// From here on somebody should look at a clock.
const ODD: SignedDuration = SignedDuration::from_secs(60);

/// Asks one receiver whether it is there, by the way that events take; sends no event.
///
/// # Errors
/// When the sink cannot be made, or the receiver does not answer.
pub async fn reach(
    settings: &WebhookSinkSettings,
    clock: &Clock,
) -> Result<ProbeAnswer, SinkFailure> {
    let sink = WebhookSink::new(settings, "doctor", None)
        .map_err(|error| SinkFailure::new(error.to_string()))?;
    sink.probe(clock, DEADLINE).await
}

/// Asks all of them at once.
async fn receivers(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let webhooks = settings.sinks.iter().filter_map(|sink| match sink {
        SinkSettings::Webhook(webhook) => Some(webhook),
        _ => None,
    });
    let asked = webhooks.map(|webhook| reach(webhook, clock));
    let answers = join_all(asked).await;
    let answers = answers.into_iter().enumerate();
    answers
        .filter_map(|(n, answer)| judge(answer, &format!("sink.webhook[{n}].url")))
        .collect()
}

fn judge(answer: Result<ProbeAnswer, SinkFailure>, path: &str) -> Option<Finding> {
    let finding = |severity, message, fix: &str| Finding {
        path: path.to_owned(),
        severity,
        message,
        hint: Some(fix.to_owned()),
    };
    let ahead = match answer {
        Err(failure) => {
            let fix =
                "start the receiver, or correct url; curl -i URL from this machine tells more";
            return Some(finding(Severity::Error, failure.message, fix));
        }
        Ok(probe) => probe.ahead?,
    };
    let (distance, seconds) = (ahead.abs(), ahead.as_secs().abs());
    let side = if ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let fix = "on whichever is wrong: timedatectl set-ntp true; timedatectl timesync-status";
    let told = format!("the receiver's clock is {seconds} s {side} ours");
    if distance >= TOLERANCE {
        let message = format!("{told}, so it takes every signature for stale");
        Some(finding(Severity::Error, message, fix))
    } else if distance >= ODD {
        let message = format!("{told}; from 300 s on it would refuse every signature");
        Some(finding(Severity::Warning, message, fix))
    } else {
        None
    }
}

/// Whether the store's database takes a write.
fn database(settings: &Settings) -> Option<Finding> {
    let tried = try_database(settings.store.place.database()?);
    tried.err().map(|why| Finding {
        path: "store.url".to_owned(),
        severity: Severity::Error,
        message: why,
        hint: Some(
            "tokens that are there are served meanwhile, and nothing is renewed; renewd goes on by itself once a host \
             takes writes"
                .to_owned(),
        ),
    })
}

const MIB: u64 = 1 << 20;
/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: u64 = 0x0102_1994;

/// How much a file system holds, and how much of it this user may still have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    bytes: u64,
    free_bytes: u64,
    /// None where the file system makes inodes as it needs them.
    files: u64,
    free_files: u64,
}

/// The file systems of the store and of every file sink, once each.
fn space(settings: &Settings) -> Vec<Finding> {
    let mut places: Vec<(String, PathBuf)> = vec![(
        "store.path".to_owned(),
        settings.store.place.here(&settings.daemon.state_dir),
    )];
    let sinks = settings.sinks.iter().filter_map(|sink| match sink {
        SinkSettings::File(file) => Some(file.path.parse::<PathPattern>()),
        _ => None,
    });
    for (n, pattern) in sinks.enumerate() {
        if let Ok(pattern) = pattern {
            places.push((format!("sink.file[{n}].path"), pattern.root()));
        }
    }
    places
        .iter()
        .flat_map(|(path, folder)| of_folder(path, folder))
        .collect()
}

fn of_folder(path: &str, folder: &Path) -> Vec<Finding> {
    let existing = folder.ancestors().find(|part| part.is_dir());
    let Some((folder, found)) = existing.and_then(|part| Some((part, statfs(part).ok()?))) else {
        return Vec::new();
    };
    let size = u64::try_from(found.f_bsize).unwrap_or(0);
    let room = Room {
        bytes: found.f_blocks.saturating_mul(size),
        free_bytes: found.f_bavail.saturating_mul(size),
        files: found.f_files,
        free_files: found.f_ffree,
    };
    let is_tmpfs = u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS);
    let shown = folder.display();
    let bytes = lack_of_bytes(room).map(|severity| {
        let free = room.free_bytes / 1024;
        let message = format!("the file system of {shown} is nearly full: {free} KiB are free");
        let fix = if is_tmpfs {
            format!("mount -o remount,size={}M \"$(findmnt -no TARGET -T {shown})\"", (room.bytes / MIB).max(32) * 2)
        } else {
            format!("du -xh --max-depth=2 \"$(findmnt -no TARGET -T {shown})\" | sort -h | tail, then remove what nobody needs")
        };
        (severity, message, fix)
    });
    let files = lack_of_files(room).map(|severity| {
        let free = room.free_files;
        let message = format!("the file system of {shown} can take only {free} more files (inodes)");
        let fix = if is_tmpfs {
            format!("mount -o remount,nr_inodes={} \"$(findmnt -no TARGET -T {shown})\"", (room.files * 2).max(65_536))
        } else {
            format!("du -x --inodes --max-depth=2 \"$(findmnt -no TARGET -T {shown})\" | sort -n | tail, then remove what nobody needs")
        };
        (severity, message, fix)
    });
    let finding = |(severity, message, fix)| Finding {
        path: path.to_owned(),
        severity,
        message,
        hint: Some(fix),
    };
    bytes.into_iter().chain(files).map(finding).collect()
}

/// A few tokens need kilobytes; the store's journal, megabytes.
fn lack_of_bytes(room: Room) -> Option<Severity> {
    let below = |percent: u64| room.free_bytes < room.bytes / 100 * percent;
    if room.free_bytes < MIB / 16 || below(2) && room.free_bytes < 16 * MIB {
        Some(Severity::Error)
    } else {
        (below(10) && room.free_bytes < 1024 * MIB).then_some(Severity::Warning)
    }
}

/// Each write needs one inode more than there are files, for a moment.
fn lack_of_files(room: Room) -> Option<Severity> {
    if room.files == 0 {
        None
    } else if room.free_files < 8 {
        Some(Severity::Error)
    } else {
        let few = room.free_files < room.files / 20 && room.free_files < 10_000;
        few.then_some(Severity::Warning)
    }
}

#[cfg(test)]
mod doctor_tests {
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

#[cfg(test)]
mod receivers_tests {
    use super::*;

    fn judged(seconds: i64) -> Option<Finding> {
        let probe = ProbeAnswer {
            status: 204,
            ahead: Some(SignedDuration::from_secs(seconds)),
        };
        judge(Ok(probe), "p")
    }

    #[test]
    fn a_clock_is_odd_from_a_minute_and_wrong_from_the_tolerance() {
        assert_eq!(judged(59), None);
        assert_eq!(judged(-59), None);
        assert_eq!(judged(61).unwrap().severity, Severity::Warning);
        let behind = judged(-300).unwrap();
        assert_eq!(behind.severity, Severity::Error);
        assert!(behind.message.contains("300 s behind ours"), "{behind:?}");
    }

    #[test]
    fn a_receiver_that_tells_no_time_is_fine_and_a_silent_one_is_not() {
        let probe = ProbeAnswer {
            status: 405,
            ahead: None,
        };
        assert_eq!(judge(Ok(probe), "p"), None);
        let silent = judge(Err(SinkFailure::new("cannot post")), "p").unwrap();
        assert_eq!(silent.severity, Severity::Error);
    }
}

#[cfg(test)]
mod space_tests {
    use super::*;

    #[test]
    fn what_matters_is_what_is_left() {
        use Severity::{Error, Warning};
        let roomy = Room {
            bytes: 100_000 * MIB,
            free_bytes: 50_000 * MIB,
            files: 1_000_000,
            free_files: 900_000,
        };
        for (bytes, free_bytes, lack) in [
            (100_000 * MIB, 50_000 * MIB, None),
            (100_000 * MIB, 1500 * MIB, None),
            (100_000 * MIB, 900 * MIB, Some(Warning)),
            (100_000 * MIB, 15 * MIB, Some(Error)),
            (MIB, MIB / 2, None),
            (MIB, 0, Some(Error)),
        ] {
            let room = Room {
                bytes,
                free_bytes,
                ..roomy
            };
            assert_eq!(lack_of_bytes(room), lack, "{room:?}");
        }
        for (files, free_files, lack) in [
            (0, 0, None),
            (1_000_000, 900_000, None),
            (1_000_000, 9_999, Some(Warning)),
            (100, 50, None),
            (100, 7, Some(Error)),
        ] {
            let room = Room {
                files,
                free_files,
                ..roomy
            };
            assert_eq!(lack_of_files(room), lack, "{room:?}");
        }
    }
}
