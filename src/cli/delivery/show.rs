//! `renewd delivery show`.

use crate::{api::client::Ledger, model::Name};

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Outcome},
        output,
    },
    everything,
    list::render,
};

/// Show how far each sink and consumer of an identity is
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The identity
    name: Name,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let ledger = Ledger {
            name: Some(self.name.clone()),
            ..Ledger::default()
        };
        let rows = everything(&daemon(context.socket), &ledger).await?;
        if self.json {
            let shown = serde_json::json!({ "name": self.name, "deliveries": rows });
            output::print_json(&shown)?;
        } else {
            output::print(&render(&rows, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }
}
