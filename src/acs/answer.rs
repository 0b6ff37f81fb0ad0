//! What an answer means. Pure: a reply goes in, a value or a [`ErrorCause`] comes out.

use http::{
    HeaderMap, StatusCode,
    header::{DATE, WWW_AUTHENTICATE},
};
use jiff::{SignedDuration, Timestamp};

use super::{ErrorCause, Rejection, wire};
use crate::{
    entra::claims_challenge,
    model::{IdentityId, Operation, Secret},
    transport::{Reply, http_date, retry_after, tamed, wipe},
};

/// A token fresh from the service.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    /// The text that apps present.
    pub secret: Secret,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// What ACS calls it.
    pub id: IdentityId,
    /// Its first token, where one was asked for and could be read.
    pub token: Option<Issued>,
}

/// What one answer says.
#[derive(Debug)]
pub(super) struct Heard<T> {
    pub(super) result: Result<T, ErrorCause>,
    /// The answer's own `Date`.
    pub(super) date: Option<Timestamp>,
    /// What to quote to support.
    pub(super) request_id: Option<String>,
    /// That a bearer is asked for.
    pub(super) challenge: Option<Challenge>,
}

/// A resource asks for a bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// What it has to claim, as JSON, where it is to be another one than came.
    pub(super) claims: Option<String>,
}

impl Challenge {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let challenges = headers.get_all(WWW_AUTHENTICATE);
        let mut schemes = challenges
            .iter()
            .filter_map(|value| value.as_bytes().get(..6));
        let asks = schemes.any(|scheme| scheme.eq_ignore_ascii_case(b"bearer"));
        asks.then(|| Self {
            claims: claims_challenge(headers),
        })
    }
}

impl<T> Heard<T> {
    /// No answer came, for this reason.
    pub(super) fn nothing(cause: ErrorCause) -> Self {
        Self {
            result: Err(cause),
            date: None,
            request_id: None,
            challenge: None,
        }
    }

    /// Whether a request went out.
    pub(super) fn was_sent(&self) -> bool {
        let unsent = matches!(
            self.result,
            Err(ErrorCause::Unsent(_) | ErrorCause::NoBearer(_))
        );
        !unsent
    }

    /// `ok`, or the class of the failure.
    pub(super) fn outcome(&self) -> &'static str {
        match &self.result {
            Ok(_) => "ok",
            Err(cause) => cause.class().as_str(),
        }
    }

    /// Whether only the resource itself, having accepted our signature, can have answered so.
    pub(super) fn is_authenticated(&self) -> bool {
        match &self.result {
            Ok(_) => true,
            Err(ErrorCause::Rejected(rejection)) => rejection.proves_key(),
            Err(_) => false,
        }
    }
}

/// The status of success and how to read what comes with it.
pub(super) struct Expected<T> {
    pub(super) status: StatusCode,
    pub(super) read: fn(&[u8], Timestamp) -> Result<T, String>,
}

/// Reads an answer to `operation` that came at `now`, and wipes its body.
pub(super) fn read<T>(
    reply: Reply,
    operation: Operation,
    wanted: &Expected<T>,
    now: Timestamp,
) -> Heard<T> {
    let date = header(&reply.headers, DATE.as_str()).and_then(http_date);
    let request_id = ["MS-CV", "x-ms-client-request-id"]
        .into_iter()
        .find_map(|name| header(&reply.headers, name))
        .map(tamed);
    let result = if reply.status == wanted.status {
        (wanted.read)(&reply.body, now).map_err(|reason| ErrorCause::Unreadable {
            status: reply.status.as_u16(),
            reason,
            retry_after: None,
        })
    } else {
        Err(refusal(&reply, operation, date.unwrap_or(now)))
    };
    let challenge = Challenge::read(&reply.headers);
    wipe(reply);
    Heard {
        result,
        date,
        request_id,
        challenge,
    }
}

/// Success of creating an identity alone.
pub(super) fn created(body: &[u8], _: Timestamp) -> Result<Created, String> {
    let read: wire::CreateResponse = json(body)?;
    Ok(Created {
        id: identity_id(&read.identity)?,
        token: None,
    })
}

/// Success of creating an identity with a token.
pub(super) fn created_with_token(body: &[u8], now: Timestamp) -> Result<Created, String> {
    let read: wire::CreateResponse = json(body)?;
    let id = identity_id(&read.identity)?;
    // Whatever is wrong with the token, the identity is there: its id is not thrown away.
    let token = read
        .access_token
        .ok_or_else(|| "no token came with it".to_owned())
        .and_then(|token| issue(token, now));
    if let Err(reason) = &token {
        tracing::warn!(%id, "an identity was created, but {reason}");
    }
    Ok(Created {
        id,
        token: token.ok(),
    })
}

