//! Orders that are not carried out yet, in words: for `status`, for `why`, for whoever follows a campaign.

use jiff::Timestamp;

use super::wire::{CampaignAction, CampaignState, ItemState, Need, NeedKind};
use crate::{
    model::{Name, Then, short_duration},
    store::{Campaign, Order, RowOrder, Stalled},
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
