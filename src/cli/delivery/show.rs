//! `renewd delivery show`.

use crate::{api::client::DeliveryTable, model::Name};

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Outcome},
        holders, output,
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
        let delivery_table = DeliveryTable {
            name: Some(self.name.clone()),
            ..DeliveryTable::default()
        };
        let client = daemon(context.socket);
        let rows = everything(&client, &delivery_table).await?;
        let consumers = client.holders(Some(&self.name), false).await?.items;
        if self.json {
            let shown = serde_json::json!({
                "name": self.name, "deliveries": rows, "consumers": consumers,
            });
            output::print_json(&shown)?;
            return Ok(Exit::Done);
        }
        let (now, width) = (context.clock.now(), output::width());
        output::print(&render(&rows, now, width))?;
        if !consumers.is_empty() {
            let table = holders::table(&consumers, now).render(0, width);
            output::print(&format!("\n{table}"))?;
        }
        Ok(Exit::Done)
    }
}
