//! The local socket: its router, with the endpoints of all nouns, and what is asked of the daemon as a whole. The control
//! endpoints are for admins alone, and whatever changes something is audited.

use std::{sync::PoisonError, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, put},
};

use http::{Method, StatusCode, header};
use tokio::time::timeout;

use super::{
    access,
    admin::{self, Admin, record},
    away::aged,
    body, campaigns,
    connection::{ANSWER, ClientError, DaemonClient, OWN_LABEL, unreadable},
    deliveries,
    endpoint::{EndpointAnswer, Json, Routes, endpoints},
    guard::{Listener, guard, usable},
    handle::Api,
    identities, imports, jobs, keys, nodes, orders,
    peer::{CallerStanding, Turns},
    plan,
    problem::{Problem, ProblemType, as_document},
    shared_state::SharedState,
    snapshot::Snapshot,
    sources, store, tokens, watch,
    wire::Status,
};
use crate::{
    model::{HealthView, Name, RenewerView, ResourceName, Secret, Version},
    schedule::{Explanation, Gate, Moment, why},
    store::Rows,
};

/// How long a request of a reader may take, its body included.
const READERS: Duration = Duration::from_secs(30);
/// The same with a long poll, which lasts a minute at most.
const LONG_POLL: Duration = Duration::from_secs(90);
/// The same of an admin: a long list is read, a sink is tried out.
const ADMINS: Duration = Duration::from_mins(15);

/// The endpoints; each request must carry the [`Peer`](super::Peer) that connected.
pub(super) fn router(api: Api) -> Router {
    // These take turns only while they work: they wait for long.
    let waiting = Router::new()
        .route("/v1/tokens/{name}", get(tokens::token))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/tokens/{name}/ack", put(access::acknowledge));
    let working = control(&api).route_layer(middleware::from_fn(in_turn));
    waiting
        .merge(working)
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(api.clone(), aged))
        .layer(middleware::from_fn_with_state(api.clone(), usable))
        .layer(middleware::from_fn_with_state(Listener::Socket, guard))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn(as_document))
        .with_state(api)
}

/// Middleware: so many requests of one user are worked on at once.
async fn in_turn(turns: Option<Extension<Turns>>, request: Request, next: Next) -> Response {
    let _turn = Turns::next(turns.as_deref()).await;
    next.run(request).await
}

/// Middleware: a deadline for the whole request, until the answer begins.
async fn in_time(
    standing: Option<Extension<CallerStanding>>,
    turns: Option<Extension<Turns>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let within = deadline(request.method(), request.uri().path());
    let answered = timeout(within, next.run(request)).await;
    let response = answered.map_err(|_| {
        let why = format!(
            "the request could not be answered within {} s: renewd or what it asks is too busy",
            within.as_secs()
        );
        Problem::new(ProblemType::Busy, why).retry_after(Duration::from_secs(1))
    })?;
    let in_vain = response.status() == StatusCode::FORBIDDEN
        && standing.is_some_and(|Extension(standing)| standing != CallerStanding::Trusted);
    if let (true, Some(Extension(turns))) = (in_vain, turns) {
        turns.refuse().await;
    }
    Ok(response)
}

fn deadline(method: &Method, path: &str) -> Duration {
    match (method, path) {
        (&Method::GET, path) if path.starts_with("/v1/tokens/") => LONG_POLL,
        (_, path) if path.starts_with("/v1/tokens/") || path == "/v1/watch" => READERS,
        _ => ADMINS,
    }
}

endpoints! {
    /// What needs a person, counts, renewers, dispatchers.
    ShowStatus: GET "/v1/status", () => Status;
    /// Why the engine does, or does not do, what it does with an identity.
    ShowWhy: GET "/v1/why/{name}", () => Explanation;
}

/// The endpoints of admins: nobody else is let in, then the body is read, then the endpoint works.
fn control(api: &Api) -> Router<Api> {
    let reading = |most| middleware::from_fn_with_state((api.room.clone(), most), body::whole);
    let lists = lists().into_router();
    let rest = work(identities_of(Routes::default())).into_router();
    lists
        .route_layer(reading(body::LARGEST_LIST))
        .merge(rest.route_layer(reading(body::LARGEST)))
        .route_layer(DefaultBodyLimit::disable())
        .route_layer(middleware::from_fn_with_state(api.clone(), admin::let_in))
}

/// Those that take a list of names.
fn lists() -> Routes {
    Routes::default()
        .endpoint(campaigns::ListCampaigns, campaigns::list)
        .endpoint(campaigns::StartCampaign, campaigns::start)
        .endpoint(campaigns::PlanCampaign, campaigns::plan)
}

