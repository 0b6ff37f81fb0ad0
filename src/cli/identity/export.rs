//! `renewd identity export`: every identity as CSV or JSON lines, page by page; tokens only into a
//! file of our own eyes.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
};

use serde_json::{Map, Value, json};

use crate::{
    api::client::{Client, TokenForm, wire::Identity},
    model::{Secret, State},
};

use super::{
    super::{
        Context,
        exit::{Exit, Failed, Outcome},
        output, spreadsheet,
    },
    Known,
    list::joined,
    rows::Format,
};

/// The columns of CSV, as `identity import` reads them.
const COLUMNS: [&str; 11] = [
    "name",
    "resource",
    "id",
    "scopes",
    "lifetime_seconds",
    "labels",
    "readers",
    "sinks",
    "on_removal",
    "state",
    "expires_at",
];

/// Write all identities as CSV or JSON lines, such as `identity import` reads
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// How to write them; by the name of --output where left out, else JSON lines
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file, which others cannot read, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the current tokens too; only into a file
    #[arg(long, requires = "output")]
    with_tokens: bool,
    #[command(flatten)]
    place: super::Place,
}

impl Export {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let known = self.place.known(&context).await?;
        let client = match (&known, self.with_tokens) {
            (Known::Daemon(client), true) => Some(client.clone()),
            (Known::Store(_), true) => {
                return Err(Failed::plain(
                    "tokens are handed out by the daemon, and none runs",
                ));
            }
            (_, false) => None,
        };
        let format = Format::of(self.format, self.output.as_deref());
        let mut out = Out::new(open(self.output.as_ref())?, format, self.with_tokens)?;
        let mut after = None;
        loop {
            let page = known.page(after.as_deref(), now).await?;
            for identity in &page.items {
                let token = match &client {
                    Some(client) if identity.state == State::Active => {
                        token(client, identity).await?
                    }
                    _ => None,
                };
                out.write(identity, token.as_ref())?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let count = out.end()?;
        if let Some(path) = &self.output {
            output::aside(&format!("{count} identities in {}", path.display()));
        }
        Ok(Exit::Done)
    }
}

async fn token(client: &Client, identity: &Identity) -> Result<Option<Secret>, Failed> {
    Ok(client
        .token(&identity.name, TokenForm::Bare, None, None)
        .await?)
}

/// A file that nobody else can read, whatever stood there before; or standard output.
fn open(path: Option<&PathBuf>) -> Result<Box<dyn Write>, Failed> {
    let Some(path) = path else {
        return Ok(match output::on_terminal() {
            true => Box::new(Screen),
            false => Box::new(io::stdout().lock()),
        });
    };
    let cannot =
        |error: io::Error| Failed::plain(format!("cannot write {}: {error}", path.display()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(cannot)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(cannot)?;
    Ok(Box::new(file))
}

/// Standard output that is a terminal.
struct Screen;

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        output::print_data(&String::from_utf8_lossy(bytes))
            .map_err(|failed| io::Error::other(failed.to_string()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the identities go, and how many went.
struct Out {
    lines: Lines,
    columns: Vec<&'static str>,
    count: u64,
}

enum Lines {
    Csv(Box<csv::Writer<Box<dyn Write>>>),
    Jsonl(BufWriter<Box<dyn Write>>),
}

impl Out {
    fn new(to: Box<dyn Write>, format: Format, with_tokens: bool) -> Result<Self, Failed> {
        let columns: Vec<&'static str> = COLUMNS
            .into_iter()
            .chain(with_tokens.then_some("token"))
            .collect();
        let lines = match format {
            Format::Jsonl => Lines::Jsonl(BufWriter::new(to)),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(to);
                writer.write_record(&columns).map_err(failed)?;
                Lines::Csv(Box::new(writer))
            }
        };
        Ok(Self {
            lines,
            columns,
            count: 0,
        })
    }

    fn write(&mut self, identity: &Identity, token: Option<&Secret>) -> Result<(), Failed> {
        let fields = fields(identity, token);
        self.count += 1;
        match &mut self.lines {
            Lines::Jsonl(out) => {
                serde_json::to_writer(&mut *out, &fields).map_err(failed)?;
                out.write_all(b"\n").map_err(failed)
            }
            Lines::Csv(writer) => {
                let cells = self.columns.iter().map(|column| match fields.get(*column) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Array(_)) => column_list(identity, column),
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                });
                let record = cells.map(spreadsheet::cell);
                writer.write_record(record).map_err(failed)
            }
        }
    }

    fn end(self) -> Result<u64, Failed> {
        let flushed = match self.lines {
            Lines::Jsonl(mut out) => out.flush(),
            Lines::Csv(mut writer) => writer.flush(),
        };
        flushed.map_err(|error| Failed::output(&error))?;
        Ok(self.count)
    }
}

fn column_list(identity: &Identity, column: &str) -> String {
    match column {
        "scopes" => joined(&identity.scopes),
        "readers" => joined(&identity.readers),
        _ => joined(&identity.sinks),
    }
}

fn fields(identity: &Identity, token: Option<&Secret>) -> Map<String, Value> {
    let all = json!({
        "name": identity.name, "resource": identity.resource, "id": identity.id, "scopes": identity.scopes,
        "lifetime_seconds": identity.lifetime_seconds, "labels": identity.labels, "readers": identity.readers,
        "sinks": identity.sinks, "on_removal": identity.on_removal, "state": identity.state,
        "expires_at": identity.expires_at, "token": token.map(|token| token.expose()),
    });
    let Value::Object(mut fields) = all else {
        return Map::new();
    };
    fields.retain(|_, value| !value.is_null());
    fields
}

fn failed(error: impl std::fmt::Display) -> Failed {
    Failed::plain(format!("cannot write the export: {error}"))
}
