//! `renewd job`: what is scheduled, what ran, and a run by hand.

mod history;
mod list;
mod run;

use super::{Context, exit::Outcome};
use crate::api::client::wire::{JobRun, RunOutcome};

/// List jobs, run one now, show what ran
#[derive(Debug, clap::Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the jobs with their next instants and their last run
    List(list::List),
    /// Run a job now, whatever its pattern says
    Run(run::Run),
    /// Show what ran, newest first
    History(history::History),
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
