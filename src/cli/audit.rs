//! `renewd audit`: who did what, when and why; and who took tokens.

mod export;
mod reads;

use jiff::Timestamp;

use crate::{
    api::client::{AuditFilter, Client},
    model::{AuditEntry, Name},
};

use super::{
    Context,
    daemon::daemon,
    duration::When,
    exit::{Exit, Failed, Outcome},
    output::{self, DIM, STRONG, relative},
    table::{Cell, Table},
};

/// Show or export who did what, when and why; count who took tokens
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show who did what, when and why, newest first
    List(List),
    /// Write out every entry, newest first, as text, JSON lines or CSV
    Export(export::Export),
    /// Show who took tokens over the socket, counted by the hour
    Reads(reads::Reads),
}

/// Which entries.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// Only on this identity
    name: Option<Name>,
    /// Only by those whose description holds this text, such as a user's name
    #[arg(long, value_name = "TEXT")]
    actor: Option<String>,
    /// Only this action, such as revoke
    #[arg(long)]
    action: Option<String>,
    /// Only from then on: an instant (2026-11-22T00:00:00Z) or how long ago (24h)
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Only before then
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Leave routine renewals out
    #[arg(long)]
    without_renewals: bool,
}

impl Which {
    fn filter(self, now: Timestamp) -> AuditFilter {
        AuditFilter {
            name: self.name,
            actor: self.actor,
            action: self.action,
            since: self.since.map(|when| when.before(now)),
            until: self.until.map(|when| when.before(now)),
            without_renewals: self.without_renewals,
        }
    }
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    which: Which,
    /// At most so many entries
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Export(verb) => verb.run(context).await,
            Verb::Reads(verb) => verb.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let client = daemon(context.socket);
        let entries = latest(&client, &self.which.filter(now), self.limit).await?;
        if self.json {
            output::print_json(&serde_json::json!({ "entries": entries }))?;
        } else {
            output::print(&render(&entries, now, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

async fn latest(
    client: &Client,
    filter: &AuditFilter,
    limit: usize,
) -> Result<Vec<AuditEntry>, Failed> {
    let (mut entries, mut after) = (Vec::new(), None);
    while entries.len() < limit {
        let page = client.audit(filter, after.as_deref()).await?;
        entries.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    entries.truncate(limit);
    Ok(entries)
}

fn render(entries: &[AuditEntry], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "WHEN",
        "WHAT",
        "IDENTITY",
        "WHO",
        "RESULT",
        "WHY",
        "REQUEST ID",
    ]);
    for entry in entries {
        table.row([
            relative(entry.at, now).into(),
            Cell::styled(&entry.action, STRONG),
            entry.name.as_ref().map_or("", Name::as_str).into(),
            entry.actor.as_str().into(),
            entry.result.as_str().into(),
            entry.reason.clone().unwrap_or_default().into(),
            Cell::styled(entry.request_id.clone().unwrap_or_default(), DIM),
        ]);
    }
    match table.is_empty() {
        true => "nothing of this kind has happened\n".to_owned(),
        false => table.render(0, width),
    }
}
