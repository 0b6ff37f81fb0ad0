//! Notices: lifecycle and operator events in order, never superseded, without a `version`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Name, ResourceName};

/// What a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    /// An identity was created at ACS.
    #[serde(rename = "identity.created")]
    IdentityCreated,
    /// An identity's tokens were revoked.
    #[serde(rename = "identity.revoked")]
    IdentityRevoked,
    /// ACS says that an identity does not exist or is not ours.
    #[serde(rename = "identity.gone")]
    IdentityGone,
    /// A creation's answer was lost: an identity may exist that nobody knows.
    #[serde(rename = "identity.orphaned")]
    IdentityOrphaned,
    /// A renewal is late; once per lapse.
    #[serde(rename = "renewal.late")]
    RenewalLate,
    /// A resource does not answer.
    #[serde(rename = "resource.unreachable")]
    ResourceUnreachable,
    /// It answers again.
    #[serde(rename = "resource.recovered")]
    ResourceRecovered,
    /// Both access keys were refused.
    #[serde(rename = "key.rejected")]
    KeyRejected,
    /// One access key was refused and the other works.
    #[serde(rename = "key.switched")]
    KeySwitched,
    /// The replacement of an access key has begun.
    #[serde(rename = "key.replacing")]
    KeyReplacing,
    /// No consumer holds a token of the old key any more: it may be regenerated.
    #[serde(rename = "key.replaceable")]
    KeyReplaceable,
    /// The replacement is over: the new key works.
    #[serde(rename = "key.replaced")]
    KeyReplaced,
    /// The replacement is over and nothing was replaced: the other key is refused, or it was called off.
    #[serde(rename = "key.kept")]
    KeyKept,
    /// The replacement waits for a person.
    #[serde(rename = "key.stuck")]
    KeyStuck,
    /// A sink was disabled.
    #[serde(rename = "sink.disabled")]
    SinkDisabled,
    /// Identities would have to be created although the id map says that they exist.
    #[serde(rename = "create.refused")]
    CreateRefused,
    /// A source cannot be read, or its list is not taken over; once per lapse.
    #[serde(rename = "source.lapsed")]
    SourceLapsed,
    /// Its list is taken over again.
    #[serde(rename = "source.recovered")]
    SourceRecovered,
    /// The store cannot be written.
    #[serde(rename = "store.unwritable")]
    StoreUnwritable,
    /// The disk of the store is full, and the reserve is being used.
    #[serde(rename = "disk.full")]
    DiskFull,
    /// It has room again.
    #[serde(rename = "disk.recovered")]
    DiskRecovered,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::IdentityCreated,
        Self::IdentityRevoked,
        Self::IdentityGone,
        Self::IdentityOrphaned,
        Self::RenewalLate,
        Self::ResourceUnreachable,
        Self::ResourceRecovered,
        Self::KeyRejected,
        Self::KeySwitched,
        Self::KeyReplacing,
        Self::KeyReplaceable,
        Self::KeyReplaced,
        Self::KeyKept,
        Self::KeyStuck,
        Self::SinkDisabled,
        Self::CreateRefused,
        Self::SourceLapsed,
        Self::SourceRecovered,
        Self::StoreUnwritable,
        Self::DiskFull,
        Self::DiskRecovered,
    ];

    /// The dotted word, as in the event type after `renewd.`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityCreated => "identity.created",
            Self::IdentityRevoked => "identity.revoked",
            Self::IdentityGone => "identity.gone",
            Self::IdentityOrphaned => "identity.orphaned",
            Self::RenewalLate => "renewal.late",
            Self::ResourceUnreachable => "resource.unreachable",
            Self::ResourceRecovered => "resource.recovered",
            Self::KeyRejected => "key.rejected",
            Self::KeySwitched => "key.switched",
            Self::KeyReplacing => "key.replacing",
            Self::KeyReplaceable => "key.replaceable",
            Self::KeyReplaced => "key.replaced",
            Self::KeyKept => "key.kept",
            Self::KeyStuck => "key.stuck",
            Self::SinkDisabled => "sink.disabled",
            Self::CreateRefused => "create.refused",
            Self::SourceLapsed => "source.lapsed",
            Self::SourceRecovered => "source.recovered",
            Self::StoreUnwritable => "store.unwritable",
            Self::DiskFull => "disk.full",
            Self::DiskRecovered => "disk.recovered",
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it was raised.
    pub at: Timestamp,
    /// What it tells.
    pub kind: NoticeKind,
    /// The resource it is about.
    pub resource: Option<ResourceName>,
    /// The identity it is about.
    pub name: Option<Name>,
    /// One sentence for a person: what happened, to what, and what can be done.
    pub message: String,
}
