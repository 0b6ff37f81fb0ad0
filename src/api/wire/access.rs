//! What consumers say about the versions that they use, and what is counted about them.

use serde::{Deserialize, Serialize};

use crate::model::{Num, Version};
pub use crate::store::{Holder, Orphan, TokenReads};

/// `PUT /v1/tokens/{name}/ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The version that the consumer uses.
    pub version: Version,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The version that the consumer uses.
    pub version: Version,
    /// The version that it should use.
    pub current: Version,
}

/// One row of `GET /v1/holders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderRow {
    /// The consumer and its version.
    #[serde(flatten)]
    pub holder: Holder,
    /// The name of its user.
    pub user: String,
}

/// One row of `GET /v1/reads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadsRow {
    /// The count.
    #[serde(flatten)]
    pub reads: TokenReads,
    /// The name of the user.
    pub user: String,
}

/// `POST /v1/orphans/dismiss`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DismissOrphans {
    /// Their numbers.
    pub nums: Vec<Num>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissed {
    /// So many were taken off the list.
    pub dismissed: usize,
}
