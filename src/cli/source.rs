//! `renewd source`: identities that others own. How their sources are, what a list would change, and
//! a person's yes.

use clap::Subcommand;

use crate::{
    api::client::{ClientError, DaemonClient, ProblemType},
    model::{Name, SourceName, SourceReport, SourceView},
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, Cell, DIM, GOOD, STRONG, Table, WARN, paint, relative, wrapped},
};

/// At most so many names or rows of a kind are printed; `--json` has the first thousand.
const SHOWN: usize = 20;

/// Show and try sources of identities that others own
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the sources and how they are
    List(List),
    /// Read a source now and show what would change; nothing is changed
    Test(Test),
    /// Take a source's list over now
    Apply(Apply),
}

/// List the sources and how they are
#[derive(Debug, clap::Args)]
struct List {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Read a source now and show what would change; nothing is changed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the list can be taken over, 1 it cannot be read, 4 rows are refused or a person has to say yes."
)]
struct Test {
    /// The source
    name: SourceName,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Take a source's list over now
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --yes this is what the daemon does by itself when it notices a change. With --yes a list is \
taken over that removes more than max_removal allows, is empty, comes from a replaced database, or belongs to a \
source that is no longer configured. Look at `renewd source test NAME` first."
)]
struct Apply {
    /// The source
    name: SourceName,
    /// Set max_removal, and what protects like it, aside this once
    #[arg(long)]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Source {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let client = daemon(context.socket);
        match self.verb {
            Verb::List(verb) => {
                let all = client.sources().await?;
                if verb.json {
                    output::print_json(&all)?;
                } else {
                    output::print(&list(&all.sources, now, output::width()))?;
                }
                Ok(Exit::Done)
            }
            Verb::Test(verb) => {
                let report = report_of(client.test_source(&verb.name).await, &verb.name)?;
                show(&verb.name, &report, verb.json)
            }
            Verb::Apply(verb) => apply(&client, &verb).await,
        }
    }
}

async fn apply(client: &DaemonClient, verb: &Apply) -> Outcome {
    let report = report_of(client.apply_source(&verb.name, verb.yes).await, &verb.name)?;
    show(&verb.name, &report, verb.json)
}

/// A source that cannot be read is a plain failure with the source's own sentence.
fn report_of(
    answer: Result<SourceReport, ClientError>,
    name: &SourceName,
) -> Result<SourceReport, Failed> {
    answer.map_err(|error| match &error {
        ClientError::Problem(problem) if problem.kind == ProblemType::Refused => {
            Failed::plain(format!("the source {name} gave no list: {problem}"))
                .hint("what it listed before stays as it is")
        }
        _ => error.into(),
    })
}

fn show(name: &SourceName, report: &SourceReport, json: bool) -> Outcome {
    if json {
        output::print_json(report)?;
    } else {
        output::print(&render(name, report))?;
    }
    Ok(
        match report.totals.refused == 0
            && report.doubt.is_none()
            && (report.blocked.is_none() || report.applied)
        {
            true => Exit::Done,
            false => Exit::Partly,
        },
    )
}

fn list(sources: &[SourceView], now: jiff::Timestamp, width: Option<usize>) -> String {
    if sources.is_empty() {
        return "no sources are configured\n".to_owned();
    }
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        ">IDENTITIES",
        ">REFUSED",
        "LOOKED",
        "TAKEN OVER",
        "KIND",
        "READS",
    ]);
    for source in sources {
        let ago =
            |at: Option<jiff::Timestamp>| at.map_or_else(|| "–".to_owned(), |at| relative(at, now));
        table.row([
            Cell::styled(source.name.as_str(), STRONG),
            match (&source.lapse, source.reading_since) {
                (Some(_), _) => Cell::styled("lapsed", BAD),
                (None, Some(since)) if output::is_long(since, now) => {
                    Cell::styled(format!("reading for {}", output::ago(since, now)), WARN)
                }
                (None, _) => Cell::styled("good", GOOD),
            },
            source.identities.to_string().into(),
            Cell::styled(
                source.refused.to_string(),
                if source.refused > 0 { WARN } else { DIM },
            ),
            ago(source.looked_at).into(),
            ago(source.taken_at).into(),
            source.kind.as_str().into(),
            Cell::styled(source.reads.as_str(), DIM),
        ]);
    }
    let mut text = table.render(0, width);
    let room = width.map(|width| width.saturating_sub(2));
    for source in sources {
        if let Some(lapse) = &source.lapse {
            let since = relative(lapse.since, now);
            let told = format!("{} lapsed {since}: {}", source.name, lapse.reason);
            text.push_str(&format!("\n{}\n", wrapped(&told, room, 2)));
        }
        if let Some(advice) = &source.advice {
            let told = wrapped(&format!("note: {advice}"), room, 2);
            text.push_str(&format!("\n{told}\n"));
        }
    }
    text
}

