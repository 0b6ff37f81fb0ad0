//! What the daemon does for itself every so often.
//!
//! - The heartbeat tells the service manager how it is: it feeds the watchdog while every loop decides, and
//!   keeps the status line.
//! - The self-check looks at the store's file, and tells by notices what needs a person and when it is over.
//! - Retention prunes what is no longer kept, and tells when the disk of the store is full and when it is not
//!   any more; the examination looks the rest through. Both in small batches, so that nothing else waits.
//! - In a cluster, the files beside the store follow what other machines write.
//! - Resealing replaces the key that seals secrets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    api::{Api, SharedState},
    clock::Clock,
    model::{Amiss, Notice, NoticeKind},
    schedule::Steady,
    store::{Bookmark, Disk, Store, StoreError},
    systemd::{Notifier, NotifyError, Watchdog, WatchdogVerdict},
    worker::Task,
};

/// In a cluster, between two looks at what other machines wrote, where none at what they changed says it before.
const FOLLOWS_EVERY: Duration = Duration::from_secs(2);
/// The same after it failed.
const IN_VAIN: Duration = Duration::from_secs(10);

/// Brings the files beside the store up to what other machines write.
pub(super) struct FileFollower {
    lag: watch::Receiver<u64>,
    store: Store,
    clock: Clock,
    /// Whether it was said that they are behind.
    said: bool,
}

impl FileFollower {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        Self {
            lag: store.files_signal(),
            store,
            clock,
            said: false,
        }
    }

    async fn follow(&self) -> Result<(), StoreError> {
        if !self.store.files_are_behind().await? {
            return Ok(());
        }
        let followed = self.store.follow_files(self.clock.now()).await?;
        let doing = "write the files beside the store";
        match followed.unwritten {
            Some(reason) => Err(StoreError::NotWritable { doing, reason }),
            None => Ok(()),
        }
    }
}

impl Task for FileFollower {
    async fn step(&mut self) -> Duration {
        match self.follow().await {
            Ok(()) => self.said = false,
            // Who keeps the lease tells, once, that the database is away.
            Err(StoreError::Away { .. }) => {}
            Err(error) if !std::mem::replace(&mut self.said, true) => {
                tracing::warn!(%error, "the files beside the store cannot follow what other machines write; it is tried again");
            }
            Err(_) => {}
        }
        if self.said { IN_VAIN } else { FOLLOWS_EVERY }
    }

