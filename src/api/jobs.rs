//! Jobs over the socket: what is scheduled, what ran, and a run by hand.

use axum::extract::{Path, Query, State};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    admin::Admin,
    connection::{ClientError, DaemonClient},
    endpoint::{Endpoint as _, EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
};
use crate::{
    config::JobSettings,
    model::{JobAction, JobName, Missed, Selection, Then},
    schedule::Cron,
    store::{NewCampaign, NewRun},
};

pub use crate::store::{JobRun, RunOutcome};

endpoints! {
    ListJobs: GET "/v1/jobs", () => JobList;
    /// What ran, newest first.
    ListJobRuns: GET "/v1/jobs/runs" ?limit name, () => JobRuns;
    /// Runs a job now.
    RunJob: POST "/v1/jobs/{name}/run", () => JobRun as ACCEPTED;
}

/// One job, as `GET /v1/jobs` lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Job {
    pub name: JobName,
    pub cron: String,
    /// The zone in which it is meant.
    pub timezone: String,
    pub action: JobAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    pub select: Selection,
    /// What becomes of instants that passed while nothing could run.
    pub missed: Missed,
    pub next: Vec<Timestamp>,
    pub last: Option<JobRun>,
}

/// `GET /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobList {
    /// In the order of the configuration.
    pub jobs: Vec<Job>,
}

/// `GET /v1/jobs/runs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobRuns {
    /// The newest run comes first.
    pub runs: Vec<JobRun>,
}

/// How many instants are foretold.
const FORETOLD: usize = 3;
/// How many runs are listed where nobody says.
const RUNS: usize = 50;

/// Every job with its next instants and its last run.
pub(super) async fn list(State(api): State<Api>, _: Admin) -> EndpointAnswer<ListJobs> {
    let last = api.store.last_runs().await?;
    let now = api.clock.now();
    let shared_state = api.shared_state();
    let jobs = shared_state.jobs.iter().map(|job| Job {
        name: job.name.clone(),
        cron: job.cron.clone(),
        timezone: job.timezone.clone(),
        action: job.action,
        then: job.then,
        select: job.select.clone(),
        missed: job.missed,
        next: next(job, now),
        last: last.iter().find(|run| run.job == job.name).cloned(),
    });
    Ok(Json(JobList {
        jobs: jobs.collect(),
    }))
}

/// Runs a job now, whatever its pattern says; not beside an earlier run.
pub(super) async fn run(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<JobRun>), Problem> {
    let shared_state = api.shared_state();
    let Some(job) = shared_state
        .jobs
        .iter()
        .find(|job| job.name.as_str() == name)
    else {
        let why = format!("there is no job {name:?}");
        return Err(Problem::new(ProblemType::Unknown, why));
    };
    let now = api.clock.now();
    let run = NewRun {
        job: job.name.clone(),
        scheduled_at: now,
        decided_until: None,
        what: Ok(NewCampaign::of_job(job)),
    };
    let done = api.store.run_jobs(vec![run], now).await?;
    let audited = admin.audit(&api, "job.run", None, Some(format!("job {name}")), "asked");
    audited.await?;
    let run = done.into_iter().next();
    let run = run.ok_or_else(|| Problem::new(ProblemType::Internal, "nothing was decided"))??;
    Ok((RunJob::STATUS, Json(run)))
}

/// `?name=…&limit=…`.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    name: Option<JobName>,
    limit: Option<usize>,
}

/// What ran, newest first.
pub(super) async fn runs(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<Which>,
) -> EndpointAnswer<ListJobRuns> {
    let limit = which.limit.unwrap_or(RUNS).min(super::admin::PAGE);
    let runs = api.store.job_runs(which.name.as_ref(), limit).await?;
    Ok(Json(JobRuns { runs }))
}

fn next(job: &JobSettings, now: jiff::Timestamp) -> Vec<jiff::Timestamp> {
    let Ok(cron) = Cron::parse(&job.cron, &job.timezone) else {
        return Vec::new();
    };
    let instants = std::iter::successors(cron.next(now), |last| cron.next(*last));
    instants.take(FORETOLD).collect()
}

impl DaemonClient {
    /// Every job with its next instants and its last run.
    pub async fn jobs(&self) -> Result<JobList, ClientError> {
        self.call(ListJobs, &[]).send().await
    }

    /// Runs a job now.
    pub async fn run_job(&self, name: &JobName) -> Result<JobRun, ClientError> {
        self.call(RunJob, &[name]).send().await
    }

    /// What ran, of one job or of all, newest first.
    pub async fn job_runs(
        &self,
        name: Option<&JobName>,
        limit: usize,
    ) -> Result<JobRuns, ClientError> {
        let pairs = [
            ("limit", Some(limit.to_string())),
            ("name", name.map(ToString::to_string)),
        ];
        self.call(ListJobRuns, &[]).query(pairs).send().await
    }
}