fn render(name: &SourceName, report: &SourceReport) -> String {
    let mut text = format!(
        "{}: {} rows; {} new, {} changed, {} no longer listed, {} as before, {} refused\n",
        paint(STRONG, name),
        report.rows,
        report.totals.added,
        report.totals.changed,
        report.totals.removed,
        report.unchanged,
        report.totals.refused
    );
    for (sign, style, names, total) in [
        ("+", GOOD, &report.added, report.totals.added),
        ("~", WARN, &report.changed, report.totals.changed),
        ("-", BAD, &report.removed, report.totals.removed),
    ] {
        text.push_str(&names_of(sign, style, names, total));
    }
    for row in report.refused.iter().take(SHOWN) {
        let place = match (row.number, &row.name) {
            (0, Some(name)) => name.to_string(),
            (number, Some(name)) => format!("row {number} ({name})"),
            (number, None) => format!("row {number}"),
        };
        let told = format!("{} {place}: {}", paint(WARN, "refused"), row.reason);
        text.push_str(&(output::item(&told, output::width()) + "\n"));
    }
    let more = report.totals.refused.saturating_sub(SHOWN as u64);
    if more > 0 {
        text.push_str(&format!(
            "  … and {more} more refused; --json names the first thousand\n"
        ));
    }
    if let Some(doubt) = &report.doubt {
        text.push_str(&format!(
            "{} {doubt}; if the list is whole, `renewd source apply {name} --yes` takes it over\n",
            paint(BAD, "in doubt:")
        ));
    }
    match (&report.blocked, report.applied) {
        (_, true) => text.push_str("taken over\n"),
        (Some(reason), false) => text.push_str(&format!(
            "{} {reason}; if that is right, `renewd source apply {name} --yes` takes it over\n",
            paint(BAD, "not taken over:")
        )),
        (None, false) => {
            text.push_str("nothing was changed; the daemon takes this over at its next look\n")
        }
    }
    text
}

fn names_of(sign: &str, style: anstyle::Style, names: &[Name], total: u64) -> String {
    let mut text = String::new();
    for name in names.iter().take(SHOWN) {
        text.push_str(&format!("  {} {name}\n", paint(style, sign)));
    }
    let more = total.saturating_sub(SHOWN as u64);
    if more > 0 {
        text.push_str(&format!("  {} … and {more} more\n", paint(style, sign)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RefusedRow, SourceTotals};

    #[test]
    fn a_report_shows_each_kind_and_what_to_do() {
        let report = SourceReport {
            rows: 3,
            refused: vec![RefusedRow {
                number: 2,
                name: None,
                reason: "it has no name".to_owned(),
            }],
            added: vec!["anna".parse().unwrap()],
            removed: vec!["bert".parse().unwrap()],
            totals: SourceTotals {
                added: 1,
                removed: 1,
                refused: 1,
                changed: 0,
            },
            blocked: Some("it is empty".to_owned()),
            ..SourceReport::default()
        };
        let text =
            anstream::adapter::strip_str(&render(&"app".parse().unwrap(), &report)).to_string();
        for line in [
            "3 rows; 1 new",
            "  + anna",
            "  - bert",
            "refused row 2: it has no name",
            "renewd source apply app --yes",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
