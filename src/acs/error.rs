//! What can be wrong with a resource, typed: a call that failed (what came back, what it asks of us, what to
//! quote to support), and a `[[resource]]` section that gives no endpoint or keys.

use std::{fmt, sync::Mutex, time::Duration};

use jiff::SignedDuration;

use super::{
    ConnectionString, ConnectionStringError, ResourceUrl, check::is_api_version,
    credential::Credential, keys::KeyPair,
};
use crate::{
    clock::Clock,
    config::{CredentialSettings, KeySettings, ResourceSettings},
    entra::{BearerError, BearerSetupError, Bearers},
    model::{About, Failure, FailureClass, IdentityId, Operation, ResourceName},
    transport::{Transport, TransportError},
};

/// A call that failed. Its text is one sentence: what was being done, to what, and how it failed. It
/// never holds a token or a key.
#[derive(Debug, Clone)]
pub struct Error {
    /// What was being done.
    pub operation: Operation,
    /// By which host, and by way of which proxy.
    pub peer: String,
    /// To which identity, if to one.
    pub identity: Option<IdentityId>,
    pub cause: ErrorCause,
    /// The service's request id; ours, which the service keeps too, where no answer came.
    pub request_id: Option<String>,
    /// Whether what the call was made with is to blame: an access key, by a 401 `Denied` whose `Date` rules a
    /// wrong clock out, or a bearer, by any 401.
    pub blames_credential: bool,
    /// Whether the call was made with a bearer.
    pub bearer: bool,
    /// How many requests were sent: more than one after a re-signed date, a second key or another bearer.
    pub requests: u32,
    /// How far the answer's date is ahead of ours, where that is too far to be believed.
    pub apart: Option<SignedDuration>,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorCause {
    NoAnswer(TransportError),
    /// The request could not be put together, so nothing was sent.
    Unsent(String),
    /// There is no bearer to make the call with, so nothing was sent.
    NoBearer(Box<BearerError>),
    /// An answer came that is none of the service's, such as a page of something in between.
    Unreadable {
        status: u16,
        /// What is wrong with it.
        reason: String,
        /// What the answer asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The service said no.
    Rejected(Box<Rejection>),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = Doing(self.operation, self.identity.as_ref());
        write!(f, "cannot {doing}: {}", self.reason())
    }
}

/// An error that the service put in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub status: u16,
    /// Such as `ValidationError`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
    /// The member of the request that is wrong.
    pub target: Option<String>,
    /// What the service asked us to wait.
    pub retry_after: Option<Duration>,
    /// Whether the request named an identity: without one nothing can be gone.
    pub about_identity: bool,
}

impl Error {
    /// Why it failed and who failed, the reason first: for whoever knows what was being done, and to whom.
    pub fn reason(&self) -> String {
        let advice = match &self.cause {
            ErrorCause::Rejected(_) if self.refuses_bearer() => {
                " (Entra ID gave a bearer, and the resource does not let its identity in)"
            }
            ErrorCause::Rejected(rejection) => rejection.advice(),
            _ => "",
        };
        format!(
            "{}{advice}{}",
            self.cause.told(&self.peer),
            clocks(self.apart)
        )
    }

    /// Whether the resource does not take the bearer, or what it stands for.
    pub(super) fn refuses_bearer(&self) -> bool {
        self.bearer
            && matches!(self.cause.status(), Some(401 | 403))
            && self.class() == FailureClass::Credentials
    }

    /// The same without this type, as decisions and rows want it.
    pub fn failure(&self) -> Failure {
        Failure {
            class: self.class(),
            about: match &self.cause {
                ErrorCause::NoAnswer(error) if error.is_unconnected() => About::Resource,
                ErrorCause::Unsent(_) => About::Request,
                ErrorCause::NoBearer(_) => About::Bearer,
                _ if self.blames_credential => About::Keys,
                _ => About::Unclear,
            },
            status: self.cause.status(),
            message: self.reason(),
            request_id: self.request_id.clone(),
            retry_after: self.cause.retry_after(),
            maybe_done: self.cause.maybe_done(),
        }
    }

    /// What the failure asks of whoever called.
    pub fn class(&self) -> FailureClass {
        self.cause.class()
    }
}

