//! What TCP serves beside the page: health and metrics, for whoever can reach it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    endpoint::Json,
    guard::{Listener, guard},
    handle::Api,
    looks::Looks,
    page,
    problem::{Problem, as_document},
    snapshot::Snapshot,
    wire::PublicStatus,
};
use crate::telemetry::Exposition;

/// What the endpoints look at.
#[derive(Debug, Clone)]
struct Seen {
    api: Api,
    glances: Arc<Looks<Snapshot>>,
    looks: Arc<Looks<Snapshot>>,
}

impl Seen {
    async fn glance(&self) -> Result<Arc<Snapshot>, Problem> {
        self.glances.shared(Snapshot::glance(&self.api)).await
    }

    async fn whole(&self) -> Result<Arc<Snapshot>, Problem> {
        self.looks.shared(Snapshot::take(&self.api)).await
    }
}

/// The endpoints behind `listener`.
pub(super) fn router(api: Api, listener: Listener) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .with_state(Seen {
            api: api.clone(),
            glances: Arc::default(),
            looks: Arc::default(),
        })
        .merge(page::router(api))
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(listener, guard))
        .layer(middleware::from_fn(as_document))
}

/// That this is answered is the answer.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(seen): State<Seen>) -> Result<Response, Problem> {
    let readiness = seen.glance().await?.readiness();
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok((status, NO_STORE, Json(readiness)).into_response())
}

async fn metrics(
    State(seen): State<Seen>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let form = Exposition::accepted(accepted.filter_map(|value| value.to_str().ok()));
    let scrape = seen.whole().await?.scrape();
    let headers = [
        (header::CONTENT_TYPE, form.content_type()),
        (header::VARY, "accept"),
    ];
    Ok((headers, seen.api.metrics.render(scrape, form)))
}

async fn status(State(seen): State<Seen>) -> Result<impl IntoResponse, Problem> {
    let status: PublicStatus = seen.whole().await?.public();
    Ok((NO_STORE, Json(status)))
}

const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];
