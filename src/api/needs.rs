//! What needs a person, found in what the parts of the daemon published; the worst first.

mod nodes;
mod observation;
mod resources;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub(super) use self::observation::{Late, Observed};
use self::{
    nodes::{is_served, node_needs, told_by_leader},
    observation::{counted, need},
    resources::{
        creations_need, failing_need, gone_need, key_need, key_needs, late_need, refused_need,
        renewer_needs,
    },
};
use super::{
    away,
    certificates::Certificates,
    orders,
    wire::{Need, NeedKind},
};
use crate::{
    model::{
        DispatcherView, SelfCheckFindings, Served, SetAside, SinkAt, State, decided_lately,
        short_duration,
    },
    store::{Disk, JobRan, Resealing, Withheld},
};

/// Failures in a row from which on a sink counts as failing: one may be an accident.
const FAILING: u32 = 3;
/// A sink that fails for so long counts as failing, and everybody who hears notices is told.
pub(super) const TOLD_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// So many are named.
const NAMED: usize = 20;
/// A clock that is so far off should be looked at: receivers refuse signatures at five minutes.
pub(super) const ODD_CLOCK: Duration = Duration::from_secs(60);
/// A job whose runs have come to no good end for so long.
const IN_VAIN: SignedDuration = SignedDuration::from_hours(1);
/// A delivery that waits for so long is behind, whatever its sink says.
pub(super) const BEHIND: SignedDuration = SignedDuration::from_mins(15);

/// Everything that needs a person.
pub(super) fn needs(known: &Observed<'_>) -> Vec<Need> {
    match known.standing.refusal() {
        // What is late or overdue is so because of it.
        Some(message) => vec![Need {
            command: Some(format!("renewd store {}", known.standing.remedy())),
            ..need(NeedKind::StoreUnusable, "store", message)
        }],
        None => needs_of_parts(known),
    }
}

fn needs_of_parts(known: &Observed<'_>) -> Vec<Need> {
    let mut needs = Vec::new();
    for order in known.orders {
        needs.extend(orders::needs_of(order, known.now));
    }
    needs.extend(known.withheld.iter().map(withheld_need));
    for (resource, keys) in known.keys {
        key_needs(resource, keys, &mut needs);
        needs.extend(refused_need(resource, keys, known));
    }
    self_check_needs(known.self_check, &mut needs);
    needs.extend(known.resealing.and_then(seal_key_need));
    store_needs(known, &mut needs);
    if let Some(served) = known.served {
        consumer_needs(served, known, &mut needs);
    }
    needs.extend(known.key_changes.iter().map(key_need));
    needs.extend(known.gone.iter().map(gone_need));
    needs.extend(known.creations.iter().map(creations_need));
    for (resource, late) in known.late {
        needs.push(late_need(resource, late));
    }
    needs.extend(unconfigured_needs(known));
    needs.extend(job_needs(known));
    for (resource, failing) in known.failing {
        needs.push(failing_need(resource, failing));
    }
    for (resource, renewer) in known.renewers {
        renewer_needs(resource, renewer, known, &mut needs);
    }
    for (sink, dispatcher) in known.dispatchers {
        if !decided_lately(dispatcher.decided_at, known.since, known.now) {
            let message = "its dispatcher does not decide any more: the watchdog restarts renewd";
            needs.push(need(NeedKind::Stuck, sink.as_str(), message.to_owned()));
        }
        sink_needs(sink, dispatcher, known, &mut needs);
    }
    for (sink, dispatcher) in known.beside {
        if is_served(sink, known) {
            sink_needs(sink, dispatcher, known, &mut needs);
        }
    }
    surrounding_needs(known, &mut needs);
    node_needs(known, &mut needs);
    needs.extend(told_by_leader(known));
    needs.extend(certificates(known).needs());
    needs.sort_by_key(|need| need.kind);
    needs
}

