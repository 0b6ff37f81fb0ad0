//! Signed events to an HTTP receiver: CloudEvents 1.0 in structured mode, signed by Standard
//! Webhooks 1.0.0. Structured, because its signature covers the body alone, and headers could be
//! changed on the way.
//!
//! Only 2xx is success; bodies of answers are never looked at, nor quoted: a receiver may echo the token. Whether a
//! receiver is there, and what time it is there, is asked without an event.

pub(in crate::sinks) mod body;
mod endpoint;
mod event;
mod guard;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{self, InvalidHeaderValue},
};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use self::{
    body::{Form, Told},
    event::CloudEvent,
};
use super::{DeliveryOutcome, SinkDelivery, file::TemplateError};
use crate::{
    clock::Clock,
    config::{ContentType, EventBody, Include, WebhookSinkSettings},
    model::{Notice, NoticeKind, SinkName, TokenDocument},
    sinks::SinkFailure,
    transport::{
        NetworkOptions, Outgoing, Resolver, Transport, TransportSetupError, USER_AGENT, http_date,
        retry_after,
    },
};

pub use endpoint::{EndpointError, ReceiverUrl, Rules};
pub use event::{EventPattern, EventPatternError};
pub use event::{SigningSecret, SigningSecretError};

static WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Why a webhook sink cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// One of its secrets.
    #[error("secret number {} of {sink}: {source}", index + 1)]
    Secret {
        sink: SinkName,
        /// Which one, from zero.
        index: usize,
        source: SigningSecretError,
    },
    /// No secret at all.
    #[error("the webhook {0} has no secret, so its events could not be signed")]
    NoSecret(SinkName),
    /// One of its event patterns.
    #[error(transparent)]
    Pattern(#[from] EventPatternError),
    /// The template of its body.
    #[error(transparent)]
    Body(#[from] TemplateError),
    #[error(transparent)]
    Transport(#[from] TransportSetupError),
}

/// A sink that posts events to one receiver.
#[derive(Clone)]
pub struct WebhookSink(Arc<Inner>);

struct Inner {
    name: SinkName,
    instance: String,
    endpoint: ReceiverUrl,
    secrets: Vec<SigningSecret>,
    include: Include,
    content_type: ContentType,
    /// How notices are written, where not as events.
    form: Option<Form>,
    events: Vec<EventPattern>,
    timeout: Duration,
    transport: Transport,
}

impl fmt::Debug for WebhookSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSink({} to {})", self.0.name, self.0.endpoint)
    }
}

impl WebhookSink {
    /// Makes the sink. `receiver` stands in for the network.
    ///
    /// # Errors
    /// When its URL, secrets, patterns or CA file cannot be used.
    pub fn new(
        settings: &WebhookSinkSettings,
        instance: &str,
        receiver: Option<Transport>,
    ) -> Result<Self, WebhookError> {
        let transport = match receiver {
            Some(transport) => transport,
            None => network(settings, Resolver::system())?,
        };
        Self::over(settings, instance, transport)
    }

    /// Makes the sink over the network, with another way to look names up. What it finds is judged
    /// all the same.
    ///
    /// # Errors
    /// As for [`WebhookSink::new`].
    pub fn resolving(
        settings: &WebhookSinkSettings,
        instance: &str,
        lookup: Resolver,
    ) -> Result<Self, WebhookError> {
        Self::over(settings, instance, network(settings, lookup)?)
    }

    fn over(
        settings: &WebhookSinkSettings,
        instance: &str,
        transport: Transport,
    ) -> Result<Self, WebhookError> {
        let rules = Rules {
            http: settings.allow_http,
            private: settings.allow_private,
        };
        let patterns = settings.events.iter().map(|text| text.parse());
        Ok(Self(Arc::new(Inner {
            name: settings.name.clone(),
            instance: instance.to_owned(),
            endpoint: ReceiverUrl::new(&settings.url, rules)?,
            secrets: secrets(settings)?,
            include: settings.include,
            content_type: settings.content_type,
            form: Form::of(&settings.body)?,
            events: patterns.collect::<Result<_, _>>()?,
            timeout: settings.timeout,
            transport,
        })))
    }

    /// Whether the receiver wants events of this type, written without `renewd.`.
    pub fn wants(&self, event_type: &str) -> bool {
        self.0
            .events
            .iter()
            .any(|pattern| pattern.matches(event_type))
    }

