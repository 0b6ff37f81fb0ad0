//! Verbs of identities that sources list.

use super::Answer;
use crate::{
    model::{IdentityId, Name, Notice, SourceName, Timestamp},
    store::{Digest, Reconciled, SourceChange, SourceEnd, SourceFacts, Store},
};

impl Store {
    /// Names of a source's last list, each with a digest of its row, in the order of names: at most so many,
    /// after one.
    pub async fn source_rows(
        &self,
        source: &SourceName,
        after: Option<Name>,
        most: usize,
    ) -> Answer<Vec<(Name, Digest)>> {
        let source = source.clone();
        self.read("read a source's last list", move |db| {
            db.source_rows(&source, after.as_ref(), most)
        })
        .await
    }

    /// How many names of a source's last list were taken over.
    pub async fn source_count(&self, source: &SourceName) -> Answer<u64> {
        let source = source.clone();
        self.read("count a source's last list", move |db| {
            db.source_count(&source)
        })
        .await
    }

    /// Those of these names whose id nobody here has or had.
    pub async fn strange_ids(&self, rows: Vec<(Name, IdentityId)>) -> Answer<Vec<Name>> {
        self.read("look up the ids of a list", move |db| db.strange_ids(&rows))
            .await
    }

    /// What is known of every source.
    pub async fn sources(&self) -> Answer<Vec<SourceFacts>> {
        self.read("list sources", |db| db.sources()).await
    }

    /// Takes part of a list over, in one transaction: rows that differ, names that are gone.
    pub async fn take_source(
        &self,
        source: &SourceName,
        change: SourceChange,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        let source = source.clone();
        self.withdraw("take a source's list over", move |txn| {
            txn.take_source(&source, &change, now)
        })
        .await
    }

    /// Notes how a look at a source ended, and raises the notice where that is news: a lapse that
    /// begins, or one that ends. Whether it was.
    pub async fn end_look(
        &self,
        source: &SourceName,
        end: SourceEnd,
        notice: Notice,
        now: Timestamp,
    ) -> Answer<bool> {
        let source = source.clone();
        self.write("note how a source is", move |txn| {
            txn.end_look(&source, &end, &notice, now)
        })
        .await
    }

    /// Forgets a source that lists nothing any more.
    pub async fn forget_source(&self, source: &SourceName) -> Answer<()> {
        let source = source.clone();
        self.write("forget a source", move |txn| txn.forget_source(&source))
            .await
    }
}
