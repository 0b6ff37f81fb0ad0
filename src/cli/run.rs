//! `renewd run`: the daemon.

use std::{error::Error, path::PathBuf, time::Duration};

use crate::{
    app::{self, RunError},
    config::{self, Source},
    pool,
};

use super::{
    exit::{Exit, Failed, Outcome},
    logs::Logs,
    output,
};

/// What threads get that still work when everything has ended.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Run the daemon until SIGTERM or SIGINT; SIGHUP reads the configuration again
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The configuration [default: /etc/renewd/renewd.toml; as a normal user
    /// ~/.config/renewd/renewd.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// After an upgrade: bring the store up to date without saving it first
    #[arg(long)]
    no_backup: bool,
    #[command(flatten)]
    logs: Logs,
}

impl Run {
    pub(crate) fn run(self, socket: Option<PathBuf>) -> Outcome {
        self.logs.begin()?;
        let source = Source::of_process(self.config).with_socket(socket);
        let runtime = pool::runtime(app::SPARE);
        let (runtime, lacking) =
            runtime.map_err(|error| Failed::plain(format!("cannot start threads: {error}")))?;
        if let Some(lacking) = lacking {
            tracing::warn!("{lacking}");
        }
        let ended = runtime.block_on(app::run(source, self.no_backup));
        // A thread may hang in a file system that does not answer; it has nothing of ours to finish.
        runtime.shutdown_timeout(LEFT_BEHIND);
        match ended {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &RunError) -> Failed {
    if let RunError::Config(problems) = error {
        output::aside(config::render(problems, true).trim_end());
        return Failed::usage(format!("{error}: {}", problems.summary()));
    }
    let exit = if error.is_configuration() {
        Exit::Usage
    } else {
        Exit::Failed
    };
    Failed::new(exit, chain(error))
}

/// The error and its causes in one line; a cause that the error quotes already is left out.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
