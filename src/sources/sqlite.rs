//! `[[source.sqlite]]`: a query on a database that another program owns.
//!
//! The connection is opened anew for each read and closed after it: a connection that stays open would keep
//! the database's `-wal` and `-shm` in place after the application's last close, and whoever then puts a
//! backup in the database's place would have the old `-wal` applied to it. Where neither lies there, nobody
//! has the database open, and it is read as it lies (`immutable`), so that we make no such files either;
//! what was read so counts only if nothing changed meanwhile. The connection is read only, and an authorizer
//! lets it do nothing but read: no write, no attach, no extension, whatever the query says.

use std::{io::Read as _, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use percent_encoding::AsciiSet;
use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::ValueRef,
};
use serde_json::Value;

use super::{
    SourceError,
    list::{Collector, Stamp, beside},
};
use crate::{
    config,
    model::{Entry, EntryError, RESERVED, percent_encoded},
};

/// How long another program may hold the database.
const BUSY: Duration = Duration::from_secs(2);
/// The largest value, and the largest row.
const LARGEST: i32 = 1 << 20;
/// How often a database that changes while it is read is tried at once.
const TRIES: u32 = 3;

/// Reads the rows that the query gives.
pub(super) fn read(path: &Path, query: &str) -> Result<Collector, SourceError> {
    let cannot = |error: std::io::Error| SourceError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    for _ in 0..TRIES {
        let before = Files::of(path).map_err(cannot)?;
        let alone = before.is_alone() && is_wal(path);
        let mut list = Collector::new(path.display().to_string());
        let read = connect(path, alone)
            .map_err(|error| explained(path, &error))
            .and_then(|mut conn| rows(&mut conn, query, path, &mut list));
        if alone && Files::of(path).map_err(cannot)? != before {
            continue;
        }
        return read.map(|()| list);
    }
    Err(SourceError::Changing {
        what: path.display().to_string(),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Files {
    main: Stamp,
    beside: [Option<Stamp>; 3],
}

impl Files {
    /// What lies there; all of it regular files, so that nothing waits in opening them.
    fn of(path: &Path) -> std::io::Result<Self> {
        let main = Stamp::of(&config::open_regular(path)?.metadata()?);
        let side = |end: &str| match std::fs::metadata(beside(path, end)) {
            Ok(found) if found.is_file() => Ok(Some(Stamp::of(&found))),
            Ok(_) => Err(std::io::Error::other(format!(
                "its {end} is not a regular file"
            ))),
            Err(_) => Ok(None),
        };
        Ok(Self {
            main,
            beside: [side("-wal")?, side("-shm")?, side("-journal")?],
        })
    }

    fn is_alone(&self) -> bool {
        self.beside.iter().all(Option::is_none)
    }
}

fn connect(path: &Path, alone: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = if alone {
        Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)
    } else {
        Connection::open_with_flags(path, flags)
    }?;
    conn.busy_timeout(BUSY)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, LARGEST)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.authorizer(Some(only_reading))?;
    Ok(conn)
}

/// What stands for itself in the path of a URI.
const IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The path as a URI (sqlite.org, URI filenames).
fn immutable(path: &Path) -> String {
    let path = percent_encoded(path.as_os_str().as_bytes(), IN_PATH);
    format!("file:{path}?immutable=1")
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
        _ => Authorization::Deny,
    }
}

/// The rows, all of one snapshot.
fn rows(
    conn: &mut Connection,
    query: &str,
    path: &Path,
    list: &mut Collector,
) -> Result<(), SourceError> {
    let failed = |error: rusqlite::Error| explained(path, &error);
    let wrong = |reason: String| SourceError::Query {
        path: path.to_owned(),
        reason,
    };
    let snapshot = conn.transaction().map_err(failed)?;
    let mut statement = snapshot.prepare(query).map_err(failed)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    if !columns.iter().any(|column| column == "name") {
        return Err(wrong(format!(
            "the query has no column `name`; it has {}",
            columns.join(", ")
        )));
    }
    let twice = (1..columns.len()).find(|at| columns[..*at].contains(&columns[*at]));
    if let Some(at) = twice {
        return Err(wrong(format!(
            "the query has the column `{}` twice",
            columns[at]
        )));
    }
    let mut result = statement.query([]).map_err(failed)?;
    let mut number = 0;
    while let Some(row) = result.next().map_err(failed)? {
        number += 1;
        list.push(number, entry(row, &columns))?;
    }
    Ok(())
}

