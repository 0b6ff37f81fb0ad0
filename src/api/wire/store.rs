//! What is said about the store itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The header of a backup that says when it was made, in microseconds since 1970.
pub const MADE_AT_HEADER: &str = "x-renewd-made-at";

/// `POST /v1/store/accept`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreWord {
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreUsed {
    /// Identities whose tokens are of unknown standing and are renewed now.
    pub renewing: u64,
    /// What another word is needed for, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<String>,
}

/// `POST /v1/store/backed-up`: a backup reached its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// When it was made, as [`MADE_AT_HEADER`] said.
    pub made_at: Timestamp,
    /// Where it is, for the audit trail.
    pub place: String,
}

pub use crate::store::Resealing;

/// `POST /v1/store/reseal`: the seal key is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResealStarted {
    /// Where the key that is replaced will be.
    pub former: String,
    /// How far it is.
    pub now: Resealing,
}
