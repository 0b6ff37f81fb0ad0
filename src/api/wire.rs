//! The JSON that the local socket speaks, for the server and the CLI's client alike. Fields are
//! only ever added.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    Attempts, ClusterName, ClusterStanding, Consumers, Counts, DatabaseAway, DispatcherView, Due,
    IdentityId, Name, NodeName, NodeRow, Notice, OnRemoval, Origin, Reader, Record, RenewerView,
    ResourceName, Scope, Served, SinkAt, SinkName, State, Tokens, Version, whole_seconds,
};

use crate::{
    schedule::{Grounds, Standing, standing, state},
    store::Holder,
};

/// The header that every request over the socket carries, with any value.
pub const CLIENT_HEADER: &str = "x-renewd-client";

/// The version of the forms of all JSON documents, of this socket and of the command line: it is raised when a key
/// goes away or changes its meaning. New keys may come at any time.
pub const SCHEMA_VERSION: u32 = 1;

/// How a JSON document is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// On one line, for programs alone.
    Short,
    /// On many lines, for people too.
    Long,
}

/// A document as JSON: its `schema_version` first, where it is an object.
///
/// # Errors
/// When the document cannot be JSON.
pub fn json_of(document: &impl Serialize, form: Layout) -> serde_json::Result<String> {
    let (text, separator) = match form {
        Layout::Short => (serde_json::to_string(document)?, ""),
        Layout::Long => (serde_json::to_string_pretty(document)?, "\n  "),
    };
    let space = if form == Layout::Long { " " } else { "" };
    let first = format!("{{{separator}\"schema_version\":{space}{SCHEMA_VERSION}");
    Ok(match text.strip_prefix('{') {
        Some("}") => format!("{first}{}}}", separator.trim_end_matches(' ')),
        Some(rest) => format!("{first},{rest}"),
        None => text,
    })
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// When this was true.
    pub at: Timestamp,
    pub version: String,
    /// The daemon's name in events.
    pub instance: String,
    /// When its loops were started.
    pub since: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// What needs a person, the worst first.
    pub needs: Vec<Need>,
    /// What a start took over from `identities.jsonl` and `withdrawn.jsonl` because the store did not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought_up: Option<String>,
    /// The database that machines share, while it does not answer this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseAway>,
    /// How the tokens of each resource stand; left out where that cannot be known.
    #[serde(default)]
    pub tokens: BTreeMap<ResourceName, Tokens>,
    /// Who holds a live token, by the version that was delivered last; `None` where that cannot be
    /// known.
    #[serde(default)]
    pub consumers: Option<Served>,
    /// The store's counts; `None` where they cannot be read.
    #[serde(default)]
    pub counts: Option<Counts>,
    /// The earliest end of a current token, by resource.
    pub earliest_expiry: BTreeMap<ResourceName, Timestamp>,
    /// What each renewer published.
    #[serde(rename = "lanes")]
    pub renewers: BTreeMap<ResourceName, RenewerView>,
    /// What each dispatcher published.
    #[serde(rename = "couriers")]
    pub dispatchers: BTreeMap<SinkAt, DispatcherView>,
    /// Sinks that other machines of the cluster serve, as far as the store knows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<SinkAt, DispatcherView>,
    /// Consumers that said that they use a version which is not the newest any more; some of them,
    /// where there are many.
    #[serde(default)]
    pub behind: Vec<HolderRow>,
    /// When the last backup was made that reached its place; none is known where it is missing.
    #[serde(default)]
    pub last_backup: Option<Timestamp>,
    /// The machines that share the store, where others do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Nodes>,
    /// How far the wall clock has stepped, in milliseconds, while that is unconfirmed.
    pub held_step_ms: Option<i64>,
}

/// What is said where no backup is known, of a store that could be read or not, and that machines share or not.
pub fn no_backup(is_read: bool, is_shared: bool) -> &'static str {
    match (is_shared, is_read) {
        (true, _) => "backups are those of its database",
        (false, true) => "no backup was made yet (renewd store backup)",
        (false, false) => "when the last backup was made is not known",
    }
}

/// `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Nodes {
    /// When this was true.
    pub at: Timestamp,
    /// What the machines have in common.
    pub cluster: ClusterName,
    /// The machine that answers.
    pub node: NodeName,
    /// Each leader has a higher one than the one before.
    pub epoch: Option<u64>,
    /// Who leads, as far as is known.
    pub leader: Option<NodeName>,
    /// Why this machine has no valid heartbeat in the database; then the rest is as it knew it last.
    pub trouble: Option<String>,
    /// In the order of their names.
    pub nodes: Vec<NodeRow>,
}

