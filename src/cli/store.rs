//! `renewd store`: whether a backup is whole, and a person's word about the store; saving it and putting it back
//! is in [`backup`]. Root becomes the user whom the store belongs to before it opens anything there, so that no
//! file ends up in other hands and no link that lies there leads root astray.

mod backup;
mod transfer;

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Context,
    daemon::{Offline, daemon, daemon_of, settings},
    duration::When,
    exit::{Exit, Failed, Outcome},
    output,
};
use crate::{
    api::client::{ClientError, wire::StoreWord},
    config::{Settings, Source},
    model::short_duration,
    store::{Cause, Contents, Miscount, StoreError, seal_key_id, take_back, verify_backup},
};

/// Save the store, put it back, and say whether it may be used
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Save the database and the files beside it in one file, whether a daemon runs or not
    Backup(backup::Backup),
    /// Look a backup through, or count everything in the store anew and mend its counters
    Verify(Verify),
    /// While no daemon runs: put a backup into the place of the store
    Restore(backup::Restore),
    /// While no daemon runs: open a store whose seal key is lost for ever
    Open(backup::Open),
    /// Go on although it is not known what was withdrawn; every token of unknown standing is renewed
    Accept(Accept),
    /// Take over a store that belonged to another machine, or take one back that was retired
    Adopt(Adopt),
    /// While no daemon runs: say that the store knows nothing of what was withdrawn since an instant
    Distrust(Distrust),
    /// Move the store out of its file into PostgreSQL, or back, while the daemon goes on up to a last short stop
    Move(transfer::Move),
}

/// Go on although it is not known what was withdrawn; every token of unknown standing is renewed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A daemon that cannot know what was revoked, held or deleted since its store was copied issues, \
delivers and serves nothing; `renewd status` says why. Whoever knows what was withdrawn since repeats it after this.\n\
Exit codes: 0 it goes on, 1 there is nothing to accept, 3 no daemon answers."
)]
struct Accept {
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// While no daemon runs: say that the store knows nothing of what was withdrawn since an instant
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The next start then issues, delivers and serves nothing until `renewd store accept`, which renews every \
token, whatever the instant: a revocation since then that the store does not know of may have killed any of them. It is for a person who knows that the store was put back, where the daemon could not see it."
)]
struct Distrust {
    /// From when on: an instant (2026-11-22T00:00:00Z) or how long ago (24h)
    #[arg(long, value_name = "WHEN")]
    since: When,
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
    /// The configuration that names the store
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl Store {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::Backup(verb) => Box::pin(verb.run(context)).await,
            Verb::Verify(verb) => verb.run(context).await,
            Verb::Restore(verb) => verb.run(context).await,
            Verb::Open(verb) => verb.run(context).await,
            Verb::Accept(verb) => verb.run(context).await,
            Verb::Adopt(verb) => verb.run(&context).await,
            Verb::Distrust(verb) => verb.run(&context).await,
            Verb::Move(verb) => verb.run(&context),
        }
    }
}