/// A seal key that is being replaced, or whose successor waits for its place.
fn seal_key_need(resealing: &Resealing) -> Option<Need> {
    let message = match (&resealing.successor, &resealing.by_hand) {
        (Some(_), _) => format!(
            "the seal key is being replaced: {} of {} tokens are sealed with the new one",
            resealing.sealed, resealing.tokens
        ),
        (None, Some(left)) => left.clone(),
        (None, None) => return None,
    };
    Some(Need {
        command: Some("renewd key reseal --status".to_owned()),
        ..need(NeedKind::OrderWaits, "store", message)
    })
}

/// What is withdrawn and has not reached a sink.
fn withheld_need(withheld: &Withheld) -> Need {
    let sink = &withheld.sink;
    let message = format!(
        "it does not know yet that {} withdrawn (held, deleted or gone), so its consumers may still hold a token",
        counted(withheld.count, "identity is", "identities are")
    );
    Need {
        because: withheld.error.clone(),
        names: withheld.names.clone(),
        since: Some(withheld.since),
        command: Some(format!("renewd delivery list --sink {sink}")),
        ..need(NeedKind::WithdrawalWaits, sink.as_str(), message)
    }
}

/// What the store knows, or does not know.
fn store_needs(known: &Observed<'_>, needs: &mut Vec<Need>) {
    if let Some(away) = known.away {
        needs.push(Need {
            because: Some(away.because.clone()),
            since: Some(away.since),
            command: Some("journalctl -u renewd -n 50".to_owned()),
            ..need(NeedKind::DatabaseAway, "store", away::told(away, known.now))
        });
    }
    if let Some(why) = known.unreadable {
        let message =
            "it cannot be read, wholly or in part, so what is shown here may be incomplete";
        needs.push(Need {
            because: Some(why.to_owned()),
            command: Some("journalctl -u renewd -n 50".to_owned()),
            ..need(NeedKind::StoreUnreadable, "store", message.to_owned())
        });
    }
    let orphans = known.counts.orphans;
    if orphans > 0 {
        let count = counted(orphans, "identity or token", "identities or tokens");
        let message = format!(
            "{count} may exist at ACS without a record, because an answer was lost or came too late"
        );
        needs.push(Need {
            command: Some("renewd orphan list".to_owned()),
            ..need(NeedKind::Orphans, "orphans", message)
        });
    }
    for (resource, states) in &known.counts.identities {
        let gone = states.get(&State::Gone).copied().unwrap_or(0);
        if gone > 0 {
            let message = format!(
                "ACS says that {} not exist, or belong to another resource. They are kept, and never created again by \
                 renewd itself: see `renewd identity list`, then `renewd identity revive NAME` if ACS knows them again, \
                 else remove them or import the right ids",
                counted(gone, "identity does", "identities do")
            );
            needs.push(need(NeedKind::Gone, resource.as_str(), message));
        }
    }
    needs.extend(known.counts.set_aside.iter().map(unreadable_need));
    disk_need(known.disk, needs);
}

pub(super) fn certificates<'a>(known: &Observed<'a>) -> Certificates<'a> {
    Certificates {
        renewers: known.renewers,
        dispatchers: known.dispatchers,
        trusted: known.trusted,
        now: known.now,
    }
}

/// Sources, the clock, the network.
fn surrounding_needs(known: &Observed<'_>, needs: &mut Vec<Need>) {
    for (source, lapse) in known.lapses {
        let message = "its list is not taken over; what it listed before stays in force";
        needs.push(Need {
            because: Some(lapse.reason.clone()),
            since: Some(lapse.since),
            command: Some(format!("renewd source test {source}")),
            ..need(NeedKind::SourceLapsed, source.as_str(), message.to_owned())
        });
    }
    if let Some(seconds) = known.held_step_secs {
        let message = format!(
            "the wall clock stepped by {seconds} s and no answer of ACS has confirmed it; \
             renewd goes on with the time from before: check the time service"
        );
        needs.push(need(NeedKind::Clock, "clock", message));
    }
    if known.held_step_secs.is_none() {
        needs.extend(skew_need(known));
    }
    if let Some(unbound) = known.unbound {
        let message = "health and metrics are not served there, and it is tried again every 5 s: stop whoever holds the \
                       port, or set another [daemon] listen";
        needs.push(Need {
            because: Some(unbound.because.clone()),
            ..need(
                NeedKind::Unbound,
                &unbound.address.to_string(),
                message.to_owned(),
            )
        });
    }
}

