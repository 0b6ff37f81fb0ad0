//! What the engine and the campaigns decided, as data that the store commits.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attempt, Due, DueReason, IdentityId, Name, Num, State, Token, Version};

/// What the newest version means to a consumer; the last word of the event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The first token, or the first after a hold.
    Issued,
    /// The next token while the old one was good, or after it had expired.
    Renewed,
    /// A token that follows a revocation or a key roll.
    Reissued,
    /// No token on purpose; also for identities that are gone.
    Held,
    /// The identity was deleted.
    Deleted,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Issued,
        Self::Renewed,
        Self::Reissued,
        Self::Held,
        Self::Deleted,
    ];

    /// The word in the event type and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Renewed => "renewed",
            Self::Reissued => "reissued",
            Self::Held => "held",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What follows a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The engine issues a new token at once.
    Reissue,
    /// The identity stays without a token until it is released.
    Hold,
}

impl FromStr for Then {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reissue" => Ok(Self::Reissue),
            "hold" => Ok(Self::Hold),
            other => Err(format!("{other:?} is neither reissue nor hold")),
        }
    }
}

/// One thing that the engine decided about one row. The store applies a batch of them in one
/// transaction and answers with one [`Applied`] each.
#[derive(Debug, Clone)]
pub enum Change {
    /// A token was obtained: the new token, its version, the next due time and `wanted` for every
    /// sink are one commit. Refused as [`Applied::Stale`] when the call began before the row's
    /// last revocation, or when the row is no longer waiting for a token.
    Issued {
        /// The row.
        num: Num,
        /// When the call to ACS began.
        call_began: Timestamp,
        /// The id, where the call also created the identity.
        id: Option<IdentityId>,
        /// The token.
        token: Token,
        /// The next renewal.
        due: Due,
        /// From when on the identity counts as late.
        late_at: Timestamp,
        /// For the row's list of attempts.
        attempt: Attempt,
    },
    /// An identity was made, but the token that came with it could not be read or kept: the id is
    /// committed alone, so that no second person is made, and the token is issued next.
    Adopted {
        /// The row.
        num: Num,
        /// What ACS calls it.
        id: IdentityId,
        /// For the row's list of attempts.
        attempt: Attempt,
    },
    /// A call failed; the row becomes due again.
    Failed {
        /// The row.
        num: Num,
        /// For the row's list of attempts.
        attempt: Attempt,
        /// The next attempt.
        due: Due,
        /// Whom the failure is about.
        blame: Blame,
    },
    /// Takes the last failure back: it was the beginning of what is now known to be about the resource.
    /// The row is due again at once, or as soon as a second after that failure.
    Excused {
        /// The row.
        num: Num,
    },
    /// ACS says that the identity does not exist or is not ours. Once it has said so twice, and not of
    /// too many at once: withdrawn, kept, shown, never re-created by itself.
    Gone {
        /// The row.
        num: Num,
        /// For the row's list of attempts.
        attempt: Attempt,
        /// What it said, for people.
        because: String,
    },
    /// Moves the due time without an attempt (a decision that changed nothing else).
    Due {
        /// The row.
        num: Num,
        /// The new due time.
        due: Due,
    },
    /// Notes that a `renewal.late` notice was raised for this lapse.
    LateNotified {
        /// The row.
        num: Num,
    },
}

/// Whom a failed call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The resource: it counts against nobody.
    Resource,
    /// The row, as far as it is known.
    Row,
    /// The row for certain: it fails while others succeed.
    RowAlone,
}

/// What became of one [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Committed; the row's version is now this.
    Done(Version),
    /// The row had moved on in between (revoked, held, deleted, changed); nothing was changed, and
    /// a token that came with it is accounted for as an orphan.
    Stale,
}

/// A step of a bulk operation on one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Withhold: version up, state held, no token, `wanted` raised; before ACS is called.
    Withhold,
    /// ACS acknowledged the revocation at this instant.
    Revoked {
        /// When the call to ACS ended.
        at: Timestamp,
        /// What follows.
        then: Then,
    },
    /// ACS acknowledged the deletion.
    Deleted {
        /// When the call to ACS ended.
        at: Timestamp,
    },
    /// ACS says that it does not exist or is not ours; see [`Change::Gone`].
    Gone {
        /// For the row's list of attempts.
        attempt: Attempt,
        /// What it said, for people.
        because: String,
    },
    /// The hold ends; the row becomes due.
    Release,
    /// The row becomes due now for this reason.
    Due(DueReason),
}

/// An entry of the audit trail that is being written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: `renewd`, or `uid 1000 (anna)`.
    pub actor: String,
    /// What, such as `revoke` or `hold`.
    pub action: String,
    /// On which identity, if on one.
    pub name: Option<Name>,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// The service's request id.
    pub request_id: Option<String>,
    /// How it ended.
    pub result: String,
}

impl State {
    /// Whether the engine may obtain a token for a row in this state.
    pub fn wants_token(self) -> bool {
        matches!(self, Self::New | Self::Active | Self::Late)
    }
}
