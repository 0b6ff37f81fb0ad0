//! An identity as it is wanted ([`Spec`]) and as it is known ([`Record`]).

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Attempts, Due, IdentityId, Name, ResourceName, Scope, SinkName, SourceName, TokenMeta, Version,
};

/// Who may read an identity's file and fetch its token over the socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(into = "String", from = "String")]
pub enum Reader {
    /// A user by name or decimal uid.
    User(String),
    /// A group by name or decimal gid, written `group:NAME`.
    Group(String),
}

impl From<String> for Reader {
    fn from(text: String) -> Self {
        match text.strip_prefix("group:") {
            Some(group) => Self::Group(group.to_owned()),
            None => Self::User(text),
        }
    }
}

impl From<Reader> for String {
    fn from(reader: Reader) -> Self {
        reader.to_string()
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => f.write_str(name),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// What happens to an identity that its owner (a file, a source) no longer names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnRemoval {
    /// Keep it, withhold its token.
    #[default]
    Hold,
    /// Drop the row and its files; ACS keeps the identity and its tokens live on until they expire.
    Forget,
    /// Revoke its tokens, then hold it.
    Revoke,
}

/// Who declares an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(into = "String", try_from = "String")]
pub enum Origin {
    File,
    /// The command line; kept in the store alone.
    Cli,
    /// A source that others own, written `source:NAME`.
    Source(SourceName),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Cli => f.write_str("cli"),
            Self::Source(name) => write!(f, "source:{name}"),
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.strip_prefix("source:")) {
            ("file", _) => Ok(Self::File),
            ("cli", _) => Ok(Self::Cli),
            (_, Some(name)) => name
                .parse()
                .map(Self::Source)
                .map_err(|e: super::NameError| e.to_string()),
            _ => Err(format!("{text:?} is no origin")),
        }
    }
}

/// What is declared of an identity, whoever declares it. As JSON it stands in the identity's row; equal declarations
/// are equal as text, so that an unchanged one is known without parsing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// What ACS calls it, where that is declared. Left out: created on first run and remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<IdentityId>,
    /// What its tokens may be used for; sorted, without duplicates, never empty.
    pub scopes: Vec<Scope>,
    /// The life asked of ACS, in whole minutes from 1 h to 24 h.
    #[serde(rename = "lifetime_secs", with = "whole_seconds")]
    pub lifetime: Duration,
    /// The share of a token's own life after which it is renewed.
    pub renew_at: f64,
    /// The share of a token's own life by which renewals are spread, early only.
    pub spread: f64,
    /// Free words to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who may read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<Reader>,
    /// Where its tokens go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkName>,
    /// What happens when its owner no longer names it.
    #[serde(default)]
    pub on_removal: OnRemoval,
}

impl Declaration {
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

mod whole_seconds {
    use super::{Deserialize, Duration};

    pub(super) fn serialize<S: serde::Serializer>(
        time: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(time.as_secs())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// An identity as it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Our name of it.
    pub name: Name,
    /// The resource it belongs to.
    pub resource: ResourceName,
    pub declared: Declaration,
    pub origin: Origin,
}

/// Where an identity stands. `late` is never stored: see [`Record::state_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    New,
    /// Has a token, good or doubtful.
    Active,
    /// Has a token that is urgent to renew, or dead.
    Late,
    /// Without a token on purpose.
    Held,
    /// ACS says that it does not exist or is not ours.
    Gone,
    /// Deleted at ACS by command.
    Deleted,
}

impl State {
    /// Those that a row is in; a late one is active.
    pub const STORED: [Self; 5] = [
        Self::New,
        Self::Active,
        Self::Held,
        Self::Gone,
        Self::Deleted,
    ];

    /// The word in documents, listings and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Active => "active",
            Self::Late => "late",
            Self::Held => "held",
            Self::Gone => "gone",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// ACS says of identities of a resource that they are gone, in a way that a person should look at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GoneHeld {
    pub resource: ResourceName,
    pub count: u64,
    pub since: Timestamp,
    pub names: Vec<Name>,
}

/// Identities of a resource that wait for a person's word before they are created: they have no id, and
/// the store had been lost, so that they may exist at ACS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreationsWaiting {
    pub resource: ResourceName,
    pub count: u64,
    pub names: Vec<Name>,
}

/// A row's number in the store; never reused.
pub type Num = i64;

