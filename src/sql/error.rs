//! What a database engine answers instead of rows, and what kind of trouble that is.

use rusqlite::ErrorCode;
use tokio_postgres::error::{Severity, SqlState};

use super::connect::Away;

/// What a statement comes to.
pub(crate) type Result<T> = std::result::Result<T, SqlError>;

/// A statement was not carried out, or a row does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    /// SQLite refuses, or its row cannot be read.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A column holds what we did not write there.
    #[error("column {column}: {why}")]
    Unreadable { column: String, why: String },
    /// PostgreSQL refuses a statement.
    #[error("{message}{}", parenthesised(code))]
    Refused { code: String, message: String },
    /// PostgreSQL did not answer, or is not to be used any more: whatever was not committed is taken back.
    #[error("the connection to the database is lost: {0}")]
    Lost(String),
    /// The answer to a commit did not come: it was carried out, or it was not.
    #[error("it is not known whether the database has it: {0}")]
    Unsure(String),
    /// An earlier statement of the transaction failed, so that it takes no other.
    #[error("an earlier statement of the transaction failed")]
    Aborted,
    /// No host of the database takes writes.
    #[error(transparent)]
    Away(#[from] Away),
}

fn parenthesised(code: &str) -> String {
    match code {
        "" => String::new(),
        code => format!(" ({code})"),
    }
}

/// Kinds of trouble, by who can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// No room is left for the database.
    Full,
    /// Another program holds it.
    Busy,
    /// It is damaged, or no database.
    Corrupt,
    /// It cannot be read or written, or not reached.
    NotWritable,
    /// One row holds what cannot be read; others are not concerned.
    Unreadable,
    /// Anything else, a mistake of ours in most cases.
    Other,
}

impl SqlError {
    /// A column whose content is not what we wrote there.
    pub(crate) fn unreadable(column: &str, why: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            column: column.to_owned(),
            why: why.to_string(),
        }
    }

    /// What kind of trouble it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable { .. } => ErrorKind::Unreadable,
            Self::Sqlite(error) => kind_in_sqlite(error),
            Self::Refused { code, .. } => kind_in_postgres(code),
            Self::Lost(_) | Self::Unsure(_) | Self::Away(_) => ErrorKind::NotWritable,
            Self::Aborted => ErrorKind::Other,
        }
    }

    /// Whether the database is not reached.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Away(_))
    }

    /// Whether the user may not do it, or sees no schema to do it in.
    pub(crate) fn lacks_right(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "42501" || code == "3F000")
    }

    /// Whether it is about what a row holds, so that other rows are not concerned.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.kind() == ErrorKind::Unreadable
    }

    /// What is wrong, without the engine's number of a column and without what stands in it: that could be anything,
    /// and the engine's own words name the column.
    pub(crate) fn plain(&self) -> String {
        use rusqlite::Error as Sqlite;
        match self {
            Self::Sqlite(Sqlite::FromSqlConversionFailure(_, _, inner)) => inner.to_string(),
            Self::Sqlite(Sqlite::InvalidColumnType(_, column, found)) => {
                format!("column {column}: it holds a value of the type {found}")
            }
            Self::Sqlite(Sqlite::IntegralValueOutOfRange(..)) => {
                "a number is out of range".to_owned()
            }
            Self::Sqlite(Sqlite::Utf8Error(..)) => "a text is not UTF-8".to_owned(),
            other => other.to_string(),
        }
    }
}

fn kind_in_sqlite(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::Error as Sqlite;
    if let Sqlite::FromSqlConversionFailure(..)
    | Sqlite::IntegralValueOutOfRange(..)
    | Sqlite::InvalidColumnType(..)
    | Sqlite::Utf8Error(..) = error
    {
        return ErrorKind::Unreadable;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied,
        ) => ErrorKind::NotWritable,
        _ => ErrorKind::Other,
    }
}

/// By the classes of SQLSTATE.
fn kind_in_postgres(code: &str) -> ErrorKind {
    match code {
        "53100" => ErrorKind::Full,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        // A lock, a deadlock, a serialization that did not come about; a statement that took too long; a right.
        "55P03" | "40001" | "40P01" | "57014" | "42501" => ErrorKind::NotWritable,
        code if code.starts_with("53") || code.starts_with("58") => ErrorKind::NotWritable,
        _ => ErrorKind::Other,
    }
}

/// Whether nothing more is to be had of a connection.
pub(super) fn is_dead(code: &SqlState, severity: Option<Severity>) -> bool {
    let ends = matches!(severity, Some(Severity::Fatal | Severity::Panic));
    ends || code.code().starts_with("08")
        || code.code().starts_with("57P")
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
}

/// Whether the same transaction again may do.
pub(super) fn is_worth_again(code: &SqlState) -> bool {
    *code == SqlState::T_R_SERIALIZATION_FAILURE
        || *code == SqlState::T_R_DEADLOCK_DETECTED
        || is_about_statements(code)
}

/// Whether what was prepared does not serve any more: the schema changed.
pub(super) fn is_about_statements(code: &SqlState) -> bool {
    *code == SqlState::FEATURE_NOT_SUPPORTED
}

/// Whether the session knows nothing of what was prepared on it, or something else by that name: it is another one.
pub(super) fn is_of_another_session(code: &SqlState) -> bool {
    *code == SqlState::INVALID_SQL_STATEMENT_NAME || *code == SqlState::DUPLICATE_PSTATEMENT
}
