//! The loops of the daemon: spawned here and nowhere else, each with a stop of its own. A loop that
//! ends before it was told to, by error or panic, ends the process; systemd starts it anew. Each source has
//! one, and somewhere to ask it something.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::Supervisor;
use crate::{
    api::ApplySource,
    clock::Clock,
    config::SourceSettings,
    engine::{Apply, SourceAsk, SourceSync, SourceSyncDeps},
    model::{Name, RefusedRow, SourceName, SourceReport, SourceView},
    store::{SourceChange, Store, StoreError},
    worker::{self, Task},
};

/// A loop that is aborted ends at its next pause.
const ABORTED_WITHIN: Duration = Duration::from_secs(1);

/// Why a loop ended on its own.
#[derive(Debug, thiserror::Error)]
#[error("the loop `{name}` ended: {reason}")]
pub struct LoopEnded {
    pub name: String,
    /// Its error, or where it panicked.
    pub reason: String,
}

/// All loops that run now.
#[derive(Debug, Default)]
pub struct Loops {
    set: JoinSet<Result<(), String>>,
    running: BTreeMap<Id, Running>,
    /// How loops ended badly, until somebody is told.
    ended: VecDeque<LoopEnded>,
}

#[derive(Debug)]
struct Running {
    name: String,
    stop: CancellationToken,
    abort: AbortHandle,
}

impl Loops {
    /// Starts a loop. `start` gets the token that tells it to stop.
    pub fn spawn<F, E>(
        &mut self,
        name: impl Into<String>,
        start: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let stop = CancellationToken::new();
        let run = start(stop.clone());
        let handle = self
            .set
            .spawn(async move { run.await.map_err(|error| error.to_string()) });
        self.running.insert(
            handle.id(),
            Running {
                name: name.into(),
                stop,
                abort: handle,
            },
        );
    }

    /// Starts a loop that does one thing every so often.
    pub(super) fn repeat(&mut self, name: &str, task: impl Task + 'static) {
        self.spawn(name, |stop| worker::repeat(task, stop));
    }

