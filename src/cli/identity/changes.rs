//! Verbs that change single identities.
//!
//! `renewd identity add`.
//!
//! `renewd identity remove`.
//!
//! `renewd identity delete`: the identity ends at ACS, for ever.
//!
//! `renewd identity revive` and `renewd identity confirm-gone`: a person's word on what ACS says is gone.
//!
//! `renewd identity pin`: writes the ids of identities into the configuration's own text, so that the
//! file alone says who everybody is.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    super::{
        Context,
        bulk::{self, Chosen, Task},
        daemon::{Offline, daemon},
        duration,
        exit::{Exit, Failed, Outcome},
        output::{self, DIM, GOOD, STRONG, paint},
    },
    Known, Place, page,
};
use crate::{
    api::client::wire::{CampaignAction, Identity, NewIdentity},
    config::{self, Pinned, Source},
    model::{IdentityId, Name, OnRemoval, Origin, Reader, ResourceName, Scope, SinkName, text_of},
};

/// Add an identity that no configuration file declares
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// Our name of it
    name: Name,
    /// Its resource; may be left out where there is one
    #[arg(long)]
    resource: Option<ResourceName>,
    /// What ACS calls it; left out, it is created
    #[arg(long)]
    id: Option<IdentityId>,
    /// What its tokens may be used for; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE", default_value = "chat")]
    scopes: Vec<Scope>,
    /// How long its tokens shall live, 1h to 24h
    #[arg(long, value_parser = duration::parse)]
    lifetime: Option<Duration>,
    /// A free word to select by; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A user, or group:NAME, who may read its token
    #[arg(long = "reader", value_name = "USER")]
    readers: Vec<String>,
    /// Where its tokens go; may be given more than once
    #[arg(long = "sink", value_name = "SINK")]
    sinks: Vec<SinkName>,
    /// What happens when it is removed: hold, forget or revoke
    #[arg(long, default_value = "hold", value_parser = on_removal)]
    on_removal: OnRemoval,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Add {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let json = self.json;
        let now = context.clock.now();
        let (place, new) = self.parts();
        let added = match place.known(&context).await? {
            Known::Daemon(client) => client.add(&new).await?,
            Known::Store(offline) => declare(&offline, new, now).await?,
        };
        if json {
            output::print_json(&added)?;
        } else {
            output::print(&page(&added, now, output::width()))?;
        }
        Ok(Exit::Done)
    }

    fn parts(self) -> (Place, NewIdentity) {
        let new = NewIdentity {
            name: self.name,
            resource: self.resource,
            id: self.id,
            scopes: self.scopes,
            lifetime_seconds: self.lifetime.map(|lifetime| lifetime.as_secs()),
            labels: self.labels.into_iter().collect::<BTreeMap<_, _>>(),
            readers: self.readers.into_iter().map(Reader::from).collect(),
            sinks: self.sinks,
            on_removal: self.on_removal,
        };
        (self.place, new)
    }
}

/// Writes it into the store; the daemon obtains its token when it next starts.
async fn declare(offline: &Offline, new: NewIdentity, now: Timestamp) -> Result<Identity, Failed> {
    let spec = new.spec(&offline.surroundings()).map_err(Failed::usage)?;
    let name = spec.name.clone();
    if offline.store.record(&name).await?.is_some() {
        return Err(Failed::plain(format!("the identity {name} exists already")));
    }
    let taken = offline.store.declare(vec![spec], now).await?;
    if let Some(refusal) = taken.refused.first() {
        return Err(Failed::plain(format!(
            "the identity {name} was not added: {}",
            refusal.reason
        )));
    }
    let record = offline.store.record(&name).await?;
    let record =
        record.ok_or_else(|| Failed::plain(format!("the identity {name} was not added")))?;
    Ok(Identity::offline(&record, now))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn on_removal(text: &str) -> Result<OnRemoval, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted).map_err(|_| "it is one of hold, forget, revoke".to_owned())
}

/// Remove an identity that was added with `add`; ACS keeps it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What happens to its token was said when it was added: hold, forget or revoke."
)]
pub(crate) struct Remove {
    /// The identity
    name: Name,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Remove {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let removed = client.remove(&self.name, self.reason.as_deref()).await?;
        let how = match removed.on_removal {
            OnRemoval::Hold => "its token is withheld",
            OnRemoval::Forget => "its row and files are dropped, its token lives on until it ends",
            OnRemoval::Revoke => "its tokens are revoked",
        };
        output::print(&format!(
            "{} is removed: {how}; ACS keeps the identity\n",
            self.name
        ))?;
        Ok(Exit::Done)
    }
}

/// Delete identities at ACS, with everything that hangs on them; asks first
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    chosen: Chosen,
}

impl Delete {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let task = Task::new(CampaignAction::Delete, None, "deleted");
        bulk::run(context, self.chosen, task).await
    }
}

