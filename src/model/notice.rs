//! Notices: lifecycle and operator events in order, never superseded, without a `version`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Name, ResourceName};

/// What a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum NoticeKind {
    /// An identity was created at ACS.
    #[serde(rename = "identity.created")]
    IdentityCreated,
    /// One that was gone has a token again.
    #[serde(rename = "identity.revived")]
    IdentityRevived,
    /// ACS says that too many identities are gone at once: nothing is withdrawn until a person says so.
    #[serde(rename = "gone.held")]
    GoneHeld,
    /// None waits for that word any more.
    #[serde(rename = "gone.settled")]
    GoneSettled,
    /// An identity's tokens were revoked.
    #[serde(rename = "identity.revoked")]
    IdentityRevoked,
    /// ACS says that an identity does not exist or is not ours.
    #[serde(rename = "identity.gone")]
    IdentityGone,
    /// A creation's answer was lost: an identity may exist that nobody knows.
    #[serde(rename = "identity.orphaned")]
    IdentityOrphaned,
    /// A revocation or deletion that was ordered failed for good.
    #[serde(rename = "order.failed")]
    OrderFailed,
    /// What had failed is done after all, or nobody wants it any more.
    #[serde(rename = "order.done")]
    OrderDone,
    /// An identity fails by itself, while others succeed.
    #[serde(rename = "identity.failing")]
    IdentityFailing,
    /// It does no more.
    #[serde(rename = "identity.recovered")]
    IdentityRecovered,
    /// A renewal is late; once per lapse.
    #[serde(rename = "renewal.late")]
    RenewalLate,
    /// What was late is renewed.
    #[serde(rename = "renewal.recovered")]
    RenewalRecovered,
    /// A resource does not answer.
    #[serde(rename = "resource.unreachable")]
    ResourceUnreachable,
    #[serde(rename = "resource.recovered")]
    ResourceRecovered,
    /// Somebody else uses a resource: ACS answers 429 far below our own pace.
    #[serde(rename = "resource.contended")]
    ResourceContended,
    /// It answers none any more.
    #[serde(rename = "resource.uncontended")]
    ResourceUncontended,
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
    /// The replacement that waited goes on.
    #[serde(rename = "key.resumed")]
    KeyResumed,
    /// Tokens may be dead because of the key that minted them; they are minted anew.
    #[serde(rename = "tokens.doubtful")]
    TokensDoubtful,
    /// The last of them is replaced, or the key is accepted again.
    #[serde(rename = "tokens.replaced")]
    TokensReplaced,
    /// A sink was disabled.
    #[serde(rename = "sink.disabled")]
    SinkDisabled,
    /// A sink that was disabled is enabled.
    #[serde(rename = "sink.enabled")]
    SinkEnabled,
    /// A sink fails for minutes, or many times in a row.
    #[serde(rename = "sink.failing")]
    SinkFailing,
    #[serde(rename = "sink.recovered")]
    SinkRecovered,
    /// Identities would have to be created although the id map says that they exist.
    #[serde(rename = "create.refused")]
    CreateRefused,
    /// Identities may be created again.
    #[serde(rename = "create.allowed")]
    CreateAllowed,
    /// A certificate ends within 30 days, or within seven.
    #[serde(rename = "certificate.ending")]
    CertificateEnding,
    /// Another one that lasts is there.
    #[serde(rename = "certificate.renewed")]
    CertificateRenewed,
    /// A source cannot be read, or its list is not taken over; once per lapse.
    #[serde(rename = "source.lapsed")]
    SourceLapsed,
    /// Its list is taken over again.
    #[serde(rename = "source.recovered")]
    SourceRecovered,
    /// The store was older than what was withdrawn since, and was brought up to it.
    #[serde(rename = "store.brought_up")]
    StoreBroughtUp,
    /// The list of what is withdrawn was missing and was written anew.
    #[serde(rename = "withdrawals.rewritten")]
    WithdrawalsRewritten,
    /// The second place of what is withdrawn cannot be used.
    #[serde(rename = "withdrawals.uncopied")]
    WithdrawalsUncopied,
    /// It is whole again.
    #[serde(rename = "withdrawals.copied")]
    WithdrawalsCopied,
    /// The store cannot be written.
    #[serde(rename = "store.unwritable")]
    StoreUnwritable,
    /// The disk of the store is full, and the reserve is being used.
    #[serde(rename = "disk.full")]
    DiskFull,
    /// It has room again.
    #[serde(rename = "disk.recovered")]
    DiskRecovered,
    /// It can be written again.
    #[serde(rename = "store.writable")]
    StoreWritable,
    /// The file of the store is gone or another one lies in its place; renewing goes on over the open one.
    #[serde(rename = "store.moved")]
    StoreMoved,
    /// The file of the store is back.
    #[serde(rename = "store.found")]
    StoreFound,
    /// The file of the local socket is gone or another one lies in its place.
    #[serde(rename = "socket.moved")]
    SocketMoved,
    /// The local socket can be reached again.
    #[serde(rename = "socket.found")]
    SocketFound,
    /// A reload was refused; the configuration from before stays.
    #[serde(rename = "reload.refused")]
    ReloadRefused,
    /// The configuration is taken over again.
    #[serde(rename = "reload.accepted")]
    ReloadAccepted,
}

