//! Prunes what retention no longer keeps, in small batches, so that nothing else waits for it.

use std::{convert::Infallible, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, store::Store};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(600);
/// Between two batches of one round.
const BREATH: Duration = Duration::from_millis(200);
/// Rows pruned at once.
const BATCH: usize = 500;

/// Prunes until told to stop.
pub(super) async fn prune(
    store: Store,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut wait = BREATH;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        wait = match store.prune(BATCH, clock.now()).await {
            Ok(pruned) if pruned.is_full(BATCH) => BREATH,
            Ok(_) => EVERY,
            Err(error) => {
                tracing::warn!(%error, "cannot prune the trails; trying again later");
                EVERY
            }
        };
    }
}
