//! Operations at ACS and how they fail, in terms that decisions are made on.

use std::time::Duration;

pub use renewd_acs_wire::Operation;
use serde::{Deserialize, Serialize};

/// What a failure asks of whoever called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FailureClass {
    /// Try again: no answer, an unreadable one, or a fault of the service (5xx, 408).
    Retry,
    /// Wait first: throttled (429).
    Wait,
    /// The same request will be refused again: a mistake in it (other 4xx).
    Refuse,
    /// The access keys, or the bearer, are refused (401 `Denied`, 403).
    Credentials,
    /// The identity does not exist or is not ours.
    Gone,
}

impl FailureClass {
    pub const ALL: [Self; 5] = [
        Self::Retry,
        Self::Wait,
        Self::Refuse,
        Self::Credentials,
        Self::Gone,
    ];

    /// The word in attempts and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Wait => "wait",
            Self::Refuse => "refuse",
            Self::Credentials => "credentials",
            Self::Gone => "gone",
        }
    }
}

/// Whom a failure is about by itself; for all others it takes evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// It cannot be told from this one alone.
    Unclear,
    /// The resource: no connection came about.
    Resource,
    /// What every call is made with: 401 `Denied` of the access keys, and not because of a clock; any 401 of a bearer.
    Keys,
    /// Whoever gives bearers: there is none, so nothing was sent.
    Bearer,
    /// This request: it could not be put together, so nothing was sent.
    Request,
}

/// How a call to ACS failed, without the error's type: what decisions, rows and people need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it asks of us.
    pub class: FailureClass,
    /// Whom it is about.
    pub about: About,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// One sentence for a person: what was being done, to what, how it failed.
    pub message: String,
    /// The service's request id.
    pub request_id: Option<String>,
    /// What the service asked us to wait.
    pub retry_after: Option<Duration>,
    /// Whether the request may have taken effect although no answer could be read; then a creation
    /// may have left an orphan.
    pub maybe_done: bool,
}

/// Whether a file or folder is missing, closed to us or impossible: it stays so until a person mends it.
pub fn is_lasting(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::PermissionDenied
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::AlreadyExists
            | Kind::ReadOnlyFilesystem
            | Kind::InvalidInput
            | Kind::InvalidFilename
    )
}