impl NoticeKind {
    pub const ALL: &[Self] = &[
        Self::IdentityCreated,
        Self::IdentityRevoked,
        Self::IdentityGone,
        Self::IdentityRevived,
        Self::IdentityOrphaned,
        Self::GoneHeld,
        Self::GoneSettled,
        Self::OrderFailed,
        Self::OrderDone,
        Self::IdentityFailing,
        Self::IdentityRecovered,
        Self::RenewalLate,
        Self::RenewalRecovered,
        Self::ResourceUnreachable,
        Self::ResourceRecovered,
        Self::ResourceContended,
        Self::ResourceUncontended,
        Self::KeyRejected,
        Self::KeySwitched,
        Self::KeyReplacing,
        Self::KeyReplaceable,
        Self::KeyReplaced,
        Self::KeyKept,
        Self::KeyStuck,
        Self::KeyResumed,
        Self::TokensDoubtful,
        Self::TokensReplaced,
        Self::SinkDisabled,
        Self::SinkEnabled,
        Self::SinkFailing,
        Self::SinkRecovered,
        Self::CreateRefused,
        Self::CreateAllowed,
        Self::StoreBroughtUp,
        Self::WithdrawalsRewritten,
        Self::WithdrawalsUncopied,
        Self::WithdrawalsCopied,
        Self::CertificateEnding,
        Self::CertificateRenewed,
        Self::SourceLapsed,
        Self::SourceRecovered,
        Self::StoreUnwritable,
        Self::DiskFull,
        Self::DiskRecovered,
        Self::StoreWritable,
        Self::StoreMoved,
        Self::StoreFound,
        Self::SocketMoved,
        Self::SocketFound,
        Self::ReloadRefused,
        Self::ReloadAccepted,
    ];

    /// The dotted word, as in the event type after `renewd.`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityCreated => "identity.created",
            Self::IdentityRevoked => "identity.revoked",
            Self::IdentityGone => "identity.gone",
            Self::IdentityRevived => "identity.revived",
            Self::IdentityOrphaned => "identity.orphaned",
            Self::GoneHeld => "gone.held",
            Self::GoneSettled => "gone.settled",
            Self::OrderFailed => "order.failed",
            Self::OrderDone => "order.done",
            Self::IdentityFailing => "identity.failing",
            Self::IdentityRecovered => "identity.recovered",
            Self::RenewalLate => "renewal.late",
            Self::RenewalRecovered => "renewal.recovered",
            Self::ResourceUnreachable => "resource.unreachable",
            Self::ResourceRecovered => "resource.recovered",
            Self::ResourceContended => "resource.contended",
            Self::ResourceUncontended => "resource.uncontended",
            Self::KeyRejected => "key.rejected",
            Self::KeySwitched => "key.switched",
            Self::KeyReplacing => "key.replacing",
            Self::KeyReplaceable => "key.replaceable",
            Self::KeyReplaced => "key.replaced",
            Self::KeyKept => "key.kept",
            Self::KeyStuck => "key.stuck",
            Self::KeyResumed => "key.resumed",
            Self::TokensDoubtful => "tokens.doubtful",
            Self::TokensReplaced => "tokens.replaced",
            Self::SinkDisabled => "sink.disabled",
            Self::SinkEnabled => "sink.enabled",
            Self::SinkFailing => "sink.failing",
            Self::SinkRecovered => "sink.recovered",
            Self::CreateRefused => "create.refused",
            Self::CreateAllowed => "create.allowed",
            Self::StoreBroughtUp => "store.brought_up",
            Self::WithdrawalsRewritten => "withdrawals.rewritten",
            Self::WithdrawalsUncopied => "withdrawals.uncopied",
            Self::WithdrawalsCopied => "withdrawals.copied",
            Self::CertificateEnding => "certificate.ending",
            Self::CertificateRenewed => "certificate.renewed",
            Self::SourceLapsed => "source.lapsed",
            Self::SourceRecovered => "source.recovered",
            Self::StoreUnwritable => "store.unwritable",
            Self::DiskFull => "disk.full",
            Self::DiskRecovered => "disk.recovered",
            Self::StoreWritable => "store.writable",
            Self::StoreMoved => "store.moved",
            Self::StoreFound => "store.found",
            Self::SocketMoved => "socket.moved",
            Self::SocketFound => "socket.found",
            Self::ReloadRefused => "reload.refused",
            Self::ReloadAccepted => "reload.accepted",
        }
    }
}

