//! `renewd identity`: which identities there are. Those whose ids are not known wait for a person's word, which
//! `create` gives.

mod changes;
mod rows;
mod transfer;

use std::{collections::BTreeMap, path::PathBuf};

use anstyle::Style;
use clap::Subcommand;
use jiff::Timestamp;

use super::{
    Context,
    daemon::{Offline, daemon, daemon_of, say_age},
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, Cell, DIM, PLAIN, STRONG, Table, WARN, paint, relative, state_style},
};
use crate::{
    api::client::{
        ClientError, DaemonClient,
        wire::{self, CreateMissing, SCHEMA_VERSION},
    },
    config::Source,
    model::{Name, State, short_duration},
};

pub use rows::examine_import;

/// Rows read from the store at once.
const PAGE: usize = 1000;

/// List, show, add, remove and take over identities
#[derive(Debug, clap::Args)]
pub(crate) struct Identity {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all identities
    List(List),
    /// Show everything that is known of one
    Show(Show),
    /// Add one that no configuration file declares
    Add(changes::Add),
    /// Let identities be created whose ids are not known because the database was lost
    Create(Create),
    /// Take over identities and ids from CSV or JSON lines
    Import(transfer::Import),
    /// Delete identities at ACS, with everything that hangs on them; asks first
    Delete(changes::Delete),
    /// Write all identities as CSV or JSON lines
    Export(transfer::Export),
    /// Write the ids of declared identities into the configuration, comments kept
    Pin(changes::Pin),
    /// Remove one that was added with `add`; ACS keeps it
    Remove(changes::Remove),
    /// Ask for identities that are gone again, under the same id
    Revive(changes::Revive),
    /// Say that the identities that ACS says are gone really are
    ConfirmGone(changes::ConfirmGone),
}

impl Identity {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Show(verb) => verb.run(context).await,
            Verb::Add(verb) => verb.run(context).await,
            Verb::Create(verb) => verb.run(context).await,
            Verb::Delete(verb) => verb.run(context).await,
            Verb::Import(verb) => Box::pin(verb.run(context)).await,
            Verb::Export(verb) => verb.run(context).await,
            Verb::Pin(verb) => verb.run(context).await,
            Verb::Remove(verb) => verb.run(context).await,
            Verb::Revive(verb) => verb.run(context).await,
            Verb::ConfirmGone(verb) => verb.run(context).await,
        }
    }
}

/// Where the store is when no daemon runs.
#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration that names the store, for when no daemon runs
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

/// Who knows of identities: the daemon, or while none runs the store itself.
enum Known {
    Daemon(DaemonClient),
    Store(Box<Offline>),
}

impl Place {
    /// The daemon; or the store, where nobody answers and a configuration says where the store is.
    async fn known(self, context: &Context) -> Result<Known, Failed> {
        let client = daemon_of(context, self.config.as_deref())?;
        let Err(ClientError::Unreachable { path, source }) = client.identities(None).await else {
            return Ok(Known::Daemon(client));
        };
        let usual = context.socket.is_none() && Source::of_process(None).path.exists();
        if self.config.is_none() && !usual {
            return Err(ClientError::Unreachable { path, source }.into());
        }
        let offline = Offline::open(self.config, context.clock.now())?;
        Ok(Known::Store(Box::new(offline)))
    }
}

impl Known {
    async fn everything(&self, now: Timestamp) -> Result<Vec<wire::Identity>, Failed> {
        let store = match self {
            Self::Daemon(client) => return Ok(everything(client).await?),
            Self::Store(offline) => &offline.store,
        };
        let (mut identities, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(after.as_ref(), PAGE).await?;
            identities.extend(
                page.iter()
                    .map(|record| wire::Identity::offline(record, now)),
            );
            match page.last() {
                Some(last) => after = Some(last.spec.name.clone()),
                None => return Ok(identities),
            }
        }
    }

    /// Some identities after this name, in the order of their names.
    async fn page(
        &self,
        after: Option<&str>,
        now: Timestamp,
    ) -> Result<wire::Page<wire::Identity>, Failed> {
        let store = match self {
            Self::Daemon(client) => return Ok(client.identities(after).await?),
            Self::Store(offline) => &offline.store,
        };
        let after: Option<Name> = after.and_then(|after| after.parse().ok());
        let page = store.list(after.as_ref(), PAGE).await?;
        Ok(wire::Page {
            items: page
                .iter()
                .map(|record| wire::Identity::offline(record, now))
                .collect(),
            next: page.last().map(|last| last.spec.name.to_string()),
        })
    }

