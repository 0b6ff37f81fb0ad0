//! `renewd run`: the daemon; and how a verb that serves writes its log.

use std::{error::Error, path::PathBuf, time::Duration};

use super::{
    exit::{Exit, Failed, Outcome},
    output,
};
use crate::{
    app::{self, RunError},
    config::{self, Source},
    pool,
    telemetry::{self, LogFormat},
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
        output::aside_lines(config::render(problems, true).trim_end());
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

/// How a verb that serves writes its log; flattened into it.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "\
RENEWD_LOG chooses what is logged: error, warn, info, debug or trace, or parts by name, such as
warn,super::super::engine=debug [default: info]. Of other libraries nothing below warn is ever logged.")]
pub(crate) struct Logs {
    /// How log lines look on standard error: human (text, coloured on a terminal), json (one object a line),
    /// or journal (to the journal, each field by itself) [default: journal where the service manager connected
    /// standard error to it, else human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Logs {
    /// Begins the log; to be called once, before any thread starts.
    pub(crate) fn begin(self) -> Result<(), Failed> {
        telemetry::init(self.log_format.unwrap_or_default(), None).map_err(Failed::usage)
    }
}
