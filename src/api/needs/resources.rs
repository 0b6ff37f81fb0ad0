//! What needs a person about one resource: its keys or its bearer, ACS itself, who is late, and who fails alone.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    super::wire::{Need, NeedKind},
    observation::{Late, Observed, counted, need},
};
use crate::{
    model::{
        BearerView, CreationsWaiting, GoneHeld, HealthView, KeyChange, KeyStage, KeyStanding,
        KeysView, Name, RenewerView, ResourceName, decided_lately,
    },
    store::FailingAlone,
};

/// A replacement that goes on is an order that is not carried out yet.
pub(super) fn key_need(change: &KeyChange) -> Need {
    let (role, resource) = (change.role, &change.resource);
    let what = match change.stage {
        KeyStage::Regenerate => "its tokens are replaced: it may be regenerated now",
        KeyStage::Replace => "it is refused, and the new one is awaited",
        _ => "its tokens are being replaced",
    };
    Need {
        because: change.trouble.clone(),
        since: Some(change.started_at),
        command: Some(format!("renewd key status {resource}")),
        ..need(
            NeedKind::KeyChange,
            resource.as_str(),
            format!(
                "the {role} key is being replaced, by order of {}: {what}",
                change.actor
            ),
        )
    }
}

/// ACS says of too many at once that they are gone.
pub(super) fn gone_need(held: &GoneHeld) -> Need {
    let resource = &held.resource;
    let message = format!(
        "ACS says since {:.0} that {} not exist, or belong to another resource. Nothing is withdrawn before a person \
         decides: if the connection string is that of another resource, put the right one in its place and reload; if \
         they are really gone, `renewd identity confirm-gone {resource}`",
        held.since,
        counted(held.count, "identity does", "identities do")
    );
    Need {
        names: held.names.clone(),
        since: Some(held.since),
        ..need(NeedKind::GoneHeld, resource.as_str(), message)
    }
}

/// The store had been lost, and nothing beside it knows the ids of these.
pub(super) fn creations_need(waiting: &CreationsWaiting) -> Need {
    let message = format!(
        "{} without a known id, and not created: the store had been lost, so they may exist at ACS. Import their \
         ids (`renewd identity import FILE`), or say that they are new: `renewd identity create NAME…`, or \
         `--all-missing`",
        counted(waiting.count, "identity is", "identities are")
    );
    Need {
        names: waiting.names.clone(),
        ..need(NeedKind::CreationsWait, waiting.resource.as_str(), message)
    }
}

/// No key works, or tokens may be dead because of their key.
pub(super) fn key_needs(resource: &ResourceName, keys: &KeysView, needs: &mut Vec<Need>) {
    if let Some(none) = &keys.none_works {
        let message = none.told(resource);
        needs.push(Need {
            since: Some(none.since),
            ..need(NeedKind::NoKey, resource.as_str(), message)
        });
    }
    for doubt in keys.doubts.iter().filter(|doubt| doubt.tokens > 0) {
        let fate = match keys.none_works {
            Some(_) => "they are minted anew as soon as a key works",
            None => "they are minted anew, before all other work",
        };
        let message = format!(
            "{}; {fate}: see `renewd key status {resource}`",
            doubt.told()
        );
        needs.push(Need {
            since: Some(doubt.since),
            ..need(NeedKind::Doubtful, resource.as_str(), message)
        });
    }
}

/// One key is refused and the other works: while that is the work of a person, that is told.
pub(super) fn refused_need(
    resource: &ResourceName,
    keys: &KeysView,
    known: &Observed<'_>,
) -> Option<Need> {
    let of = |change: &KeyChange| change.resource == *resource;
    if keys.none_works.is_some() || known.key_changes.iter().any(of) {
        return None;
    }
    let refused = keys.status.keys.iter();
    let refused = refused.filter(|key| key.standing == KeyStanding::Denied);
    let roles: Vec<&str> = refused.map(|key| key.role.as_str()).collect();
    if roles.is_empty() || roles.len() == keys.status.keys.len() {
        return None;
    }
    let message = format!(
        "its {} key is refused, so nothing is left if the other one is refused as well: put the right one in place",
        roles.join(" and ")
    );
    Some(need(NeedKind::KeyRefused, resource.as_str(), message))
}

pub(super) fn late_need(resource: &ResourceName, late: &Late) -> Need {
    let count = counted(late.count, "identity is", "identities are");
    let message = format!("{count} late: see `renewd why NAME`");
    let command = late.names.first().map(|name| format!("renewd why {name}"));
    Need {
        names: late.names.clone(),
        command,
        ..need(NeedKind::Late, resource.as_str(), message)
    }
}

/// Identities that fail although the resource answers: since when, how the last attempt ended, and the next.
pub(super) fn failing_need(resource: &ResourceName, failing: &FailingAlone) -> Need {
    let count = counted(failing.count, "identity fails", "identities fail");
    let names: Vec<Name> = failing
        .some
        .iter()
        .map(|row| row.spec.name.clone())
        .collect();
    let command = names.first().map(|name| format!("renewd why {name}"));
    let because = failing.some.first().and_then(|record| {
        let (last, due) = (record.attempts.last()?, record.due?);
        let name = &record.spec.name;
        Some(format!(
            "the last attempt of {name} ended with {}, it is tried again at {:.0}",
            last.result, due.at
        ))
    });
    Need {
        because,
        names,
        since: failing.since,
        command,
        ..need(
            NeedKind::Failing,
            resource.as_str(),
            format!("{count} although this resource answers; each is tried again by itself"),
        )
    }
}

