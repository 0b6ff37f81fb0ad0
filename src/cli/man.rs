//! `renewd man`: manual pages, made from the same definition as `--help`.

use std::path::PathBuf;

use super::{
    definition,
    exit::{Exit, Failed, Outcome},
    output,
};

/// Print a manual page, or write them all
#[derive(Debug, clap::Args)]
#[command(
    after_help = "To read one: renewd man status | man -l -\nTo install all: renewd man --dir /usr/local/share/man/man1"
)]
pub(crate) struct Man {
    /// Print the page of this verb instead of the program's
    #[arg(conflicts_with = "dir")]
    verb: Option<String>,
    /// Write the whole set into this folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Outcome {
        if let Some(dir) = &self.dir {
            std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(definition(), dir))
                .map_err(|error| {
                    Failed::plain(format!(
                        "cannot write manual pages to {}: {error}",
                        dir.display()
                    ))
                })?;
            return Ok(Exit::Done);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(self.command()?).render(&mut page)?;
        output::print(&String::from_utf8_lossy(&page))?;
        Ok(Exit::Done)
    }

    fn command(&self) -> Result<clap::Command, Failed> {
        let mut whole = definition();
        whole.build();
        let Some(verb) = &self.verb else {
            return Ok(whole);
        };
        let found = whole.find_subcommand(verb).cloned();
        found.ok_or_else(|| {
            Failed::usage(format!("there is no verb {verb:?}")).hint("renewd --help lists them")
        })
    }
}
