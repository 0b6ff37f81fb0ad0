//! `renewd delivery`: what every sink has of every identity, and what is to be tried again.

mod ask;
mod list;
mod show;

use clap::Subcommand;

use crate::api::client::{Client, DeliveryTable, wire::DeliveryRow};

use super::{
    Context,
    exit::{Failed, Outcome},
};

/// List, show, retry and replay deliveries
#[derive(Debug, clap::Args)]
pub(crate) struct Delivery {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the delivery table: one row for each identity and sink
    List(list::List),
    /// Show how far each sink and consumer of an identity is
    Show(show::Show),
    /// Try pending deliveries now, whatever breaker, receiver and schedule said
    Retry(ask::Ask),
    /// Deliver the current version once more, although it was delivered
    ///
    /// A webhook gets the same event under the same webhook-id; a file that is right already is left
    /// alone.
    Replay(ask::Ask),
}

impl Delivery {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Show(verb) => verb.run(context).await,
            Verb::Retry(ask) => ask.retry(context).await,
            Verb::Replay(ask) => ask.replay(context).await,
        }
    }
}

/// All rows, page by page.
async fn everything(client: &Client, of: &DeliveryTable) -> Result<Vec<DeliveryRow>, Failed> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = client.deliveries(of, after.as_deref()).await?;
        rows.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(rows),
        }
    }
}