pub(super) fn renewer_needs(
    resource: &ResourceName,
    renewer: &RenewerView,
    known: &Observed<'_>,
    needs: &mut Vec<Need>,
) {
    let mut add = |kind, message: &str, because: Option<&String>| {
        needs.push(Need {
            because: because.cloned(),
            since: match kind {
                NeedKind::Contention => renewer.contention.as_ref().map(|of| of.since),
                _ => None,
            },
            ..need(kind, resource.as_str(), message.to_owned())
        });
    };
    if !decided_lately(renewer.decided_at, known.since, known.now) {
        add(
            NeedKind::Stuck,
            "its renewer does not decide any more: the watchdog restarts renewd",
            None,
        );
    }
    if renewer.blocked.is_some() {
        add(
            NeedKind::Blocked,
            "nothing can be obtained at the moment",
            renewer.blocked.as_ref(),
        );
    }
    if renewer.creation_refused.is_some() {
        let message = "identities without an id are not created: import their ids";
        add(
            NeedKind::CreationRefused,
            message,
            renewer.creation_refused.as_ref(),
        );
    }
    if let Some(of) = &renewer.contention {
        let message = format!(
            "somebody else uses it: ACS answers 429 to {} although renewd had sent only {} of its {} calls in {} s. Find \
             out who, or give each installation its part with `share` in [[resource]]",
            of.operation, of.sent, of.allowed, of.window_secs
        );
        add(NeedKind::Contention, &message, None);
    }
    let bearer = renewer.bearer.as_ref();
    needs.extend(bearer.and_then(|bearer| bearer_need(resource, bearer, known.now)));
    // While no key works, or no bearer is to be had, that is told, and not what waits for one.
    let keyless = known
        .keys
        .get(resource)
        .is_some_and(|keys| keys.none_works.is_some());
    let wanting = bearer
        .is_some_and(|bearer| bearer.trouble.is_some() && bearer.usable_until(known.now).is_none());
    for (operations, health) in alike(&renewer.health) {
        let wait = health_need(resource, &operations, health, known.now);
        needs.extend(wait.filter(|need| !wanting && (need.kind != NeedKind::Held || !keyless)));
    }
}

/// That Entra ID does not answer, or gives no bearer that is taken.
fn bearer_need(resource: &ResourceName, bearer: &BearerView, now: Timestamp) -> Option<Need> {
    let trouble = bearer.trouble.as_ref()?;
    let kind = match trouble.cause.is_outage() {
        true => NeedKind::EntraUnreachable,
        false => NeedKind::EntraRefused,
    };
    let message = format!(
        "{}. {}",
        bearer.complaint(now)?,
        trouble.cause.remedy(resource).trim_end_matches('.')
    );
    Some(Need {
        because: Some(trouble.told.clone()),
        since: Some(trouble.since),
        ..need(kind, resource.as_str(), message)
    })
}

/// Operations that are not answered, or wait.
fn health_need(
    resource: &ResourceName,
    operations: &[&str],
    health: HealthView,
    now: Timestamp,
) -> Option<Need> {
    let names = operations.join(", ");
    let (kind, since, because, message) = match health {
        HealthView::Probing { since, because } => {
            let message = format!(
                "no answer to {names} since {since:.0}; only probes go out until there is one"
            );
            (NeedKind::Outage, Some(since), because, message)
        }
        HealthView::Held { until, because } if now < until => {
            let wait = if operations.len() == 1 {
                "waits"
            } else {
                "wait"
            };
            let message = format!("{names} {wait} until {until:.0}");
            (NeedKind::Held, None, because, message)
        }
        HealthView::Held { .. } | HealthView::Open => return None,
    };
    Some(Need {
        because: Some(because),
        since,
        ..need(kind, resource.as_str(), message)
    })
}

/// Operations that wait for one reason are told in one sentence: since the first, until the last.
fn alike(health: &BTreeMap<String, HealthView>) -> Vec<(Vec<&str>, HealthView)> {
    let mut groups: Vec<(Vec<&str>, HealthView)> = Vec::new();
    for (operation, view) in health {
        let joined = groups.iter_mut().any(|(operations, told)| {
            let joins = join(told, view);
            if joins {
                operations.push(operation);
            }
            joins
        });
        if !joined {
            groups.push((vec![operation], view.clone()));
        }
    }
    groups
}

/// Takes another operation's view into one that is told, where the reason is the same.
fn join(told: &mut HealthView, other: &HealthView) -> bool {
    match (told, other) {
        (
            HealthView::Probing { since, because },
            HealthView::Probing {
                since: began,
                because: why,
            },
        ) if because == why => *since = (*since).min(*began),
        (
            HealthView::Held { until, because },
            HealthView::Held {
                until: end,
                because: why,
            },
        ) if because == why => *until = (*until).max(*end),
        _ => return false,
    }
    true
}