impl Nodes {
    /// What this machine knows by itself.
    pub(super) fn of(standing: ClusterStanding, at: Timestamp) -> Self {
        Self {
            at,
            epoch: standing.epoch(),
            leader: standing.leader().cloned(),
            trouble: standing.trouble,
            nodes: standing.nodes,
            cluster: standing.cluster,
            node: standing.node,
        }
    }
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Need {
    /// What kind of thing.
    pub kind: NeedKind,
    /// What it is about: a resource, a sink, or the daemon.
    pub subject: String,
    /// One sentence: what is wrong and what can be done.
    pub message: String,
    /// The cause in the words of whoever noticed it, such as the last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Some of the identities concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Name>,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The command to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Kinds of [`Need`], the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NeedKind {
    /// The store may not be used: nothing is issued, delivered or served.
    StoreUnusable,
    /// The file of the store is gone, or another one lies in its place.
    StoreMoved,
    /// The file of the seal key is gone: after the next start no stored token can be opened.
    SealKeyGone,
    /// The store cannot be read, or not all of it: what it knows is not known here.
    StoreUnreadable,
    /// The database is away: what this node knew is served, and nothing is renewed or changed over it.
    DatabaseAway,
    /// A revocation failed for good.
    RevocationFailed,
    /// No access key works: nothing can be minted.
    NoKey,
    /// Entra ID gives no bearer before a person changes something, or ACS does not take it.
    EntraRefused,
    /// Nobody leads the machines that share a store, or this one does not reach the database.
    NoLeader,
    /// Consumers hold no live token.
    NoLiveToken,
    /// Tokens may be dead because of the key that minted them.
    Doubtful,
    /// ACS says of too many identities at once that they are gone.
    GoneHeld,
    /// A deletion failed for good.
    OrderFailed,
    /// Something is withdrawn and has not reached a sink: its consumers may still hold a token.
    WithdrawalWaits,
    /// Tokens are late or dead.
    Late,
    /// Identities of a resource that is not configured: nobody renews their tokens.
    Unconfigured,
    /// Identities fail by themselves, while others succeed.
    Failing,
    /// Somebody ordered something that is not carried out yet.
    OrderWaits,
    /// Nothing can be obtained: the store cannot be written.
    Blocked,
    /// The disk of the store is full.
    DiskFull,
    /// Identities without an id are not created.
    CreationRefused,
    /// Identities without an id wait for a person's word, because the store had been lost.
    CreationsWait,
    /// An operation is held back because of a failure, such as refused keys.
    Held,
    /// A resource does not answer.
    Outage,
    /// Entra ID does not answer.
    EntraUnreachable,
    /// ACS says that identities do not exist.
    Gone,
    /// Rows of the store cannot be read and are set aside.
    Unreadable,
    /// A sink is disabled.
    SinkDisabled,
    SinkFailing,
    /// Deliveries of a sink wait for long.
    SinkBehind,
    /// Somebody else uses a resource: ACS answers 429 far below our own pace.
    Contention,
    /// One access key is refused, and the other works: nothing is left if that is refused as well.
    KeyRefused,
    /// The replacement of an access key goes on, or waits for a person.
    KeyChange,
    /// The last reload was refused: another configuration is in force than lies on the disk.
    ReloadRefused,
    /// Somebody whom the configuration declares is not taken over.
    NotTakenOver,
    /// The file of the local socket is gone, or another one lies in its place.
    SocketMoved,
    /// The second place of what was withdrawn cannot be used.
    WithdrawnCopy,
    /// `identities.jsonl`, the map of names to ids, cannot be written.
    MapUnwritable,
    /// This machine of a cluster keeps no mirror of the database: while that is away, nothing can be served here.
    NoMirror,
    /// A certificate ends within a week, or has ended, or cannot be read.
    CertificateEndsSoon,
    /// A certificate ends within 30 days.
    CertificateEnds,
    /// A source's list is not taken over.
    SourceLapsed,
    /// No run of a job has come to a good end for an hour.
    JobFailed,
    /// A machine of the cluster says nothing any more.
    NodeDead,
    /// The clock, the network or the configuration of a machine is not as it should be.
    NodeAmiss,
    /// The wall clock stepped and nothing has confirmed it.
    Clock,
    /// The TCP address for health and metrics cannot be listened on.
    Unbound,
    /// A loop does not decide any more.
    Stuck,
    /// Identities or tokens may exist at ACS without a record.
    Orphans,
}

impl NeedKind {
    /// Every kind, the worst first.
    pub const ALL: [Self; 49] = [
        Self::StoreUnusable,
        Self::StoreMoved,
        Self::SealKeyGone,
        Self::StoreUnreadable,
        Self::DatabaseAway,
        Self::RevocationFailed,
        Self::NoKey,
        Self::EntraRefused,
        Self::NoLeader,
        Self::NoLiveToken,
        Self::Doubtful,
        Self::GoneHeld,
        Self::OrderFailed,
        Self::WithdrawalWaits,
        Self::Late,
        Self::Unconfigured,
        Self::Failing,
        Self::OrderWaits,
        Self::Blocked,
        Self::DiskFull,
        Self::CreationRefused,
        Self::CreationsWait,
        Self::Held,
        Self::Outage,
        Self::EntraUnreachable,
        Self::Gone,
        Self::Unreadable,
        Self::SinkDisabled,
        Self::SinkFailing,
        Self::SinkBehind,
        Self::Contention,
        Self::KeyRefused,
        Self::KeyChange,
        Self::ReloadRefused,
        Self::NotTakenOver,
        Self::SocketMoved,
        Self::WithdrawnCopy,
        Self::MapUnwritable,
        Self::NoMirror,
        Self::CertificateEndsSoon,
        Self::CertificateEnds,
        Self::SourceLapsed,
        Self::JobFailed,
        Self::NodeDead,
        Self::NodeAmiss,
        Self::Clock,
        Self::Unbound,
        Self::Stuck,
        Self::Orphans,
    ];

