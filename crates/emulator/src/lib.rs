//! The other side: ACS Identity, Entra ID and a webhook receiver, with checks of their own.
//!
//! [`Emulator`] is state behind a lock and one asynchronous function from request to [`Reply`]; it
//! needs no socket, so that it answers under paused time as well as behind [`serve`]. It shares the
//! JSON shapes with `acs` and nothing else: signatures, limits and revocation are judged by code of
//! its own. What it does and why is told in the log and in the header `x-renewd-emulator-reason`,
//! never in a body, so that clients see exactly what the service would send.
//!
//! A request goes: `call` (which operation) → `faults` (injected trouble) → `signature`, or for a bearer
//! `entra` → api-version → limits → operation on the `world` (`service`) → `mint` → `answer`. A request for a
//! bearer goes to `entra` after the faults. `control` is the control API for tests.
//!
//! What is not established about the service is decided here and marked "not established" where it
//! stands. Source of everything else: ACS REST 2023-10-01, recordings of the service, the SDKs.

mod access_keys;
mod answer;
mod call;
mod control;
mod entra;
mod environment;
mod faults;
mod mint;
pub mod receiver;
mod server;
mod service;
mod signature;
mod socket;
mod tls;
mod world;

pub use answer::{Answering, REASON_HEADER, Reply};
pub use call::Counts;
pub use control::CONTROL_HEADER;
pub use entra::{
    CertificateError, Challenge, EntraControls, EntraOptions, EntraPart, Machine, ManagedIdentity,
    Registration,
};
pub use environment::{
    EntraAccess, Environment, EnvironmentError, child_environment, entra_environment,
};
pub use faults::{Limit, Limits, UnlikeALimit};
pub use mint::{KeyError, TokenAlg};
pub use server::{ServeError, ServeOptions, Serving, serve};
pub use service::Emulator;
pub use tls::TlsError;
pub use tls::TrustError;
pub use world::{DeletedStatus, EmulatorError, EmulatorOptions, UnlikeAKey};
