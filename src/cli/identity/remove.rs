//! `renewd identity remove`.

use crate::model::{Name, OnRemoval};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output,
};

/// Remove an identity that was added with `add`; ACS keeps it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What happens to its token was said when it was added: hold, forget or revoke."
)]
pub(crate) struct Remove {
    /// The identity
    name: Name,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Remove {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let removed = client.remove(&self.name, self.reason.as_deref()).await?;
        let how = match removed.on_removal {
            OnRemoval::Hold => "its token is withheld",
            OnRemoval::Forget => "its row and files are dropped, its token lives on until it ends",
            OnRemoval::Revoke => "its tokens are revoked",
        };
        output::print(&format!(
            "{} is removed: {how}; ACS keeps the identity\n",
            self.name
        ))?;
        Ok(Exit::Done)
    }
}
