//! `renewd release`: the hold ends and the engine issues a token; a planned deletion is undone.

use crate::api::client::wire::CampaignAction;

use super::{
    Context,
    bulk::{self, Chosen, Task},
    exit::Outcome,
};

/// End the hold of identities: they get tokens again
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    chosen: Chosen,
}

impl Release {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Release, None, "released");
        bulk::run(context, self.chosen, task).await
    }
}