/// Success of issuing or exchanging.
pub(super) fn issued(body: &[u8], now: Timestamp) -> Result<Issued, String> {
    issue(json(body)?, now)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "one shape for the readers of all operations"
)]
pub(super) fn nothing(_: &[u8], _: Timestamp) -> Result<(), String> {
    Ok(())
}

/// No token lives longer than a day, and no clock is believed to be further off than a week.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(8 * 24);

/// A token that claims to live longer than any can is renewed as one that lives as long as it may.
fn issue(token: wire::AccessToken, now: Timestamp) -> Result<Issued, String> {
    let text = token.token.expose();
    if text.is_empty() {
        return Err("the token is empty".to_owned());
    }
    // Every format that a token is written in, every header and every shell takes these and no others.
    if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
        return Err(format!("byte {at} of the token is not visible ASCII"));
    }
    let said = token.expires_on.parse::<Timestamp>();
    let said = said.map_err(|_| "expiresOn is not a time".to_owned())?;
    Ok(Issued {
        expires_at: said.min(now.saturating_add(LONGEST_LIFE).unwrap_or(said)),
        secret: token.token,
    })
}

fn identity_id(identity: &wire::Identity) -> Result<IdentityId, String> {
    let valid = identity.id.parse();
    valid.map_err(|_| "identity.id is not an identity's id".to_owned())
}

/// The parser's own words may repeat what it read, so only the place is told.
fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "its JSON is cut short",
            serde_json::error::Category::Data => "its JSON has another shape",
            _ => "it is not JSON",
        };
        format!("{what}, at byte {} of {}", error.column(), body.len())
    })
}

