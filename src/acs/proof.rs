//! What a harmless signed call says of a key. Pure.

use super::{Cause, Error};

/// Nobody has this id: asking for its token proves the key and makes nothing.
pub(super) const NOBODY: &str =
    "8:acs:00000000-0000-0000-0000-000000000000_00000000-0000-0000-0000-000000000000";

/// What is known of a key after it signed a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The service accepts it.
    Accepted,
    /// The service refuses it, and not because of a clock.
    Denied(String),
    /// The service did not say; why, in a sentence.
    Unknown(String),
}

/// Reads what came of the call.
pub(super) fn read(answer: Result<(), Error>) -> Proof {
    match answer {
        Ok(()) => Proof::Accepted,
        Err(error) => match &error.cause {
            Cause::Rejected(rejection) if rejection.proves_key() => Proof::Accepted,
            Cause::Rejected(rejection)
                if (rejection.status, rejection.code.as_str()) == (401, "Denied") =>
            {
                Proof::Denied(error.reason())
            }
            _ => Proof::Unknown(error.reason()),
        },
    }
}
