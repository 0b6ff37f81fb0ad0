//! `renewd completions`: a script that completes verbs and options in a shell.

use clap_complete::Shell;

use super::{
    definition,
    exit::{Exit, Outcome},
    output,
};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: renewd completions bash > /etc/bash_completion.d/renewd")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut definition(), "renewd", &mut script);
        output::print_data(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
