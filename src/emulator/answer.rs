//! What the emulator answers with, and the headers that the service puts on everything.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY},
};
use jiff::Timestamp;
use serde::Serialize;

use super::{problem::Problem, times};

/// The header in which the emulator says why it answered as it did; the service has no such thing.
pub const REASON_HEADER: &str = "x-renewd-emulator-reason";

/// What becomes of a request: an answer, or one of the ways in which none arrives.
#[derive(Debug)]
pub enum Reply {
    /// A whole answer.
    Answer(Response<Bytes>),
    /// An answer that announces its whole length and breaks off after `sent` bytes of body.
    Truncated {
        /// The whole of it.
        answer: Response<Bytes>,
        /// How many bytes of its body arrive.
        sent: usize,
    },
    /// The connection is reset without an answer.
    Reset,
    /// No answer ever comes, and the connection stays open.
    Hang,
}

/// A function from request to answer, as an in-process transport takes it; `E` is its error.
pub type Answering<E> = Arc<
    dyn Fn(http::Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, E>> + Send + Sync,
>;

impl Reply {
    /// The answer as a caller in this process sees it: a broken connection becomes the caller's own
    /// error, made by `broken`; a hang never ends, so the caller needs a deadline.
    ///
    /// # Errors
    /// When the reply is a reset or a truncated answer.
    pub async fn settle<E>(self, broken: impl Fn(&'static str) -> E) -> Result<Response<Bytes>, E> {
        match self {
            Self::Answer(answer) => Ok(answer),
            Self::Truncated { .. } => Err(broken("the answer broke off in its body")),
            Self::Reset => Err(broken("connection reset")),
            Self::Hang => std::future::pending().await,
        }
    }

    /// The status, where one arrives.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answer(answer) | Self::Truncated { answer, .. } => Some(answer.status()),
            Self::Reset | Self::Hang => None,
        }
    }
}

/// A success with a body: `application/json` with charset.
pub(super) fn success(
    status: StatusCode,
    body: &impl Serialize,
    versions: &'static str,
) -> Response<Bytes> {
    let mut answer = json(status, body);
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    put(answer.headers_mut(), "api-supported-versions", versions);
    answer
}

/// 204: no body, no content type.
pub(super) fn no_content(versions: &'static str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    put(answer.headers_mut(), "api-supported-versions", versions);
    answer
}

/// An error of the service: `application/json` without charset.
pub(super) fn error(problem: &Problem) -> Response<Bytes> {
    let mut answer = json(problem.status, &problem.body());
    let headers = answer.headers_mut();
    if let Some(versions) = problem.versions {
        put(headers, "api-supported-versions", versions);
    }
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    explain(headers, &problem.reason);
    answer
}

/// Any JSON answer.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    #[expect(
        clippy::expect_used,
        reason = "plain strings, numbers and maps with string keys always serialise into memory"
    )]
    let bytes = serde_json::to_vec(body).expect("an answer serialises");
    let mut answer = Response::new(Bytes::from(bytes));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Says why, in the emulator's own header.
pub(super) fn explain(headers: &mut HeaderMap, reason: &str) {
    const LONGEST: usize = 1000;
    let text: String = reason
        .chars()
        .flat_map(|c| match c {
            '\n' => vec!['\\', 'n'],
            ' '..='~' => vec![c],
            _ => vec!['?'],
        })
        .take(LONGEST)
        .collect();
    put(headers, REASON_HEADER, &text);
}

/// What differs from answer to answer in the headers that are on all of them.
pub(super) struct Envelope<'a> {
    pub(super) now: Timestamp,
    pub(super) took: Duration,
    /// Random bytes for the correlation vector and the front door's reference.
    pub(super) nonce: [u8; 32],
    /// The request's `x-ms-client-request-id`, which the service echoes.
    pub(super) client_request_id: Option<&'a HeaderValue>,
}

impl Envelope<'_> {
    /// Puts the headers on that the service and its front door put on everything.
    pub(super) fn wrap(&self, answer: &mut Response<Bytes>) {
        let length = answer.body().len();
        let has_body = answer.status() != StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        if has_body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let vector = BASE64_STANDARD_NO_PAD.encode(&self.nonce[..16]);
        let reference = BASE64_STANDARD_NO_PAD.encode(&self.nonce[16..]);
        put(headers, "ms-cv", &format!("{vector}.0"));
        put(headers, "x-azure-ref", &format!("0{reference}"));
        put(headers, "request-context", "appId=");
        put(headers, "x-cache", "CONFIG_NOCACHE");
        let took = format!("{}ms", self.took.as_millis());
        put(headers, "x-processing-time", &took);
        let date = times::http_date(self.now);
        put(headers, DATE.as_str(), &date);
        put(
            headers,
            STRICT_TRANSPORT_SECURITY.as_str(),
            "max-age=2592000",
        );
        if let Some(id) = self.client_request_id {
            headers.insert("x-ms-client-request-id", id.clone());
        }
    }
}

/// Sets a header; a value that cannot be one is left out.
fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (
        http::HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_str(value),
    ) {
        headers.insert(name, value);
    }
}
