//! What went wrong, as an `application/problem+json` document (RFC 9457) with a stable type.

use std::{fmt, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

/// The stable word in `type`; programs decide by it, people read `detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// 400: the request itself is wrong.
    Invalid,
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
            Self::Unreachable | Self::Throttled | Self::Pending | Self::StoreUnusable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
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
            Self::Invalid => "The request is not valid",
            Self::Conflict => "Not possible at the moment",
            Self::Refused => "The configuration was refused",
            Self::Internal => "renewd could not do its part",
        }
    }
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable word.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The same for every problem of this type.
    pub title: String,
    /// The HTTP status.
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
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), word);
            assert_eq!(kind.status(), status);
        }
    }
}
