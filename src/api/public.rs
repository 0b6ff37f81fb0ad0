//! The TCP side: health, readiness, metrics and a page, for probes, scrapers and passers-by.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, StatusCode, header};
use tokio::time::timeout;

use super::{
    guard::{Door, guard},
    handle::Api,
    peer::Turns,
    problem::{Problem, ProblemType, as_document},
    snapshot::Snapshot,
    wire::PublicStatus,
};
use crate::telemetry::Metrics;

/// Looks at the store that are under way at once.
const AT_ONCE: usize = 2;
/// How long one may take, its turn included.
const LOOK: Duration = Duration::from_secs(10);

const PAGE: &str = include_str!("page.html");
/// The page is one file: its own script and style, and questions to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The endpoints behind `door`.
pub(super) fn router(api: Api, door: Door) -> Router {
    let turns = Turns::of(AT_ONCE);
    // These look at the store, which the readers of tokens wait for, too.
    let looking = Router::new()
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route_layer(middleware::from_fn_with_state(turns, in_turn));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/", get(page))
        .merge(looking)
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(door, guard))
        .layer(middleware::from_fn(as_document))
        .with_state(api)
}

/// Middleware: so many looks at the store at once, and none that waits for ever.
async fn in_turn(
    State(turns): State<Turns>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let looked = async {
        let _turn = Turns::next(Some(&turns)).await;
        next.run(request).await
    };
    timeout(LOOK, looked).await.map_err(|_| {
        let why = format!(
            "too many ask at once: not answered within {} s",
            LOOK.as_secs()
        );
        Problem::new(ProblemType::Busy, why).retry_after(Duration::from_secs(5))
    })
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
