//! `renewd job run`.

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Outcome},
        output,
    },
    outcome,
};
use crate::{api::client::wire::RunOutcome, model::JobName};

/// Run a job now, whatever its pattern says; not beside an earlier run of it
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The job
    name: JobName,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let run = daemon(context.socket).run_job(&self.name).await?;
        if self.json {
            output::print_json(&run)?;
        } else {
            output::print(&format!("{}: {}\n", self.name, outcome(&run)))?;
        }
        Ok(match run.outcome {
            RunOutcome::Started => Exit::Done,
            RunOutcome::Skipped | RunOutcome::Failed => Exit::Failed,
        })
    }
}
