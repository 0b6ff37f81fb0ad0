//! `renewd audit reads`: who took tokens over the socket, counted by the hour.

use jiff::Timestamp;

use super::super::{
    Context,
    daemon::daemon,
    duration::When,
    exit::{Exit, Outcome},
    output::{self, STRONG},
    table::{Cell, Table},
};
use crate::{api::client::wire::ReadsRow, model::Name};

/// Show who took tokens over the socket, counted by the hour
#[derive(Debug, clap::Args)]
pub(super) struct Reads {
    /// Only of this identity
    name: Option<Name>,
    /// Only from then on: an instant (2026-11-22T00:00:00Z) or how long ago (24h)
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    since: When,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Reads {
    pub(super) async fn run(self, context: Context) -> Outcome {
        // Of an hour that began before, all of it is shown.
        let since = hour_of(self.since.before(context.clock.now()));
        let client = daemon(context.socket);
        let (mut reads, mut after) = (Vec::new(), None);
        loop {
            let page = client
                .token_reads(self.name.as_ref(), Some(since), after.as_deref())
                .await?;
            reads.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if self.json {
            output::print_json(&serde_json::json!({ "reads": reads }))?;
        } else {
            output::print(&render(&reads, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

fn hour_of(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(3600)).unwrap_or(at)
}

fn who(read: &ReadsRow) -> String {
    let uid = read.reads.uid;
    match read.user == uid.to_string() {
        true => format!("uid {uid}"),
        false => format!("uid {uid} ({})", read.user),
    }
}

fn render(reads: &[ReadsRow], width: Option<usize>) -> String {
    let mut table = Table::new(&["HOUR", "IDENTITY", ">TOKENS", "WHO"]);
    for read in reads {
        table.row([
            read.reads.hour.to_string().into(),
            Cell::styled(read.reads.name.as_str(), STRONG),
            read.reads.count.to_string().into(),
            who(read).into(),
        ]);
    }
    match table.is_empty() {
        true => "nobody took a token over the socket in this time\n".to_owned(),
        false => table.render(0, width),
    }
}
