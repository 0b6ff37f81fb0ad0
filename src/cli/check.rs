//! `renewd check`: everything that is wrong with a configuration, before anything runs on it.

mod difference;
mod online;

use std::path::PathBuf;

use crate::{
    app,
    config::{self, Loaded, Places, Problem, Problems, Settings, Source},
};

use super::{
    Context,
    exit::{Exit, Failed, Outcome},
    output::{self, GOOD, paint},
};

/// Check the configuration: every mistake at once, with its line
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 2 on a mistake; what is only odd is shown and ends with 0.")]
pub(crate) struct Check {
    /// The configuration [default: /etc/renewd/renewd.toml; as a normal user
    /// ~/.config/renewd/renewd.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Also reach every resource and webhook; nothing is created or sent
    #[arg(long)]
    online: bool,
    /// Also show what a reload would do
    #[arg(long)]
    diff: bool,
}

impl Check {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let source = Source::of_process(self.config);
        let path = source.path.display().to_string();
        let settings = check(&source)?;
        output::print(&format!(
            "{path} {}: {}\n",
            paint(GOOD, "can work"),
            inventory(&settings)
        ))?;
        if self.diff {
            output::print(&difference::show(&settings, &context).await?)?;
        }
        if self.online {
            return Box::pin(online::show(&settings, &context)).await;
        }
        Ok(Exit::Done)
    }
}

/// Loads the configuration, asks every room what it finds, shows it all.
fn check(source: &Source) -> Result<Settings, Failed> {
    let loaded = config::load(source);
    let (settings, problems) = match loaded {
        Ok(Loaded {
            settings,
            places,
            warnings,
        }) => {
            let found = places.problems(app::check(&settings));
            let problems: Vec<Problem> = warnings.into_iter().chain(found).collect();
            (Some(settings), Problems(problems))
        }
        Err(problems) => (None, problems),
    };
    if !problems.is_empty() {
        output::aside(config::render(&problems, true).trim_end());
    }
    match settings {
        Some(settings) if !Places::any_error(&problems) => Ok(settings),
        _ => Err(Failed::usage(format!(
            "the configuration cannot be used: {}",
            problems.summary()
        ))),
    }
}

fn inventory(settings: &Settings) -> String {
    let parts = [
        (settings.resources.len(), "resource", "resources"),
        (settings.identities.len(), "identity", "identities"),
        (settings.sinks.len(), "sink", "sinks"),
    ];
    let parts =
        parts.map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }));
    parts.join(", ")
}
