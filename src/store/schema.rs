//! The schema: what the steps in `sql/` make, one after the other, and which versions of renewd may use it. SQLite has
//! taken each of them; PostgreSQL came later and gets the first ones at once. There many machines may want to take a step
//! at the same moment: one does, and the others find it taken.

use super::{
    db::{self, Txn},
    error::Outcome,
};
use crate::sql::{self, Connection};

/// The steps before there was PostgreSQL: each brings the schema from its place in this list to the next.
const FIRST: &[&str] = &[
    include_str!("sql/0001.sql"),
    include_str!("sql/0002-delivery.sql"),
    include_str!("sql/0003-campaigns.sql"),
    include_str!("sql/0004-jobs.sql"),
    include_str!("sql/0005-sources.sql"),
    include_str!("sql/0006-keys.sql"),
    include_str!("sql/0007-access.sql"),
    include_str!("sql/0008-orders.sql"),
    include_str!("sql/0009-consumers.sql"),
    include_str!("sql/0010-doubted-keys.sql"),
    include_str!("sql/0011-gone-claims.sql"),
    include_str!("sql/0012-adopting.sql"),
    include_str!("sql/0013-withdrawals.sql"),
    include_str!("sql/0014-failing.sql"),
    include_str!("sql/0015-map.sql"),
    include_str!("sql/0016-callers.sql"),
    include_str!("sql/0017-withheld.sql"),
    include_str!("sql/0018-order.sql"),
    include_str!("sql/0019-second-chance.sql"),
    include_str!("sql/0020-counters.sql"),
    include_str!("sql/0021-cluster.sql"),
    include_str!("sql/0022-files-of-nodes.sql"),
];

/// What they make, for PostgreSQL.
const AT_ONCE: &str = include_str!("sql/postgres.sql");

/// The steps after the first ones, in SQLite and in PostgreSQL; steps are only ever added.
const LATER: &[(&str, &str)] = &[
    (
        include_str!("sql/0023-journal.sql"),
        include_str!("sql/0023-journal.postgres.sql"),
    ),
    (
        include_str!("sql/0024-lacks.sql"),
        include_str!("sql/0024-lacks.postgres.sql"),
    ),
];

/// Nobody else writes then.
const LEADER_LOCKED: &str = "SELECT 1 FROM duty WHERE name = 'leader' FOR UPDATE";

/// The newest schema that we know.
pub(super) const NEWEST: i64 = (FIRST.len() + LATER.len()) as i64;

/// The oldest schema whose code may read and write a store of ours: the newest one of the release before this, so
/// that a step back over one version keeps what there is. Steps after it only *expand*: they add tables, indexes,
/// columns with a default that reads as "not known", and nothing that old code has to keep up. What the release before
/// no longer uses, a step may drop (*contract*). No release was before this one, so it is ours alone.
pub(super) const USABLE_FROM: i64 = NEWEST;

/// Where a store says who may use it: its schema, and `USABLE_FROM` of who made that.
pub(super) const USABLE_KEY: &str = "usable_from";
/// Where a store says that code older than its schema has used it since: it counts nothing that it does not know.
pub(super) const USED_BY_OLDER: &str = "used_by_older";

/// What a store of a schema says of who may use it.
pub(super) fn usable(schema: i64, from: i64) -> String {
    format!("{schema} {from}")
}

/// Whether we may use a database of that schema: we know it, or it says of this very schema that code as old as ours may.
/// `said` is what stands in it under [`USABLE_KEY`].
pub(super) fn may_be_used(found: i64, said: Option<&str>) -> bool {
    let said = said.and_then(|said| said.split_once(' '));
    let is_allowed = said.is_some_and(|(schema, from)| {
        schema.parse() == Ok(found) && from.parse().is_ok_and(|from: i64| from <= NEWEST)
    });
    found <= NEWEST || is_allowed
}

impl Txn<'_> {
    /// After an older renewd used the store: counts everything anew.
    pub(super) fn count_after_older(&mut self) -> Outcome<()> {
        let was_used = db::meta::<i64>(&self.conn, USED_BY_OLDER)?.is_some();
        if was_used && version(&self.conn)? <= NEWEST {
            let wrong = self.mend_counters()?;
            tracing::info!(
                counters = wrong.len(),
                "counted anew, because an older renewd had used this store"
            );
            self.run("DELETE FROM meta WHERE key = ?1", [USED_BY_OLDER])?;
        }
        Ok(())
    }
}

