//! What the emulator answers.
//!
//! What the emulator answers with, and the headers that the service puts on everything.
//!
//! Every error of the service: status, code, text, target, and whether it lists the versions.
//!
//! Source: recordings of the service, unless marked "not established".
//!
//! Request bodies: which may be absent, and how unreadable ones fail.

use std::{sync::Arc, time::Duration};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY,
        WWW_AUTHENTICATE,
    },
};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    call::{self, IDENTITY_VERSIONS, TEAMS_VERSIONS},
    signature::Denial,
    world::DeletedStatus,
};
use renewd_acs_wire::{ErrorBody, ErrorResponse};

/// The header in which the emulator says why it answered as it did; the service has no such thing.
pub const REASON_HEADER: &str = "x-renewd-emulator-reason";

/// What becomes of a request: an answer, or one of the ways in which none arrives.
#[derive(Debug)]
pub enum Reply {
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
    match &problem.extra {
        Extra::None => {}
        Extra::Versions(versions) => put(headers, "api-supported-versions", versions),
        Extra::RetryAfter(seconds) => put(headers, RETRY_AFTER.as_str(), &seconds.to_string()),
        Extra::Challenge(challenge) => put(headers, WWW_AUTHENTICATE.as_str(), challenge),
    }
    explain(headers, &problem.reason);
    answer
}

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
    /// Random bytes for the correlation vector and the reference of Azure Front Door.
    pub(super) nonce: [u8; 32],
    /// The request's `x-ms-client-request-id`, which the service echoes.
    pub(super) client_request_id: Option<&'a HeaderValue>,
}

impl Envelope<'_> {
    /// Puts the headers on that the service and Azure Front Door before it put on everything.
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
        let date = call::http_date(self.now);
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

/// One error, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
    target: Option<&'static str>,
    extra: Extra,
    /// For the emulator's own header and the log.
    pub(super) reason: String,
}

/// A header that only some errors have; none has two.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Extra {
    None,
    /// `api-supported-versions`: there where the action itself refused, not where binding or
    /// authentication did.
    Versions(&'static str),
    /// Whole seconds, never a date.
    RetryAfter(u64),
    /// `WWW-Authenticate`.
    Challenge(Box<str>),
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            reason: message.clone(),
            message,
            target: None,
            extra: Extra::None,
        }
    }

    fn validation(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationError", message)
    }

    fn target(mut self, target: &'static str) -> Self {
        self.target = Some(target);
        self
    }

    fn listing(mut self, versions: &'static str) -> Self {
        self.extra = Extra::Versions(versions);
        self
    }

    fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn body(&self) -> ErrorResponse {
        ErrorResponse {
            error: ErrorBody {
                code: self.code.to_owned(),
                message: self.message.clone(),
                target: self.target.map(str::to_owned),
            },
        }
    }
}

/// A signature that is not accepted. The text for a wrong hash of the content was seen on Identity
/// (Azure/azure-rest-api-specs#11767). That for a wrong date was seen on ACS Email, which has the same
/// front end; its code is not established.
pub(super) fn denied(denial: &Denial) -> Problem {
    let message = match denial {
        Denial::Date(_) => {
            "The time difference between the originating client and the server is greater than the allowed margin of 5 minutes."
        }
        Denial::Content(_) => "Request 'x-ms-content-sha256' differs from generated content hash.",
        Denial::Malformed(_) | Denial::Signature(_) => "Denied by the resource provider.",
    };
    Problem::new(StatusCode::UNAUTHORIZED, "Denied", message).because(denial.to_string())
}

/// A bearer, or an access key where none is taken, that is refused. Status, code and text are unverified; the text
/// is that for a signature, and was seen in a test of an SDK with Entra ID (Azure/azure-sdk-for-js#22312).
pub(super) fn bearer_denied(status: u16, reason: impl Into<String>) -> Problem {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UNAUTHORIZED);
    Problem::new(status, "Denied", "Denied by the resource provider.").because(reason)
}

/// Another bearer is wanted, one that was asked for with these claims. The form is that of other Azure services;
/// unverified for ACS.
pub(super) fn claims_challenge(claims: &str) -> Problem {
    let mut problem = bearer_denied(
        401,
        format!("the bearer does not answer the claims {claims}"),
    );
    let challenge = format!(
        "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", error=\"insufficient_claims\", claims=\"{}\"",
        BASE64_STANDARD.encode(claims)
    );
    problem.extra = Extra::Challenge(challenge.into());
    problem
}

pub(super) fn identity_not_owned(id: &str, prefix: &str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "IdentityNotOwned",
        "Provided identity doesn't belong to the resource.",
    )
    .listing(IDENTITY_VERSIONS)
    .because(format!("the id {id:?} does not begin with {prefix}"))
}

/// The text is established, status and code are not, so the status can be chosen.
pub(super) fn identity_not_found(status: DeletedStatus, why: &str) -> Problem {
    Problem::new(
        status.code(),
        "IdentityNotFound",
        "Provided identity doesn't exist.",
    )
    .listing(IDENTITY_VERSIONS)
    .because(why)
}