/// That the clock by which this machine goes is far from the one of a resource, as the resource's answers say: its own,
/// or in a cluster the database's.
fn skew_need(known: &Observed<'_>) -> Option<Need> {
    let skews = known
        .renewers
        .iter()
        .filter_map(|(name, renewer)| Some((name, renewer.skew_ms?)));
    let (name, skew) = skews.max_by_key(|(_, skew)| skew.unsigned_abs())?;
    let far = Duration::from_millis(skew.unsigned_abs());
    if far < ODD_CLOCK {
        return None;
    }
    let (far, side) = (
        short_duration(far),
        if skew > 0 { "behind" } else { "ahead of" },
    );
    let (whose, place, command) = match known.cluster {
        None => (
            "of this machine",
            "",
            Some("timedatectl set-ntp true".to_owned()),
        ),
        Some(_) => (
            "of the database, by which all nodes go,",
            " on the database's machine",
            None,
        ),
    };
    let message = format!(
        "the clock {whose} is {far} {side} that of {name}. Tokens are renewed and judged by theirs, but receivers refuse \
         signatures that are 5 minutes off, and jobs and logs go by this one: set it right{place}"
    );
    Some(Need {
        command,
        ..need(NeedKind::Clock, "clock", message)
    })
}

fn self_check_needs(self_check: &SelfCheckFindings, needs: &mut Vec<Need>) {
    if let Some(moved) = &self_check.store {
        let message = format!(
            "{}. Renewing and serving go on over the open file, but what is renewed is lost when renewd ends: rescue \
             it now, and do not stop renewd before",
            moved.what
        );
        needs.push(Need {
            since: Some(moved.since),
            command: Some("renewd store backup FILE".to_owned()),
            ..need(NeedKind::StoreMoved, "store", message)
        });
    }
    if let Some(gone) = &self_check.seal_key_gone {
        let message = format!(
            "its key {} is gone. Stored tokens are opened with the one in memory, and can be no more after the next \
             start: put the file back, or have a new key made, which seals all of them anew",
            gone.display()
        );
        needs.push(Need {
            command: Some("renewd key reseal".to_owned()),
            ..need(NeedKind::SealKeyGone, "store", message)
        });
    }
    if let Some(moved) = &self_check.socket {
        needs.push(Need {
            since: Some(moved.since),
            command: Some("systemctl restart renewd.socket renewd".to_owned()),
            ..need(NeedKind::SocketMoved, "socket", moved.what.clone())
        });
    }
    if let Some(refused) = &self_check.reload {
        let message =
            "the last reload was refused: the configuration from before stays in force".to_owned();
        needs.push(Need {
            since: Some(refused.since),
            because: Some(refused.what.clone()),
            command: Some("renewd check".to_owned()),
            ..need(NeedKind::ReloadRefused, "configuration", message)
        });
    }
    beside_store_needs(self_check, needs);
}

