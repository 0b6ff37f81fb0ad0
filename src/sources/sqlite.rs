//! `[[source.sqlite]]`: a query on a database that another program owns.
//!
//! The connection is kept open, so that `PRAGMA data_version` tells of every commit of others; the
//! file's stamp tells of a database that was put in its place. Never `immutable`: that would read
//! half a change. The connection is opened read only, and an authorizer lets it do nothing but read:
//! no write, no attach, no extension, whatever the query says.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    hooks::{AuthAction, AuthContext, Authorization},
    types::ValueRef,
};
use serde_json::Value;

use super::{
    Look, SourceError,
    listing::{MOST_ROWS, Row},
    regular::{Stamp, off_thread},
};
use crate::model::{Entry, EntryError};

/// How long another program may hold the database.
const BUSY: Duration = Duration::from_secs(2);
/// How long a query may run.
const QUERY: Duration = Duration::from_secs(120);

/// A database and what it was when it was read.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    query: String,
    inline: bool,
    /// Locked by nobody: it only makes the reader `Sync`, which a connection is not.
    open: Mutex<Option<Open>>,
    read: Option<(Stamp, i64)>,
}

/// An open connection, and the file that it is on.
#[derive(Debug)]
struct Open {
    conn: Connection,
    stamp: Stamp,
}

impl Sqlite {
    pub(super) fn new(path: PathBuf, query: String, inline: bool) -> Self {
        Self {
            path,
            query,
            inline,
            open: Mutex::new(None),
            read: None,
        }
    }

    fn take(&mut self) -> Option<Open> {
        self.open
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) async fn look(&mut self) -> Result<Look, SourceError> {
        let (path, open) = (self.path.clone(), self.take());
        let (open, version) = off_thread(self.inline, move || {
            let open = current(open, &path)?;
            let version = data_version(&open.conn).map_err(|error| explained(&path, &error))?;
            Ok((open, version))
        })
        .await?;
        let now = (open.stamp.clone(), version);
        let file = Some(open.stamp.file());
        self.open = Mutex::new(Some(open));
        Ok(Look {
            changed: self.read.as_ref() != Some(&now),
            file,
        })
    }

    pub(super) async fn read(&mut self) -> Result<Vec<Row>, SourceError> {
        let (path, query, open) = (self.path.clone(), self.query.clone(), self.take());
        let mut open = off_thread(self.inline, {
            let path = path.clone();
            move || current(open, &path)
        })
        .await?;
        let interrupt = open.conn.get_interrupt_handle();
        let work = off_thread(self.inline, {
            let path = path.clone();
            move || {
                let read = rows(&mut open.conn, &query, &path);
                Ok((open, read))
            }
        });
        tokio::pin!(work);
        let ended = tokio::select! {
            biased;
            ended = &mut work => ended,
            () = tokio::time::sleep(QUERY) => {
                interrupt.interrupt();
                return Err(match work.await {
                    Ok((_, Ok(_))) | Err(_) => slow(&path),
                    Ok((_, Err(error))) => match error {
                        SourceError::Query { .. } => slow(&path),
                        other => other,
                    },
                });
            }
        };
        let (open, read) = ended?;
        let (rows, version) = read?;
        self.read = Some((open.stamp.clone(), version));
        self.open = Mutex::new(Some(open));
        Ok(rows)
    }
}

fn slow(path: &Path) -> SourceError {
    SourceError::Slow {
        what: format!("the query on {}", path.display()),
        seconds: QUERY.as_secs(),
    }
}

/// The connection that is open, or a new one where the file is not as it was: what is cached of a
/// file that was put in its place may be wrong.
fn current(open: Option<Open>, path: &Path) -> Result<Open, SourceError> {
    let stamp = Stamp::of(path).map_err(|error| SourceError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if let Some(open) = open.filter(|open| open.stamp == stamp) {
        return Ok(open);
    }
    let conn = connect(path).map_err(|error| explained(path, &error))?;
    Ok(Open { conn, stamp })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.authorizer(Some(only_reading))?;
    Ok(conn)
}

/// Lets a query read and nothing else.
fn only_reading(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Recursive
        | AuthAction::Transaction { .. } => Authorization::Allow,
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        AuthAction::Pragma {
            pragma_name: "data_version",
            pragma_value: None,
        } => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// The rows and the version that they are of, both of one snapshot.
fn rows(conn: &mut Connection, query: &str, path: &Path) -> Result<(Vec<Row>, i64), SourceError> {
    let failed = |error: rusqlite::Error| explained(path, &error);
    let snapshot = conn.transaction().map_err(failed)?;
    let version = data_version(&snapshot).map_err(failed)?;
    let mut statement = snapshot.prepare(query).map_err(failed)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    if !columns.iter().any(|column| column == "name") {
        return Err(SourceError::Query {
            path: path.to_owned(),
            reason: format!(
                "the query has no column `name`; it has {}",
                columns.join(", ")
            ),
        });
    }
    let mut found = Vec::new();
    let mut result = statement.query([]).map_err(failed)?;
    while let Some(row) = result.next().map_err(failed)? {
        if found.len() == MOST_ROWS {
            return Err(SourceError::Long {
                what: path.display().to_string(),
                most: "1,000,000 rows",
            });
        }
        found.push((found.len() as u64 + 1, entry(row, &columns)));
    }
    Ok((found, version))
}

fn entry(row: &rusqlite::Row<'_>, columns: &[String]) -> Result<Entry, EntryError> {
    let mut values = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        let unreadable = |what: &str| EntryError {
            name: None,
            reason: format!("its column {column} is {what}"),
        };
        let value = row.get_ref(at).map_err(|_| unreadable("not readable"))?;
        values.push(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::from(number),
            ValueRef::Real(number) => Value::from(number),
            ValueRef::Text(text) => {
                Value::from(std::str::from_utf8(text).map_err(|_| unreadable("not UTF-8"))?)
            }
            ValueRef::Blob(_) => return Err(unreadable("a blob, not text")),
        });
    }
    Entry::of(columns.iter().map(String::as_str).zip(&values))
}