    /// Posts what the consumers of an identity should hold now.
    ///
    /// # Errors
    /// When the receiver did not answer in time with a 2xx.
    pub async fn deliver(
        &self,
        delivery: &SinkDelivery,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        let inner = &self.0;
        // Whatever the patterns say: no token goes where notices are written in another form.
        if inner.form.is_some() || !self.wants(&event::token_type(&delivery.document)) {
            return Ok(DeliveryOutcome::LeftOut);
        }
        let event = CloudEvent::of_token(
            &inner.instance,
            &inner.name,
            &delivery.document,
            inner.include,
        );
        self.post(event, now).await
    }

    /// Posts a notice.
    ///
    /// # Errors
    /// When the receiver did not answer in time with a 2xx.
    pub async fn announce(
        &self,
        seq: u64,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        if !self.wants(notice.kind.as_str()) {
            return Ok(DeliveryOutcome::LeftOut);
        }
        let inner = &self.0;
        let event = CloudEvent::of_notice(&inner.instance, &inner.name, seq, notice);
        let event = match &inner.form {
            Some(form) => inner.told(form, (event.id, notice.kind.as_str()), notice, now)?,
            None => event,
        };
        self.post(event, now).await
    }

    /// Posts a document that is only a test, whatever events the receiver wants.
    ///
    /// # Errors
    /// When the receiver did not answer in time with a 2xx.
    pub async fn try_out(
        &self,
        document: &TokenDocument,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        let inner = &self.0;
        let event = match &inner.form {
            Some(form) => inner.test(form, document, now)?,
            None => CloudEvent::of_test(&inner.instance, &inner.name, document, inner.include),
        };
        self.post(event, now).await
    }

    /// When the certificate of the receiver ends, as it was shown last.
    pub fn peer_ends(&self) -> Option<Timestamp> {
        self.0.transport.peer_ends()
    }

    /// Scheme, host and port of the receiver.
    pub fn target(&self) -> String {
        self.0.endpoint.to_string()
    }

    async fn post(
        &self,
        event: CloudEvent,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, SinkFailure> {
        let inner = &self.0;
        let request = inner
            .request(event, now)
            .map_err(|error| inner.failure(&format!("the request cannot be made: {error}")))?;
        let head = inner
            .transport
            .send_for_head(request, inner.timeout)
            .await
            .map_err(|error| inner.failure(&error.to_string()))?;
        match judge(head.status, &head.headers, now) {
            Ok(()) => Ok(DeliveryOutcome::Accepted(head.status.as_u16())),
            Err(refusal) => Err(SinkFailure {
                retry_after: refusal.retry_after,
                disable: refusal.disable,
                ..inner.failure(&refusal.message)
            }),
        }
    }
}

impl Inner {
    /// A notice in this form, under its id and the word for its kind.
    fn told(
        &self,
        form: &Form,
        (id, word): (String, &str),
        notice: &Notice,
        now: Timestamp,
    ) -> Result<CloudEvent, SinkFailure> {
        let told = Told {
            word,
            notice,
            instance: &self.instance,
            id: &id,
        };
        let body = form.write(&told, now);
        let body = body.map_err(|error| SinkFailure::new(error.to_string()))?;
        Ok(CloudEvent {
            id,
            body: Zeroizing::new(body),
        })
    }

    /// A notice that says that nothing happened.
    fn test(
        &self,
        form: &Form,
        document: &TokenDocument,
        now: Timestamp,
    ) -> Result<CloudEvent, SinkFailure> {
        let notice = Notice {
            at: now,
            kind: NoticeKind::IdentityCreated,
            resource: Some(document.resource.clone()),
            name: Some(document.name.clone()),
            key: None,
            message: format!(
                "This is a test of the sink {}: nothing happened, and nothing is to be done.",
                self.name
            ),
        };
        let id = CloudEvent::test_id(&self.instance, &self.name, now);
        self.told(form, (id, "sink.test"), &notice, now)
    }

    /// Signed anew for every attempt, under the same id.
    fn request(&self, event: CloudEvent, now: Timestamp) -> Result<Outgoing, InvalidHeaderValue> {
        let mut headers = HeaderMap::with_capacity(8);
        let content_type = HeaderValue::from_static(self.content_type.header());
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::USER_AGENT, USER_AGENT.clone());
        headers.insert(&WEBHOOK_ID, HeaderValue::from_str(&event.id)?);
        headers.insert(&WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_second()));
        if !self.secrets.is_empty() {
            let signed = event::header(&self.secrets, &event.id, now.as_second(), &event.body);
            headers.insert(&WEBHOOK_SIGNATURE, HeaderValue::try_from(signed)?);
        }
        Ok(Outgoing {
            method: Method::POST,
            url: self.endpoint.url(),
            headers,
            body: Bytes::from_owner(event.body),
        })
    }

    fn failure(&self, why: &str) -> SinkFailure {
        SinkFailure::new(format!("cannot post to {}: {why}", self.endpoint))
    }
}

