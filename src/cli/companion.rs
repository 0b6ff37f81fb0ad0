//! The verbs of the other side in a server that is built without it: they are handed to `renewd-emulator`, the whole
//! program, where its package is installed.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use super::exit::{Exit, Failed, Outcome};

const WHOLE: &str = "renewd-emulator";

/// What is handed on as it stands.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Handed {
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

impl Handed {
    /// Becomes the whole program; returns only where that cannot be started.
    #[expect(
        clippy::disallowed_methods,
        reason = "this starts nothing beside us: it takes our place"
    )]
    pub(crate) fn run(self, verb: &str) -> Outcome {
        let error = Command::new(WHOLE).arg(verb).args(self.arguments).exec();
        Err(Failed::new(
            Exit::Failed,
            format!("`renewd {verb}` is not in the server, and {WHOLE} cannot be started: {error}"),
        )
        .hint(format!("install the package {WHOLE}")))
    }
}