impl ErrorCause {
    fn told(&self, peer: &str) -> String {
        match self {
            Self::NoAnswer(error) => error.with(peer),
            Self::Unsent(why) => {
                format!("the request could not be put together, so nothing was sent: {why}")
            }
            Self::NoBearer(error) => format!("there is no bearer for it: {error}"),
            Self::Unreadable { status, reason, .. } => {
                format!("the answer of {peer} ({status}) cannot be read: {reason}")
            }
            Self::Rejected(rejection) => rejection.told(peer),
        }
    }

    /// What the failure asks of whoever called.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoAnswer(_) => FailureClass::Retry,
            Self::Unsent(_) => FailureClass::Refuse,
            Self::NoBearer(error) if error.cause.is_outage() => FailureClass::Retry,
            Self::NoBearer(_) => FailureClass::Credentials,
            Self::Unreadable { status, .. } => class_of_status(*status),
            Self::Rejected(rejection) => rejection.class(),
        }
    }

    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::NoAnswer(_) | Self::Unsent(_) | Self::NoBearer(_) => None,
            Self::Unreadable { status, .. } => Some(*status),
            Self::Rejected(rejection) => Some(rejection.status),
        }
    }

    /// What the service asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoAnswer(_) | Self::Unsent(_) | Self::NoBearer(_) => None,
            Self::Unreadable { retry_after, .. } => *retry_after,
            Self::Rejected(rejection) => rejection.retry_after,
        }
    }

    /// Whether the request may have taken effect all the same.
    pub fn maybe_done(&self) -> bool {
        match self {
            Self::NoAnswer(error) => !error.is_unconnected(),
            Self::Unsent(_) | Self::NoBearer(_) => false,
            Self::Unreadable { status, .. } => matches!(status, 200..300 | 500..),
            Self::Rejected(rejection) => rejection.status >= 500,
        }
    }
}

impl Rejection {
    /// What the rejection asks of whoever called. Of an identity that does not exist the service's
    /// text is known, its status is not; so the text counts with any 4xx.
    pub fn class(&self) -> FailureClass {
        match (self.status, self.code.as_str()) {
            (401, "IdentityNotOwned") => FailureClass::Gone,
            (401, "InvalidAccessToken") => FailureClass::Refuse,
            (400..500, _) if self.says_gone() => FailureClass::Gone,
            (404, _) => FailureClass::Refuse,
            (status, _) => class_of_status(status),
        }
    }

    /// Whether the service can only have said this after it had accepted the signature.
    pub(super) fn proves_key(&self) -> bool {
        self.class() == FailureClass::Gone
            || matches!(
                (self.status, self.code.as_str()),
                (401, "InvalidAccessToken") | (400, "ValidationError")
            )
    }

    fn says_gone(&self) -> bool {
        self.code == "IdentityNotFound"
            || self.message.starts_with("Provided identity doesn't exist")
            || (self.status == 404 && self.about_identity)
    }
}

/// A 404 without the service's own words is somebody else's: an identity is not gone because of it.
fn class_of_status(status: u16) -> FailureClass {
    match status {
        401 | 403 => FailureClass::Credentials,
        429 => FailureClass::Wait,
        404 | 408 => FailureClass::Retry,
        400..500 => FailureClass::Refuse,
        _ => FailureClass::Retry,
    }
}

impl Rejection {
    /// What one answer alone says; whether others are refused too is seen by their calls.
    fn told(&self, peer: &str) -> String {
        let target = self.target.as_ref();
        let target = target.map_or(String::new(), |target| format!(" (target {target})"));
        let (status, code, message) = (self.status, &self.code, &self.message);
        format!("{status} {code} from {peer}: {message}{target}")
    }

    fn advice(&self) -> &'static str {
        match (self.class(), self.code.as_str()) {
            (FailureClass::Credentials, _) if self.status == 403 => {
                " (it is forbidden to whoever signed: to this identity alone, or to all by a rule of the resource \
                 or the rights of its access key)"
            }
            (FailureClass::Credentials, "Denied")
                if self.message.contains("x-ms-content-sha256") =>
            {
                " (something between here and ACS changes the body of requests, such as a proxy that opens TLS)"
            }
            (FailureClass::Credentials, "Denied") => {
                " (check the connection strings against the keys that the Azure portal shows)"
            }
            (FailureClass::Credentials, _) => {
                " (the service does not accept how this request was signed, and does not say that the access key \
                 is to blame)"
            }
            _ => "",
        }
    }
}

