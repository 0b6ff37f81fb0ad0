//! How a verb that serves writes its log.

use crate::telemetry::{self, Format};

use super::exit::Failed;

/// How a verb that serves writes its log; flattened into it.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "\
RENEWD_LOG chooses what is logged: error, warn, info, debug or trace, or parts by name, such as
warn,renewd::engine=debug [default: info]. Of other libraries nothing below warn is ever logged.")]
pub(crate) struct Logs {
    /// How log lines look on standard error: human (text, coloured on a terminal), json (one object a line),
    /// or journal (to the journal, each field by itself) [default: journal where the service manager connected
    /// standard error to it, else human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

impl Logs {
    /// Begins the log; to be called once, before any thread starts.
    pub(crate) fn begin(self) -> Result<(), Failed> {
        telemetry::init(self.log_format.unwrap_or_default(), None).map_err(Failed::usage)
    }
}
