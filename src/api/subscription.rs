//! Follows identities over the socket: every new version as it is committed, over lost connections
//! and restarts of the daemon.

use std::time::Duration;

use http::{Method, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    connection::{ClientError, DaemonClient, encoded, unreadable},
    problem::Problem,
};
use crate::model::{IdentityId, Name, ResourceName, Scope, Secret, State, Version};

/// The daemon gives a sign of life every 15 s; three missed ones are a lost connection.
const SILENCE: Duration = Duration::from_secs(45);
/// The largest event: a token document.
const LARGEST_EVENT: usize = 1024 * 1024;
const LARGEST_REFUSAL: usize = 64 * 1024;
/// Between attempts to reach a daemon that is away: it doubles from the first to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

#[derive(Debug)]
pub struct Watch {
    client: DaemonClient,
    target: String,
    label: String,
    /// The place in the stream from which to go on.
    last: Option<String>,
    connected: Option<Connected>,
}

/// What a consumer should hold now.
#[derive(Debug, Clone)]
pub struct Update {
    /// Our name of the identity.
    pub name: Name,
    pub resource: ResourceName,
    /// What ACS calls it.
    pub id: Option<IdentityId>,
    pub state: State,
    /// The token; `None` where there is none that lives.
    pub token: Option<Secret>,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    pub expires_at: Option<Timestamp>,
    pub version: Version,
    /// The whole token document as JSON.
    pub document: Secret,
}

#[derive(Debug)]
struct Connected {
    answer: reqwest::Response,
    /// What has come of the next event.
    text: Zeroizing<Vec<u8>>,
}

impl DaemonClient {
    /// Watches these identities (admins: none means all). `label` is what the daemon shows as this
    /// consumer's name, such as `renewd-exec`.
    pub fn watch(&self, names: &[Name], label: &str) -> Watch {
        let query: Vec<String> = names
            .iter()
            .map(|name| format!("name={}", encoded(name.as_str())))
            .collect();
        let question = if query.is_empty() { "" } else { "?" };
        Watch {
            client: self.clone(),
            target: format!("/v1/watch{question}{}", query.join("&")),
            label: label.to_owned(),
            last: None,
            connected: None,
        }
    }
}

impl Watch {
    /// The next state of one of the identities: the current one at first, then each new version,
    /// where some came fast the newest alone. Called again after an error it connects again and
    /// goes on where it was, so nothing is lost.
    ///
    /// # Errors
    /// When the daemon cannot be reached or went away ([`Watch::is_passing`]), or refuses.
    pub async fn next(&mut self) -> Result<Update, ClientError> {
        loop {
            let mut connected = match self.connected.take() {
                Some(connected) => connected,
                None => self.connect().await?,
            };
            let event = self.event(&mut connected).await?;
            self.connected = Some(connected);
            if let Some(id) = event.id {
                self.last = Some(id);
            }
            match event.kind.as_str() {
                "token" => return self.update(&event.data),
                "forbidden" => {
                    self.connected = None;
                    return Err(match serde_json::from_slice::<Problem>(&event.data) {
                        Ok(problem) => ClientError::Problem(problem),
                        Err(error) => unreadable(&self.target, &error.to_string()),
                    });
                }
                // Signs of life, and events that a later daemon may have.
                _ => {}
            }
        }
    }

    /// As [`Watch::next`], but waits for as long as it takes while the daemon is away; `away` is
    /// told of each failed attempt.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn next_patiently(
        &mut self,
        mut away: impl FnMut(&ClientError),
    ) -> Result<Update, ClientError> {
        let mut wait = AGAIN.0;
        loop {
            match self.next().await {
                Err(error) if Self::is_passing(&error) => away(&error),
                other => return other,
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    /// Whether a failure is worth another attempt: the daemon is away, restarts, or has too much
    /// to do.
    pub fn is_passing(error: &ClientError) -> bool {
        match error {
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::Ended { .. }
            | ClientError::Silent { .. } => true,
            ClientError::Problem(problem) => problem.status >= 500,
            ClientError::Unreadable { .. } => false,
        }
    }

    async fn connect(&self) -> Result<Connected, ClientError> {
        let request = self
            .client
            .request(Method::GET, &self.target, &self.label)?;
        let mut request = request.header(header::ACCEPT, "text/event-stream");
        if let Some(last) = &self.last {
            request = request.header("last-event-id", last);
        }
        let answer = self.client.head(request, SILENCE).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(answer).await);
        }
        Ok(Connected {
            answer,
            text: Zeroizing::default(),
        })
    }

    async fn refusal(&self, mut answer: reqwest::Response) -> ClientError {
        let mut told = Vec::new();
        while let Ok(Some(piece)) = self.client.piece(&mut answer, SILENCE).await
            && told.len() < LARGEST_REFUSAL
        {
            told.extend_from_slice(&piece);
        }
        match serde_json::from_slice(&told) {
            Ok(problem) => ClientError::Problem(problem),
            Err(_) => unreadable(&self.target, answer.status().as_str()),
        }
    }

    /// Reads until an event is complete.
    async fn event(&self, connected: &mut Connected) -> Result<Event, ClientError> {
        loop {
            if let Some(end) = connected.text.windows(2).position(|two| two == b"\n\n") {
                let event = Event::parse(&connected.text[..end]);
                let rest = Zeroizing::new(connected.text[end + 2..].to_vec());
                connected.text = rest;
                return Ok(event);
            }
            let piece = self.client.piece(&mut connected.answer, SILENCE).await?;
            let Some(piece) = piece else {
                return Err(ClientError::Ended {
                    path: self.client.path.clone(),
                });
            };
            connected.text.extend_from_slice(&piece);
            if connected.text.len() > LARGEST_EVENT {
                return Err(unreadable(&self.target, "an event has no end"));
            }
        }
    }

    fn update(&self, data: &[u8]) -> Result<Update, ClientError> {
        // What serde says of a document may quote it.
        let unclear = |_| unreadable(&self.target, "an event holds no token document");
        let parsed: Document = serde_json::from_slice(data).map_err(unclear)?;
        let whole = String::from_utf8_lossy(data).into_owned();
        Ok(Update {
            name: parsed.name,
            resource: parsed.resource,
            id: parsed.id,
            state: parsed.state,
            token: parsed.token.map(Secret::new),
            scopes: parsed.scopes,
            expires_at: parsed.expires_at,
            version: parsed.version,
            document: Secret::new(whole),
        })
    }
}

#[derive(Deserialize)]
struct Document {
    name: Name,
    resource: ResourceName,
    id: Option<IdentityId>,
    state: State,
    token: Option<String>,
    scopes: Vec<Scope>,
    expires_at: Option<Timestamp>,
    version: Version,
}

#[derive(Default)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Zeroizing<Vec<u8>>,
}

impl Event {
    fn parse(text: &[u8]) -> Self {
        let mut event = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b':');
            let (field, value) = at.map_or((line, &[][..]), |at| (&line[..at], &line[at + 1..]));
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let text = || String::from_utf8_lossy(value).into_owned();
            match field {
                b"id" => event.id = Some(text()),
                b"event" => event.kind = text(),
                b"data" => event.data.extend_from_slice(value),
                _ => {}
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_standard_says() {
        let event = Event::parse(b": life\nid: 7\nevent: token\ndata:{\"a\":1}\nnew-field: x");
        assert_eq!(event.id.as_deref(), Some("7"));
        assert_eq!(event.kind, "token");
        assert_eq!(&*event.data, b"{\"a\":1}");
        assert_eq!(Event::parse(b":").id, None);
    }
}
