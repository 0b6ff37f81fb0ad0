//! Backups: one SQLite file that holds the whole database (by `VACUUM INTO`), and in tables of its own
//! the files beside it and what the backup says of itself. A digest over every row tells whether it is
//! still what was written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, types::ValueRef};
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Store, db,
    error::{Answer, BackupError, Fault},
    nodes, schema,
};
use crate::{model::Timestamp, sql};

/// The files beside the database that a backup takes along, where they are.
pub(super) const BESIDE: [&str; 2] = ["identities.jsonl", WITHDRAWN];
/// The one that knows what was withdrawn.
pub(super) const WITHDRAWN: &str = "withdrawn.jsonl";
/// When the last backup was made that reached its place.
pub(super) const BACKED_UP: &str = "backed_up_at";
/// When the store was given up for another place.
pub(super) const RETIRED: &str = "retired_at";
/// Where a place says that it holds a part of a store that is being moved there.
pub(super) const MOVING: &str = "moving";
/// Why it is not known what was withdrawn; kept over restarts, until a person accepts.
pub(super) const RESTORED: &str = "restored";

/// The instance and the machine that the store belongs to.
pub(super) const INSTANCE: &str = "instance";
pub(super) const MACHINE: &str = "machine";
/// The backup that is made before the schema is changed, beside the database; one is kept.
const BEFORE_MIGRATION: &str = "before-upgrade.backup";
/// A backup that is on its way to somebody else.
const UNDER_WAY: &str = "renewd.backup.new";
/// The first form of a backup.
const FORM: i64 = 1;
/// A file beside the database lies in the backup in pieces of this size.
const PIECE: u64 = 1 << 20;
/// What has to stay free on a disk beside a backup that is made there.
const MARGIN: u64 = 16 << 20;
const TABLES: &str = "CREATE TABLE backup (key TEXT PRIMARY KEY, value) WITHOUT ROWID; \
                      CREATE TABLE backup_file (name TEXT, piece INTEGER, content BLOB, PRIMARY KEY (name, piece));";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// When it was made.
    pub made_at: Timestamp,
    /// The version of the renewd that made it.
    pub version: String,
    /// The schema of its database.
    pub schema: i64,
    /// The id of the key that its tokens are sealed with.
    pub seal_key: String,
    /// Identities in its database.
    pub identities: u64,
    /// Those that have a token.
    pub tokens: u64,
    /// The files beside the database that it holds, with their lines.
    pub files: Vec<(String, u64)>,
    /// Whether its store ended with it, so that nothing was withdrawn since.
    pub last: bool,
}

/// Writes a backup of the database behind `conn`, and of the files beside it in `state_dir`, to a new
/// file at `target`, for our eyes only and synced. Nothing is left behind when it fails.
pub(super) fn write(
    conn: &Connection,
    state_dir: &Path,
    target: &Path,
    (now, last): (Timestamp, bool),
) -> Result<(), BackupError> {
    let written = written(conn, state_dir, target, (now, last));
    if written.is_err() {
        // The reason why it failed is the one to tell.
        fs::remove_file(target).ok();
    }
    written
}

fn written(
    conn: &Connection,
    state_dir: &Path,
    target: &Path,
    note: (Timestamp, bool),
) -> Result<(), BackupError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    let needed = size(conn).map_err(|e| BackupError::Unreadable(e.to_string()))? + MARGIN;
    if free(folder).is_some_and(|free| free < needed) {
        return Err(BackupError::NoRoom {
            folder: folder.to_owned(),
            needed,
        });
    }
    private()
        .write(true)
        .create_new(true)
        .open(target)
        .map_err(BackupError::io("make", target))?;
    let wrote = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackupError::NoRoom {
            folder: folder.to_owned(),
            needed,
        },
        _ => BackupError::Unreadable(error.to_string()),
    };
    copy(conn, target).map_err(wrote)?;
    // What the files say is read after the database: it is never older.
    describe(target, state_dir, note).map_err(wrote)?;
    let file = File::open(target).map_err(BackupError::io("open", target))?;
    file.sync_all().map_err(BackupError::io("sync", target))
}

/// `VACUUM INTO`, also by a connection that otherwise only reads.
fn copy(conn: &Connection, target: &Path) -> rusqlite::Result<()> {
    let query_only: bool = conn.pragma_query_value(None, "query_only", |row| row.get(0))?;
    conn.pragma_update(None, "query_only", false)?;
    let copied = conn.execute("VACUUM INTO ?1", [target.to_string_lossy()]);
    conn.pragma_update(None, "query_only", query_only)?;
    copied.map(drop)
}

