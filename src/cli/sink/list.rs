//! `renewd sink list`.

use crate::api::client::wire::{SinkRow, SinkState, Sinks};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, BAD, DIM, GOOD, PLAIN, STRONG, WARN, ago},
    table::{Cell, Table},
};

/// List all sinks
#[derive(Debug, clap::Args)]
pub(super) struct List {
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
        "SINK", "KIND", "STATE", ">PENDING", ">LAG", ">RATE", "LEADS TO", "WHY",
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
        dispatcher.kind.as_str().into(),
        Cell::styled(word, style),
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
