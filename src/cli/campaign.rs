//! `renewd campaign`: bulk operations, seen and steered: a list, a page of one, its report (what was done to each
//! identity, when, with which request), and pause, resume, cancel and retry.

use std::str::FromStr;

use clap::Subcommand;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    Context, bulk,
    daemon::{Patience, daemon},
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, Cell, DIM, GOOD, PLAIN, STRONG, Table, WARN, paint, relative},
};
use crate::{
    api::client::{
        DaemonClient,
        wire::{
            CampaignAction, CampaignId, CampaignOrder, CampaignProgress, CampaignState, ItemState,
            ReportLine,
        },
    },
    model::hex,
};

/// List, follow, pause, resume, cancel, repeat and report bulk operations
#[derive(Debug, clap::Args)]
pub(crate) struct Campaign {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List campaigns, the newest first
    List(List),
    /// Show one, with what failed
    Show(Show),
    /// Follow one to its end; Ctrl-C leaves it running
    Watch(Watch),
    /// Stop one for now: what is under way ends, nothing more begins
    Pause(Order),
    /// Let a paused one go on
    Resume(Order),
    /// Stop one for good; what was done stays done
    Cancel(Order),
    /// Try again what failed for good
    Retry(Order),
    /// Print what was done to each identity, when, and with which request
    Report(Report),
}

/// Follow a campaign to its end
#[derive(Debug, clap::Args)]
struct Watch {
    /// Its number
    id: CampaignId,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
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
        bulk::follow(
            &client,
            context.clock,
            found,
            verb,
            (self.patience, self.json),
        )
        .await
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

/// One campaign, and why
#[derive(Debug, clap::Args)]
pub(crate) struct Order {
    /// Its number
    id: CampaignId,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Order {
    pub(crate) async fn run(self, context: Context, order: CampaignOrder) -> Outcome {
        let client = daemon(context.socket);
        let of = client.order(self.id, order, self.reason).await?;
        if self.json {
            output::print_json(&of)?;
        } else {
            let (id, state) = (of.campaign.id, of.campaign.state.as_str());
            output::print(&format!(
                "campaign {id} is {state}: {} of {} ended, {} left\n",
                of.total - of.left,
                of.total,
                of.left
            ))?;
        }
        Ok(Exit::Done)
    }
}

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
        ">ID", "STATE", "ACTION", ">ITEMS", ">DONE", ">FAILED", ">LEFT", "STARTED", "BY", "REASON",
    ]);
    for of in found {
        let one = &of.campaign;
        let failed = if one.failed > 0 { BAD } else { DIM };
        table.row([
            Cell::styled(one.id.to_string(), STRONG),
            Cell::styled(one.state.as_str(), style(one.state)),
            action(of).into(),
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
fn style(state: CampaignState) -> anstyle::Style {
    match state {
        CampaignState::Done => GOOD,
        CampaignState::DoneWithFailures => BAD,
        CampaignState::Paused | CampaignState::Cancelled => WARN,
        CampaignState::Running | CampaignState::Expanding => PLAIN,
    }
}

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
            output::print(&show_render(&of, now, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

fn show_render(of: &CampaignProgress, now: Timestamp, width: Option<usize>) -> String {
    let one = &of.campaign;
    let urgent = if one.urgent { ", urgent" } else { "" };
    let mut text = format!(
        "campaign {}: {}{urgent}, {}\n",
        one.id,
        action(of),
        paint(style(one.state), one.state.as_str())
    );
    let mut facts = Table::facts(&["", ""]);
    let mut line = |name: &str, value: String| facts.row([Cell::styled(name, DIM), value.into()]);
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
    text.push_str(&facts.render(2, width));
    for failure in &of.failures {
        text.push_str(&bulk::failed(failure));
    }
    text
}

/// Print what was done to each identity
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The audit trail holds the SHA-256 of the finished report as `--format jsonl` prints it."
)]
pub(crate) struct Report {
    /// The campaign's number
    id: CampaignId,
    /// text, json (one document), jsonl (a line each) or csv
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only what failed for good
    #[arg(long)]
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Lines,
    Csv,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Lines),
            "csv" => Ok(Self::Csv),
            other => Err(format!("{other:?} is none of text, json, jsonl, csv")),
        }
    }
}