/// Take over a store that belonged to another machine, or take one back that was retired
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Say it on the one machine that goes on with this store: a copy that is used beside its original renews, \
revokes and delivers what the other one does.\nExit codes: 0 it goes on, or what another word is needed for is said; 1 \
there is nothing to adopt."
)]
struct Adopt {
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
    /// The configuration that names the store, for when no daemon runs
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl Adopt {
    async fn run(self, context: &Context) -> Outcome {
        let word = StoreWord {
            reason: self.reason.clone(),
        };
        let client = daemon_of(context, self.config.as_deref())?;
        let still = match client.adopt_store(&word).await {
            Ok(used) => used.still,
            Err(error @ ClientError::Unreachable { .. }) => {
                if self.config.is_none() && !Source::of_process(None).path.exists() {
                    return Err(error.into());
                }
                let settings = settings(self.config.clone())?;
                if let Some(owner) = Owner::to_become(&settings.daemon.state_dir)? {
                    let mut child = owner.renewd(["store", "adopt", "--config"])?;
                    child.arg(backup::config_path(&self.config)?);
                    child.args(self.reason.map(|reason| format!("--reason={reason}")));
                    succeeded(child.status())?;
                    return Ok(Exit::Done);
                }
                self.offline(&settings, context.clock.now()).await?
            }
            Err(error) => return Err(error.into()),
        };
        output::print("the store belongs to this machine now\n")?;
        if let Some(still) = still {
            output::print(&format!("it cannot be used yet: {still}\n"))?;
        }
        Ok(Exit::Done)
    }

    async fn offline(self, settings: &Settings, now: Timestamp) -> Result<Option<String>, Failed> {
        let retired = take_back(&settings.store)?;
        let store = Offline::open_whatever(self.config, now)?.store;
        let cause = Cause {
            actor: format!("uid {}", rustix::process::getuid().as_raw()),
            reason: self.reason,
        };
        match store.adopt(&cause, now).await {
            Ok(standing) => Ok(standing.refusal()),
            Err(StoreError::Refused { .. }) if retired => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Accept {
    async fn run(self, context: Context) -> Outcome {
        let word = StoreWord {
            reason: self.reason,
        };
        let used = daemon(context.socket).accept_store(&word).await?;
        if self.json {
            output::print_json(&used)?;
        } else {
            output::print(&format!(
                "the store is accepted; tokens of unknown standing that are renewed now: {}\n",
                used.renewing
            ))?;
        }
        Ok(Exit::Done)
    }
}

impl Distrust {
    async fn run(self, context: &Context) -> Outcome {
        let now = context.clock.now();
        let since = self.since.before(now);
        if since > now {
            return Err(Failed::usage(format!(
                "{since:.0} is yet to come: say since when the store knows nothing of what was withdrawn"
            )));
        }
        let state_dir = settings(self.config.clone())?.daemon.state_dir;
        if let Some(owner) = Owner::to_become(&state_dir)? {
            let mut child = owner.renewd(["store", "distrust", "--config"])?;
            child.arg(backup::config_path(&self.config)?);
            child.arg(format!("--since={since}"));
            child.args(self.reason.map(|reason| format!("--reason={reason}")));
            succeeded(child.status())?;
            return Ok(Exit::Done);
        }
        let offline = Offline::open_whatever(self.config, now)?;
        let cause = Cause {
            actor: format!("uid {}", rustix::process::getuid().as_raw()),
            reason: self.reason,
        };
        offline.store.distrust(since, &cause, now).await?;
        output::print(&format!(
            "the store is not trusted since {since:.0}: the daemon will issue, deliver and serve nothing until \
             `renewd store accept`\n"
        ))?;
        Ok(Exit::Done)
    }
}

pub(super) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// The owner of the state directory, where this is root and that is somebody else.
    pub(super) fn to_become(state_dir: &Path) -> Result<Option<Self>, Failed> {
        let found = match fs::metadata(state_dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !rustix::process::geteuid().is_root() {
                    return Ok(None);
                }
                return Err(Failed::usage(format!(
                    "{} does not exist, and root cannot know who is to own it",
                    state_dir.display()
                ))
                .hint(format!(
                    "`install -d -m 700 -o renewd -g renewd {}` makes it for the user renewd",
                    state_dir.display()
                )));
            }
            Err(error) => {
                let message = format!("cannot open {}: {error}", state_dir.display());
                return Err(Failed::usage(message));
            }
        };
        let other = found.uid() != rustix::process::geteuid().as_raw();
        let root = rustix::process::geteuid().is_root();
        Ok((root && other).then(|| Self {
            uid: found.uid(),
            gid: found.gid(),
        }))
    }

    /// This very program as that user.
    pub(super) fn renewd<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Command, Failed> {
        #[expect(
            clippy::disallowed_methods,
            reason = "it is this very program, as the user who may touch the store"
        )]
        let mut command = Command::new("/proc/self/exe");
        command
            .args(args)
            .uid(self.uid)
            .gid(self.gid)
            .current_dir("/");
        Ok(command)
    }
}

