//! What bulk operations do, and the scheduled work that starts them, in the words that configuration, store, socket and
//! command line share.

use serde::{Deserialize, Serialize};

use super::{Record, State};

/// The number of a campaign.
pub type CampaignId = i64;

/// What a campaign does to each of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CampaignAction {
    Revoke,
    Hold,
    /// Ends a hold; a new token follows.
    Release,
    Renew,
    /// Deletes the identity at ACS, for good.
    Delete,
}

impl CampaignAction {
    /// The word in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Renew => "renew",
            Self::Delete => "delete",
        }
    }

    /// Whether what it does is kept in `withdrawn.jsonl`.
    pub fn withdraws(self) -> bool {
        matches!(self, Self::Revoke | Self::Hold | Self::Delete)
    }

    /// Whether it would do anything to an identity: what a selection expands, and what `--dry-run`
    /// counts. The reason where it would not.
    pub fn applies(self, record: &Record) -> Result<(), &'static str> {
        self.applies_to(record.state, record.id.is_some())
    }

    /// The same of all identities in such a state.
    pub fn applies_to(self, state: State, has_id: bool) -> Result<(), &'static str> {
        match (self, state) {
            (_, State::Deleted) => Err("deleted"),
            (Self::Release, State::Held) => Ok(()),
            (Self::Release, _) => Err("not held"),
            (Self::Delete, _) if !has_id => Err("not created yet"),
            (Self::Delete, _) => Ok(()),
            (_, State::Gone) => Err("gone at ACS"),
            (Self::Revoke, _) if !has_id => Err("not created yet"),
            (Self::Revoke, _) => Ok(()),
            (Self::Hold | Self::Renew, State::Held) => Err("held"),
            (Self::Hold | Self::Renew, _) => Ok(()),
        }
    }
}

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