    async fn one(&self, name: &Name, now: Timestamp) -> Result<wire::Identity, Failed> {
        match self {
            Self::Daemon(client) => {
                let identity = client.identity(name).await?;
                say_age(client);
                Ok(identity)
            }
            Self::Store(offline) => match offline.store.record(name).await? {
                Some(record) => Ok(wire::Identity::offline(&record, now)),
                None => Err(Failed::plain(format!("there is no identity {name}"))),
            },
        }
    }
}

/// All identities, page by page, in the order of their names.
pub(super) async fn everything(client: &DaemonClient) -> Result<Vec<wire::Identity>, ClientError> {
    let (mut identities, mut after) = (Vec::new(), None);
    loop {
        let page = client.identities(after.as_deref()).await?;
        identities.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(identities),
        }
    }
}

/// Let identities be created whose ids are not known because the database was lost
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A database that was lost takes identities.jsonl over by itself. Who is declared and not in it may \
exist at ACS: it is not created, and `renewd status` names it. Import its id where it has one; this command says that \
it is new. Whoever it was before stays at ACS, with everything that hangs on it.\n\
Exit codes: 0 all may be created, 1 none of them waits, 4 some of them do not wait."
)]
pub(crate) struct Create {
    /// The identities
    #[arg(
        value_name = "NAME",
        required_unless_present = "all_missing",
        conflicts_with = "all_missing"
    )]
    names: Vec<Name>,
    /// All that wait
    #[arg(long)]
    all_missing: bool,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Create {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let asked = CreateMissing {
            names: self.names,
            all_missing: self.all_missing,
            reason: self.reason,
        };
        let done = client.create_missing(&asked).await?;
        if self.json {
            output::print_json(&done)?;
        } else {
            output::print(&match done.allowed {
                0 if self.all_missing => "no identity waits to be created\n".to_owned(),
                0 => String::new(),
                1 => "1 identity is created now\n".to_owned(),
                many => format!("{many} identities are created now\n"),
            })?;
            for row in &done.refused {
                let name = row.name.as_ref().map_or("", Name::as_str);
                output::aside(&format!("{name}: {}", row.reason));
            }
        }
        Ok(match (done.refused.is_empty(), done.allowed) {
            (true, _) => Exit::Done,
            (false, 0) => Exit::Failed,
            (false, _) => Exit::Partly,
        })
    }
}

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
    place: Place,
}

impl List {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let known = self.place.known(&context).await?;
        let mut listing = match self.json {
            true => Listing::Json { any: false },
            false => Listing::Tables(Tables::default()),
        };
        let mut after = None;
        loop {
            let mut page = known.page(after.as_deref(), now).await?;
            let wanted =
                |identity: &wire::Identity| self.state.is_none_or(|state| identity.state == state);
            page.items.retain(wanted);
            if !listing.take(page.items, now)? {
                return Ok(Exit::Done);
            }
            after = page.next;
            if after.is_none() {
                listing.end(now)?;
                if let Known::Daemon(client) = &known {
                    say_age(client);
                }
                return Ok(Exit::Done);
            }
        }
    }
}

/// What is printed while it is read: of a million nobody waits for the last one to see the first.
enum Listing {
    /// One document, as [`output::print_json`] would print it.
    Json {
        any: bool,
    },
    Tables(Tables),
}

impl Listing {
    /// Prints some more; whether anybody still reads.
    fn take(&mut self, identities: Vec<wire::Identity>, now: Timestamp) -> Result<bool, Failed> {
        match self {
            Self::Tables(tables) => tables.take(identities, now),
            Self::Json { any } => {
                let mut text = String::new();
                for identity in &identities {
                    text.push_str(&match *any {
                        true => ",\n".to_owned(),
                        false => format!(
                            "{{\n  \"schema_version\": {SCHEMA_VERSION},\n  \"identities\": [\n"
                        ),
                    });
                    *any = true;
                    text.push_str(&output::json_within(identity, 2)?);
                }
                output::print_part(&text, true)
            }
        }
    }

    fn end(&mut self, now: Timestamp) -> Result<(), Failed> {
        match self {
            Self::Tables(tables) => tables.end(now),
            Self::Json { any: true } => output::print_data("\n  ]\n}\n"),
            Self::Json { any: false } => output::print_json(&serde_json::json!({"identities": []})),
        }
    }
}

