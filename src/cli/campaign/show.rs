//! `renewd campaign show`.

use jiff::Timestamp;

use crate::api::client::wire::{CampaignId, CampaignProgress};

use super::{
    super::{
        Context, bulk,
        daemon::daemon,
        exit::{Exit, Outcome},
        output::{self, paint, relative},
    },
    action,
    list::style,
};

/// Show a campaign, with what failed
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Its number
    id: CampaignId,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let of = daemon(context.socket).campaign(self.id).await?;
        if self.json {
            output::print_json(&of)?;
        } else {
            output::print(&render(&of, now))?;
        }
        Ok(Exit::Done)
    }
}

fn render(of: &CampaignProgress, now: Timestamp) -> String {
    let one = &of.campaign;
    let urgent = if one.urgent { ", urgent" } else { "" };
    let mut text = format!(
        "campaign {}: {}{urgent}, {}\n",
        one.id,
        action(of),
        paint(style(one.state), one.state.as_str())
    );
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<12} {value}\n"));
    line("selected", one.target.clone());
    line("by", one.actor.clone());
    if let Some(reason) = &one.reason {
        line("reason", reason.clone());
    }
    line(
        "asked",
        format!("{:.0} ({})", one.created_at, relative(one.created_at, now)),
    );
    if let Some(at) = one.starts_at {
        line("starts", format!("{at:.0} ({})", relative(at, now)));
    }
    if let Some(at) = one.ended_at {
        line("ended", format!("{at:.0} ({})", relative(at, now)));
    }
    line("items", of.total.to_string());
    for (name, n) in [
        ("pending", one.pending),
        ("failing", one.failing),
        ("acknowledged", one.acknowledged),
        ("delivering", one.delivering),
        ("done", one.done),
        ("failed", one.failed),
        ("undelivered", one.undelivered),
        ("cancelled", one.cancelled),
    ] {
        if n > 0 {
            line(name, n.to_string());
        }
    }
    for wait in &of.waits {
        line("waits", wait.clone());
    }
    if let Some(sha256) = &one.report_sha256 {
        line("report", format!("SHA-256 {sha256}"));
    }
    for failure in &of.failures {
        text.push_str(&bulk::failed(failure));
    }
    text
}
