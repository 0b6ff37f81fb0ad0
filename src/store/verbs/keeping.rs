//! Verbs of the audit trail, and of cleaning up.

use std::fs::File;

use super::Answer;
use crate::{
    model::{AuditEntry, StoreStanding, Timestamp},
    store::{AuditQuery, Cause, Pruned, Store, backup, columns, error::Fault},
};

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

    /// Writes a backup and hands the file over; the database's own may have been deleted meanwhile. With
    /// `last` it says of itself that nothing was withdrawn since.
    pub async fn backup(&self, last: bool, now: Timestamp) -> Answer<File> {
        let state_dir = self.state_dir().to_owned();
        self.read("make a backup", move |db| {
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
