//! The notices of a lane, in sentences for people: what happened, to what, what can be done.

use jiff::Timestamp;

use crate::{
    model::{Failure, IdentityId, Notice, NoticeKind, Record, ResourceName, short_duration},
    schedule::{Ended as How, Grounds, Standing, standing},
    store::Ended,
};

/// The words before the resource's name in keys.
pub(super) const LATE: &str = "late";
pub(super) const FAILING: &str = "identities";
pub(super) const CREATE: &str = "create";
pub(super) const STORE: &str = "store";

/// Why nothing is created with `create = "never"`.
pub(super) const CREATE_NEVER: &str = "identities without an id are not created because the resource says create = \"never\"; give \
     them an id in the configuration, or run `renewd identity import`";

pub(super) fn created(record: &Record, id: &IdentityId, at: Timestamp) -> Notice {
    about(
        record,
        NoticeKind::IdentityCreated,
        at,
        format!("{} was created as {id}.", record.spec.name),
    )
}

pub(super) fn orphaned(record: &Record, failure: &Failure, at: Timestamp) -> Notice {
    let message = format!(
        "The answer to creating {} was lost ({}): ACS may hold an identity that nobody knows. It is created anew.",
        record.spec.name, failure.message
    );
    about(record, NoticeKind::IdentityOrphaned, at, message)
}

pub(super) fn late(record: &Record, grounds: &Grounds, at: Timestamp) -> Notice {
    let fate = fate(record, grounds, at);
    let last = match record.attempts.last().filter(|last| last.result != "ok") {
        Some(attempt) => format!("; the last attempt ended with {}", attempt.result),
        None => "; it was not tried since it became due".to_owned(),
    };
    let message = format!(
        "The renewal of {} is late: {fate}{last}. See `renewd why {}`.",
        record.spec.name, record.spec.name
    );
    about(record, NoticeKind::RenewalLate, at, message)
}

/// What is left to the token of a row, in words.
fn fate(record: &Record, grounds: &Grounds, at: Timestamp) -> String {
    match standing(record, grounds, at) {
        Standing::None => "it has no token".to_owned(),
        Standing::Good { left } => format!("its token ends in {}", short_duration(left)),
        Standing::Doubtful { since, left } => format!(
            "its token may be dead, as its access key is refused or no longer configured since {since:.0}; if it is \
             not, it ends in {}",
            short_duration(left)
        ),
        Standing::Dead {
            since,
            how: How::Expired,
        } => format!("its token ended at {since:.0}"),
        Standing::Dead {
            since,
            how: How::Revoked,
        } => format!("its token was revoked at {since:.0}"),
    }
}

pub(super) fn failing(
    record: &Record,
    grounds: &Grounds,
    (because, result): (&str, &str),
    next: Timestamp,
    at: Timestamp,
) -> Notice {
    let (name, token) = (&record.spec.name, fate(record, grounds, at));
    let message = format!(
        "{name} fails by itself, while others of {} succeed ({because}): {token}; it is tried again at {next:.0}, apart \
         from the others. The last attempt ended with {result}. See `renewd why {name}`.",
        record.spec.resource
    );
    Notice {
        key: Some(Notice::failing_key(name)),
        ..about(record, NoticeKind::IdentityFailing, at, message)
    }
}

pub(super) fn many_failing(resource: &ResourceName, more: u32, at: Timestamp) -> Notice {
    let message = format!(
        "{more} more identities of {resource} fail by themselves, while others succeed. See `renewd status`."
    );
    of(resource, NoticeKind::IdentityFailing, FAILING, at, message)
}

pub(super) fn none_fails(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("No identity of {resource} fails by itself any more.");
    of(
        resource,
        NoticeKind::IdentityRecovered,
        FAILING,
        at,
        message,
    )
}

pub(super) fn many_late(resource: &ResourceName, more: u32, at: Timestamp) -> Notice {
    let message = format!(
        "The renewals of {more} more identities of {resource} are late. See `renewd status`."
    );
    of(resource, NoticeKind::RenewalLate, LATE, at, message)
}

pub(super) fn none_is_late(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("No renewal of {resource} is late any more.");
    of(resource, NoticeKind::RenewalRecovered, LATE, at, message)
}

pub(super) fn unreachable(
    resource: &ResourceName,
    because: &str,
    survives: Option<Timestamp>,
    at: Timestamp,
) -> Notice {
    let message = format!(
        "{resource} does not answer ({because}). {} Only probes go out until it answers.",
        survival(survives, at)
    );
    of(
        resource,
        NoticeKind::ResourceUnreachable,
        "outage",
        at,
        message,
    )
}

