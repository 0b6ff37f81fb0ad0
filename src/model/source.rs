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
    /// Why its list is not taken over at the moment; what was taken before stays.
    pub lapse: Option<Lapse>,
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

/// What a source lists, against what was taken over before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Rows that were read.
    pub rows: u64,
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
    /// Whether it was taken over now.
    pub applied: bool,
}
