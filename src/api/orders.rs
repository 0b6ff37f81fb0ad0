//! Orders that are not carried out yet, in words: for `status`, for `why`, for whoever follows a campaign.
//!
//! Why a campaign does not move at the moment, and what of it does not go on as it should: sentences
//! that stay the same while the reason does.

use std::{collections::BTreeMap, sync::PoisonError};

use jiff::Timestamp;

use super::{
    handle::Api,
    problem::Problem,
    shared_state::SharedState,
    wire::{Need, NeedKind},
};
use crate::{
    config::{Limit, Limits},
    model::{HealthView, Name, Operation, Record, RenewerView, ResourceName, Then, short_duration},
    schedule::{Action, Declared, HeldBy, Moment, takes, why},
    store::{
        Campaign, CampaignAction, CampaignState, ItemState, Order, ReportLine, RowOrder, Stalled,
        WaitingItem,
    },
};

/// What an order needs of a person, or lets them know: first what failed for good, then what waits.
pub(super) fn needs_of(order: &Order, now: Timestamp) -> Vec<Need> {
    let mut needs = Vec::new();
    if order.failed.count > 0 {
        needs.push(failed(order, now));
    }
    if order.campaign.ended_at.is_none() && order.campaign.pending > 0 {
        needs.push(waits(order, now));
    }
    needs
}

/// When the oldest revocation or deletion that ACS has not acknowledged should have been there: as soon as it is
/// begun, and so much later as its calls take at the slowest of these limits. One that failed for good is as late as one
/// that waits; one that a person paused is not.
pub(super) fn withdrawal_due(
    orders: &[Order],
    declared: &BTreeMap<ResourceName, Declared>,
) -> Option<Timestamp> {
    let due = orders.iter().filter_map(|order| {
        let campaign = &order.campaign;
        let limit: fn(&Limits) -> Limit = match campaign.action {
            CampaignAction::Revoke => |limits| limits.revoke,
            CampaignAction::Delete => |limits| limits.delete,
            _ => return None,
        };
        let begun = campaign
            .starts_at
            .map_or(campaign.created_at, |at| at.max(campaign.created_at));
        if order.failed.count > 0 {
            return Some(begun);
        }
        let waits = campaign.pending > 0 && campaign.state != CampaignState::Paused;
        let limits = declared.values().map(|declared| &declared.room.limits);
        let takes = limits.map(|limits| takes(limit(limits), campaign.items()));
        let takes = takes.max().unwrap_or_default();
        waits.then(|| begun.checked_add(takes).unwrap_or(begun))
    });
    due.min()
}

fn failed(order: &Order, now: Timestamp) -> Need {
    let (id, action) = (order.campaign.id, order.campaign.action);
    let consequence = match action {
        CampaignAction::Revoke => ", so their old tokens may still work",
        _ => "",
    };
    let message = format!(
        "the {} of {}, {}, failed for good{consequence}: `renewd campaign retry {id}` tries again, \
         `renewd campaign cancel {id}` gives it up",
        noun(action),
        count(order.failed.count),
        asked(order.campaign.created_at, now),
    );
    let kind = match action {
        CampaignAction::Revoke => NeedKind::RevocationFailed,
        _ => NeedKind::OrderFailed,
    };
    need(kind, &order.campaign, message, &order.failed)
}

fn waits(order: &Order, now: Timestamp) -> Need {
    let campaign = &order.campaign;
    let (id, pending) = (campaign.id, campaign.pending);
    let begun = asked(campaign.created_at, now);
    let what = format!(
        "the {} of {}",
        noun(campaign.action),
        count(campaign.total())
    );
    let message = match campaign.state {
        CampaignState::Paused => format!(
            "{what}, {begun}, is paused with {pending} still to be done: `renewd campaign resume {id}` lets it go on"
        ),
        CampaignState::Expanding => {
            format!(
                "{what} so far, {begun}, is still being listed: see `renewd campaign show {id}`"
            )
        }
        _ => format!(
            "{what}, {begun}, has not reached ACS for {pending}{}: see `renewd campaign show {id}`",
            match order.failing.count {
                0 => String::new(),
                1 => ", of which 1 fails and is tried again".to_owned(),
                n => format!(", of which {n} fail and are tried again"),
            }
        ),
    };
    need(NeedKind::OrderWaits, campaign, message, &order.failing)
}

fn need(kind: NeedKind, campaign: &Campaign, message: String, stalled: &Stalled) -> Need {
    let names = stalled.labels.iter();
    let names: Vec<Name> = names.filter_map(|label| label.parse().ok()).collect();
    Need {
        kind,
        subject: format!("campaign {}", campaign.id),
        message,
        because: stalled.error.clone(),
        names,
        since: Some(campaign.created_at),
        command: Some(format!("renewd campaign show {}", campaign.id)),
    }
}

