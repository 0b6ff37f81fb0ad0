//! One connection and one transaction on it: what the verbs of this room are written on.

use std::{cell::Cell, collections::BTreeSet, ops::Deref, path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row, config::DbConfig};

use super::{
    aside::{self, Aside, RowKind},
    campaigns::CampaignId,
    columns,
    commit::Standing,
    error::Outcome,
    idmap::IdLine,
    seal::Seal,
    withdrawals::Fact,
};
use crate::model::{Name, Num, Version};

/// How long another program may hold the database before we say so.
const BUSY: Duration = Duration::from_secs(5);
/// Page cache in KiB: the writer's, and each reader's.
const WRITER_CACHE: i64 = 16 * 1024;
const READER_CACHE: i64 = 4 * 1024;

/// A connection with what its verbs need.
pub(super) struct Db {
    pub(super) conn: Connection,
    pub(super) seal: Arc<Seal>,
    /// Rows that cannot be read.
    pub(super) aside: Arc<Aside>,
    /// Versions begin above this one.
    pub(super) floor: Cell<u64>,
}

/// Without this, SQLite prepares statements anew each time other values are bound, because of the
/// partial indexes (sqlite.org, query planner stability guarantee): a third of a renewal's cost.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

impl Db {
    /// The connection that writes. `durable` is false only under simulated time, where no power can
    /// fail.
    pub(super) fn connect(path: &Path, durable: bool) -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        conn.pragma_update(None, "journal_mode", "wal")?;
        conn.pragma_update(None, "synchronous", if durable { "full" } else { "off" })?;
        conn.pragma_update(None, "secure_delete", true)?;
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
        conn.pragma_update(None, "cache_size", -WRITER_CACHE)?;
        keep_plans(&conn)?;
        conn.set_prepared_statement_cache_capacity(128);
        Ok(conn)
    }

    /// A connection that only reads.
    pub(super) fn reader(
        path: &Path,
        seal: Arc<Seal>,
        aside: Arc<Aside>,
    ) -> rusqlite::Result<Self> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.pragma_update(None, "cache_size", -READER_CACHE)?;
        keep_plans(&conn)?;
        conn.set_prepared_statement_cache_capacity(64);
        Ok(Self {
            conn,
            seal,
            aside,
            floor: Cell::default(),
        })
    }

    /// Runs one statement; how many rows it changed.
    pub(super) fn run(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute(params)
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.conn
            .prepare_cached(sql)?
            .query_row(params, read)
            .optional()
    }

    /// The first row, if there is one; one that cannot be read is set aside.
    pub(super) fn one<T>(
        &self,
        kind: RowKind,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.first(sql, params, |row| {
            read(row).inspect_err(|error| {
                if aside::is_unreadable(error) {
                    self.aside.note(kind, row, error);
                }
            })
        })
    }

    /// The same, nothing also where the row cannot be read: who tells of many goes on without it.
    pub(super) fn readable_one<T>(
        &self,
        kind: RowKind,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        match self.one(kind, sql, params, read) {
            Err(error) if aside::is_unreadable(&error) => Ok(None),
            found => found,
        }
    }

    /// All rows that can be read; the others are set aside.
    pub(super) fn all<T>(
        &self,
        kind: RowKind,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.page(kind, usize::MAX, sql, params, read)
    }

    /// The first `limit` rows that can be read, in the way of [`Db::some`].
    pub(super) fn page<T>(
        &self,
        kind: RowKind,
        limit: usize,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.some(kind, limit, sql, params, |row| read(row).map(Some))
    }

    /// The first rows that can be read and are not passed over (`None`), at most `limit`. The query has
    /// no limit of its own and finds its rows in order, so that however many cannot be read, those
    /// behind them are reached, and no more is read than is needed.
    pub(super) fn some<T>(
        &self,
        kind: RowKind,
        limit: usize,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            match read(row) {
                Ok(one) => found.extend(one),
                Err(error) if aside::is_unreadable(&error) => self.aside.note(kind, row, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The number of a resource; 0, which no row has, when the store has never heard of it.
    pub(super) fn resource_num(&self, name: &str) -> rusqlite::Result<Num> {
        let num = self.first("SELECT num FROM resource WHERE name = ?1", [name], |row| {
            row.get(0)
        })?;
        Ok(num.unwrap_or(0))
    }

    /// The number of a sink; 0 when the store has never heard of it.
    pub(super) fn sink_num(&self, name: &str) -> rusqlite::Result<Num> {
        let num = self.first("SELECT num FROM sink WHERE name = ?1", [name], |row| {
            row.get(0)
        })?;
        Ok(num.unwrap_or(0))
    }
}

/// A change of what consumers should hold, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Store-wide and rising; the `id` of the event stream.
    pub seq: u64,
    /// The row.
    pub num: Num,
    /// Its name.
    pub name: Name,
    /// Its new version.
    pub version: Version,
}

/// What a committed operation means to others.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Rows became due.
    pub(super) due: bool,
    /// `wanted` or versions were raised.
    pub(super) wanted: bool,
    /// A campaign was made.
    pub(super) campaigns: bool,
    /// Versions that changed, in order.
    pub(super) changed: Vec<Changed>,
    /// Rows of which the map has to say something new; said in [`Effects::ids`] once the operation ends.
    pub(super) mapped: BTreeSet<Num>,
    /// New lines of the map.
    pub(super) ids: Vec<IdLine>,
    /// Lines of the map do not count any more.
    pub(super) ids_replaced: bool,
    /// It was a clean-up: time to catch up with what was put off.
    pub(super) cleaned: bool,
    /// Whose withdrawal changed; said in [`Effects::facts`] once the operation ends.
    pub(super) touched: Touched,
    /// What `withdrawn.jsonl` has to say before the commit.
    pub(super) facts: Vec<Fact>,
    /// The highest version that was given out, and whether it ran ahead of the clock.
    pub(super) highest: u64,
    pub(super) ahead: bool,
    /// A person accepted a store of which it was not known what was withdrawn.
    pub(super) accepted: bool,
}

