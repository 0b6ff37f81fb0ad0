//! `renewd job`: what is scheduled, what ran, and a run by hand.

use jiff::{Timestamp, tz::TimeZone};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, Cell, STRONG, Table, relative},
};
use crate::{
    api::client::wire::{self, JobRun, RunOutcome},
    model::JobName,
};

/// List jobs, run one now, show what ran
#[derive(Debug, clap::Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the jobs with their next instants and their last run
    List(List),
    /// Run a job now, whatever its pattern says
    Run(Run),
    /// Show what ran, newest first
    History(History),
}

impl Job {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Run(verb) => verb.run(context).await,
            Verb::History(verb) => verb.run(context).await,
        }
    }
}

/// What became of a run, in a few words.
fn outcome(run: &JobRun) -> String {
    let why = run.reason.as_deref().unwrap_or_default();
    match (run.outcome, run.campaign) {
        (RunOutcome::Started, Some(id)) if run.ended_at.is_some() => format!("campaign {id}, over"),
        (RunOutcome::Started, Some(id)) => format!("campaign {id} runs"),
        (RunOutcome::Started, None) => "started".to_owned(),
        (RunOutcome::Skipped, _) => format!("left out: {why}"),
        (RunOutcome::Failed, _) => format!("failed: {why}"),
    }
}

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
    let mut table = Table::new(&["WHEN", "JOB", "OUTCOME", "SCHEDULED"]);
    for run in runs {
        table.row([
            relative(run.started_at, now).into(),
            Cell::styled(run.job.as_str(), STRONG),
            outcome(run).into(),
            format!("{:.0}", run.scheduled_at).into(),
        ]);
    }
    match table.is_empty() {
        true => "no job ran yet\n".to_owned(),
        false => table.render(0, width),
    }
}

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
            output::print(&jobs_table(&jobs, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }
}

fn jobs_table(jobs: &wire::JobList, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["JOB", "ACTION", "NEXT", "", "LAST", "CRON", "SELECTION"]);
    for job in &jobs.jobs {
        let next = job.next.first();
        table.row([
            Cell::styled(job.name.as_str(), STRONG),
            job.action.as_str().into(),
            next.map_or("never".to_owned(), |at| relative(*at, now))
                .into(),
            next.map_or(String::new(), |at| local(*at, &job.timezone))
                .into(),
            last(job, now).into(),
            format!("{} {}", job.cron, job.timezone).into(),
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