/// Adds the files beside the database and what the backup says of itself.
fn describe(
    target: &Path,
    state_dir: &Path,
    (now, last): (Timestamp, bool),
) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let backup = Connection::open_with_flags(target, flags)?;
    // A half-written file is thrown away as a whole, so that it needs no journal.
    backup.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    backup.pragma_update(None, "synchronous", "off")?;
    backup.execute_batch(&format!("BEGIN; {TABLES}"))?;
    for name in BESIDE {
        let path = state_dir.join(name);
        let mut n = 0_i64;
        let kept = whole_lines(&path, |piece| {
            n += 1;
            let sql = "INSERT INTO backup_file VALUES (?1, ?2, ?3)";
            backup.execute(sql, (name, n, piece)).map(drop)
        })?;
        if let Err(error) = kept
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "not in the backup");
        }
    }
    let set = |key: &str, value: &dyn rusqlite::ToSql| {
        backup.execute("INSERT INTO backup VALUES (?1, ?2)", (key, value))
    };
    set("form", &FORM)?;
    set("made_at", &db::micros(now))?;
    set("version", &env!("CARGO_PKG_VERSION"))?;
    set("last", &last)?;
    set("digest", &digest(&backup)?.to_vec())?;
    backup.execute_batch("COMMIT")
}

/// Hands over the whole lines of a file beside the database, in pieces, at least one: its last line
/// may be being written at this moment.
fn whole_lines(
    path: &Path,
    mut see: impl FnMut(&[u8]) -> rusqlite::Result<()>,
) -> rusqlite::Result<io::Result<()>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let mut piece = Vec::new();
    let mut none_yet = true;
    loop {
        let had = piece.len();
        match (&mut file).take(PIECE).read_to_end(&mut piece) {
            Ok(_) if piece.len() == had => break,
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
        if let Some(end) = piece.iter().rposition(|&b| b == b'\n') {
            see(piece.get(..=end).unwrap_or_default())?;
            piece.drain(..=end);
            none_yet = false;
        }
    }
    if none_yet {
        see(&[])?;
    }
    Ok(Ok(()))
}

/// Saves the database as it is before its schema is changed. One is kept, and it is never half there.
pub(super) fn before_migration(
    conn: &Connection,
    (database, state_dir): (&Path, &Path),
    now: Timestamp,
) -> Result<PathBuf, BackupError> {
    let place = database.with_file_name(BEFORE_MIGRATION);
    let new = place.with_extension("backup.new");
    clear(&new)?;
    write(conn, state_dir, &new, (now, false))?;
    let kept = fs::rename(&new, &place)
        .and_then(|()| File::open(place.parent().unwrap_or(Path::new(".")))?.sync_all());
    kept.map_err(BackupError::io("keep", &place))?;
    Ok(place)
}

/// Writes a backup where there is room for it and hands over the open file, which has no name any more:
/// whoever asked keeps it where he may, which is elsewhere.
pub(super) fn lend(
    conn: &Connection,
    state_dir: &Path,
    note: (Timestamp, bool),
) -> Result<File, BackupError> {
    let mut last = Err(BackupError::Unreadable("there is no folder".to_owned()));
    // The state directory may be full, or gone: then what is still open is all that is left.
    for folder in [state_dir.to_owned(), std::env::temp_dir()] {
        let path = folder.join(UNDER_WAY);
        last = clear(&path)
            .and_then(|()| write(conn, state_dir, &path, note))
            .and_then(|()| {
                let file = File::open(&path).map_err(BackupError::io("open", &path))?;
                fs::remove_file(&path).map_err(BackupError::io("unname", &path))?;
                Ok(file)
            });
        if last.is_ok() {
            return last;
        }
    }
    last
}

