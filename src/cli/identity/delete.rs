//! `renewd identity delete`: the identity ends at ACS, for ever.

use crate::api::client::wire::CampaignAction;

use super::super::{
    Context,
    bulk::{self, Chosen, Task},
    exit::Outcome,
};

/// Delete identities at ACS, with everything that hangs on them; asks first
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    chosen: Chosen,
}

impl Delete {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Delete, None, "deleted");
        bulk::run(context, self.chosen, task).await
    }
}
