//! `renewd key`: which keys there are, and their replacement without a gap; also of the one that seals the store.

mod reseal;
mod roll;
mod set;
mod status;

use super::{Context, exit::Outcome};

/// Show access keys and replace one without a gap; replace the seal key
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the keys, what each minted, and how far a replacement is
    Status(status::Status),
    /// Replace a key: other key signs, every token is re-minted and delivered, then regenerate
    Roll(roll::Roll),
    /// Replace a key that somebody else has; says first what it costs
    Leak(roll::Leak),
    /// Replace the key that the store is sealed with; renewals and deliveries go on meanwhile
    Reseal(reseal::Reseal),
    /// Put a new key in place: read from standard input, proved, written into its file
    Set(set::Set),
}

impl Key {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::Status(verb) => verb.run(context).await,
            Verb::Roll(verb) => verb.run(context).await,
            Verb::Leak(verb) => verb.run(context).await,
            Verb::Reseal(verb) => verb.run(context).await,
            Verb::Set(verb) => Box::pin(verb.run(context)).await,
        }
    }
}