/// The way out. A proxy was named by the operator, and it alone is looked up here: the receiver's
/// name is resolved on the other side of it.
fn network(
    settings: &WebhookSinkSettings,
    lookup: Resolver,
) -> Result<Transport, TransportSetupError> {
    let allow_private = settings.allow_private || settings.proxy.is_some();
    Transport::network(&NetworkOptions {
        ca_file: settings.ca_file.clone(),
        connect_timeout: Some(settings.timeout),
        resolver: Some(guard::guarded(lookup, allow_private)),
        proxy: settings.proxy.clone(),
    })
}

fn secrets(settings: &WebhookSinkSettings) -> Result<Vec<SigningSecret>, WebhookError> {
    if settings.secrets.is_empty() && settings.body == EventBody::Event {
        return Err(WebhookError::NoSecret(settings.name.clone()));
    }
    let parse = |(index, loaded): (usize, &crate::config::LoadedSecret)| {
        SigningSecret::parse(&loaded.secret).map_err(|source| WebhookError::Secret {
            sink: settings.name.clone(),
            index,
            source,
        })
    };
    settings.secrets.iter().enumerate().map(parse).collect()
}

/// A receiver that asks for more is asked again all the same.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// An answer that is not a success.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    message: String,
    /// What the receiver asks us to wait.
    retry_after: Option<Duration>,
    /// Whether it wants nothing any more.
    disable: bool,
}

/// Whether the receiver took the event.
fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal> {
    if status.is_success() {
        return Ok(());
    }
    let meaning = match status.as_u16() {
        300..=399 => ", a redirect, which is never followed; configure the final URL",
        401 | 403 => "; compare the secret on both sides",
        410 => ": it wants no more events, so the sink is disabled",
        413 => "; it takes smaller bodies only, perhaps include = \"reference\" suits it",
        429 => ": too many events at once",
        _ => "",
    };
    Err(Refusal {
        message: format!("the receiver answered {}{meaning}", status.as_u16()),
        // No longer than a token can live.
        retry_after: retry_after(headers, now).map(|wait| wait.min(LONGEST_WAIT)),
        disable: status == StatusCode::GONE,
    })
}

/// How a receiver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The status; to a request that carries nothing, any will do.
    pub status: u16,
    /// How far the receiver's clock is ahead of ours, where it told the time. Whole seconds: `Date`
    /// has no finer ones.
    pub ahead: Option<SignedDuration>,
}

impl WebhookSink {
    /// Asks with `OPTIONS`, unsigned, by the way that events take.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn probe(
        &self,
        clock: &Clock,
        deadline: Duration,
    ) -> Result<ProbeAnswer, SinkFailure> {
        let inner = &self.0;
        let request = Outgoing {
            method: Method::OPTIONS,
            url: inner.endpoint.url(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let began = clock.now();
        let head = inner
            .transport
            .send_for_head(request, deadline)
            .await
            .map_err(|error| inner.failure(&error.to_string()))?;
        let middle = began + clock.now().duration_since(began) / 2;
        let date = head.headers.get(header::DATE);
        let date = date.and_then(|value| http_date(value.to_str().ok()?));
        Ok(ProbeAnswer {
            status: head.status.as_u16(),
            ahead: date.map(|date| {
                let exact = date.duration_since(middle);
                SignedDuration::from_secs(exact.as_secs())
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, retry_after: Option<&str>) -> Refusal {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        let now = "2026-11-22T17:00:00Z".parse().unwrap();
        judge(StatusCode::from_u16(status).unwrap(), &headers, now).unwrap_err()
    }

    #[test]
    fn only_2xx_is_success_and_only_410_ends_it() {
        let now = Timestamp::UNIX_EPOCH;
        for status in [200, 201, 202, 204] {
            assert!(
                judge(
                    StatusCode::from_u16(status).unwrap(),
                    &HeaderMap::new(),
                    now
                )
                .is_ok()
            );
        }
        for status in [301, 302, 307, 400, 401, 404, 408, 413, 429, 500, 502, 503] {
            assert!(!refusal(status, None).disable, "{status}");
        }
        assert!(refusal(410, None).disable);
        assert!(refusal(302, None).message.contains("redirect"));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        for (value, wait) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 22 Nov 2026 17:01:30 GMT", Some(90)),
            ("Sun, 22 Nov 2026 16:59:00 GMT", Some(0)),
            ("99999999", Some(86_400)),
            ("Thu, 31 Dec 2099 23:59:59 GMT", Some(86_400)),
            ("soon", None),
            ("-5", None),
        ] {
            assert_eq!(
                refusal(429, Some(value)).retry_after,
                wait.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
