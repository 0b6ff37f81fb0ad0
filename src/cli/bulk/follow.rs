//! Following a campaign to its end. Ctrl-C leaves it running: it is the daemon's.

use std::time::Duration;

use crate::{
    api::client::{
        Client,
        wire::{CampaignProgress, CampaignState},
    },
    clock::Clock,
};

use super::{
    super::{
        daemon::through_restart,
        exit::{Exit, Outcome},
        output,
    },
    progress::Progress,
};

/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(250);

/// Shows progress until the campaign has ended, or stands still until a person acts.
pub(crate) async fn follow(
    client: &Client,
    clock: Clock,
    mut of: CampaignProgress,
    verb: &'static str,
    json: bool,
) -> Outcome {
    let mut progress = Progress::new(clock, verb, of.campaign.id);
    loop {
        progress.show(&of);
        if of.campaign.ended_at.is_some() || of.campaign.state == CampaignState::Paused {
            break;
        }
        let id = of.campaign.id;
        let next = async {
            tokio::time::sleep(EVERY).await;
            through_restart(async || client.campaign(id).await).await
        };
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                progress.leave(&of);
                return Ok(Exit::Done);
            }
            next = next => of = next?,
        }
    }
    progress.clear();
    if json {
        output::print_json(&of)?;
    } else {
        progress.end(&of)?;
    }
    Ok(exit(&of))
}

/// How the command ends for a campaign that stands so.
fn exit(of: &CampaignProgress) -> Exit {
    let one = &of.campaign;
    let amiss = one.failed + one.undelivered + one.cancelled;
    match (amiss, one.done + one.undelivered) {
        (0, _) => Exit::Done,
        (_, 0) => Exit::Failed,
        _ => Exit::Partly,
    }
}

/// Says that it runs, and how to see more of it.
pub(crate) fn said(of: &CampaignProgress, json: bool) -> Outcome {
    if json {
        output::print_json(of)?;
        return Ok(Exit::Done);
    }
    let id = of.campaign.id;
    let when = match of.campaign.starts_at {
        Some(at) => format!("starts at {at:.0}"),
        None => "runs in the daemon".to_owned(),
    };
    output::print(&format!(
        "campaign {id} {when}; renewd campaign watch {id} follows it, renewd campaign cancel {id} stops it\n"
    ))?;
    Ok(Exit::Done)
}
