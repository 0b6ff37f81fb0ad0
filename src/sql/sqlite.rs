//! SQLite: how its connections are opened.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// How long another program may hold the database before we say so.
const BUSY: Duration = Duration::from_secs(5);
/// Page cache in KiB: the writer's, and each reader's.
const WRITER_CACHE: i64 = 12 * 1024;
const READER_CACHE: i64 = 4 * 1024;

/// The connection that writes. `durable` is false only under simulated time, where no power can fail.
pub(super) fn writer(path: &Path, durable: bool) -> rusqlite::Result<Connection> {
    let conn = opened(path)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", if durable { "full" } else { "off" })?;
    conn.pragma_update(None, "secure_delete", true)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE)?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(conn)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = opened(path)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", -READER_CACHE)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn opened(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // Without this, SQLite prepares statements anew each time other values are bound, because of the partial indexes
    // (sqlite.org, query planner stability guarantee): a third of a renewal's cost.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}
