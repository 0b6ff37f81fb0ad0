//! `renewd offboard`: somebody leaves. Withheld and revoked now, deleted later; `renewd release` undoes
//! what can still be undone.

use std::time::Duration;

use crate::{
    api::client::wire::CampaignAction,
    model::{Name, Then},
};

use super::{
    Context,
    bulk::{self, Task},
    daemon::daemon,
    duration,
    exit::{Failed, Outcome},
    output,
};

/// Withhold and revoke identities now, delete them at ACS later
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Until then `renewd release NAME` undoes it: the planned deletion is cancelled, and a token is issued."
)]
pub(crate) struct Offboard {
    /// The identities
    #[arg(required = true)]
    names: Vec<Name>,
    /// When to delete them at ACS
    #[arg(long, default_value = "30d", value_parser = duration::parse, value_name = "DURATION")]
    delete_after: Duration,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Offboard {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let client = daemon(context.socket);
        let starts_at = now.checked_add(self.delete_after).map_err(Failed::usage)?;
        let who = bulk::counted(self.names.len() as u64);
        let question = format!(
            "{who} will be withheld and revoked now, and deleted at ACS at {starts_at:.0}. Go on?"
        );
        if !self.yes && !output::confirm(&question)? {
            let why = format!("nothing was done: {who} were not confirmed");
            return Err(Failed::usage(why).hint("add --yes where nobody can answer"));
        }
        let reason = self.reason.as_deref();
        let revoke = Task::new(CampaignAction::Revoke, Some(Then::Hold), "held and revoked");
        let started = bulk::start(&client, revoke, &self.names, reason).await?;
        let delete = Task {
            starts_at: Some(starts_at),
            ..Task::new(CampaignAction::Delete, None, "deleted")
        };
        let planned = bulk::start(&client, delete, &self.names, reason).await?;
        let ended = bulk::follow(&client, context.clock, started, revoke.verb, false).await?;
        output::print(&format!(
            "to be deleted at {starts_at:.0} by campaign {}; renewd release undoes it until then\n",
            planned.campaign.id
        ))?;
        Ok(ended)
    }
}
