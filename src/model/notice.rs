//! Notices: lifecycle and operator events in order, never superseded, without a `version`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Name, ResourceName};

/// Each kind with its dotted word.
macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident = $word:literal,)*) => {
        /// What a notice tells.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum NoticeKind {
            $($(#[$about])* #[serde(rename = $word)] $kind,)*
        }

        impl NoticeKind {
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The dotted word, as in the event type after `renewd.`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// An identity was created at ACS.
    IdentityCreated = "identity.created",
    /// One that was gone has a token again.
    IdentityRevived = "identity.revived",
    /// ACS says that too many identities are gone at once: nothing is withdrawn until a person says so.
    GoneHeld = "gone.held",
    /// None waits for that word any more.
    GoneSettled = "gone.settled",
    /// An identity's tokens were revoked.
    IdentityRevoked = "identity.revoked",
    /// ACS says that an identity does not exist or is not ours.
    IdentityGone = "identity.gone",
    /// A creation's answer was lost: an identity may exist that nobody knows.
    IdentityOrphaned = "identity.orphaned",
    /// A revocation or deletion that was ordered failed for good.
    OrderFailed = "order.failed",
    /// What had failed is done after all, or nobody wants it any more.
    OrderDone = "order.done",
    /// An identity fails by itself, while others succeed.
    IdentityFailing = "identity.failing",
    /// It does no more.
    IdentityRecovered = "identity.recovered",
    /// A renewal is late; once per lapse.
    RenewalLate = "renewal.late",
    /// What was late is renewed.
    RenewalRecovered = "renewal.recovered",
    /// A resource does not answer.
    ResourceUnreachable = "resource.unreachable",
    ResourceRecovered = "resource.recovered",
    /// Somebody else uses a resource: ACS answers 429 far below our own pace.
    ResourceContended = "resource.contended",
    /// It answers none any more.
    ResourceUncontended = "resource.uncontended",
    /// Both access keys were refused.
    KeyRejected = "key.rejected",
    /// One access key was refused and the other works.
    KeySwitched = "key.switched",
    /// Whoever gives bearers does not, for a resource without access keys.
    EntraUnreachable = "entra.unreachable",
    /// It refuses to, or ACS refuses the bearer: a person has to change something.
    EntraRefused = "entra.refused",
    /// There is a new bearer again, or ACS takes it.
    EntraRecovered = "entra.recovered",
    /// The replacement of an access key has begun.
    KeyReplacing = "key.replacing",
    /// No consumer holds a token of the old key any more: it may be regenerated.
    KeyReplaceable = "key.replaceable",
    /// The replacement is over: the new key works.
    KeyReplaced = "key.replaced",
    /// The replacement is over and nothing was replaced: the other key is refused, or it was called off.
    KeyKept = "key.kept",
    /// The replacement waits for a person.
    KeyStuck = "key.stuck",
    /// The replacement that waited goes on.
    KeyResumed = "key.resumed",
    /// Tokens may be dead because of the key that minted them; they are minted anew.
    TokensDoubtful = "tokens.doubtful",
    /// The last of them is replaced, or the key is accepted again.
    TokensReplaced = "tokens.replaced",
    /// A sink was disabled.
    SinkDisabled = "sink.disabled",
    /// A sink that was disabled is enabled.
    SinkEnabled = "sink.enabled",
    /// A sink fails for minutes, or many times in a row.
    SinkFailing = "sink.failing",
    SinkRecovered = "sink.recovered",
    /// Identities would have to be created although the id map says that they exist.
    CreateRefused = "create.refused",
    /// Identities may be created again.
    CreateAllowed = "create.allowed",
    /// A certificate ends within 30 days, or within seven.
    CertificateEnding = "certificate.ending",
    /// Another one that lasts is there.
    CertificateRenewed = "certificate.renewed",
    /// A source cannot be read, or its list is not taken over; once per lapse.
    SourceLapsed = "source.lapsed",
    /// Its list is taken over again.
    SourceRecovered = "source.recovered",
    /// The store was older than what was withdrawn since, and was brought up to it.
    StoreBroughtUp = "store.brought_up",
    /// The list of what is withdrawn was missing and was written anew.
    WithdrawalsRewritten = "withdrawals.rewritten",
    /// The second place of what is withdrawn cannot be used.
    WithdrawalsUncopied = "withdrawals.uncopied",
    /// It is whole again.
    WithdrawalsCopied = "withdrawals.copied",
    /// The store cannot be written.
    StoreUnwritable = "store.unwritable",
    /// The disk of the store is full, and the reserve is being used.
    DiskFull = "disk.full",
    /// It has room again.
    DiskRecovered = "disk.recovered",
    /// It can be written again.
    StoreWritable = "store.writable",
    /// The file of the store is gone or another one lies in its place; renewing goes on over the open one.
    StoreMoved = "store.moved",
    /// The file of the store is back.
    StoreFound = "store.found",
    /// The file of the local socket is gone or another one lies in its place.
    SocketMoved = "socket.moved",
    /// The local socket can be reached again.
    SocketFound = "socket.found",
    /// A reload was refused; the configuration from before stays.
    ReloadRefused = "reload.refused",
    /// The configuration is taken over again.
    ReloadAccepted = "reload.accepted",
    /// The clock of this machine is far from that of a resource, or stepped and nothing has confirmed it.
    ClockOff = "clock.off",
    /// It is right again.
    ClockRight = "clock.right",
    /// `identities.jsonl`, the map of names to ids, cannot be written.
    MapUnwritable = "map.unwritable",
    /// It is written again.
    MapWritable = "map.writable",
    /// A machine of a cluster cannot keep its mirror of the database.
    MirrorLost = "mirror.lost",
    /// It keeps one again.
    MirrorKept = "mirror.kept",
    /// Somebody whom the configuration or the map declares is not taken over.
    DeclarationRefused = "declaration.refused",
    /// Everybody who is declared is taken over.
    DeclarationAccepted = "declaration.accepted",
    /// Deliveries of a sink wait for long, although it does not fail.
    SinkBehind = "sink.behind",
    /// None waits for long any more.
    SinkCaughtUp = "sink.caught_up",
    /// Something is withdrawn and has not reached a sink for minutes.
    WithdrawalWaiting = "withdrawal.waiting",
    /// The sink knows of everything that is withdrawn.
    WithdrawalDelivered = "withdrawal.delivered",
    /// Rows of the store cannot be read and are set aside.
    RowsUnreadable = "rows.unreadable",
    /// All of them can be read again.
    RowsReadable = "rows.readable",
    /// The TCP address for health and metrics cannot be listened on.
    ListenRefused = "listen.refused",
    /// It is served again.
    ListenAccepted = "listen.accepted",
    /// A machine of the cluster says nothing any more.
    NodeDead = "node.dead",
    /// It does again, or is forgotten.
    NodeBack = "node.back",
    /// The clock, the network or the configuration of a machine is not as it should be.
    NodeAmiss = "node.amiss",
    /// The clock, the network and the configuration of a machine are right again.
    NodeWell = "node.well",
    /// One access key is refused while the other works.
    KeyRefused = "key.refused",
    /// Every key is accepted.
    KeyAccepted = "key.accepted",
    /// The file of the seal key is gone.
    SealKeyGone = "seal_key.gone",
    /// It lies in its place again.
    SealKeyFound = "seal_key.found",
    /// No run of a job has come to a good end for an hour.
    JobFailed = "job.failed",
    /// A run of it has come to a good end.
    JobSucceeded = "job.succeeded",
    /// Identities of a resource that is not configured: nobody renews their tokens.
    ResourceUnconfigured = "resource.unconfigured",
    /// It is configured again, or they are gone.
    ResourceConfigured = "resource.configured",
}

/// What begins, and what ends it under the same key; everything else does not end.
const ENDED_BY: &[(NoticeKind, &[NoticeKind])] = &[
    (
        NoticeKind::OrderFailed,
        &[NoticeKind::IdentityRevoked, NoticeKind::OrderDone],
    ),
    (
        NoticeKind::IdentityGone,
        &[NoticeKind::IdentityRevived, NoticeKind::GoneSettled],
    ),
    (
        NoticeKind::IdentityFailing,
        &[NoticeKind::IdentityRecovered],
    ),
    (NoticeKind::RenewalLate, &[NoticeKind::RenewalRecovered]),
    (
        NoticeKind::ResourceUnreachable,
        &[NoticeKind::ResourceRecovered],
    ),
    (NoticeKind::KeyRejected, &[NoticeKind::ResourceRecovered]),
    (NoticeKind::EntraUnreachable, &[NoticeKind::EntraRecovered]),
    (NoticeKind::EntraRefused, &[NoticeKind::EntraRecovered]),
    (
        NoticeKind::ResourceContended,
        &[NoticeKind::ResourceUncontended],
    ),
    (
        NoticeKind::KeyReplacing,
        &[NoticeKind::KeyReplaced, NoticeKind::KeyKept],
    ),
    (
        NoticeKind::KeyReplaceable,
        &[NoticeKind::KeyReplaced, NoticeKind::KeyKept],
    ),
    (
        NoticeKind::KeyStuck,
        &[
            NoticeKind::KeyResumed,
            NoticeKind::KeyReplaced,
            NoticeKind::KeyKept,
        ],
    ),
    (NoticeKind::TokensDoubtful, &[NoticeKind::TokensReplaced]),
    (NoticeKind::GoneHeld, &[NoticeKind::GoneSettled]),
    (NoticeKind::SinkDisabled, &[NoticeKind::SinkEnabled]),
    (NoticeKind::SinkFailing, &[NoticeKind::SinkRecovered]),
    (NoticeKind::CreateRefused, &[NoticeKind::CreateAllowed]),
    (
        NoticeKind::WithdrawalsUncopied,
        &[NoticeKind::WithdrawalsCopied],
    ),
    (
        NoticeKind::CertificateEnding,
        &[NoticeKind::CertificateRenewed],
    ),
    (NoticeKind::SourceLapsed, &[NoticeKind::SourceRecovered]),
    (NoticeKind::StoreUnwritable, &[NoticeKind::StoreWritable]),
    (NoticeKind::StoreMoved, &[NoticeKind::StoreFound]),
    (NoticeKind::SocketMoved, &[NoticeKind::SocketFound]),
    (NoticeKind::DiskFull, &[NoticeKind::DiskRecovered]),
    (NoticeKind::ReloadRefused, &[NoticeKind::ReloadAccepted]),
    (NoticeKind::ClockOff, &[NoticeKind::ClockRight]),
    (NoticeKind::MapUnwritable, &[NoticeKind::MapWritable]),
    (NoticeKind::MirrorLost, &[NoticeKind::MirrorKept]),
    (
        NoticeKind::DeclarationRefused,
        &[NoticeKind::DeclarationAccepted],
    ),
    (NoticeKind::SinkBehind, &[NoticeKind::SinkCaughtUp]),
    (
        NoticeKind::WithdrawalWaiting,
        &[NoticeKind::WithdrawalDelivered],
    ),
    (NoticeKind::RowsUnreadable, &[NoticeKind::RowsReadable]),
    (NoticeKind::ListenRefused, &[NoticeKind::ListenAccepted]),
    (NoticeKind::NodeDead, &[NoticeKind::NodeBack]),
    (NoticeKind::NodeAmiss, &[NoticeKind::NodeWell]),
    (NoticeKind::KeyRefused, &[NoticeKind::KeyAccepted]),
    (NoticeKind::SealKeyGone, &[NoticeKind::SealKeyFound]),
    (NoticeKind::JobFailed, &[NoticeKind::JobSucceeded]),
    (
        NoticeKind::ResourceUnconfigured,
        &[NoticeKind::ResourceConfigured],
    ),
];

impl NoticeKind {
    /// The kinds that tell of the end of what this one tells of the beginning, under the same key;
    /// none for what cannot end.
    pub fn ended_by(self) -> &'static [Self] {
        let mut begun = ENDED_BY.iter();
        begun
            .find(|(kind, _)| *kind == self)
            .map_or(&[], |(_, ends)| ends)
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