/// Whose withdrawal an operation changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Rows that were held, released, revoked, deleted, or let go of.
    pub(super) rows: BTreeSet<Num>,
    /// Rows that became items of a campaign.
    pub(super) listed: BTreeSet<Num>,
    /// Items without a row.
    pub(super) ids: BTreeSet<(CampaignId, Num)>,
    /// Campaigns.
    pub(super) campaigns: BTreeSet<CampaignId>,
}

impl Touched {
    fn absorb(&mut self, next: Self) {
        self.rows.extend(next.rows);
        self.listed.extend(next.listed);
        self.ids.extend(next.ids);
        self.campaigns.extend(next.campaigns);
    }
}

impl Effects {
    /// Adds those of the next operation, or of the next part of one.
    pub(super) fn absorb(&mut self, next: Self) {
        self.due |= next.due;
        self.wanted |= next.wanted;
        self.campaigns |= next.campaigns;
        self.changed.extend(next.changed);
        self.mapped.extend(next.mapped);
        self.ids.extend(next.ids);
        self.ids_replaced |= next.ids_replaced;
        self.cleaned |= next.cleaned;
        self.touched.absorb(next.touched);
        self.facts.extend(next.facts);
        self.highest = self.highest.max(next.highest);
        self.ahead |= next.ahead;
        self.accepted |= next.accepted;
    }
}

/// One operation inside the writer's transaction; reads what the connection reads.
pub(super) struct Txn<'a> {
    db: &'a Db,
    pub(super) effects: Effects,
    /// Entries that may be refused alone are written under savepoints.
    pub(super) careful: bool,
    /// Whether any item of a campaign waits for a token; looked up when it is first asked.
    pub(super) awaited: Option<bool>,
    /// An entry was refused that may be refused alone, and there was no savepoint: it has to run again.
    pub(super) torn: bool,
}

impl Deref for Txn<'_> {
    type Target = Db;

    fn deref(&self) -> &Db {
        self.db
    }
}

impl<'a> Txn<'a> {
    /// Without savepoints: where it fails, the whole transaction is taken back.
    pub(super) fn on(db: &'a Db) -> Self {
        Self {
            db,
            effects: Effects::default(),
            careful: false,
            awaited: None,
            torn: false,
        }
    }

    /// What is refused alone is taken back alone.
    pub(super) fn careful(db: &'a Db) -> Self {
        Self {
            careful: true,
            ..Self::on(db)
        }
    }

    /// Whether it has to run again, carefully.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Ends the operation: numbers its changes in the store-wide sequence.
    pub(super) fn finish(&mut self) -> Outcome<Effects> {
        if !self.effects.changed.is_empty() {
            let mut seq = self.seq()?;
            for changed in &mut self.effects.changed {
                seq += 1;
                changed.seq = seq;
            }
            columns::set_meta(&self.db.conn, "seq", columns::signed(seq))?;
        }
        self.effects.facts = self.facts()?;
        for num in std::mem::take(&mut self.effects.mapped) {
            let line = self.id_line(num)?;
            self.effects.ids.extend(line);
        }
        Ok(std::mem::take(&mut self.effects))
    }

    /// The number of a resource, which is noted if it is new.
    pub(super) fn resource_num_or_new(&self, name: &str) -> rusqlite::Result<Num> {
        match self.resource_num(name)? {
            0 => {
                self.run("INSERT INTO resource (name) VALUES (?1)", [name])?;
                Ok(self.conn.last_insert_rowid())
            }
            num => Ok(num),
        }
    }

    /// Tells every sink of a row, and all who watch, that it has a new version.
    pub(super) fn want(&mut self, row: &Standing, version: Version, now: i64) -> Outcome<()> {
        match row.by_socket {
            true => self.note_version(row.num, &row.name, version),
            false => self.want_of(row.num, &row.name, version, now)?,
        }
        Ok(())
    }

    /// The same of a row of which it is not known whether it has a sink.
    pub(super) fn want_of(
        &mut self,
        num: Num,
        name: &Name,
        version: Version,
        now: i64,
    ) -> Outcome<()> {
        self.run(
            "UPDATE delivery SET since = iif(wanted > delivered, since, ?3), wanted = ?2, attempts = 0, next_at = ?3, \
             last_error = NULL WHERE identity = ?1",
            (num, columns::signed(version.0), now),
        )?;
        self.note_version(num, name, version);
        Ok(())
    }

    fn note_version(&mut self, num: Num, name: &Name, version: Version) {
        self.effects.wanted = true;
        self.effects.changed.push(Changed {
            seq: 0,
            num,
            name: name.clone(),
            version,
        });
    }
}

impl Db {
    /// The last number of the watch stream.
    pub(super) fn seq(&self) -> Outcome<u64> {
        let seq = columns::meta::<i64>(&self.conn, "seq")?;
        Ok(seq.unwrap_or(0).unsigned_abs())
    }
}