fn refusal(reply: &Reply, operation: Operation, now: Timestamp) -> ErrorCause {
    let status = reply.status.as_u16();
    let retry_after = retry_after(&reply.headers, now);
    let unreadable = |reason| ErrorCause::Unreadable {
        status,
        reason,
        retry_after,
    };
    if reply.status.is_success() {
        return unreadable("another kind of success was expected".to_owned());
    }
    match json::<wire::ErrorResponse>(&reply.body) {
        Ok(wire::ErrorResponse { error }) => ErrorCause::Rejected(Box::new(Rejection {
            status,
            code: tamed(&error.code),
            message: tamed(&error.message),
            target: error.target.as_deref().map(tamed),
            retry_after,
            about_identity: matches!(
                operation,
                Operation::Issue | Operation::Revoke | Operation::Delete
            ),
        })),
        Err(reason) => unreadable(reason),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    //! Every row of the service's catalogue of errors, and every way to answer badly.

    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::model::FailureClass::{self, Credentials, Gone, Refuse, Retry, Wait};

    const NOW: &str = "2026-11-22T17:19:47Z";

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn hear(operation: Operation, reply: Reply) -> Heard<Issued> {
        let wanted = Expected {
            status: StatusCode::OK,
            read: issued,
        };
        read(reply, operation, &wanted, NOW.parse().unwrap())
    }

    fn cause(operation: Operation, reply: Reply) -> ErrorCause {
        hear(operation, reply).result.unwrap_err()
    }

    fn error(code: &str, message: &str, target: &str) -> String {
        let target = match target {
            "" => String::new(),
            target => format!(r#","target":"{target}""#),
        };
        format!(r#"{{"error":{{"code":"{code}","message":"{message}"{target}}}}}"#)
    }

    #[rustfmt::skip]
const CATALOGUE: [(Operation, u16, &str, &str, &str, FailureClass, bool); 19] = [
    (Operation::Issue, 400, "ValidationError", "Scopes: The Scopes field is required.", "Scopes", Refuse, true),
    (Operation::Issue, 400, "ValidationError", "ExpiresInMinutes value 59 is invalid. Value must be within the [60, 1440] interval.", "ExpiresInMinutes", Refuse, true),
    (Operation::CreateWithToken, 400, "ValidationError", "ExpiresInMinutes value 1441 is invalid. Value must be within the [60, 1440] interval.", "ExpiresInMinutes", Refuse, true),
    (Operation::Issue, 401, "IdentityNotOwned", "Provided identity doesn't belong to the resource.", "", Gone, true),
    (Operation::Delete, 401, "IdentityNotOwned", "Provided identity doesn't belong to the resource.", "", Gone, true),
    (Operation::Issue, 404, "IdentityNotFound", "Provided identity doesn't exist.", "", Gone, true),
    (Operation::Revoke, 400, "ValidationError", "Provided identity doesn't exist.", "", Gone, true),
    (Operation::Revoke, 404, "NotFound", "Not found.", "", Gone, true),
    (Operation::Create, 404, "NotFound", "Not found.", "", Refuse, false),
    (Operation::Exchange, 401, "InvalidAccessToken", "Provided access token is not valid.", "", Refuse, true),
    (Operation::Exchange, 400, "ValidationError", "Provided AppId has invalid format.", "appId", Refuse, true),
    (Operation::Issue, 401, "Denied", "Denied by the resource provider.", "", Credentials, false),
    (Operation::Issue, 401, "Denied", "The time difference between the originating client and the server is greater than the allowed margin of 5 minutes.", "", Credentials, false),
    (Operation::Issue, 403, "Forbidden", "No.", "", Credentials, false),
    (Operation::Issue, 400, "UnsupportedApiVersion", "The HTTP resource that matches the request URI 'https://10.0.0.1/identities' does not support the API version '1999-01-01'.", "", Refuse, false),
    (Operation::Issue, 422, "Unprocessable", "No.", "", Refuse, false),
    (Operation::Issue, 408, "RequestTimeout", "Too slow.", "", Retry, false),
    (Operation::Issue, 429, "TooManyRequests", "Slow down.", "", Wait, false),
    (Operation::Issue, 500, "InternalServerError", "Internal server error.", "", Retry, false),
];

    #[test]
    fn every_row_of_the_catalogue_has_its_class() {
        for (operation, status, code, message, target, class, proves_key) in CATALOGUE {
            let heard = hear(operation, reply(status, &[], &error(code, message, target)));
            assert_eq!(heard.is_authenticated(), proves_key, "{code}: {message}");
            let cause = heard.result.unwrap_err();
            assert_eq!(cause.class(), class, "{code}: {message}");
            assert_eq!(cause.maybe_done(), status >= 500, "{code}: {message}");
            let ErrorCause::Rejected(rejection) = cause else {
                panic!("{code} was not understood")
            };
            assert_eq!(
                (rejection.status, &*rejection.code, &*rejection.message),
                (status, code, message)
            );
            assert_eq!(rejection.target.unwrap_or_default(), target);
        }
    }

    #[test]
    fn somebody_elses_answers_are_classed_by_status_and_never_mean_gone() {
        for (status, class, maybe_done) in [
            (503, Retry, true),
            (502, Retry, true),
            (404, Retry, false),
            (302, Retry, false),
            (408, Retry, false),
            (429, Wait, false),
            (401, Credentials, false),
            (403, Credentials, false),
            (413, Refuse, false),
            (202, Retry, true),
            (201, Retry, true),
        ] {
            let page = "<html>Our services aren't available right now</html>";
            let cause = cause(Operation::Issue, reply(status, &[], page));
            assert!(matches!(cause, ErrorCause::Unreadable { .. }), "{status}");
            assert_eq!(
                (cause.class(), cause.maybe_done()),
                (class, maybe_done),
                "{status}"
            );
        }
    }

    #[test]
    fn a_bad_success_is_tried_again_and_its_content_stays_unseen() {
        for body in [
            "",
            "canary",
            r#"{"token":"canary","expiresOn":"2026-11-23T17:1"#,
            r#"{"token":"canary"}"#,
            r#"{"token":12,"expiresOn":"canary"}"#,
            r#"{"token":"","expiresOn":"2026-11-23T17:19:47+00:00"}"#,
            r#"{"token":"canary","expiresOn":"tomorrow canary"}"#,
            r#"{"token":"canary","expiresOn":{"canary":1}}"#,
            r#"{"token":null,"expiresOn":"2026-11-23T17:19:47+00:00"}"#,
            r#"["canary"]"#,
        ] {
            let cause = cause(Operation::Issue, reply(200, &[], body));
            assert_eq!((cause.class(), cause.maybe_done()), (Retry, true), "{body}");
            assert!(!format!("{cause:?}").contains("canary"), "{cause:?}");
        }
    }

    #[test]
    fn expiry_is_read_as_the_service_writes_it() {
        for (text, want) in [
            (
                "2023-10-19T15:35:25.2460687+00:00",
                "2023-10-19T15:35:25.2460687Z",
            ),
            (
                "2023-10-19T15:35:25.68764+00:00",
                "2023-10-19T15:35:25.68764Z",
            ),
            ("2023-10-19T15:35:25+00:00", "2023-10-19T15:35:25Z"),
        ] {
            let body = format!(r#"{{"token":"a.b.c","expiresOn":"{text}"}}"#);
            let issued = hear(Operation::Issue, reply(200, &[], &body))
                .result
                .unwrap();
            assert_eq!(issued.expires_at, want.parse().unwrap());
            assert_eq!(issued.secret.expose(), "a.b.c");
        }
    }

    #[test]
    fn a_token_that_claims_to_live_for_centuries_is_renewed_as_one_that_lives_as_long_as_it_may() {
        let body = r#"{"token":"a","expiresOn":"9000-12-31T23:59:59Z"}"#;
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let token = issued(body.as_bytes(), now).unwrap();
        assert_eq!(token.expires_at, now + LONGEST_LIFE);
    }

    #[test]
    fn a_creation_needs_an_id_and_keeps_it_whatever_came_as_its_token() {
        let token = r#""accessToken":{"token":"a","expiresOn":"2026-11-23T17:19:47+00:00"}"#;
        let alone = br#"{"identity":{"id":"8:acs:a_b"}}"#;
        let whole = format!(r#"{{"identity":{{"id":"8:acs:a_b"}},{token}}}"#);
        let nobody = format!(r#"{{"identity":{{"id":""}},{token}}}"#);
        assert_eq!(
            created(alone, Timestamp::UNIX_EPOCH).unwrap().id.as_str(),
            "8:acs:a_b"
        );
        assert!(
            created_with_token(whole.as_bytes(), Timestamp::UNIX_EPOCH)
                .unwrap()
                .token
                .is_some()
        );
        let unreadable = whole.replace("2026-11-23", "soon");
        for body in [alone.as_slice(), unreadable.as_bytes()] {
            let named = created_with_token(body, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(named.id.as_str(), "8:acs:a_b", "the id is not thrown away");
            assert!(named.token.is_none());
        }
        assert!(created_with_token(nobody.as_bytes(), Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        for (text, want) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Sun, 22 Nov 2026 17:20:17 GMT", Some(30)),
            ("Sun, 22 Nov 2026 17:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let throttled = |headers: &[(&'static str, &str)]| {
                cause(Operation::Issue, reply(429, headers, "")).retry_after()
            };
            let want = want.map(Duration::from_secs);
            assert_eq!(throttled(&[("retry-after", text)]), want, "{text}");
        }
        let by_its_own_clock = reply(
            503,
            &[
                ("date", "Sun, 22 Nov 2026 18:00:00 GMT"),
                ("retry-after", "Sun, 22 Nov 2026 18:00:05 GMT"),
            ],
            &error("Busy", "Busy.", ""),
        );
        let wait = cause(Operation::Issue, by_its_own_clock).retry_after();
        assert_eq!(wait, Some(Duration::from_secs(5)));
    }

    #[test]
    fn the_request_id_is_the_services_own_or_its_echo() {
        let id = |headers: &[(&'static str, &str)]| {
            hear(Operation::Issue, reply(500, headers, "")).request_id
        };
        let (own, echo) = (("ms-cv", "abc.0"), ("x-ms-client-request-id", "ours"));
        assert_eq!(id(&[own, echo]).as_deref(), Some("abc.0"));
        assert_eq!(id(&[echo]).as_deref(), Some("ours"));
        assert_eq!(id(&[]), None);
    }

    #[test]
    fn texts_of_the_service_are_tamed() {
        assert_eq!(tamed("two\nlines"), "two lines");
        assert_eq!(tamed(&"x".repeat(1000)).len(), 300);
        assert_eq!(
            tamed("bad token 'eyJhbGciOi.J9.x' given"),
            "bad token *** given"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(status in 100u16..1000, body in ".{0,100}", wait in "[ -~]{0,30}") {
            let heard = hear(Operation::Issue, reply(status, &[("retry-after", &wait)], &body));
            if status != 200 {
                proptest::prop_assert!(heard.result.is_err());
            }
        }
    }

    #[test]
    fn a_token_is_visible_ascii_or_none() {
        let body = |token: &str| {
            let token = serde_json::to_string(token).unwrap();
            format!(r#"{{"token":{token},"expiresOn":"2026-11-23T17:19:47+00:00"}}"#)
        };
        for bad in [
            "",
            " ",
            "a b",
            "a\nb",
            "tok\n",
            "\u{0}",
            "é",
            "a\u{7f}",
            "\u{feff}eyJ",
            "eyJ\u{200b}",
            "\u{1b}[2J",
        ] {
            let cause = cause(Operation::Issue, reply(200, &[], &body(bad)));
            let ErrorCause::Unreadable { reason, .. } = &cause else {
                panic!("{bad:?}: {cause:?}")
            };
            assert!(reason.contains("token"), "{bad:?}: {reason}");
            assert!(
                bad.is_empty() || !reason.contains(bad) || bad == " ",
                "{reason}"
            );
            let created = format!(
                r#"{{"identity":{{"id":"8:acs:a_b"}},"accessToken":{}}}"#,
                body(bad)
            );
            let created = created_with_token(created.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(
                created.token, None,
                "{bad:?}: the id is kept, the token is not"
            );
        }
        let all: String = ('!'..='~').collect();
        let good = hear(Operation::Exchange, reply(200, &[], &body(&all)));
        assert_eq!(good.result.unwrap().secret.expose(), all);
    }
}
