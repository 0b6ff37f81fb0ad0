//! `/v1/campaigns`: the store keeps them, the campaign runners carry them out.

mod plan;
mod target;
mod waits;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use http::StatusCode;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{
            self, CampaignId, CampaignOrder, CampaignPlan, CampaignProgress, Page, ReportLine,
            WithReason,
        },
    },
    Admin, After, Body, PAGE,
};
use crate::{
    model::Then,
    store::{CampaignAction, NewCampaign, StoreError, Target, Wanted},
};
use target::Chosen;

/// How many failed items are named.
const FAILURES: usize = 20;
/// Up to so many items are listed together with their campaign.
const FEW: usize = 1000;

/// Starts a campaign: over all that was named, or none where one is unknown.
pub(super) async fn start(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<wire::NewCampaign>,
) -> Result<(StatusCode, Json<CampaignProgress>), Problem> {
    checked(&asked)?;
    let chosen = target::chosen(&api, &asked).await?;
    let cause = admin.cause(&api, asked.reason.clone()).await;
    let new = |target| NewCampaign {
        urgent: asked.urgent,
        starts_at: asked.starts_at,
        ..NewCampaign::new(asked.action, asked.then, target, cause.clone())
    };
    let (store, now) = (&api.store, api.clock.now());
    let id = match chosen {
        Chosen::All => store.create_campaign(new(Target::All), now).await?,
        Chosen::Select(selection) => {
            let target = Target::Select(selection);
            store.create_campaign(new(target), now).await?
        }
        Chosen::Listed(items) if items.len() <= FEW => {
            let target = Target::Items(items);
            store.create_campaign(new(target), now).await?
        }
        Chosen::Listed(items) => {
            let id = store.create_campaign(new(Target::Later), now).await?;
            if let Err(error) = bring(&api, id, &items).await {
                // What cannot be ended now ends by itself, as does one whose caller went away.
                store
                    .cancel_campaign(id, &cause, api.clock.now())
                    .await
                    .ok();
                return Err(error.into());
            }
            id
        }
    };
    Ok((StatusCode::ACCEPTED, found(&api, id).await?))
}

/// Brings a long list of items in some transactions, then lets it begin.
async fn bring(api: &Api, id: CampaignId, items: &[Wanted]) -> Result<(), StoreError> {
    for some in items.chunks(FEW) {
        let now = api.clock.now();
        api.store.add_items(id, some.to_vec(), now).await?;
    }
    let (target, now) = (format!("{} named", items.len()), api.clock.now());
    api.store.seal_campaign(id, target, now).await
}

/// What a campaign would do; nothing is changed.
pub(super) async fn plan(
    State(api): State<Api>,
    _: Admin,
    Body(asked): Body<wire::NewCampaign>,
) -> Result<Json<CampaignPlan>, Problem> {
    checked(&asked)?;
    let chosen = target::chosen(&api, &asked).await?;
    Ok(Json(plan::of(&api, asked.action, &chosen).await?))
}

/// Campaigns, the newest first.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> Result<Json<Page<CampaignProgress>>, Problem> {
    let before = after.map(|after| number(&after)).transpose()?;
    let found = api.store.campaigns(before, PAGE).await?;
    let full = found.len() == PAGE;
    let next = found.last().filter(|_| full).map(|one| one.id.to_string());
    let items = found.into_iter().map(CampaignProgress::from).collect();
    Ok(Json(Page { items, next }))
}

/// How far a campaign is.
pub(super) async fn progress(
    State(api): State<Api>,
    _: Admin,
    Path(id): Path<String>,
) -> Result<Json<CampaignProgress>, Problem> {
    found(&api, number(&id)?).await
}

/// `?after=…&failed=true`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Lines {
    after: Option<String>,
    #[serde(default)]
    failed: bool,
}

/// A page of a campaign's report: of the quarantine, or of all.
pub(super) async fn report(
    State(api): State<Api>,
    _: Admin,
    Path(id): Path<String>,
    Query(Lines { after, failed }): Query<Lines>,
) -> Result<Json<Page<ReportLine>>, Problem> {
    let id = number(&id)?;
    let after = after.map(|after| number(&after)).transpose()?;
    let Json(_) = found(&api, id).await?;
    let items = api.store.campaign_report(id, after, failed, PAGE).await?;
    let full = items.len() == PAGE;
    let next = items.last().filter(|_| full).map(|one| one.num.to_string());
    Ok(Json(Page { items, next }))
}

/// Pauses, resumes, cancels a campaign, or tries again what failed.
pub(super) async fn order(
    State(api): State<Api>,
    admin: Admin,
    Path((id, order)): Path<(String, CampaignOrder)>,
    Body(WithReason { reason }): Body<WithReason>,
) -> Result<Json<CampaignProgress>, Problem> {
    let id = number(&id)?;
    let Json(before) = found(&api, id).await?;
    let cause = admin.cause(&api, reason).await;
    let (store, now) = (&api.store, api.clock.now());
    let done = match order {
        CampaignOrder::Pause => store.pause_campaign(id, true, &cause, now).await?,
        CampaignOrder::Resume => store.pause_campaign(id, false, &cause, now).await?,
        CampaignOrder::Cancel => store.cancel_campaign(id, &cause, now).await?,
        CampaignOrder::Retry => store.retry_campaign(id, &cause, now).await? > 0,
    };
    if done {
        return found(&api, id).await;
    }
    let state = before.campaign.state.as_str();
    let why = match order {
        CampaignOrder::Retry => format!("nothing of campaign {id} failed for good"),
        order => format!(
            "campaign {id} is {state}: there is nothing to {}",
            order.as_str()
        ),
    };
    Err(Problem::new(ProblemType::Conflict, why))
}

async fn found(api: &Api, id: CampaignId) -> Result<Json<CampaignProgress>, Problem> {
    let Some(campaign) = api.store.campaign(id).await? else {
        let why = format!("there is no campaign {id}");
        return Err(Problem::new(ProblemType::Unknown, why));
    };
    let mut progress = CampaignProgress::from(campaign);
    if progress.campaign.failed > 0 {
        let failed = api.store.campaign_report(id, None, true, FAILURES);
        progress.failures = failed.await?;
    }
    progress.waits = waits::of(api, &progress).await?;
    Ok(Json(progress))
}

fn number(id: &str) -> Result<CampaignId, Problem> {
    let why = "a campaign is named by its number";
    id.parse()
        .map_err(|_| Problem::new(ProblemType::Invalid, why))
}

fn checked(asked: &wire::NewCampaign) -> Result<(), Problem> {
    let invalid = |why| Err(Problem::new(ProblemType::Invalid, why));
    let named = !asked.names.is_empty() || !asked.ids.is_empty();
    if usize::from(named) + usize::from(asked.all) + usize::from(asked.select.is_some()) != 1 {
        return invalid("either names and ids, or select, or all");
    }
    let acts_on_ids = matches!(
        asked.action,
        CampaignAction::Revoke | CampaignAction::Delete
    );
    if !asked.ids.is_empty() && !acts_on_ids {
        return invalid("ids at ACS can be revoked or deleted; for anything else use names");
    }
    match (asked.action, asked.then) {
        (CampaignAction::Revoke, None) => invalid("a revocation needs then: reissue or hold"),
        (CampaignAction::Revoke, Some(Then::Reissue | Then::Hold)) | (_, None) => Ok(()),
        (_, Some(_)) => invalid("then goes with revoke alone"),
    }
}
