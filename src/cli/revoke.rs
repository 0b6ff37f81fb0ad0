//! `renewd revoke`: all tokens of an identity die at ACS; then a new one, or none.

use crate::{api::client::wire::CampaignAction, model::Then};

use super::{
    Context,
    bulk::{self, Chosen, Task},
    exit::Outcome,
};

/// Revoke all tokens of identities
#[derive(Debug, clap::Args)]
#[command(
    after_help = "ACS may take up to 15 minutes until a revoked token is refused everywhere."
)]
pub(crate) struct Revoke {
    #[command(flatten)]
    chosen: Chosen,
    /// What follows: a new token (reissue), or none until release (hold)
    #[arg(long, default_value = "reissue", value_name = "reissue|hold")]
    then: Then,
}

impl Revoke {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Revoke, Some(self.then), "revoked");
        bulk::run(context, self.chosen, task).await
    }
}
