//! `renewd key roll`: replaces a key by habit.

use super::{
    super::{
        Context,
        daemon::daemon,
        exit::{Exit, Failed, Outcome},
        output,
    },
    follow,
    price::Price,
};
use crate::{
    api::client::{
        Client,
        wire::{KeyRole, KeyWork, ReplaceKey},
    },
    model::ResourceName,
};

/// Replace a key: the other key signs, every token is re-minted and delivered, then regenerate
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It goes on over restarts of the daemon; renewd key status shows how far it is."
)]
pub(crate) struct Roll {
    #[command(flatten)]
    replacement: Replacement,
    /// Call a replacement off; tokens that were re-minted stay
    #[arg(long)]
    cancel: bool,
}

/// Which key of which resource, and what goes with it.
#[derive(Debug, clap::Args)]
pub(super) struct Replacement {
    /// The resource
    resource: ResourceName,
    /// Which key to replace; left out, the one in use
    #[arg(long, value_name = "primary|secondary")]
    key: Option<KeyRole>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON document, at the end
    #[arg(long)]
    json: bool,
}

impl Roll {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        if self.cancel {
            let ended = client.cancel_key(&self.replacement.resource).await?;
            output::print(&format!(
                "the replacement of the {} key of {} is called off\n",
                ended.role, ended.resource
            ))?;
            return Ok(Exit::Done);
        }
        self.replacement.run(&client, KeyWork::Roll).await
    }
}

impl Replacement {
    /// Says the price, asks, begins, follows.
    pub(super) async fn run(self, client: &Client, work: KeyWork) -> Outcome {
        let keys = client.keys(&self.resource).await?;
        let price = Price::of(&keys, self.key).ok_or_else(|| {
            Failed::usage(format!("{} has no such key", self.resource))
                .hint("renewd key status shows which there are")
        })?;
        if !self.json {
            output::print(&price.words(work))?;
        }
        if !self.yes && !output::confirm("Go on?")? {
            return Err(Failed::usage("nothing was done: it was not confirmed")
                .hint("add --yes where nobody can answer"));
        }
        let asked = ReplaceKey {
            work,
            role: self.key,
            reason: self.reason,
        };
        let begun = client.replace_key(&self.resource, &asked).await?;
        if !self.json {
            output::print(&follow::opening(&keys, &begun))?;
        }
        follow::follow(client, &self.resource, self.json).await
    }
}
