//! What `revoke`, `hold` and `release` share: asks before much is done, starts the campaign, follows it.

mod progress;

use std::time::Duration;

use crate::{
    api::client::{
        Client,
        wire::{CampaignAction, CampaignProgress as Campaign, NewCampaign},
    },
    model::{Name, Then},
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output,
};
use progress::Progress;

/// More than so many are asked about.
const MANY: usize = 100;
/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(250);

/// Which identities, and what goes with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The identities
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<Name>,
    /// Every identity
    #[arg(long)]
    all: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask before doing it to more than 100 or to all
    #[arg(long, short)]
    yes: bool,
}

/// Does `action` to the selection and follows it to its end. `verb` says it in the past tense.
pub(crate) async fn run(
    context: Context,
    selection: Selection,
    action: CampaignAction,
    then: Option<Then>,
    verb: &'static str,
) -> Outcome {
    let client = daemon(context.socket);
    let names = match selection.all {
        true => everyone(&client).await?,
        false => selection.names,
    };
    if names.is_empty() {
        output::print("there are no identities\n")?;
        return Ok(Exit::Done);
    }
    let ask = (selection.all || names.len() > MANY) && !selection.yes;
    if ask
        && !output::confirm(&format!(
            "{} identities will be {verb}. Go on?",
            names.len()
        ))?
    {
        return Err(Failed::usage(format!(
            "nothing was done: {} identities were not confirmed",
            names.len()
        ))
        .hint("add --yes where nobody can answer"));
    }
    let new = NewCampaign {
        action,
        then,
        names,
        reason: selection.reason,
    };
    let started = client.start_campaign(&new).await?;
    follow(&client, started, verb).await
}

async fn everyone(client: &Client) -> Result<Vec<Name>, Failed> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = client.identities(after.as_deref()).await?;
        names.extend(page.items.into_iter().map(|identity| identity.name));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(names),
        }
    }
}

/// Shows progress until nothing is pending. Ctrl-C leaves the campaign running: it is the daemon's.
async fn follow(client: &Client, mut campaign: Campaign, verb: &'static str) -> Outcome {
    let progress = Progress::new(verb);
    loop {
        progress.show(&campaign);
        if campaign.pending == 0 && campaign.done + campaign.failed > 0 {
            break;
        }
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                progress.leave(&campaign);
                return Ok(Exit::Done);
            }
            () = tokio::time::sleep(EVERY) => {}
        }
        campaign = client.campaign(campaign.id).await?;
    }
    progress.end(&campaign)?;
    Ok(match (campaign.done, campaign.failed) {
        (_, 0) => Exit::Done,
        (0, _) => Exit::Failed,
        _ => Exit::Partly,
    })
}