    async fn woken(&mut self) {
        // What cannot be written costs much each time.
        if self.said || self.lag.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// How often the status line is made anew.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The longest between two looks at the whole daemon.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A look counts who has no token, one by one; so much longer is rested for each, which is a thousand times what it takes.
const REST_FOR_EACH: Duration = Duration::from_micros(50);

/// How long to rest after a look that counted so many.
fn rest_after(counted: u64, least: Duration) -> Duration {
    let counted = u32::try_from(counted).unwrap_or(u32::MAX);
    least
        .saturating_add(REST_FOR_EACH.saturating_mul(counted))
        .min(LOOK_EVERY)
}

/// What the heartbeat looks at.
pub(super) struct Heartbeat {
    notifier: Arc<Notifier>,
    clock: Clock,
    api: Api,
    shared_state: watch::Receiver<Arc<SharedState>>,
    watchdog: Option<Watchdog>,
    told: String,
    /// When the status line is made anew.
    tells_at: Steady,
}

impl Task for Heartbeat {
    async fn step(&mut self) -> Duration {
        self.feed();
        let now = self.clock.steady();
        if now >= self.tells_at {
            let status = self.api.headline().await;
            if status != self.told {
                tell(self.notifier.status(&status));
                self.told = status;
            }
            self.tells_at = now + rest_after(self.api.counted(), STATUS_EVERY);
        }
        let dog = self.watchdog.as_ref();
        dog.map_or(STATUS_EVERY, |dog| dog.interval().min(STATUS_EVERY))
    }
}

impl Heartbeat {
    pub(super) fn new(
        notifier: Arc<Notifier>,
        clock: Clock,
        api: Api,
        shared_state: watch::Receiver<Arc<SharedState>>,
    ) -> Self {
        Self {
            watchdog: Watchdog::from_env(clock.now()),
            notifier,
            clock,
            api,
            shared_state,
            told: String::new(),
            tells_at: Steady::ZERO,
        }
    }

    fn feed(&mut self) {
        let Some(dog) = &mut self.watchdog else {
            return;
        };
        let shared_state = Arc::clone(&self.shared_state.borrow());
        match dog.tick(&shared_state.decisions(), self.clock.now()) {
            WatchdogVerdict::Feed => tell(self.notifier.watchdog()),
            WatchdogVerdict::Starve(stuck) => {
                tracing::error!(
                    loops = stuck.join(", "),
                    "not every loop decides any more; the watchdog is not fed"
                );
            }
        }
    }
}

/// A service manager that does not listen is no reason to stop keeping tokens fresh.
fn tell(told: Result<(), NotifyError>) {
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Between two looks at the store and what lies beside it.
const EVERY: Duration = Duration::from_secs(5);

/// What is looked at, and where it is published.
pub(super) struct SelfCheck {
    pub(super) api: Api,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) moved: watch::Sender<Option<Amiss>>,
    /// The notices that are not over, once they could be read.
    pub(super) open: Option<BTreeMap<String, NoticeKind>>,
    /// When it is looked next what is to be told.
    pub(super) tells_at: Steady,
}

impl Task for SelfCheck {
    async fn step(&mut self) -> Duration {
        self.look_at_store();
        self.look_beside().await;
        let now = self.clock.steady();
        if now < self.tells_at {
            return EVERY;
        }
        if self.open.is_none() {
            self.open = self.store.open_notices().await.ok();
        }
        if let Some(mut open) = self.open.take() {
            self.tell(&mut open).await;
            self.tells_at = now + rest_after(self.api.counted(), Duration::ZERO);
            self.open = Some(open);
        }
        EVERY
    }
}

impl SelfCheck {
    fn look_at_store(&self) {
        let before = self.moved.borrow().clone();
        let now = Amiss::still(self.store.moved(), before.as_ref(), self.clock.now());
        if now == before {
            return;
        }
        match &now {
            Some(moved) => tracing::error!(
                "{}: renewing goes on over the open file, and is lost when renewd ends; `renewd store backup FILE` \
                 rescues it",
                moved.what
            ),
            None => tracing::info!("the file of the store is back"),
        }
        self.moved.send_replace(now);
    }

    /// What somebody took away beside the database is written anew, and told.
    async fn look_beside(&self) {
        if let Err(error) = self.store.mend_beside(self.clock.now()).await {
            tracing::warn!(%error, "what lies beside the store is looked after again in a while");
        }
    }

    /// Raises what is due; what cannot be written now is tried again at the next look.
    async fn tell(&self, open: &mut BTreeMap<String, NoticeKind>) {
        for notice in self.api.news(open).await {
            let (key, kind) = (notice.key.clone(), notice.kind);
            if let Err(error) = self.store.announce(notice).await {
                tracing::warn!(%error, "a notice waits until the store can be written");
                continue;
            }
            let Some(key) = key else { continue };
            if kind.ended_by().is_empty() {
                open.remove(&key);
            } else {
                open.insert(key, kind);
            }
        }
    }
}

/// Under which a full disk is told.
const KEY: &str = "disk of the store";
const RETENTION_EVERY: Duration = Duration::from_secs(600);
/// The same while the disk is full: then each round also looks whether there is room again.
const EVERY_WHEN_FULL: Duration = Duration::from_secs(15);
/// Between two batches of one round.
const BREATH: Duration = Duration::from_millis(200);
/// Rows pruned at once.
const BATCH: usize = 500;

/// Between two pages of a look, at least; and so many times what the page took.
const PAGE_REST: Duration = Duration::from_millis(20);
const REST_FACTOR: u32 = 9;
/// The same after so many pages of one look: a large store is looked through slowly.
const PAGES_AT_ONCE: u32 = 40;
const LONG_REST_FACTOR: u32 = 999;

/// Tokens that are sealed anew in one transaction.
const SEALED_AT_ONCE: usize = 100;
/// Without an order, nothing is to be done; looking for what began all the same costs nothing.
const UNTIL_WANTED: Duration = Duration::from_hours(24);
/// No read of the store takes longer.
const READERS_END: Duration = Duration::from_secs(10);

/// Looks the store through, page by page: rows that cannot be read are set aside, and taken up again once
/// they are mended.
pub(super) struct StoreExaminer {
    store: Store,
    clock: Clock,
    /// Where the next page begins.
    from: Option<Bookmark>,
    /// Pages of this look.
    pages: u32,
    /// Whether it was said that the store cannot be looked through.
    said: bool,
}

impl StoreExaminer {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            from: None,
            pages: 0,
            said: false,
        }
    }
}