/// Whom the configuration declares and who is not taken over, and what is kept beside the database.
fn beside_store_needs(self_check: &SelfCheckFindings, needs: &mut Vec<Need>) {
    if let Some((name, why)) = self_check.not_taken.first() {
        let count = self_check.not_taken.len() as u64;
        let message = format!(
            "{} declared and not taken over: what the store knows of them stays in force, all others are as declared. \
             Mend the reason, then reload",
            counted(count, "identity is", "identities are")
        );
        let names = self_check.not_taken.iter().map(|(name, _)| name.clone());
        needs.push(Need {
            because: Some(format!("{name}: {why}")),
            names: names.take(NAMED).collect(),
            command: Some("systemctl reload renewd".to_owned()),
            ..need(NeedKind::NotTakenOver, "configuration", message)
        });
    }
    map_needs(self_check, needs);
    if let Some(why) = &self_check.withdrawn_copy {
        let message = "the second place of what was withdrawn ([store] withdrawn_copy) cannot be used: a database that \
                       is put back from a snapshot of this machine would not know what was withdrawn since. Mend the \
                       place; it is written whole again at the next withdrawal, and within minutes";
        needs.push(Need {
            because: Some(why.clone()),
            ..need(
                NeedKind::WithdrawnCopy,
                "withdrawn_copy",
                message.to_owned(),
            )
        });
    }
}

/// The map of names to ids: not all of it was taken over, or it cannot be written.
fn map_needs(self_check: &SelfCheckFindings, needs: &mut Vec<Need>) {
    if let Some(aside) = &self_check.map_aside {
        let aside = aside.display();
        let message = format!(
            "not all of it could be taken over at a start, so whoever only it declared is not renewed. It was kept as \
             {aside}: import that, mending the lines that are refused, then remove it"
        );
        needs.push(Need {
            command: Some(format!("renewd identity import {aside}")),
            ..need(NeedKind::NotTakenOver, "identities.jsonl", message)
        });
    }
    if let Some(why) = &self_check.map {
        let message = "identities.jsonl, the map of names to ids, cannot be written: were the database lost, the ids that \
                       are new since would be as well. Mend the place; it is written anew within 15 s";
        needs.push(Need {
            because: Some(why.clone()),
            ..need(
                NeedKind::MapUnwritable,
                "identities.jsonl",
                message.to_owned(),
            )
        });
    }
    if let Some(why) = &self_check.withdrawn {
        let message = "withdrawn.jsonl of this node cannot be written: were the database lost, what was withdrawn since \
                       might come back here, and while this node leads nothing is revoked or deleted. Mend the place; it \
                       is written within seconds";
        needs.push(Need {
            because: Some(why.clone()),
            ..need(
                NeedKind::MapUnwritable,
                "withdrawn.jsonl",
                message.to_owned(),
            )
        });
    }
    if let Some(why) = &self_check.mirror {
        let message = "this node's mirror of the database (mirror.db) cannot be kept: while the database is away, nothing \
                       is served here but files. Mend the reason; it is made anew from the database, and tried every 10 s";
        needs.push(Need {
            because: Some(why.clone()),
            ..need(NeedKind::NoMirror, "mirror.db", message.to_owned())
        });
    }
}

/// Identities that want tokens of a resource that is not configured any more.
fn unconfigured_needs<'a>(known: &'a Observed<'_>) -> impl Iterator<Item = Need> + 'a {
    // A machine that does not lead renews nothing, whatever is configured.
    let follows = known
        .cluster
        .is_some_and(|cluster| cluster.epoch().is_none());
    let of = known.counts.identities.iter().filter(move |_| !follows);
    let of = of.filter(|(resource, _)| !known.configured.contains(*resource));
    of.filter_map(|(resource, states)| {
        let wanting = states.iter().filter(|(state, _)| state.wants_token());
        let count: u64 = wanting.map(|(_, count)| count).sum();
        let message = format!(
            "it is not configured, so nobody renews the tokens of {}: put [[resource]] back, or remove them \
             (`renewd identity remove NAME`)",
            counted(count, "identity", "identities")
        );
        let need = need(NeedKind::Unconfigured, resource.as_str(), message);
        (count > 0).then_some(need)
    })
}