/// Removes what an earlier process left half-written.
fn clear(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Looks a backup through from end to end.
///
/// # Errors
/// When it is no backup, damaged, or newer than this renewd.
pub fn verify_backup(path: &Path) -> Result<Contents, BackupError> {
    let backup = open(path)?;
    let reading = BackupError::reading(path);
    let damaged = |why: String| BackupError::Damaged {
        path: path.to_owned(),
        why,
    };
    let verdict: String = backup
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(&reading)?;
    if verdict != "ok" {
        return Err(damaged(verdict));
    }
    let noted: Option<Vec<u8>> = fact(&backup, "digest").map_err(&reading)?;
    if noted.as_deref() != Some(&digest(&backup).map_err(&reading)?[..]) {
        return Err(damaged(
            "its rows are not those that were written".to_owned(),
        ));
    }
    contents(&backup).map_err(&reading)
}

/// Opens a backup for reading, and only a backup.
fn open(path: &Path) -> Result<Connection, BackupError> {
    let reading = BackupError::reading(path);
    let is_file = fs::metadata(path)
        .map_err(BackupError::io("open", path))?
        .is_file();
    // Without this check SQLite would say of a file that we may not read that it cannot be opened.
    File::open(path).map_err(BackupError::io("open", path))?;
    let foreign = |why: &str| BackupError::Foreign {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    if !is_file {
        return Err(foreign("it is no file"));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let backup = Connection::open_with_flags(path, flags).map_err(&reading)?;
    let has = |table: &str| -> Result<bool, BackupError> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let count: i64 = backup
            .query_row(sql, [table], |row| row.get(0))
            .map_err(&reading)?;
        Ok(count == 1)
    };
    if !has("backup")? {
        return Err(foreign(if has("identity")? {
            "it is a bare database, copied by other means; see docs/recovery.md, \"A snapshot was restored\""
        } else {
            "it holds something else, or nothing"
        }));
    }
    let form: Option<i64> = fact(&backup, "form").map_err(&reading)?;
    let found = version(&backup).map_err(&reading)?;
    let said: Option<String> = match found > schema::NEWEST {
        true => meta_of(&backup, schema::USABLE_KEY).map_err(&reading)?,
        false => None,
    };
    let is_known = schema::may_be_used(found, said.as_deref());
    if !is_known || form.is_some_and(|form| form > FORM) {
        return Err(BackupError::Newer {
            path: path.to_owned(),
            found,
            known: schema::NEWEST,
        });
    }
    Ok(backup)
}

fn fact<T: rusqlite::types::FromSql>(
    backup: &Connection,
    key: &str,
) -> rusqlite::Result<Option<T>> {
    let sql = "SELECT value FROM backup WHERE key = ?1";
    backup.query_row(sql, [key], |row| row.get(0)).optional()
}

/// A single fact of the table `meta`.
pub(super) fn meta_of<T: rusqlite::types::FromSql>(
    file: &Connection,
    key: &str,
) -> rusqlite::Result<Option<T>> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    file.query_row(sql, [key], |row| row.get(0)).optional()
}

fn version(backup: &Connection) -> rusqlite::Result<i64> {
    backup.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn contents(backup: &Connection) -> rusqlite::Result<Contents> {
    let count = |sql: &str| backup.query_row(sql, [], |row| row.get::<_, i64>(0));
    let mut files = Vec::new();
    for name in BESIDE {
        let mut lines = 0_u64;
        let pieces = each_piece(backup, name, |piece| {
            lines += piece.iter().map(|&b| u64::from(b == b'\n')).sum::<u64>();
        })?;
        if pieces > 0 {
            files.push((name.to_owned(), lines));
        }
    }
    Ok(Contents {
        made_at: db::instant(fact(backup, "made_at")?.unwrap_or_default()),
        version: fact(backup, "version")?.unwrap_or_default(),
        schema: version(backup)?,
        seal_key: meta_of(backup, "seal_key")?.unwrap_or_default(),
        identities: count("SELECT count(*) FROM identity")?.unsigned_abs(),
        tokens: count("SELECT count(*) FROM identity WHERE token IS NOT NULL")?.unsigned_abs(),
        files,
        last: fact(backup, "last")?.unwrap_or_default(),
    })
}

/// Hands over the pieces of a file beside the database, as the backup holds it; how many there are.
pub(super) fn each_piece(
    backup: &Connection,
    name: &str,
    mut see: impl FnMut(&[u8]),
) -> rusqlite::Result<usize> {
    let sql = "SELECT content FROM backup_file WHERE name = ?1 ORDER BY piece";
    let mut statement = backup.prepare(sql)?;
    let (mut rows, mut pieces) = (statement.query([name])?, 0);
    while let Some(row) = rows.next()? {
        see(row.get_ref(0)?.as_blob()?);
        pieces += 1;
    }
    Ok(pieces)
}

/// Makes a copy of a backup the database that a store is opened on. `doubt` says why it is not known
/// what was withdrawn since.
pub(super) fn strip(
    copy: &sql::Connection,
    contents: &Contents,
    doubt: Option<&str>,
) -> sql::Result<()> {
    copy.begin()?;
    copy.batch("DROP TABLE backup; DROP TABLE backup_file;")?;
    db::set_meta(copy, BACKED_UP, db::micros(contents.made_at))?;
    if let Some(doubt) = doubt {
        db::set_meta(copy, RESTORED, doubt)?;
    }
    if contents.last {
        // Its store does not go on, so that wherever it is put is its place.
        let keys = [INSTANCE, MACHINE];
        copy.execute("DELETE FROM meta WHERE key IN (?1, ?2)", keys)?;
    }
    copy.batch("COMMIT")
}

/// What a place says that holds only a part of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedPart {
    /// Where it comes from.
    pub(super) from: String,
    /// Which key sealed it: what tells one store from another.
    pub(super) seal_key: String,
    /// The table that rows were last written to.
    pub(super) table: String,
}

/// Where a store comes from of which a database holds only a part.
pub(super) fn half_moved(conn: &sql::Connection) -> sql::Result<Option<String>> {
    let said = db::meta::<String>(conn, MOVING)?;
    Ok(said.map(|said| serde_json::from_str::<MovedPart>(&said).map_or(said, |part| part.from)))
}

/// Takes a store back that was given up for another place; whether it was.
pub(super) fn unretire(conn: &sql::Connection) -> sql::Result<bool> {
    nodes::let_nobody_lead(conn, false)?;
    conn.execute("DELETE FROM meta WHERE key = ?1", [db::MOVED_TO])?;
    Ok(conn.execute("DELETE FROM meta WHERE key = ?1", [RETIRED])? > 0)
}

/// A sum over the rows of every table but `backup`, whatever their order, and over the schema.
fn digest(conn: &Connection) -> rusqlite::Result<[u8; 16]> {
    let mut sum = 0_u128;
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'backup' AND name NOT LIKE 'sqlite%'";
    let mut tables = vec!["sqlite_schema".to_owned()];
    let mut named = conn.prepare(sql)?;
    tables.extend(
        named
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<String>>>()?,
    );
    for table in tables {
        // Where in the file a table begins says nothing of what it holds.
        let columns = match table.as_str() {
            "sqlite_schema" => "name, sql",
            _ => "*",
        };
        let mut statement = conn.prepare(&format!("SELECT {columns} FROM \"{table}\""))?;
        let width = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut hash = Sha256::new();
            add(&mut hash, b't', table.as_bytes());
            for at in 0..width {
                match row.get_ref(at)? {
                    ValueRef::Null => add(&mut hash, b'n', &[]),
                    ValueRef::Integer(number) => add(&mut hash, b'i', &number.to_le_bytes()),
                    ValueRef::Real(number) => add(&mut hash, b'r', &number.to_le_bytes()),
                    ValueRef::Text(text) => add(&mut hash, b's', text),
                    ValueRef::Blob(bytes) => add(&mut hash, b'b', bytes),
                }
            }
            let row: [u8; 32] = hash.finalize().into();
            let (half, _) = row.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
            sum = sum.wrapping_add(u128::from_le_bytes(*half));
        }
    }
    Ok(sum.to_le_bytes())
}

