//! Listens: the local socket for programs on this machine, and TCP for health, metrics and a page.
//!
//! # The local socket
//!
//! HTTP/1.1; every request carries `X-Renewd-Client`; the peer's uid and groups decide.
//!
//! | endpoint | for | |
//! |---|---|---|
//! | `GET /v1/tokens/{name}` | readers | the token document, or the bare token as `text/plain`; `?wait=55s` is a long poll |
//! | `PUT /v1/tokens/{name}/ack` | readers | which version the caller uses |
//! | `GET /v1/watch?name=…` | readers | server-sent events: the state of these identities, then each new version |
//! | `GET /v1/status` | admins | what needs a person, counts, renewers, dispatchers |
//! | `GET /v1/identities`, `GET /v1/identities/{name}` | admins | identities, in pages |
//! | `POST /v1/identities`, `DELETE /v1/identities/{name}` | admins | add to the store, remove from it |
//! | `GET /v1/why/{name}` | admins | what is decided about an identity, in words |
//! | `POST /v1/campaigns`, `GET /v1/campaigns/{id}` | admins | revoke, hold, release, delete |
//! | `GET /v1/deliveries`, `POST /v1/deliveries/retry`, `…/replay` | admins | the delivery table: listed, tried now, delivered once more |
//! | `GET /v1/sinks`, `POST /v1/sinks/{name}/pause`, `…/enable`, `…/test` | admins | sinks |
//! | `GET /v1/notices`, `GET /v1/audit` | admins | listings, in pages |
//! | `GET /v1/holders`, `GET /v1/reads` | admins | who uses which version, who took tokens |
//! | `GET /v1/orphans`, `POST /v1/orphans/dismiss` | admins | what may exist at ACS without a record |
//! | `GET /v1/jobs`, `GET /v1/jobs/runs`, `POST /v1/jobs/{name}/run` | admins | scheduled work, what ran, a run by hand |
//! | `GET /v1/keys`, `GET`, `POST`, `DELETE /v1/keys/{resource}` | admins | access keys, replace one, call that off |
//! | `GET /v1/sources` | admins | sources of identities and how they are |
//! | `POST /v1/sources/{name}/test`, `POST /v1/sources/{name}/apply` | admins | what a list would change; take it over |
//! | `POST /v1/import` | admins | identities or ids, in batches; `check` changes nothing |
//! | `POST /v1/create` | admins | let identities be created that wait because the store had been lost |
//! | `POST /v1/store/accept` | admins | go on with a store of which it is not known what was withdrawn |
//! | `GET`, `POST /v1/store/reseal` | admins | how far the replacement of the seal key is; begin it |
//! | `POST /v1/reload` | admins | read the configuration again, all or nothing |
//!
//! Admins are root, the daemon's own user, and `[daemon] admins`. To everybody else an identity
//! that does not exist and one that is not theirs are the same `forbidden`, so names cannot be
//! guessed.
//!
//! # TCP
//!
//! `/healthz`, `/readyz`, `/metrics`, `/api/status`, and `/`, a page. Never a secret; names of
//! identities only with `[daemon] page_names = true`.

mod acks;
mod addition;
mod batch;
mod body;
pub mod client;
mod control;
mod guard;
mod handle;
mod listeners;
mod local;
mod needs;
mod orders;
mod peer;
mod problem;
mod public;
mod readiness;
mod reads;
mod rights;
mod seats;
mod serve;
mod snapshot;
mod socket;
mod stalled_write;
#[cfg(test)]
mod tests;
mod tokens;
mod watch;
pub mod wire;
mod worded;

pub use handle::{Api, ApplySource, Command, Permission, SharedState, SinkAsk};
pub use listeners::Listeners;
pub use peer::Peer;
pub use problem::{Problem, ProblemType};
pub use readiness::{Life, Part, Readiness, readiness};
pub use socket::ListenError;

use crate::store::StoreError;

/// Connections that are served at once, by all doors.
const SERVED: usize = seats::Limits::SOCKET.all + 2 * serve::TCP_CONNECTIONS;
/// Connections at once, with those of whom nothing is read before they are turned away.
pub const CONNECTIONS: usize = SERVED + serve::TURNED_AWAY;
/// What one connection takes at most: what waits in it both ways, here and in the system, and what is known
/// of it.
const OF_CONNECTION: usize = 2 * serve::BUFFER + 2 * serve::UNSENT + 24 * 1024;
/// What one takes that is to be turned away.
const OF_TURNED_AWAY: usize = 8 * 1024;
/// What a watched name takes: in the lists of names, and for an event that waits.
const OF_WATCHED_NAME: usize = 1024;
/// What all callers together make the daemon take at most, in bytes. A body is there as it came and as what it
/// says.
pub const MEMORY: usize = SERVED * OF_CONNECTION
    + serve::TURNED_AWAY * OF_TURNED_AWAY
    + 2 * body::ALL
    + watch::MOST_WATCHED * OF_WATCHED_NAME;

impl From<StoreError> for Problem {
    /// What a caller can mend is told as a conflict; everything else is logged here, once.
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Refused { .. }) {
            return Self::new(ProblemType::Conflict, error.to_string());
        }
        tracing::warn!(%error, "a request could not be answered");
        Self::new(ProblemType::Internal, error.to_string())
    }
}

async fn no_such_endpoint() -> Problem {
    Problem::new(ProblemType::Unknown, "there is no such endpoint")
}
