//! `POST /v1/campaigns` and their progress: the store keeps them, the campaign runner carries them
//! out.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{self, CampaignFailure, CampaignId, CampaignProgress},
    },
    Admin, Body, PAGE, records,
};
use crate::store::{CampaignAction, NewCampaign};

/// How many failed items are named.
const FAILURES: usize = 20;

/// Starts a campaign over these names: all of them, or none where one is unknown.
pub(super) async fn start(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<wire::NewCampaign>,
) -> Result<(StatusCode, Json<CampaignProgress>), Problem> {
    checked(&asked)?;
    let rows = records(&api, &asked.names).await?;
    let cause = admin.cause(asked.reason).await;
    let new = NewCampaign {
        action: asked.action,
        then: asked.then,
        nums: rows.iter().map(|row| row.num).collect(),
        actor: cause.actor,
        reason: cause.reason,
    };
    let now = api.clock.now();
    let id = api.store.create_campaign(new, now).await?;
    let Json(campaign) = found(&api, id).await?;
    Ok((StatusCode::ACCEPTED, Json(campaign)))
}

/// How far a campaign is.
pub(super) async fn progress(
    State(api): State<Api>,
    _: Admin,
    Path(id): Path<String>,
) -> Result<Json<CampaignProgress>, Problem> {
    match id.parse() {
        Ok(id) => found(&api, id).await,
        Err(_) => Err(Problem::new(
            ProblemType::Invalid,
            "a campaign is named by its number",
        )),
    }
}

async fn found(api: &Api, id: CampaignId) -> Result<Json<CampaignProgress>, Problem> {
    let Some(campaign) = api.store.campaign(id).await? else {
        let why = format!("there is no campaign {id}");
        return Err(Problem::new(ProblemType::Unknown, why));
    };
    let mut progress = CampaignProgress::from(campaign);
    if progress.ended_at.is_some() && progress.failed > 0 {
        progress.failures = failures(api, id).await?;
    }
    Ok(Json(progress))
}

/// The first of those that failed for good.
async fn failures(api: &Api, id: CampaignId) -> Result<Vec<CampaignFailure>, Problem> {
    let (mut failures, mut after) = (Vec::new(), 0);
    while failures.len() < FAILURES {
        let items = api.store.campaign_report(id, after, PAGE).await?;
        let Some(last) = items.last() else { break };
        after = last.num;
        let failed = items.into_iter().filter(|item| item.item_state == "failed");
        failures.extend(failed.map(|item| CampaignFailure {
            name: item.name,
            error: item.error,
            request_id: item.request_id,
        }));
    }
    failures.truncate(FAILURES);
    Ok(failures)
}

fn checked(asked: &wire::NewCampaign) -> Result<(), Problem> {
    let invalid = |why| Err(Problem::new(ProblemType::Invalid, why));
    if asked.names.is_empty() {
        return invalid("names is empty");
    }
    match (asked.action, asked.then) {
        (CampaignAction::Revoke, None) => invalid("a revocation needs then: reissue or hold"),
        (CampaignAction::Revoke, Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => invalid("then goes with revoke alone"),
    }
}
