//! The only room that speaks to Azure: the identity operations of Azure Communication Services.
//!
//! [`Client`] signs a request, sends it, and turns whatever comes back into an [`AcsAnswer`] or an
//! [`Error`] whose class says what to do next. It never retries on its own, but for what only it can see: a
//! signature that failed because a clock is wrong is made again with the answer's date, a refused access key is
//! followed by the other one, and a bearer by another one (`credential`). What an answer means (`answer`), which key
//! is in use (`keys`) and how far the clocks are apart (`client_clock`) are plain functions and values beside it.

mod answer;
mod check;
mod client;
mod client_clock;
mod connection_string;
mod credential;
mod error;
mod keys;
mod request;

pub use answer::{Created, Issued};
pub use check::check;
pub use client::{AcsAnswer, Client};
pub use connection_string::{AccessKey, ConnectionString, ConnectionStringError, ResourceUrl};
pub use error::SetupError;
pub use error::{Error, ErrorCause, Rejection};
pub use keys::Proof;
pub use renewd_acs_wire as wire;
pub use request::is_signed_with;
