//! Counts the tokens that are handed over, per hour, user and identity: in memory, and from there
//! into the store once a minute and at the end, so that no read costs a write.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use crate::{
    model::Name,
    store::{Each, Store, TokenReads},
};

/// Between two writes of the counts.
const EVERY: Duration = Duration::from_secs(60);
/// Counts that are kept in memory; one more is written early.
const MOST: usize = 65_536;
/// Counts that are written at once.
const BATCH: usize = 1000;

/// The counts since the last write.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads(Arc<ReadCounts>);

#[derive(Debug, Default)]
struct ReadCounts {
    counts: Mutex<BTreeMap<(i64, Name, u32), u64>>,
    full: Notify,
}

impl Reads {
    /// Counts a token that was handed to this peer.
    pub(super) fn count(&self, peer: Peer, name: &Name, now: Timestamp) {
        let second = now.as_second();
        let key = (second - second.rem_euclid(3600), name.clone(), peer.uid);
        let mut counts = self.counts();
        *counts.entry(key).or_default() += 1;
        if counts.len() == MOST {
            self.0.full.notify_one();
        }
    }

    /// Writes the counts into the store until `stop`; the last ones are the caller's to write, once
    /// nothing is handed over any more.
    pub(super) async fn keep(&self, store: &Store, stop: CancellationToken) {
        loop {
            let full = tokio::time::timeout(EVERY, self.0.full.notified());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Full or a minute later: either way it is time.
                _ = full => {}
            }
            self.write(store).await;
        }
    }

    /// Writes what was counted; what cannot be written waits for the next time.
    pub(super) async fn write(&self, store: &Store) {
        let counts = std::mem::take(&mut *self.counts());
        let reads: Vec<TokenReads> = counts
            .into_iter()
            .filter_map(|((hour, name, uid), count)| {
                let hour = Timestamp::from_second(hour).ok()?;
                Some(TokenReads {
                    hour,
                    name,
                    uid,
                    count,
                })
            })
            .collect();
        for batch in reads.chunks(BATCH) {
            match store.note_reads(batch.to_vec()).await {
                Ok(each) => told_refused(batch, each),
                Err(error) => {
                    tracing::warn!(%error, "token reads cannot be counted in the store yet");
                    self.give_back(batch);
                }
            }
        }
    }

    fn give_back(&self, reads: &[TokenReads]) {
        let mut counts = self.counts();
        for read in reads {
            let key = (read.hour.as_second(), read.name.clone(), read.uid);
            if counts.len() < MOST || counts.contains_key(&key) {
                *counts.entry(key).or_default() += read.count;
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<(i64, Name, u32), u64>> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts that the store refuses by themselves are in the log, if nowhere else.
fn told_refused(batch: &[TokenReads], each: Each<()>) {
    for (read, refused) in batch.iter().zip(each) {
        if let Err(error) = refused {
            let TokenReads {
                name, uid, count, ..
            } = read;
            tracing::error!(identity = %name, uid, count, %error, "token reads could not be counted");
        }
    }
}
