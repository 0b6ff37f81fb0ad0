//! What needs a person, found in what the parts of the daemon published; the worst first.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    listeners::Unbound,
    orders,
    wire::{Need, NeedKind},
};
use crate::{
    model::{
        Counts, CourierView, GoneHeld, HealthView, KeysView, LaneView, Lapse, Name, ResourceName,
        SetAside, SinkName, SourceName, State, StoreStanding, decided_lately,
    },
    store::{Disk, Order},
};

/// Failures in a row from which on a sink counts as failing: one may be an accident.
const FAILING: u32 = 3;

/// What is known at one instant.
#[derive(Debug, Clone)]
pub(super) struct Known<'a> {
    pub standing: &'a StoreStanding,
    pub now: Timestamp,
    pub since: Timestamp,
    pub lanes: &'a BTreeMap<ResourceName, LaneView>,
    pub couriers: &'a BTreeMap<SinkName, CourierView>,
    pub counts: &'a Counts,
    /// What is known of the access keys of each resource.
    pub keys: &'a BTreeMap<ResourceName, KeysView>,
    /// Some of the late identities of each resource that has any.
    pub late: &'a BTreeMap<ResourceName, Late>,
    /// Where ACS says of too many identities at once that they are gone.
    pub gone: &'a [GoneHeld],
    /// What people ordered and is not carried out yet.
    pub orders: &'a [Order],
    /// Sources whose list is not taken over.
    pub lapses: &'a BTreeMap<SourceName, Lapse>,
    /// How far the wall clock has stepped, in seconds, unconfirmed.
    pub held_step_secs: Option<i64>,
    /// How the disk of the store is.
    pub disk: Disk,
    /// The TCP address that is refused.
    pub unbound: Option<&'a Unbound>,
}

/// The late identities of one resource.
#[derive(Debug, Clone, Default)]
pub(super) struct Late {
    /// How many.
    pub count: u64,
    /// The most pressing of them.
    pub names: Vec<Name>,
}

/// Everything that needs a person.
pub(super) fn needs(known: &Known<'_>) -> Vec<Need> {
    match known.standing.refusal() {
        // What is late or overdue is so because of it.
        Some(message) => vec![need(NeedKind::StoreUnusable, "store", message)],
        None => needs_of_parts(known),
    }
}

