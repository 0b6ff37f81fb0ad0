//! `renewd why`: what is decided about one identity, by the code that decides, in words.

use anstyle::Style;
use jiff::Timestamp;

use crate::{
    model::{Name, Tier},
    schedule::Explanation,
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output::{self, BAD, Cell, DIM, GOOD, PLAIN, STRONG, Table, WARN, paint, relative, wrapped},
};

/// Explain what is decided about an identity, and why
#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// The identity
    name: Name,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Why {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let explanation = daemon(context.socket).why(&self.name).await?;
        if self.json {
            output::print_json(&explanation)?;
            return Ok(Exit::Done);
        }
        output::print(&render(&explanation, context.clock.now(), output::width()))?;
        Ok(Exit::Done)
    }
}

fn render(of: &Explanation, now: Timestamp, width: Option<usize>) -> String {
    let told = |text: &str| wrapped(text, width.map(|width| width.saturating_sub(4)), 4);
    let mut text = format!(
        "{} {}\n\n",
        paint(STRONG, &of.name),
        paint(output::state_style(of.state), of.state)
    );
    for order in &of.orders {
        text.push_str(&format!("  {} {}\n", paint(BAD, "!"), told(order)));
    }
    text.push_str(&format!("  {}\n", told(&of.sentence)));
    let troubles = of.about_token.iter().chain(&of.about_failing);
    for trouble in troubles.chain(&of.renewer).chain(&of.deliveries) {
        text.push_str(&format!("  {} {}\n", paint(WARN, "!"), told(trouble)));
    }
    text.push('\n');
    text.push_str(&facts(of, now).render(2, width));
    if !of.attempts.is_empty() {
        text.push_str(&format!(
            "\n  {}\n",
            paint(DIM, "last attempts, newest first")
        ));
        text.push_str(&attempts(of, now).render(2, width));
    }
    text
}

fn facts(of: &Explanation, now: Timestamp) -> Table {
    let mut table = Table::facts(&["", ""]);
    let mut fact = |what: &str, value: Cell| table.row([Cell::styled(what, DIM), value]);
    if let Some(at) = of.expires_at {
        let now = of.service_time.unwrap_or(now);
        let (word, style) = match of.standing.as_str() {
            "dead" if at > now => ("not served any more; it would end", BAD),
            "doubtful" if at > now => ("may be dead; if not, it ends", BAD),
            _ if at > now => ("ends", PLAIN),
            _ => ("ended", BAD),
        };
        fact(
            "token",
            Cell::styled(format!("{word} {} ({at:.0})", relative(at, now)), style),
        );
    }
    if let Some(tier) = of.tier {
        let (word, style) = tier_words(tier);
        fact("pressing", Cell::styled(word, style));
    }
    if of.failures > 0 {
        fact(
            "failures",
            Cell::styled(format!("{} in a row", of.failures), WARN),
        );
    }
    fact("version", of.version.to_string().into());
    table
}

fn tier_words(tier: Tier) -> (&'static str, Style) {
    match tier {
        Tier::Normal => ("normal: more than a quarter of its life is left", PLAIN),
        Tier::Urgent => ("urgent: less than a quarter of its life is left", WARN),
        Tier::Emergency => ("emergency: a tenth of its life is left, or none", BAD),
    }
}

fn attempts(of: &Explanation, now: Timestamp) -> Table {
    let mut table = Table::new(&["WHEN", "RESULT", "REQUEST ID"]);
    for attempt in of.attempts.iter().rev() {
        let style = if attempt.result == "ok" { GOOD } else { WARN };
        table.row([
            relative(attempt.at, now).into(),
            Cell::styled(&attempt.result, style),
            Cell::styled(attempt.request_id.clone().unwrap_or_default(), DIM),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_begins_with_the_decision() {
        let document = serde_json::json!({
            "name": "bot", "state": "late", "version": 7,
            "action": {"do": "issue", "reason": "retry"}, "standing": "good",
            "sentence": "Due now: the last attempt failed (3 in a row).", "next": null,
            "tier": "urgent", "expires_at": "2026-11-22T13:00:00Z", "left_secs": 3600, "failures": 3,
            "attempts": [{"at": "2026-11-22T11:59:00Z", "result": "retry", "request_id": "r-1"}],
            "lane": ["issue waits until 12:05: throttled"],
            "orders": ["Its revocation (campaign 7, asked for 3m ago by root) has not reached ACS yet."],
        });
        let explanation = serde_json::from_value(document).unwrap();
        let text = render(&explanation, "2026-11-22T12:00:00Z".parse().unwrap(), None);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