    /// Waits until a loop ends that was not told to, or ended badly when it was. Never returns while all
    /// is well.
    pub async fn failed(&mut self) -> LoopEnded {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return ended;
            }
            match self.set.join_next_with_id().await {
                Some(joined) => {
                    self.collect(joined);
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Takes a loop that has ended off the list, and notes it where it should not have ended so.
    fn collect(&mut self, joined: Result<(Id, Result<(), String>), JoinError>) -> Id {
        let (id, result) = match joined {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(describe_panic(&error))),
        };
        if let Some(running) = self.running.remove(&id) {
            let reason = match result {
                Ok(()) if running.stop.is_cancelled() => return id,
                Ok(()) => "it returned".to_owned(),
                Err(reason) => reason,
            };
            let name = running.name;
            tracing::error!(name, reason, "a loop ended badly");
            self.ended.push_back(LoopEnded { name, reason });
        }
        id
    }

    /// Tells every loop whose name matches to stop and waits for all of them, at most `grace`. Those that
    /// had not ended by then are aborted and waited for, so that none runs beside its successor; their
    /// names are returned. How any loop ended badly meanwhile, chosen or not, [`Loops::failed`] tells.
    pub async fn stop_all(
        &mut self,
        grace: Duration,
        chosen: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut waiting: BTreeMap<Id, String> = BTreeMap::new();
        for (id, running) in &self.running {
            if chosen(&running.name) {
                running.stop.cancel();
                waiting.insert(*id, running.name.clone());
            }
        }
        if self.collect_all(&mut waiting, grace).await {
            return Vec::new();
        }
        let late: Vec<String> = waiting.values().cloned().collect();
        for id in waiting.keys() {
            // Its end is told by whoever asked for it; an abort is no other failure.
            if let Some(running) = self.running.remove(id) {
                running.abort.abort();
            }
        }
        if !self.collect_all(&mut waiting, ABORTED_WITHIN).await {
            for name in waiting.into_values() {
                let reason = "it does not even end when it is aborted".to_owned();
                tracing::error!(name, reason, "a loop ended badly");
                self.ended.push_back(LoopEnded { name, reason });
            }
        }
        late
    }

    /// The same for parts that others are to take the place of, or that may hold what is not committed:
    /// one that did not end in time has failed.
    pub async fn replace_all(&mut self, grace: Duration, chosen: impl Fn(&str) -> bool) {
        for name in self.stop_all(grace, chosen).await {
            let reason = format!(
                "it did not end within {} s and was aborted",
                grace.as_secs()
            );
            tracing::error!(name, reason, "a loop ended badly");
            self.ended.push_back(LoopEnded { name, reason });
        }
    }

    /// The same for parts that are let go of because this machine does not lead any more: what they could not note
    /// is told, and whoever leads now does what they began.
    pub async fn let_go_all(&mut self, grace: Duration, chosen: impl Fn(&str) -> bool) {
        for name in self.stop_all(grace, &chosen).await {
            tracing::warn!(
                name,
                "a loop of the leader did not end in time and was aborted"
            );
        }
        self.ended.retain(|ended| !chosen(&ended.name));
    }

    /// How the first loop ended badly that nobody was told of yet.
    pub fn first_failure(&mut self) -> Option<LoopEnded> {
        self.ended.pop_front()
    }

    /// Collects loops until all of these have ended, or the time is over.
    async fn collect_all(&mut self, waiting: &mut BTreeMap<Id, String>, within: Duration) -> bool {
        let all_ended = async {
            while !waiting.is_empty() {
                let Some(joined) = self.set.join_next_with_id().await else {
                    break;
                };
                waiting.remove(&self.collect(joined));
            }
        };
        tokio::time::timeout(within, all_ended).await.is_ok()
    }
}

/// Where a panic happened is logged by the panic hook; its payload may hold anything, so it is not
/// repeated.
fn describe_panic(error: &JoinError) -> String {
    if error.is_panic() {
        "it panicked".to_owned()
    } else {
        "it was aborted".to_owned()
    }
}

/// A source sync that a reload stops gets so long.
const GRACE: Duration = Duration::from_secs(5);
/// Names in one transaction.
const BATCH: usize = 1000;

/// The source syncs, by the names of their sources.
#[derive(Debug, Default)]
pub(super) struct SourceSyncs(BTreeMap<SourceName, SourceSyncHandle>);

#[derive(Debug)]
struct SourceSyncHandle {
    view: watch::Receiver<SourceView>,
    asks: mpsc::Sender<SourceAsk>,
}

type ApplyAnswer = oneshot::Sender<Result<SourceReport, String>>;

impl SourceSyncs {
    pub(super) fn views(&self) -> BTreeMap<SourceName, watch::Receiver<SourceView>> {
        let handles = self.0.iter();
        handles
            .map(|(name, handle)| (name.clone(), handle.view.clone()))
            .collect()
    }
}

impl Supervisor {
    /// Starts the source syncs of these sources in place of those that run. All begin anew, with a whole
    /// read: a reload may have freed a name that a source lists.
    pub(super) async fn restart_sources(&mut self, sources: &[SourceSettings]) {
        self.loops
            .stop_all(GRACE, |name| name.starts_with("source "))
            .await;
        self.source_syncs.0.clear();
        for settings in &self.sources_here(sources) {
            let name = settings.name.clone();
            let store = match settings.nodes.is_empty() {
                true => self.store.clone(),
                false => self.store.plain(),
            };
            let (source_sync, asks) = SourceSync::new(SourceSyncDeps {
                settings: settings.clone(),
                store,
                clock: self.clock.clone(),
            });
            let view = source_sync.view();
            self.source_syncs
                .0
                .insert(name.clone(), SourceSyncHandle { view, asks });
            self.loops
                .spawn(format!("source {name}"), |stop| source_sync.run(stop));
        }
    }

