//! Identities and ids that are taken over in batches.

use serde::{Deserialize, Serialize};

use crate::model::{Entry, Name, RefusedRow};

/// `POST /v1/import`: a line with scopes is an identity to be kept, one without gives an id back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Only say what would be done and what is wrong; nothing is changed.
    #[serde(default)]
    pub check: bool,
    /// The lines, each name once.
    pub lines: Vec<Line>,
}

/// A line and its number in the file that it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// What it says.
    pub entry: Entry,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// New identities.
    pub added: u64,
    /// Identities of which something changed.
    pub changed: u64,
    /// Identities and ids that are as they were.
    pub unchanged: u64,
    /// Identities that got their id back.
    pub adopted: u64,
    /// Ids that are kept for when their names are declared.
    pub remembered: u64,
    /// Identities that are still without an id and wait for a person's word before they are created,
    /// because the store had been lost.
    #[serde(default)]
    pub missing: u64,
    /// Some of them.
    #[serde(default)]
    pub missing_names: Vec<Name>,
    /// Lines that were not taken.
    pub refused: Vec<RefusedRow>,
}

/// `POST /v1/create`: a person's word that identities that wait may be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateMissing {
    /// These.
    #[serde(default)]
    pub names: Vec<Name>,
    /// All that wait.
    #[serde(default)]
    pub all_missing: bool,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreationsAllowed {
    /// How many may be created.
    pub allowed: u64,
    /// Names that do not wait, and why.
    pub refused: Vec<RefusedRow>,
}

impl Imported {
    /// Adds what the next batch did.
    pub fn absorb(&mut self, next: Self) {
        self.added += next.added;
        self.changed += next.changed;
        self.unchanged += next.unchanged;
        self.adopted += next.adopted;
        self.remembered += next.remembered;
        (self.missing, self.missing_names) = (next.missing, next.missing_names);
        self.refused.extend(next.refused);
    }
}