/// Ask for identities that are gone again, under the same id
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For when ACS knows them again, or never forgot them: after the connection string of another resource, \
or a restore on their side. Should ACS still not know them, they are gone again."
)]
pub(crate) struct Revive {
    /// The identities
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Revive {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let mut failed = 0;
        for name in &self.names {
            match client.revive(name, self.reason.as_deref()).await {
                Ok(_) => output::print(&format!("{name} is asked for again, under its id\n"))?,
                Err(error) if self.names.len() == 1 => return Err(error.into()),
                Err(error) => {
                    failed += 1;
                    output::aside(&format!("{name}: {error}"));
                }
            }
        }
        Ok(match failed {
            0 => Exit::Done,
            all if all == self.names.len() => Exit::Failed,
            _ => Exit::Partly,
        })
    }
}

/// Say that the identities of a resource that ACS says are gone really are: their tokens are withdrawn
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For when ACS said so of too many at once, which `renewd status` shows. If the connection string is one \
of another resource, put the right one in its place and reload instead: then nothing is lost."
)]
pub(crate) struct ConfirmGone {
    /// The resource
    resource: ResourceName,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl ConfirmGone {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let names = client
            .confirm_gone(&self.resource, self.reason.as_deref())
            .await?;
        output::print(&match names.len() {
            0 => format!(
                "no identity of {} waits to be confirmed as gone\n",
                self.resource
            ),
            1 => format!("{} is gone, and its token is withdrawn\n", names[0]),
            many => format!(
                "{many} identities of {} are gone, and their tokens are withdrawn\n",
                self.resource
            ),
        })?;
        Ok(Exit::Done)
    }
}

/// Write the ids of declared identities into the configuration, comments kept
#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// Only these; all that have no id yet where left out
    names: Vec<Name>,
    /// Show what would be written; nothing is changed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

impl Pin {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let now = context.clock.now();
        let source = Source::of_process(self.place.config.clone());
        let known = self.place.known(&context).await?.everything(now).await?;
        let wanted = |name: &Name| self.names.is_empty() || self.names.contains(name);
        let declared = known
            .into_iter()
            .filter(|one| one.origin == Origin::File && wanted(&one.name));
        let ids: BTreeMap<Name, IdentityId> = declared
            .filter_map(|one| Some((one.name, one.id?)))
            .collect();
        let (mut written, mut unknown) = (0, Vec::new());
        for path in files(&source.path)? {
            let cannot = |what: &str, why: &dyn std::fmt::Display| {
                Failed::plain(format!("cannot {what} {}: {why}", path.display()))
            };
            let bytes = fs::read(&path).map_err(|error| cannot("read", &error))?;
            let text = text_of(&bytes).map_err(|error| cannot("read", &error))?;
            let pinned = config::pin(text, &ids).map_err(|error| cannot("understand", &error))?;
            written += pinned.names.len();
            unknown.extend(pinned.unknown.iter().filter(|name| wanted(name)).cloned());
            if pinned.names.is_empty() {
                continue;
            }
            output::print(&difference(&path, text, &pinned))?;
            if !self.dry_run {
                output::replace(&path, pinned.text.as_bytes(), None)
                    .map_err(|error| cannot("write", &error))?;
            }
        }
        for name in &unknown {
            output::aside(&format!("{name} has no id yet"));
        }
        let ids = output::plural(written as u64, "id", "ids");
        output::print(&match self.dry_run {
            true => format!("{ids} would be written; nothing was changed\n"),
            false => {
                format!("{ids} written; a reload takes them over (`systemctl reload renewd`)\n")
            }
        })?;
        Ok(if unknown.is_empty() {
            Exit::Done
        } else {
            Exit::Partly
        })
    }
}

/// The main file, and `conf.d/*.toml` beside it.
fn files(main: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = vec![main.to_owned()];
    let beside = main.parent().unwrap_or(Path::new("")).join("conf.d");
    if let Ok(entries) = fs::read_dir(beside) {
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "toml")));
    }
    files[1..].sort();
    // A link stays a link: what it leads to is replaced.
    let real = files.iter().map(|path| {
        fs::canonicalize(path)
            .map_err(|error| Failed::plain(format!("cannot find {}: {error}", path.display())))
    });
    real.collect()
}

/// The lines that are added, each with its number and the line before it.
fn difference(path: &Path, old: &str, pinned: &Pinned) -> String {
    let mut text = format!("{}\n", paint(STRONG, path.display()));
    let mut old = old.lines().peekable();
    let mut before = "";
    for (number, line) in (1..).zip(pinned.text.lines()) {
        if old.peek() == Some(&line) {
            before = line;
            old.next();
            continue;
        }
        if line.starts_with("identity") || line.contains(", id = ") {
            // In an inline table the line itself changed.
            old.next();
        }
        text.push_str(&format!(
            "{}\n",
            paint(DIM, format!("{:>5}  {before}", number - 1))
        ));
        text.push_str(&format!(
            "{}\n",
            paint(GOOD, format!("{number:>5} +{line}"))
        ));
    }
    text
}
