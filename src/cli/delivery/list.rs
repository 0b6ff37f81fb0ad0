//! `renewd delivery list`.

use jiff::Timestamp;

use crate::{
    api::client::{DeliveryTable, wire::DeliveryRow},
    model::{Name, SinkName},
};

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Outcome},
        output::{self, DIM, GOOD, STRONG, WARN, ago, plural, relative},
        table::{Cell, Table},
    },
    everything,
};

/// List the delivery table
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Of this sink alone
    #[arg(long, value_name = "NAME")]
    sink: Option<SinkName>,
    /// Of this identity alone
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Only those that are still to be delivered
    #[arg(long)]
    pending: bool,
    /// Only those that nothing is attempted for: given up, or of a disabled sink
    #[arg(long)]
    dead: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let delivery_table = DeliveryTable {
            name: self.name,
            sink: self.sink,
            pending: self.pending,
            dead: self.dead,
        };
        let rows = everything(&daemon(context.socket), &delivery_table).await?;
        if self.json {
            output::print_json(&serde_json::json!({ "deliveries": rows }))?;
        } else {
            output::print(&render(&rows, context.clock.now(), output::width()))?;
        }
        Ok(Exit::Done)
    }
}

pub(super) fn render(rows: &[DeliveryRow], now: Timestamp, width: Option<usize>) -> String {
    if rows.is_empty() {
        return "no such deliveries\n".to_owned();
    }
    let pending = rows.iter().filter(|row| row.pending).count() as u64;
    let counts = format!(
        "{}, {pending} pending",
        plural(rows.len() as u64, "delivery", "deliveries")
    );
    format!("{}\n{counts}\n", table(rows, now).render(0, width))
}

pub(super) fn table(rows: &[DeliveryRow], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "IDENTITY",
        "SINK",
        "STATE",
        ">DELIVERED",
        ">WANTED",
        ">LAG",
        ">FAILED",
        "NEXT",
        "LAST ERROR",
    ]);
    let when = |at: Option<Timestamp>, say: fn(Timestamp, Timestamp) -> String| {
        at.map_or_else(|| "–".to_owned(), |at| say(at, now))
    };
    for row in rows {
        let (word, style) = match (row.pending, row.wanted.0) {
            (true, _) => ("pending", WARN),
            (false, 0) => ("nothing yet", DIM),
            (false, _) => ("delivered", GOOD),
        };
        table.row([
            Cell::styled(row.name.as_str(), STRONG),
            row.sink.as_str().into(),
            Cell::styled(word, style),
            version(row.delivered.0).into(),
            version(row.wanted.0).into(),
            when(row.since, ago).into(),
            row.attempts.to_string().into(),
            next(row, now).into(),
            Cell::styled(row.last_error.as_deref().unwrap_or_default(), DIM),
        ]);
    }
    table
}

fn next(row: &DeliveryRow, now: Timestamp) -> String {
    let first: Vec<&str> = row.waits_for.iter().map(SinkName::as_str).collect();
    match (row.next_at, first.is_empty()) {
        (None, _) => "–".to_owned(),
        (Some(at), true) => relative(at, now),
        (Some(_), false) => format!("after {}", first.join(", ")),
    }
}

fn version(version: u64) -> String {
    match version {
        0 => "–".to_owned(),
        some => some.to_string(),
    }
}
