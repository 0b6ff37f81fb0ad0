//! The control endpoints: for admins alone, and whatever changes something is audited.

mod access;
mod admin;
mod backup;
mod campaigns;
mod deliveries;
mod doctor;
mod identities;
mod import;
mod jobs;
mod keys;
mod listings;
mod reload;
mod sinks;
mod sources;
mod store;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    middleware,
    routing::{get, post},
};

use self::admin::Admin;
use super::{
    body::{self, Body},
    handle::Api,
    orders,
    problem::{Problem, ProblemType},
    snapshot::Snapshot,
    wire::Status,
};
use crate::{
    model::{Name, Record},
    schedule::{Explanation, why},
    store::Rows,
};

/// Items of one page.
const PAGE: usize = 500;

/// The endpoints: nobody but admins is let in, then the body is read, then the endpoint works.
pub(super) fn router(api: &Api) -> Router<Api> {
    let reading = |most| middleware::from_fn_with_state((api.clone(), most), body::whole);
    let lists = lists().route_layer(reading(body::LARGEST_LIST));
    let rest = identities_router()
        .merge(work_router())
        .merge(store_router())
        .route_layer(reading(body::LARGEST));
    lists
        .merge(rest)
        .route_layer(DefaultBodyLimit::disable())
        .route_layer(middleware::from_fn_with_state(api.clone(), admin::let_in))
}

/// Those that take a list of names.
fn lists() -> Router<Api> {
    Router::new()
        .route("/v1/campaigns", get(campaigns::list).post(campaigns::start))
        .route("/v1/campaigns/plan", post(campaigns::plan))
}

/// Identities and what is known of them.
fn identities_router() -> Router<Api> {
    Router::new()
        .route("/v1/status", get(status))
        .route(
            "/v1/identities",
            get(identities::list).post(identities::add),
        )
        .route(
            "/v1/identities/{name}",
            get(identities::show).delete(identities::remove),
        )
        .route("/v1/identities/{name}/revive", post(identities::revive))
        .route(
            "/v1/gone/{resource}/confirm",
            post(identities::confirm_gone),
        )
        .route("/v1/why/{name}", get(explain))
        .route("/v1/notices", get(listings::notices))
        .route("/v1/audit", get(listings::audit))
        .route("/v1/doctor", get(doctor::examine))
        .route("/v1/holders", get(access::holders))
        .route("/v1/reads", get(access::reads))
        .route("/v1/orphans", get(access::orphans))
        .route("/v1/orphans/dismiss", post(access::dismiss))
        .route("/v1/import", post(import::import))
        .route("/v1/create", post(import::create))
        .route("/v1/sources", get(sources::list))
        .route("/v1/sources/{name}/test", post(sources::test))
        .route("/v1/sources/{name}/apply", post(sources::apply))
}

/// Campaigns, deliveries, jobs, keys, and the configuration.
fn work_router() -> Router<Api> {
    Router::new()
        .route("/v1/campaigns/{id}", get(campaigns::progress))
        .route("/v1/campaigns/{id}/report", get(campaigns::report))
        .route("/v1/campaigns/{id}/{order}", post(campaigns::order))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/retry", post(deliveries::retry))
        .route("/v1/deliveries/replay", post(deliveries::replay))
        .route("/v1/sinks", get(sinks::list))
        .route("/v1/sinks/{name}/pause", post(sinks::pause))
        .route("/v1/sinks/{name}/enable", post(sinks::enable))
        .route("/v1/sinks/{name}/test", post(sinks::test))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/runs", get(jobs::runs))
        .route("/v1/jobs/{name}/run", post(jobs::run))
        .route("/v1/keys", get(keys::list))
        .route(
            "/v1/keys/{resource}",
            get(keys::show).post(keys::replace).delete(keys::cancel),
        )
        .route("/v1/keys/{resource}/identities", get(keys::identities))
        .route("/v1/reload", post(reload::reload))
}

/// Whether the store may be used, and its backups.
fn store_router() -> Router<Api> {
    Router::new()
        .route("/v1/store/accept", post(store::accept))
        .route(
            "/v1/store/reseal",
            get(store::resealing).post(store::reseal),
        )
        .route("/v1/store/adopt", post(store::adopt))
        .route("/v1/store/backup", post(backup::backup))
        .route("/v1/store/backed-up", post(backup::backed_up))
}

async fn status(State(api): State<Api>, _: Admin) -> Result<Json<Status>, Problem> {
    let mut status = Snapshot::take(&api).await.status();
    // Where the store cannot be read, the needs say so; the rest is shown all the same.
    status.behind = access::behind(&api).await.unwrap_or_default();
    Ok(Json(status))
}

async fn explain(
    State(api): State<Api>,
    _: Admin,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let record = record(&api, &name).await?;
    let renewer = api.shared_state().renewer(&record.spec.resource);
    let now = api.clock.now();
    let orders = api.store.orders_of(record.num, now).await?;
    let orders = orders.iter().map(|order| orders::about_one(order, now));
    let rows = Rows {
        nums: Some(vec![record.num]),
        pending: true,
        ..Rows::default()
    };
    let pending = api.store.delivery_table(rows, 0, PENDING).await?;
    let dispatchers = api.shared_state().dispatcher_views();
    let deliveries = pending
        .iter()
        .map(|one| deliveries::about_one(one, dispatchers.get(&one.delivery.sink), &record, now));
    let explanation = why(&record, &renewer, now);
    Ok(Json(
        explanation.beside(orders.collect(), deliveries.collect()),
    ))
}

/// The row of this name.
async fn record(api: &Api, name: &str) -> Result<Record, Problem> {
    let unknown = || {
        Problem::new(
            ProblemType::Unknown,
            format!("there is no identity {name:?}"),
        )
    };
    let name: Name = name.parse().map_err(|_| unknown())?;
    api.store.record(&name).await?.ok_or_else(unknown)
}

/// The rows of these names, in their order; every unknown one is named.
async fn records(api: &Api, names: &[Name]) -> Result<Vec<Record>, Problem> {
    let found = api.store.records(names).await?;
    let known: std::collections::BTreeSet<&Name> = found.iter().map(|one| &one.spec.name).collect();
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| !known.contains(name))
        .map(Name::as_str)
        .collect();
    if unknown.is_empty() {
        return Ok(found);
    }
    for name in names.iter().filter(|name| !known.contains(name)) {
        // One whose row cannot be read is not unknown.
        api.store.record(name).await?;
    }
    let some = unknown
        .iter()
        .take(10)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let why = format!(
        "unknown: {some} ({} of {} names); nothing was done",
        unknown.len(),
        names.len()
    );
    Err(Problem::new(ProblemType::Unknown, why))
}

/// So many pending deliveries of one identity are told.
const PENDING: usize = 100;

/// `?after=…`.
#[derive(Debug, Default, serde::Deserialize)]
struct After {
    after: Option<String>,
}