impl NoticeKind {
    /// The kinds that tell of the end of what this one tells of the beginning, under the same key;
    /// none for what cannot end.
    pub fn ended_by(self) -> &'static [Self] {
        match self {
            Self::OrderFailed => &[Self::IdentityRevoked, Self::OrderDone],
            Self::IdentityGone => &[Self::IdentityRevived, Self::GoneSettled],
            Self::IdentityFailing => &[Self::IdentityRecovered],
            Self::RenewalLate => &[Self::RenewalRecovered],
            Self::ResourceUnreachable | Self::KeyRejected => &[Self::ResourceRecovered],
            Self::ResourceContended => &[Self::ResourceUncontended],
            Self::KeyReplacing | Self::KeyReplaceable => &[Self::KeyReplaced, Self::KeyKept],
            Self::KeyStuck => &[Self::KeyResumed, Self::KeyReplaced, Self::KeyKept],
            Self::TokensDoubtful => &[Self::TokensReplaced],
            Self::GoneHeld => &[Self::GoneSettled],
            Self::SinkDisabled => &[Self::SinkEnabled],
            Self::SinkFailing => &[Self::SinkRecovered],
            Self::CreateRefused => &[Self::CreateAllowed],
            Self::WithdrawalsUncopied => &[Self::WithdrawalsCopied],
            Self::CertificateEnding => &[Self::CertificateRenewed],
            Self::SourceLapsed => &[Self::SourceRecovered],
            Self::StoreUnwritable => &[Self::StoreWritable],
            Self::StoreMoved => &[Self::StoreFound],
            Self::SocketMoved => &[Self::SocketFound],
            Self::DiskFull => &[Self::DiskRecovered],
            Self::ReloadRefused => &[Self::ReloadAccepted],
            Self::IdentityCreated
            | Self::IdentityRevoked
            | Self::IdentityRevived
            | Self::IdentityOrphaned
            | Self::OrderDone
            | Self::IdentityRecovered
            | Self::RenewalRecovered
            | Self::ResourceRecovered
            | Self::ResourceUncontended
            | Self::KeySwitched
            | Self::KeyReplaced
            | Self::KeyKept
            | Self::KeyResumed
            | Self::TokensReplaced
            | Self::GoneSettled
            | Self::SinkEnabled
            | Self::SinkRecovered
            | Self::CreateAllowed
            | Self::CertificateRenewed
            | Self::SourceRecovered
            | Self::StoreWritable
            | Self::StoreFound
            | Self::DiskRecovered
            | Self::SocketFound
            | Self::StoreBroughtUp
            | Self::WithdrawalsRewritten
            | Self::WithdrawalsCopied
            | Self::ReloadAccepted => &[],
        }
    }
}

impl Notice {
    /// A notice about no resource and nobody, of something that does not end.
    pub fn new(kind: NoticeKind, at: Timestamp, message: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            resource: None,
            name: None,
            key: None,
            message: message.into(),
        }
    }

    /// The same about a resource.
    #[must_use]
    pub fn about(self, resource: &ResourceName) -> Self {
        let resource = Some(resource.clone());
        Self { resource, ..self }
    }

    /// The same about an identity.
    #[must_use]
    pub fn of(self, name: &Name) -> Self {
        let name = Some(name.clone());
        Self { name, ..self }
    }

    /// The same of something that begins or ends under this key.
    #[must_use]
    pub fn keyed(self, key: impl Into<String>) -> Self {
        let key = Some(key.into());
        Self { key, ..self }
    }

    /// The key of a late renewal.
    pub fn late_key(name: &Name) -> String {
        format!("renewal {name}")
    }

    /// The key of an identity that is gone.
    pub fn gone_key(name: &Name) -> String {
        format!("lost {name}")
    }

    /// The key of an order for one identity, by name, or by id where there is no name.
    pub fn order_key(label: &str) -> String {
        format!("order {label}")
    }

    /// The key of a sink that is disabled.
    pub fn disabled_key(sink: &str) -> String {
        format!("disabled {sink}")
    }

    /// The key of an identity that fails by itself.
    pub fn failing_key(name: &Name) -> String {
        format!("identity {name}")
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Notice {
    /// When it was raised.
    pub at: Timestamp,
    pub kind: NoticeKind,
    /// The resource it is about.
    pub resource: Option<ResourceName>,
    /// The identity it is about.
    pub name: Option<Name>,
    /// What it is about, spelled the same when that begins and when it ends, such as
    /// `outage contoso` or `sink crm`; `None` for what cannot end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// One sentence for a person: what happened, to what, and what can be done.
    pub message: String,
}