/// What SQLite says, in terms of what an operator can do.
fn explained(path: &Path, error: &rusqlite::Error) -> SourceError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SourceError::Locked {
            path: path.to_owned(),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
            if is_wal(path) =>
        {
            SourceError::Wal {
                path: path.to_owned(),
                reason: shm_trouble(path),
            }
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => SourceError::Query {
            path: path.to_owned(),
            reason: format!("it is damaged, or no SQLite database ({error})"),
        },
        Some(ErrorCode::AuthorizationForStatementDenied) => SourceError::Query {
            path: path.to_owned(),
            reason: format!("the query may only read ({error})"),
        },
        _ => SourceError::Query {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    }
}

/// Whether the header says WAL: bytes 18 and 19 are the write and read versions (sqlite.org,
/// database file format, 1.3).
fn is_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .is_ok()
        && header[18..20] == [2, 2]
}

fn shm_trouble(path: &Path) -> String {
    let mut shm = path.as_os_str().to_owned();
    shm.push("-shm");
    match File::open(&shm) {
        Ok(_) => "it is there, and may not be written".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stage {
        dir: tempfile::TempDir,
        owner: Connection,
    }

    impl Stage {
        fn new(journal: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let owner = Connection::open(dir.path().join("app.db")).unwrap();
            owner.pragma_update(None, "journal_mode", journal).unwrap();
            owner
                .execute_batch("CREATE TABLE users (name TEXT, scopes TEXT); INSERT INTO users VALUES ('anna', 'chat')")
                .unwrap();
            Self { dir, owner }
        }

        fn source(&self, query: &str) -> Sqlite {
            Sqlite::new(self.dir.path().join("app.db"), query.to_owned(), true)
        }
    }

    const QUERY: &str = "SELECT name, scopes FROM users ORDER BY name";

    #[tokio::test]
    async fn every_commit_of_others_is_noticed_and_nothing_else() {
        for journal in ["wal", "delete"] {
            let stage = Stage::new(journal);
            let mut source = stage.source(QUERY);
            assert!(
                source.look().await.unwrap().changed,
                "{journal}: never read"
            );
            assert_eq!(source.read().await.unwrap().len(), 1);
            for _ in 0..3 {
                assert!(
                    !source.look().await.unwrap().changed,
                    "{journal}: nothing happened"
                );
            }
            stage
                .owner
                .execute("INSERT INTO users VALUES ('bert', 'voip')", [])
                .unwrap();
            assert!(source.look().await.unwrap().changed, "{journal}: a commit");
            assert_eq!(source.read().await.unwrap().len(), 2);
            assert!(!source.look().await.unwrap().changed, "{journal}: read");
        }
    }

    #[tokio::test]
    async fn a_query_can_do_nothing_but_read() {
        let stage = Stage::new("delete");
        for query in [
            "WITH x AS (SELECT 1) DELETE FROM users",
            "SELECT load_extension('x') AS name",
            "SELECT name FROM pragma_journal_mode('delete')",
        ] {
            let error = stage.source(query).read().await.unwrap_err();
            assert!(
                matches!(error, SourceError::Query { .. }),
                "{query}: {error}"
            );
        }
        let mut several = stage.source("SELECT name FROM users; DELETE FROM users");
        several.read().await.unwrap_err();
        assert_eq!(stage.source(QUERY).read().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_in_words() {
        let stage = Stage::new("delete");
        let of = async |query: &str| stage.source(query).read().await.unwrap_err().to_string();
        assert!(
            of("SELECT scopes FROM users")
                .await
                .contains("no column `name`")
        );
        assert!(of("SELECT name FROM nobody").await.contains("nobody"));
        stage.owner.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(of(QUERY).await.contains("locked by another program"));
        stage.owner.execute_batch("COMMIT").unwrap();
        std::fs::write(
            stage.dir.path().join("app.db"),
            "no database at all, but long enough",
        )
        .unwrap();
        assert!(of(QUERY).await.contains("no SQLite database"));
        std::fs::remove_file(stage.dir.path().join("app.db")).unwrap();
        assert!(of(QUERY).await.contains("No such file"));
    }
}
