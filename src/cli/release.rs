//! `renewd release`: the hold ends and the engine issues a token.

use crate::api::client::wire::CampaignAction;

use super::{
    Context,
    bulk::{self, Selection},
    exit::Outcome,
};

/// End the hold of identities: they get tokens again
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    selection: Selection,
}

impl Release {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        bulk::run(
            context,
            self.selection,
            CampaignAction::Release,
            None,
            "released",
        )
        .await
    }
}
