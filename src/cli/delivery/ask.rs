//! `renewd delivery retry` and `replay`.

use crate::{
    api::client::wire::{AskDeliveries, AskedDeliveries},
    model::{Name, SinkName},
};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, STRONG, WARN, paint, plural},
};

/// Which deliveries are asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Ask {
    /// Of these identities
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<Name>,
    /// Of every identity
    #[arg(long)]
    all: bool,
    /// Of this sink alone
    #[arg(long, value_name = "NAME")]
    sink: Option<SinkName>,
    /// Only those that are given up, or of a disabled sink
    #[arg(long)]
    dead: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Ask {
    pub(super) async fn retry(self, context: Context) -> Outcome {
        let asked = daemon(context.socket).retry(&self.wanted()).await?;
        self.say(&asked, "tried")
    }

    pub(super) async fn replay(self, context: Context) -> Outcome {
        let asked = daemon(context.socket).replay(&self.wanted()).await?;
        self.say(&asked, "made once more")
    }

    fn wanted(&self) -> AskDeliveries {
        AskDeliveries {
            names: self.names.clone(),
            all: self.all,
            sink: self.sink.clone(),
            dead: self.dead,
            reason: self.reason.clone(),
        }
    }

    fn say(&self, asked: &AskedDeliveries, what: &str) -> Outcome {
        if self.json {
            output::print_json(asked)?;
        } else {
            output::print(&said(asked, what))?;
        }
        Ok(Exit::Done)
    }
}

fn said(asked: &AskedDeliveries, what: &str) -> String {
    let due = plural(asked.due, "delivery is", "deliveries are");
    let mut text = format!("{} {what} now\n", paint(STRONG, due));
    for sink in asked.disabled.iter().filter(|_| asked.due > 0) {
        let waits =
            format!("{sink} is disabled: its deliveries wait for `renewd sink enable {sink}`");
        text.push_str(&format!("{}\n", paint(WARN, waits)));
    }
    text
}
