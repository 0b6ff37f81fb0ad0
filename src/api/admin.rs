//! Proof that the caller may control the daemon, which an endpoint that takes it cannot forget to ask for; and what
//! the control endpoints share: pages, and rows by their names.

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::request::Parts;
use jiff::Timestamp;

use super::{
    handle::Api,
    peer::{Peer, Right},
    problem::{Problem, ProblemType},
};
use crate::{
    model::{AuditEntry, Name, Record},
    store::Cause,
};

/// A caller with control.
#[derive(Debug, Clone)]
pub(super) struct Admin(Peer);

impl Admin {
    /// Who wants this done and why, for the audit trail.
    pub(super) async fn cause(&self, api: &Api, reason: Option<String>) -> Cause {
        Cause {
            actor: api.rights.actor(self.0).await,
            reason,
        }
    }

    /// Writes into the audit trail what the store does not write by itself.
    pub(super) async fn audit(
        &self,
        api: &Api,
        action: &str,
        name: Option<&Name>,
        reason: Option<String>,
        result: &str,
    ) -> Result<(), Problem> {
        let entry = AuditEntry {
            at: api.clock.now(),
            actor: api.rights.actor(self.0).await,
            action: action.to_owned(),
            name: name.cloned(),
            reason,
            request_id: None,
            result: result.to_owned(),
        };
        Ok(api.store.audit(vec![entry]).await?)
    }
}

/// Middleware: lets admins in, before anything of a body is read.
pub(super) async fn let_in(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Err(not_an_admin());
    };
    if api.rights.of(peer, &[]).await? != Right::Control {
        return Err(not_an_admin());
    }
    request.extensions_mut().insert(Admin(peer));
    Ok(next.run(request).await)
}

fn not_an_admin() -> Problem {
    Problem::new(
        ProblemType::Forbidden,
        "control is for root, the daemon's own user, and [daemon] admins",
    )
}

impl FromRequestParts<Api> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(not_an_admin)
    }
}

/// Items of one page.
pub(super) const PAGE: usize = 500;

/// `?after=…`.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct After {
    pub(super) after: Option<String>,
}

/// The row of this name.
pub(super) async fn record(api: &Api, name: &str) -> Result<Record, Problem> {
    let unknown = || {
        Problem::new(
            ProblemType::Unknown,
            format!("there is no identity {name:?}"),
        )
    };
    let name: Name = name.parse().map_err(|_| unknown())?;
    api.store.record(&name).await?.ok_or_else(unknown)
}

/// The rows of these names, in their order; every unknown one is named.
pub(super) async fn records(api: &Api, names: &[Name]) -> Result<Vec<Record>, Problem> {
    let found = api.store.records(names).await?;
    let known: std::collections::BTreeSet<&Name> = found.iter().map(|one| &one.spec.name).collect();
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| !known.contains(name))
        .map(Name::as_str)
        .collect();
    if unknown.is_empty() {
        return Ok(found);
    }
    for name in names.iter().filter(|name| !known.contains(name)) {
        // One whose row cannot be read is not unknown.
        api.store.record(name).await?;
    }
    let some = unknown
        .iter()
        .take(10)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let why = format!(
        "there is no identity of these names, so nothing was done: {some} ({} of {} names)",
        unknown.len(),
        names.len()
    );
    Err(Problem::new(ProblemType::Unknown, why))
}

/// An instant in a query.
pub(super) fn instant(key: &str, text: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let wrong = |_| {
        let why = format!("{key} is an instant such as 2026-11-22T00:00:00Z");
        Problem::new(ProblemType::Invalid, why)
    };
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

pub(super) fn bad_cursor() -> Problem {
    Problem::new(
        ProblemType::Invalid,
        "after is not what a page gave as next",
    )
}