pub(super) fn scopes_required() -> Problem {
    Problem::validation("Scopes: The Scopes field is required.").target("Scopes")
}

/// Not established: the stock text of ASP.NET.
pub(super) fn scopes_empty() -> Problem {
    Problem::validation(
        "Scopes: The field Scopes must be a string or array type with a minimum length of '1'.",
    )
    .target("Scopes")
}

/// How ACS itself answers here is not established.
pub(super) fn scope_unknown(scope: &str) -> Problem {
    Problem::validation(format!("Scopes value {scope} is invalid."))
        .target("Scopes")
        .listing(IDENTITY_VERSIONS)
}

pub(super) fn lifetime_out_of_range(minutes: i64) -> Problem {
    Problem::validation(format!(
        "ExpiresInMinutes value {minutes} is invalid. Value must be within the [60, 1440] interval."
    ))
    .target("ExpiresInMinutes")
    .listing(IDENTITY_VERSIONS)
}

pub(super) fn invalid_access_token(reason: String) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "InvalidAccessToken",
        "Provided access token is not valid.",
    )
    .because(reason)
}

pub(super) fn app_id_required() -> Problem {
    Problem::validation("AppId: The AppId field is required.").target("AppId")
}

/// Not established for this field; as for `AppId`.
pub(super) fn user_id_required() -> Problem {
    Problem::validation("UserId: The UserId field is required.").target("UserId")
}

pub(super) fn app_id_format() -> Problem {
    Problem::validation("Provided AppId has invalid format.")
        .target("appId")
        .listing(TEAMS_VERSIONS)
}

pub(super) fn app_id_unexpected() -> Problem {
    Problem::validation("AAD application is not the expected one.")
        .target("appId")
        .listing(TEAMS_VERSIONS)
}

pub(super) fn user_id_unexpected() -> Problem {
    Problem::validation("Provided AAD token issued for unexpected user.")
        .target("userId")
        .listing(TEAMS_VERSIONS)
}

/// Not established: the stock text of ASP.NET.
pub(super) fn body_required() -> Problem {
    Problem::validation("A non-empty request body is required.")
}

/// How ACS itself answers here is not established.
pub(super) fn body_unreadable(reason: String) -> Problem {
    Problem::validation("The request body could not be read as JSON.").because(reason)
}

/// Not established: the stock status of ASP.NET.
pub(super) fn unsupported_media_type(found: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        "The media type of the request body is not supported.",
    )
    .because(format!(
        "the body is {found:?}; it should be application/json"
    ))
}

/// Not established: the stock text of ASP.NET.
pub(super) fn api_version_unspecified() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "ApiVersionUnspecified",
        "An API version is required, but was not specified.",
    )
}

pub(super) fn api_version_unsupported(
    host: &str,
    path: &str,
    version: &str,
    supported: &'static str,
) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "UnsupportedApiVersion",
        format!(
            "The HTTP resource that matches the request URI 'https://{host}{path}' does not support the API version '{version}'."
        ),
    )
    .listing(supported)
}

/// Not established beyond the status: code and `Retry-After`.
pub(super) fn throttled(wait: Duration, reason: String) -> Problem {
    let mut problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "TooManyRequests",
        "Too many requests.",
    )
    .because(reason);
    problem.extra = Extra::RetryAfter(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    problem
}

/// How ACS itself answers here is not established.
pub(super) fn not_found(path: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NotFound", "Resource not found.")
        .because(format!("no operation has the path {path}"))
}

/// How ACS itself answers here is not established.
pub(super) fn method_not_allowed(method: &http::Method, path: &str) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "The method is not allowed.",
    )
    .because(format!("{path} does not take {method}"))
}

/// Trouble that was asked for; the text for 500 was seen, the rest follows it.
pub(super) fn injected(status: StatusCode, retry_after: Option<u64>, fault: u64) -> Problem {
    let (code, message) = match status.as_u16() {
        500 => ("InternalServerError", "Internal server error."),
        503 => (
            "ServiceUnavailable",
            "Our services aren't available right now.",
        ),
        429 => ("TooManyRequests", "Too many requests."),
        401 => ("Denied", "Denied by the resource provider."),
        403 => ("Forbidden", "Access is forbidden."),
        404 => ("IdentityNotFound", "Provided identity doesn't exist."),
        408 => ("RequestTimeout", "The request timed out."),
        _ => ("InjectedFault", "This fault was asked for."),
    };
    let mut problem =
        Problem::new(status, code, message).because(format!("fault {fault} was injected"));
    problem.extra = retry_after.map_or(Extra::None, Extra::RetryAfter);
    problem
}

/// The body as JSON; `None` where it is absent or `null`. A content type matters only where there
/// is a body (SDKs send one without).
pub(super) fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<T>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap_or("?"));
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") && !essence.ends_with("+json") {
        return Err(unsupported_media_type(kind));
    }
    serde_json::from_slice(body).map_err(|error| {
        body_unreadable(format!(
            "the body is not the JSON that is wanted ({:?} error at line {} column {})",
            error.classify(),
            error.line(),
            error.column()
        ))
    })
}
