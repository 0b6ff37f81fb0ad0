//! `renewd store move`: to the other engine and back.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    super::{
        Context,
        daemon::settings,
        exit::{Exit, Failed, Outcome},
        output,
    },
    Owner, backup, succeeded,
};
use crate::{
    config::{DatabaseSettings, SecretRef, StorePlace},
    model::Secret,
    store::{Cause, MoveError, Moved, Moving, move_store},
};

/// Between two looks whether the store is still used.
const LOOK: Duration = Duration::from_millis(300);

/// Move the store out of its file into PostgreSQL, or back, while the daemon goes on up to a last short stop
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything is copied while renewd runs; then this waits until renewd is stopped (`systemctl stop renewd`, \
on every machine that uses the database), writes what changed meanwhile, and compares every row of both. If it is \
cut off, the same command again continues it. Nothing is deleted where the store was: it is marked, so that no daemon \
starts on it, and `renewd store adopt` takes it back. Tokens stay sealed with the same key; identities.jsonl, withdrawn.jsonl and the key \
stay in the state directory.\nExit codes: 0 it is moved, 1 it failed or was ended, and the store is where it was; 2 the store \
cannot be moved, or not to this place."
)]
pub(super) struct Move {
    /// Out of a file: the file that holds the address of the database, as for `[store] url`. Out of PostgreSQL: the new
    /// database file
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
    /// The configuration that names the store as it is now
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Move {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let settings = settings(self.config.clone())?;
        if let Some(owner) = Owner::to_become(&settings.daemon.state_dir)? {
            let mut child = owner.renewd(["store", "move", "--config"])?;
            child.arg(backup::config_path(&self.config)?);
            child.arg("--to").arg(std::path::absolute(&self.to)?);
            child.args(self.reason.map(|reason| format!("--reason={reason}")));
            child.args(self.json.then_some("--json"));
            succeeded(child.status())?;
            return Ok(Exit::Done);
        }
        let to = match settings.store.place {
            StorePlace::File(_) => database_in(&self.to)?,
            StorePlace::Database(_) => StorePlace::File(std::path::absolute(&self.to)?),
        };
        let cause = Cause {
            actor: format!("uid {}", rustix::process::getuid().as_raw()),
            reason: self.reason.clone(),
        };
        let now = context.clock.now();
        let mut told = Told::default();
        let moved = move_store(&settings.store, &to, &cause, now, &mut |moving| {
            told.tell(moving);
            true
        })?;
        self.say(&moved, &to)
    }

    fn say(&self, moved: &Moved, to: &StorePlace) -> Outcome {
        if self.json {
            let tables: serde_json::Map<_, _> = moved
                .tables
                .iter()
                .map(|(table, rows)| (table.clone(), (*rows).into()))
                .collect();
            output::print_json(&serde_json::json!({ "to": moved.to, "tables": tables }))?;
            return Ok(Exit::Done);
        }
        let rows: u64 = moved.tables.iter().map(|(_, rows)| rows).sum();
        let named = match to {
            StorePlace::File(path) => format!("path = \"{}\"", path.display()),
            StorePlace::Database(_) => {
                format!("url = {{ file = \"{}\" }}", self.to.display())
            }
        };
        output::print(&format!(
            "the store is in {} now: {rows} rows in {} tables, the same in both places\n\
             write `{named}` into the section [store] of the configuration, then start renewd\n\
             the old store stays as it is; no daemon starts on it\n",
            moved.to,
            moved.tables.len()
        ))?;
        Ok(Exit::Done)
    }
}

/// The database whose address a file holds.
fn database_in(file: &Path) -> Result<StorePlace, Failed> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failed::usage(format!(
            "cannot read the address of the database from {}: {why}",
            file.display()
        ))
    };
    let text = fs::read_to_string(file).map_err(|error| cannot(&error))?;
    let text = Zeroizing::new(text);
    let from = SecretRef::File(file.to_owned());
    let address = Secret::new(text.trim().to_owned());
    let database = DatabaseSettings::read(&from, &address, None);
    let database = database.map_err(|mistake| cannot(&mistake))?;
    Ok(StorePlace::Database(Box::new(database)))
}

/// What was said of the move so far.
#[derive(Debug, Default)]
struct Told {
    table: String,
    waits: bool,
}

impl Told {
    fn tell(&mut self, moving: &Moving) {
        match moving {
            Moving::Table {
                name, written: 1.., ..
            } if *name != self.table && !self.waits => {
                self.table.clone_from(name);
                output::aside(&format!("copying: {name}"));
            }
            Moving::Table { .. } => {}
            Moving::InUse { by } => {
                if !self.waits {
                    self.waits = true;
                    output::aside(&format!(
                        "everything is copied; {by} still uses the store: stop renewd now, and the move goes on by itself"
                    ));
                }
                thread::sleep(LOOK);
            }
            Moving::Last => output::aside(
                "the store is no longer used: what is left is copied, and every row is compared",
            ),
        }
    }
}

impl From<MoveError> for Failed {
    fn from(error: MoveError) -> Self {
        let exit = match error.is_configuration() {
            true => Exit::Usage,
            false => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}