/// Under which key an outage is told.
pub(super) fn trouble_key(kind: NoticeKind, resource: &ResourceName) -> String {
    let word = match kind {
        NoticeKind::KeyRejected => "keys",
        _ => "outage",
    };
    format!("{word} {resource}")
}

/// An outage goes on while tokens end.
pub(super) fn outlived(
    resource: &ResourceName,
    kind: NoticeKind,
    because: &str,
    ended: Ended,
    at: Timestamp,
) -> Notice {
    let still = match kind {
        NoticeKind::KeyRejected => "still refuses the access keys",
        _ => "still does not answer",
    };
    let tokens = match (ended.ended, ended.any_lives) {
        (1, true) => "The first token has ended; consumers of it hold a dead one.".to_owned(),
        (count, true) => format!("{count} tokens have ended; consumers of them hold dead ones."),
        (count, false) => format!(
            "No token lives any more: all {count} have ended, and every consumer is without a live one."
        ),
    };
    Notice {
        at,
        kind,
        resource: Some(resource.clone()),
        name: None,
        key: Some(trouble_key(kind, resource)),
        message: format!("{resource} {still} ({because}). {tokens}"),
    }
}

pub(super) fn recovered(
    resource: &ResourceName,
    survives: Option<Timestamp>,
    at: Timestamp,
) -> Notice {
    let message = format!("{resource} answers again. {}", survival(survives, at));
    of(
        resource,
        NoticeKind::ResourceRecovered,
        "outage",
        at,
        message,
    )
}

pub(super) fn key_rejected(
    resource: &ResourceName,
    because: &str,
    survives: Option<Timestamp>,
    at: Timestamp,
) -> Notice {
    let message = format!(
        "{resource} refuses the access keys ({because}). Put a valid connection string in place and reload. {}",
        survival(survives, at)
    );
    of(resource, NoticeKind::KeyRejected, "keys", at, message)
}

pub(super) fn key_accepted(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("{resource} accepts an access key again.");
    of(resource, NoticeKind::ResourceRecovered, "keys", at, message)
}

pub(super) fn key_switched(resource: &ResourceName, key: &str, at: Timestamp) -> Notice {
    let message = format!(
        "{resource} refuses one access key and accepts the other ({key}), which is used from now on. Replace the \
         refused one; tokens that it minted are dead if it was regenerated."
    );
    of(resource, NoticeKind::KeySwitched, "", at, message)
}

pub(super) fn create_refused(resource: &ResourceName, why: &str, at: Timestamp) -> Notice {
    let message = format!("{resource}: {why}.");
    of(resource, NoticeKind::CreateRefused, CREATE, at, message)
}

pub(super) fn create_allowed(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("{resource}: no identity waits any more for a creation that is refused.");
    of(resource, NoticeKind::CreateAllowed, CREATE, at, message)
}

pub(super) fn unwritable(resource: &ResourceName, why: &str, at: Timestamp) -> Notice {
    let message = format!("No tokens of {resource} could be obtained for a while: {why}.");
    of(resource, NoticeKind::StoreUnwritable, STORE, at, message)
}

pub(super) fn writable(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("The store can be written again, and tokens of {resource} are obtained.");
    of(resource, NoticeKind::StoreWritable, STORE, at, message)
}

fn survival(survives: Option<Timestamp>, now: Timestamp) -> String {
    match survives {
        Some(until) if until > now => {
            let left = until.duration_since(now).try_into().unwrap_or_default();
            format!(
                "Every token lives until {until:.0} at least ({} from now).",
                short_duration(left)
            )
        }
        Some(_) => "Some tokens have expired.".to_owned(),
        None => "No token is at risk.".to_owned(),
    }
}

fn about(record: &Record, kind: NoticeKind, at: Timestamp, message: String) -> Notice {
    let key = (kind == NoticeKind::RenewalLate).then(|| Notice::late_key(&record.spec.name));
    Notice {
        at,
        kind,
        resource: Some(record.spec.resource.clone()),
        name: Some(record.spec.name.clone()),
        key,
        message,
    }
}

/// `key` is the word before the resource's name in the key; empty for what cannot end.
fn of(
    resource: &ResourceName,
    kind: NoticeKind,
    key: &str,
    at: Timestamp,
    message: String,
) -> Notice {
    Notice {
        at,
        kind,
        resource: Some(resource.clone()),
        name: None,
        key: (!key.is_empty()).then(|| format!("{key} {resource}")),
        message,
    }
}
