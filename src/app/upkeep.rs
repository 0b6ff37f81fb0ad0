//! What the daemon does for itself: its watchdog, what it stands on, what it lets go of.
//!
//! Tells the service manager how the daemon is: feeds the watchdog while every loop decides, and keeps
//! the status line.
//!
//! Looks after what the daemon stands on, and tells by notices what needs a person and when it is over.
//!
//! Cleans up in the store: prunes what retention no longer keeps and looks the rest through, in small
//! batches, so that nothing else waits for it; and tells when the disk of the store is full and when it
//! is not any more.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, SharedState},
    clock::Clock,
    model::{Amiss, Notice, NoticeKind},
    store::{Disk, Store, StoreError},
    systemd::{Notifier, NotifyError, Verdict, Watchdog},
};

/// How often the status line is made anew where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What the heartbeat looks at.
pub(super) struct Heartbeat {
    pub(super) notifier: Arc<Notifier>,
    pub(super) clock: Clock,
    pub(super) api: Api,
    pub(super) shared_state: watch::Receiver<Arc<SharedState>>,
}

impl Heartbeat {
    /// Beats until told to stop.
    pub(super) async fn beat(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut watchdog = Watchdog::from_env(self.clock.now());
        let every = watchdog
            .as_ref()
            .map_or(STATUS_EVERY, |dog| dog.interval().min(STATUS_EVERY));
        let mut told = String::new();
        loop {
            if let Some(dog) = &mut watchdog {
                self.feed(dog);
            }
            let status = self.api.headline().await;
            if status != told {
                tell(self.notifier.status(&status));
                told = status;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    fn feed(&self, dog: &mut Watchdog) {
        let shared_state = Arc::clone(&self.shared_state.borrow());
        match dog.tick(&shared_state.decisions(), self.clock.now()) {
            Verdict::Feed => tell(self.notifier.watchdog()),
            Verdict::Starve(stuck) => {
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

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// What is looked at, and where it is published.
pub(super) struct SelfCheck {
    pub(super) api: Api,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) moved: watch::Sender<Option<Amiss>>,
}

impl SelfCheck {
    /// Looks until told to stop.
    pub(super) async fn watch(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut open: Option<BTreeMap<String, NoticeKind>> = None;
        loop {
            self.look_at_store();
            if open.is_none() {
                open = self.store.open_notices().await.ok();
            }
            if let Some(open) = &mut open {
                self.tell(open).await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

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
/// Between two rounds.
const RETENTION_EVERY: Duration = Duration::from_secs(600);
/// The same while the disk is full: then each round also looks whether there is room again.
const EVERY_WHEN_FULL: Duration = Duration::from_secs(15);
/// Between two batches of one round.
const BREATH: Duration = Duration::from_millis(200);
/// Rows pruned at once.
const BATCH: usize = 500;

/// Between two looks at everything in the store.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two pages of a look, at least; and so many times what the page took.
const PAGE_REST: Duration = Duration::from_millis(20);
const REST_FACTOR: u32 = 9;

/// Tokens that are sealed anew in one transaction.
const SEALED_AT_ONCE: usize = 100;
/// No read of the store takes longer.
const READERS_END: Duration = Duration::from_secs(10);

/// Looks the store through until told to stop: rows that cannot be read are set aside, and taken up again
/// once they are mended.
pub(super) async fn examine(
    store: Store,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (mut from, mut said) = (None, false);
    loop {
        let began = clock.steady();
        let wait = match store.examine(from.take(), clock.now()).await {
            Ok(Some(next)) => {
                from = Some(next);
                let took = clock.steady().saturating_sub(began);
                (took * REST_FACTOR).clamp(PAGE_REST, LOOK_EVERY)
            }
            Ok(None) => {
                said = false;
                LOOK_EVERY
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "cannot look the store through; trying again");
                }
                LOOK_EVERY
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Replaces the seal key whenever somebody wants that, or a process before this one began to.
pub(super) async fn reseal(
    store: Store,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let wait = match replace_seal_key(&store, &clock).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "the seal key is not replaced yet; trying again");
                Some(LOOK_EVERY)
            }
        };
        let again = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => store.reseal_wanted().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = again => {}
        }
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

/// Prunes until told to stop.
pub(super) async fn prune(
    store: Store,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut disk = store.disk_signal();
    // What an earlier process told and is not over; where that cannot be read, it is told again.
    let mut told = match store.open_notice(KEY.to_owned()).await {
        Ok(Some(_)) => Disk::OnReserve,
        _ => Disk::Roomy,
    };
    let mut wait = BREATH;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            // The sender lives as long as the store.
            _ = disk.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        let now = *disk.borrow_and_update();
        if is_full(now) != is_full(told) && retention_tell(&store, now, &clock).await {
            told = now;
        }
        let rest = if is_full(now) {
            EVERY_WHEN_FULL
        } else {
            RETENTION_EVERY
        };
        wait = match store.prune(BATCH, clock.now()).await {
            Ok(pruned) if pruned.is_full(BATCH) => BREATH,
            Ok(_) => rest,
            Err(error) => {
                tracing::warn!(%error, "cannot prune the trails; trying again later");
                rest
            }
        };
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
    let notice = Notice {
        at: clock.now(),
        kind,
        resource: None,
        name: None,
        key: Some(KEY.to_owned()),
        message,
    };
    let raised = store.raise(vec![notice]).await;
    raised
        .inspect_err(|error| tracing::warn!(%error, "a notice about the disk waits"))
        .is_ok()
}
