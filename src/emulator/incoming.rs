//! What is known of a request before it is judged.

use bytes::Bytes;
use http::{Request, Uri, header::HOST};
use jiff::Timestamp;

use crate::{acs::wire::CreateRequest, model::Operation};

use super::{
    access_keys::Slot,
    answer::Reply,
    body,
    call::{self, ApiVersion, IDENTITY_VERSIONS, Route, TEAMS_VERSIONS},
    ledger::Entry,
    problem::{self, Problem},
};

/// A request, with what it asks for.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request<Bytes>,
    pub(super) target: String,
    pub(super) host: String,
    pub(super) route: Route,
    pub(super) operation: Option<Operation>,
}

impl Call {
    pub(super) fn read(request: Request<Bytes>) -> Self {
        let route = call::route(request.method(), request.uri().path());
        let operation = match &route {
            Route::Create => Some(creation(&request)),
            Route::Issue(_) => Some(Operation::Issue),
            Route::Revoke(_) => Some(Operation::Revoke),
            Route::Delete(_) => Some(Operation::Delete),
            Route::Exchange => Some(Operation::Exchange),
            Route::WrongMethod | Route::Unknown => None,
        };
        Self {
            target: request
                .uri()
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
            host: host(&request),
            request,
            route,
            operation,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        match &self.route {
            Route::Issue(id) | Route::Revoke(id) | Route::Delete(id) => Some(id),
            _ => None,
        }
    }

    pub(super) fn version(&self) -> Result<String, Problem> {
        let uri: &Uri = self.request.uri();
        let supported = match self.route {
            Route::Exchange => TEAMS_VERSIONS,
            _ => IDENTITY_VERSIONS,
        };
        match call::api_version(uri.query().unwrap_or_default()) {
            ApiVersion::Unspecified => Err(problem::api_version_unspecified()),
            ApiVersion::Asked(version) if call::supports(supported, &version) => Ok(version),
            ApiVersion::Asked(version) => Err(problem::api_version_unsupported(
                &self.host,
                uri.path(),
                &version,
                supported,
            )),
        }
    }

    pub(super) fn entry(
        &self,
        at: Timestamp,
        key: Option<Slot>,
        reply: &Reply,
        reason: Option<String>,
    ) -> Entry {
        let header = |name: &str| {
            let value = self.request.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        Entry {
            number: 0,
            at,
            operation: self.operation,
            method: self.request.method().to_string(),
            target: self.target.clone(),
            id: self.id().map(str::to_owned),
            client_request_id: header("x-ms-client-request-id"),
            user_agent: header("user-agent"),
            key: key.map(Slot::as_str),
            status: reply.status().map(|status| status.as_u16()),
            reason,
        }
    }
}

/// Limits and counts tell a creation with a token from one without.
fn creation(request: &Request<Bytes>) -> Operation {
    let body = body::read::<CreateRequest>(request.headers(), request.body());
    let scopes = body.ok().flatten().and_then(|b| b.create_token_with_scopes);
    if scopes.is_some_and(|scopes| !scopes.is_empty()) {
        Operation::CreateWithToken
    } else {
        Operation::Create
    }
}

/// `Host`, or the authority of HTTP/2 without a port that is the scheme's own.
fn host(request: &Request<Bytes>) -> String {
    if let Some(host) = request.headers().get(HOST) {
        return host.to_str().unwrap_or_default().to_owned();
    }
    let uri = request.uri();
    let name = uri.host().unwrap_or_default();
    match (uri.scheme_str(), uri.port_u16()) {
        (_, None) | (Some("https"), Some(443)) | (Some("http"), Some(80)) => name.to_owned(),
        (_, Some(port)) => format!("{name}:{port}"),
    }
}
