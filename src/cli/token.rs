//! Tokens for people and programs: `renewd token` prints the current one, `renewd wait` ends once there is one (for
//! scripts that start an app), `renewd follow` keeps a consumer's own copy fresh, whatever happens to the daemon in
//! between, and runs a program after each change.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{
    Context,
    child::{Group, Program, Signals, asks_to_end},
    daemon::{daemon, no_token, say_age},
    duration,
    exit::{Exit, Failed, Outcome},
    output,
};
use crate::{
    api::client::{ClientError, DaemonClient, ProblemType, TokenForm},
    model::{Name, Secret, Version},
    sinks::file::{remove_private, write_private},
    systemd::Given,
};

/// Print the current token of an identity
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 5 when there is no live token: held, deleted, or not to be had. While the database of a \
cluster does not answer the daemon, the token that it knows is printed, and how old that is on standard error."
)]
pub(crate) struct Token {
    /// The identity
    name: Name,
    /// Print the whole token document
    #[arg(long)]
    json: bool,
}

impl Token {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let form = if self.json {
            TokenForm::Json
        } else {
            TokenForm::Bare
        };
        let client = daemon(context.socket);
        let answer = client.token(&self.name, form, None, None).await;
        let nothing = || {
            Failed::new(Exit::NoToken, format!("{} has no live token", self.name))
                .hint(format!("`renewd why {}` says why", self.name))
        };
        let token = answer.map_err(no_token)?.ok_or_else(nothing)?;
        say_age(&client);
        output::print_secret(&token)?;
        Ok(Exit::Done)
    }
}

/// The longest single question; the daemon answers earlier when there is a token.
const QUESTION: Duration = Duration::from_secs(55);
/// Between questions that were refused.
const AGAIN: Duration = Duration::from_millis(500);

/// Wait until an identity has a live token
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when there is one, 5 when there is none in time, 3 when no daemon answers."
)]
pub(crate) struct Wait {
    /// The identity
    name: Name,
    /// How long to wait at most
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
    /// Wait until its sinks have it as well, such as the file that an app reads
    #[arg(long)]
    delivered: bool,
}

impl Wait {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let ends = context.clock.steady() + self.timeout;
        loop {
            let left = ends.saturating_sub(context.clock.steady());
            let error = match self.ask(&client, left).await {
                Ok(true) => return Ok(Exit::Done),
                Ok(false) => None,
                Err(error) if passes(&error) => Some(error),
                Err(error) => return Err(no_token(error)),
            };
            if left.is_zero() {
                return Err(error.map_or_else(|| self.too_late(), no_token));
            }
            tokio::time::sleep(AGAIN.min(left)).await;
        }
    }

    async fn ask(&self, client: &DaemonClient, left: Duration) -> Result<bool, ClientError> {
        let wait = (left.as_secs() > 0).then(|| left.min(QUESTION));
        let answer = match self.delivered {
            true => client.delivered_token(&self.name, wait).await,
            false => client.token(&self.name, TokenForm::Json, wait, None).await,
        };
        Ok(answer?.is_some())
    }

    fn too_late(&self) -> Failed {
        Failed::new(
            Exit::NoToken,
            format!("{} has no live token yet", self.name),
        )
    }
}

/// Whether waiting may help.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::Silent { .. } => true,
        ClientError::Problem(problem) => matches!(
            problem.kind,
            ProblemType::Pending
                | ProblemType::Unreachable
                | ProblemType::Throttled
                | ProblemType::Stale
                | ProblemType::Busy
        ),
        ClientError::Unreadable { .. } => false,
    }
}

/// After a failure: the first wait, doubled up to the longest.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
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
                        sleep(
                            WRITE_AGAIN
                                .saturating_mul(1 << failures.min(8))
                                .min(AGAIN_MOST),
                        )
                        .await
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
        output::print_lines(&match news {
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

/// After an answer without news: a daemon that is about to end answers at once.
const BREATH: Duration = Duration::from_millis(200);
/// Between questions that were refused: the first wait, doubled up to the longest.
const ASK_AGAIN: Duration = Duration::from_millis(250);
const ASK_AGAIN_MOST: Duration = Duration::from_secs(5);

/// An acknowledgement may take so long.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// Something that a consumer should know.
#[derive(Debug)]
pub(crate) enum News {
    /// There is a newer token.
    Token(Holding),
    /// The token was taken back on purpose, and why.
    Withheld(String),
}

/// A token as it is handed over.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) version: Version,
    pub(crate) expires_at: String,
    token: Secret,
    document: Secret,
}

impl Holding {
    /// What a consumer gets: the bare token, or the whole document.
    pub(crate) fn content(&self, json: bool) -> &Secret {
        if json { &self.document } else { &self.token }
    }

    fn read(document: Secret) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Wire {
            version: u64,
            token: String,
            expires_at: String,
        }
        let wire: Wire = serde_json::from_str(document.expose())?;
        Ok(Self {
            version: Version(wire.version),
            expires_at: wire.expires_at,
            token: Secret::new(wire.token),
            document,
        })
    }
}

