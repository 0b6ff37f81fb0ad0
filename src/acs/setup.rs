//! From a `[[resource]]` section to an endpoint and keys, or why not.

use super::{ConnectionString, ConnectionStringError, Endpoint, check::is_api_version, keys::Keys};
use crate::{config::ResourceSettings, model::ResourceName};

/// Why a client cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The primary connection string cannot be used.
    #[error("resource {0}: {1}")]
    Primary(ResourceName, ConnectionStringError),
    /// The secondary connection string cannot be used.
    #[error("resource {0}, secondary: {1}")]
    Secondary(ResourceName, ConnectionStringError),
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

/// The endpoint and the keys of a resource with which calls can be made.
pub(super) fn settle(settings: &ResourceSettings) -> Result<(Endpoint, Keys), SetupError> {
    let name = || settings.name.clone();
    let primary = ConnectionString::parse(&settings.connection_string.secret)
        .map_err(|error| SetupError::Primary(name(), error))?;
    let secondary = settings
        .secondary_connection_string
        .as_ref()
        .map(|loaded| ConnectionString::parse(&loaded.secret))
        .transpose()
        .map_err(|error| SetupError::Secondary(name(), error))?;
    if secondary
        .as_ref()
        .is_some_and(|s| s.endpoint != primary.endpoint)
    {
        return Err(SetupError::Endpoints(name()));
    }
    if !primary.endpoint.is_safe() {
        return Err(SetupError::Insecure(name()));
    }
    if !is_api_version(&settings.api_version) {
        return Err(SetupError::ApiVersion(name()));
    }
    let keys = Keys::new(primary.key, secondary.map(|s| s.key));
    Ok((primary.endpoint, keys))
}