    /// Whether something does not work; otherwise a person should look at it in time.
    pub fn is_grave(self) -> bool {
        !matches!(
            self,
            Self::Gone
                | Self::Failing
                | Self::OrderWaits
                | Self::SinkDisabled
                | Self::SinkFailing
                | Self::SinkBehind
                | Self::Contention
                | Self::KeyRefused
                | Self::KeyChange
                | Self::WithdrawnCopy
                | Self::MapUnwritable
                | Self::NoMirror
                | Self::CertificateEndsSoon
                | Self::CertificateEnds
                | Self::JobFailed
                | Self::NodeDead
                | Self::NodeAmiss
                | Self::Clock
                | Self::Orphans
        )
    }

    /// The word in JSON and in labels.
    pub fn as_word(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        }
    }

    /// Whether it stands before everything else that is said.
    pub fn is_first(self) -> bool {
        matches!(
            self,
            Self::StoreUnusable | Self::StoreMoved | Self::RevocationFailed
        )
    }
}

/// One identity as listings show it; never its token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Identity {
    /// Our name of it.
    pub name: Name,
    pub resource: ResourceName,
    /// What ACS calls it, once known.
    pub id: Option<IdentityId>,
    /// Where it stands now.
    pub state: State,
    /// How its token stands: `good`, `doubtful`, `dead` or `none`.
    #[serde(default)]
    pub standing: String,
    /// The version that its consumers should hold.
    pub version: Version,
    /// What its tokens may be used for.
    pub scopes: Vec<Scope>,
    /// The life asked of ACS, in seconds.
    pub lifetime_seconds: u64,
    /// Free words to select by.
    pub labels: BTreeMap<String, String>,
    /// Who may read it.
    pub readers: Vec<Reader>,
    /// Where its tokens go.
    pub sinks: Vec<SinkName>,
    /// What happens when its owner no longer names it.
    pub on_removal: OnRemoval,
    pub origin: Origin,
    /// When the current token was issued.
    pub issued_at: Option<String>,
    pub expires_at: Option<String>,
    /// When the engine looks at it next, and why.
    pub due: Option<Due>,
    /// Failures in a row.
    pub failures: u32,
    /// The last attempts, newest last.
    pub attempts: Attempts,
    /// When its tokens were last revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Identity {
    /// The same while no daemon runs, so that nothing is known of the service's clock and of the keys.
    pub fn offline(record: &Record, now: Timestamp) -> Self {
        let standing = match standing(record, &Grounds::default(), now) {
            Standing::Good { .. } if record.doubted => "doubtful",
            stands => stands.as_str(),
        };
        Self {
            state: record.state_at(now),
            standing: standing.to_owned(),
            ..Self::of(record, &Grounds::default(), now)
        }
    }

    /// What a person may see of a row at an instant.
    pub fn of(record: &Record, grounds: &Grounds, now: Timestamp) -> Self {
        let spec = record.spec.clone();
        let time = |at: Option<Timestamp>| at.map(whole_seconds);
        Self {
            state: state(record, grounds, now),
            standing: standing(record, grounds, now).as_str().to_owned(),
            id: record.id.clone(),
            version: record.version,
            lifetime_seconds: spec.declared.lifetime.as_secs(),
            issued_at: time(record.token.as_ref().map(|token| token.issued_at)),
            expires_at: time(record.token.as_ref().map(|token| token.expires_at)),
            due: record.due,
            failures: record.failures,
            attempts: record.attempts.clone(),
            revoked_at: record.revoked_at,
            name: spec.name,
            resource: spec.resource,
            scopes: spec.declared.scopes,
            labels: spec.declared.labels,
            readers: spec.declared.readers,
            sinks: spec.declared.sinks,
            on_removal: spec.declared.on_removal,
            origin: spec.origin,
        }
    }
}

