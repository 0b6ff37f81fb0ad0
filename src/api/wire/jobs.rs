//! Scheduled work on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{JobAction, JobName, Missed, Selection, Then};
pub use crate::store::{JobRun, RunOutcome};

/// One job, as `GET /v1/jobs` lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// The pattern.
    pub cron: String,
    /// The zone in which it is meant.
    pub timezone: String,
    /// What it starts.
    pub action: JobAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// Over which identities.
    pub select: Selection,
    /// What becomes of instants that passed while nothing could run.
    pub missed: Missed,
    /// The next instants.
    pub next: Vec<Timestamp>,
    /// The last run.
    pub last: Option<JobRun>,
}

/// `GET /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    /// In the order of the configuration.
    pub jobs: Vec<Job>,
}

/// `GET /v1/jobs/runs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRuns {
    /// Newest first.
    pub runs: Vec<JobRun>,
}
