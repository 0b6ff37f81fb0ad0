//! Keeps the house in the store: prunes what retention no longer keeps and looks the rest through, in small
//! batches, so that nothing else waits for it; and tells when the disk of the store is full and when it
//! is not any more.

use std::{convert::Infallible, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    model::{Notice, NoticeKind},
    store::{Disk, Store, StoreError},
};

/// Under which a full disk is told.
const KEY: &str = "disk of the store";
/// Between two rounds.
const EVERY: Duration = Duration::from_secs(600);
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
        if is_full(now) != is_full(told) && tell(&store, now, &clock).await {
            told = now;
        }
        let rest = if is_full(now) { EVERY_WHEN_FULL } else { EVERY };
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
async fn tell(store: &Store, disk: Disk, clock: &Clock) -> bool {
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
