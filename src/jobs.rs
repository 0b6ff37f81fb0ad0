//! Wakes at cron instants and starts campaigns. What is due is decided purely
//! ([`schedule::call`](crate::schedule::call)) from what the store says was decided last; a run, the
//! instants that are decided with it and its campaign are one commit, so no crash repeats or loses one.
//!
//! What wakes the loop: `tokio-cron-scheduler`, with one job for the earliest instant, so that it can
//! lose no event of its channel and keeps no zone. It may wake up to a second early and knows nothing
//! of suspended machines or simulated time: so whoever is woken asks the clock again, and no wait is
//! longer than the clock's own bound.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_cron_scheduler::{JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::JobSettings,
    schedule::{Cron, JobCall, call},
    store::{JobRun, JobSchedule, NewCampaign, NewRun, RunOutcome, Store, StoreError},
};

/// While the store cannot be written, it is tried again after so long.
const TROUBLE: Duration = Duration::from_secs(5);

/// A run that the store refuses by itself is tried again after so long.
const REFUSED: Duration = Duration::from_mins(1);

/// The loop of all jobs.
#[derive(Debug)]
pub struct Jobs {
    jobs: Vec<Job>,
    store: Store,
    clock: Clock,
    decided: watch::Sender<Option<Timestamp>>,
}

#[derive(Debug)]
struct Job {
    settings: JobSettings,
    cron: Cron,
    /// Every instant until then is decided.
    decided_until: Timestamp,
    /// The store refuses its run by itself: until then it is not tried again.
    rests_until: Option<Timestamp>,
}

impl Jobs {
    /// A loop that has not begun. A job whose pattern cannot be read was refused by the check of the
    /// configuration; here it would only be left out.
    pub fn new(settings: &[JobSettings], store: Store, clock: Clock) -> Self {
        let jobs = settings.iter().filter_map(|settings| {
            Some(Job {
                cron: Cron::parse(&settings.cron, &settings.timezone).ok()?,
                settings: settings.clone(),
                decided_until: Timestamp::MAX,
                rests_until: None,
            })
        });
        Self {
            jobs: jobs.collect(),
            store,
            clock,
            decided: watch::Sender::default(),
        }
    }

    /// When the loop last made or reaffirmed its decision.
    pub fn decided(&self) -> watch::Receiver<Option<Timestamp>> {
        self.decided.subscribe()
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// When the store is gone.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut waker = Waker::new(&self.clock).await;
        let mut known = false;
        loop {
            let worked = async {
                if !known {
                    self.take_over().await?;
                    known = true;
                }
                self.round().await
            };
            let wake = match worked.await {
                Ok(next) => next,
                Err(error @ StoreError::Closed { .. }) => return Err(error),
                Err(error) => {
                    // Who keeps the lease tells, once, that the database is away.
                    if !matches!(error, StoreError::Away { .. }) {
                        tracing::error!(%error, "jobs wait until the store works");
                    }
                    self.clock.now().checked_add(TROUBLE).ok()
                }
            };
            self.decided.send_replace(Some(self.clock.now()));
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    waker.end().await;
                    return Ok(());
                }
                () = waker.wait(&self.clock, wake) => {}
            }
        }
    }

    async fn take_over(&mut self) -> Result<(), StoreError> {
        let schedules = self.jobs.iter().map(|job| JobSchedule {
            name: job.settings.name.clone(),
            schedule: format!("{} {}", job.settings.cron, job.settings.timezone),
        });
        let states = self
            .store
            .job_states(schedules.collect(), self.clock.now())
            .await?;
        for (job, until) in self.jobs.iter_mut().zip(states) {
            job.decided_until = until;
        }
        Ok(())
    }

    /// A run was decided, or the store refuses it by itself: then its job rests, and the others go on.
    fn ran(&mut self, run: &NewRun, done: &Result<JobRun, StoreError>, now: Timestamp) {
        let mut jobs = self.jobs.iter_mut();
        let Some(job) = jobs.find(|job| job.settings.name == run.job) else {
            return;
        };
        match done {
            Ok(done) => {
                tell(done);
                job.rests_until = None;
                job.decided_until = run.decided_until.unwrap_or(job.decided_until);
            }
            Err(error) => {
                tracing::error!(job = %run.job, scheduled_at = %run.scheduled_at, %error, "the store refuses a run of a job; it is tried again");
                job.rests_until = now.checked_add(REFUSED).ok();
            }
        }
    }

    /// Decides what is due; the earliest instant that comes next.
    async fn round(&mut self) -> Result<Option<Timestamp>, StoreError> {
        loop {
            let now = self.clock.now();
            let (mut runs, mut next) = (Vec::new(), None::<Timestamp>);
            for job in &self.jobs {
                if let Some(until) = job.rests_until.filter(|until| now < *until) {
                    next = next.into_iter().chain([until]).min();
                    continue;
                }
                match call(&job.cron, job.decided_until, job.settings.missed, now) {
                    JobCall::Wait(at) => next = next.into_iter().chain(at).min(),
                    due => runs.push(run(job, due)),
                }
            }
            let runs: Vec<NewRun> = runs.into_iter().flatten().collect();
            if runs.is_empty() {
                return Ok(next);
            }
            let done = self.store.run_jobs(runs.clone(), now).await?;
            for (run, done) in runs.iter().zip(done) {
                self.ran(run, &done, now);
            }
        }
    }
}

/// What the store is asked for.
fn run(job: &Job, due: JobCall) -> Option<NewRun> {
    let (scheduled_at, decided_until, what) = match due {
        JobCall::Wait(_) => return None,
        JobCall::Run {
            scheduled_at,
            decided_until,
        } => (
            scheduled_at,
            decided_until,
            Ok(NewCampaign::of_job(&job.settings)),
        ),
        JobCall::Skip {
            scheduled_at,
            decided_until,
        } => (
            scheduled_at,
            decided_until,
            Err("missed: nothing could run at that time".to_owned()),
        ),
    };
    Some(NewRun {
        job: job.settings.name.clone(),
        scheduled_at,
        decided_until: Some(decided_until),
        what,
    })
}

fn tell(run: &JobRun) {
    let (job, at) = (&run.job, run.scheduled_at);
    let why = run.reason.as_deref().unwrap_or_default();
    match run.outcome {
        RunOutcome::Started => {
            tracing::info!(%job, scheduled_at = %at, campaign = run.campaign, "a job started its campaign");
        }
        RunOutcome::Skipped => tracing::warn!(%job, scheduled_at = %at, "a job did not run: {why}"),
        RunOutcome::Failed => tracing::error!(%job, scheduled_at = %at, "a job failed: {why}"),
    }
}

/// Events that may wait in the scheduler's channel; its own default loses some over 200.
const CHANNEL: usize = 4096;
/// Waits this short are the clock's alone: the scheduler looks every half second.
const SHORT: Duration = Duration::from_secs(2);

struct Waker {
    scheduler: Option<JobScheduler>,
    woken: Arc<Notify>,
    armed: Option<(Timestamp, Uuid)>,
}

impl Waker {
    /// The scheduler, on the machine's own clock; under a simulated one the clock wakes alone.
    async fn new(clock: &Clock) -> Self {
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
    async fn wait(&mut self, clock: &Clock, at: Option<Timestamp>) {
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
    async fn end(&mut self) {
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
        let job = tokio_cron_scheduler::Job::new_one_shot(left, move |_, _| woken.notify_one());
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
