//! One connection: statements, rows, transactions.

use std::path::Path;

use rusqlite::OpenFlags;

use super::{Params, Result, Row, Session, SqlError, row::Native, sqlite};

/// A connection to a database. One at a time uses it.
pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Box<Session>),
}

impl From<Session> for Connection {
    fn from(session: Session) -> Self {
        Self::Postgres(Box::new(session))
    }
}

impl From<rusqlite::Connection> for Connection {
    fn from(conn: rusqlite::Connection) -> Self {
        Self::Sqlite(conn)
    }
}

impl Connection {
    /// To a file, for the one who writes. `durable` is false only under simulated time, where no power can fail.
    pub(crate) fn writer_of(path: &Path, durable: bool) -> Result<Self> {
        Ok(Self::Sqlite(sqlite::writer(path, durable)?))
    }

    /// To a file that is there, for one change by hand.
    pub(crate) fn to_file(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Self::Sqlite(rusqlite::Connection::open_with_flags(
            path, flags,
        )?))
    }

    /// To a file, for one who only reads.
    pub(crate) fn reader_of(path: &Path) -> Result<Self> {
        Ok(Self::Sqlite(sqlite::reader(path)?))
    }

    /// The connection to a file of ours, for what only files can: copies, checks of damage, the log beside it.
    pub(crate) fn file(&self) -> Option<&rusqlite::Connection> {
        match self {
            Self::Sqlite(conn) => Some(conn),
            Self::Postgres(_) => None,
        }
    }

    /// The server that it is connected to, where it is to one.
    pub(crate) fn server(&self) -> Option<String> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(session) => session.server().map(|server| server.to_string()),
        }
    }

    /// Another connection to the same database, of a server; each learns from the other when that falls silent.
    pub(crate) fn beside(&self, application: String) -> Result<Self> {
        match self {
            Self::Sqlite(_) => Err(SqlError::Lost("the store lies in a file".to_owned())),
            Self::Postgres(session) => Ok(session.beside(application)?.into()),
        }
    }

    /// From now on no other connection can look into the file, and it has no log beside it.
    #[cfg(feature = "simulation")]
    pub(crate) fn keep_to_itself(&self) {
        // Where it is refused, only speed is lost.
        self.file().and_then(|conn| {
            conn.execute_batch("PRAGMA locking_mode = exclusive; PRAGMA journal_mode = memory")
                .ok()
        });
    }

    /// Runs one statement; how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                Ok(params.lend(|values| statement.execute(values))?)
            }
            Self::Postgres(session) => params.lend(|values| session.execute(sql, values)),
        }
    }

    /// Runs one statement of a transaction where it does not matter how many rows it changes. An engine at the other end
    /// of a network may answer later: then an error of it is told by the next statement, or by
    /// [`Connection::await_sent`].
    pub(crate) fn send(&self, sql: &str, params: impl Params) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.execute(sql, params).map(drop),
            Self::Postgres(session) => params.lend(|values| session.send(sql, values)),
        }
    }

    /// Waits until all that was sent is answered.
    pub(crate) fn await_sent(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(session) => session.await_sent(),
        }
    }

    /// The first row, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                params.lend(|values| {
                    let mut rows = statement.query(values)?;
                    match rows.next()? {
                        Some(row) => read(&Row(Native::Sqlite(row))).map(Some),
                        None => Ok(None),
                    }
                })
            }
            Self::Postgres(session) => {
                let found = params.lend(|values| session.first(sql, values))?;
                let row = found.as_ref().map(|row| Row(Native::Postgres(row)));
                row.map(|row| read(&row)).transpose()
            }
        }
    }

    /// Shows rows in order until `see` has seen enough (it answers `false`). `expected` is how many that will be at
    /// least, where it is known: an engine at the other end of a network fetches so many at once.
    pub(crate) fn each(
        &self,
        sql: &str,
        params: impl Params,
        expected: Option<usize>,
        mut see: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        match self {
            Self::Sqlite(conn) => {
                let mut statement = conn.prepare_cached(sql)?;
                params.lend(|values| {
                    let mut rows = statement.query(values)?;
                    while let Some(row) = rows.next()? {
                        if !see(&Row(Native::Sqlite(row)))? {
                            break;
                        }
                    }
                    Ok(())
                })
            }
            Self::Postgres(session) => params.lend(|values| {
                session.each(sql, values, expected, |row| {
                    see(&Row(Native::Postgres(row)))
                })
            }),
        }
    }

    /// Runs statements without parameters, one after the other.
    pub(crate) fn batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(conn) => Ok(conn.execute_batch(sql)?),
            Self::Postgres(session) => session.batch(sql),
        }
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.batch("BEGIN IMMEDIATE"),
            Self::Postgres(session) => session.begin(),
        }
    }

    /// Commits it. [`SqlError::Unsure`](super::SqlError::Unsure): PostgreSQL did not say whether it did.
    pub(crate) fn commit(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.batch("COMMIT"),
            Self::Postgres(session) => session.commit(),
        }
    }

    /// For as long as the answer lives, all statements see the same state.
    pub(crate) fn same_state(&self) -> Result<SameState<'_>> {
        match self {
            Self::Sqlite(_) => self.batch("BEGIN")?,
            Self::Postgres(session) => session.begin_read()?,
        }
        Ok(SameState(self))
    }

    /// Whether a transaction is open. A full disk makes SQLite roll one back by itself.
    pub(crate) fn is_in_transaction(&self) -> bool {
        match self {
            Self::Sqlite(conn) => !conn.is_autocommit(),
            Self::Postgres(session) => session.is_in_transaction(),
        }
    }

    /// Whether a statement failed in it, so that it takes nothing until that is taken back. SQLite goes on.
    pub(crate) fn is_aborted(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(session) => session.is_aborted(),
        }
    }

    /// Whether the last transaction failed for a reason outside of it, so that the same again may do.
    pub(crate) fn may_do_again(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(session) => session.may_do_again(),
        }
    }

    /// How many rows were changed since it was opened.
    pub(crate) fn changed(&self) -> u64 {
        match self {
            Self::Sqlite(conn) => conn.total_changes(),
            Self::Postgres(session) => session.changed(),
        }
    }
}

/// A transaction that only reads.
pub(crate) struct SameState<'a>(&'a Connection);

impl Drop for SameState<'_> {
    fn drop(&mut self) {
        // It has changed nothing; where it cannot be ended, the connection is of no use any more and says so itself.
        self.0.batch("ROLLBACK").ok();
    }
}
