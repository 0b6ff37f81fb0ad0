//! Why a source cannot be read; each is one sentence for the operator.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a source cannot be read. What was taken over before stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another program holds the database.
    #[error(
        "{} is locked by another program; it is tried again, and what was read before stays", path.display()
    )]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// A database in WAL mode whose -shm file we can neither find nor make.
    #[error(
        "{path} is in WAL mode and {path}-shm cannot be opened ({reason}): it exists while the application has the \
         database open, so start the application, and give renewd's user read and write access to {path}-shm and \
         {path}-wal (setfacl -d -m u:renewd:rw on their folder grants it to new ones), or let the application use \
         `PRAGMA journal_mode = DELETE`",
        path = path.display()
    )]
    Wal {
        /// The database.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// The database does not answer the query.
    #[error("{}: {reason}", path.display())]
    Query {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// A program failed, or said too much.
    #[error("{program}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// How.
        reason: String,
    },
    /// It took too long.
    #[error("{what} took longer than {seconds} s")]
    Slow {
        /// What.
        what: String,
        /// What it was given.
        seconds: u64,
    },
    /// More than a source may list.
    #[error("{what} lists more than {most}; that is more than a source may")]
    Long {
        /// What.
        what: String,
        /// Rows or bytes.
        most: String,
    },
    /// It never stood still.
    #[error("{what} changes while it is read; it is tried again")]
    Changing {
        /// What.
        what: String,
    },
    /// Whoever reads it for us ended.
    #[error("{what} {reason}")]
    Reader {
        /// What was read.
        what: String,
        /// How it ended, and what can be done.
        reason: String,
    },
}
