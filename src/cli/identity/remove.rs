//! `renewd identity remove`.

use crate::model::Name;

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
        client.remove(&self.name, self.reason.as_deref()).await?;
        output::print(&format!(
            "{} is removed; ACS keeps the identity\n",
            self.name
        ))?;
        Ok(Exit::Done)
    }
}
