//! Whether the store that was found may be used at all.

use serde::{Deserialize, Serialize};

/// What a start found out about its store. While it is not [`StoreStanding::Own`] nothing is issued,
/// delivered, revoked or served: the daemon only says why, and waits for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "standing")]
pub enum StoreStanding {
    /// It is this daemon's own, and it knows what was withdrawn.
    #[default]
    Own,
    /// It may not know what was withdrawn; until `renewd store accept`.
    Restored {
        /// Why that is not known.
        why: String,
    },
    /// It belongs to another machine; until `renewd store adopt`.
    Passive {
        /// How that was found out.
        why: String,
    },
}

impl StoreStanding {
    /// Whether tokens may be issued, delivered and served from it.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Own)
    }

    /// Why it may not be used, and what a person can do; `None` where it may.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Own => None,
            Self::Restored { why } => Some(format!(
                "nothing is issued, delivered or served, because it is not known what was withdrawn: {why}; \
                 once everything that was revoked or held since is looked after, `renewd store accept` goes on \
                 and renews every token"
            )),
            Self::Passive { why } => Some(format!(
                "nothing is issued, delivered or served, because the store belongs to another machine: {why}; \
                 where this machine takes its place, `renewd store adopt` goes on"
            )),
        }
    }

    /// In two or three words.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Restored { .. } => "restored",
            Self::Passive { .. } => "passive",
        }
    }
}
