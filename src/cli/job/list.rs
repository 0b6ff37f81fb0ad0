//! `renewd job list`.

use jiff::{Timestamp, tz::TimeZone};

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
use crate::api::client::wire;

/// List the jobs with their next instants and their last run
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let jobs = daemon(context.socket).jobs().await?;
        if self.json {
            output::print_json(&jobs)?;
        } else {
            output::print(&render(&jobs, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }
}

fn render(jobs: &wire::Jobs, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["JOB", "ACTION", "CRON", "NEXT", "", "LAST", "SELECTION"]);
    for job in &jobs.jobs {
        let next = job.next.first();
        table.row([
            Cell::styled(job.name.as_str(), STRONG),
            job.action.as_str().into(),
            format!("{} {}", job.cron, job.timezone).into(),
            next.map_or("never".to_owned(), |at| local(*at, &job.timezone))
                .into(),
            next.map_or(String::new(), |at| relative(*at, now)).into(),
            last(job, now).into(),
            job.select.to_string().into(),
        ]);
    }
    match table.is_empty() {
        true => "there are no jobs\n".to_owned(),
        false => table.render(0, width),
    }
}

fn last(job: &wire::Job, now: Timestamp) -> String {
    job.last.as_ref().map_or("–".to_owned(), |run| {
        format!("{}: {}", relative(run.started_at, now), outcome(run))
    })
}

/// As a clock on the wall shows it there, with its offset: the pattern is meant so.
fn local(at: Timestamp, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    at.to_zoned(zone)
        .strftime("%a %Y-%m-%d %H:%M:%S %:z")
        .to_string()
}