/// What an order means for one identity, in a sentence.
pub(super) fn about_one(order: &RowOrder, now: Timestamp) -> String {
    let id = order.campaign;
    let what = format!(
        "Its {} (campaign {id}, {} by {})",
        noun(order.action),
        asked(order.created_at, now),
        order.actor
    );
    let last = order.error.as_ref();
    let last = last.map_or(String::new(), |error| format!("; the last time: {error}"));
    match order.state {
        ItemState::Failed => format!(
            "{what} failed for good after {} attempts{last}. `renewd campaign retry {id}` tries again.",
            order.attempts
        ),
        _ if order.starts_at.is_some_and(|at| at > now) => format!(
            "{what} is to begin {}: `renewd campaign cancel {id}` gives it up.",
            soon(order.starts_at.unwrap_or(now), now)
        ),
        _ if order.paused => {
            format!("{what} is paused: `renewd campaign resume {id}` lets it go on.")
        }
        _ if order.attempts > 0 => format!(
            "{what} has not reached ACS yet: it failed {} times and is tried again {}{last}.",
            order.attempts,
            soon(order.next_at, now)
        ),
        _ => format!(
            "{what} has not reached ACS yet{}. See `renewd campaign show {id}`.",
            match order.then {
                Some(Then::Hold) => ", and no token follows",
                _ => "",
            }
        ),
    }
}

fn soon(at: Timestamp, now: Timestamp) -> String {
    match std::time::Duration::try_from(at.duration_since(now)) {
        Ok(wait) if wait.as_secs() > 0 => format!("in {}", short_duration(wait)),
        _ => "as soon as its turn comes".to_owned(),
    }
}

fn asked(at: Timestamp, now: Timestamp) -> String {
    let ago = now.duration_since(at).try_into().unwrap_or_default();
    format!("asked for {} ago", short_duration(ago))
}

fn count(n: u64) -> String {
    match n {
        1 => "1 identity".to_owned(),
        n => format!("{n} identities"),
    }
}

/// The action as a thing that is ordered.
fn noun(action: CampaignAction) -> &'static str {
    match action {
        CampaignAction::Revoke => "revocation",
        CampaignAction::Hold => "hold",
        CampaignAction::Release => "release",
        CampaignAction::Renew => "renewal",
        CampaignAction::Delete => "deletion",
    }
}

/// So many items are named.
const NAMED: usize = 5;

/// What it waits for, and what of it fails (`failures`: some of those for good); empty where it only goes on.
pub(super) async fn waits_of(
    api: &Api,
    campaign: &Campaign,
    failures: &[ReportLine],
) -> Result<Vec<String>, Problem> {
    if campaign.ended_at.is_some() {
        return Ok(Vec::new());
    }
    let mut waits = standing(campaign, api);
    let shared_state = api.shared_state();
    let renewers = shared_state.renewer_views();
    for item in api.store.waiting_items(campaign.id).await? {
        match renewers.get(&item.resource) {
            Some(renewer) => waits.extend(held_up(&item, campaign, renewer)),
            None if shared_state.follows() => {}
            None => waits.push(format!(
                "resource {} is not configured any more, so nothing can be done there; add it again, or \
                 renewd campaign cancel {} ends it",
                item.resource, campaign.id
            )),
        }
        waits.extend(one(api, &item).await?);
    }
    if campaign.failing > 0 {
        let failing = api.store.failing_of(campaign.id).await?;
        waits.extend(stalled(
            &failing,
            "and is tried again",
            "and are tried again",
        ));
    }
    if campaign.failed > 0 {
        let failed = failures.iter().filter_map(|line| {
            let name = line.name.as_ref().map(ToString::to_string);
            name.or_else(|| line.id.as_ref().map(ToString::to_string))
        });
        let failed = Stalled {
            count: campaign.failed,
            labels: failed.collect(),
            error: failures.first().and_then(|line| line.error.clone()),
        };
        waits.extend(stalled(&failed, "for good", "for good"));
    }
    let mut told = std::collections::BTreeSet::new();
    waits.retain(|wait| told.insert(wait.clone()));
    Ok(waits)
}

/// What a person, or whoever brings its items, keeps it from.
fn standing(campaign: &Campaign, api: &Api) -> Vec<String> {
    let id = campaign.id;
    let mut waits = Vec::new();
    match campaign.state {
        CampaignState::Paused => {
            waits.push(format!(
                "it is paused; renewd campaign resume {id} lets it go on"
            ));
        }
        CampaignState::Expanding => {
            waits.push("its identities are still being listed; it begins when they are".to_owned());
        }
        CampaignState::Cancelled => {
            waits.push("it is cancelled; what is under way ends".to_owned());
        }
        _ => {}
    }
    if let Some(at) = campaign.starts_at.filter(|at| *at > api.clock.now()) {
        waits.push(format!("it starts at {at:.0}"));
    }
    waits
}

