//! Why a campaign does not move at the moment: sentences that stay the same while the reason does.

use super::super::super::{handle::Api, problem::Problem, wire::CampaignProgress};
use crate::{
    model::{HealthView, LaneView, ResourceName},
    store::{CampaignState, ItemState, WaitingItem},
};

/// What it waits for; empty where nothing is known that holds it up.
pub(super) async fn of(api: &Api, progress: &CampaignProgress) -> Result<Vec<String>, Problem> {
    let campaign = &progress.campaign;
    if campaign.ended_at.is_some() {
        return Ok(Vec::new());
    }
    let mut waits = Vec::new();
    if campaign.state == CampaignState::Paused {
        waits.push(format!(
            "it is paused; renewd campaign resume {} lets it go on",
            campaign.id
        ));
    }
    if let Some(at) = campaign.starts_at.filter(|at| *at > api.clock.now()) {
        waits.push(format!("it starts at {at:.0}"));
    }
    let lanes = api.scene().lane_views();
    for item in api.store.waiting_items(campaign.id).await? {
        if let Some(lane) = lanes.get(&item.resource) {
            waits.extend(held_up(&item.resource, lane));
        }
        waits.extend(one(api, &item).await?);
    }
    if waits.is_empty() && campaign.state == CampaignState::Running && campaign.pending > 0 {
        waits.push("the limit of ACS, or renewals that go first; nothing is wrong".to_owned());
    }
    let mut told = std::collections::BTreeSet::new();
    waits.retain(|wait| told.insert(wait.clone()));
    Ok(waits)
}

/// What holds a whole resource up.
fn held_up(resource: &ResourceName, lane: &LaneView) -> Vec<String> {
    let health = lane.health.values().filter_map(|health| match health {
        HealthView::Open => None,
        HealthView::Probing { because, .. } => Some(format!(
            "resource {resource} does not answer, it is only probed: {because}"
        )),
        HealthView::Held { until, because } => Some(format!(
            "resource {resource} is held until {until:.0}: {because}"
        )),
    });
    let blocked = lane.blocked.iter();
    let blocked = blocked.map(|why| format!("resource {resource} is held: {why}"));
    health.chain(blocked).collect()
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
            let failed = record.filter(|row| row.failures > 0);
            failed.and_then(|row| {
                let last = row.attempts.last()?;
                Some(format!(
                    "{label} has no new token yet, the last attempt: {}",
                    last.result
                ))
            })
        }
        _ => item
            .error
            .as_ref()
            .map(|error| format!("{label} is tried again: {error}")),
    })
}
