//! Listens: the local socket for programs on this machine, and TCP for health, metrics and a page.
//!
//! # The local socket
//!
//! HTTP/1.1; every request carries `X-Renewd-Client`; the peer's uid and groups decide.
//!
//! | endpoint | for | |
//! |---|---|---|
//! | `GET /v1/tokens/{name}` | readers | the token document, or the bare token as `text/plain`; `?wait=55s` is a long poll |
//! | `GET /v1/status` | admins | what needs a person, counts, lanes, couriers |
//! | `GET /v1/identities`, `GET /v1/identities/{name}` | admins | identities, in pages |
//! | `POST /v1/identities`, `DELETE /v1/identities/{name}` | admins | add to the store, remove from it |
//! | `GET /v1/why/{name}` | admins | what is decided about an identity, in words |
//! | `POST /v1/renew` | admins | set identities due now |
//! | `POST /v1/campaigns`, `GET /v1/campaigns/{id}` | admins | revoke, hold, release, delete |
//! | `GET /v1/deliveries`, `GET /v1/notices`, `GET /v1/audit` | admins | listings, in pages |
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

pub mod client;
mod problem;
mod readiness;
pub mod wire;

pub use problem::{Problem, ProblemType};
pub use readiness::{Life, Part, Readiness, readiness};