/// What a program that ran came to; it has said itself what is wrong.
pub(super) fn succeeded(status: io::Result<ExitStatus>) -> Result<(), Failed> {
    let status = status
        .map_err(|error| Failed::plain(format!("cannot become the owner of the store: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(Failed::new(
        code.map_or(Exit::Failed, Exit::As),
        "what ran as the owner of the store failed, so nothing was changed",
    ))
}

/// Look a backup through: whether it is whole, how old it is, what it holds, which key opens it; or, without a file and
/// while no daemon runs, count everything in the store anew and mend counters that are wrong
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 it is whole, and the key fits where one was given, or every counter is right, perhaps since \
now; 1 it is not; 2 it is no backup, or of a newer renewd."
)]
struct Verify {
    /// The backup; without it the store itself
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A copy of the seal key, to see whether it opens this backup
    #[arg(long, value_name = "KEYFILE", requires = "file")]
    key: Option<PathBuf>,
    /// The configuration that names the store
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What a backup holds, for programs.
#[derive(Debug, Serialize)]
struct Document {
    made_at: String,
    version: String,
    schema: i64,
    seal_key: String,
    identities: u64,
    tokens: u64,
    files: std::collections::BTreeMap<String, u64>,
    last: bool,
}

fn document(contents: &Contents) -> Document {
    Document {
        made_at: crate::model::whole_seconds(contents.made_at),
        version: contents.version.clone(),
        schema: contents.schema,
        seal_key: contents.seal_key.clone(),
        identities: contents.identities,
        tokens: contents.tokens,
        files: contents.files.iter().cloned().collect(),
        last: contents.last,
    }
}

impl Verify {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let Some(file) = &self.file else {
            return self.recount(&context).await;
        };
        let contents = verify_backup(file)?;
        let key = self.key.as_ref().map(key_file).transpose()?;
        if self.json {
            output::print_json(&document(&contents))?;
        } else {
            let age = context.clock.now().duration_since(contents.made_at);
            let age = short_duration(age.try_into().unwrap_or_default());
            let mut text = format!("{} is whole\n\n", file.display());
            let mut line = |name: &str, value: String| text += &format!("  {name:<11} {value}\n");
            line(
                "made",
                format!(
                    "{age} ago ({:.0}), by renewd {}",
                    contents.made_at, contents.version
                ),
            );
            line("schema", contents.schema.to_string());
            line(
                "identities",
                format!(
                    "{}, {} of them with a token",
                    contents.identities, contents.tokens
                ),
            );
            for (name, lines) in &contents.files {
                line("file", format!("{name}, {lines} lines"));
            }
            line("sealed with", format!("the key {}", contents.seal_key));
            if contents.last {
                line(
                    "retired",
                    "its store ended with it: nothing was withdrawn since".to_owned(),
                );
            }
            output::print(&text)?;
        }
        match key {
            Some(text) if seal_key_id(&text).as_ref() != Some(&contents.seal_key) => {
                Err(Failed::plain(format!(
                    "the key that was given does not open this backup, which is sealed with the key {}",
                    contents.seal_key
                )))
            }
            Some(_) if !self.json => {
                output::print("\nthe key that was given opens it\n")?;
                Ok(Exit::Done)
            }
            _ => Ok(Exit::Done),
        }
    }
}

impl Verify {
    /// Counts everything in the store anew; counters that are wrong say what there is afterwards.
    async fn recount(self, context: &Context) -> Outcome {
        let state_dir = settings(self.config.clone())?.daemon.state_dir;
        if let Some(owner) = Owner::to_become(&state_dir)? {
            let mut child = owner.renewd(["store", "verify", "--config"])?;
            child.arg(backup::config_path(&self.config)?);
            child.args(self.json.then_some("--json"));
            succeeded(child.status())?;
            return Ok(Exit::Done);
        }
        let store = Offline::open_whatever(self.config, context.clock.now())?.store;
        let mended = store.mend_counters().await?;
        if self.json {
            let mended: Vec<&str> = mended.iter().map(|one| one.what).collect();
            output::print_json(&serde_json::json!({ "mended": mended }))?;
            return Ok(Exit::Done);
        }
        for Miscount { what, lines } in &mended {
            output::print(&format!(
                "the counter of {what} was wrong in {lines} lines and is mended\n"
            ))?;
        }
        if mended.is_empty() {
            output::print("every counter of the store is right\n")?;
        }
        Ok(Exit::Done)
    }
}

/// The text of a copy of the seal key.
fn key_file(path: &PathBuf) -> Result<Zeroizing<String>, Failed> {
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Failed::usage(format!("cannot read the key {}: {error}", path.display())))
}
