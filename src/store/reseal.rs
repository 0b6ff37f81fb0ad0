//! The seal key is replaced while the store is used. Its successor lies in a file of its own before anything
//! is sealed with it; from then on what is new is sealed with it, and what is old is opened with either key
//! and sealed anew, some rows at a time. Only when nothing is sealed with the old key any more does the
//! store belong to the new one, and only then does the old key go from its place. Whenever the process is
//! killed, the next one has what it needs, and goes on.

use std::path::PathBuf;

use super::{
    Cause, OpenError, Store,
    db::{self, Db, Txn, signed},
    error::{Answer, Fault, Outcome, StoreError},
    identities::{count, token_place},
    seal,
    tables::Counting,
};
use crate::{
    model::{AuditEntry, Name, Timestamp},
    sql::{self, params},
};

/// The id of the key that takes over, while it does.
pub(super) const SUCCESSOR: &str = "seal_key_next";
/// The row up to which everything is sealed anew; beyond it, it may be.
const DONE_UP_TO: &str = "seal_key_done";
/// How many rows are sealed anew.
const SEALED_ANEW: &str = "seal_key_sealed";

/// How far the replacement of the seal key is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
pub(super) fn forget(conn: &sql::Connection) -> sql::Result<()> {
    for key in [SUCCESSOR, DONE_UP_TO, SEALED_ANEW] {
        conn.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    }
    Ok(())
}

impl Store {
    /// Begins to replace the seal key, or goes on; how far it is.
    pub async fn begin_reseal(&self, cause: &Cause, now: Timestamp) -> Answer<Resealing> {
        if self.is_shared() {
            let why = "the machines of a cluster share their seal key, and each has to be given another one by hand";
            let why = Fault::Refused(why.to_owned());
            return Err(StoreError::new("replace the seal key", why));
        }
        let (state_dir, cause) = (self.state_dir().to_owned(), cause.clone());
        let before = self.resealing().await?;
        if let Some(why) = before.by_hand {
            let why = format!("the last replacement is not over: {why}");
            return Err(StoreError::new("replace the seal key", Fault::Refused(why)));
        }
        self.write("replace the seal key", move |txn| {
            if txn.resealing()?.successor.is_some() {
                return Ok(());
            }
            // Its file is on the disk before anything is sealed with it.
            let id = seal::next_or_new(&state_dir).map_err(|error| refused(&error))?;
            txn.begin_reseal(&id, &cause, now)
        })
        .await?;
        self.0.reseal.notify_one();
        self.resealing().await
    }

    /// Waits until somebody wants the seal key replaced.
    pub async fn reseal_wanted(&self) {
        self.0.reseal.notified().await;
    }

    /// Has the key seal that takes over; the id of the one before, where one takes over.
    pub async fn take_successor(&self) -> Answer<Option<String>> {
        let before = self.resealing().await?;
        let Some(successor) = before.successor else {
            return Ok(None);
        };
        let state_dir = self.state_dir().to_owned();
        self.write("take the new seal key", move |txn| {
            txn.seal.succeed(
                &*seal::successor(&state_dir, &successor).map_err(|error| refused(&error))?,
            );
            Ok(Some(before.key.clone()))
        })
        .await
    }

    /// Seals the next rows with the key that takes over; whether the store belongs to it now.
    pub async fn reseal(&self, rows: usize, now: Timestamp) -> Answer<bool> {
        self.write("seal tokens anew", move |txn| txn.reseal(rows, now))
            .await
    }

    /// Gives the key that has taken over its place; where the old one is kept, or what is left to be done.
    pub async fn settle_reseal(&self, before: &str) -> Answer<String> {
        let (settings, state_dir) = (self.settings().clone(), self.state_dir().to_owned());
        self.write("put the new seal key in its place", move |_| {
            seal::settle(&settings, &state_dir).map_err(|error| refused(&error))
        })
        .await?;
        let by_hand = self.resealing().await?.by_hand;
        Ok(by_hand.unwrap_or_else(|| self.former_key(before)))
    }

    /// Where the key file is that was replaced.
    pub fn former_key(&self, id: &str) -> String {
        format!(
            "the old key is kept as {} for backups made before; delete it when none of them is left",
            seal::kept(self.state_dir(), id).display()
        )
    }

    /// What the former key sealed opens no more: nobody reads it any more.
    pub async fn forget_former_key(&self) -> Answer<()> {
        self.write("forget the former seal key", |txn| {
            txn.seal.forget_former();
            Ok(())
        })
        .await
    }

    /// The file of the seal key, where there should be one and is none.
    pub fn seal_key_gone(&self) -> Option<PathBuf> {
        seal::missing(self.settings(), self.state_dir())
    }

    /// How far the replacement of the seal key is.
    pub async fn resealing(&self) -> Answer<Resealing> {
        let (settings, state_dir) = (self.settings().clone(), self.state_dir().to_owned());
        self.read("look at the seal key", move |db| {
            let resealing = db.resealing()?;
            let by_hand = match &resealing.successor {
                None => seal::by_hand(&settings, &state_dir, &resealing.key),
                Some(_) => None,
            };
            Ok(Resealing {
                by_hand,
                ..resealing
            })
        })
        .await
    }
}

impl Db {
    /// How far it is.
    pub(super) fn resealing(&self) -> Outcome<Resealing> {
        let successor: Option<String> = db::meta(&self.conn, SUCCESSOR)?;
        let count = "SELECT count(*) FROM identity WHERE token IS NOT NULL";
        let tokens = match successor {
            Some(_) => self.first(count, [], |row| row.get::<_, i64>(0))?,
            None => None,
        };
        Ok(Resealing {
            key: db::meta(&self.conn, "seal_key")?.unwrap_or_default(),
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
        db::set_meta(&self.conn, SUCCESSOR, id)?;
        self.note(
            cause,
            now,
            format!("begun: {} is replaced by {id}", before.key),
        )
    }

    /// Seals the next rows with the new key; whether there were no more, and the store belongs to it.
    pub(super) fn reseal(&mut self, rows: usize, now: Timestamp) -> Outcome<bool> {
        let Some(successor) = db::meta::<String>(&self.conn, SUCCESSOR)? else {
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
        let read = |row: &sql::Row<'_>| {
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
        let page = self.every(sql, params![signed(after), count(rows)], read)?;
        let Some((last, ..)) = page.last() else {
            return self.belong_to(&successor, now);
        };
        db::set_meta(&self.conn, DONE_UP_TO, *last)?;
        let mut sealed = self.number(SEALED_ANEW)?;
        for (num, named, token) in &page {
            let (Some((name, version)), Some(token)) = (named, token) else {
                continue;
            };
            let place = token_place(name, *version);
            // What opens with neither key is told where it is read, and renewed.
            if let Ok(plain) = self.seal.open(place, token) {
                let anew = self.seal.seal(place, &plain).map_err(|e| Fault::file(&e))?;
                let what = "SET token = ?2 WHERE num = ?1";
                self.write_identities(what, params![num, anew], Counting::Nothing)?;
                sealed += 1;
            }
        }
        db::set_meta(&self.conn, SEALED_ANEW, signed(sealed))?;
        Ok(false)
    }

    fn belong_to(&mut self, successor: &str, now: Timestamp) -> Outcome<bool> {
        let before = self.resealing()?;
        db::set_meta(&self.conn, "seal_key", successor)?;
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

fn refused(error: &OpenError) -> Fault {
    Fault::Refused(error.to_string())
}
