//! Verbs of scheduled work.

use super::Answer;
use crate::{
    model::{JobName, Timestamp},
    store::{Each, JobRun, JobSchedule, NewRun, Store},
};

impl Store {
    /// Up to when the instants of these jobs are decided, in their order. A job that is new, or whose
    /// pattern or zone changed, starts now.
    pub async fn job_states(
        &self,
        jobs: Vec<JobSchedule>,
        now: Timestamp,
    ) -> Answer<Vec<Timestamp>> {
        self.write("take the jobs over", move |txn| txn.job_states(&jobs, now))
            .await
    }

    /// Decides runs and makes their campaigns, in one transaction: so each instant starts at most one
    /// campaign, over crashes too. A run whose job has a campaign that is not over is left out. Each is
    /// answered; one that the store refuses keeps no other back.
    pub async fn run_jobs(&self, runs: Vec<NewRun>, now: Timestamp) -> Answer<Each<JobRun>> {
        self.withdraw("start jobs", move |txn| txn.run_jobs(&runs, now))
            .await
    }

    /// The runs of a job, or of all jobs, newest first.
    pub async fn job_runs(&self, job: Option<&JobName>, limit: usize) -> Answer<Vec<JobRun>> {
        let job = job.map(ToString::to_string);
        self.read("list the runs of jobs", move |db| {
            db.job_runs(job.as_deref(), limit)
        })
        .await
    }

    /// The last run of each job that ever ran.
    pub async fn last_runs(&self) -> Answer<Vec<JobRun>> {
        self.read("list the last runs of jobs", |db| db.last_runs())
            .await
    }
}
