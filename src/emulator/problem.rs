//! Every error of the service: status, code, text, target, and whether it lists the versions.
//!
//! Source: recordings of the service, unless marked "not established".

use std::time::Duration;

use http::StatusCode;

use crate::acs::wire::{ErrorBody, ErrorResponse};

use super::{
    call::{IDENTITY_VERSIONS, TEAMS_VERSIONS},
    options::DeletedStatus,
    signature::Denial,
};

/// One error, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
    target: Option<&'static str>,
    /// `api-supported-versions`: there where the action itself refused, not where binding or
    /// authentication did.
    pub(super) versions: Option<&'static str>,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
    /// For the emulator's own header and the log.
    pub(super) reason: String,
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
            versions: None,
            retry_after: None,
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
        self.versions = Some(versions);
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

/// A signature that is not accepted. The text for a wrong date was seen on ACS Email, which has the
/// same front end; its code is not established.
pub(super) fn denied(denial: &Denial) -> Problem {
    let message = match denial {
        Denial::Date(_) => {
            "The time difference between the originating client and the server is greater than the allowed margin of 5 minutes."
        }
        _ => "Denied by the resource provider.",
    };
    Problem::new(StatusCode::UNAUTHORIZED, "Denied", message).because(denial.to_string())
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

/// Not established.
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

/// Not established.
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
    problem.retry_after = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    problem
}

/// Not established.
pub(super) fn not_found(path: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NotFound", "Resource not found.")
        .because(format!("no operation has the path {path}"))
}

/// Not established.
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
    problem.retry_after = retry_after;
    problem
}
