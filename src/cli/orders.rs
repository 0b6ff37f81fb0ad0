//! Verbs that start bulk work over identities.
//!
//! `renewd hold`: tokens are withheld from every consumer; ACS is not called.
//!
//! `renewd release`: the hold ends and the engine issues a token; a planned deletion is undone.
//!
//! `renewd renew`: asks the engine for new tokens now; the old ones stay good.
//!
//! `renewd revoke`: all tokens of an identity die at ACS; then a new one, or none.
//!
//! `renewd offboard`: somebody leaves. Withheld and revoked now, deleted later; `renewd release` undoes
//! what can still be undone.

use std::time::Duration;

use super::{
    Context,
    bulk::{self, Chosen, Task},
    daemon::daemon,
    duration,
    exit::{Failed, Outcome},
    output,
};
use crate::{
    api::client::wire::CampaignAction,
    model::{Name, Then},
};

/// Withhold the tokens of identities from every consumer until they are released
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    chosen: Chosen,
}

impl Hold {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Hold, None, "held");
        bulk::run(context, self.chosen, task).await
    }
}

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

/// Renew tokens now; the old ones stay good until they expire
#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    #[command(flatten)]
    chosen: Chosen,
}

impl Renew {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Renew, None, "renewed");
        bulk::run(context, self.chosen, task).await
    }
}

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
