//! `renewd store`: saves the store and puts it back; and a person's word about it.

mod backup;
mod owner;
mod restore;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;

use jiff::Timestamp;

use crate::{
    api::client::{ClientError, wire::StoreWord},
    config::{Settings, Source},
    store::{Cause, StoreError, take_back},
};

use self::owner::{Owner, succeeded};
use super::{
    Context,
    daemon::daemon,
    duration::When,
    exit::{Exit, Failed, Outcome},
    offline::{Offline, daemon_of, settings},
    output,
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
    /// Look a backup through: whether it is whole, how old it is, what it holds, which key opens it
    Verify(verify::Verify),
    /// While no daemon runs: put a backup into the place of the store
    Restore(restore::Restore),
    /// While no daemon runs: open a store whose seal key is lost for ever
    Open(restore::Open),
    /// Go on although it is not known what was withdrawn; every token of unknown standing is renewed
    Accept(Accept),
    /// Take over a store that belonged to another machine, or take one back that was retired
    Adopt(Adopt),
    /// While no daemon runs: say that the store knows nothing of what was withdrawn since an instant
    Distrust(Distrust),
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
            output::print(&format!("still {still}\n"))?;
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
