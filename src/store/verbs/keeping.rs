//! Verbs of the audit trail, and of cleaning up.

use super::Answer;
use crate::{
    model::{AuditEntry, Timestamp},
    store::{AuditQuery, Cause, Pruned, Store},
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
        self.write("accept the store", move |txn| txn.accept(&cause, now))
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

    /// Drops what is past its time, at most `batch` rows of each kind; called every minute or so, and
    /// again while [`Pruned::is_full`]. The id map is written anew if it is behind.
    pub async fn prune(&self, batch: usize, now: Timestamp) -> Answer<Pruned> {
        let keep = self.keep();
        self.write("clean up", move |txn| txn.prune(keep, batch, now))
            .await
    }
}
