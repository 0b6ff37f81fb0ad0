//! `renewd status`: what needs a person first, then how everything is.

pub(super) mod screen;
mod verdict;

use std::time::Duration;

use crate::api::client::Client;

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed, Outcome},
    output::{self, WARN, paint},
};

/// How often the watched screen is drawn.
const EVERY: Duration = Duration::from_secs(1);

/// Show what needs a person, then how everything is
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Draw it again every second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// One line and an exit code for monitoring: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    check: bool,
}

impl Status {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        if self.check {
            let verdict = verdict::Verdict::of(client.status().await);
            output::print(&format!("{verdict}\n"))?;
            return Ok(verdict.exit());
        }
        if self.watch {
            return watch(&client).await;
        }
        let status = client.status().await?;
        if self.json {
            output::print_json(&status)?;
        } else {
            output::print(&screen::render(&status, output::width()))?;
        }
        Ok(Exit::Done)
    }
}

/// Draws until Ctrl-C; a daemon that restarts meanwhile is waited for.
async fn watch(client: &Client) -> Outcome {
    let stop = tokio::signal::ctrl_c();
    let mut stop = std::pin::pin!(stop);
    loop {
        let drawn = match client.status().await {
            Ok(status) => screen::render(&status, output::width()),
            Err(error) => format!("{}\n", paint(WARN, Failed::from(error))),
        };
        output::redraw(&drawn)?;
        tokio::select! {
            biased;
            stopped = &mut stop => {
                stopped?;
                return Ok(Exit::Done);
            }
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
