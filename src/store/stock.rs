//! How many tokens there are that are due and end alike: what a plan is made from. Either one pass over the index of
//! what is due, which holds all of it, so that no row is read; or by the counters alone, for whoever looks often.

use std::{collections::BTreeSet, fs, path::Path};

use rusqlite::OpenFlags;

use super::{
    Store, StoreError,
    aside::RowKind,
    db::{self, unsigned},
    error::Answer,
    open, schema,
};
use crate::{
    config::StoreSettings,
    model::{
        CountedLife, Lives, RESERVED, ResourceName, Stock, Timestamp, TokenGroup, percent_encoded,
    },
    sql::{self, Connection, Row, SqlError, params},
};

macro_rules! lengths {
    ($order:literal) => {
        concat!(
            "SELECT DISTINCT (good_until - late_at + 7500000) / 15000000 FROM (SELECT good_until, late_at FROM identity \
             INDEXED BY identity_ending WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ = 0 AND (failing_since IS NOT NULL)/*postgres ::int*/ = 0 \
             AND due_at IS NOT NULL AND good_until > 0 ORDER BY good_until ",
            $order,
            " LIMIT 256) few WHERE late_at IS NOT NULL"
        )
    };
}

/// A token is late when a quarter of its life is left: so `late_at` tells how long it lives. What is in doubt, revoked
/// or was never there has no end above zero.
pub(super) const STOCK: &str = "SELECT (id IS NULL) AS unmade, due_at / 60000000 AS due, \
    CASE WHEN good_until > 0 THEN good_until / 60000000 ELSE 0 END AS ends, \
    CASE WHEN good_until > 0 THEN (good_until - late_at + 7500000) / 15000000 ELSE 0 END AS life, count(*) AS n \
    FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ IN (0, 1) \
    AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL GROUP BY 1, 2, 3, 4";

/// The same by the minutes of the counters, which do not say how long each lives.
pub(super) const LIVES: &str =
    "SELECT renews, late, n FROM life_count WHERE resource = ?1 AND n > 0";
/// How long some of the tokens live that end first, and some of those that end last.
pub(super) const FIRST_LENGTHS: &str = lengths!("ASC");
pub(super) const LAST_LENGTHS: &str = lengths!("DESC");
/// Those that are to be created; all others are passed over.
pub(super) const UNMADE: &str = "SELECT count(*) FROM identity INDEXED BY identity_ending WHERE resource = ?1 \
    AND (id IS NULL)/*postgres ::int*/ = 1 AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL";

/// A row of it.
struct Alike {
    unmade: bool,
    group: TokenGroup,
}

impl Store {
    /// What there is of a resource's identities that want a token.
    pub async fn stock(&self, resource: &ResourceName, now: Timestamp) -> Answer<Stock> {
        let resource = resource.clone();
        self.read("count tokens by their end", move |db| {
            let params = params![db.resource_num(resource.as_str())?];
            let rows = db.all(RowKind::Identity, STOCK, params, alike)?;
            Ok(summed(rows, now))
        })
        .await
    }
}

impl Store {
    /// What the counters know of the tokens of a resource: however many there are, only their minutes are read.
    pub async fn lives(&self, resource: &ResourceName) -> Answer<Lives> {
        let resource = resource.clone();
        self.read("read when tokens are due", move |db| {
            let params = params![db.resource_num(resource.as_str())?];
            let groups = db.all(RowKind::Counter, LIVES, params, |row| {
                Ok(CountedLife {
                    due: row.get("renews")?,
                    late: row.get("late")?,
                    count: unsigned(row, "n")?,
                })
            })?;
            let mut lengths = BTreeSet::new();
            for sql in [FIRST_LENGTHS, LAST_LENGTHS] {
                let found = db.all(RowKind::Identity, sql, params, |row| row.get::<_, i64>(0))?;
                lengths.extend(found.into_iter().map(|minutes| minutes.max(1)));
            }
            let unmade = db.first(UNMADE, params, |row| row.get::<_, i64>(0))?;
            Ok(Lives {
                groups,
                lengths,
                unmade: unmade.unwrap_or(0).unsigned_abs(),
            })
        })
        .await
    }
}

/// What a store that nobody has open knows of a resource; `None` where there is no store yet, or one of a schema that does not serve.
/// Nothing is changed: no lock is taken and no schema is brought up to date.
///
/// # Errors
/// When the database cannot be read.
pub fn stock_at_rest(
    settings: &StoreSettings,
    resource: &ResourceName,
    now: Timestamp,
) -> Result<Option<Stock>, StoreError> {
    let failed = |error: SqlError| StoreError::new("count tokens by their end", error.into());
    let conn = match settings.place.file() {
        Some(path) if !fs::metadata(path).is_ok_and(|found| found.len() > 0) => return Ok(None),
        Some(path) => opened(path),
        None => open::session(settings, "plan"),
    }
    .map_err(failed)?;
    let found = schema::version(&conn).map_err(failed)?;
    if found < schema::NEWEST {
        return Ok(None);
    }
    let said = db::meta::<String>(&conn, schema::USABLE_KEY).map_err(failed)?;
    if !schema::may_be_used(found, said.as_deref()) {
        return Ok(None);
    }
    let read = || -> sql::Result<Vec<Alike>> {
        let named = "SELECT num FROM resource WHERE name = ?1";
        let num: Option<i64> = conn.first(named, [resource.as_str()], |row| row.get(0))?;
        let mut rows = Vec::new();
        conn.each(STOCK, [num.unwrap_or(0)], None, |row| {
            rows.push(alike(row)?);
            Ok(true)
        })?;
        Ok(rows)
    };
    Ok(Some(summed(read().map_err(failed)?, now)))
}

/// After a clean end everything is in the database alone, and nothing needs to be made beside it.
fn opened(path: &Path) -> sql::Result<Connection> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let is_whole = !fs::metadata(Path::new(&wal)).is_ok_and(|found| found.len() > 0);
    let conn = match path.to_str().filter(|_| is_whole) {
        Some(text) => {
            let uri = format!("file:{}?immutable=1", percent_encoded(text, RESERVED));
            rusqlite::Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
        }
        None => rusqlite::Connection::open_with_flags(path, flags)?,
    };
    Ok(conn.into())
}

fn alike(row: &Row<'_>) -> sql::Result<Alike> {
    Ok(Alike {
        unmade: row.get("unmade")?,
        group: TokenGroup {
            due: row.get("due")?,
            ends: row.get("ends")?,
            life: row.get("life")?,
            count: unsigned(row, "n")?,
        },
    })
}

fn summed(rows: Vec<Alike>, now: Timestamp) -> Stock {
    let minute = now.as_second().div_euclid(60);
    let mut stock = Stock::default();
    for Alike { unmade, group } in rows {
        if unmade {
            stock.unmade += group.count;
        } else if group.ends > minute && group.life > 0 {
            stock.tokens.push(group);
        } else {
            stock.without += group.count;
        }
    }
    stock
}