fn needs_of_parts(known: &Known<'_>) -> Vec<Need> {
    let mut needs = Vec::new();
    for order in known.orders {
        needs.extend(orders::needs_of(order, known.now));
    }
    for (resource, keys) in known.keys {
        key_needs(resource, keys, &mut needs);
    }
    needs.extend(known.gone.iter().map(gone_need));
    needs.extend(known.late.iter().map(|(of, late)| late_need(of, late)));
    for (resource, lane) in known.lanes {
        lane_needs(resource, lane, known, &mut needs);
    }
    for (resource, states) in &known.counts.identities {
        let gone = states.get(&State::Gone).copied().unwrap_or(0);
        if gone > 0 {
            let message = format!(
                "ACS says that {} not exist or not ours; they are kept and never re-created: \
                 see `renewd identity list`, then `renewd identity revive NAME` if ACS knows them again, else remove them or import the right ids",
                counted(gone, "identity does", "identities do")
            );
            needs.push(need(NeedKind::Gone, resource.as_str(), message));
        }
    }
    for (sink, courier) in known.couriers {
        courier_needs(sink, courier, known, &mut needs);
    }
    needs.extend(known.counts.set_aside.iter().map(unreadable_need));
    for (source, lapse) in known.lapses {
        let message = format!(
            "its list is not taken over since {:.0}, what it listed before stays: see `renewd source test {source}`",
            lapse.since
        );
        needs.push(Need {
            because: Some(lapse.reason.clone()),
            ..need(NeedKind::SourceLapsed, source.as_str(), message)
        });
    }
    if let Some(seconds) = known.held_step_secs {
        let message = format!(
            "the wall clock stepped by {seconds} s and no answer of ACS has confirmed it; \
             renewd goes on with the time from before: check the time service"
        );
        needs.push(need(NeedKind::Clock, "clock", message));
    }
    disk_need(known.disk, &mut needs);
    if let Some(unbound) = known.unbound {
        let message = "health and metrics are not served there, it is tried again every 5 s: stop whoever holds the \
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
    needs.sort_by_key(|need| need.kind);
    needs
}

fn disk_need(disk: Disk, needs: &mut Vec<Need>) {
    let message = match disk {
        Disk::Roomy => return,
        Disk::OnReserve => {
            "its disk is full: renewals and withdrawals go on with the reserve that was kept for this, and history \
             is pruned sooner: free some space"
        }
        Disk::Full => "its disk is full and the reserve is used up: free some space now",
    };
    needs.push(need(NeedKind::DiskFull, "store", message.to_owned()));
}

/// ACS says of too many at once that they are gone.
fn gone_need(held: &GoneHeld) -> Need {
    let resource = &held.resource;
    let message = format!(
        "it says since {:.0} that {} not exist or not its own; nothing is withdrawn: if the connection string is one \
         of another resource, put the right one in its place and reload; if they are really gone, `renewd identity \
         confirm-gone {resource}`",
        held.since,
        counted(held.count, "identity does", "identities do")
    );
    Need {
        names: held.names.clone(),
        ..need(NeedKind::GoneHeld, resource.as_str(), message)
    }
}

/// No key works, or tokens may be dead because of their key.
fn key_needs(resource: &ResourceName, keys: &KeysView, needs: &mut Vec<Need>) {
    if let Some(none) = &keys.none_works {
        let message = none.told(resource);
        needs.push(need(NeedKind::NoKey, resource.as_str(), message));
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
        needs.push(need(NeedKind::Doubtful, resource.as_str(), message));
    }
}

fn late_need(resource: &ResourceName, late: &Late) -> Need {
    let count = counted(late.count, "identity is", "identities are");
    let message = format!("{count} late: see `renewd why NAME`");
    Need {
        names: late.names.clone(),
        ..need(NeedKind::Late, resource.as_str(), message)
    }
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

fn lane_needs(resource: &ResourceName, lane: &LaneView, known: &Known<'_>, needs: &mut Vec<Need>) {
    let mut add = |kind, message: &str, because: Option<&String>| {
        needs.push(Need {
            because: because.cloned(),
            ..need(kind, resource.as_str(), message.to_owned())
        });
    };
    if !decided_lately(lane.decided_at, known.since, known.now) {
        add(
            NeedKind::Stuck,
            "its lane does not decide any more: the watchdog restarts renewd",
            None,
        );
    }
    if lane.blocked.is_some() {
        add(
            NeedKind::Blocked,
            "nothing can be obtained at the moment",
            lane.blocked.as_ref(),
        );
    }
    if lane.creation_refused.is_some() {
        let message = "identities without an id are not created: import their ids";
        add(
            NeedKind::CreationRefused,
            message,
            lane.creation_refused.as_ref(),
        );
    }
    for (operation, health) in &lane.health {
        match health {
            HealthView::Probing { since, because } => {
                let message = format!("{operation} is unanswered since {since:.0}");
                add(NeedKind::Outage, &message, Some(because));
            }
            HealthView::Held { until, because } if known.now < *until => {
                let message = format!("{operation} is held until {until:.0}");
                add(NeedKind::Held, &message, Some(because));
            }
            HealthView::Held { .. } | HealthView::Open => {}
        }
    }
}

fn courier_needs(sink: &SinkName, courier: &CourierView, known: &Known<'_>, needs: &mut Vec<Need>) {
    let mut add = |kind, message: String, because: Option<&String>| {
        needs.push(Need {
            because: because.cloned(),
            ..need(kind, sink.as_str(), message)
        });
    };
    if !decided_lately(courier.decided_at, known.since, known.now) {
        let message = "its courier does not decide any more: the watchdog restarts renewd";
        add(NeedKind::Stuck, message.to_owned(), None);
    }
    let waiting = known.counts.pending.get(sink).copied().unwrap_or(0);
    let waiting = counted(waiting, "delivery waits", "deliveries wait");
    if courier.disabled.is_some() {
        let message = format!("it is disabled; {waiting}");
        add(NeedKind::SinkDisabled, message, courier.disabled.as_ref());
    } else if courier.failures_in_row >= FAILING {
        let message = format!("{} failures in a row; {waiting}", courier.failures_in_row);
        add(NeedKind::SinkFailing, message, courier.last_error.as_ref());
    }
}

fn need(kind: NeedKind, subject: &str, message: String) -> Need {
    Need {
        kind,
        subject: subject.to_owned(),
        message,
        because: None,
        names: Vec::new(),
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn found(lane: LaneView, courier: CourierView, counts: &Counts, late: Late) -> Vec<Need> {
        let fresh = Some(noon());
        let mut late = BTreeMap::from([("contoso".parse().unwrap(), late)]);
        late.retain(|_, late| late.count > 0);
        needs(&Known {
            standing: &StoreStanding::Own,
            now: noon(),
            since: noon(),
            lanes: &BTreeMap::from([(
                "contoso".parse().unwrap(),
                LaneView {
                    decided_at: fresh,
                    ..lane
                },
            )]),
            couriers: &BTreeMap::from([(
                "crm".parse().unwrap(),
                CourierView {
                    decided_at: fresh,
                    ..courier
                },
            )]),
            counts,
            keys: &BTreeMap::new(),
            late: &late,
            gone: &[],
            orders: &[],
            lapses: &BTreeMap::new(),
            held_step_secs: None,
            disk: Disk::Roomy,
            unbound: None,
        })
    }

    #[test]
    fn when_all_is_well_nobody_is_needed() {
        let all = found(
            LaneView::default(),
            CourierView::default(),
            &Counts::default(),
            Late::default(),
        );
        assert_eq!(all, []);
    }

    #[test]
    fn the_worst_comes_first() {
        let mut lane = LaneView::default();
        lane.health.insert(
            "issue".into(),
            HealthView::Probing {
                since: noon(),
                because: "connection refused".into(),
            },
        );
        let courier = CourierView {
            failures_in_row: 12,
            last_error: Some("500".into()),
            ..CourierView::default()
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
        let all = found(lane, courier, &counts, late);
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
    fn a_hold_that_is_over_needs_nobody() {
        let mut lane = LaneView::default();
        let held = |until| HealthView::Held {
            until,
            because: "429".into(),
        };
        lane.health.insert("issue".into(), held(noon()));
        let quiet = found(
            lane.clone(),
            CourierView::default(),
            &Counts::default(),
            Late::default(),
        );
        assert_eq!(quiet, []);
        lane.health.insert(
            "issue".into(),
            held("2026-11-22T12:00:01Z".parse().unwrap()),
        );
        let all = found(
            lane,
            CourierView::default(),
            &Counts::default(),
            Late::default(),
        );
        assert_eq!(all[0].kind, NeedKind::Held);
    }
}
