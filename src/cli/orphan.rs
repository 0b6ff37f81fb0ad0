//! `renewd orphan`: tokens and identities that may exist at ACS without a record, because an answer
//! was lost or came too late.

mod clear;

use jiff::Timestamp;

use crate::{
    api::client::{
        Client,
        wire::{DismissOrphans, Orphan as Row},
    },
    model::Num,
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{self, STRONG, relative},
    table::{Cell, Table},
};

/// Show what may exist at ACS without a record, and clear it up
#[derive(Debug, clap::Args)]
pub(crate) struct Orphan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them; a token leaves the list when it expires
    List(List),
    /// Revoke all tokens of the identities that they belong to
    Revoke(clear::Revoke),
    /// Delete identities that nobody uses at ACS
    Delete(clear::Delete),
    /// Take them off the list without calling ACS
    Dismiss(Dismiss),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Dismiss {
    /// Their numbers, from `renewd orphan list`
    #[arg(required = true, value_name = "NUMBER")]
    numbers: Vec<Num>,
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
}

impl Orphan {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Revoke(verb) => verb.run(context).await,
            Verb::Delete(verb) => verb.run(context).await,
            Verb::Dismiss(verb) => verb.run(context).await,
        }
    }
}

impl List {
    async fn run(self, context: Context) -> Outcome {
        let orphans = all(&daemon(context.socket)).await?;
        if self.json {
            output::print_json(&serde_json::json!({ "orphans": orphans }))?;
        } else {
            output::print(&render(&orphans, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }
}

impl Dismiss {
    async fn run(self, context: Context) -> Outcome {
        let dismiss = DismissOrphans {
            nums: self.numbers,
            reason: self.reason,
        };
        let answer = daemon(context.socket).dismiss_orphans(&dismiss).await?;
        output::print(&format!("taken off the list: {}\n", answer.dismissed))?;
        Ok(Exit::Done)
    }
}

async fn all(client: &Client) -> Result<Vec<Row>, Failed> {
    let (mut orphans, mut after) = (Vec::new(), None);
    loop {
        let page = client.orphans(after.as_deref()).await?;
        orphans.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(orphans),
        }
    }
}

fn render(orphans: &[Row], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        ">NO",
        "WHAT",
        "MADE FOR",
        "RESOURCE",
        "NOTICED",
        "UNTIL",
        "ID",
        "REQUEST ID",
    ]);
    for orphan in orphans {
        let id = orphan.id.as_ref().map(ToString::to_string);
        table.row([
            orphan.num.to_string().into(),
            Cell::styled(&orphan.kind, STRONG),
            orphan.name.as_str().into(),
            orphan.resource.as_str().into(),
            relative(orphan.at, now).into(),
            until(orphan, now).into(),
            id.unwrap_or_else(|| "not known".to_owned()).into(),
            orphan.request_id.clone().unwrap_or_default().into(),
        ]);
    }
    match table.is_empty() {
        true => "nothing is known to exist at ACS without a record\n".to_owned(),
        false => table.render(0, width),
    }
}

/// How long it stays on the list.
fn until(orphan: &Row, now: Timestamp) -> String {
    match (orphan.kind.as_str(), orphan.expires_at, orphan.revoked_at) {
        ("identity", _, Some(_)) => "deleted (its tokens are revoked)".to_owned(),
        ("identity", ..) => "deleted".to_owned(),
        (_, Some(at), _) => relative(at, now),
        (_, None, _) => "dismissed".to_owned(),
    }
}
