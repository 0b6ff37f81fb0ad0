//! What a campaign would do: counted, not done.

use super::{
    super::super::{
        handle::Api,
        problem::Problem,
        wire::{CampaignPlan, PlannedResource},
    },
    target::Chosen,
};
use crate::{
    config::{Limit, Limits},
    model::{Facts, Record, ResourceName, Selection, Timestamp},
    store::{CampaignAction, Tally, Wanted},
};

/// Rows looked at together.
const CHUNK: usize = 1000;
/// The share of a limit that is used.
const USED: f64 = 0.97;

pub(super) async fn of(
    api: &Api,
    action: CampaignAction,
    chosen: &Chosen,
) -> Result<CampaignPlan, Problem> {
    let mut plan = CampaignPlan::default();
    match chosen {
        Chosen::All => {
            for kind in api.store.tally(api.clock.now()).await? {
                tell(&kind, action, &mut plan);
            }
        }
        Chosen::Select(selection) => walk(api, action, selection, &mut plan).await?,
        Chosen::Listed(items) => {
            let now = api.clock.now();
            for item in items {
                match item {
                    Wanted::Row(num) => {
                        if let Some(row) = api.store.record_of(*num).await? {
                            tell(&one(&row, now), action, &mut plan);
                        }
                    }
                    Wanted::Id(resource, _) => {
                        plan.unmanaged += 1;
                        add(resource, 1, &mut plan);
                    }
                }
            }
        }
    }
    let shared_state = api.shared_state();
    for (name, part) in &mut plan.resources {
        let limits = shared_state.limits.get(name).copied().unwrap_or_default();
        estimate(part, limit(action, limits));
        plan.seconds = plan.seconds.max(part.seconds);
    }
    Ok(plan)
}

async fn walk(
    api: &Api,
    action: CampaignAction,
    selection: &Selection,
    plan: &mut CampaignPlan,
) -> Result<(), Problem> {
    let (now, mut after) = (api.clock.now(), None);
    loop {
        let rows = api.store.list(after.as_ref(), CHUNK).await?;
        for row in &rows {
            if selection.matches(&Facts::of(row, now)) {
                tell(&one(row, now), action, plan);
            }
        }
        match rows.last() {
            Some(last) => after = Some(last.spec.name.clone()),
            None => return Ok(()),
        }
    }
}

fn one(row: &Record, now: Timestamp) -> Tally {
    Tally {
        resource: row.spec.resource.clone(),
        state: row.state,
        has_id: row.id.is_some(),
        shown: row.state_at(now),
        count: 1,
    }
}

fn tell(kind: &Tally, action: CampaignAction, plan: &mut CampaignPlan) {
    match action.applies_to(kind.state, kind.has_id) {
        Ok(()) => {
            *plan.states.entry(kind.shown).or_default() += kind.count;
            add(&kind.resource, kind.count, plan);
        }
        Err(why) => *plan.skipped.entry(why.to_owned()).or_default() += kind.count,
    }
}

fn add(resource: &ResourceName, items: u64, plan: &mut CampaignPlan) {
    plan.total += items;
    plan.resources.entry(resource.clone()).or_default().items += items;
}

/// What bounds the action: its own calls, or the issuing of the tokens that follow.
fn limit(action: CampaignAction, limits: Limits) -> Option<Limit> {
    match action {
        CampaignAction::Revoke => Some(limits.revoke),
        CampaignAction::Delete => Some(limits.delete),
        CampaignAction::Release | CampaignAction::Renew => Some(limits.issue),
        CampaignAction::Hold => None,
    }
}

fn estimate(part: &mut PlannedResource, limit: Option<Limit>) {
    let Some(limit) = limit else { return };
    let (window, calls) = (limit.window.as_secs_f64(), f64::from(limit.calls) * USED);
    // The first window's worth goes out at once.
    let windows = (part.items as f64 / calls).ceil() - 1.0;
    part.seconds = (windows * window).max(0.0);
    part.limit = Some(format!("{}/{}s", limit.calls, limit.window.as_secs()));
}