/// Within which limit what is still to be done waits for its turn, where it waits for nothing else.
pub(super) fn turn(campaign: &Campaign, shared_state: &SharedState) -> Option<String> {
    let pending = campaign.pending;
    if campaign.state != CampaignState::Running || pending == 0 {
        return None;
    }
    let limits = shared_state.declared.values().filter_map(|declared| {
        let limits = &declared.room.limits;
        let limit = match campaign.action {
            CampaignAction::Revoke => limits.revoke,
            CampaignAction::Delete => limits.delete,
            _ => return None,
        };
        Some(format!("{} in {} s", limit.calls, limit.window.as_secs()))
    });
    let limits: std::collections::BTreeSet<String> = limits.collect();
    let limits: Vec<String> = limits.into_iter().collect();
    let limit = match limits.is_empty() {
        true => String::new(),
        false => format!(" ({})", limits.join(", ")),
    };
    Some(format!(
        "{pending} are still to be done and wait for their turn: within the limit of ACS{limit}, behind renewals \
         that go first, and for the tokens that follow"
    ))
}

/// Items that do not go on as they should, with names and a reason.
fn stalled(items: &Stalled, one: &str, many: &str) -> Option<String> {
    let (verb, how) = match items.count {
        0 => return None,
        1 => ("item fails", one),
        _ => ("items fail", many),
    };
    let verb = match how {
        "for good" => "failed",
        _ => verb,
    };
    let mut names = items.labels.iter().take(NAMED).cloned().collect::<Vec<_>>();
    if items.count > names.len() as u64 {
        names.push("…".to_owned());
    }
    let error = items.error.as_deref().unwrap_or("no reason given");
    Some(format!(
        "{} {verb} {how}: {}; the last time: {error}",
        items.count,
        names.join(", ")
    ))
}

/// What holds this item's operation, or its whole resource, up.
fn held_up(item: &WaitingItem, campaign: &Campaign, renewer: &RenewerView) -> Vec<String> {
    let (resource, operation): (&ResourceName, _) = (&item.resource, operation(item, campaign));
    let health = renewer
        .health
        .iter()
        .filter(|(name, _)| operation.is_none_or(|operation| operation.as_str() == name.as_str()))
        .filter_map(|(name, health)| match health {
            HealthView::Open => None,
            HealthView::Probing { since, because } => Some(format!(
                "{name} at resource {resource} has had no answer since {since:.0}: {because}; only probes go out"
            )),
            HealthView::Held { until, because } => Some(format!(
                "{name} at resource {resource} waits until {until:.0}: {because}"
            )),
        });
    let blocked = renewer.blocked.iter();
    let blocked =
        blocked.map(|why| format!("nothing can be obtained of resource {resource}: {why}"));
    health.chain(blocked).collect()
}

/// What an item waits to be called; `None` where it waits for no call.
fn operation(item: &WaitingItem, campaign: &Campaign) -> Option<Operation> {
    Some(match (item.state, campaign.action) {
        (ItemState::Pending | ItemState::Called, CampaignAction::Delete) => Operation::Delete,
        (ItemState::Pending | ItemState::Called, _) => Operation::Revoke,
        _ => Operation::Issue,
    })
}

/// How the last attempt at the token ended that an item waits for, and when the next is, where it is held up.
fn awaited(api: &Api, label: &str, record: &Record) -> Option<String> {
    let failed = record.attempts.last().filter(|_| record.failures > 0);
    let next = next_try(api, record);
    if failed.is_none() && next.is_none() {
        return None;
    }
    let failed = failed.map(|last| format!(", the last attempt: {}", last.result));
    let next = next.map(|at| format!("; the next try is at {at:.0}"));
    Some(format!(
        "{label} has no new token yet{}{}",
        failed.unwrap_or_default(),
        next.unwrap_or_default()
    ))
}

/// When the next call for this row may start, where something but its turn and the pace holds it back.
fn next_try(api: &Api, record: &Record) -> Option<Timestamp> {
    let shared_state = api.shared_state();
    let resource = &record.spec.resource;
    let gate = shared_state.gates.get(resource)?;
    let moment = Moment {
        wall: api.clock.now(),
        steady: api.clock.steady(),
    };
    let renewer = shared_state.renewer(resource);
    let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
    match why(record, &renewer, &mut gate, moment).action {
        Action::Wait { until, .. } => Some(until),
        Action::HeldBack {
            until,
            by: HeldBy::Health,
            ..
        } => until,
        _ => None,
    }
}

/// What one of the items waits for.
async fn one(api: &Api, item: &WaitingItem) -> Result<Option<String>, Problem> {
    let label = &item.label;
    Ok(match item.state {
        ItemState::Delivering => {
            let deliveries = api.store.deliveries_of(item.num).await?;
            let open: Vec<&str> = deliveries
                .iter()
                .filter(|delivery| delivery.is_pending())
                .map(|delivery| delivery.sink.as_str())
                .collect();
            (!open.is_empty())
                .then(|| format!("{label} is not delivered yet to {}", open.join(", ")))
        }
        ItemState::Acknowledged => {
            let record = api.store.record_of(item.num).await?;
            record.and_then(|record| awaited(api, label, &record))
        }
        _ => None,
    })
}
