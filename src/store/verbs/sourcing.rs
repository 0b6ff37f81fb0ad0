//! Verbs of identities that sources list.

use std::collections::BTreeMap;

use super::Answer;
use crate::{
    model::{Name, Notice, SourceName, Timestamp},
    store::{Digest, Reconciled, SourceChange, SourceEnd, SourceFacts, Store},
};

impl Store {
    /// Every name of a source's last list, and a digest of its row.
    pub async fn source_rows(&self, source: &SourceName) -> Answer<BTreeMap<Name, Digest>> {
        let source = source.clone();
        self.read("read a source's last list", move |db| {
            db.source_rows(&source)
        })
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
        self.write("take a source's list over", move |txn| {
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
