//! One call to ACS on behalf of one row.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    acs::Client,
    clock::Clock,
    model::{Failure, IdentityId, Num, Operation, Record, Scope, Secret},
    schedule::Ticket,
    store::{Store, StoreError},
};

/// A call that is on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) record: Record,
    pub(super) operation: Operation,
    pub(super) ticket: Ticket,
    pub(super) began: Timestamp,
}

/// What to ask for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) num: Num,
    pub(super) id: Option<IdentityId>,
    pub(super) scopes: Vec<Scope>,
    pub(super) lifetime: Duration,
    pub(super) deadline: Duration,
}

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) ended: Timestamp,
    pub(super) result: CallResult,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum CallResult {
    /// With a token.
    Token(Obtained),
    /// An identity was made, but its token could not be read.
    Named {
        id: IdentityId,
        request_id: Option<String>,
        /// Requests sent for it.
        requests: u32,
    },
    /// Without one.
    Failed {
        failure: Failure,
        /// Requests sent for it.
        requests: u32,
    },
    /// It was never sent: the intent to create could not be written, or is refused.
    NotSent(StoreError),
}

/// A token fresh from ACS and how it was obtained.
#[derive(Debug)]
pub(super) struct Obtained {
    pub(super) id: Option<IdentityId>,
    pub(super) secret: Secret,
    pub(super) expires_at: Timestamp,
    pub(super) request_id: Option<String>,
    pub(super) key: String,
    pub(super) switched_key: bool,
    pub(super) requests: u32,
}

/// Issues a token, or creates the identity together with its first token: then the intent is
/// written first, because ACS cannot make it idempotent.
pub(super) async fn obtain(client: Arc<Client>, store: Store, clock: Clock, ask: Ask) -> Done {
    let result = match &ask.id {
        Some(id) => issue(&client, id, &ask).await,
        None => create(&client, &store, &clock, &ask).await,
    };
    Done {
        ended: clock.now(),
        result,
    }
}

async fn issue(client: &Client, id: &IdentityId, ask: &Ask) -> CallResult {
    let issued = client
        .issue(id, &ask.scopes, ask.lifetime, ask.deadline)
        .await;
    match issued {
        Ok(answer) => CallResult::Token(Obtained {
            id: None,
            secret: answer.value.secret,
            expires_at: answer.value.expires_at,
            request_id: answer.request_id,
            key: answer.key,
            switched_key: answer.switched_key,
            requests: answer.requests,
        }),
        Err(error) => CallResult::Failed {
            failure: error.failure(),
            requests: error.requests,
        },
    }
}

async fn create(client: &Client, store: &Store, clock: &Clock, ask: &Ask) -> CallResult {
    if let Err(error) = store.intend_creations(vec![ask.num], clock.now()).await {
        return CallResult::NotSent(error);
    }
    let created = client
        .create(Some((&ask.scopes, ask.lifetime)), ask.deadline)
        .await;
    let (failure, requests) = match created {
        Ok(answer) => match answer.value.token {
            Some(token) => {
                return CallResult::Token(Obtained {
                    id: Some(answer.value.id),
                    secret: token.secret,
                    expires_at: token.expires_at,
                    request_id: answer.request_id,
                    key: answer.key,
                    switched_key: answer.switched_key,
                    requests: answer.requests,
                });
            }
            None => {
                return CallResult::Named {
                    id: answer.value.id,
                    request_id: answer.request_id,
                    requests: answer.requests,
                };
            }
        },
        Err(error) => (error.failure(), error.requests),
    };
    let lost = failure.maybe_done;
    if let Err(error) = store
        .creation_failed(ask.num, lost, failure.request_id.clone())
        .await
    {
        // The intent stays open, and is counted as a possible orphan at the next start.
        tracing::warn!(num = ask.num, %error, "a failed creation could not be noted");
    }
    CallResult::Failed { failure, requests }
}
