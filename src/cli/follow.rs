//! `renewd follow`: keeps a consumer's own copy of a token fresh, and runs a program after each change.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::{
    model::Name,
    sinks::file::{remove_private, write_private},
    systemd::Given,
};

use super::{
    Context,
    child::{Group, Program, Signals, asks_to_end},
    daemon::daemon,
    duration,
    event_stream::{EventStream, News},
    exit::{Exit, Failed, Outcome},
    output,
};

/// After a failure: the first wait, doubled up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_mins(1);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// Write each new token to a file and run a program after it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file is replaced in one step, mode 0600. The program is run after each change, also the first, until
it ends with 0; it finds RENEWD_NAME, RENEWD_STATE (active, withheld), RENEWD_VERSION and
RENEWD_TOKEN_FILE in its environment. When the token is taken back (held, deleted), the file is removed.
One line is printed for each change. Runs until SIGTERM.

  renewd follow support-bot --write ~/.cache/bot/token --run systemctl --user try-restart bot")]
pub(crate) struct Follow {
    /// The identity
    name: Name,
    /// Keep the token in this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write the whole token document instead of the bare token
    #[arg(long, requires = "write")]
    json: bool,
    /// How long one run of the program may take
    #[arg(long, default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
    /// The program and its arguments; everything after this belongs to it
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "CMD")]
    run: Vec<OsString>,
}

impl Follow {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let given = Given::put_aside().map_err(Failed::plain)?;
        let mut signals = Signals::listen(Group::Own)?;
        let mut event_stream =
            EventStream::new(daemon(context.socket), self.name.clone(), "renewd-follow");
        let file = self.write.as_deref().map(std::path::absolute).transpose()?;
        let mut open: Option<News> = None;
        let mut failures = 0;
        loop {
            let pause = async {
                match &open {
                    Some(_) => {
                        sleep(AGAIN.saturating_mul(1 << failures.min(8)).min(AGAIN_MOST)).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                signal = signals.next() => if asks_to_end(signal) { return Ok(Exit::Done) },
                news = event_stream.next() => {
                    open = Some(news?);
                    failures = 0;
                }
                () = pause => failures += 1,
            }
            let Some(news) = &open else { continue };
            let done = tokio::select! {
                biased;
                () = end_asked(&mut signals) => return Ok(Exit::Done),
                done = self.act(&given, news, file.as_deref()) => done,
            };
            match done {
                Ok(()) => {
                    if let News::Token(holding) = news {
                        event_stream.acknowledge(holding.version).await;
                    }
                    open = None;
                }
                Err(error) => output::error(&error.to_string(), Some("trying again")),
            }
        }
    }

    /// Writes or removes the file, then runs the program.
    async fn act(&self, given: &Given, news: &News, file: Option<&Path>) -> Result<(), Failed> {
        if let Some(file) = file {
            let written = match news {
                News::Token(holding) => {
                    let content = holding.content(self.json).expose();
                    write_private(file, content.as_bytes())
                }
                News::Withheld(_) => remove_private(file),
            };
            written.map_err(Failed::plain)?;
        }
        self.call(given, news, file).await?;
        output::print(&match news {
            News::Token(new) => format!(
                "{} version {} until {}\n",
                self.name, new.version, new.expires_at
            ),
            News::Withheld(why) => format!("{} withheld: {why}\n", self.name),
        })
    }

    async fn call(&self, given: &Given, news: &News, file: Option<&Path>) -> Result<(), Failed> {
        if self.run.is_empty() {
            return Ok(());
        }
        let mut environment: Vec<(&str, OsString)> =
            vec![("RENEWD_NAME", self.name.as_str().into())];
        match news {
            News::Token(holding) => {
                environment.push(("RENEWD_STATE", "active".into()));
                environment.push(("RENEWD_VERSION", holding.version.to_string().into()));
            }
            News::Withheld(_) => environment.push(("RENEWD_STATE", "withheld".into())),
        }
        environment.extend(file.map(|file| ("RENEWD_TOKEN_FILE", file.into())));
        let mut program = Program::start_with(given, &self.run, environment, Group::Own)?;
        let shown = self.run[0].to_string_lossy();
        let Ok(status) = timeout(self.timeout, program.wait()).await else {
            program.end(GRACE).await?;
            let late = format!("{shown} had not ended after {} s", self.timeout.as_secs());
            return Err(Failed::plain(late));
        };
        let status = status?;
        if status.success() {
            return Ok(());
        }
        Err(Failed::plain(format!("{shown} ended with {status}")))
    }
}

/// Waits for a signal that asks for the end.
async fn end_asked(signals: &mut Signals) {
    loop {
        let signal: Signal = signals.next().await;
        if asks_to_end(signal) {
            return;
        }
    }
}
