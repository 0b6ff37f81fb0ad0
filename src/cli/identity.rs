//! `renewd identity`: which identities there are; adds, removes and takes over.

mod changes;
mod create;
mod list;
mod rows;
mod show;
mod transfer;

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp;

use crate::{
    api::client::{Client, ClientError, wire},
    config::Source,
    model::Name,
};

pub use rows::examine_import;

use super::{
    Context,
    exit::{Failed, Outcome},
    offline::{Offline, daemon_of},
};

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
    List(list::List),
    /// Show everything that is known of one
    Show(show::Show),
    /// Add one that no configuration file declares
    Add(changes::Add),
    /// Let identities be created whose ids are not known because the database was lost
    Create(create::Create),
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
    Daemon(Client),
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
            Self::Daemon(client) => Ok(client.identity(name).await?),
            Self::Store(offline) => match offline.store.record(name).await? {
                Some(record) => Ok(wire::Identity::offline(&record, now)),
                None => Err(Failed::plain(format!("there is no identity {name}"))),
            },
        }
    }
}

/// All identities, page by page, in the order of their names.
pub(super) async fn everything(client: &Client) -> Result<Vec<wire::Identity>, ClientError> {
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
