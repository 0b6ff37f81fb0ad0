//! `renewd job history`.

use jiff::Timestamp;

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Outcome},
        output::{self, STRONG, relative},
        table::{Cell, Table},
    },
    outcome,
};
use crate::{api::client::wire::JobRun, model::JobName};

/// Show what ran, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// Only this job
    name: Option<JobName>,
    /// At most so many runs
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl History {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let runs = client.job_runs(self.name.as_ref(), self.limit).await?;
        if self.json {
            output::print_json(&runs)?;
        } else {
            let text = render(&runs.runs, context.clock.now(), output::width());
            output::print(&text)?;
        }
        Ok(Exit::Done)
    }
}

fn render(runs: &[JobRun], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["WHEN", "JOB", "SCHEDULED", "OUTCOME"]);
    for run in runs {
        table.row([
            relative(run.started_at, now).into(),
            Cell::styled(run.job.as_str(), STRONG),
            format!("{:.0}", run.scheduled_at).into(),
            outcome(run).into(),
        ]);
    }
    match table.is_empty() {
        true => "no job ran yet\n".to_owned(),
        false => table.render(0, width),
    }
}
