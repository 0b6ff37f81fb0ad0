//! The versions of one identity as they come, whatever happens to the daemon in between.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    api::client::{Client, ClientError, ProblemType, TokenForm},
    model::{Name, Secret, Version},
};

use super::{daemon::no_token, exit::Failed, output};

/// The longest single question; the daemon answers as soon as there is something newer.
const QUESTION: Duration = Duration::from_secs(55);
/// After an answer without news: a daemon that is about to end answers at once.
const BREATH: Duration = Duration::from_millis(200);
/// Between questions that were refused: the first wait, doubled up to the longest.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MOST: Duration = Duration::from_secs(5);

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
    client: Client,
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
    pub(crate) fn new(client: Client, name: Name, label: &'static str) -> Self {
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
        let wait = AGAIN.saturating_mul(1 << self.failures.min(8));
        self.failures += 1;
        tokio::time::sleep(wait.min(AGAIN_MOST)).await;
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
