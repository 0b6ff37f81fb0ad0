//! The words of access keys: which one, what was said of it, and how far a change of keys is.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BearerView, ResourceName};

/// The names that Azure gives to a resource's two keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// From `connection_string`.
    #[default]
    Primary,
    /// From `secondary_connection_string`.
    Secondary,
}

impl KeyRole {
    /// The word that Azure uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// The other key of the pair.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for KeyRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "secondary" => Ok(Self::Secondary),
            other => Err(format!("{other:?} is neither primary nor secondary")),
        }
    }
}

/// What the service last said of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum KeyStanding {
    Untried,
    Accepted,
    /// It was refused, and not because of a clock.
    Denied,
}

/// One key as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyView {
    /// Which of the two.
    pub role: KeyRole,
    /// A one-way name of the key, which shows nothing of it.
    pub fingerprint: String,
    /// What the service last said of it.
    pub standing: KeyStanding,
}

/// A resource's keys as people see them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyStatus {
    pub in_use: KeyRole,
    /// All of them, the primary first.
    pub keys: Vec<KeyView>,
}

/// Access keys whose tokens may be dead, each with the instant since when, by our clock: keys that are
/// refused, and keys that are no longer configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct DoubtedKeys(BTreeMap<String, Timestamp>);

impl DoubtedKeys {
    /// Since when the tokens of the key of this fingerprint are in doubt, if they are.
    pub fn since(&self, fingerprint: &str) -> Option<Timestamp> {
        self.0.get(fingerprint).copied()
    }
}

impl FromIterator<(String, Timestamp)> for DoubtedKeys {
    fn from_iter<I: IntoIterator<Item = (String, Timestamp)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl<const N: usize> From<[(String, Timestamp); N]> for DoubtedKeys {
    fn from(keys: [(String, Timestamp); N]) -> Self {
        keys.into_iter().collect()
    }
}

/// Why the tokens of a key may be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DoubtReason {
    /// The service refuses it: it was regenerated, or switched off.
    Refused,
    /// It is no longer configured, so nobody knows what became of it.
    Unconfigured,
}

/// A key whose tokens may be dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyDoubt {
    /// A one-way name of the key, which shows nothing of it.
    pub fingerprint: String,
    /// Which of the two it was, where that is known.
    pub role: Option<KeyRole>,
    pub why: DoubtReason,
    pub since: Timestamp,
    /// Whether people were told, and not yet of the end.
    pub told: bool,
    /// Tokens that it minted and that are not replaced yet.
    pub tokens: u64,
    /// When the first of them ends, if they are good after all.
    pub first_end: Option<Timestamp>,
}

impl KeyDoubt {
    /// How many tokens may be dead, and why, in words.
    pub fn told(&self) -> String {
        let (n, key) = (self.tokens, self.key());
        let (s, them) = if n == 1 { ("", "it") } else { ("s", "them") };
        let begins = format!("{n} token{s} may be dead: {key} that minted {them}");
        match self.why {
            DoubtReason::Refused => format!("{begins} is refused since {:.0}", self.since),
            DoubtReason::Unconfigured => format!("{begins} is no longer configured"),
        }
    }

    pub fn key(&self) -> String {
        match self.role {
            Some(role) => format!("the {role} key {}", self.fingerprint),
            None => format!("the access key {}", self.fingerprint),
        }
    }
}

/// No key of a resource works: nothing can be minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NoneWorks {
    pub since: Timestamp,
    /// When the first token ends, if they are good after all.
    pub first_end: Option<Timestamp>,
}

impl NoneWorks {
    /// The same in words.
    pub fn told(&self, resource: &ResourceName) -> String {
        let last = match self.first_end {
            Some(end) => {
                format!("if they are good after all, the first of its tokens ends at {end:.0}")
            }
            None => "none of its tokens is live".to_owned(),
        };
        format!(
            "no access key works since {:.0}, so nothing can be minted; {last}: put a valid connection string in its \
             place, `renewd key set {resource}`; a file is read again every 10 s",
            self.since
        )
    }
}

/// What the part that changes keys publishes: one per resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysView {
    /// When it last made or reaffirmed its decision.
    #[serde(skip)]
    pub decided_at: Option<Timestamp>,
    pub status: KeyStatus,
    /// What Azure calls the resource.
    pub azure_name: String,
    /// Tokens that can be issued in a minute at renewd's own pace.
    pub issues_per_minute: u64,
    /// Keys whose tokens may be dead.
    pub doubts: Vec<KeyDoubt>,
    /// Whether no key works.
    pub none_works: Option<NoneWorks>,
}

/// What calls a resource, as whoever leads last noted it for the other machines of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedKeys {
    pub keys: KeysView,
    /// In place of keys.
    pub bearer: Option<BearerView>,
}

