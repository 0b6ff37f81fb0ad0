//! Identities from and to files.
//!
//! `renewd identity import`: takes identities and ids over from a file, checked whole before anything
//! is changed, then in batches. A second run goes on where a first one was cut off.
//!
//! `renewd identity export`: every identity as CSV or JSON lines, page by page; tokens only into a
//! file of our own eyes.

use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    hash::{BuildHasher as _, RandomState},
    io::{self, BufWriter, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
};

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::{
    super::{
        Context,
        daemon::Offline,
        exit::{Exit, Failed, Outcome},
        output::{self, WARN, paint},
    },
    Known, joined,
    rows::{self, Format},
};
use crate::{
    api::client::{
        Batch, DaemonClient, Surroundings, TokenForm,
        wire::{Identity, Import as ImportRequest, ImportAnswer, ImportRow},
    },
    clock::Clock,
    model::{Entry, Name, RefusedRow, ResourceName, Scope, Secret, SinkName, State},
};

/// Lines in one transaction.
const BATCH: usize = 2000;
/// At most so many refused lines are shown.
const SHOWN: usize = 20;
/// Where no terminal shows a bar, a line is printed for so many lines.
const STEP: u64 = 100_000;

/// Take over identities and ids from a file
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A line with scopes is an identity to keep, a line with only a name and an id gives the id back; \
identities.jsonl has both. Columns: name, id, resource, scopes, lifetime, renew_at, spread, labels or label_KEY, \
readers, sinks, on_removal. Every line is checked first; when one is refused, nothing is changed. What a run that was \
cut off took over stays, and the next run of the same file completes it.\n\
Exit codes: 0 all taken over, 2 lines are refused and nothing was changed, 4 the rest was taken over (--skip-bad)."
)]
pub(crate) struct Import {
    /// CSV with a head line, or JSON lines
    file: PathBuf,
    /// How the file is written; by its name where left out
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The resource of lines that say none; may be left out where there is one
    #[arg(long)]
    resource: Option<ResourceName>,
    /// Scopes of lines that say none, which makes them identities to keep; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// Where the tokens of lines go that say nothing; may be given more than once
    #[arg(long = "sink", value_name = "SINK")]
    sinks: Vec<SinkName>,
    /// Take over the good lines although others are refused
    #[arg(long)]
    skip_bad: bool,
    /// Only check, and count as the real run does; nothing is changed
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: super::Place,
}

impl Import {
    pub(crate) async fn run(mut self, context: Context) -> Outcome {
        self.scopes.sort_unstable();
        self.scopes.dedup();
        let place = std::mem::replace(&mut self.place, super::Place { config: None });
        let taker = Taker::of(place.known(&context).await?, &context);
        let mut checked = self.check(&taker).await?;
        checked.refused.sort_by_key(|row| row.number);
        let done = match checked.refused.is_empty() || self.skip_bad {
            true => self.apply(&taker, &checked).await?,
            false => ImportAnswer::default(),
        };
        self.tell(checked.lines, done, checked.refused)
    }

    /// Reads every line and asks what would be refused.
    async fn check(&self, taker: &Taker) -> Result<Checked, Failed> {
        let progress = Progress::new("checked", None);
        let (mut twice, mut refused, mut batch, mut count) =
            (Twice::default(), Vec::new(), Vec::new(), 0);
        for row in rows::rows(&self.file, self.format())? {
            let (number, row) = row?;
            count += 1;
            progress.step(count);
            match row.map(|entry| self.filled(entry)) {
                Ok(entry) => match twice.reason(number, &entry) {
                    None if entry.dropped => {}
                    None => batch.push(ImportRow { number, entry }),
                    Some(reason) => refused.push(RefusedRow {
                        number,
                        name: Some(entry.name),
                        reason,
                    }),
                },
                Err(error) => refused.push(RefusedRow {
                    number,
                    name: error.name,
                    reason: error.reason,
                }),
            }
            if batch.len() == BATCH {
                refused.extend(taker.check(std::mem::take(&mut batch)).await?.refused);
            }
        }
        if !batch.is_empty() {
            refused.extend(taker.check(batch).await?.refused);
        }
        progress.end();
        let superseded = twice.superseded;
        refused.retain(|row| !superseded.contains(&row.number));
        Ok(Checked {
            lines: count,
            refused,
            superseded,
        })
    }

