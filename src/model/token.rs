//! Tokens, versions, due times and attempts; the token document, the same object in JSON files, webhook `data` and
//! the socket API; and what the engine and the campaigns decided, as data that the store commits.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{IdentityId, Name, Num, ResourceName, Scope, Secret, State};

/// Counts every change in what a consumer should hold: `max(previous + 1, unix seconds)`, so it
/// never goes backwards, not even after a restore from a backup.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version that follows `self` when a change is committed at `now`.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        Self((self.0 + 1).max(u64::try_from(now.as_second()).unwrap_or(0)))
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
    pub meta: TokenMeta,
}

/// What is known of a token besides its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenMeta {
    /// When its call began, by the service's clock: ours, and how far ahead of it that one is.
    pub issued_at: Timestamp,
    /// When it ends, as ACS gave it.
    pub expires_at: Timestamp,
    /// The fingerprint of the access key that minted it.
    pub minted_by: String,
}

impl TokenMeta {
    /// What is left of it, zero once dead.
    pub fn left(&self, now: Timestamp) -> Duration {
        self.expires_at
            .duration_since(now)
            .try_into()
            .unwrap_or_default()
    }
}

/// Why an identity is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Due {
    pub at: Timestamp,
    pub why: DueReason,
}

/// How pressing a renewal is. Three tiers, so that a bug in one rule cannot let a token expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.0.iter()
    }

    pub fn last(&self) -> Option<&Attempt> {
        self.0.last()
    }
}

/// What a consumer should hold, at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenDocument {
    /// Our name of the identity.
    pub name: Name,
    pub resource: ResourceName,
    /// What ACS calls it.
    pub id: Option<IdentityId>,
    /// `active`, `held`, `gone` or `deleted`.
    pub state: State,
    /// The secret itself; `None` where it is withheld.
    pub token: Option<Secret>,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// When it will be renewed.
    pub renews_at: Option<Timestamp>,
    pub version: Version,
    /// What this version means; not part of the document, but of the event type around it.
    pub kind: Kind,
}

#[derive(Serialize)]
struct Wire<'a> {
    name: &'a Name,
    resource: &'a ResourceName,
    id: Option<&'a IdentityId>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Option<&'a str>>,
    scopes: &'a [Scope],
    issued_at: Option<String>,
    expires_at: Option<String>,
    renews_at: Option<String>,
    version: Version,
}

impl TokenDocument {
    /// The document as JSON, with the token (or `"token":null` where it is withheld).
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        self.encode(Some(self.token.as_ref().map(Secret::expose)))
    }

    /// The document as JSON without a `token` member: `include = "reference"`.
    pub fn to_json_reference(&self) -> Zeroizing<Vec<u8>> {
        self.encode(None)
    }

    fn encode(&self, token: Option<Option<&str>>) -> Zeroizing<Vec<u8>> {
        let wire = Wire {
            name: &self.name,
            resource: &self.resource,
            id: self.id.as_ref(),
            state: self.state,
            token,
            scopes: &self.scopes,
            issued_at: self.issued_at.map(whole_seconds),
            expires_at: self.expires_at.map(whole_seconds),
            renews_at: self.renews_at.map(whole_seconds),
            version: self.version,
        };
        // Room for any token up front, so that growing the buffer leaves no copy of it behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(
            1024 + token.flatten().map_or(0, |t| 2 * t.len()),
        ));
        #[expect(
            clippy::expect_used,
            reason = "plain strings and numbers always serialise into memory"
        )]
        serde_json::to_writer(&mut *bytes, &wire).expect("a token document serialises");
        bytes
    }
}

/// RFC 3339 in UTC with whole seconds, rounded down: a consumer never believes a token to live
/// longer than it does.
pub fn whole_seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// What the newest version means to a consumer; the last word of the event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
        num: Num,
        /// When the call to ACS began.
        call_began: Timestamp,
        /// The id, where the call also created the identity.
        id: Option<IdentityId>,
        token: Token,
        due: Due,
        /// From when on the identity counts as late.
        late_at: Timestamp,
        /// For the row's list of attempts.
        attempt: Attempt,
    },
    /// An identity was made, but the token that came with it could not be read or kept: the id is
    /// committed alone, so that no second person is made, and the token is issued next.
    Adopted {
        num: Num,
        /// What ACS calls it.
        id: IdentityId,
        /// For the row's list of attempts.
        attempt: Attempt,
    },
    /// A call failed; the row becomes due again.
    Failed {
        num: Num,
        /// For the row's list of attempts.
        attempt: Attempt,
        due: Due,
        /// Whom the failure is about.
        blame: Blame,
    },
    /// Takes the last failure back: it was the beginning of what is now known to be about the resource.
    /// The row is due again at once, or as soon as a second after that failure.
    Excused { num: Num },
    /// ACS says that the identity does not exist or is not ours. Once it has said so twice, and not of
    /// too many at once: withdrawn, kept, shown, never re-created by itself.
    Gone {
        num: Num,
        /// For the row's list of attempts.
        attempt: Attempt,
        /// What it said, for people.
        because: String,
    },
    /// Moves the due time without an attempt (a decision that changed nothing else).
    Due {
        num: Num,
        /// The new due time.
        due: Due,
    },
    /// Notes that a `renewal.late` notice was raised for this lapse.
    LateNotified { num: Num },
}

impl Change {
    /// Whether it may withdraw what a consumer holds.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditEntry {
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
    pub result: String,
}

impl State {
    /// Whether the engine may obtain a token for a row in this state.
    pub fn wants_token(self) -> bool {
        matches!(self, Self::New | Self::Active | Self::Late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_down() {
        let at: Timestamp = "2026-11-22T17:00:00.999Z".parse().unwrap();
        assert_eq!(whole_seconds(at), "2026-11-22T17:00:00Z");
    }
}
