//! What went wrong, as an `application/problem+json` document (RFC 9457) with a stable type.

use std::{fmt, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

/// The stable word in `type`; programs decide by it, people read `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemType {
    /// 404: no such identity, campaign or endpoint. Only admins are told so of an identity.
    Unknown,
    /// 403: not for this caller; also where the identity does not exist.
    Forbidden,
    /// 409: withheld on purpose.
    Held,
    /// 410: deleted, or ACS says that it does not exist.
    Deleted,
    /// 503: no live token, because the resource does not answer.
    Unreachable,
    /// 503: no live token, because the resource made us wait; or too many requests here.
    Throttled,
    /// 503: no live token yet; one is on its way.
    Pending,
    /// 503: the store may not be used until a person says so; nothing is served from it.
    StoreUnusable,
    /// 503: the database does not answer, and what this node's mirror holds is too old for this, or not enough.
    Stale,
    /// 503: others keep renewd busy at the moment; or a request took too long.
    Busy,
    /// 400: the request itself is wrong.
    Invalid,
    /// 400: a header is missing that every request over the socket carries.
    HeaderMissing,
    /// 403: a header shows that the request was not meant for here, or came through a proxy or a browser.
    HeaderRefused,
    /// 405: the endpoint is there, and not for this method.
    MethodNotAllowed,
    /// 408: the request did not come to its end in time.
    Timeout,
    /// 413: the body is larger than is taken here.
    TooLarge,
    /// 414: the target is too long.
    TargetTooLong,
    /// 415: the body is of a kind that is not taken here.
    UnsupportedMedia,
    /// 431: the headers are larger than is taken here.
    HeadersTooLarge,
    /// 409: it cannot be done in the state in which things are.
    Conflict,
    /// 422: the configuration was refused; nothing was changed.
    Refused,
    /// 500: renewd could not do its part; its log says why.
    Internal,
}

impl ProblemType {
    /// The status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Held | Self::Conflict => StatusCode::CONFLICT,
            Self::Deleted => StatusCode::GONE,
            Self::Unreachable
            | Self::Throttled
            | Self::Pending
            | Self::StoreUnusable
            | Self::Stale
            | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Invalid | Self::HeaderMissing => StatusCode::BAD_REQUEST,
            Self::HeaderRefused => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The type of an answer that somebody else made with this status.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::Unknown,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::Timeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::URI_TOO_LONG => Self::TargetTooLong,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMedia,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadersTooLarge,
            status if status.is_server_error() => Self::Internal,
            _ => Self::Invalid,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Unknown => "There is no such thing",
            Self::Forbidden => "Not for this caller",
            Self::Held => "The token is withheld on purpose",
            Self::Deleted => "The identity does not exist any more",
            Self::Unreachable => "No live token: the resource does not answer",
            Self::Throttled => "Too many requests",
            Self::Pending => "No live token yet",
            Self::StoreUnusable => "The store waits for a person",
            Self::Stale => "The database is away",
            Self::Busy => "Too busy at the moment",
            Self::Invalid => "The request is not valid",
            Self::HeaderMissing => "A header is missing",
            Self::HeaderRefused => "Not for requests like this one",
            Self::MethodNotAllowed => "Not with this method",
            Self::Timeout => "The request took too long",
            Self::TooLarge => "The body is too large",
            Self::TargetTooLong => "The target is too long",
            Self::UnsupportedMedia => "The body is not JSON",
            Self::HeadersTooLarge => "The headers are too large",
            Self::Conflict => "Not possible at the moment",
            Self::Refused => "The configuration was refused",
            Self::Internal => "renewd could not do its part",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The same for every problem of this type.
    pub title: String,
    pub status: u16,
    /// This very case, for a person.
    pub detail: String,
    /// Seconds to wait before asking again, as in `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of this type, explained.
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// Asks the caller to come again after so long, at least a second.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let up = u64::from(wait.subsec_nanos() > 0);
        self.retry_after = Some((wait.as_secs() + up).max(1));
        self
    }
}

impl Problem {
    /// The whole answer as it goes over a connection that ends with it.
    pub(super) fn whole_answer(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let status = self.kind.status();
        let again = self.retry_after.map_or(String::new(), |seconds| {
            format!("retry-after: {seconds}\r\n")
        });
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
             {again}connection: close\r\ncontent-length: {}\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or(""),
            body.len()
        );
        [head.into_bytes(), body].concat()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The longest explanation that somebody else gives.
const LONGEST_FOREIGN: usize = 4096;

/// Middleware: what a library answers in words of its own becomes a problem document.
pub(super) async fn as_document(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    let told = response.headers().get(header::CONTENT_TYPE);
    let is_json = told.is_some_and(|told| told.as_bytes().ends_with(b"json"));
    if !(status.is_client_error() || status.is_server_error()) || is_json {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = to_bytes(body, LONGEST_FOREIGN).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let kind = ProblemType::of_status(status);
    let takes = parts.headers.get(header::ALLOW);
    let detail = match kind {
        ProblemType::MethodNotAllowed => {
            let takes = takes
                .and_then(|takes| takes.to_str().ok())
                .unwrap_or("other methods");
            format!(
                "{path} does not take {method}; it takes {}",
                takes.replace(',', ", ")
            )
        }
        _ if said.trim().is_empty() => kind.title().to_owned(),
        _ => said.trim().to_owned(),
    };
    let mut response = Problem::new(kind, detail).into_response();
    if let Some(takes) = takes {
        response.headers_mut().insert(header::ALLOW, takes.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_the_headers_say_the_same() {
        let problem = Problem::new(ProblemType::Unreachable, "contoso does not answer")
            .retry_after(Duration::from_millis(4200));
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "unreachable");
        assert_eq!(json["status"], 503);
        assert_eq!(json["retry_after"], 5);
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "5");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
    }

    #[test]
    fn the_words_and_their_statuses_are_stable() {
        for (kind, word, status) in [
            (ProblemType::Unknown, "unknown", 404),
            (ProblemType::Forbidden, "forbidden", 403),
            (ProblemType::Held, "held", 409),
            (ProblemType::Deleted, "deleted", 410),
            (ProblemType::Unreachable, "unreachable", 503),
            (ProblemType::Throttled, "throttled", 503),
            (ProblemType::StoreUnusable, "store-unusable", 503),
            (ProblemType::Stale, "stale", 503),
            (ProblemType::Busy, "busy", 503),
            (ProblemType::HeaderMissing, "header-missing", 400),
            (ProblemType::HeaderRefused, "header-refused", 403),
            (ProblemType::MethodNotAllowed, "method-not-allowed", 405),
            (ProblemType::Timeout, "timeout", 408),
            (ProblemType::TooLarge, "too-large", 413),
            (ProblemType::TargetTooLong, "target-too-long", 414),
            (ProblemType::UnsupportedMedia, "unsupported-media", 415),
            (ProblemType::HeadersTooLarge, "headers-too-large", 431),
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
            assert_eq!(kind.status(), status);
        }
    }
}
