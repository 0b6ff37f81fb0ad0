//! Tokens, versions, due times and attempts.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Secret;

/// Counts every change in what a consumer should hold: `max(previous + 1, unix seconds)`, so it
/// never goes backwards, not even after a restore from a backup.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version that follows `self` when a change is committed at `now`.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        Self((self.0 + 1).max(u64::try_from(now.as_second()).unwrap_or(0)))
    }

    /// How long ago it was committed, to the second: a version is the second of its commit, unless
    /// several share one.
    pub fn age(self, now: Timestamp) -> Duration {
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        Duration::from_secs(now.saturating_sub(self.0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A token fresh from ACS.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The text that apps present.
    pub secret: Secret,
    /// Its facts.
    pub meta: TokenMeta,
}

/// What is known of a token besides its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMeta {
    /// When its call began, by the service's clock: ours, and how far ahead of it that one is.
    pub issued_at: Timestamp,
    /// When it ends, as ACS gave it.
    pub expires_at: Timestamp,
    /// The fingerprint of the access key that minted it.
    pub minted_by: String,
}

impl TokenMeta {
    /// The whole life, never negative.
    pub fn life(&self) -> Duration {
        self.expires_at
            .duration_since(self.issued_at)
            .try_into()
            .unwrap_or_default()
    }

    /// What is left of it, zero once dead.
    pub fn left(&self, now: Timestamp) -> Duration {
        self.expires_at
            .duration_since(now)
            .try_into()
            .unwrap_or_default()
    }

    /// Whether ACS would still accept it.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// Why an identity is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DueReason {
    /// It has no token yet.
    First,
    /// Its token reaches the renewal share of its life.
    Renewal,
    /// The last attempt failed.
    Retry,
    /// Its scopes or lifetime changed.
    Changed,
    /// Somebody asked.
    Requested,
    /// Its tokens were revoked and one is to follow.
    Revoked,
    /// It was released from a hold.
    Released,
    /// The access key that minted its token is replaced.
    KeyChange,
    /// Its token was issued in the future, after skew.
    FutureToken,
}

/// When the engine should look at an identity, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The instant.
    pub at: Timestamp,
    /// The reason.
    pub why: DueReason,
}

/// How pressing a renewal is. Three tiers, so that a bug in one rule cannot let a token expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// More than a quarter of the life is left.
    Normal,
    /// A quarter of the life is left.
    Urgent,
    /// A tenth is left, or the token is dead, or there is none.
    Emergency,
}

/// How one call to ACS ended, as kept in the identity's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When the call began.
    pub at: Timestamp,
    /// `ok`, or the class of the failure in a word or two.
    pub result: String,
    /// The service's request id, to quote to support.
    pub request_id: Option<String>,
}

/// The last attempts of an identity, packed in its row: newest last, at most [`Attempts::KEPT`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempts(Vec<Attempt>);

impl Attempts {
    /// How many are kept.
    pub const KEPT: usize = 10;

    /// Adds the newest and forgets the oldest beyond [`Attempts::KEPT`].
    pub fn push(&mut self, attempt: Attempt) {
        if self.0.len() == Self::KEPT {
            self.0.remove(0);
        }
        self.0.push(attempt);
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.0.iter()
    }

    /// The newest.
    pub fn last(&self) -> Option<&Attempt> {
        self.0.last()
    }
}
