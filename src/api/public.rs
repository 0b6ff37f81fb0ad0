//! The TCP side: health, readiness, metrics and a page, for probes, scrapers and passers-by.

use axum::{
    Json, Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, StatusCode, header};

use super::{
    guard::{Door, guard},
    handle::Api,
    snapshot::Snapshot,
    wire::PublicStatus,
};
use crate::telemetry::Metrics;

const PAGE: &str = include_str!("page.html");
/// The page is one file: its own script and style, and questions to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The endpoints behind `door`.
pub(super) fn router(api: Api, door: Door) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/", get(page))
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(door, guard))
        .with_state(api)
}

/// That this is answered is the answer.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(api): State<Api>) -> Response {
    let readiness = Snapshot::glance(&api).await.readiness();
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, NO_STORE, Json(readiness)).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    let scrape = Snapshot::take(&api).await.scrape();
    match api.metrics.render(&scrape) {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(api): State<Api>) -> impl IntoResponse {
    let status: PublicStatus = Snapshot::take(&api).await.public();
    (NO_STORE, Json(status))
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE)
}

const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];