/// An identity as it is known: its row, without the token's secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub num: Num,
    /// As it is wanted.
    pub spec: Spec,
    /// What ACS calls it, once known.
    pub id: Option<IdentityId>,
    /// As stored: never [`State::Late`].
    pub state: State,
    /// Counts every change in what a consumer should hold.
    pub version: Version,
    /// The current token's facts.
    pub token: Option<TokenMeta>,
    /// When the engine should look at it next, and why; `None` for held, gone and deleted ones.
    pub due: Option<Due>,
    /// From when on it is late: the instant at which the renewal becomes urgent.
    pub late_at: Option<Timestamp>,
    /// The last attempts, newest last.
    pub attempts: Attempts,
    /// Failures in a row since the last success, without those that are about the resource.
    pub failures: u32,
    /// Since when it is known to fail by itself, while others succeed.
    pub failing_since: Option<Timestamp>,
    /// When its tokens were last revoked, as ACS acknowledged it.
    pub revoked_at: Option<Timestamp>,
    /// Whether the token was revoked and its successor is still to come.
    pub revoked: bool,
    /// Whether that is known, where it may also be that the standing of the token is unknown.
    pub known_dead: bool,
    /// Whether the token is being minted anew because its access key is in doubt.
    pub doubted: bool,
    /// Whether a `renewal.late` notice was raised for this lapse.
    pub late_notified: bool,
}

impl Record {
    /// The state at an instant by what is stored: urgent to renew, revoked or in doubt is late. How far the
    /// service's clock is from ours is not known here: `schedule::state` says the same with it.
    pub fn state_at(&self, now: Timestamp) -> State {
        let late = self.revoked || self.doubted || self.late_at.is_some_and(|late| now >= late);
        match self.state {
            State::Active if late => State::Late,
            state => state,
        }
    }
}

/// One line of `identities.jsonl`, the map of names and ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdLine {
    pub name: Name,
    pub resource: ResourceName,
    /// What ACS calls it; what the store alone declares may wait for its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<IdentityId>,
    /// When renewd first knew of it.
    pub created_at: Timestamp,
    /// The name is known no more: lines before this one do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// Its declaration, as far as the map keeps it.
    #[serde(flatten)]
    pub kept: Kept,
}

impl IdLine {
    /// A line that gives a name its id.
    pub fn of_id(
        (name, resource): (Name, ResourceName),
        id: IdentityId,
        created_at: Timestamp,
    ) -> Self {
        Self {
            name,
            resource,
            id: Some(id),
            created_at,
            dropped: false,
            kept: Kept::default(),
        }
    }

    /// The whole declaration, where the line has one.
    pub fn spec(&self) -> Option<Spec> {
        let kept = self.kept.clone();
        kept.into_spec(self.name.clone(), self.resource.clone())
    }
}

/// What `identities.jsonl` keeps of a declaration, in the words of an import: all of it where the store
/// alone has it, who makes it where a source does, and nothing where a configuration file does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What its tokens may be used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// The life asked of ACS, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
    /// The share of a token's own life after which it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<f64>,
    /// The share of a token's own life by which renewals are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Free words to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who may read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<Reader>,
    /// Where its tokens go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkName>,
    /// What happens when it is no longer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_removal: Option<OnRemoval>,
}

impl Kept {
    pub fn of(
        origin: Origin,
        declaration: impl FnOnce() -> Result<Declaration, serde_json::Error>,
    ) -> Result<Self, serde_json::Error> {
        Ok(match origin {
            Origin::File => Self::default(),
            Origin::Source(_) => Self {
                origin: Some(origin),
                ..Self::default()
            },
            Origin::Cli => {
                let declaration = declaration()?;
                Self {
                    origin: Some(origin),
                    scopes: Some(declaration.scopes),
                    lifetime_seconds: Some(declaration.lifetime.as_secs()),
                    renew_at: Some(declaration.renew_at),
                    spread: Some(declaration.spread),
                    labels: declaration.labels,
                    readers: declaration.readers,
                    sinks: declaration.sinks,
                    on_removal: Some(declaration.on_removal),
                }
            }
        })
    }

    /// The whole declaration, where it is one.
    pub fn into_spec(self, name: Name, resource: ResourceName) -> Option<Spec> {
        let origin = self.origin.filter(|origin| *origin == Origin::Cli)?;
        let declared = Declaration {
            id: None,
            scopes: self.scopes?,
            lifetime: Duration::from_secs(self.lifetime_seconds?),
            renew_at: self.renew_at?,
            spread: self.spread?,
            labels: self.labels,
            readers: self.readers,
            sinks: self.sinks,
            on_removal: self.on_removal.unwrap_or_default(),
        };
        Some(Spec {
            name,
            resource,
            declared,
            origin,
        })
    }
}
