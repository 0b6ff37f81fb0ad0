//! After a start, every file is as the store says, before anyone is told that the daemon is ready:
//! a reboot empties folders in memory, and a crash may have come between commit and delivery.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use futures_util::future::join_all;
use tokio::task::{Id, JoinError, JoinSet};

use super::dispatcher::{RenewerViews, bundle::gather, dead};
use crate::{
    clock::Clock,
    model::{Num, SinkName, Version},
    sinks::{self, FileSink, Outcome, Receipt, file::FileError},
    store::{self, Settled, Store, StoreError},
};

/// Rows per page; between pages progress is told.
const PAGE: usize = 256;
/// Files written at once.
const AT_ONCE: usize = 16;

/// How far restoring is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Identities looked at.
    pub seen: usize,
    /// Files that were missing, wrong, or there against the store's word.
    pub mended: usize,
    /// Files that could not be mended; the dispatcher goes on trying.
    pub failed: usize,
    /// Temporary files of an earlier process that were removed.
    pub swept: usize,
}

/// Puts every file of a sink right and tells of it after each page. Tokens that have expired are left
/// as they lie, for better or worse.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn restore(
    store: &Store,
    name: &SinkName,
    sink: &FileSink,
    (clock, renewers): (&Clock, &RenewerViews),
    mut progress: impl FnMut(&Restored),
) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    match sink.sweep().await {
        Ok(swept) => restored.swept = swept,
        Err(error) => {
            tracing::warn!(sink = %name, %error, "temporary files of an earlier run may remain");
        }
    }
    if sink.is_bundle() {
        return restore_bundle(store, name, sink, clock, restored).await;
    }
    store.leave_bundle(name).await?;
    let mut after: Num = 0;
    loop {
        let page = store.delivered_page(name, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(restored);
        };
        after = last.num;
        let mut page_done = Page::new(store, name, sink, (clock, renewers));
        for row in page {
            page_done.mend(row).await;
        }
        page_done.finish(&mut restored).await?;
        progress(&restored);
    }
}

/// Puts the one file of a bundle right. If that fails, the dispatcher goes on trying.
async fn restore_bundle(
    store: &Store,
    name: &SinkName,
    sink: &FileSink,
    clock: &Clock,
    mut restored: Restored,
) -> Result<Restored, StoreError> {
    let gathered = gather(store, name).await?;
    restored.seen = gathered.members.len();
    match sink.deliver_bundle(gathered.members, clock.now()).await {
        Ok(Receipt { outcome, placed }) => {
            restored.mended = usize::from(outcome != Outcome::Unchanged);
            store.place_bundle(name, placed).await?;
            let settled = |(num, version)| Settled::Delivered {
                sink: name.clone(),
                num,
                version,
            };
            let settled: Vec<_> = gathered.waiting.into_iter().map(settled).collect();
            if !settled.is_empty() {
                settle(store, name, settled).await?;
            }
        }
        Err(error) => {
            tracing::warn!(sink = %name, %error, "the bundle could not be restored yet");
            restored.failed = 1;
        }
    }
    Ok(restored)
}

/// Notes what lies on disk; a row that the store refuses keeps no other back, and is delivered once more.
async fn settle(store: &Store, sink: &SinkName, settled: Vec<Settled>) -> Result<(), StoreError> {
    for refused in store
        .settle(settled)
        .await?
        .into_iter()
        .filter_map(Result::err)
    {
        tracing::error!(%sink, error = %refused, "a file that was put right could not be noted");
    }
    Ok(())
}

/// One page on its way to disk.
struct Page<'a> {
    store: &'a Store,
    name: &'a SinkName,
    sink: &'a FileSink,
    clock: &'a Clock,
    renewers: &'a RenewerViews,
    writing: JoinSet<Result<Receipt, FileError>>,
    rows: BTreeMap<Id, (store::Delivery, Version)>,
    settled: Vec<Settled>,
    failed: Vec<Num>,
    counts: Restored,
}

impl<'a> Page<'a> {
    fn new(
        store: &'a Store,
        name: &'a SinkName,
        sink: &'a FileSink,
        (clock, renewers): (&'a Clock, &'a RenewerViews),
    ) -> Self {
        Self {
            store,
            name,
            sink,
            clock,
            renewers,
            writing: JoinSet::new(),
            rows: BTreeMap::new(),
            settled: Vec::new(),
            failed: Vec::new(),
            counts: Restored::default(),
        }
    }

    /// Begins to put one file right, as soon as there is room.
    async fn mend(&mut self, row: store::Delivery) {
        self.counts.seen += 1;
        if self.writing.len() >= AT_ONCE {
            self.land().await;
        }
        let now = self.clock.now();
        let consignment = match self.store.consignment(row.num).await {
            Ok(Some(consignment)) => consignment,
            Ok(None) => return,
            Err(error) => return self.give_up(&row, &error),
        };
        if dead(&consignment, self.renewers, now).is_some() {
            return;
        }
        let document = Arc::new(consignment.document);
        let (sink, readers, version) = (self.sink.clone(), consignment.readers, document.version);
        let delivery = sinks::Delivery { document, readers };
        let writing = async move { sink.deliver(delivery, now).await };
        let id = self.writing.spawn(writing).id();
        self.rows.insert(id, (row, version));
    }

    /// Waits for one file.
    async fn land(&mut self) {
        let Some(joined) = self.writing.join_next_with_id().await else {
            return;
        };
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((row, version)) = self.rows.remove(&id) else {
            return;
        };
        match joined {
            Ok((_, Ok(Receipt { outcome, placed }))) => {
                self.counts.mended += usize::from(outcome != Outcome::Unchanged);
                self.settled.push(Settled::Placed {
                    sink: self.name.clone(),
                    num: row.num,
                    placed,
                });
                if row.is_pending() {
                    self.settled.push(Settled::Delivered {
                        sink: self.name.clone(),
                        num: row.num,
                        version,
                    });
                }
            }
            Ok((_, Err(error))) => self.give_up(&row, &error),
            Err(_) => self.give_up(&row, &"renewd itself failed at it"),
        }
    }

    /// Leaves a file to the dispatcher.
    fn give_up(&mut self, row: &store::Delivery, error: &dyn Display) {
        tracing::warn!(sink = %self.name, identity = %row.name, %error, "a file could not be restored yet");
        self.counts.failed += 1;
        if !row.is_pending() {
            self.failed.push(row.num);
        }
    }

    async fn finish(mut self, restored: &mut Restored) -> Result<(), StoreError> {
        while !self.writing.is_empty() {
            self.land().await;
        }
        restored.seen += self.counts.seen;
        restored.mended += self.counts.mended;
        restored.failed += self.counts.failed;
        if !self.settled.is_empty() {
            settle(self.store, self.name, self.settled).await?;
        }
        let now = self.clock.now();
        let redeliver = |num| self.store.redeliver(num, Some(self.name.clone()), now);
        // All at once, so that they share one commit.
        let again = join_all(self.failed.into_iter().map(redeliver)).await;
        for refused in again.into_iter().filter_map(Result::err) {
            if !refused.is_about_what_was_written() {
                return Err(refused);
            }
            tracing::error!(sink = %self.name, error = %refused, "a file that could not be put right is not delivered again");
        }
        Ok(())
    }
}