/// Identities and what is known of them.
fn identities_of(routes: Routes) -> Routes {
    routes
        .endpoint(ShowStatus, status)
        .endpoint(ShowWhy, explain)
        .endpoint(identities::ListIdentities, identities::list)
        .endpoint(identities::AddIdentity, identities::add)
        .endpoint(identities::ShowIdentity, identities::show)
        .endpoint(identities::RemoveIdentity, identities::remove)
        .endpoint(identities::ReviveIdentity, identities::revive)
        .endpoint(identities::ConfirmGone, identities::confirm_gone)
        .endpoint(access::ListNotices, access::notices)
        .endpoint(access::ListAudit, access::audit)
        .endpoint(access::ListHolders, access::holders)
        .endpoint(access::ListReads, access::reads)
        .endpoint(access::ListOrphans, access::orphans)
        .endpoint(access::Dismiss, access::dismiss)
        .endpoint(sources::ListSources, sources::list)
        .endpoint(sources::TestSource, sources::test)
        .endpoint(sources::Apply, sources::apply)
        .endpoint(imports::TakeOver, imports::import)
        .endpoint(imports::Create, imports::create)
}

/// Campaigns, deliveries, jobs, keys, the store and the configuration.
fn work(routes: Routes) -> Routes {
    routes
        .endpoint(campaigns::ShowCampaign, campaigns::progress)
        .endpoint(campaigns::ReportCampaign, campaigns::report)
        .endpoint(campaigns::OrderCampaign, campaigns::order)
        .endpoint(deliveries::ListDeliveries, deliveries::list)
        .endpoint(deliveries::RetryDeliveries, deliveries::retry)
        .endpoint(deliveries::ReplayDeliveries, deliveries::replay)
        .endpoint(deliveries::ListSinks, deliveries::list_sinks)
        .endpoint(deliveries::PauseSink, deliveries::pause)
        .endpoint(deliveries::EnableSink, deliveries::enable)
        .endpoint(deliveries::TestSink, deliveries::test)
        .endpoint(nodes::ListNodes, nodes::list)
        .endpoint(nodes::DrainNode, nodes::drain)
        .endpoint(nodes::UndrainNode, nodes::undrain)
        .endpoint(nodes::ForgetNode, nodes::forget)
        .endpoint(jobs::ListJobs, jobs::list)
        .endpoint(jobs::ListJobRuns, jobs::runs)
        .endpoint(jobs::RunJob, jobs::run)
        .endpoint(plan::ShowPlan, plan::show)
        .endpoint(keys::ListKeys, keys::list)
        .endpoint(keys::ShowKeys, keys::show)
        .endpoint(keys::Replace, keys::replace)
        .endpoint(keys::Cancel, keys::cancel)
        .endpoint(keys::ListKeyItems, keys::identities)
        .endpoint(store::AcceptStore, store::accept)
        .endpoint(store::AdoptStore, store::adopt)
        .endpoint(store::Reseal, store::reseal)
        .endpoint(store::ShowResealing, store::resealing)
        .endpoint(store::NoteBackup, store::backed_up)
        .endpoint(store::Reload, store::reload)
        .endpoint(store::Examine, store::examine)
        .written_out(Method::POST, store::BACKUP, store::backup)
}

async fn status(State(api): State<Api>, _: Admin) -> EndpointAnswer<ShowStatus> {
    let mut status = Snapshot::take(&api).await.status();
    // Where the store cannot be read, the needs say so; the rest is shown all the same.
    status.behind = access::behind(&api).await.unwrap_or_default();
    Ok(Json(status))
}

async fn explain(
    State(api): State<Api>,
    _: Admin,
    Path(name): Path<String>,
) -> EndpointAnswer<ShowWhy> {
    Ok(Json(explained(&api, &name, str::to_owned).await?))
}

/// What is decided about an identity, and why; causes that may quote others are told in these words.
pub(super) async fn explained(
    api: &Api,
    name: &str,
    words: fn(&str) -> String,
) -> Result<Explanation, Problem> {
    let record = record(api, name).await?;
    let shared_state = api.shared_state();
    let resource = &record.spec.resource;
    let renewer = retold(shared_state.renewer(resource), words);
    let gate = shared_state.gates.get(resource).cloned();
    let moment = Moment {
        wall: api.clock.now(),
        steady: api.clock.steady(),
    };
    let now = moment.wall;
    let mut orders = api.store.orders_of(record.num, now).await?;
    for order in &mut orders {
        order.error = order.error.as_deref().map(words);
    }
    let rows = Rows {
        nums: Some(vec![record.num]),
        pending: true,
        ..Rows::default()
    };
    let mut pending = api.store.delivery_table(rows, 0, PENDING).await?;
    for one in &mut pending {
        one.delivery.last_error = one.delivery.last_error.as_deref().map(words);
    }
    let mut dispatchers = shared_state.dispatcher_views();
    for dispatcher in dispatchers.values_mut() {
        dispatcher.disabled = dispatcher.disabled.as_deref().map(words);
    }
    let orders = orders.iter().map(|order| orders::about_one(order, now));
    let absent = match api.store.is_shared() {
        true => "another machine of the cluster serves it",
        false => "the sink is not configured",
    };
    let deliveries = pending.iter().map(|one| {
        let dispatcher = dispatchers.get(&one.delivery.sink);
        deliveries::about_one(one, dispatcher.ok_or(absent), &record, now)
    });
    let mut explanation = match gate {
        Some(gate) => why(
            &record,
            &renewer,
            &mut gate.lock().unwrap_or_else(PoisonError::into_inner),
            moment,
        ),
        None => why(&record, &renewer, &mut Gate::default(), moment),
    };
    if let Some(refusal) = shared_state.standing.refusal() {
        explanation = explanation.withheld(&refusal);
    }
    if let Some(because) = elsewhere(&shared_state, resource) {
        explanation = explanation.withheld(&because);
    }
    let explanation = explanation.retold(words);
    Ok(explanation.beside(orders.collect(), deliveries.collect()))
}

