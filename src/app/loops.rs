//! The loops of the daemon: spawned here and nowhere else, each with a stop of its own. A loop that
//! ends before it was told to, by error or panic, ends the process; systemd starts it anew.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Why a loop ended on its own.
#[derive(Debug, thiserror::Error)]
#[error("the loop `{name}` ended: {reason}")]
pub struct LoopEnded {
    /// Which loop.
    pub name: String,
    /// Its error, or where it panicked.
    pub reason: String,
}

/// All loops that run now.
#[derive(Debug, Default)]
pub struct Loops {
    set: JoinSet<Result<(), String>>,
    running: BTreeMap<Id, Running>,
}

#[derive(Debug)]
struct Running {
    name: String,
    stop: CancellationToken,
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
            },
        );
    }

    /// Waits until a loop ends that was not told to. Never returns while all is well.
    pub async fn failed(&mut self) -> LoopEnded {
        loop {
            let Some(joined) = self.set.join_next_with_id().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let (id, result) = match joined {
                Ok((id, result)) => (id, result),
                Err(error) => (error.id(), Err(describe_panic(&error))),
            };
            let Some(running) = self.running.remove(&id) else {
                continue;
            };
            match result {
                Ok(()) if running.stop.is_cancelled() => {}
                Ok(()) => {
                    return LoopEnded {
                        name: running.name,
                        reason: "it returned".to_owned(),
                    };
                }
                Err(reason) => {
                    return LoopEnded {
                        name: running.name,
                        reason,
                    };
                }
            }
        }
    }

    /// Tells one loop to stop; [`Loops::failed`] collects it.
    pub fn stop(&self, name: &str) {
        self.running
            .values()
            .filter(|running| running.name == name)
            .for_each(|running| running.stop.cancel());
    }

    /// Tells every loop whose name matches to stop and waits for all of them, at most `grace`.
    /// Returns the names of those that had not ended by then; they are aborted.
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
        let all_ended = async {
            while !waiting.is_empty() {
                let Some(joined) = self.set.join_next_with_id().await else {
                    break;
                };
                let id = joined.map_or_else(|error| error.id(), |(id, _)| id);
                waiting.remove(&id);
                self.running.remove(&id);
            }
        };
        if tokio::time::timeout(grace, all_ended).await.is_ok() {
            return Vec::new();
        }
        waiting.into_values().collect()
    }
}

/// Where a panic happened is logged by the panic hook; its payload may hold anything, so it is not
/// repeated.
fn describe_panic(error: &tokio::task::JoinError) -> String {
    if error.is_panic() {
        "it panicked".to_owned()
    } else {
        "it was aborted".to_owned()
    }
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
}
