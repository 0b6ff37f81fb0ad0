//! Campaigns over the socket: ordered, planned, seen and steered. Names, ids and expressions are understood before
//! anything is done; the store keeps a campaign, the campaign runners carry it out.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    admin::{Admin, After, PAGE},
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{Endpoint as _, EndpointAnswer, Json, endpoints},
    handle::Api,
    orders,
    problem::{Problem, ProblemType},
    wire::Page,
};
use crate::{
    config::{Limit, Limits},
    model::{Facts, IdentityId, Name, Record, ResourceName, Selection, Then, Timestamp},
    schedule::takes,
    store::{self, StoreError, Tally, Target, Wanted},
};

pub use crate::store::{
    Campaign, CampaignAction, CampaignId, CampaignState, ItemState, ReportLine,
};

endpoints! {
    StartCampaign: POST "/v1/campaigns", CampaignRequest => CampaignProgress as ACCEPTED;
    /// What a campaign would do.
    PlanCampaign: POST "/v1/campaigns/plan", CampaignRequest => CampaignPlan;
    /// Campaigns, the newest first.
    ListCampaigns: GET "/v1/campaigns" ?after, () => Page<CampaignProgress>;
    ShowCampaign: GET "/v1/campaigns/{id}", () => CampaignProgress;
    /// What was done to each identity.
    ReportCampaign: GET "/v1/campaigns/{id}/report" ?failed after, () => Page<ReportLine>;
    /// Pauses, resumes, cancels, or tries again what failed for good.
    OrderCampaign: POST "/v1/campaigns/{id}/{order}", WithReason => CampaignProgress;
}

/// `POST /v1/campaigns`, and `POST /v1/campaigns/plan` for what it would do: names and ids, or
/// `select`, or `all`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CampaignRequest {
    pub action: CampaignAction,
    /// What follows a revocation.
    #[serde(default)]
    pub then: Option<Then>,
    #[serde(default)]
    pub names: Vec<Name>,
    /// To which ids at ACS, whether renewd manages them or not; for `revoke` and `delete`.
    #[serde(default)]
    pub ids: Vec<IdentityId>,
    /// Whose ids these are, where there are several resources.
    #[serde(default)]
    pub resource: Option<ResourceName>,
    /// To those of a selection.
    #[serde(default)]
    pub select: Option<String>,
    #[serde(default)]
    pub all: bool,
    /// Before everything but renewals that are urgent themselves.
    #[serde(default)]
    pub urgent: bool,
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

impl CampaignRequest {
    /// A request that selects nothing yet.
    pub fn new(action: CampaignAction, then: Option<Then>) -> Self {
        Self {
            action,
            then,
            names: Vec::new(),
            ids: Vec::new(),
            resource: None,
            select: None,
            all: false,
            urgent: false,
            starts_at: None,
            reason: None,
        }
    }
}

/// What a campaign would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CampaignPlan {
    /// Items it would have.
    pub total: u64,
    pub resources: BTreeMap<ResourceName, PlannedResource>,
    pub states: BTreeMap<crate::model::State, u64>,
    /// Ids that renewd does not manage.
    pub unmanaged: u64,
    /// Selected ones to which the action means nothing, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// At the limit it takes at least so long, in seconds.
    pub seconds: f64,
}

/// The part of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlannedResource {
    pub items: u64,
    /// What the resource allows, such as `500/30s`; nothing where no call is needed.
    pub limit: Option<String>,
    /// At the limit it takes at least so long, in seconds.
    pub seconds: f64,
}

/// A campaign and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CampaignProgress {
    #[serde(flatten)]
    pub campaign: Campaign,
    pub total: u64,
    /// Items that have not ended.
    pub left: u64,
    /// Some of those that failed for good.
    #[serde(default)]
    pub failures: Vec<ReportLine>,
    /// Why it does not move, where something holds it up; not told in listings.
    #[serde(default)]
    pub waits: Vec<String>,
}

impl From<Campaign> for CampaignProgress {
    fn from(campaign: Campaign) -> Self {
        Self {
            total: campaign.total(),
            left: campaign.left(),
            campaign,
            failures: Vec::new(),
            waits: Vec::new(),
        }
    }
}

