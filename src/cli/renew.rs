//! `renewd renew`: asks the engine for new tokens now; the old ones stay good.

use crate::api::client::wire::CampaignAction;

use super::{
    Context,
    bulk::{self, Chosen, Task},
    exit::Outcome,
};

/// Renew tokens now; the old ones stay good until they expire
#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    #[command(flatten)]
    chosen: Chosen,
}

impl Renew {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Renew, None, "renewed");
        bulk::run(context, self.chosen, task).await
    }
}