/// Why nobody here renews what is of a resource, where nobody does.
fn elsewhere(shared_state: &SharedState, resource: &ResourceName) -> Option<String> {
    let standing = shared_state.cluster_standing();
    let following = standing.filter(|standing| standing.epoch().is_none());
    if let Some(standing) = following {
        return Some(match standing.leader() {
            Some(leader) => {
                format!("this node follows, and {leader} leads: `renewd why` there says more")
            }
            None => {
                "no node leads at the moment, as far as this node knows: see `renewd node list`"
                    .to_owned()
            }
        });
    }
    let is_here = shared_state.renewers.contains_key(resource);
    (!is_here).then(|| format!("its resource {resource} is not configured, so nobody renews it"))
}

/// The same with its causes in these words.
fn retold(mut renewer: RenewerView, words: fn(&str) -> String) -> RenewerView {
    for health in renewer.health.values_mut() {
        match health {
            HealthView::Probing { because, .. } | HealthView::Held { because, .. } => {
                *because = words(because);
            }
            HealthView::Open => {}
        }
    }
    renewer.blocked = renewer.blocked.as_deref().map(words);
    renewer.creation_refused = renewer.creation_refused.as_deref().map(words);
    renewer
}

/// So many pending deliveries of one identity are told.
const PENDING: usize = 100;

/// The form of a fetched token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenForm {
    Bare,
    Json,
}

impl DaemonClient {
    /// The current token. With `wait` the daemon answers as soon as there is a live one newer than
    /// `seen`, at the latest after so long (it grants at most a minute); `None` when there was
    /// nothing newer by then.
    pub async fn token(
        &self,
        name: &Name,
        form: TokenForm,
        wait: Option<Duration>,
        seen: Option<Version>,
    ) -> Result<Option<Secret>, ClientError> {
        let query = wait.map_or(String::new(), |wait| format!("?wait={}s", wait.as_secs()));
        let target = format!("/v1/tokens/{name}{query}");
        self.fetch(&target, form, wait, seen).await
    }

    /// The same, which counts only once every sink has it.
    pub async fn delivered_token(
        &self,
        name: &Name,
        wait: Option<Duration>,
    ) -> Result<Option<Secret>, ClientError> {
        let query = wait.map_or(String::new(), |wait| format!("&wait={}s", wait.as_secs()));
        let target = format!("/v1/tokens/{name}?delivered=true{query}");
        self.fetch(&target, TokenForm::Json, wait, None).await
    }

    async fn fetch(
        &self,
        target: &str,
        form: TokenForm,
        wait: Option<Duration>,
        seen: Option<Version>,
    ) -> Result<Option<Secret>, ClientError> {
        let accept = match form {
            TokenForm::Bare => "text/plain",
            TokenForm::Json => "application/json",
        };
        let request = self.request(Method::GET, target, OWN_LABEL)?;
        let mut request = request.header(header::ACCEPT, accept);
        if let Some(version) = seen {
            request = request.header(header::IF_NONE_MATCH, format!("\"{version}\""));
        }
        let within = ANSWER + wait.unwrap_or_default();
        let answer = self.send(target, request, within).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        match String::from_utf8(answer.into_body().into()) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(_) => Err(unreadable(target, "it is not text")),
        }
    }

    /// What needs a person, counts, renewers, dispatchers.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(ShowStatus, &[]).send().await
    }

    /// Why the engine does, or does not do, what it does with an identity.
    pub async fn why(&self, name: &Name) -> Result<Explanation, ClientError> {
        self.call(ShowWhy, &[name]).send().await
    }
}

/// Every endpoint that answers with one JSON document, as it is described.
#[cfg(test)]
pub(super) fn described() -> Vec<super::endpoint::Description> {
    let mut described = work(identities_of(lists())).described();
    described.push(super::endpoint::Description::of::<access::Acknowledge>());
    described
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The table in the header of the room, row by row.
    #[test]
    fn the_table_of_endpoints_is_what_is_routed() {
        let text = include_str!("mod.rs");
        let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
        let told: Vec<String> = rows
            .filter_map(|row| row.split_once('`').map(|(name, _)| name.to_owned()))
            .collect();
        let routed = work(identities_of(lists())).names();
        let written_out = [
            "GET /v1/tokens/{name}",
            "PUT /v1/tokens/{name}/ack",
            "GET /v1/watch",
        ];
        let known: BTreeSet<String> = routed
            .into_iter()
            .chain(written_out.map(str::to_owned))
            .collect();
        assert_eq!(told.iter().cloned().collect::<BTreeSet<_>>(), known);
        assert_eq!(told.len(), known.len(), "none is told twice");
    }
}
