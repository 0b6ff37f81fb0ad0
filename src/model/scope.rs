//! What a token may be used for.

use std::{fmt, str::FromStr};

/// One ACS token scope. Source: ACS REST 2023-10-01, `CommunicationTokenScope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Full chat.
    Chat,
    /// Chat without creating, updating or deleting threads.
    ChatJoin,
    /// As `ChatJoin`, also without adding or removing participants.
    ChatJoinLimited,
    /// Start and join calls.
    Voip,
    /// Join calls only.
    VoipJoin,
}

impl Scope {
    /// Every scope, in the order in which they are written out.
    pub const ALL: [Self; 5] = [
        Self::Chat,
        Self::ChatJoin,
        Self::ChatJoinLimited,
        Self::Voip,
        Self::VoipJoin,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::ChatJoin => "chat.join",
            Self::ChatJoinLimited => "chat.join.limited",
            Self::Voip => "voip",
            Self::VoipJoin => "voip.join",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            format!("{text:?} is not a scope; known are chat, chat.join, chat.join.limited, voip, voip.join")
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