    /// Takes over what was not refused; a dry run asks of the same lines what would be done.
    async fn apply(&self, taker: &Taker, checked: &Checked) -> Result<ImportAnswer, Failed> {
        let refused = checked.refused.iter().map(|row| row.number);
        let bad: HashSet<u64> = refused.chain(checked.superseded.iter().copied()).collect();
        let what = if self.dry_run {
            "counted"
        } else {
            "taken over"
        };
        let progress = Progress::new(what, Some(checked.lines));
        let (mut whole, mut batch, mut count) = (ImportAnswer::default(), Vec::new(), 0);
        for row in rows::rows(&self.file, self.format())? {
            let (number, row) = row?;
            count += 1;
            if let (Ok(entry), false) = (row, bad.contains(&number))
                && !entry.dropped
            {
                let entry = self.filled(entry);
                batch.push(ImportRow { number, entry });
            }
            if batch.len() == BATCH {
                let lines = std::mem::take(&mut batch);
                whole.absorb(self.take(taker, lines, count).await?);
                progress.step(count);
            }
        }
        // The last batch, which may be empty, says who is still without an id.
        whole.absorb(self.take(taker, batch, count).await?);
        progress.end();
        Ok(whole)
    }

    async fn take(
        &self,
        taker: &Taker,
        lines: Vec<ImportRow>,
        upto: u64,
    ) -> Result<ImportAnswer, Failed> {
        match self.dry_run {
            true => taker.check(lines).await,
            false => taker.apply(lines, upto).await,
        }
    }

    fn filled(&self, mut entry: Entry) -> Entry {
        entry.resource = entry.resource.or_else(|| self.resource.clone());
        if entry.scopes.is_none() && !self.scopes.is_empty() {
            entry.scopes = Some(self.scopes.clone());
        }
        if entry.sinks.is_none() && !self.sinks.is_empty() {
            entry.sinks = Some(self.sinks.clone());
        }
        entry
    }

    fn format(&self) -> Format {
        Format::of(self.format, Some(&self.file))
    }

    /// The result. Lines that others refused meanwhile are told like those that were refused at first.
    fn tell(&self, lines: u64, mut done: ImportAnswer, mut refused: Vec<RefusedRow>) -> Outcome {
        refused.append(&mut done.refused);
        let nothing = !refused.is_empty() && !self.skip_bad;
        if self.json {
            let result = serde_json::json!({
                "lines": lines, "added": done.added, "changed": done.changed, "unchanged": done.unchanged,
                "adopted": done.adopted, "remembered": done.remembered, "missing": done.missing,
                "missing_names": done.missing_names, "refused": refused,
                "applied": !nothing && !self.dry_run,
            });
            output::print_json(&result)?;
        } else {
            let heading = match (nothing, self.dry_run) {
                (true, _) => format!(
                    "{} of {lines} lines are refused, so nothing was changed",
                    refused.len()
                ),
                (false, true) => format!(
                    "{lines} lines, {} refused; nothing was changed. It would be: {}",
                    refused.len(),
                    counts(&done)
                ),
                (false, false) => counts(&done),
            };
            let missing = missing(&done);
            output::print(&format!("{heading}\n{missing}{}", self.refusals(&refused)))?;
        }
        Ok(match (refused.is_empty(), nothing) {
            (true, _) => Exit::Done,
            (false, true) => Exit::Usage,
            (false, false) => Exit::Partly,
        })
    }

    fn refusals(&self, refused: &[RefusedRow]) -> String {
        let mut text = String::new();
        for row in refused.iter().take(SHOWN) {
            let name = row
                .name
                .as_ref()
                .map_or(String::new(), |name| format!(" {name}:"));
            let place = format!("{}:{}:", self.file.display(), row.number);
            let told = format!("{}{name} {}", paint(WARN, place), row.reason);
            text.push_str(&(output::item(&told, output::width()) + "\n"));
        }
        if refused.len() > SHOWN {
            text.push_str(&format!(
                "  … and {} more; --json has them all\n",
                refused.len() - SHOWN
            ));
        }
        if !refused.is_empty() && !self.skip_bad {
            text.push_str("correct them, or take the others over with `--skip-bad`\n");
        }
        text
    }
}

