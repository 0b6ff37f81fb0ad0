//! `renewd key leak`: replaces a key that somebody else has.

use super::{
    super::{Context, daemon::daemon, exit::Outcome},
    roll::Replacement,
};
use crate::api::client::wire::KeyWork;

/// Replace a key that somebody else has; says first what it costs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --now no consumer is ever without a live token, and whoever has the key can use it until \
it is regenerated at the end. With --now it is regenerated at the beginning; the gap of each identity is reported."
)]
pub(crate) struct Leak {
    #[command(flatten)]
    replacement: Replacement,
    /// Regenerate first: whoever has the key is out at once, and every token it minted dies
    #[arg(long)]
    now: bool,
}

impl Leak {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let work = match self.now {
            true => KeyWork::LeakNow,
            false => KeyWork::Leak,
        };
        self.replacement.run(&daemon(context.socket), work).await
    }
}
