//! The seal key is replaced while the store is used. Its successor lies in a file of its own before anything
//! is sealed with it; from then on what is new is sealed with it, and what is old is opened with either key
//! and sealed anew, some rows at a time. Only when nothing is sealed with the old key any more does the
//! store belong to the new one, and only then does the old key go from its place. Whenever the process is
//! killed, the next one has what it needs, and goes on.

use rusqlite::params;

use super::{
    Cause,
    columns::{self, signed},
    db::{Db, Txn},
    error::{Fault, Outcome},
    identities::{count, token_place},
};
use crate::model::{AuditEntry, Name, Timestamp};

/// The id of the key that takes over, while it does.
pub(super) const SUCCESSOR: &str = "seal_key_next";
/// The row up to which everything is sealed anew; beyond it, it may be.
const DONE_UP_TO: &str = "seal_key_done";
/// How many rows are sealed anew.
const SEALED_ANEW: &str = "seal_key_sealed";

/// How far the replacement of the seal key is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resealing {
    /// The id of the key that the store belongs to.
    pub key: String,
    /// The id of its successor, while it takes over.
    pub successor: Option<String>,
    /// Tokens that are sealed with the successor already, as far as this replacement sealed them.
    pub sealed: u64,
    /// Tokens that there are, while one takes over.
    pub tokens: u64,
    /// What is left to be done by hand.
    pub by_hand: Option<String>,
}

/// Forgets that a key takes over.
pub(super) fn forget(conn: &rusqlite::Connection) -> rusqlite::Result<()> {
    for key in [SUCCESSOR, DONE_UP_TO, SEALED_ANEW] {
        conn.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    }
    Ok(())
}

impl Db {
    /// How far it is.
    pub(super) fn resealing(&self) -> Outcome<Resealing> {
        let successor: Option<String> = columns::meta(&self.conn, SUCCESSOR)?;
        let count = "SELECT count(*) FROM identity WHERE token IS NOT NULL";
        let tokens = match successor {
            Some(_) => self.first(count, [], |row| row.get::<_, i64>(0))?,
            None => None,
        };
        Ok(Resealing {
            key: columns::meta(&self.conn, "seal_key")?.unwrap_or_default(),
            successor,
            sealed: self.number(SEALED_ANEW)?,
            tokens: tokens.unwrap_or_default().unsigned_abs(),
            by_hand: None,
        })
    }
}

impl Txn<'_> {
    /// Notes who takes over; one that is under way stays.
    pub(super) fn begin_reseal(&mut self, id: &str, cause: &Cause, now: Timestamp) -> Outcome<()> {
        let before = self.resealing()?;
        if before.successor.is_some() {
            return Ok(());
        }
        columns::set_meta(&self.conn, SUCCESSOR, id)?;
        self.note(
            cause,
            now,
            format!("begun: {} is replaced by {id}", before.key),
        )
    }

    /// Seals the next rows with the new key; whether there were no more, and the store belongs to it.
    pub(super) fn reseal(&mut self, rows: usize, now: Timestamp) -> Outcome<bool> {
        let Some(successor) = columns::meta::<String>(&self.conn, SUCCESSOR)? else {
            return Ok(true);
        };
        if self.seal.key_id() != successor {
            return Err(Fault::Refused(format!(
                "the seal key {successor} is not there; put its file back and restart the daemon"
            )));
        }
        let after = self.number(DONE_UP_TO)?;
        let sql =
            "SELECT num, name, version, token FROM identity WHERE num > ?1 ORDER BY num LIMIT ?2";
        let read = |row: &rusqlite::Row<'_>| {
            let token = row.get_ref(3)?.as_blob_or_null().ok().flatten();
            // A row that cannot be read is set aside elsewhere; nothing of it can be sealed.
            let named: Option<(Name, u64)> = row
                .get_ref(1)?
                .as_str()
                .ok()
                .and_then(|name| name.parse().ok())
                .zip(row.get::<_, i64>(2).ok().map(i64::unsigned_abs));
            Ok((row.get::<_, i64>(0)?, named, token.map(<[u8]>::to_vec)))
        };
        let page: Vec<_> = {
            let mut statement = self.conn.prepare_cached(sql)?;
            let found = statement.query_map(params![signed(after), count(rows)], read)?;
            found.collect::<rusqlite::Result<_>>()?
        };
        let Some((last, ..)) = page.last() else {
            return self.belong_to(&successor, now);
        };
        columns::set_meta(&self.conn, DONE_UP_TO, *last)?;
        let mut sealed = self.number(SEALED_ANEW)?;
        for (num, named, token) in &page {
            let (Some((name, version)), Some(token)) = (named, token) else {
                continue;
            };
            let place = token_place(name, *version);
            // What opens with neither key is told where it is read, and renewed.
            if let Ok(plain) = self.seal.open(place, token) {
                let anew = self.seal.seal(place, &plain).map_err(|e| Fault::file(&e))?;
                self.run(
                    "UPDATE identity SET token = ?2 WHERE num = ?1",
                    params![num, anew],
                )?;
                sealed += 1;
            }
        }
        columns::set_meta(&self.conn, SEALED_ANEW, signed(sealed))?;
        Ok(false)
    }

    fn belong_to(&mut self, successor: &str, now: Timestamp) -> Outcome<bool> {
        let before = self.resealing()?;
        columns::set_meta(&self.conn, "seal_key", successor)?;
        forget(&self.conn)?;
        let said = format!(
            "done: {} tokens are sealed with {successor}, none with {}",
            before.sealed, before.key
        );
        self.note(&Cause::ours("every token is sealed with it"), now, said)?;
        Ok(true)
    }

    fn note(&mut self, cause: &Cause, now: Timestamp, result: String) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: cause.actor.clone(),
            action: "store.reseal".to_owned(),
            name: None,
            reason: cause.reason.clone(),
            request_id: None,
            result,
        })
    }
}