/// What a person tells a campaign: the last part of `POST /v1/campaigns/{id}/{order}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CampaignOrder {
    Pause,
    Resume,
    Cancel,
    /// Try again what failed for good.
    Retry,
}

impl CampaignOrder {
    /// The word in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }
}

/// Why something is ordered, for the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WithReason {
    #[serde(default)]
    pub reason: Option<String>,
}

/// How many failed items are named.
const FAILURES: usize = 20;
/// Up to so many items are listed together with their campaign.
const FEW: usize = 1000;

/// Starts a campaign: over all that was named, or none where one is unknown.
pub(super) async fn start(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<CampaignRequest>,
) -> Result<(StatusCode, Json<CampaignProgress>), Problem> {
    checked(&asked)?;
    let chosen = chosen(&api, &asked).await?;
    let cause = admin.cause(&api, asked.reason.clone()).await;
    let new = |target| store::NewCampaign {
        urgent: asked.urgent,
        starts_at: asked.starts_at,
        ..store::NewCampaign::new(asked.action, asked.then, target, cause.clone())
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
    // What it would wait for if it has not begun is no news yet; what holds it up is.
    Ok((StartCampaign::STATUS, Json(stands(&api, id).await?)))
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
    Body(asked): Body<CampaignRequest>,
) -> EndpointAnswer<PlanCampaign> {
    checked(&asked)?;
    let chosen = chosen(&api, &asked).await?;
    Ok(Json(planned(&api, asked.action, &chosen).await?))
}

/// Campaigns, the newest first.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> EndpointAnswer<ListCampaigns> {
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
) -> EndpointAnswer<ShowCampaign> {
    found(&api, number(&id)?).await
}

/// `?after=…&failed=true`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ReportPage {
    after: Option<String>,
    #[serde(default)]
    failed: bool,
}

/// A page of a campaign's report: of the quarantine, or of all.
pub(super) async fn report(
    State(api): State<Api>,
    _: Admin,
    Path(id): Path<String>,
    Query(ReportPage { after, failed }): Query<ReportPage>,
) -> EndpointAnswer<ReportCampaign> {
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
) -> EndpointAnswer<OrderCampaign> {
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
    let mut progress = stands(api, id).await?;
    if progress.waits.is_empty() {
        let turn = orders::turn(&progress.campaign, &api.shared_state());
        progress.waits.extend(turn);
    }
    Ok(Json(progress))
}

/// How far a campaign is, and what holds it up.
async fn stands(api: &Api, id: CampaignId) -> Result<CampaignProgress, Problem> {
    let Some(campaign) = api.store.campaign(id).await? else {
        let why = format!("there is no campaign {id}");
        return Err(Problem::new(ProblemType::Unknown, why));
    };
    let mut progress = CampaignProgress::from(campaign);
    if progress.campaign.failed > 0 {
        let failed = api.store.campaign_report(id, None, true, FAILURES);
        progress.failures = failed.await?;
    }
    progress.waits = orders::waits_of(api, &progress.campaign, &progress.failures).await?;
    Ok(progress)
}

fn number(id: &str) -> Result<CampaignId, Problem> {
    let why = "a campaign is named by its number";
    id.parse()
        .map_err(|_| Problem::new(ProblemType::Invalid, why))
}

