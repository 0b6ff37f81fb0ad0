//! `renewd campaign`: bulk operations, seen and steered.

mod reports;

use clap::Subcommand;

use crate::api::client::wire::{CampaignAction, CampaignId, CampaignOrder, CampaignProgress};

use super::{Context, bulk, daemon::daemon, exit::Outcome};

/// List, follow, pause, resume, cancel, repeat and report bulk operations
#[derive(Debug, clap::Args)]
pub(crate) struct Campaign {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List campaigns, the newest first
    List(reports::List),
    /// Show one, with what failed
    Show(reports::Show),
    /// Follow one to its end; Ctrl-C leaves it running
    Watch(Watch),
    /// Stop one for now: what is under way ends, nothing more begins
    Pause(reports::Order),
    /// Let a paused one go on
    Resume(reports::Order),
    /// Stop one for good; what was done stays done
    Cancel(reports::Order),
    /// Try again what failed for good
    Retry(reports::Order),
    /// Print what was done to each identity, when, and with which request
    Report(reports::Report),
}

/// Follow a campaign to its end
#[derive(Debug, clap::Args)]
struct Watch {
    /// Its number
    id: CampaignId,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

impl Campaign {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Show(verb) => verb.run(context).await,
            Verb::Watch(verb) => verb.run(context).await,
            Verb::Pause(verb) => verb.run(context, CampaignOrder::Pause).await,
            Verb::Resume(verb) => verb.run(context, CampaignOrder::Resume).await,
            Verb::Cancel(verb) => verb.run(context, CampaignOrder::Cancel).await,
            Verb::Retry(verb) => verb.run(context, CampaignOrder::Retry).await,
            Verb::Report(verb) => verb.run(context).await,
        }
    }
}

impl Watch {
    async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let found = client.campaign(self.id).await?;
        let verb = done(found.campaign.action);
        bulk::follow(&client, context.clock, found, verb, self.json).await
    }
}

/// The action in the past tense.
fn done(action: CampaignAction) -> &'static str {
    match action {
        CampaignAction::Revoke => "revoked",
        CampaignAction::Hold => "held",
        CampaignAction::Release => "released",
        CampaignAction::Renew => "renewed",
        CampaignAction::Delete => "deleted",
    }
}

/// The action with what follows it.
fn action(of: &CampaignProgress) -> String {
    let then = of.campaign.then.map(|then| match then {
        crate::model::Then::Reissue => ", reissue",
        crate::model::Then::Hold => ", hold",
    });
    format!(
        "{}{}",
        of.campaign.action.as_str(),
        then.unwrap_or_default()
    )
}
