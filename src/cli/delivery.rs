//! `renewd delivery`: what every sink has of every identity, and what is to be tried again.

use clap::Subcommand;
use jiff::Timestamp;

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{self, Cell, DIM, GOOD, STRONG, Table, WARN, ago, paint, plural, relative},
};
use crate::{
    api::client::{
        DaemonClient, DeliveryTable,
        wire::{AskDeliveries, AskedDeliveries, DeliveryRow},
    },
    model::{Name, SinkAt, SinkName},
};

/// List, show, retry and replay deliveries
#[derive(Debug, clap::Args)]
pub(crate) struct Delivery {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the delivery table: one row for each identity and sink
    List(List),
    /// Show how far each sink and consumer of an identity is
    Show(Show),
    /// Try pending deliveries now, whatever breaker, receiver and schedule said
    Retry(DeliveryAsk),
    /// Deliver the current version once more, although it was delivered
    ///
    /// A webhook gets the same event under the same webhook-id; a file that is right already is left
    /// alone.
    Replay(DeliveryAsk),
}

impl Delivery {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Show(verb) => verb.run(context).await,
            Verb::Retry(ask) => ask.retry(context).await,
            Verb::Replay(ask) => ask.replay(context).await,
        }
    }
}

/// All rows, page by page.
async fn everything(client: &DaemonClient, of: &DeliveryTable) -> Result<Vec<DeliveryRow>, Failed> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = client.deliveries(of, after.as_deref()).await?;
        rows.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(rows),
        }
    }
}

/// Which deliveries are asked for.
#[derive(Debug, clap::Args)]
struct DeliveryAsk {
    /// Of these identities
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<Name>,
    /// Of every identity
    #[arg(long)]
    all: bool,
    /// Of this sink alone
    #[arg(long, value_name = "NAME")]
    sink: Option<SinkName>,
    /// Only those that are given up, or of a disabled sink
    #[arg(long)]
    dead: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl DeliveryAsk {
    pub(super) async fn retry(self, context: Context) -> Outcome {
        let asked = daemon(context.socket).retry(&self.wanted()).await?;
        self.say(&asked, "tried")
    }

    pub(super) async fn replay(self, context: Context) -> Outcome {
        let asked = daemon(context.socket).replay(&self.wanted()).await?;
        self.say(&asked, "made once more")
    }

    fn wanted(&self) -> AskDeliveries {
        AskDeliveries {
            names: self.names.clone(),
            all: self.all,
            sink: self.sink.clone(),
            dead: self.dead,
            reason: self.reason.clone(),
        }
    }

    fn say(&self, asked: &AskedDeliveries, what: &str) -> Outcome {
        if self.json {
            output::print_json(asked)?;
        } else {
            output::print(&said(asked, what))?;
        }
        Ok(Exit::Done)
    }
}

fn said(asked: &AskedDeliveries, what: &str) -> String {
    let due = plural(asked.due, "delivery is", "deliveries are");
    let mut text = format!("{} {what} now\n", paint(STRONG, due));
    for sink in asked.disabled.iter().filter(|_| asked.due > 0) {
        let waits =
            format!("{sink} is disabled: its deliveries wait for `renewd sink enable {sink}`");
        text.push_str(&format!("{}\n", paint(WARN, waits)));
    }
    text
}

/// List the delivery table
#[derive(Debug, clap::Args)]
struct List {
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

fn render(rows: &[DeliveryRow], now: Timestamp, width: Option<usize>) -> String {
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

fn table(rows: &[DeliveryRow], now: Timestamp) -> Table {
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
    let first: Vec<&str> = row.waits_for.iter().map(SinkAt::as_str).collect();
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

/// Show how far each sink and consumer of an identity is
#[derive(Debug, clap::Args)]
struct Show {
    /// The identity
    name: Name,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let delivery_table = DeliveryTable {
            name: Some(self.name.clone()),
            ..DeliveryTable::default()
        };
        let client = daemon(context.socket);
        let rows = everything(&client, &delivery_table).await?;
        let consumers = client.holders(Some(&self.name), false).await?.items;
        if self.json {
            let shown = serde_json::json!({
                "name": self.name, "deliveries": rows, "consumers": consumers,
            });
            output::print_json(&shown)?;
            return Ok(Exit::Done);
        }
        let (now, width) = (context.clock.now(), output::width());
        output::print(&render(&rows, now, width))?;
        if !consumers.is_empty() {
            let table = output::holders(&consumers, now).render(0, width);
            output::print(&format!("\n{table}"))?;
        }
        Ok(Exit::Done)
    }
}
