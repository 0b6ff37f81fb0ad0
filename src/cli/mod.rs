//! The only room that prints and parses arguments: one file per verb.
//!
//! A verb is a clap struct with a `run` that answers how it ended ([`exit::Outcome`]); what it shows is
//! rendered by plain functions, so that every screen is tested without a terminal.

#![allow(dead_code, reason = "the verbs that use all of this arrive one by one")]

mod completions;
mod exit;
mod man;
mod output;
mod table;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use exit::Outcome;

/// Keeps short-lived ACS access tokens fresh and hands every new one to the apps that need it.
#[derive(Debug, Parser)]
#[command(
    name = "renewd",
    version,
    propagate_version = true,
    after_long_help = AFTER,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    /// The daemon's socket, where it is not at the usual place
    #[arg(long, global = true, env = "RENEWD_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 daemon not reachable, \
4 partly failed, 5 no live token.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Print a manual page, or write them all
    Man(man::Man),
}

/// Parses the process's arguments, does what they ask, and says how it ended.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    exit::finish(dispatch(cli))
}

fn dispatch(cli: Cli) -> Outcome {
    match cli.verb {
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    }
}

/// The whole definition, for completions, manual pages and tests.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::definition().debug_assert();
    }
}
