//! The files of sinks outlive a run. After a start each is brought to what the store says, before anyone is told
//! that the daemon is ready: a reboot empties folders in memory, and a crash may have come between commit and
//! delivery.
//!
//! Files that nobody speaks of any more are taken back: their sink or their identity is gone, or they lie
//! elsewhere now. The store notes them in the transaction that lets go of them, so this goes on after
//! a restart. Only what still is what we wrote is removed.

use std::{collections::BTreeMap, fmt::Display, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    model::{Num, RenewerView, ResourceName, SinkAt, Timestamp, TokenMeta, Version},
    schedule::{Grounds, token_standing},
    sinks::{
        self, DeliveryOutcome, FileSink, Receipt, SinkDelivery,
        file::{FileError, TakenBack},
    },
    store::{self, Consignment, Settled, Store, StoreError, Stray},
    worker::{self, Task},
};

/// Rows per page; between pages progress is told.
pub(super) const PAGE: usize = 256;
/// Files written at once.
const AT_ONCE: usize = 16;

/// What the renewer of each resource publishes, over reloads.
pub type RenewerViews = watch::Receiver<BTreeMap<ResourceName, watch::Receiver<RenewerView>>>;

/// How far restoring is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoredFiles {
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
    name: &SinkAt,
    sink: &FileSink,
    (clock, renewers): (&Clock, &RenewerViews),
    mut progress: impl FnMut(&RestoredFiles),
) -> Result<RestoredFiles, StoreError> {
    let mut restored = RestoredFiles::default();
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
    name: &SinkAt,
    sink: &FileSink,
    clock: &Clock,
    mut restored: RestoredFiles,
) -> Result<RestoredFiles, StoreError> {
    let gathered = gather(store, name, clock.now()).await?;
    restored.seen = gathered.members.len();
    if gathered.lacks(true) && gathered.may_stay(sink).await {
        return Ok(restored);
    }
    match sink.deliver_bundle(gathered.members, clock.now()).await {
        Ok(Receipt { outcome, placed }) => {
            restored.mended = usize::from(outcome != DeliveryOutcome::Unchanged);
            store.place_bundle(name, placed).await?;
            let settled = |(num, version)| Settled::Delivered {
                sink: name.clone(),
                num,
                version,
            };
            let settled: Vec<_> = gathered.waiting.into_iter().map(settled).collect();
            if !settled.is_empty() {
                settle(store, name, settled, clock).await?;
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
async fn settle(
    store: &Store,
    sink: &SinkAt,
    settled: Vec<Settled>,
    clock: &Clock,
) -> Result<(), StoreError> {
    for refused in store
        .settle(settled, clock.now())
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
    name: &'a SinkAt,
    sink: &'a FileSink,
    clock: &'a Clock,
    renewers: &'a RenewerViews,
    writing: JoinSet<Result<Receipt, FileError>>,
    rows: BTreeMap<Id, (store::Delivery, Version)>,
    settled: Vec<Settled>,
    failed: Vec<Num>,
    counts: RestoredFiles,
}

impl<'a> Page<'a> {
    fn new(
        store: &'a Store,
        name: &'a SinkAt,
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
            counts: RestoredFiles::default(),
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
        let delivery = sinks::SinkDelivery { document, readers };
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
                self.counts.mended += usize::from(outcome != DeliveryOutcome::Unchanged);
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

    async fn finish(mut self, restored: &mut RestoredFiles) -> Result<(), StoreError> {
        while !self.writing.is_empty() {
            self.land().await;
        }
        restored.seen += self.counts.seen;
        restored.mended += self.counts.mended;
        restored.failed += self.counts.failed;
        if !self.settled.is_empty() {
            settle(self.store, self.name, self.settled, self.clock).await?;
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

/// Why the token of a consignment is known to be dead, if it is: then it is neither delivered nor put back,
/// and what consumers hold stays until the successor comes.
pub(super) fn dead(
    consignment: &Consignment,
    renewers: &RenewerViews,
    now: Timestamp,
) -> Option<&'static str> {
    if let Some(why) = consignment.awaits_successor() {
        return Some(why);
    }
    let document = &consignment.document;
    document.token.as_ref()?;
    let (issued_at, expires_at) = document.issued_at.zip(document.expires_at)?;
    let renewers = renewers.borrow();
    let grounds = renewers.get(&document.resource);
    let grounds = grounds.map_or_else(Grounds::default, |renewer| Grounds::of(&renewer.borrow()));
    let token = TokenMeta {
        issued_at,
        expires_at,
        minted_by: String::new(),
    };
    let expired = token_standing(&token, &grounds, now).is_dead();
    expired.then_some("the token expired before it could be delivered")
}

/// Everything that belongs into a bundle.
pub(super) struct Gathered {
    pub(super) members: Vec<SinkDelivery>,
    pub(super) waiting: Vec<(Num, Version)>,
    /// Rows that cannot be read, or whose token was revoked, and why; the others are not to wait for them.
    pub(super) broken: Vec<(Num, Version, String)>,
    /// Whether the bundle that there is may hold live tokens of some that are not in the members.
    pub(super) lacks_some: bool,
    /// Whether some wait whose tokens have expired: the backup of a store is older than what was delivered after it.
    pub(super) has_expired: bool,
    /// Whether somebody's token is to be taken out of it.
    pub(super) takes_out: bool,
    pub(super) losses: i64,
}

impl Gathered {
    /// Whether consumers may read live tokens from the bundle that there is, which are not known here. That what waits has
    /// expired says so after a start alone: later on it is the sink that has failed for so long.
    pub(super) fn lacks(&self, after_start: bool) -> bool {
        self.lacks_some || self.has_expired && after_start
    }

    /// Whether there is a bundle that may stay as it is.
    pub(super) async fn may_stay(&self, sink: &FileSink) -> bool {
        !self.takes_out && sink.has_bundle().await
    }
}

/// Reads everything that belongs into a bundle. Who leaves it in the meantime is noticed afterwards.
pub(super) async fn gather(
    store: &Store,
    name: &SinkAt,
    now: Timestamp,
) -> Result<Gathered, StoreError> {
    let mut gathered = Gathered {
        members: Vec::new(),
        waiting: Vec::new(),
        broken: Vec::new(),
        // One that an earlier store wrote holds those of whom this one knows nothing yet.
        lacks_some: store.awaits_first_bundle(name).await?,
        has_expired: false,
        takes_out: false,
        losses: store.losses(name).await?,
    };
    let mut after = 0;
    loop {
        let page = store.members(name, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(gathered);
        };
        after = last.num;
        for member in page {
            match member.consignment {
                Ok(consignment) if let Some(why) = consignment.awaits_successor() => {
                    gathered.lacks_some |= consignment.has_lost_its_token();
                    // Its old token is never put back; its successor comes at once.
                    if member.is_pending {
                        let why = why.to_owned();
                        gathered.broken.push((member.num, member.wanted, why));
                    }
                }
                Ok(consignment) => {
                    if member.is_pending {
                        let version = consignment.document.version;
                        gathered.waiting.push((member.num, version));
                        let document = &consignment.document;
                        gathered.takes_out |= !document.state.wants_token();
                        gathered.has_expired |= document.token.is_some()
                            && document.expires_at.is_some_and(|end| end <= now);
                    }
                    gathered.members.push(SinkDelivery {
                        document: Arc::new(consignment.document),
                        readers: consignment.readers,
                    });
                }
                Err(error) => gathered.broken.push((member.num, member.wanted, error)),
            }
        }
    }
}

/// Files looked at in one go.
const BATCH: usize = 64;
/// After a commit, until one looks: more of the same may follow.
const BREATH: Duration = Duration::from_millis(200);
/// Without any sign, one looks all the same.
const EVERY: Duration = Duration::from_mins(1);
/// A file that could not be removed is tried again so much later.
const AGAIN: Duration = Duration::from_mins(10);

/// The file sinks that there are, by name.
pub type FileSinks = Arc<[(SinkAt, FileSink)]>;

/// The loop that takes files back.
#[derive(Debug)]
pub struct StrayFiles {
    /// Where strays are noted.
    store: Store,
    clock: Clock,
    /// The sinks that keep files now.
    sinks: watch::Receiver<FileSinks>,
    wanted: watch::Receiver<u64>,
    /// Whether it was said that they wait for the store.
    said: bool,
}

impl Task for StrayFiles {
    async fn step(&mut self) -> Duration {
        match self.take_back().await {
            Ok(count) => {
                self.said = false;
                if count == BATCH { BREATH } else { EVERY }
            }
            // Who keeps the lease tells, once, that the database is away.
            Err(StoreError::Away { .. }) => EVERY,
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::error!(%error, "files left behind wait for the store");
                }
                EVERY
            }
        }
    }

    async fn woken(&mut self) {
        // The sender lives as long as the store.
        if self.wanted.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(BREATH).await;
    }
}

impl StrayFiles {
    /// Takes files back that are noted in this store, beside these sinks.
    pub fn new(store: Store, clock: Clock, sinks: watch::Receiver<FileSinks>) -> Self {
        Self {
            wanted: store.wanted_signal(),
            store,
            clock,
            sinks,
            said: false,
        }
    }

    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // It never fails.
        worker::repeat(self, stop).await.ok();
    }

    /// Looks at the strays of the moment; how many there were.
    async fn take_back(&self) -> Result<usize, StoreError> {
        let strays = self.store.strays(self.clock.now(), BATCH).await?;
        let mut settled = Vec::with_capacity(strays.len());
        for stray in &strays {
            settled.push((stray.num, self.deal_with(stray).await?));
        }
        if !settled.is_empty() {
            let files = settled.len();
            self.store.settle_strays(settled).await?;
            tracing::info!(files, "files that nobody wants any more were seen to");
        }
        Ok(strays.len())
    }

    /// Deals with one; the instant at which to try again, if that is needed.
    async fn deal_with(&self, stray: &Stray) -> Result<Option<Timestamp>, StoreError> {
        let path = &stray.placed.path;
        if self.is_claimed(stray).await? {
            return Ok(None);
        }
        let shown = path.display();
        let taken = FileSink::take_back(stray.placed.clone(), self.clock.is_simulated()).await;
        match taken {
            Ok(TakenBack::Removed) => {
                tracing::debug!(sink = stray.sink, path = %shown, "a file that nobody wants any more was removed");
            }
            Ok(TakenBack::Gone) => {}
            Ok(TakenBack::NotOurs) => {
                tracing::warn!(sink = stray.sink, path = %shown, "a file that was ours holds something else now and is left alone");
            }
            Err(error) => {
                tracing::warn!(sink = stray.sink, %error, "a file that nobody wants any more could not be removed");
                return Ok(Some(self.clock.now() + AGAIN));
            }
        }
        Ok(None)
    }

    /// Whether a sink that there is now keeps, or is about to write, a file at that place.
    async fn is_claimed(&self, stray: &Stray) -> Result<bool, StoreError> {
        let path = &stray.placed.path;
        let sinks = self.sinks.borrow().clone();
        let whose = stray.name.as_ref().zip(stray.resource.as_ref());
        let mut of_anybody = Vec::new();
        let mut of_this = Vec::new();
        for (name, sink) in sinks.iter() {
            if sink.is_fixed_at(path) {
                of_anybody.push(name.clone());
            } else if whose.is_some_and(|(name, resource)| sink.path_for(name, resource) == *path) {
                of_this.push(name.clone());
            }
        }
        Ok(self
            .store
            .is_claimed(path.clone(), of_anybody, None)
            .await?
            || self
                .store
                .is_claimed(path.clone(), of_this, stray.name.clone())
                .await?)
    }
}
