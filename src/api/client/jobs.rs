//! Questions about scheduled work.

use http::Method;

use super::{
    Client, ClientError, encoded,
    wire::{JobRun, JobRuns, Jobs},
};
use crate::model::JobName;

impl Client {
    /// Every job with its next instants and its last run.
    pub async fn jobs(&self) -> Result<Jobs, ClientError> {
        self.get("/v1/jobs").await
    }

    /// Runs a job now.
    pub async fn run_job(&self, name: &JobName) -> Result<JobRun, ClientError> {
        let target = format!("/v1/jobs/{name}/run");
        self.call(Method::POST, &target, None::<&()>).await
    }

    /// What ran, of one job or of all, newest first.
    pub async fn job_runs(
        &self,
        name: Option<&JobName>,
        limit: usize,
    ) -> Result<JobRuns, ClientError> {
        let of = name.map_or(String::new(), |name| {
            format!("&name={}", encoded(name.as_str()))
        });
        self.get(&format!("/v1/jobs/runs?limit={limit}{of}")).await
    }
}