fn entry(row: &rusqlite::Row<'_>, columns: &[String]) -> Result<Entry, EntryError> {
    let name = columns.iter().position(|column| column == "name");
    let name = name.and_then(|at| row.get_ref(at).ok()?.as_str().ok()?.parse().ok());
    let mut values = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        let unreadable = |what: &str| EntryError {
            name: name.clone(),
            is_nobody: false,
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
    let query = |reason: String| SourceError::Query {
        path: path.to_owned(),
        reason,
    };
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
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            query(format!("it is damaged, or no SQLite database ({error})"))
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            query(format!("the query may only read ({error})"))
        }
        Some(ErrorCode::TooBig) => query(format!(
            "a value in it is larger than 1 MiB, which no part of an identity is ({error})"
        )),
        Some(ErrorCode::OutOfMemory) => query(format!(
            "the query needs more memory than reading a list may take ({error})"
        )),
        _ => query(error.to_string()),
    }
}

/// Whether the header says WAL: bytes 18 and 19 are the write and read versions (sqlite.org,
/// database file format, 1.3).
fn is_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    config::open_regular(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .is_ok()
        && header[18..20] == [2, 2]
}

fn shm_trouble(path: &Path) -> String {
    match config::open_regular(&beside(path, "-shm")) {
        Ok(_) => "it is there, and may not be written".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::list;

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

        fn read(&self, query: &str) -> Result<u64, SourceError> {
            let list = read(&self.dir.path().join("app.db"), query)?;
            Ok(list.finish().head.rows)
        }

        fn files(&self) -> Vec<String> {
            let files = std::fs::read_dir(self.dir.path()).unwrap();
            let mut names: Vec<String> = files
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    const QUERY: &str = "SELECT name, scopes FROM users ORDER BY name";

    #[test]
    fn nothing_is_left_beside_a_database_that_nobody_has_open() {
        let Stage { dir, owner } = Stage::new("wal");
        drop(owner);
        let stage = Stage {
            dir,
            owner: Connection::open_in_memory().unwrap(),
        };
        assert_eq!(stage.read(QUERY).unwrap(), 1);
        assert_eq!(stage.files(), ["app.db"]);
    }

    #[test]
    fn every_commit_shows_in_the_stamps_and_is_read() {
        for journal in ["wal", "delete"] {
            let stage = Stage::new(journal);
            let path = stage.dir.path().join("app.db");
            let before = list::Stamps::of(&path).unwrap();
            assert_eq!(stage.read(QUERY).unwrap(), 1);
            assert_eq!(
                before,
                list::Stamps::of(&path).unwrap(),
                "{journal}: reading changes nothing"
            );
            let sql = "INSERT INTO users VALUES ('bert', 'voip')";
            stage.owner.execute(sql, []).unwrap();
            assert_ne!(before, list::Stamps::of(&path).unwrap(), "{journal}");
            assert_eq!(stage.read(QUERY).unwrap(), 2);
        }
    }

    #[test]
    fn a_query_can_do_nothing_but_read() {
        let stage = Stage::new("delete");
        for query in [
            "WITH x AS (SELECT 1) DELETE FROM users",
            "SELECT load_extension('x') AS name",
            "SELECT name FROM pragma_journal_mode('delete')",
        ] {
            let error = stage.read(query).unwrap_err();
            assert!(
                matches!(error, SourceError::Query { .. }),
                "{query}: {error}"
            );
        }
        stage
            .read("SELECT name FROM users; DELETE FROM users")
            .unwrap_err();
        assert_eq!(stage.read(QUERY).unwrap(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let stage = Stage::new("delete");
        let of = |query: &str| stage.read(query).unwrap_err().to_string();
        assert!(of("SELECT scopes FROM users").contains("no column `name`"));
        assert!(of("SELECT name, 'x' AS name FROM users").contains("`name` twice"));
        assert!(of("SELECT name FROM nobody").contains("nobody"));
        assert!(
            of("SELECT name, zeroblob(600000000) AS id FROM users").contains("larger than 1 MiB")
        );
        stage.owner.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(of(QUERY).contains("locked by another program"));
        stage.owner.execute_batch("COMMIT").unwrap();
        std::fs::write(
            stage.dir.path().join("app.db"),
            "no database at all, but long enough",
        )
        .unwrap();
        assert!(of(QUERY).contains("no SQLite database"));
        std::fs::remove_file(stage.dir.path().join("app.db")).unwrap();
        assert!(of(QUERY).contains("No such file"));
        std::fs::create_dir(stage.dir.path().join("app.db")).unwrap();
        assert!(of(QUERY).contains("not a regular file"));
    }
}
