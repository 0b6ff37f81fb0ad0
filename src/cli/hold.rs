//! `renewd hold`: tokens are withheld from every consumer; ACS is not called.

use crate::api::client::wire::CampaignAction;

use super::{
    Context,
    bulk::{self, Chosen, Task},
    exit::Outcome,
};

/// Withhold the tokens of identities from every consumer until they are released
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    chosen: Chosen,
}

impl Hold {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Hold, None, "held");
        bulk::run(context, self.chosen, task).await
    }
}
