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
//! | `GET /v1/watch` | readers | server-sent events: the state of the identities in `?name=…`, then each new version |
//! | `GET /v1/status` | admins | what needs a person, counts, renewers, dispatchers |
//! | `GET /v1/why/{name}` | admins | what is decided about an identity, in words |
//! | `GET /v1/identities` | admins | identities, in pages |
//! | `POST /v1/identities` | admins | add one to the store |
//! | `GET /v1/identities/{name}` | admins | one identity |
//! | `DELETE /v1/identities/{name}` | admins | remove it from the store |
//! | `POST /v1/identities/{name}/revive` | admins | ask for one that is gone again |
//! | `POST /v1/gone/{resource}/confirm` | admins | a person's word that what ACS says is gone is |
//! | `GET /v1/campaigns` | admins | campaigns, in pages |
//! | `POST /v1/campaigns` | admins | revoke, hold, release, delete |
//! | `POST /v1/campaigns/plan` | admins | what a campaign would do |
//! | `GET /v1/campaigns/{id}` | admins | how far it is |
//! | `GET /v1/campaigns/{id}/report` | admins | what was done to each identity, in pages |
//! | `POST /v1/campaigns/{id}/{order}` | admins | pause, resume, cancel, retry |
//! | `GET /v1/deliveries` | admins | the delivery table, in pages |
//! | `POST /v1/deliveries/retry` | admins | attempt pending deliveries now |
//! | `POST /v1/deliveries/replay` | admins | deliver current versions once more |
//! | `GET /v1/sinks` | admins | sinks and how they are |
//! | `POST /v1/sinks/{name}/pause` | admins | stop deliveries |
//! | `POST /v1/sinks/{name}/enable` | admins | let them go out again |
//! | `POST /v1/sinks/{name}/test` | admins | try it out with a synthetic document |
//! | `GET /v1/nodes` | admins | the machines of a cluster, and who leads |
//! | `POST /v1/nodes/{name}/drain` | admins | let another one lead |
//! | `POST /v1/nodes/{name}/undrain` | admins | let it lead again |
//! | `POST /v1/nodes/{name}/forget` | admins | forget one that will not come back |
//! | `GET /v1/notices` | admins | notices, in pages |
//! | `GET /v1/audit` | admins | the audit trail, in pages |
//! | `GET /v1/holders` | admins | who uses which version |
//! | `GET /v1/reads` | admins | who took tokens, by the hour |
//! | `GET /v1/orphans` | admins | what may exist at ACS without a record |
//! | `POST /v1/orphans/dismiss` | admins | take some off the list |
//! | `GET /v1/jobs` | admins | scheduled work |
//! | `GET /v1/jobs/runs` | admins | what ran |
//! | `POST /v1/jobs/{name}/run` | admins | run one by hand |
//! | `GET /v1/plan` | admins | what the limits mean for the fleet, or for one that is asked about |
//! | `GET /v1/keys` | admins | the access keys of every resource |
//! | `GET /v1/keys/{resource}` | admins | those of one |
//! | `POST /v1/keys/{resource}` | admins | begin to replace one |
//! | `DELETE /v1/keys/{resource}` | admins | call that off |
//! | `GET /v1/keys/{resource}/identities` | admins | the identities of the newest replacement, in pages |
//! | `GET /v1/sources` | admins | sources of identities and how they are |
//! | `POST /v1/sources/{name}/test` | admins | what a list would change |
//! | `POST /v1/sources/{name}/apply` | admins | take it over |
//! | `POST /v1/import` | admins | identities or ids, in batches; `check` changes nothing |
//! | `POST /v1/create` | admins | let identities be created that wait because the store had been lost |
//! | `POST /v1/store/accept` | admins | go on with a store of which it is not known what was withdrawn |
//! | `POST /v1/store/adopt` | admins | take over a store that belonged to another machine |
//! | `POST /v1/store/backup` | admins | a backup, as its bytes |
//! | `POST /v1/store/backed-up` | admins | a backup reached its place |
//! | `GET /v1/store/reseal` | admins | how far the replacement of the seal key is |
//! | `POST /v1/store/reseal` | admins | begin it |
//! | `GET /v1/doctor` | admins | what is wrong around the daemon |
//! | `POST /v1/reload` | admins | read the configuration again, all or nothing |
//!
//! Admins are root, the daemon's own user, and `[daemon] admins`. To everybody else an identity
//! that does not exist and one that is not theirs are the same `forbidden`, so names cannot be
//! guessed.
//!
//! # TCP
//!
//! `/healthz`, `/readyz`, `/metrics`, `/api/status`, and `/`, a page that `/api/events` keeps up. Never a secret;
//! names of identities only with `[daemon] page_names = true`.

mod access;
mod admin;
mod away;
mod body;
mod campaigns;
mod certificates;
mod connection;
mod deliveries;
mod endpoint;
mod guard;
mod handle;
mod hub;
mod identities;
mod imports;
mod jobs;
mod keys;
mod local;
mod looks;
mod needs;
mod news;
mod nodes;
mod orders;
mod page;
mod peer;
mod plan;
mod problem;
mod public;
mod readiness;
mod reads;
mod rights;
mod serve;
mod shared_state;
mod snapshot;
mod socket;
mod sources;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod tokens;
mod watch;
mod wire;

pub use handle::Api;
pub use peer::Peer;
pub use problem::{Problem, ProblemType};
pub use readiness::{DaemonLife, Part, Readiness, readiness};
pub use shared_state::{ApplySource, Command, Permission, SharedState, SinkAsk};
pub use socket::ListenError;
pub use socket::Listeners;

use crate::store::StoreError;

/// What the command line takes of this room: the client, and the types that go over the socket.
pub mod client {
    pub use super::{
        access::AuditFilter,
        connection::{ClientError, DaemonClient},
        deliveries::DeliveryTable,
        imports::{Batch, Surroundings},
        local::TokenForm,
        problem::{Problem, ProblemType},
    };

    /// What goes over the socket.
    pub mod wire {
        pub use super::super::{
            access::*, campaigns::*, deliveries::*, imports::*, jobs::*, keys::*, nodes::*,
            plan::*, sources::*, store::*, wire::*,
        };
    }
}

/// Connections that are served at once, by all listeners.
const SERVED: usize = connection::SlotLimits::SOCKET.all + 2 * serve::TCP_CONNECTIONS;
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
    + hub::MOST_WATCHED * OF_WATCHED_NAME;

impl From<StoreError> for Problem {
    /// What a caller can mend is told as a conflict; everything else is logged here, once.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { .. } => {
                return Self::new(ProblemType::Conflict, error.to_string());
            }
            // It is told by `status` and the log once, not by each request.
            StoreError::Away { .. } => return away::waits(&error.to_string()),
            _ => {}
        }
        tracing::warn!(%error, "a request could not be answered");
        Self::new(ProblemType::Internal, error.to_string())
    }
}

async fn no_such_endpoint() -> Problem {
    Problem::new(ProblemType::Unknown, "there is no such endpoint")
}