/// No value can be mistaken for two, or for one of another type.
fn add(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update(bytes.len().to_le_bytes());
    hash.update(bytes);
}

/// How large the database is without what is free in it.
fn size(conn: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    Ok((pages * pragma("page_size")?).unsigned_abs())
}

/// What this user may still have on the file system of a folder, where that is known.
fn free(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

impl Store {
    /// Writes a backup and hands the file over; the database's own may have been deleted meanwhile. With
    /// `last` it says of itself that nothing was withdrawn since.
    pub async fn backup(&self, last: bool, now: Timestamp) -> Answer<File> {
        let state_dir = self.state_dir().to_owned();
        self.read("make a backup", move |db| {
            if db.resealing()?.successor.is_some() {
                return Err(Fault::Refused(
                    "the seal key is being replaced, and a backup holds tokens of one key: make it again in a minute, \
                     see `renewd key reseal`"
                        .to_owned(),
                ));
            }
            lend(db.file()?, &state_dir, (now, last))
                .map_err(|error| Fault::Refused(error.to_string()))
        })
        .await
    }

    /// Notes that a backup has reached its place; a store that ends with it is never opened again,
    /// unless a person takes it back.
    pub async fn backed_up(&self, made_at: Timestamp, retire: bool) -> Answer<()> {
        self.write("note the backup", move |txn| {
            db::set_meta(&txn.conn, BACKED_UP, db::micros(made_at))?;
            if retire {
                db::set_meta(&txn.conn, RETIRED, db::micros(made_at))?;
            }
            Ok(())
        })
        .await
    }

    /// When the last backup was made that reached its place.
    pub async fn last_backup(&self) -> Answer<Option<Timestamp>> {
        self.read("look for the last backup", |db| {
            let at = db::meta(&db.conn, BACKED_UP)?;
            Ok(at.map(db::instant))
        })
        .await
    }
}