/// The schema of a database; 0 where there is none yet.
pub(super) fn version(conn: &Connection) -> sql::Result<i64> {
    let found = match conn.file() {
        Some(_) => conn.first("PRAGMA user_version", [], |row| row.get(0))?,
        None => {
            let made = "SELECT 1 FROM information_schema.tables \
                        WHERE table_schema = current_schema() AND table_name = 'meta'";
            match conn.first(made, [], |_| Ok(()))? {
                Some(()) => db::meta(conn, VERSION)?,
                None => None,
            }
        }
    };
    Ok(found.unwrap_or(0))
}

/// Where PostgreSQL's schema is noted; SQLite has a place of its own.
pub(super) const VERSION: &str = "schema";

fn note_version(conn: &Connection, schema: i64) -> sql::Result<()> {
    match conn.file() {
        Some(_) => conn.batch(&format!("PRAGMA user_version = {schema}")),
        None => db::set_meta(conn, VERSION, schema),
    }
}

/// Takes all steps that are missing, in one transaction each.
pub(super) fn migrate(conn: &Connection, from: i64) -> sql::Result<()> {
    migrate_to(conn, from, NEWEST)
}

/// Takes the steps from one schema to another.
pub(super) fn migrate_to(conn: &Connection, from: i64, to: i64) -> sql::Result<()> {
    let mut at = from;
    while at < to
        && let Some(reached) = take_step(conn, at, |_| Ok(()))?
    {
        at = reached;
    }
    Ok(())
}

/// Makes all of it in an empty database. What `mark` writes is there with the first step.
pub(super) fn make(
    conn: &Connection,
    mark: impl FnOnce(&Connection) -> sql::Result<()>,
) -> sql::Result<()> {
    match take_step(conn, 0, mark)? {
        Some(made) => migrate(conn, made),
        None => Ok(()),
    }
}

/// Takes the next step, with what else is to be written; which schema that makes. Nothing after the newest.
fn take_step(
    conn: &Connection,
    at: i64,
    also: impl FnOnce(&Connection) -> sql::Result<()>,
) -> sql::Result<Option<i64>> {
    let Some((step, reached)) = step_from(at, conn.file().is_some()) else {
        return Ok(None);
    };
    conn.begin()?;
    if let Some(found) = taken_by_others(conn, at)? {
        conn.batch("ROLLBACK")?;
        return Ok(Some(found));
    }
    let taken = conn
        .batch(step)
        .and_then(|()| note_version(conn, reached))
        .and_then(|()| db::set_meta(conn, USABLE_KEY, usable(reached, USABLE_FROM)))
        .and_then(|()| also(conn));
    let ended = taken.and_then(|()| conn.batch("COMMIT"));
    ended.inspect_err(|_| {
        // The step's error is the one to tell; a failed roll-back ends with the connection.
        conn.batch("ROLLBACK").ok();
    })?;
    Ok(Some(reached))
}

/// The schema that another machine has made of this one meanwhile; none does from now on until the transaction ends.
fn taken_by_others(conn: &Connection, at: i64) -> sql::Result<Option<i64>> {
    if at == 0 || conn.file().is_some() {
        return Ok(None);
    }
    conn.first(LEADER_LOCKED, [], |_| Ok(()))?;
    let found = version(conn)?;
    Ok(Some(found).filter(|found| *found > at))
}

/// What is to be done to a schema, and which one that makes.
fn step_from(at: i64, in_file: bool) -> Option<(&'static str, i64)> {
    let (place, first) = (usize::try_from(at).ok()?, FIRST.len());
    if let Some(later) = place.checked_sub(first) {
        let (sqlite, postgres) = LATER.get(later)?;
        return Some((if in_file { sqlite } else { postgres }, at + 1));
    }
    match in_file {
        true => Some((FIRST.get(place)?, at + 1)),
        false => Some((AT_ONCE, i64::try_from(first).ok()?)),
    }
}
