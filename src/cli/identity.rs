//! `renewd identity`: which identities there are; adds, removes and takes over.

mod add;
mod list;
mod remove;
mod show;

use clap::Subcommand;

use super::{Context, exit::Outcome};

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
    Add(add::Add),
    /// Remove one that was added with `add`; ACS keeps it
    Remove(remove::Remove),
}

impl Identity {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::List(verb) => verb.run(context).await,
            Verb::Show(verb) => verb.run(context).await,
            Verb::Add(verb) => verb.run(context).await,
            Verb::Remove(verb) => verb.run(context).await,
        }
    }
}