fn checked(asked: &CampaignRequest) -> Result<(), Problem> {
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

/// Rows looked at, and names looked up, together.
const CHUNK: usize = 1000;

async fn planned(
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
        let declared = shared_state.declared.get(name);
        let limits = declared.map_or_else(Limits::default, |declared| declared.room.limits);
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
    part.seconds = takes(limit, part.items).as_secs_f64();
    part.limit = Some(format!("{}/{}s", limit.calls, limit.window.as_secs()));
}

/// So many of what is unknown are named.
const NAMED: usize = 10;

/// What was chosen, all of it known.
#[derive(Debug)]
enum Chosen {
    All,
    Select(Selection),
    Listed(Vec<Wanted>),
}

async fn chosen(api: &Api, asked: &CampaignRequest) -> Result<Chosen, Problem> {
    if asked.all {
        return Ok(Chosen::All);
    }
    if let Some(text) = &asked.select {
        return match Selection::parse(text) {
            Ok(selection) => Ok(Chosen::Select(selection)),
            Err(error) => Err(Problem::new(ProblemType::Invalid, error.explain(text))),
        };
    }
    let mut items = rows(api, &asked.names).await?;
    if !asked.ids.is_empty() {
        let resource = resource(api, asked.resource.as_ref())?;
        for some in asked.ids.chunks(CHUNK) {
            let owners = api.store.owners(some.to_vec()).await?;
            let wanted = |id: &IdentityId| match owners.get(id) {
                Some(num) => Wanted::Row(*num),
                None => Wanted::Id(resource.clone(), id.clone()),
            };
            items.extend(some.iter().map(wanted));
        }
    }
    Ok(Chosen::Listed(items))
}

async fn rows(api: &Api, names: &[Name]) -> Result<Vec<Wanted>, Problem> {
    let (mut items, mut unknown) = (Vec::with_capacity(names.len()), Vec::new());
    for some in names.chunks(CHUNK) {
        let found = api.store.records(some).await?;
        let known: std::collections::BTreeSet<&Name> =
            found.iter().map(|row| &row.spec.name).collect();
        unknown.extend(some.iter().filter(|name| !known.contains(name)));
        items.extend(found.iter().map(|row| Wanted::Row(row.num)));
    }
    if unknown.is_empty() {
        return Ok(items);
    }
    let some: Vec<&str> = unknown
        .iter()
        .take(NAMED)
        .map(|name| name.as_str())
        .collect();
    let why = format!(
        "there is no identity of these names, so nothing was done: {} ({} of {} names)",
        some.join(", "),
        unknown.len(),
        names.len()
    );
    Err(Problem::new(ProblemType::Unknown, why))
}

/// Whose the ids are.
fn resource(api: &Api, named: Option<&ResourceName>) -> Result<ResourceName, Problem> {
    let shared_state = api.shared_state();
    let mut known = shared_state.resources();
    let is_known = |name: &ResourceName| shared_state.resources().any(|one| one == name);
    let why = match (named, known.next(), known.next()) {
        (Some(name), ..) if is_known(name) => return Ok(name.clone()),
        (Some(name), ..) => format!("there is no resource {name}"),
        (None, Some(only), None) => return Ok(only.clone()),
        (None, ..) => {
            "there are several resources: say whose ids these are with resource".to_owned()
        }
    };
    Err(Problem::new(ProblemType::Invalid, why))
}

impl DaemonClient {
    pub async fn start_campaign(
        &self,
        new: &CampaignRequest,
    ) -> Result<CampaignProgress, ClientError> {
        self.call(StartCampaign, &[]).body(new).send().await
    }

    /// What a campaign would do.
    pub async fn plan_campaign(&self, new: &CampaignRequest) -> Result<CampaignPlan, ClientError> {
        self.call(PlanCampaign, &[]).body(new).send().await
    }

    /// Campaigns, the newest first.
    pub async fn campaigns(
        &self,
        after: Option<&str>,
    ) -> Result<Page<CampaignProgress>, ClientError> {
        self.call(ListCampaigns, &[]).after(after).send().await
    }

    /// A page of a campaign's report: of what failed for good, or of all.
    pub async fn report(
        &self,
        id: CampaignId,
        failed: bool,
        after: Option<&str>,
    ) -> Result<Page<ReportLine>, ClientError> {
        let failed = Some(failed.to_string());
        let call = self
            .call(ReportCampaign, &[&id])
            .query([("failed", failed)]);
        call.after(after).send().await
    }

    /// Pauses, resumes, cancels a campaign, or tries again what failed for good.
    pub async fn order(
        &self,
        id: CampaignId,
        order: CampaignOrder,
        reason: Option<String>,
    ) -> Result<CampaignProgress, ClientError> {
        let call = self.call(OrderCampaign, &[&id, &order.as_str()]);
        call.body(&WithReason { reason }).send().await
    }

    pub async fn campaign(&self, id: CampaignId) -> Result<CampaignProgress, ClientError> {
        self.call(ShowCampaign, &[&id]).send().await
    }
}
