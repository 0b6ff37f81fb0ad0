//! The only room that touches the consumers: it puts what the store says into files, sends it
//! to webhooks, runs programs with it.
//!
//! A sink carries out one delivery and says how it ended. It decides nothing about when: retries,
//! order and breakers belong to the dispatcher in the engine. The same delivery may come any number of
//! times, and a sink makes it look as if it had come once.
//!
//! `renewd sink test` hands over a document that looks like any other and is marked as a test in every field that a
//! person or a program would look at. It never holds a real token.

mod check;
mod examine;
pub mod exec;
pub mod file;
pub mod webhook;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    clock::Clock,
    config::SinkSettings,
    model::{
        Kind, Name, Notice, NoticeKind, Placed, Reader, ResourceName, Secret, SinkName, State,
        TokenDocument, Version,
    },
    transport::Transport,
};

pub use check::{Trusted, check};
pub use examine::examine;
pub use exec::{ExecSink, PROGRAMS};
pub use file::FileSink;
pub use webhook::WebhookSink;

/// Deliveries of a webhook that may be under way at once.
const IN_FLIGHT: usize = 16;
/// The same of a file sink, many of which are written together.
const FILES_IN_FLIGHT: usize = 64;

/// One thing to hand over: what the consumers of an identity should hold, at one version.
#[derive(Debug, Clone)]
pub struct SinkDelivery {
    /// What they should hold.
    pub document: Arc<TokenDocument>,
    /// Who may read it, where the sink grants access.
    pub readers: Vec<Reader>,
}

/// How a delivery succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// A file was written.
    Written,
    /// Everything was as it should be already.
    Unchanged,
    /// A file was removed.
    Removed,
    /// A receiver took it with this status.
    Accepted(u16),
    /// A program took it and ended well.
    Ran,
    /// The sink's settings leave this kind of event out.
    LeftOut,
}

/// How a delivery succeeded, and where the file lies that it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub outcome: DeliveryOutcome,
    /// The file, where there is one.
    pub placed: Option<Placed>,
}

impl From<DeliveryOutcome> for Receipt {
    fn from(outcome: DeliveryOutcome) -> Self {
        Self {
            outcome,
            placed: None,
        }
    }
}

/// How a delivery failed. It never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SinkFailure {
    /// One sentence for a person: what was being done, to what, how it failed, what can be done.
    pub message: String,
    /// What the receiver asked us to wait.
    pub retry_after: Option<Duration>,
    /// Whether the receiver wants nothing any more (410): the sink is to be disabled.
    pub disable: bool,
}

impl SinkFailure {
    /// A failure that is worth another try at the usual time.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retry_after: None,
            disable: false,
        }
    }
}

