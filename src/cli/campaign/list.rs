//! `renewd campaign list`.

use jiff::Timestamp;

use crate::api::client::wire::{CampaignProgress, CampaignState};

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Outcome},
        output::{self, BAD, DIM, GOOD, PLAIN, STRONG, WARN, relative},
        table::{Cell, Table},
    },
    action,
};

/// List campaigns, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those that have not ended
    #[arg(long)]
    open: bool,
    /// At most so many
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let client = daemon(context.socket);
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = client.campaigns(after.as_deref()).await?;
            let keep = |one: &CampaignProgress| !self.open || one.campaign.ended_at.is_none();
            found.extend(page.items.into_iter().filter(keep));
            after = page.next;
            if after.is_none() || found.len() >= self.limit {
                break;
            }
        }
        found.truncate(self.limit);
        if self.json {
            output::print_json(&serde_json::json!({ "campaigns": found }))?;
        } else {
            output::print(&render(&found, now, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

fn render(found: &[CampaignProgress], now: Timestamp, width: Option<usize>) -> String {
    if found.is_empty() {
        return "there are no campaigns\n".to_owned();
    }
    let mut table = Table::new(&[
        ">ID", "ACTION", "STATE", ">ITEMS", ">DONE", ">FAILED", ">LEFT", "STARTED", "BY", "REASON",
    ]);
    for of in found {
        let one = &of.campaign;
        let failed = if one.failed > 0 { BAD } else { DIM };
        table.row([
            Cell::styled(one.id.to_string(), STRONG),
            action(of).into(),
            Cell::styled(one.state.as_str(), style(one.state)),
            of.total.to_string().into(),
            one.done.to_string().into(),
            Cell::styled(one.failed.to_string(), failed),
            of.left.to_string().into(),
            relative(one.starts_at.unwrap_or(one.created_at), now).into(),
            one.actor.as_str().into(),
            Cell::styled(one.reason.as_deref().unwrap_or("–"), DIM),
        ]);
    }
    table.render(0, width)
}

/// How a state looks.
pub(super) fn style(state: CampaignState) -> anstyle::Style {
    match state {
        CampaignState::Done => GOOD,
        CampaignState::DoneWithFailures => BAD,
        CampaignState::Paused | CampaignState::Cancelled => WARN,
        CampaignState::Running | CampaignState::Freezing => PLAIN,
    }
}
