//! `renewd sink test`.

use crate::{
    api::client::wire::{AskSink, SinkTested},
    model::SinkName,
};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, BAD, DIM, GOOD, STRONG, paint},
};

/// Hand a synthetic document over, from within the daemon, and show how that went
#[derive(Debug, clap::Args)]
pub(super) struct Test {
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
            output::print(&said(&tested))?;
        }
        Ok(match tested.arrived {
            true => Exit::Done,
            false => Exit::Failed,
        })
    }
}

fn said(of: &SinkTested) -> String {
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
