//! `renewd identity import`: takes identities and ids over from a file, checked whole before anything
//! is changed, then in batches. A second run goes on where a first one was cut off.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
};

use indicatif::ProgressBar;

use crate::{
    api::client::{
        Batch, Client, Surroundings,
        wire::{Import as Wish, Imported, Line},
    },
    clock::Clock,
    model::{Entry, Name, RefusedRow, ResourceName, Scope, SinkName},
};

use super::{
    super::{
        Context,
        exit::{Exit, Failed, Outcome},
        offline::Offline,
        output::{self, WARN, paint},
    },
    Known,
    rows::{self, Format},
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
            false => Imported::default(),
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
                    None => batch.push(Line { number, entry }),
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
    async fn apply(&self, taker: &Taker, checked: &Checked) -> Result<Imported, Failed> {
        let refused = checked.refused.iter().map(|row| row.number);
        let bad: HashSet<u64> = refused.chain(checked.superseded.iter().copied()).collect();
        let what = if self.dry_run {
            "counted"
        } else {
            "taken over"
        };
        let progress = Progress::new(what, Some(checked.lines));
        let (mut whole, mut batch, mut count) = (Imported::default(), Vec::new(), 0);
        for row in rows::rows(&self.file, self.format())? {
            let (number, row) = row?;
            count += 1;
            if let (Ok(entry), false) = (row, bad.contains(&number))
                && !entry.dropped
            {
                let entry = self.filled(entry);
                batch.push(Line { number, entry });
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

    async fn take(&self, taker: &Taker, lines: Vec<Line>, upto: u64) -> Result<Imported, Failed> {
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
    fn tell(&self, lines: u64, mut done: Imported, mut refused: Vec<RefusedRow>) -> Outcome {
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
                    "nothing was changed: {} of {lines} lines are refused",
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
            text.push_str(&format!("  {}{name} {}\n", paint(WARN, place), row.reason));
        }
        if refused.len() > SHOWN {
            text.push_str(&format!(
                "  … and {} more; --json has them all\n",
                refused.len() - SHOWN
            ));
        }
        if !refused.is_empty() && !self.skip_bad {
            text.push_str("correct them, or take the others over with --skip-bad\n");
        }
        text
    }
}

fn counts(of: &Imported) -> String {
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
fn missing(done: &Imported) -> String {
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
    Daemon(Client),
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

    async fn check(&self, lines: Vec<Line>) -> Result<Imported, Failed> {
        match self {
            Self::Daemon(client) => Ok(client.import(&Wish { check: true, lines }).await?),
            Self::Store(offline, within, _) => {
                Ok(Batch::of(lines, within).check(&offline.store).await?)
            }
        }
    }

    async fn apply(&self, lines: Vec<Line>, upto: u64) -> Result<Imported, Failed> {
        match self {
            Self::Daemon(client) => client.import(&Wish { check: false, lines }).await.map_err(|error| {
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
        let bar = output::on_terminal().then(|| match lines {
            Some(lines) => ProgressBar::new(lines).with_message(what),
            None => ProgressBar::new_spinner().with_message(what),
        });
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
