//! What wakes the loop: `tokio-cron-scheduler`, with one job for the earliest instant, so that it can
//! lose no event of its channel and keeps no zone. It may wake up to a second early and knows nothing
//! of suspended machines or simulated time: so whoever is woken asks the clock again, and no wait is
//! longer than the clock's own bound.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use uuid::Uuid;

use crate::clock::Clock;

/// Events that may wait in the scheduler's channel; its own default loses some over 200.
const CHANNEL: usize = 4096;
/// Waits this short are the clock's alone: the scheduler looks every half second.
const SHORT: Duration = Duration::from_secs(2);

/// Wakes at instants.
pub(super) struct Waker {
    scheduler: Option<JobScheduler>,
    woken: Arc<Notify>,
    armed: Option<(Timestamp, Uuid)>,
}

impl Waker {
    /// The scheduler, on the machine's own clock; under a simulated one the clock wakes alone.
    pub(super) async fn new(clock: &Clock) -> Self {
        let scheduler = match clock.is_simulated() {
            true => None,
            false => start()
                .await
                .inspect_err(|error| {
                    tracing::warn!(%error, "the cron scheduler did not start; the clock wakes the jobs");
                })
                .ok(),
        };
        Self {
            scheduler,
            woken: Arc::default(),
            armed: None,
        }
    }

    /// Waits until about `at`; it may return earlier.
    pub(super) async fn wait(&mut self, clock: &Clock, at: Option<Timestamp>) {
        let now = clock.now();
        let bound = at.unwrap_or(Timestamp::MAX);
        let left = Duration::try_from(bound.duration_since(now)).unwrap_or_default();
        if left > SHORT && at.is_some() && self.armed.is_none_or(|(armed, _)| armed != bound) {
            self.arm(bound, left).await;
        }
        tokio::select! {
            biased;
            () = self.woken.notified() => {}
            () = clock.sleep_until(bound) => {}
        }
    }

    /// Ends the scheduler's tasks.
    pub(super) async fn end(&mut self) {
        if let Some(scheduler) = &mut self.scheduler
            && let Err(error) = scheduler.shutdown().await
        {
            tracing::debug!(%error, "the cron scheduler did not end well");
        }
    }

    async fn arm(&mut self, at: Timestamp, left: Duration) {
        let Some(scheduler) = &self.scheduler else {
            return;
        };
        if let Some((_, old)) = self.armed.take() {
            // One that has fired is gone already.
            scheduler.remove(&old).await.ok();
        }
        let woken = self.woken.clone();
        let job = Job::new_one_shot(left, move |_, _| woken.notify_one());
        let added = match job {
            Ok(job) => scheduler.add(job).await,
            Err(error) => Err(error),
        };
        match added {
            Ok(id) => self.armed = Some((at, id)),
            Err(error) => tracing::debug!(%error, "the cron scheduler took no job"),
        }
    }
}

async fn start() -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new_with_channel_size(CHANNEL).await?;
    scheduler.start().await?;
    Ok(scheduler)
}
