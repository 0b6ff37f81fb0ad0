//! Verbs about files that lie outside: where they are, and which are to be taken back.

use std::path::PathBuf;

use super::Answer;
use crate::{
    model::{Name, Num, Placed, SinkName, Timestamp},
    store::{Member, Store, Stray},
};

impl Store {
    /// Notes where a sink's bundle lies, or that it has none.
    pub async fn place_bundle(&self, sink: &SinkName, placed: Option<Placed>) -> Answer<()> {
        let sink = sink.clone();
        self.write("note a bundle's file", move |txn| {
            txn.place_bundle(&sink, placed.as_ref())
        })
        .await
    }

    /// Where a sink's bundle lies.
    pub async fn bundle_of(&self, sink: &SinkName) -> Answer<Option<Placed>> {
        let sink = sink.clone();
        self.read("look a bundle up", move |db| db.bundle_of(&sink))
            .await
    }

    /// A sink keeps a file per identity now: the bundle that it kept before becomes a stray.
    pub async fn leave_bundle(&self, sink: &SinkName) -> Answer<()> {
        let sink = sink.clone();
        self.write("let go of a bundle's file", move |txn| {
            txn.leave_bundle(&sink)
        })
        .await
    }

    /// Files that nobody speaks of any more and that are to be looked at now.
    pub async fn strays(&self, now: Timestamp, limit: usize) -> Answer<Vec<Stray>> {
        self.read("look for files left behind", move |db| {
            db.strays(now, limit)
        })
        .await
    }

    /// Whether such a file is somebody's again; `by` are the sinks that would put one there.
    pub async fn is_claimed(
        &self,
        path: PathBuf,
        by: Vec<SinkName>,
        name: Option<Name>,
    ) -> Answer<bool> {
        self.read("look for a file's owner", move |db| {
            db.is_claimed(&path, &by, name.as_ref())
        })
        .await
    }

    /// Forgets strays, or puts them off until an instant.
    pub async fn settle_strays(&self, strays: Vec<(i64, Option<Timestamp>)>) -> Answer<()> {
        self.write("note files taken back", move |txn| {
            txn.settle_strays(&strays)
        })
        .await
    }

    /// A page of the documents that a sink should keep, in the order of the rows.
    pub async fn members(&self, sink: &SinkName, after: Num, limit: usize) -> Answer<Vec<Member>> {
        let sink = sink.clone();
        self.read("read a sink's tokens", move |db| {
            db.members(&sink, after, limit)
        })
        .await
    }

    /// How many identities have left a sink so far.
    pub async fn losses(&self, sink: &SinkName) -> Answer<i64> {
        let sink = sink.clone();
        self.read("count who left a sink", move |db| db.losses(&sink))
            .await
    }
}
