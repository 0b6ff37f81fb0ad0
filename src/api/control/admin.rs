//! Proof that the caller may control the daemon; an endpoint that takes it cannot forget to ask.

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::request::Parts;

use super::super::{
    handle::Api,
    peer::{Peer, Right},
    problem::{Problem, ProblemType},
};
use crate::{
    model::{AuditEntry, Name},
    store::Cause,
};

/// A caller with control.
#[derive(Debug, Clone)]
pub(super) struct Admin(Peer);

impl Admin {
    /// Who wants this done and why, for the audit trail.
    pub(super) async fn cause(&self, api: &Api, reason: Option<String>) -> Cause {
        Cause {
            actor: api.rights.actor(api, self.0).await,
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
            actor: api.rights.actor(api, self.0).await,
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
    if api.rights.of(&api, peer, &[]).await? != Right::Control {
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
