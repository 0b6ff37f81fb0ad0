//! `renewd sink`: which sinks there are and how they are; tests, pauses and enables them.

use clap::Subcommand;

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, BAD, Cell, DIM, GOOD, PLAIN, STRONG, Table, WARN, ago, paint},
};
use crate::{
    api::client::wire::{AskSink, SinkRow, SinkState, SinkTested, Sinks},
    model::SinkName,
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
    List(List),
    /// Hand a synthetic document over, from within the daemon, and show how that went
    ///
    /// The document is marked as a test in its name, its token and, for a webhook, the type of its event
    /// (renewd.sink.test); it never holds a real token. A file is written and removed again. A disabled
    /// sink can be tested, too.
    Test(Test),
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
    // A plain name means the sink of the machine that was asked.
    let is_meant = |row: &&SinkRow| {
        let name = row.name.as_str();
        let of_here = row.dispatcher.decided_at.is_some();
        let plain = name.strip_prefix(sink.as_str());
        name == sink.as_str() || (of_here && plain.is_some_and(|rest| rest.starts_with('@')))
    };
    let row = sinks.sinks.iter().find(is_meant);
    let sink = row.map_or(sink.as_str(), |row| row.name.as_str());
    let waiting = output::plural(row.map_or(0, |row| row.pending), "delivery", "deliveries");
    match to {
        SinkState::Paused => format!(
            "{sink} is paused, also over restarts; {waiting} pending; `renewd sink enable {sink}` ends it\n"
        ),
        _ => format!("{sink} is enabled; {waiting} pending\n"),
    }
}

/// List all sinks
#[derive(Debug, clap::Args)]
struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let sinks = daemon(context.socket).sinks().await?;
        if self.json {
            output::print_json(&sinks)?;
        } else {
            output::print(&render(&sinks, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

fn render(of: &Sinks, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "SINK", "STATE", "KIND", ">PENDING", ">LAG", ">RATE", "LEADS TO", "WHY",
    ]);
    for row in &of.sinks {
        table.row(cells(row, of));
    }
    match table.is_empty() {
        true => "no sinks\n".to_owned(),
        false => table.render(0, width),
    }
}

fn cells(row: &SinkRow, of: &Sinks) -> [Cell; 8] {
    let dispatcher = &row.dispatcher;
    let (word, style) = match row.state {
        SinkState::Open => ("open", GOOD),
        SinkState::Failing => ("failing", WARN),
        SinkState::Disabled => ("disabled", BAD),
        SinkState::Paused => ("paused", WARN),
    };
    let why = match row.state {
        SinkState::Open => "",
        SinkState::Failing => dispatcher.last_error.as_deref().unwrap_or_default(),
        SinkState::Disabled | SinkState::Paused => {
            dispatcher.disabled.as_deref().unwrap_or_default()
        }
    };
    [
        Cell::styled(row.name.as_str(), STRONG),
        Cell::styled(word, style),
        dispatcher.kind.as_str().into(),
        Cell::styled(
            row.pending.to_string(),
            if row.pending > 0 { WARN } else { PLAIN },
        ),
        row.oldest_pending
            .map_or_else(|| "–".to_owned(), |since| ago(since, of.at))
            .into(),
        dispatcher.rate.as_deref().unwrap_or("–").into(),
        dispatcher.target.as_str().into(),
        Cell::styled(why, DIM),
    ]
}

/// Hand a synthetic document over, from within the daemon, and show how that went
#[derive(Debug, clap::Args)]
struct Test {
    /// The sink
    sink: SinkName,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Test {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let ask = AskSink::default();
        let tested = daemon(context.socket).test(&self.sink, &ask).await?;
        if self.json {
            output::print_json(&tested)?;
        } else {
            output::print(&test_result(&tested))?;
        }
        Ok(match tested.arrived {
            true => Exit::Done,
            false => Exit::Failed,
        })
    }
}

fn test_result(of: &SinkTested) -> String {
    let (word, style) = match of.arrived {
        true => ("arrived", GOOD),
        false => ("did not arrive", BAD),
    };
    format!(
        "{} {} {}\n{}\n",
        paint(STRONG, &of.sink),
        paint(style, word),
        paint(
            DIM,
            format!("in {} ms, {} {}", of.took_ms, of.kind, of.target)
        ),
        of.answer
    )
}
