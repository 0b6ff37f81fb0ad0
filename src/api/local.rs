//! The router of the local socket.

use axum::{
    Router, middleware,
    routing::{get, put},
};

use super::{
    acks, control,
    guard::{Door, guard, usable},
    handle::Api,
    tokens, watch,
};

/// The endpoints; each request must carry the [`Peer`](super::Peer) that connected.
pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/tokens/{name}", get(tokens::token))
        .route("/v1/tokens/{name}/ack", put(acks::acknowledge))
        .route("/v1/watch", get(watch::watch))
        .merge(control::router())
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(api.clone(), usable))
        .layer(middleware::from_fn_with_state(Door::Socket, guard))
        .with_state(api)
}