/// Jobs that are configured and whose runs have come to no good end for long.
fn job_needs<'a>(known: &'a Observed<'_>) -> impl Iterator<Item = Need> + 'a {
    let configured = |ran: &&JobRan| known.configured_jobs.iter().any(|job| job.name == ran.job);
    let ran = known.jobs.iter().filter(configured);
    ran.filter_map(|ran| {
        let since = ran.in_vain_since?;
        let message = "no run of this job has come to a good end since: it failed, was left out, or has not ended";
        let need = Need {
            since: Some(since),
            command: Some(format!("renewd job history {}", ran.job)),
            ..need(NeedKind::JobFailed, ran.job.as_str(), message.to_owned())
        };
        (known.now.duration_since(since) >= IN_VAIN).then_some(need)
    })
}

/// Consumers that hold no live token, or of which nothing is known.
fn consumer_needs(served: &Served, known: &Observed<'_>, needs: &mut Vec<Need>) {
    let sinks = served.sinks.iter();
    let sinks = sinks.map(|(name, consumers)| (name.to_string(), consumers));
    for (by, consumers) in sinks.chain([("socket".to_owned(), &served.socket)]) {
        let all = consumers.total();
        if consumers.without + consumers.unknown == 0 {
            continue;
        }
        let mut words = Vec::new();
        if consumers.without > 0 {
            let verb = if consumers.without == 1 {
                "holds"
            } else {
                "hold"
            };
            words.push(format!(
                "{} of {all} consumers {verb} no live token",
                consumers.without
            ));
        }
        if consumers.unknown > 0 {
            words.push(format!(
                "of {} of {all} it is not known whether they hold one",
                consumers.unknown
            ));
        }
        let names = known.lacking.get(&by).cloned().unwrap_or_default();
        let command = names.first().map(|name| format!("renewd why {name}"));
        let need = need(NeedKind::NoLiveToken, &by, words.join("; "));
        needs.push(Need {
            names,
            since: consumers.without_since,
            command: command.or(need.command),
            ..need
        });
    }
}

fn disk_need(disk: Disk, needs: &mut Vec<Need>) {
    let message = match disk {
        Disk::Roomy => return,
        Disk::OnReserve => {
            "its disk is full: renewals and withdrawals go on with the reserve that was kept for this, and history \
             is pruned sooner. Free some space"
        }
        Disk::Full => "its disk is full and the reserve is used up. Free some space now",
    };
    needs.push(need(NeedKind::DiskFull, "store", message.to_owned()));
}

/// Rows that cannot be read: what that costs, and what can be done.
fn unreadable_need(found: &SetAside) -> Need {
    let rows = counted(found.rows, "row", "rows");
    let what = match found.kind.as_str() {
        "identity" => {
            "set aside: neither renewed nor delivered, while all others are. Mend the database, or drop them with \
             `renewd identity remove NAME` (the id stays known) and declare them again"
        }
        "token" => {
            "set aside: the stored token does not open. It is replaced at the next renewal; \
             `renewd renew NAME` asks for that at once"
        }
        "delivery" => {
            "set aside: these consumers are not served, while all others are. Mend the database, or take the sink \
             out of the identity and put it back"
        }
        "campaign item" => {
            "set aside, and counted as failed: see `renewd campaign list`. Revoke or delete them by their ids"
        }
        _ => {
            "set aside, the others are not concerned. Mend the database with the daemon stopped, or restore a backup"
        }
    };
    let message = format!(
        "{rows} of the store cannot be read ({}) and are {what}",
        found.kind
    );
    Need {
        because: Some(found.because.clone()),
        names: found.names.clone(),
        ..need(NeedKind::Unreadable, "store", message)
    }
}

