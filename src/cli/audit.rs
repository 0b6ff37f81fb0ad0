//! `renewd audit`: who did what, when and why, on the screen or page by page for other programs; and who
//! took tokens over the socket, counted by the hour.

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Context,
    daemon::daemon,
    duration::When,
    exit::{Exit, Failed, Outcome},
    output::{self, Cell, DIM, STRONG, Table, relative},
};
use crate::{
    api::client::{AuditFilter, DaemonClient, wire::ReadsRow},
    model::{AuditEntry, Name},
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
    Export(Export),
    /// Show who took tokens over the socket, counted by the hour
    Reads(Reads),
}

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
    client: &DaemonClient,
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
        "RESULT",
        "WHO",
        "WHY",
        "REQUEST ID",
    ]);
    for entry in entries {
        table.row([
            relative(entry.at, now).into(),
            Cell::styled(&entry.action, STRONG),
            entry.name.as_ref().map_or("", Name::as_str).into(),
            entry.result.as_str().into(),
            entry.actor.as_str().into(),
            entry.reason.clone().unwrap_or_default().into(),
            Cell::styled(entry.request_id.clone().unwrap_or_default(), DIM),
        ]);
    }
    match table.is_empty() {
        true => "nothing of this kind has happened\n".to_owned(),
        false => table.render(0, width),
    }
}

/// Write out every entry, newest first, as text, JSON lines or CSV
#[derive(Debug, clap::Args)]
struct Export {
    #[command(flatten)]
    which: Which,
    /// How to write them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line each, fields separated by tabs
    Text,
    /// One JSON object per line
    #[default]
    Json,
    /// With a heading, as RFC 4180 has it
    Csv,
}

/// An entry as other programs read it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    actor: &'a str,
    action: &'a str,
    name: &'a str,
    reason: &'a str,
    request_id: &'a str,
    result: &'a str,
}

impl Export {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let filter = self.which.filter(context.clock.now());
        let client = daemon(context.socket);
        let (mut after, mut first) = (None, true);
        loop {
            let page = client.audit(&filter, after.as_deref()).await?;
            output::print_data(&self.format.render(&page.items, first)?)?;
            first = false;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Exit::Done),
            }
        }
    }
}

impl Format {
    /// The entries of one page; the first one carries the heading.
    fn render(self, entries: &[AuditEntry], first: bool) -> Result<String, Failed> {
        let failed = |error: &dyn std::fmt::Display| {
            Failed::plain(format!("cannot write the audit trail: {error}"))
        };
        match self {
            Self::Json => entries.iter().try_fold(String::new(), |text, entry| {
                let line = serde_json::to_string(entry).map_err(|error| failed(&error))?;
                Ok(format!("{text}{line}\n"))
            }),
            Self::Text => Ok(entries.iter().map(text).collect()),
            Self::Csv => {
                let lines = entries.iter().map(line);
                output::csv_rows(lines, first).map_err(|error| failed(&error))
            }
        }
    }
}

fn line(entry: &AuditEntry) -> Line<'_> {
    Line {
        at: entry.at.to_string(),
        actor: &entry.actor,
        action: &entry.action,
        name: entry.name.as_ref().map_or("", Name::as_str),
        reason: entry.reason.as_deref().unwrap_or(""),
        request_id: entry.request_id.as_deref().unwrap_or(""),
        result: &entry.result,
    }
}

/// Whoever gave the reason chose its characters: none of them ends the field or the line.
fn text(entry: &AuditEntry) -> String {
    let line = line(entry);
    let fields = [
        &line.at,
        line.action,
        line.name,
        line.actor,
        line.result,
        line.reason,
        line.request_id,
    ];
    let plain = |field: &str| field.replace(char::is_control, " ");
    format!("{}\n", fields.map(plain).join("\t"))
}

/// Show who took tokens over the socket, counted by the hour
#[derive(Debug, clap::Args)]
struct Reads {
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
            output::print(&reads_table(&reads, output::width()))?;
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

fn reads_table(reads: &[ReadsRow], width: Option<usize>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            at: "2026-11-22T12:00:00Z".parse().unwrap(),
            actor: "uid 7 (anna)".into(),
            action: "revoke".into(),
            name: Some("bot".parse().unwrap()),
            reason: Some("a \"laptop\",\nstolen\tyesterday".into()),
            request_id: None,
            result: "version 2".into(),
        }
    }

    #[test]
    fn no_reason_breaks_a_line_or_a_field() {
        let render = |format: Format| format.render(&[entry()], true).unwrap();
        assert_eq!(
            render(Format::Text),
            "2026-11-22T12:00:00Z\trevoke\tbot\tuid 7 (anna)\tversion 2\ta \"laptop\", stolen yesterday\t\n"
        );
        assert_eq!(render(Format::Json).lines().count(), 1);
        let csv = render(Format::Csv);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        assert_eq!(reader.headers().unwrap().get(4), Some("reason"));
        let record = reader.records().next().unwrap().unwrap();
        assert_eq!(record.get(4), Some("a \"laptop\",\nstolen\tyesterday"));
    }

    #[test]
    fn only_the_first_page_has_a_heading() {
        let next = Format::Csv.render(&[entry()], false).unwrap();
        assert!(next.starts_with("2026"), "{next}");
    }
}
