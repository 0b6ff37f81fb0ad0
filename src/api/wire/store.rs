//! What is said about the store itself.

use serde::{Deserialize, Serialize};

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
}