/// What two clocks ask for that cannot both be right.
fn clocks(apart: Option<SignedDuration>) -> String {
    let Some(apart) = apart else {
        return String::new();
    };
    let days = apart.as_hours().unsigned_abs() / 24;
    let side = if apart.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    format!(
        "; its clock is {days} days {side} this machine's: set the clock of this machine, or find out who answers in its place"
    )
}

/// An operation and its object in words.
struct Doing<'a>(Operation, Option<&'a IdentityId>);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Operation::Issue => "issue a token for",
            Operation::Create => "create an identity",
            Operation::CreateWithToken => "create an identity with a token",
            Operation::Revoke => "revoke the tokens of",
            Operation::Delete => "delete",
            Operation::Exchange => "exchange a Teams token",
        })?;
        match self.1 {
            Some(identity) => write!(f, " {identity}"),
            None => Ok(()),
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The primary connection string cannot be used.
    #[error("resource {0}: {1}")]
    Primary(ResourceName, ConnectionStringError),
    /// The secondary connection string cannot be used.
    #[error("resource {0}, secondary: {1}")]
    Secondary(ResourceName, ConnectionStringError),
    /// The endpoint of a resource without access keys cannot be used.
    #[error("resource {0}: {1}")]
    Endpoint(ResourceName, ConnectionStringError),
    /// No bearer could ever be asked for.
    #[error("resource {0}: {1}")]
    Bearer(ResourceName, BearerSetupError),
    /// The two connection strings name different endpoints.
    #[error(
        "resource {0}: the two connection strings name different endpoints; both keys belong to one resource"
    )]
    Endpoints(ResourceName),
    /// Plain http that would leave this machine.
    #[error("resource {0}: plain http is allowed to loopback only; use https")]
    Insecure(ResourceName),
    /// The API version has no valid form.
    #[error("resource {0}: the API version must read YYYY-MM-DD or YYYY-MM-DD-preview")]
    ApiVersion(ResourceName),
}

/// The endpoint of a resource and what calls to it are made with.
pub(super) fn settle(
    settings: &ResourceSettings,
    clock: &Clock,
    transport: &Transport,
) -> Result<(ResourceUrl, Credential), SetupError> {
    let name = || settings.name.clone();
    let (endpoint, credential) = match &settings.credential {
        CredentialSettings::Keys(keys) => {
            let (endpoint, keys) = pair(keys, &settings.name)?;
            (endpoint, Credential::Keys(Mutex::new(keys)))
        }
        CredentialSettings::Entra(entra) => {
            let endpoint = ResourceUrl::parse(&entra.endpoint)
                .map_err(|error| SetupError::Endpoint(name(), error))?;
            let bearers = Bearers::new(settings, entra, clock.clone(), transport)
                .map_err(|error| SetupError::Bearer(name(), error))?;
            (endpoint, Credential::Entra(bearers))
        }
    };
    if !endpoint.is_safe() {
        return Err(SetupError::Insecure(name()));
    }
    if !is_api_version(&settings.api_version) {
        return Err(SetupError::ApiVersion(name()));
    }
    Ok((endpoint, credential))
}

fn pair(keys: &KeySettings, name: &ResourceName) -> Result<(ResourceUrl, KeyPair), SetupError> {
    let primary = ConnectionString::parse(&keys.connection_string.secret)
        .map_err(|error| SetupError::Primary(name.clone(), error))?;
    let secondary = keys
        .secondary_connection_string
        .as_ref()
        .map(|loaded| ConnectionString::parse(&loaded.secret))
        .transpose()
        .map_err(|error| SetupError::Secondary(name.clone(), error))?;
    if secondary
        .as_ref()
        .is_some_and(|s| s.endpoint != primary.endpoint)
    {
        return Err(SetupError::Endpoints(name.clone()));
    }
    let keys = KeyPair::new(primary.key, secondary.map(|s| s.key));
    Ok((primary.endpoint, keys))
}