    /// Passes a question on; the source sync answers when it has read the source.
    pub(super) fn ask_source(
        &self,
        name: &SourceName,
        apply: Option<ApplySource>,
        answer: ApplyAnswer,
    ) {
        if let Some(handle) = self.source_syncs.0.get(name) {
            let apply = apply.map(|asked| Apply {
                actor: asked.actor,
                confirmed: asked.confirmed,
            });
            if let Err(full) = handle.asks.try_send(SourceAsk { apply, answer }) {
                let busy = "it is being read; try again in a moment".to_owned();
                full.into_inner().answer.send(Err(busy)).ok();
            }
            return;
        }
        if self.settings().source_names().contains(name) {
            // Whoever asked may have gone in the meantime.
            answer.send(Err("another node reads it".to_owned())).ok();
            return;
        }
        let (store, clock, name) = (self.store.clone(), self.clock.clone(), name.clone());
        let confirmed = apply.is_some_and(|asked| asked.confirmed);
        tokio::spawn(async move {
            let ended = let_go(&store, &clock, &name, confirmed).await;
            // Whoever asked may have gone in the meantime.
            answer.send(ended.map_err(|error| error.to_string())).ok();
        });
    }
}

/// Lets the identities of a source go that is no longer configured, if a person said so.
async fn let_go(
    store: &Store,
    clock: &Clock,
    source: &SourceName,
    confirmed: bool,
) -> Result<SourceReport, StoreError> {
    let names = async |after: Option<Name>| -> Result<Vec<Name>, StoreError> {
        let rows = store.source_rows(source, after, BATCH).await?;
        Ok(rows.into_iter().map(|(name, _)| name).collect())
    };
    let mut report = SourceReport::default();
    report.totals.removed = store.source_count(source).await?;
    report.removed = names(None).await?;
    if !confirmed {
        report.blocked = Some("it is no longer configured".to_owned());
        return Ok(report);
    }
    let mut gone = report.removed.clone();
    while !gone.is_empty() {
        let after = gone.last().cloned();
        let change = SourceChange {
            gone,
            ..SourceChange::default()
        };
        let done = store.take_source(source, change, clock.now()).await?;
        report.totals.refused += done.refused.len() as u64;
        let refused = done.refused.into_iter().map(RefusedRow::from);
        report.refused.extend(refused);
        // What was refused stays on the list: it is not met again.
        gone = names(after).await?;
    }
    store.forget_source(source).await?;
    report.applied = true;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_returns_or_panics_is_named() {
        let mut loops = Loops::default();
        loops.spawn("steady", |stop| async move {
            stop.cancelled().await;
            Ok::<(), String>(())
        });
        loops.spawn("broken", |_| async { Err::<(), _>("no more work") });
        let ended = loops.failed().await;
        assert_eq!(ended.to_string(), "the loop `broken` ended: no more work");
        loops.spawn("wild", |_| async {
            assert!(std::hint::black_box(false), "with a secret");
            Ok::<(), String>(())
        });
        assert_eq!(
            loops.failed().await.to_string(),
            "the loop `wild` ended: it panicked"
        );
        assert!(
            loops
                .stop_all(Duration::from_secs(5), |_| true)
                .await
                .is_empty()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_stop_is_named_after_its_grace() {
        let mut loops = Loops::default();
        loops.spawn("deaf", |_| std::future::pending::<Result<(), String>>());
        assert_eq!(
            loops.stop_all(Duration::from_secs(5), |_| true).await,
            ["deaf"]
        );
    }
    #[tokio::test(start_paused = true)]
    async fn what_outlived_its_grace_is_gone_before_its_successor_comes() {
        struct Alive(std::sync::Arc<std::sync::atomic::AtomicBool>);
        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.store(false, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let alive = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let held = Alive(alive.clone());
        let mut loops = Loops::default();
        loops.spawn("deaf", |_| async move {
            let _held = held;
            std::future::pending::<Result<(), String>>().await
        });
        loops
            .replace_all(Duration::from_secs(5), |name| name == "deaf")
            .await;
        assert!(!alive.load(std::sync::atomic::Ordering::SeqCst));
        let ended = loops.failed().await.to_string();
        assert_eq!(
            ended,
            "the loop `deaf` ended: it did not end within 5 s and was aborted"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_while_others_are_stopped_is_told() {
        let mut loops = Loops::default();
        loops.spawn("chosen", |stop| async move {
            stop.cancelled().await;
            Err::<(), _>("3 results could not be committed")
        });
        loops.spawn("other", |_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err::<(), _>("no more work")
        });
        loops.spawn("slow", |stop| async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<(), String>(())
        });
        let late = loops
            .stop_all(Duration::from_secs(5), |name| name != "other")
            .await;
        assert!(late.is_empty());
        let told = [loops.failed().await, loops.failed().await].map(|ended| ended.name);
        assert_eq!(told, ["chosen", "other"]);
        assert!(loops.first_failure().is_none());
    }
}
