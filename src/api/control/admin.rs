//! Proof that the caller may control the daemon; an endpoint that takes it cannot forget to ask.

use axum::{extract::FromRequestParts, http::request::Parts};

use super::super::{
    handle::Api,
    peer::{self, Peer, Right},
    problem::{Problem, ProblemType},
};
use crate::{
    model::{AuditEntry, Name},
    store::Cause,
};

/// A caller with control.
#[derive(Debug)]
pub(super) struct Admin(Peer);

impl Admin {
    /// Who wants this done and why, for the audit trail.
    pub(super) async fn cause(&self, reason: Option<String>) -> Cause {
        Cause {
            actor: peer::actor(self.0).await,
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
            actor: peer::actor(self.0).await,
            action: action.to_owned(),
            name: name.cloned(),
            reason,
            request_id: None,
            result: result.to_owned(),
        };
        Ok(api.store.audit(vec![entry]).await?)
    }
}

impl FromRequestParts<Api> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let admins = api.scene().daemon.admins.clone();
        match parts.extensions.get::<Peer>() {
            Some(peer) if peer::decide(*peer, admins, Vec::new()).await == Right::Control => {
                Ok(Self(*peer))
            }
            _ => Err(Problem::new(
                ProblemType::Forbidden,
                "control is for root, the daemon's own user, and [daemon] admins",
            )),
        }
    }
}
