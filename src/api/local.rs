//! The router of the local socket.

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
    routing::{get, put},
};
use http::{Method, StatusCode};
use tokio::time::timeout;

use super::{
    access, control,
    guard::{Door, guard, usable},
    handle::Api,
    peer::{Standing, Turns},
    problem::{Problem, ProblemType, as_document},
    tokens, watch,
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
    let working = control::router(&api).route_layer(middleware::from_fn(in_turn));
    waiting
        .merge(working)
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(api.clone(), usable))
        .layer(middleware::from_fn_with_state(Door::Socket, guard))
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
    standing: Option<Extension<Standing>>,
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
        && standing.is_some_and(|Extension(standing)| standing != Standing::Trusted);
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
