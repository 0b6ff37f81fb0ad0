//! The only room that prints and parses arguments: one file per verb.
//!
//! A verb is a clap struct with a `run` that answers how it ended ([`exit::Outcome`]); what it shows is
//! rendered by plain functions, so that every screen is tested without a terminal.

mod acs;
mod audit;
mod bulk;
mod campaign;
mod check;
mod child;
#[cfg(not(feature = "emulator"))]
mod companion;
mod complete;
mod daemon;
mod delivery;
mod duration;
#[cfg(feature = "emulator")]
mod emulator;
mod exec;
mod exit;
mod identity;
mod init;
mod input;
mod job;
mod key;
mod manual;
mod node;
mod orphan;
mod output;
mod plan;
mod run;
#[cfg(feature = "simulation")]
mod simulate;
mod sink;
mod source;
mod status;
mod store;
mod token;
mod why;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{clock::Clock, systemd};

use exit::{Failed, Outcome};

pub use identity::examine_import;

/// Keeps short-lived ACS access tokens fresh and hands every new one to the apps that need it.
#[derive(Debug, Parser)]
#[command(
    name = "renewd",
    version,
    after_long_help = AFTER,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    /// The daemon's socket. Without it: `[daemon] socket` of the configuration, as far as this user may
    /// read it; else renewd.sock in $RUNTIME_DIRECTORY, for an ordinary user in $XDG_RUNTIME_DIR/renewd,
    /// in /run/renewd. The daemon listens there, and commands look there
    #[arg(
        long,
        global = true,
        env = "RENEWD_SOCKET",
        hide_env_values = true,
        value_name = "PATH"
    )]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 daemon not reachable, \
4 partly failed, 5 no live token, 6 not done in time: it goes on in the daemon.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon
    Run(run::Run),
    /// Write a first configuration with its secret files, check it, say what to do next
    Init(init::Init),
    /// Check the configuration: every mistake at once, with its line
    Check(check::Check),
    /// Show what holds of the configuration and where that comes from, or its schema
    Config(manual::Config),
    /// Watch it work: emulator, daemon and receiver in a temporary folder, in under a minute
    #[cfg(feature = "emulator")]
    Demo(emulator::Demo),
    /// Watch it work, by the package renewd-emulator
    #[cfg(not(feature = "emulator"))]
    Demo(companion::Handed),
    /// Show what needs a person, then how everything is
    Status(status::Status),
    /// Show what the limits mean for the fleet: load, room, outages, how long campaigns take
    Plan(plan::Plan),
    /// Let a fleet live for days in seconds, with faults that a script names or chance draws
    #[cfg(feature = "simulation")]
    Simulate(simulate::Simulate),
    /// Explain what is decided about an identity, and why
    Why(why::Why),
    /// Print the current token of an identity
    Token(token::Token),
    /// Wait until an identity has a live token
    Wait(token::Wait),
    /// Run a program with the current token; restart or signal it on each new one
    Exec(exec::Exec),
    /// Write each new token to a file and run a program after it
    Follow(token::Follow),
    /// Renew tokens now; the old ones stay good until they expire
    Renew(bulk::Renew),
    /// Revoke all tokens of identities; then a new one, or none
    Revoke(bulk::Revoke),
    /// Withhold the tokens of identities from every consumer until they are released
    Hold(bulk::Hold),
    /// End the hold of identities: they get tokens again
    Release(bulk::Release),
    /// Find what is wrong around the daemon, each with its remedy
    Doctor(check::Doctor),
    /// Somebody leaves: withhold and revoke now, delete at ACS later
    Offboard(bulk::Offboard),
    /// List, follow, pause, resume, cancel, repeat and report bulk operations
    Campaign(campaign::Campaign),
    /// List, show, add, remove and take over identities
    Identity(identity::Identity),
    /// Show what may exist at ACS without a record, and clear it up
    Orphan(orphan::Orphan),
    /// List jobs, run one now, show what ran
    Job(job::Job),
    /// Show access keys and replace one without a gap; replace the seal key
    Key(key::Key),
    /// List, show, retry and replay deliveries
    Delivery(delivery::Delivery),
    /// List, test, pause and enable sinks
    Sink(sink::Sink),
    /// List the machines of a cluster, let another one lead, forget one that is gone
    Node(node::Node),
    /// Show and try sources of identities that others own
    Source(source::Source),
    /// Go on with a store that was restored, or say that it may not be trusted
    Store(store::Store),
    /// Show or export who did what, when and why; count who took tokens
    Audit(audit::Audit),
    /// Make one call to ACS, without a daemon
    Acs(acs::Acs),
    /// Run ACS Identity on this machine, for tests and for playing with
    #[cfg(feature = "emulator")]
    Emulator(emulator::Emulator),
    /// Run ACS Identity on this machine, by the package renewd-emulator
    #[cfg(not(feature = "emulator"))]
    Emulator(companion::Handed),
    /// Print what programs may ask of the daemon's socket
    Api(manual::Api),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Print a manual page, or write them all
    Man(manual::Man),
    /// Say which names may stand where a word is being typed, for the scripts of `completions`
    #[command(hide = true)]
    Complete(complete::Complete),
    /// Read a list for a daemon that started this process for it
    #[command(name = crate::sources::VERB, hide = true)]
    ReadList,
}