fn counts(of: &ImportAnswer) -> String {
    format!(
        "{} added, {} changed, {} as before; ids given back: {}, remembered until they are declared: {}",
        of.added, of.changed, of.unchanged, of.adopted, of.remembered
    )
}

/// What was found before anything is changed.
struct Checked {
    lines: u64,
    refused: Vec<RefusedRow>,
    /// Lines of a map that a later one takes the place of.
    superseded: HashSet<u64>,
}

/// Who is still without an id after the loss of a database.
fn missing(done: &ImportAnswer) -> String {
    if done.missing == 0 {
        return String::new();
    }
    let names: Vec<&str> = done.missing_names.iter().map(Name::as_str).collect();
    let more = done.missing.saturating_sub(names.len() as u64);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{} still without an id and not created, because the database had been lost: {}{more}\n\
         import their ids, or say that they are new: renewd identity create NAME… | --all-missing\n",
        done.missing,
        names.join(", ")
    )
}

/// Who takes batches over: the daemon, or this process while none runs.
enum Taker {
    Daemon(DaemonClient),
    Store(Box<Offline>, Surroundings, Clock),
}

impl Taker {
    fn of(known: Known, context: &Context) -> Self {
        match known {
            Known::Daemon(client) => Self::Daemon(client),
            Known::Store(offline) => {
                let within = offline.surroundings();
                Self::Store(offline, within, context.clock.clone())
            }
        }
    }

    async fn check(&self, lines: Vec<ImportRow>) -> Result<ImportAnswer, Failed> {
        match self {
            Self::Daemon(client) => {
                Ok(client.import(&ImportRequest { check: true, lines }).await?)
            }
            Self::Store(offline, within, _) => {
                Ok(Batch::of(lines, within).check(&offline.store).await?)
            }
        }
    }

    async fn apply(&self, lines: Vec<ImportRow>, upto: u64) -> Result<ImportAnswer, Failed> {
        match self {
            Self::Daemon(client) => client.import(&ImportRequest { check: false, lines }).await.map_err(|error| {
                Failed::from(error).hint(format!(
                    "it was cut off before line {upto}: run the same command again, it goes on where this one ended"
                ))
            }),
            Self::Store(offline, within, clock) => {
                Ok(Batch::of(lines, within).apply(&offline.store, clock.now()).await?)
            }
        }
    }
}

/// Names and ids that were seen before, as hashes of 128 bits: the file may have a million lines. Lines of
/// `identities.jsonl` tell when they were made: of two such lines the later one counts.
#[derive(Default)]
struct Twice {
    keys: (RandomState, RandomState),
    names: HashMap<(u64, u64), (u64, bool)>,
    ids: HashMap<(u64, u64), (u64, bool)>,
    superseded: HashSet<u64>,
}

impl Twice {
    fn reason(&mut self, number: u64, entry: &Entry) -> Option<String> {
        let hash = |text: &str| (self.keys.0.hash_one(text), self.keys.1.hash_one(text));
        let this = (number, entry.created_at.is_some());
        let name = hash(entry.name.as_str());
        let id = entry.id.as_ref().map(|id| hash(id.as_str()));
        if let Some((first, of_map)) = self.names.insert(name, this) {
            if !(of_map && this.1) {
                return Some(format!("the name stands in line {first} before"));
            }
            self.superseded.insert(first);
        }
        match self.ids.insert(id?, this)? {
            (first, true) if this.1 => {
                self.superseded.insert(first);
                None
            }
            (first, _) => Some(format!(
                "its id stands in line {first} before, under another name"
            )),
        }
    }
}

/// A bar on a terminal, plain lines elsewhere.
struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(what: &'static str, lines: Option<u64>) -> Self {
        let bar = output::bar(match lines {
            Some(_) => "{bar:32.green} {pos}/{len} lines {msg}",
            None => "{spinner} {pos} lines {msg}",
        });
        if let Some(bar) = &bar {
            lines.inspect(|lines| bar.set_length(*lines));
            bar.set_message(what);
        }
        Self { what, bar }
    }

    fn step(&self, count: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(count),
            None if count.is_multiple_of(STEP) => {
                output::aside(&format!("{count} lines {}", self.what))
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

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
                    "no daemon runs, and only the daemon hands tokens out",
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

async fn token(client: &DaemonClient, identity: &Identity) -> Result<Option<Secret>, Failed> {
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
                let record = cells.map(output::csv_cell);
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
