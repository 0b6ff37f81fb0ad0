//! Whether a receiver is there, and what time it is there, without an event.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use jiff::{SignedDuration, Timestamp};

use super::WebhookSink;
use crate::{clock::Clock, sinks::SinkFailure};

/// How a receiver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knock {
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
    pub async fn knock(&self, clock: &Clock, deadline: Duration) -> Result<Knock, SinkFailure> {
        let inner = &self.0;
        let request = Request::options(inner.endpoint.uri()).body(Bytes::new());
        let request =
            request.map_err(|e| inner.failure(&format!("the request cannot be made: {e}")))?;
        let began = clock.now();
        let head = inner
            .transport
            .send_for_head(request, deadline)
            .await
            .map_err(|error| inner.failure(&error.to_string()))?;
        let middle = began + clock.now().duration_since(began) / 2;
        let date = head.headers.get(header::DATE);
        let date = date.and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
        let date = date.and_then(|date| Timestamp::try_from(date).ok());
        Ok(Knock {
            status: head.status.as_u16(),
            ahead: date.map(|date| {
                let exact = date.duration_since(middle);
                SignedDuration::from_secs(exact.as_secs())
            }),
        })
    }
}