impl Verb {
    /// Whether its process is to be closed to others of its user before anything is read: tokens, keys and
    /// configurations pass through all but those that show, try out or start something else. `run`,
    /// `exec` and `follow` start programs, and see to it themselves.
    fn holds_secrets(&self) -> bool {
        if let Self::Config(verb) = self {
            return verb.holds_secrets();
        }
        !matches!(
            self,
            Self::Run(_)
                | Self::Exec(_)
                | Self::Follow(_)
                | Self::Demo(_)
                | Self::Emulator(_)
                | Self::Api(_)
                | Self::Completions(_)
                | Self::Man(_)
                | Self::ReadList
        )
    }
}

/// Parses the process's arguments, does what they ask, and says how it ended.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Shows what clap says about wrong arguments (or the help that was asked for).
fn usage(error: &clap::Error) -> ExitCode {
    match error.use_stderr() {
        true => {
            let told = error.render().to_string();
            let told = told.trim_end();
            output::error(told.strip_prefix("error: ").unwrap_or(told), None);
        }
        // Help that was asked for. Nothing can be said where standard output itself is gone.
        false => drop(error.print()),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    finish(dispatch(cli))
}

/// Shows a failure and turns the outcome into the process's exit code.
fn finish(outcome: Outcome) -> ExitCode {
    let exit = outcome.unwrap_or_else(|failed| {
        output::error(&failed.message, failed.hint.as_deref());
        failed.exit
    });
    ExitCode::from(exit.code())
}

/// What every verb that asks the daemon needs.
struct Context {
    clock: Clock,
    socket: Option<PathBuf>,
}

fn dispatch(cli: Cli) -> Outcome {
    let context = Context {
        clock: Clock::system(),
        socket: cli.socket,
    };
    if cli.verb.holds_secrets() {
        systemd::harden().map_err(Failed::plain)?;
        systemd::make_private();
    }
    match cli.verb {
        Verb::Run(verb) => verb.run(context.socket),
        Verb::Init(verb) => asking(verb.run()),
        Verb::Check(verb) => asking(verb.run(context)),
        #[cfg(feature = "emulator")]
        Verb::Demo(verb) => asking(Box::pin(verb.run(context))),
        #[cfg(not(feature = "emulator"))]
        Verb::Demo(verb) => verb.run("demo"),
        Verb::Status(verb) => asking(verb.run(context)),
        Verb::Plan(verb) => asking(verb.run(context)),
        #[cfg(feature = "simulation")]
        Verb::Simulate(verb) => verb.run(),
        Verb::Why(verb) => asking(verb.run(context)),
        Verb::Token(verb) => asking(verb.run(context)),
        Verb::Wait(verb) => asking(verb.run(context)),
        Verb::Exec(verb) => asking(Box::pin(verb.run(context))),
        Verb::Follow(verb) => asking(Box::pin(verb.run(context))),
        Verb::Renew(verb) => asking(verb.run(context)),
        Verb::Revoke(verb) => asking(verb.run(context)),
        Verb::Hold(verb) => asking(verb.run(context)),
        Verb::Release(verb) => asking(verb.run(context)),
        Verb::Doctor(verb) => asking(Box::pin(verb.run(context))),
        Verb::Offboard(verb) => asking(verb.run(context)),
        Verb::Campaign(verb) => asking(verb.run(context)),
        Verb::Identity(verb) => asking(verb.run(context)),
        Verb::Orphan(verb) => asking(verb.run(context)),
        Verb::Job(verb) => asking(verb.run(context)),
        Verb::Key(verb) => asking(verb.run(context)),
        Verb::Delivery(verb) => asking(verb.run(context)),
        Verb::Sink(verb) => asking(verb.run(context)),
        Verb::Node(verb) => asking(verb.run(context)),
        Verb::Source(verb) => asking(verb.run(context)),
        Verb::Store(verb) => asking(verb.run(context)),
        Verb::Audit(verb) => asking(verb.run(context)),
        Verb::Acs(verb) => asking(verb.run(context)),
        #[cfg(feature = "emulator")]
        Verb::Emulator(verb) => verb.run(context),
        #[cfg(not(feature = "emulator"))]
        Verb::Emulator(verb) => verb.run("emulator"),
        Verb::Config(verb) => verb.run(),
        Verb::Api(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(),
        Verb::Complete(verb) => asking(verb.run(context)),
        Verb::Man(verb) => verb.run(),
        Verb::ReadList => {
            crate::sources::serve().map_err(Failed::plain)?;
            Ok(exit::Exit::Done)
        }
    }
}

/// Runs a verb that asks somebody and prints the answer: one thread is enough.
fn asking(verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| Failed::plain(format!("cannot start: {error}")))?
        .block_on(verb)
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