/// So many rows share a head and the widths of their columns.
const ROWS: usize = 1000;

/// Tables of identities, and below the last one the counts: what is read last stays on the screen.
#[derive(Default)]
struct Tables {
    waiting: Vec<wire::Identity>,
    counts: BTreeMap<State, u64>,
}

impl Tables {
    fn take(&mut self, identities: Vec<wire::Identity>, now: Timestamp) -> Result<bool, Failed> {
        for identity in &identities {
            *self.counts.entry(identity.state).or_default() += 1;
        }
        self.waiting.extend(identities);
        while self.waiting.len() > ROWS {
            let rest = self.waiting.split_off(ROWS);
            let rows = std::mem::replace(&mut self.waiting, rest);
            let text = table(&rows, now).render(0, output::width());
            if !output::print_part(&text, false)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn end(&self, now: Timestamp) -> Result<(), Failed> {
        let counts = self.counts.iter();
        let counted: Vec<String> = counts
            .map(|(state, count)| paint(state_style(*state), format!("{count} {state}")))
            .collect();
        let table = table(&self.waiting, now).render(0, output::width());
        output::print(&match counted.is_empty() {
            true => "no identities\n".to_owned(),
            false => format!("{table}\n{}\n", counted.join(", ")),
        })
    }
}

fn table(identities: &[wire::Identity], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "TOKEN ENDS",
        "NEXT",
        "RESOURCE",
        "SCOPES",
        "SINKS",
    ]);
    for identity in identities {
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
    table
}

/// When the token ends, and what is wrong with it.
fn token(of: &wire::Identity, ends: Option<Timestamp>, now: Timestamp) -> (String, Style) {
    let at = ends.map_or_else(|| "–".to_owned(), |at| relative(at, now));
    match (of.standing.as_str(), ends.is_some_and(|at| at > now)) {
        ("dead", true) => ("dead: revoked".to_owned(), BAD),
        ("dead", false) => (at, BAD),
        ("doubtful", _) => (format!("{at}, or dead"), WARN),
        _ => (at, PLAIN),
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(" ")
}

fn state(text: &str) -> Result<State, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted)
        .map_err(|_| "it is one of new, active, late, held, gone, deleted".to_owned())
}

/// Show everything that is known of an identity
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The identity
    name: Name,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Show {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let known = self.place.known(&context).await?;
        let identity = known.one(&self.name, now).await?;
        if self.json {
            output::print_json(&identity)?;
        } else {
            output::print(&page(&identity, now, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

/// How the token stands, and what that means.
fn about_token(standing: &str) -> &str {
    match standing {
        "doubtful" => {
            "may be dead: its access key is refused or no longer configured; it is minted anew"
        }
        "dead" => "dead: it ended or was revoked; the next one is awaited",
        word => word,
    }
}

fn page(of: &wire::Identity, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::facts(&["", ""]);
    let mut fact = |what: &'static str, value: String| {
        if !value.is_empty() {
            table.row([Cell::styled(what, DIM), value.into()]);
        }
    };
    let moment = |text: &Option<String>| {
        let at = text
            .as_ref()
            .and_then(|text| text.parse::<Timestamp>().ok());
        at.map_or_else(String::new, |at| format!("{} ({at})", relative(at, now)))
    };
    fact(
        "id",
        of.id
            .as_ref()
            .map_or_else(|| "not created yet".to_owned(), ToString::to_string),
    );
    fact("resource", of.resource.to_string());
    fact("token", about_token(&of.standing).to_owned());
    fact("token ends", moment(&of.expires_at));
    fact("issued", moment(&of.issued_at));
    fact(
        "next look",
        of.due.map_or_else(String::new, |due| relative(due.at, now)),
    );
    if of.failures > 0 {
        fact("failures", format!("{} in a row", of.failures));
    }
    fact("version", of.version.to_string());
    fact("scopes", joined(&of.scopes));
    fact(
        "lifetime",
        short_duration(std::time::Duration::from_secs(of.lifetime_seconds)),
    );
    fact(
        "labels",
        of.labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" "),
    );
    fact("readers", joined(&of.readers));
    fact("sinks", joined(&of.sinks));
    fact(
        "revoked",
        of.revoked_at
            .map_or_else(String::new, |at| relative(at, now)),
    );
    format!(
        "{} {}\n\n{}",
        paint(STRONG, &of.name),
        paint(state_style(of.state), of.state),
        table.render(2, width)
    )
}
