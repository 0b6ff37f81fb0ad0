//! `renewd audit`: who did what, when and why, newest first.

use jiff::Timestamp;

use crate::{
    api::client::Client,
    model::{AuditEntry, Name},
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{self, DIM, STRONG, relative},
    table::{Cell, Table},
};

/// Show who did what, when and why, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    /// Only on this identity
    name: Option<Name>,
    /// At most so many entries
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let entries = self.entries(&daemon(context.socket)).await?;
        if self.json {
            output::print_json(&serde_json::json!({ "entries": entries }))?;
        } else {
            output::print(&render(&entries, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }

    async fn entries(&self, client: &Client) -> Result<Vec<AuditEntry>, Failed> {
        let (mut entries, mut after) = (Vec::new(), None);
        while entries.len() < self.limit {
            let page = client.audit(self.name.as_ref(), after.as_deref()).await?;
            entries.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        entries.truncate(self.limit);
        Ok(entries)
    }
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
        true => "nothing has happened yet\n".to_owned(),
        false => table.render(0, width),
    }
}