/// Why a sink cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The path of a file sink.
    #[error(transparent)]
    Path(#[from] file::PathError),
    /// The template of a file sink.
    #[error(transparent)]
    Template(#[from] file::TemplateError),
    /// The URL, a secret or a pattern of a webhook sink.
    #[error(transparent)]
    Webhook(#[from] webhook::WebhookError),
    /// The program of an exec sink.
    #[error(transparent)]
    Exec(#[from] exec::ExecError),
}

/// A place where results go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// Files, one per identity or one for all.
    File(FileSink),
    Webhook(WebhookSink),
    Exec(ExecSink),
}

impl Sink {
    /// Makes a sink from its settings. `instance` is this daemon's name in events; `receiver` stands
    /// in for the network, where there is none.
    ///
    /// # Errors
    /// When the settings cannot work; [`check`] explains the same in terms of the configuration.
    pub fn build(
        settings: &SinkSettings,
        clock: &Clock,
        instance: &str,
        receiver: Option<Transport>,
    ) -> Result<Self, SinkError> {
        Ok(match settings {
            SinkSettings::File(settings) => {
                Self::File(FileSink::new(settings, clock.is_simulated())?)
            }
            SinkSettings::Webhook(settings) => {
                Self::Webhook(WebhookSink::new(settings, instance, receiver)?)
            }
            SinkSettings::Exec(settings) => {
                Self::Exec(ExecSink::new(settings, clock.is_simulated())?)
            }
        })
    }

    /// Hands one delivery over, once.
    ///
    /// # Errors
    /// When the consumer does not hold it now, or may not.
    pub async fn deliver(
        &self,
        delivery: SinkDelivery,
        now: Timestamp,
    ) -> Result<Receipt, SinkFailure> {
        match self {
            Self::File(sink) => sink
                .deliver(delivery, now)
                .await
                .map_err(|error| SinkFailure::new(error.to_string())),
            Self::Webhook(sink) => sink.deliver(&delivery, now).await.map(Receipt::from),
            Self::Exec(sink) => sink.deliver(&delivery).await.map(Receipt::from),
        }
    }

    /// Deliveries that may be under way at once.
    pub fn max_in_flight(&self) -> usize {
        match self {
            Self::File(_) => FILES_IN_FLIGHT,
            Self::Webhook(_) => IN_FLIGHT,
            Self::Exec(sink) => sink.settings().max_in_flight,
        }
    }

    /// The sinks that have to deliver a version before this one may.
    pub fn after(&self) -> &[SinkName] {
        match self {
            Self::File(_) | Self::Webhook(_) => &[],
            Self::Exec(sink) => &sink.settings().after,
        }
    }

    /// Hands a synthetic document over, down the path that real ones take; what it leaves behind is
    /// removed again. The document is marked as a test and holds no real token.
    ///
    /// # Errors
    /// When a real one would not have arrived either.
    pub async fn try_out(
        &self,
        resource: &ResourceName,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        let document = Arc::new(document(resource, now));
        match self {
            Self::File(sink) => sink
                .try_out(document)
                .await
                .map_err(|error| SinkFailure::new(error.to_string())),
            Self::Webhook(sink) => sink.try_out(&document, now).await,
            Self::Exec(sink) => {
                let readers = Vec::new();
                sink.deliver(&SinkDelivery { document, readers }).await
            }
        }
    }

    /// What kind of sink this is, as in `[[sink.KIND]]`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Webhook(_) => "webhook",
            Self::Exec(_) => "exec",
        }
    }

    /// Where it leads, without what could be secret.
    pub fn target(&self) -> String {
        match self {
            Self::File(sink) => sink.target(),
            Self::Webhook(sink) => sink.target(),
            Self::Exec(sink) => sink.settings().command.first().cloned().unwrap_or_default(),
        }
    }

    /// When the certificate of its receiver ends, as it was shown last.
    pub fn peer_ends(&self) -> Option<Timestamp> {
        match self {
            Self::Webhook(sink) => sink.peer_ends(),
            Self::File(_) | Self::Exec(_) => None,
        }
    }

    /// Whether this sink is told of any notices.
    pub fn hears_notices(&self) -> bool {
        NoticeKind::ALL.iter().any(|kind| self.wants_notice(*kind))
    }

    /// Whether this sink is told of such notices.
    pub fn wants_notice(&self, kind: NoticeKind) -> bool {
        match self {
            Self::File(_) | Self::Exec(_) => false,
            Self::Webhook(sink) => sink.wants(kind.as_str()),
        }
    }

    /// Tells of the notice with this sequence number, if [`Sink::wants_notice`].
    ///
    /// # Errors
    /// When the receiver did not take it.
    pub async fn announce(
        &self,
        seq: u64,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        match self {
            Self::File(_) | Self::Exec(_) => Ok(DeliveryOutcome::LeftOut),
            Self::Webhook(sink) => sink.announce(seq, notice, now).await,
        }
    }

    /// Takes back what lies at rest for an identity that is no longer ours to serve.
    ///
    /// # Errors
    /// When a file could not be removed.
    pub async fn withdraw(
        &self,
        name: &Name,
        resource: &ResourceName,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        match self {
            Self::File(sink) => sink
                .withdraw(name, resource)
                .await
                .map_err(|error| SinkFailure::new(error.to_string())),
            Self::Webhook(_) | Self::Exec(_) => Ok(DeliveryOutcome::LeftOut),
        }
    }
}

/// What stands in place of the token.
const NO_TOKEN: &str = "renewd-test-this-is-not-a-token";
/// How long it claims to live.
const LIFE: Duration = Duration::from_hours(1);

/// A document of an identity that does not exist; its name is another one each microsecond, so that no
/// receiver holds it against an earlier test, and no identity is meant by accident.
fn document(resource: &ResourceName, now: Timestamp) -> TokenDocument {
    TokenDocument {
        name: name(now),
        resource: resource.clone(),
        id: None,
        state: State::Active,
        token: Some(Secret::new(NO_TOKEN.to_owned())),
        scopes: Vec::new(),
        issued_at: Some(now),
        expires_at: Some(now + LIFE),
        renews_at: Some(now + LIFE / 2),
        version: Version(0).next(now),
        kind: Kind::Issued,
    }
}

fn name(now: Timestamp) -> Name {
    let name = format!("renewd-test-{:x}", now.as_microsecond().unsigned_abs());
    #[expect(
        clippy::expect_used,
        reason = "letters, digits and hyphens make a name"
    )]
    name.parse().expect("the name of a test is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_so_wherever_one_looks() {
        let now: Timestamp = "2026-11-22T12:00:00.5Z".parse().unwrap();
        let document = document(&"contoso".parse().unwrap(), now);
        assert!(document.name.as_str().starts_with("renewd-test-"));
        assert_eq!(document.token.unwrap().expose(), NO_TOKEN);
        assert_eq!(document.version, Version(1_795_348_800));
        let later = now + Duration::from_micros(1);
        assert_ne!(name(now), name(later));
    }
}