/// Why keys are changed, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyWork {
    /// By habit: nobody else has the key. Re-mint, deliver, then regenerate.
    Roll,
    /// Somebody has the key: the same, and until it is regenerated they can use it.
    Leak,
    /// Somebody has the key and must be out now: regenerate at once, re-mint as fast as it goes.
    LeakNow,
}

/// How far a change of keys is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyStage {
    /// The other key is proved with a harmless signed call.
    Checking,
    /// The other key signs; every token that the old one minted is replaced and delivered.
    Reminting,
    /// No consumer holds a token of the old key: it may be regenerated.
    Regenerate,
    /// The old key is refused; its successor is awaited.
    Replace,
    Done,
    /// The other key is refused, so nothing was changed.
    Refused,
    /// Somebody called it off.
    Cancelled,
}

impl KeyStage {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Refused | Self::Cancelled)
    }
}

/// A change of keys, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyChange {
    pub id: i64,
    pub resource: ResourceName,
    /// Why, and in which order.
    pub work: KeyWork,
    /// Which key is replaced.
    pub role: KeyRole,
    /// The fingerprint of the key that is replaced.
    pub old_key: String,
    pub actor: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// How far it is.
    pub stage: KeyStage,
    /// What holds it up, in a sentence.
    pub trouble: Option<String>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// From when on no consumer held a token of the old key.
    pub reminted_at: Option<Timestamp>,
    /// When the old key was last seen to be accepted.
    pub accepted_at: Option<Timestamp>,
    /// When the old key was first seen to be refused: whoever else had it is out.
    pub refused_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Tokens of the old key that are still to be replaced.
    pub pending: u64,
    /// Replaced, and not yet with every consumer.
    pub issued: u64,
    /// Replaced, and with every consumer.
    pub delivered: u64,
    /// Those that needed no replacement after all: held, gone, deleted, ended by themselves.
    pub over: u64,
    /// Consumers that still hold a live token of the old key, by sink, as far as is known.
    #[serde(default)]
    pub still_held: std::collections::BTreeMap<super::SinkAt, u64>,
}

impl KeyChange {
    /// From when on tokens of the old key may have been dead: it was seen to be accepted until then, and
    /// refused later. Before it was seen at all, since the beginning.
    pub fn dead_from(&self) -> Option<Timestamp> {
        self.refused_at
            .and(self.accepted_at.or(Some(self.started_at)))
    }

    /// For how long whoever got its new token at `delivered_at` was without a live one, by evidence.
    pub fn gap(&self, delivered_at: Timestamp) -> Option<Gap> {
        let (from, refused) = (self.dead_from()?, self.refused_at?);
        let ms = |since: Timestamp| {
            u64::try_from(delivered_at.duration_since(since).as_millis()).unwrap_or(0)
        };
        Some(Gap {
            least_ms: ms(refused),
            most_ms: ms(from),
        })
    }
}

/// How long a consumer was without a live token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gap {
    pub least_ms: u64,
    /// At most; 0: certainly at no time.
    pub most_ms: u64,
}

/// One identity of a change of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyItem {
    pub name: super::Name,
    /// `pending`, `issued`, `delivered`, `over`, or `ended`: its token ended before it was replaced.
    pub state: String,
    /// When its new token was with every consumer.
    pub delivered_at: Option<Timestamp>,
    /// For how long it had no live, delivered token, at most; in milliseconds.
    pub gap_ms: Option<u64>,
    /// The same, at least: 0 beside a `gap_ms` above 0 means that it is not known whether there was one.
    #[serde(default)]
    pub gap_least_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + secs).unwrap()
    }

    fn change(accepted: Option<i64>, refused: Option<i64>) -> KeyChange {
        KeyChange {
            id: 1,
            resource: "contoso".parse().unwrap(),
            work: KeyWork::Roll,
            role: KeyRole::Primary,
            old_key: "aa".to_owned(),
            actor: "ops".to_owned(),
            reason: None,
            stage: KeyStage::Reminting,
            trouble: None,
            started_at: at(0),
            reminted_at: None,
            accepted_at: accepted.map(at),
            refused_at: refused.map(at),
            ended_at: None,
            pending: 0,
            issued: 0,
            delivered: 0,
            over: 0,
            still_held: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_gap_lies_between_what_was_seen() {
        let gap = |least_ms, most_ms| Some(Gap { least_ms, most_ms });
        let seen = change(Some(10), Some(12));
        assert_eq!(
            seen.gap(at(9)),
            gap(0, 0),
            "replaced while the old one lived"
        );
        assert_eq!(seen.gap(at(11)), gap(0, 1000), "not known");
        assert_eq!(seen.gap(at(15)), gap(3000, 5000));
        let never = change(None, Some(12));
        assert_eq!(
            never.gap(at(11)),
            gap(0, 11_000),
            "it may have died at once"
        );
        assert_eq!(change(Some(10), None).gap(at(15)), None, "it lives");
    }
}
