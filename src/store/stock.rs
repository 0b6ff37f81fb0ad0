//! How many tokens there are that are due and end alike: what a plan is made from. One pass over the index of what is
//! due, which holds all of it; no row is read.

use std::{fs, path::Path};

use rusqlite::{Connection, OpenFlags, Row, params};

use super::{Store, StoreError, aside::RowKind, db::unsigned, error::Answer, schema};
use crate::model::{RESERVED, ResourceName, Stock, Timestamp, TokenGroup, percent_encoded};

/// A token is late when a quarter of its life is left: so `late_at` tells how long it lives. What is in doubt, revoked
/// or was never there has no end above zero.
pub(super) const STOCK: &str = "SELECT (id IS NULL) AS unmade, due_at / 60000000 AS due, \
    iif(good_until > 0, good_until / 60000000, 0) AS ends, \
    iif(good_until > 0, (good_until - late_at + 7500000) / 15000000, 0) AS life, count(*) AS n \
    FROM identity WHERE resource = ?1 AND (id IS NULL) IN (0, 1) \
    AND (failing_since IS NOT NULL) IN (0, 1) AND due_at IS NOT NULL GROUP BY 1, 2, 3, 4";

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

/// What a store that nobody has open knows of a resource; `None` where there is no store yet, or one of a schema that does not serve.
/// Nothing is changed: no lock is taken and no schema is brought up to date.
///
/// # Errors
/// When the database cannot be read.
pub fn stock_at_rest(
    path: &Path,
    resource: &ResourceName,
    now: Timestamp,
) -> Result<Option<Stock>, StoreError> {
    let failed =
        |error: rusqlite::Error| StoreError::new("count tokens by their end", error.into());
    if !fs::metadata(path).is_ok_and(|found| found.len() > 0) {
        return Ok(None);
    }
    let conn = opened(path).map_err(failed)?;
    let found = schema::version(&conn).map_err(failed)?;
    if found < schema::NEWEST || !schema::may_be_used(&conn, found).map_err(failed)? {
        return Ok(None);
    }
    let read = || -> rusqlite::Result<Vec<Alike>> {
        let named = "SELECT coalesce((SELECT num FROM resource WHERE name = ?1), 0)";
        let num: i64 = conn.query_row(named, [resource.as_str()], |row| row.get(0))?;
        conn.prepare(STOCK)?
            .query_map(params![num], alike)?
            .collect()
    };
    Ok(Some(summed(read().map_err(failed)?, now)))
}

/// After a clean end everything is in the database alone, and nothing needs to be made beside it.
fn opened(path: &Path) -> rusqlite::Result<Connection> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let is_whole = !fs::metadata(Path::new(&wal)).is_ok_and(|found| found.len() > 0);
    match path.to_str().filter(|_| is_whole) {
        Some(text) => {
            let uri = format!("file:{}?immutable=1", percent_encoded(text, RESERVED));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        None => Connection::open_with_flags(path, flags),
    }
}

fn alike(row: &Row<'_>) -> rusqlite::Result<Alike> {
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
