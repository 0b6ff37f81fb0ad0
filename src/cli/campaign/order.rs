//! `renewd campaign pause | resume | cancel | retry`.

use crate::api::client::wire::{CampaignId, CampaignOrder};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output,
};

/// One campaign, and why
#[derive(Debug, clap::Args)]
pub(crate) struct Order {
    /// Its number
    id: CampaignId,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Order {
    pub(crate) async fn run(self, context: Context, order: CampaignOrder) -> Outcome {
        let client = daemon(context.socket);
        let of = client.order(self.id, order, self.reason).await?;
        if self.json {
            output::print_json(&of)?;
        } else {
            let (id, state) = (of.campaign.id, of.campaign.state.as_str());
            output::print(&format!(
                "campaign {id} is {state}: {} of {} ended, {} left\n",
                of.total - of.left,
                of.total,
                of.left
            ))?;
        }
        Ok(Exit::Done)
    }
}
