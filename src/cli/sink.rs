//! `renewd sink`: which sinks there are and how they are; tests, pauses and enables them.

mod list;
mod test;

use clap::Subcommand;

use crate::{
    api::client::wire::{AskSink, SinkState, Sinks},
    model::SinkName,
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output,
};

/// List, test, pause and enable sinks
#[derive(Debug, clap::Args)]
pub(crate) struct Sink {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all sinks: where they lead, how they are, how far behind
    List(list::List),
    /// Hand a synthetic document over, from within the daemon, and show how that went
    ///
    /// The document is marked as a test in its name, its token and, for a webhook, the type of its event
    /// (renewd.sink.test); it never holds a real token. A file is written and removed again. A disabled
    /// sink can be tested, too.
    Test(test::Test),
    /// Stop deliveries to a sink until it is enabled, over restarts
    ///
    /// What is wanted meanwhile waits; only the newest version goes out once the sink is enabled.
    Pause(Change),
    /// Let deliveries go out again; what waited goes out at once
    Enable(Change),
}

/// A sink and why.
#[derive(Debug, clap::Args)]
struct Change {
    /// The sink
    sink: SinkName,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Sink {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Test(verb) => verb.run(context).await,
            Verb::Pause(change) => change.run(context, SinkState::Paused).await,
            Verb::Enable(change) => change.run(context, SinkState::Open).await,
        }
    }
}

impl Change {
    async fn run(self, context: Context, to: SinkState) -> Outcome {
        let ask = AskSink {
            reason: self.reason,
        };
        let client = daemon(context.socket);
        let sinks = match to {
            SinkState::Paused => client.pause(&self.sink, &ask).await?,
            _ => client.enable(&self.sink, &ask).await?,
        };
        if self.json {
            output::print_json(&sinks)?;
        } else {
            output::print(&said(&self.sink, &sinks, to))?;
        }
        Ok(Exit::Done)
    }
}

fn said(sink: &SinkName, sinks: &Sinks, to: SinkState) -> String {
    let row = sinks.sinks.iter().find(|row| row.name == *sink);
    let waiting = output::plural(row.map_or(0, |row| row.pending), "delivery", "deliveries");
    match to {
        SinkState::Paused => format!(
            "{sink} is paused, over restarts; {waiting} pending; `renewd sink enable {sink}` ends it\n"
        ),
        _ => format!("{sink} is enabled; {waiting} pending\n"),
    }
}
