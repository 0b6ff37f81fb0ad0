//! `renewd campaign report`: what was done to each identity, when, with which request.

use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::api::client::{
    Client,
    wire::{CampaignId, CampaignProgress, ItemState, ReportLine},
};

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output, spreadsheet,
    table::{Cell, Table},
};

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
            Format::Text => output::print(&text(&of, &lines))?,
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

async fn all(client: &Client, id: CampaignId, failed: bool) -> Result<Vec<ReportLine>, Failed> {
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
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn csv(lines: &[ReportLine]) -> Result<String, Failed> {
    spreadsheet::rows(lines, true).map_err(Failed::plain)
}

fn text(of: &CampaignProgress, lines: &[ReportLine]) -> String {
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
    format!("{}\n{}\n", table.render(0, None), summary(of, lines))
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
