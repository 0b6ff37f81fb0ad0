//! `renewd identity revive` and `renewd identity confirm-gone`: a person's word on what ACS says is gone.

use crate::model::{Name, ResourceName};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output,
};

/// Ask for identities that are gone again, under the same id
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For when ACS knows them again, or never forgot them: after the connection string of another resource, \
or a restore on their side. Should ACS still not know them, they are gone again."
)]
pub(crate) struct Revive {
    /// The identities
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Revive {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let mut failed = 0;
        for name in &self.names {
            match client.revive(name, self.reason.as_deref()).await {
                Ok(_) => output::print(&format!("{name} is asked for again, under its id\n"))?,
                Err(error) if self.names.len() == 1 => return Err(error.into()),
                Err(error) => {
                    failed += 1;
                    output::aside(&format!("{name}: {error}"));
                }
            }
        }
        Ok(match failed {
            0 => Exit::Done,
            all if all == self.names.len() => Exit::Failed,
            _ => Exit::Partly,
        })
    }
}

/// Say that the identities of a resource that ACS says are gone really are: their tokens are withdrawn
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For when ACS said so of too many at once, which `renewd status` shows. If the connection string is one \
of another resource, put the right one in its place and reload instead: then nothing is lost."
)]
pub(crate) struct ConfirmGone {
    /// The resource
    resource: ResourceName,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl ConfirmGone {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let names = client
            .confirm_gone(&self.resource, self.reason.as_deref())
            .await?;
        output::print(&match names.len() {
            0 => format!("nothing of {} waits for a word\n", self.resource),
            1 => format!("{} is gone, and its token withdrawn\n", names[0]),
            many => format!(
                "{many} identities of {} are gone, and their tokens withdrawn\n",
                self.resource
            ),
        })?;
        Ok(Exit::Done)
    }
}
