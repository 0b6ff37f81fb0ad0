//! What a source of identities looks like from outside: how it is, and what its list would change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Name, SourceName};

/// A source as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Its name.
    pub name: SourceName,
    /// `sqlite`, `exec` or `file`; empty for one that is no longer configured.
    pub kind: String,
    /// What is read: a path or a program.
    pub reads: String,
    /// Seconds between two looks.
    pub every_seconds: u64,
    /// When it was looked at last; `None` before the first look of this process.
    pub looked_at: Option<Timestamp>,
    /// When its list was last taken over.
    pub taken_at: Option<Timestamp>,
    /// Identities that it lists, as far as they were taken over.
    pub identities: u64,
    /// Rows of its last list that were refused.
    pub refused: u64,
    /// Why its list is not taken over at the moment, or only in part; what was taken before stays.
    pub lapse: Option<Lapse>,
    /// Since when it is being read; `None` while it is not.
    #[serde(default)]
    pub reading_since: Option<Timestamp>,
    /// What somebody should write into its section, in one sentence.
    #[serde(default)]
    pub advice: Option<String>,
}

/// Why, and since when, a source's list is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapse {
    /// One sentence: what is wrong, and what can be done.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A row that cannot be an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// Its place in the list, from 1: the row of a query, or the line of a file.
    pub number: u64,
    /// Its name, where it has a valid one.
    pub name: Option<Name>,
    /// Why, in one sentence.
    pub reason: String,
}

/// What a source lists, in numbers, against what was taken over before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTotals {
    /// Refused rows.
    pub refused: u64,
    /// Names that are new.
    pub added: u64,
    /// Names whose row changed.
    pub changed: u64,
    /// Names that are no longer listed.
    pub removed: u64,
}

/// What a source lists, against what was taken over before. Of each kind of rows the first thousand are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Rows that were read.
    pub rows: u64,
    /// How many of each there are.
    #[serde(default)]
    pub totals: SourceTotals,
    /// Refused rows.
    pub refused: Vec<RefusedRow>,
    /// Names that are new.
    pub added: Vec<Name>,
    /// Names whose row changed.
    pub changed: Vec<Name>,
    /// Names that are no longer listed.
    pub removed: Vec<Name>,
    /// Names whose row is as it was.
    pub unchanged: u64,
    /// Why the list is not taken over without a person's word.
    pub blocked: Option<String>,
    /// Why nobody is removed without a person's word, although the rest can be taken over.
    #[serde(default)]
    pub doubt: Option<String>,
    /// Whether it was taken over now.
    pub applied: bool,
}
