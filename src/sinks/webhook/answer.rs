//! What a receiver's answer means.
//!
//! What a receiver's answer means. Only 2xx is success; bodies are never looked at, nor quoted: a
//! receiver may echo the token.
//!
//! The IPv4 addresses that stand inside IPv6 ones.
//!
//! Whether a receiver is there, and what time it is there, without an event.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};

use super::WebhookSink;
use crate::{clock::Clock, sinks::SinkFailure};

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
        retry_after: retry_after(headers, now),
        disable: status == StatusCode::GONE,
    })
}

/// `Retry-After` in both forms, seconds or a date (RFC 9110, 10.2.3), and no longer than a token can
/// live. A date in the past is no wait.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let at = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
        Duration::try_from(at.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

/// How an IPv4 address stands inside an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `::ffff:a.b.c.d`: the system connects to the IPv4 address itself.
    Mapped,
    /// `64:ff9b::a.b.c.d`, the prefix of NAT64 and DNS64 (RFC 6052).
    Translated,
    /// Deprecated, tunnelled or private forms.
    Odd,
}

/// What an IPv4 address would be in every place where one may stand in an IPv6 address: whatever its
/// prefix, it may be that of a translator whose own prefix ends at bit 32, 40, 48, 56, 64 or 96 (RFC 6052;
/// bits 64 to 71 are skipped), of a 6to4 router, or of Teredo.
pub(super) fn possible(address: Ipv6Addr) -> [Ipv4Addr; 8] {
    let b = address.octets();
    let join = |at: [usize; 4]| Ipv4Addr::from(at.map(|at| b[at]));
    [
        join([4, 5, 6, 7]),
        join([5, 6, 7, 9]),
        join([6, 7, 9, 10]),
        join([7, 9, 10, 11]),
        join([9, 10, 11, 12]),
        join([12, 13, 14, 15]),
        join([2, 3, 4, 5]),
        Ipv4Addr::from(!u32::from(join([12, 13, 14, 15]))),
    ]
}

/// Every IPv4 address that may be meant by an IPv6 address.
pub(super) fn embedded(address: Ipv6Addr) -> Vec<(Form, Ipv4Addr)> {
    let s = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let last = join(s[6], s[7]);
    let mut found = Vec::new();
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] => found.push((Form::Mapped, last)),
        // "Compatible" (deprecated), and translated by SIIT (RFC 2765).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => found.push((Form::Odd, last)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push((Form::Translated, last)),
        // A network's own NAT64 (RFC 8215): its prefix may have any length from 48 to 96 bits, so
        // every place where the address may stand counts; bits 64 to 71 are skipped.
        [0x64, 0xff9b, 1, ..] => {
            found.extend([
                (Form::Odd, join(s[3], s[4] << 8 | s[5] >> 8)),
                (
                    Form::Odd,
                    join(s[4] << 8 | s[5] >> 8, s[5] << 8 | s[6] >> 8),
                ),
                (Form::Odd, last),
            ]);
        }
        [0x2002, high, low, ..] => found.push((Form::Odd, join(high, low))),
        // Teredo (RFC 4380): the server, and the client turned over.
        [0x2001, 0, high, low, ..] => found.extend([
            (Form::Odd, join(high, low)),
            (Form::Odd, join(!s[6], !s[7])),
        ]),
        _ => {}
    }
    // ISATAP (RFC 5214): in the interface identifier, whatever the prefix.
    if matches!(s[4], 0 | 0x200) && s[5] == 0x5efe {
        found.push((Form::Odd, last));
    }
    found
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
        let date = date.and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
        let date = date.and_then(|date| Timestamp::try_from(date).ok());
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