impl Report {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let of = client.campaign(self.id).await?;
        let lines = all(&client, self.id, self.failed).await?;
        let format = if self.json { Format::Json } else { self.format };
        match format {
            Format::Text => output::print(&text(&of, &lines, output::width()))?,
            Format::Json => output::print_json(&serde_json::json!({
                "campaign": of.campaign,
                "items": lines,
                "sha256": sha256(&lines)?,
            }))?,
            Format::Lines => output::print_data(&json_lines(&lines)?)?,
            Format::Csv => output::print_data(&csv(&lines)?)?,
        }
        Ok(Exit::Done)
    }
}

async fn all(
    client: &DaemonClient,
    id: CampaignId,
    failed: bool,
) -> Result<Vec<ReportLine>, Failed> {
    let (mut lines, mut after) = (Vec::new(), None);
    loop {
        let page = client.report(id, failed, after.as_deref()).await?;
        lines.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(lines);
        }
    }
}

fn json_lines(lines: &[ReportLine]) -> Result<String, Failed> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line).map_err(Failed::plain)?);
        text.push('\n');
    }
    Ok(text)
}

fn sha256(lines: &[ReportLine]) -> Result<String, Failed> {
    let hash = Sha256::digest(json_lines(lines)?.as_bytes());
    Ok(hex(hash))
}

fn csv(lines: &[ReportLine]) -> Result<String, Failed> {
    output::csv_rows(lines, true).map_err(Failed::plain)
}

fn text(of: &CampaignProgress, lines: &[ReportLine], width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "IDENTITY",
        "STATE",
        "ACKNOWLEDGED",
        ">GAP",
        "REQUEST",
        "ERROR",
    ]);
    for line in lines {
        let name = line.name.as_ref().map(ToString::to_string);
        let id = line.id.as_ref().map(ToString::to_string);
        let state = serde_json::to_value(line.state).unwrap_or_default();
        let style = match line.state {
            ItemState::Done => output::GOOD,
            ItemState::Failed | ItemState::Undelivered => output::BAD,
            _ => output::PLAIN,
        };
        let at = line.acknowledged_at.map(|at| format!("{at:.0}"));
        let gap = line.gap_ms.map(|ms| format!("{:.3} s", ms as f64 / 1000.0));
        let none = || "–".to_owned();
        table.row([
            Cell::styled(name.or(id).unwrap_or_default(), output::STRONG),
            Cell::styled(state.as_str().unwrap_or_default(), style),
            at.unwrap_or_else(none).into(),
            gap.unwrap_or_else(none).into(),
            line.request_id.clone().unwrap_or_else(none).into(),
            line.error.clone().unwrap_or_default().into(),
        ]);
    }
    format!("{}\n{}\n", table.render(0, width), summary(of, lines))
}

/// How long identities were without a token.
fn summary(of: &CampaignProgress, lines: &[ReportLine]) -> String {
    let mut gaps: Vec<i64> = lines.iter().filter_map(|line| line.gap_ms).collect();
    gaps.sort_unstable();
    let mut text = format!(
        "campaign {}: {}, {} items, {} done, {} failed",
        of.campaign.id,
        of.campaign.state.as_str(),
        of.total,
        of.campaign.done,
        of.campaign.failed
    );
    if let (Some(longest), Some(middle)) = (gaps.last(), gaps.get(gaps.len() / 2)) {
        let secs = |ms: &i64| *ms as f64 / 1000.0;
        text.push_str(&format!(
            "\nwithout a token: median {:.3} s, longest {:.3} s",
            secs(middle),
            secs(longest)
        ));
    }
    if let Some(sha256) = &of.campaign.report_sha256 {
        text.push_str(&format!("\nSHA-256 {sha256}"));
    }
    text
}
