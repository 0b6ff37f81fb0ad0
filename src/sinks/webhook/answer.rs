//! What a receiver's answer means. Only 2xx is success; bodies are never looked at, nor quoted: a receiver may
//! echo the token. Whether a receiver is there, and what time it is there, is asked without an event.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};

use super::WebhookSink;
use crate::{
    clock::Clock,
    sinks::SinkFailure,
    transport::{http_date, retry_after},
};

/// A receiver that asks for more is asked again all the same.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// An answer that is not a success.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For a person.
    pub(super) message: String,
    /// What the receiver asks us to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether it wants nothing any more.
    pub(super) disable: bool,
}

/// Whether the receiver took the event.
pub(super) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(), Refusal> {
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
