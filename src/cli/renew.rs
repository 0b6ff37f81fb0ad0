//! `renewd renew`: asks the engine for new tokens now; the old ones stay good.

use crate::{api::client::wire, model::Name};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, STRONG, paint},
};

/// Renew tokens now; the old ones stay good until they expire
#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    /// The identities
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<Name>,
    /// Every identity that wants a token
    #[arg(long)]
    all: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Renew {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let wanted = wire::Renew {
            names: self.names,
            all: self.all,
            reason: self.reason,
        };
        let renewing = daemon(context.socket).renew(&wanted).await?;
        let noun = if renewing.due == 1 {
            "identity is"
        } else {
            "identities are"
        };
        output::print(&format!(
            "{} {noun} due now; the engine renews them at its pace\n",
            paint(STRONG, renewing.due)
        ))?;
        Ok(Exit::Done)
    }
}