fn sink_needs(
    sink: &SinkAt,
    dispatcher: &DispatcherView,
    known: &Observed<'_>,
    needs: &mut Vec<Need>,
) {
    let mut add = |kind, message: String, because: Option<&String>| {
        needs.push(Need {
            because: because.cloned(),
            since: match kind {
                NeedKind::SinkFailing => dispatcher.failing_since,
                NeedKind::SinkBehind => known.counts.oldest_pending.get(sink).copied(),
                _ => None,
            },
            ..need(kind, sink.as_str(), message)
        });
    };
    let waiting = known.counts.pending.get(sink).copied().unwrap_or(0);
    let waiting = counted(waiting, "delivery waits", "deliveries wait");
    if dispatcher.disabled.is_some() {
        let message = format!("it is disabled; {waiting}");
        add(
            NeedKind::SinkDisabled,
            message,
            dispatcher.disabled.as_ref(),
        );
        return;
    }
    let for_long = |since: &Timestamp| known.now.duration_since(*since) >= TOLD_AFTER;
    let oldest = known.counts.oldest_pending.get(sink);
    if dispatcher.failures_in_row >= FAILING
        || dispatcher.failing_since.as_ref().is_some_and(for_long)
    {
        let message = format!(
            "{} failures in a row; {waiting}",
            dispatcher.failures_in_row
        );
        add(
            NeedKind::SinkFailing,
            message,
            dispatcher.last_error.as_ref(),
        );
    } else if oldest.is_some_and(|since| known.now.duration_since(*since) >= BEHIND) {
        let message = format!("{waiting}, the oldest for more than 15 minutes");
        add(
            NeedKind::SinkBehind,
            message,
            dispatcher.last_error.as_ref(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::{Counts, HealthView, RenewerView, StoreStanding};

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn found(
        renewer: RenewerView,
        dispatcher: DispatcherView,
        counts: &Counts,
        late: Late,
    ) -> Vec<Need> {
        let fresh = Some(noon());
        let mut late = BTreeMap::from([("contoso".parse().unwrap(), late)]);
        late.retain(|_, late| late.count > 0);
        needs(&Observed {
            standing: &StoreStanding::Own,
            now: noon(),
            since: noon(),
            renewers: &BTreeMap::from([(
                "contoso".parse().unwrap(),
                RenewerView {
                    decided_at: fresh,
                    ..renewer
                },
            )]),
            dispatchers: &BTreeMap::from([(
                "crm".parse().unwrap(),
                DispatcherView {
                    decided_at: fresh,
                    ..dispatcher
                },
            )]),
            beside: &BTreeMap::new(),
            counts,
            keys: &BTreeMap::new(),
            served: None,
            lacking: &BTreeMap::new(),
            key_changes: &[],
            away: None,
            unreadable: None,
            self_check: &SelfCheckFindings::default(),
            late: &late,
            failing: &BTreeMap::new(),
            gone: &[],
            creations: &[],
            jobs: &[],
            configured_jobs: &[],
            orders: &[],
            resealing: None,
            withheld: &[],
            lapses: &BTreeMap::new(),
            trusted: &BTreeMap::new(),
            held_step_secs: None,
            disk: Disk::Roomy,
            unbound: None,
            configured: &BTreeSet::from(["contoso".parse().unwrap()]),
            told: &BTreeMap::new(),
            cluster: None,
        })
    }

    /// The same where only the renewer may have something.
    fn renewing(renewer: RenewerView) -> Vec<Need> {
        let (dispatcher, late) = (DispatcherView::default(), Late::default());
        found(renewer, dispatcher, &Counts::default(), late)
    }

    #[test]
    fn when_all_is_well_nobody_is_needed() {
        let all = renewing(RenewerView::default());
        assert_eq!(all, []);
    }

    #[test]
    fn the_worst_comes_first() {
        let mut renewer = RenewerView::default();
        renewer.health.insert(
            "issue".into(),
            HealthView::Probing {
                since: noon(),
                because: "connection refused".into(),
            },
        );
        let dispatcher = DispatcherView {
            failures_in_row: 12,
            last_error: Some("500".into()),
            ..DispatcherView::default()
        };
        let gone = BTreeMap::from([(State::Gone, 1)]);
        let counts = Counts {
            identities: BTreeMap::from([("contoso".parse().unwrap(), gone)]),
            ..Counts::default()
        };
        let late = Late {
            count: 1,
            names: vec!["anna".parse().unwrap()],
        };
        let all = found(renewer, dispatcher, &counts, late);
        let kinds: Vec<_> = all.iter().map(|need| need.kind).collect();
        assert_eq!(
            kinds,
            [
                NeedKind::Late,
                NeedKind::Outage,
                NeedKind::Gone,
                NeedKind::SinkFailing
            ]
        );
        assert_eq!(all[0].message, "1 identity is late: see `renewd why NAME`");
        assert_eq!(all[3].message, "12 failures in a row; 0 deliveries wait");
        assert_eq!(all[3].because.as_deref(), Some("500"));
    }

    #[test]
    fn a_full_disk_needs_a_person_until_there_is_room() {
        let told = |disk| {
            let mut needs = Vec::new();
            disk_need(disk, &mut needs);
            needs
                .into_iter()
                .map(|need| need.message)
                .collect::<Vec<_>>()
        };
        assert!(told(Disk::OnReserve)[0].contains("reserve that was kept"));
        assert!(told(Disk::Full)[0].contains("used up"));
        assert!(told(Disk::Roomy).is_empty());
    }

    #[test]
    fn operations_that_wait_for_one_reason_are_told_once() {
        let held = |until: &str| HealthView::Held {
            until: until.parse().unwrap(),
            because: "429".into(),
        };
        let probing = |since: &str, because: &str| HealthView::Probing {
            since: since.parse().unwrap(),
            because: because.into(),
        };
        let health = BTreeMap::from([
            ("create".into(), held("2026-11-22T12:00:01Z")),
            (
                "delete".into(),
                probing("2026-11-22T11:58:00Z", "connection refused"),
            ),
            ("issue".into(), held("2026-11-22T12:00:09Z")),
            (
                "revoke".into(),
                probing("2026-11-22T11:57:00Z", "connection refused"),
            ),
            ("exchange".into(), probing("2026-11-22T11:59:00Z", "500")),
        ]);
        let renewer = RenewerView {
            health,
            ..RenewerView::default()
        };
        let all = renewing(renewer);
        let told: Vec<&str> = all.iter().map(|need| need.message.as_str()).collect();
        assert_eq!(
            told,
            [
                "create, issue wait until 2026-11-22T12:00:09Z",
                "no answer to delete, revoke since 2026-11-22T11:57:00Z; only probes go out until there is one",
                "no answer to exchange since 2026-11-22T11:59:00Z; only probes go out until there is one",
            ]
        );
    }

    #[test]
    fn a_hold_that_is_over_needs_nobody() {
        let mut renewer = RenewerView::default();
        let held = |until| HealthView::Held {
            until,
            because: "429".into(),
        };
        renewer.health.insert("issue".into(), held(noon()));
        let quiet = renewing(renewer.clone());
        assert_eq!(quiet, []);
        renewer.health.insert(
            "issue".into(),
            held("2026-11-22T12:00:01Z".parse().unwrap()),
        );
        let all = renewing(renewer);
        assert_eq!(all[0].kind, NeedKind::Held);
    }

    fn hours(hours: i64) -> Timestamp {
        noon() + SignedDuration::from_hours(hours)
    }

    #[test]
    fn a_certificate_is_told_of_a_month_and_a_week_before_it_ends() {
        let kinds = |ends| {
            let renewer = RenewerView {
                peer_ends: Some(ends),
                ..RenewerView::default()
            };
            let all = renewing(renewer);
            all.iter().map(|need| need.kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds(hours(31 * 24)), []);
        assert_eq!(kinds(hours(29 * 24)), [NeedKind::CertificateEnds]);
        assert_eq!(kinds(hours(6 * 24)), [NeedKind::CertificateEndsSoon]);
        assert_eq!(kinds(hours(-1)), [NeedKind::CertificateEndsSoon]);
    }
}
