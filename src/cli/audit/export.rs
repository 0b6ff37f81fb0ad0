//! `renewd audit export`: the whole trail, page by page, for other programs.

use clap::ValueEnum;
use serde::Serialize;

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Failed, Outcome},
        output, spreadsheet,
    },
    Which,
};
use crate::model::{AuditEntry, Name};

/// Write out every entry, newest first, as text, JSON lines or CSV
#[derive(Debug, clap::Args)]
pub(super) struct Export {
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
                spreadsheet::rows(lines, first).map_err(|error| failed(&error))
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