impl Task for StoreExaminer {
    async fn step(&mut self) -> Duration {
        let began = self.clock.steady();
        match self.store.examine(self.from.take(), self.clock.now()).await {
            Ok(Some(next)) => {
                self.from = Some(next);
                self.pages += 1;
                let factor = match self.pages <= PAGES_AT_ONCE {
                    true => REST_FACTOR,
                    false => LONG_REST_FACTOR,
                };
                let took = self.clock.steady().saturating_sub(began);
                return (took * factor).clamp(PAGE_REST, LOOK_EVERY);
            }
            Ok(None) => (self.said, self.pages) = (false, 0),
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(%error, "cannot look the store through; trying again");
                }
            }
        }
        LOOK_EVERY
    }
}

/// Replaces the seal key whenever somebody wants that, or a process before this one began to.
pub(super) struct Resealer {
    store: Store,
    clock: Clock,
}

impl Resealer {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }
}

impl Task for Resealer {
    async fn step(&mut self) -> Duration {
        match replace_seal_key(&self.store, &self.clock).await {
            Ok(()) => UNTIL_WANTED,
            Err(error) => {
                tracing::warn!(%error, "the seal key is not replaced yet; trying again");
                LOOK_EVERY
            }
        }
    }

    async fn woken(&mut self) {
        self.store.reseal_wanted().await;
    }
}

async fn replace_seal_key(store: &Store, clock: &Clock) -> Result<(), StoreError> {
    let Some(before) = store.take_successor().await? else {
        return Ok(());
    };
    while !store.reseal(SEALED_AT_ONCE, clock.now()).await? {
        tokio::time::sleep(PAGE_REST).await;
    }
    let left = store.settle_reseal(&before).await?;
    tracing::info!("every token is sealed with the new key; {left}");
    // Whoever began to read before the last token was sealed anew has come to an end.
    tokio::time::sleep(READERS_END).await;
    store.forget_former_key().await
}

/// Prunes what retention no longer keeps.
pub(super) struct Retention {
    store: Store,
    clock: Clock,
    disk: watch::Receiver<Disk>,
    /// What people were told of the disk.
    told: Option<Disk>,
}

impl Retention {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        Self {
            disk: store.disk_signal(),
            store,
            clock,
            told: None,
        }
    }

    /// Tells when the disk is full, and when it is not any more.
    async fn tell(&mut self, now: Disk) {
        let told = match self.told {
            Some(told) => told,
            // What an earlier process told and is not over; where that cannot be read, it is told again.
            None => match self.store.open_notice(KEY.to_owned()).await {
                Ok(Some(_)) => Disk::OnReserve,
                _ => Disk::Roomy,
            },
        };
        self.told = Some(told);
        if is_full(now) != is_full(told) && retention_tell(&self.store, now, &self.clock).await {
            self.told = Some(now);
        }
    }
}

impl Task for Retention {
    async fn step(&mut self) -> Duration {
        let now = *self.disk.borrow_and_update();
        self.tell(now).await;
        let rest = if is_full(now) {
            EVERY_WHEN_FULL
        } else {
            RETENTION_EVERY
        };
        match self.store.prune(BATCH, self.clock.now()).await {
            Ok(pruned) if pruned.is_full(BATCH) => BREATH,
            Ok(_) => rest,
            Err(error) => {
                tracing::warn!(%error, "cannot prune the trails; trying again later");
                rest
            }
        }
    }

    async fn woken(&mut self) {
        // The sender lives as long as the store.
        if self.disk.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn is_full(disk: Disk) -> bool {
    disk != Disk::Roomy
}

/// Raises the notice; whether it is in the store, so that it is tried again where it is not.
async fn retention_tell(store: &Store, disk: Disk, clock: &Clock) -> bool {
    let folder = store.path().parent().unwrap_or(store.path()).display();
    let (kind, message) = if is_full(disk) {
        let message = format!(
            "The disk of {folder} is full. Renewals and withdrawals go on with the reserve that renewd kept, and \
             history is pruned sooner. Free some space."
        );
        (NoticeKind::DiskFull, message)
    } else {
        let message = format!("The disk of {folder} has room again, and the reserve is kept.");
        (NoticeKind::DiskRecovered, message)
    };
    let notice = Notice::new(kind, clock.now(), message).keyed(KEY);
    let raised = store.raise(vec![notice]).await;
    raised
        .inspect_err(|error| tracing::warn!(%error, "a notice about the disk waits"))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_count_very_many_are_rarer() {
        let rested =
            [0, 10_000, 1_000_000, u64::MAX].map(|counted| rest_after(counted, STATUS_EVERY));
        assert_eq!(
            rested.map(|rest| rest.as_millis()),
            [10_000, 10_500, 60_000, 60_000]
        );
    }
}
