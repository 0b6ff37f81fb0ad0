//! What other programs take from renewd's own definitions: manual pages (`renewd man`), completions for a shell
//! (`renewd completions`) and the configuration (`renewd config`): its schema, and what holds of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap_complete::Shell;

use crate::config::{self, Source};

use super::{
    daemon::loaded,
    definition,
    exit::{Exit, Failed, Outcome},
    output,
};

/// Print a manual page, or write them all
#[derive(Debug, clap::Args)]
#[command(
    after_help = "To read one: renewd man status | man -l -\nThat of the configuration: renewd man renewd.toml | man -l -\nTo install all: renewd man --dir /usr/local/share/man/man8"
)]
pub(crate) struct Man {
    /// Print the page of this verb instead of the program's; renewd.toml for that of the configuration
    #[arg(conflicts_with = "dir")]
    verb: Option<String>,
    /// Write the whole set into this folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Administration commands and daemons.
const SECTION: &str = "8";
/// File formats are in section 5.
const CONFIGURATION: &str = "renewd.toml";

impl Man {
    pub(crate) fn run(self) -> Outcome {
        let mut whole = definition();
        whole.build();
        if let Some(dir) = &self.dir {
            let written = std::fs::create_dir_all(dir)
                .and_then(|()| write_all(&whole, dir))
                .and_then(|()| write_configuration(dir));
            written.map_err(|error| {
                let dir = dir.display();
                Failed::plain(format!("cannot write manual pages to {dir}: {error}"))
            })?;
            return Ok(Exit::Done);
        }
        let command = match &self.verb {
            Some(page) if page == CONFIGURATION => {
                output::print_data(&config::manual_page())?;
                return Ok(Exit::Done);
            }
            None => whole,
            Some(verb) => whole.find_subcommand(verb).cloned().ok_or_else(|| {
                Failed::usage(format!("there is no verb {verb:?}")).hint("renewd --help lists them")
            })?,
        };
        output::print_data(&page(&command)?)?;
        Ok(Exit::Done)
    }
}

/// The page of the configuration, in `man5` beside the folder where that is `man8`.
fn write_configuration(dir: &Path) -> io::Result<()> {
    let files = match dir.file_name().is_some_and(|name| name == "man8") {
        true => dir.with_file_name("man5"),
        false => dir.to_owned(),
    };
    std::fs::create_dir_all(&files)?;
    std::fs::write(
        files.join(format!("{CONFIGURATION}.5")),
        config::manual_page(),
    )
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

/// Show what holds of the configuration and where that comes from, or its schema
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigVerb {
    /// Print the JSON Schema of the configuration
    #[command(
        after_help = "For editors with taplo: renewd config schema > renewd.schema.json, and as the first line of the\nconfiguration: #:schema ./renewd.schema.json"
    )]
    Schema,
    /// Show the configuration with its defaults, and where each value comes from
    #[command(
        after_help = "Values are shown as errors may quote them: *** stands for free text that could hold a secret, and of\na secret only the place is shown."
    )]
    Show(Show),
}

/// Show the configuration with its defaults, and where each value comes from
#[derive(Debug, clap::Args)]
struct Show {
    /// The configuration [default: /etc/renewd/renewd.toml; as a normal user
    /// ~/.config/renewd/renewd.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// With every default of the sections that there are
    #[arg(long, required = true)]
    effective: bool,
}

impl Show {
    fn run(self) -> Outcome {
        let loaded = loaded(&Source::of_process(self.config))?;
        output::print_data(&loaded.places.effective())?;
        Ok(Exit::Done)
    }
}

impl Config {
    /// Whether secrets are read on the way.
    pub(crate) fn holds_secrets(&self) -> bool {
        matches!(self.verb, ConfigVerb::Show(_))
    }

    pub(crate) fn run(self) -> Outcome {
        match self.verb {
            ConfigVerb::Schema => {
                output::print_data(&config::schema())?;
                Ok(Exit::Done)
            }
            ConfigVerb::Show(show) => show.run(),
        }
    }
}