/// A long poll that never gives up.
#[derive(Debug)]
pub(crate) struct EventStream {
    client: DaemonClient,
    name: Name,
    /// What this consumer calls itself to the daemon.
    label: &'static str,
    /// The version that was handed over last.
    seen: Option<Version>,
    is_withheld: bool,
    failures: u32,
    /// What was said last about a failure, so that it is said once.
    said: Option<String>,
}

impl EventStream {
    pub(crate) fn new(client: DaemonClient, name: Name, label: &'static str) -> Self {
        Self {
            client,
            name,
            label,
            seen: None,
            is_withheld: false,
            failures: 0,
            said: None,
        }
    }

    /// The first token, however long it takes.
    ///
    /// # Errors
    /// When asking again cannot help: the identity is unknown, or not for this user.
    pub(crate) async fn first(&mut self) -> Result<Holding, Failed> {
        loop {
            match self.next().await? {
                News::Token(holding) => return Ok(holding),
                News::Withheld(why) => output::aside(&format!("waiting: {why}")),
            }
        }
    }

    /// Waits for the next news. Nothing is lost when this is dropped before it ends.
    ///
    /// # Errors
    /// Before the first token, when asking again cannot help.
    pub(crate) async fn next(&mut self) -> Result<News, Failed> {
        loop {
            let answer = self
                .client
                .token(&self.name, TokenForm::Json, Some(QUESTION), self.seen)
                .await;
            match answer {
                Ok(Some(document)) => {
                    let holding = Holding::read(document).map_err(|error| {
                        Failed::plain(format!("the daemon's document cannot be read: {error}"))
                    })?;
                    self.went_well();
                    self.is_withheld = false;
                    if self.seen.replace(holding.version) != Some(holding.version) {
                        return Ok(News::Token(holding));
                    }
                }
                Ok(None) => {
                    self.went_well();
                    tokio::time::sleep(BREATH).await;
                }
                Err(error) if is_withheld(&error) && !self.is_withheld => {
                    self.is_withheld = true;
                    return Ok(News::Withheld(error.to_string()));
                }
                Err(error) if is_final(&error) && self.seen.is_none() => {
                    return Err(no_token(error));
                }
                Err(error) => self.wait(&error).await,
            }
        }
    }

    /// Tells the daemon that this version is in use, so that `renewd status` shows who still holds an
    /// old one. Nothing depends on it: where it cannot be told now, the next version's is.
    pub(crate) async fn acknowledge(&self, version: Version) {
        let told = self.client.acknowledge(&self.name, version, self.label);
        timeout(ACKNOWLEDGED_WITHIN, told).await.ok();
    }

    /// What was handed over last could not be used: it comes again.
    pub(crate) fn again(&mut self) {
        self.seen = Some(Version(0));
    }

    fn went_well(&mut self) {
        self.failures = 0;
        if self.said.take().is_some() {
            output::aside("the daemon answers again");
        }
    }

    async fn wait(&mut self, error: &ClientError) {
        let text = error.to_string();
        if !self.is_withheld && self.said.as_ref() != Some(&text) {
            output::aside(&format!("waiting: {text}"));
            self.said = Some(text);
        }
        let wait = ASK_AGAIN.saturating_mul(1 << self.failures.min(8));
        self.failures += 1;
        tokio::time::sleep(wait.min(ASK_AGAIN_MOST)).await;
    }
}

fn problem(error: &ClientError) -> Option<ProblemType> {
    match error {
        ClientError::Problem(problem) => Some(problem.kind),
        _ => None,
    }
}

/// Held or deleted: whoever still has the token should put it away.
fn is_withheld(error: &ClientError) -> bool {
    matches!(
        problem(error),
        Some(ProblemType::Held | ProblemType::Deleted)
    )
}

/// Only a person can mend that.
fn is_final(error: &ClientError) -> bool {
    matches!(
        problem(error),
        Some(ProblemType::Unknown | ProblemType::Forbidden | ProblemType::Invalid)
    )
}
