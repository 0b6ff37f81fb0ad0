//! `renewd key reseal`: replaces the key that seals the store.

use std::time::Duration;

use super::super::{
    Context,
    daemon::daemon,
    exit::{Exit, Outcome},
    output,
};
use crate::api::client::wire::{Resealing, StoreWord};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Replace the key that the store is sealed with; renewals and deliveries go on meanwhile
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A new key is made, every stored token is sealed with it, and only then does it take the place of the old \
one. Whatever is killed meanwhile, the daemon goes on with it, and the same command follows it. The old key is kept for backups \
made before; where the configuration gives the key (a credential, a file), what is left to do is printed."
)]
pub(crate) struct Reseal {
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
    /// Only show how far a replacement is
    #[arg(long)]
    status: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Reseal {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        if self.status {
            return self.show(&client.resealing().await?);
        }
        let word = StoreWord {
            reason: self.reason.clone(),
        };
        let started = client.reseal(&word).await?;
        let mut now = started.now;
        let mut told = None;
        while now.successor.is_some() {
            if !self.json && told != Some(now.sealed) {
                output::aside(&progress(&now));
                told = Some(now.sealed);
            }
            tokio::time::sleep(LOOK_EVERY).await;
            now = client.resealing().await?;
        }
        if self.json {
            return self.show(&now);
        }
        let left = now.by_hand.as_ref().unwrap_or(&started.former);
        output::print(&format!("the store is sealed with {}; {left}\n", now.key))?;
        Ok(Exit::Done)
    }

    fn show(&self, now: &Resealing) -> Outcome {
        if self.json {
            output::print_json(&serde_json::json!(now))?;
        } else {
            output::print(&(progress(now) + "\n"))?;
        }
        Ok(Exit::Done)
    }
}

fn progress(now: &Resealing) -> String {
    match (&now.successor, &now.by_hand) {
        (Some(next), _) => format!(
            "{} of {} tokens are sealed with {next}, the others with {}",
            now.sealed, now.tokens, now.key
        ),
        (None, Some(left)) => left.clone(),
        (None, None) => format!("the store is sealed with {}", now.key),
    }
}
