//! Manual pages and completions.
//!
//! `renewd man`: manual pages, made from the same definition as `--help`.
//!
//! `renewd completions`: a script that completes verbs and options in a shell.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap_complete::Shell;

use super::{
    definition,
    exit::{Exit, Failed, Outcome},
    output,
};

/// Print a manual page, or write them all
#[derive(Debug, clap::Args)]
#[command(
    after_help = "To read one: renewd man status | man -l -\nTo install all: renewd man --dir /usr/local/share/man/man8"
)]
pub(crate) struct Man {
    /// Print the page of this verb instead of the program's
    #[arg(conflicts_with = "dir")]
    verb: Option<String>,
    /// Write the whole set into this folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Administration commands and daemons.
const SECTION: &str = "8";

impl Man {
    pub(crate) fn run(self) -> Outcome {
        let mut whole = definition();
        whole.build();
        if let Some(dir) = &self.dir {
            let written = std::fs::create_dir_all(dir).and_then(|()| write_all(&whole, dir));
            written.map_err(|error| {
                let dir = dir.display();
                Failed::plain(format!("cannot write manual pages to {dir}: {error}"))
            })?;
            return Ok(Exit::Done);
        }
        let command = match &self.verb {
            None => whole,
            Some(verb) => whole.find_subcommand(verb).cloned().ok_or_else(|| {
                Failed::usage(format!("there is no verb {verb:?}")).hint("renewd --help lists them")
            })?,
        };
        output::print_data(&page(&command)?)?;
        Ok(Exit::Done)
    }
}

/// A page for the command and each one below it: `renewd.8`, `renewd-identity-add.8`.
fn write_all(command: &clap::Command, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    std::fs::write(dir.join(format!("{name}.{SECTION}")), page(command)?)?;
    let below = command
        .get_subcommands()
        .filter(|below| below.get_name() != "help" && !below.is_hide_set());
    below
        .into_iter()
        .try_for_each(|below| write_all(below, dir))
}

fn page(command: &clap::Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .section(SECTION)
        .render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

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