/// Part of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PageOf{T}"))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to ask for with `after=` to get the next ones; `None` at the end.
    pub next: Option<String>,
}

/// `POST /v1/identities`: what is left out takes the defaults of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewIdentity {
    /// Our name of it.
    pub name: Name,
    /// Its resource; may be left out where there is one.
    #[serde(default)]
    pub resource: Option<ResourceName>,
    /// What ACS calls it; left out, it is created.
    #[serde(default)]
    pub id: Option<IdentityId>,
    /// What its tokens may be used for.
    pub scopes: Vec<Scope>,
    /// The life asked of ACS, in seconds: 3600 to 86400, whole minutes.
    #[serde(default)]
    pub lifetime_seconds: Option<u64>,
    /// Free words to select by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Who may read it.
    #[serde(default)]
    pub readers: Vec<Reader>,
    /// Where its tokens go.
    #[serde(default)]
    pub sinks: Vec<SinkName>,
    /// What happens when it is removed.
    #[serde(default)]
    pub on_removal: OnRemoval,
}

/// One row of `GET /v1/notices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NoticeRow {
    /// Rises with each notice.
    pub seq: u64,
    pub notice: Notice,
}

/// What became of a removed identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Removed {
    pub name: Name,
    /// What its `on_removal` made of it.
    pub on_removal: OnRemoval,
}

/// `POST /v1/reload`, when it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// Such as `+2 create, ~1 re-issue, -1 hold`.
    pub effect: String,
    /// Odd things that were found on the way.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What followed from a word about the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StoreUsed {
    /// Identities whose tokens are of unknown standing and are renewed now.
    pub renewing: u64,
    /// What another word is needed for, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<String>,
}

/// `GET /api/status`: what a page may show without knowing who looks. No names of identities (but
/// in `needs`, with `[daemon] page_names`) and no texts of errors, which may quote anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublicStatus {
    /// When this was true.
    pub at: Timestamp,
    pub version: String,
    /// The daemon's name in events.
    pub instance: String,
    /// When its loops were started.
    pub since: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// What needs a person, the worst first.
    pub needs: Vec<Need>,
    /// Who holds a live token; `None` where that cannot be known.
    #[serde(default)]
    pub consumers: Option<Consumers>,
    /// One line for each resource.
    pub resources: Vec<PublicResource>,
    /// One line for each sink.
    pub sinks: Vec<PublicSink>,
}

/// A resource on the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublicResource {
    pub name: ResourceName,
    /// `open`, or what is wrong in a sentence.
    pub health: String,
    /// Identities by state, those with a live token as `active`; empty where the store cannot be read.
    pub identities: BTreeMap<State, u64>,
    /// Identities without a live token that had one; `None` where that is not known.
    #[serde(default)]
    pub dead: Option<u64>,
    /// The earliest end of a current token.
    pub earliest_expiry: Option<Timestamp>,
    pub next_due: Option<Timestamp>,
    pub in_flight: usize,
}

/// A sink on the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublicSink {
    pub name: SinkAt,
    /// Deliveries that wait; `None` where that is not known.
    pub pending: Option<u64>,
    /// Delivered since the start.
    pub delivered: u64,
    /// Failed attempts since the start.
    pub failed: u64,
    /// What is wrong, if anything is: whether it is disabled or failing, without the error's text.
    pub trouble: Option<String>,
}

/// One row of `GET /v1/holders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HolderRow {
    /// The consumer and its version.
    #[serde(flatten)]
    pub holder: Holder,
    /// The name of its user.
    pub user: String,
}
