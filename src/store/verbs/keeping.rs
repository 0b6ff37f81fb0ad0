//! Verbs of the audit trail, and of cleaning up.

use std::fs::File;

use super::Answer;
use crate::{
    model::{AuditEntry, StoreStanding, Timestamp},
    store::{
        AuditQuery, Cause, OpenError, Pruned, Resealing, Store, StoreError, backup, columns,
        error::Fault, key,
    },
};

fn refused(error: &OpenError) -> Fault {
    Fault::Refused(error.to_string())
}

impl Store {
    /// Adds entries to the audit trail.
    pub async fn audit(&self, entries: Vec<AuditEntry>) -> Answer<()> {
        self.write("write the audit trail", move |txn| {
            entries.iter().try_for_each(|entry| txn.audit(entry))
        })
        .await
    }

    /// The audit trail, newest first.
    pub async fn audit_trail(&self, query: AuditQuery) -> Answer<Vec<AuditEntry>> {
        self.read("read the audit trail", move |db| db.audit_trail(&query))
            .await
    }

    /// Goes on with a store of which it is not known what was withdrawn; how many tokens of unknown
    /// standing are renewed now.
    pub async fn accept(&self, cause: &Cause, now: Timestamp) -> Answer<u64> {
        let cause = cause.clone();
        self.withdraw("accept the store", move |txn| txn.accept(&cause, now))
            .await
    }

    /// Takes a store over that belonged to another machine; whether it may be used then.
    pub async fn adopt(&self, cause: &Cause, now: Timestamp) -> Answer<StoreStanding> {
        let (here, cause) = (self.here().clone(), cause.clone());
        self.write("adopt the store", move |txn| txn.adopt(&here, &cause, now))
            .await
    }

    /// Notes a person's word that the store knows nothing of what was withdrawn since an instant.
    pub async fn distrust(&self, since: Timestamp, cause: &Cause, now: Timestamp) -> Answer<()> {
        let cause = cause.clone();
        self.write("distrust the store", move |txn| {
            txn.distrust(since, &cause, now)
        })
        .await
    }

    /// Begins to replace the seal key, or goes on; how far it is.
    pub async fn begin_reseal(&self, cause: &Cause, now: Timestamp) -> Answer<Resealing> {
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
            let id = key::next_or_new(&state_dir).map_err(|error| refused(&error))?;
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
                &*key::successor(&state_dir, &successor).map_err(|error| refused(&error))?,
            );
            Ok(Some(before.key))
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
            key::settle(&settings, &state_dir).map_err(|error| refused(&error))
        })
        .await?;
        let by_hand = self.resealing().await?.by_hand;
        Ok(by_hand.unwrap_or_else(|| self.former_key(before)))
    }

    /// Where the key file is that was replaced.
    pub fn former_key(&self, id: &str) -> String {
        format!(
            "the old key is kept as {} for backups made before; delete it when none of them is left",
            key::kept(self.state_dir(), id).display()
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

    /// How far the replacement of the seal key is.
    pub async fn resealing(&self) -> Answer<Resealing> {
        let (settings, state_dir) = (self.settings().clone(), self.state_dir().to_owned());
        self.read("look at the seal key", move |db| {
            let resealing = db.resealing()?;
            let by_hand = match &resealing.successor {
                None => key::by_hand(&settings, &state_dir, &resealing.key),
                Some(_) => None,
            };
            Ok(Resealing {
                by_hand,
                ..resealing
            })
        })
        .await
    }

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
            backup::lend(&db.conn, &state_dir, (now, last))
                .map_err(|error| Fault::Refused(error.to_string()))
        })
        .await
    }

    /// Notes that a backup has reached its place; a store that ends with it is never opened again,
    /// unless a person takes it back.
    pub async fn backed_up(&self, made_at: Timestamp, retire: bool) -> Answer<()> {
        self.write("note the backup", move |txn| {
            columns::set_meta(&txn.conn, backup::BACKED_UP, columns::micros(made_at))?;
            if retire {
                columns::set_meta(&txn.conn, backup::RETIRED, columns::micros(made_at))?;
            }
            Ok(())
        })
        .await
    }

    /// When the last backup was made that reached its place.
    pub async fn last_backup(&self) -> Answer<Option<Timestamp>> {
        self.read("look for the last backup", |db| {
            let at = columns::meta(&db.conn, backup::BACKED_UP)?;
            Ok(at.map(columns::instant))
        })
        .await
    }

    /// Drops what is past its time, at most `batch` rows of each kind; called every minute or so, and
    /// again while [`Pruned::is_full`]. The id map is written anew if it is behind.
    pub async fn prune(&self, batch: usize, now: Timestamp) -> Answer<Pruned> {
        let keep = self.keep();
        self.write("clean up", move |txn| txn.prune(keep, batch, now))
            .await
    }
}
