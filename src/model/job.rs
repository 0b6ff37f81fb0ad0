//! The words of scheduled work.

use serde::{Deserialize, Serialize};

/// What a job starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobAction {
    /// Revokes the tokens; then a new one, or none.
    Revoke,
    /// Renews the tokens at once.
    Renew,
    /// Withholds the tokens until they are released.
    Hold,
}

impl JobAction {
    /// The word in the configuration and in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Renew => "renew",
            Self::Hold => "hold",
        }
    }
}

/// What becomes of instants that passed while nothing could run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// All of them together are one run, as soon as possible.
    #[default]
    RunOnce,
    /// They are noted and left out.
    Skip,
}
