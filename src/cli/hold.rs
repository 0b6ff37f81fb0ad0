//! `renewd hold`: tokens are withheld from every consumer first, then revoked; none follows.

use crate::api::client::wire::CampaignAction;

use super::{
    Context,
    bulk::{self, Selection},
    exit::Outcome,
};

/// Withhold and revoke the tokens of identities until they are released
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    selection: Selection,
}

impl Hold {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        bulk::run(context, self.selection, CampaignAction::Hold, None, "held").await
    }
}
