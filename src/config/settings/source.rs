//! What is said of sources: identities that others own.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::Renewal;
use crate::model::{OnRemoval, Reader, ResourceName, Scope, SinkName, SourceName};

/// One `[[source.*]]`: identities that others own.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    /// Its name.
    pub name: SourceName,
    /// What is read, and how.
    pub kind: SourceKind,
    /// Between two looks.
    pub every: Duration,
    /// The resource of its identities.
    pub resource: ResourceName,
    /// The scopes of a row that says none; empty where every row must say its own.
    pub scopes: Vec<Scope>,
    /// When tokens are renewed.
    pub renewal: Renewal,
    /// Labels of every row; a row's own win.
    pub labels: BTreeMap<String, String>,
    /// Readers of a row that says none.
    pub readers: Vec<Reader>,
    /// Where the tokens go.
    pub sinks: Vec<SinkName>,
    /// What happens to an identity that is no longer listed.
    pub on_removal: OnRemoval,
    /// How many may go at once without a person's word.
    pub max_removal: MaxRemoval,
    /// The scopes that a row may ask for; `None` for any.
    pub max_scopes: Option<Vec<Scope>>,
    /// The readers that a row may ask for; `None` for any.
    pub max_readers: Option<Vec<Reader>>,
    /// The longest lifetime that a row may ask for; `None` for any.
    pub max_lifetime: Option<Duration>,
    /// Whether a row may bring an id along that nobody here holds; `None` where it is not said.
    pub adopt_ids: Option<bool>,
}

/// What a source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// `[[source.sqlite]]`: a query on a database that another program owns.
    Sqlite {
        /// The database.
        path: PathBuf,
        /// One `SELECT`.
        query: String,
    },
    /// `[[source.exec]]`: a program that prints JSON lines.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long it may run.
        timeout: Duration,
    },
    /// `[[source.file]]`: a file of JSON lines.
    File {
        /// The file.
        path: PathBuf,
    },
}

impl SourceKind {
    /// The word in the section's header.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Exec { .. } => "exec",
            Self::File { .. } => "file",
        }
    }
}

/// `max_removal =`: more than both may not go without a person's word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxRemoval {
    /// The share of the identities that the source listed before.
    pub share: f64,
    /// So many in any case.
    pub count: u64,
}
