//! `renewd identity list`.

use std::collections::BTreeMap;

use anstyle::Style;
use jiff::Timestamp;

use crate::{api::client::wire::Identity, model::State};

use super::super::{
    Context,
    exit::{Exit, Outcome},
    output::{self, BAD, DIM, PLAIN, STRONG, WARN, paint, relative, state_style},
    table::{Cell, Table},
};

/// List all identities
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those in this state: new, active, late, held, gone, deleted
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: super::Place,
}

impl List {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let known = self.place.known(&context).await?;
        let mut identities = known.everything(now).await?;
        identities.retain(|identity| self.state.is_none_or(|state| identity.state == state));
        if self.json {
            output::print_json(&serde_json::json!({ "identities": identities }))?;
        } else {
            output::print(&render(&identities, now, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

/// The table, and below it the counts: what is read last stays on the screen.
fn render(identities: &[Identity], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "TOKEN ENDS",
        "NEXT",
        "RESOURCE",
        "SCOPES",
        "SINKS",
    ]);
    let mut counts = BTreeMap::<State, u64>::new();
    for identity in identities {
        *counts.entry(identity.state).or_default() += 1;
        let ends: Option<Timestamp> = identity.expires_at.as_ref().and_then(|at| at.parse().ok());
        let (ending, style) = token(identity, ends, now);
        table.row([
            Cell::styled(identity.name.as_str(), STRONG),
            Cell::styled(identity.state.as_str(), state_style(identity.state)),
            Cell::styled(ending, style),
            identity
                .due
                .map_or_else(|| "–".to_owned(), |due| relative(due.at, now))
                .into(),
            identity.resource.as_str().into(),
            joined(&identity.scopes).into(),
            Cell::styled(joined(&identity.sinks), DIM),
        ]);
    }
    let counted: Vec<String> = counts
        .iter()
        .map(|(state, count)| paint(state_style(*state), format!("{count} {state}")))
        .collect();
    match counted.is_empty() {
        true => "no identities\n".to_owned(),
        false => format!("{}\n{}\n", table.render(0, width), counted.join(", ")),
    }
}

/// When the token ends, and what is wrong with it.
fn token(of: &Identity, ends: Option<Timestamp>, now: Timestamp) -> (String, Style) {
    let at = ends.map_or_else(|| "–".to_owned(), |at| relative(at, now));
    match (of.standing.as_str(), ends.is_some_and(|at| at > now)) {
        ("dead", true) => ("dead: revoked".to_owned(), BAD),
        ("dead", false) => (at, BAD),
        ("doubtful", _) => (format!("{at}, or dead"), WARN),
        _ => (at, PLAIN),
    }
}

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(" ")
}

fn state(text: &str) -> Result<State, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted)
        .map_err(|_| "it is one of new, active, late, held, gone, deleted".to_owned())
}
