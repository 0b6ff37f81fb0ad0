//! What is done to one item: withholding with its confirmation, and the call to ACS.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    acs::{Client, Error},
    clock::Clock,
    model::{Failure, IdentityId, Operation, Step},
    schedule::Ticket,
    store::{Campaign, CampaignId, CampaignItem, Cause, StepOn, Store, StoreError},
};

/// Consumers get so long to confirm that they withhold.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A call takes no longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// An item under way.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) campaign: Arc<Campaign>,
    pub(super) item: CampaignItem,
    /// Sinks that had not confirmed when the tokens were revoked.
    pub(super) unconfirmed: Vec<String>,
    /// It failed since it was taken into hand, while something held the operation.
    pub(super) tried: bool,
    /// Calls without an answer although others were answered.
    pub(super) unanswered: u32,
}

impl Item {
    pub(super) fn new(campaign: Arc<Campaign>, item: CampaignItem, unanswered: u32) -> Self {
        Self {
            campaign,
            item,
            unconfirmed: Vec::new(),
            tried: false,
            unanswered,
        }
    }

    /// Whether it failed although others did not.
    pub(super) fn fails(&self) -> bool {
        self.item.attempts + self.unanswered > 0
    }
}

/// A call that is on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) item: Item,
    /// `None` while it is only being withheld.
    pub(super) call: Option<(Operation, Ticket)>,
}

/// What a task brings back.
#[derive(Debug)]
pub(super) enum Done {
    /// Withheld; these sinks have not confirmed.
    Withheld(Result<Vec<String>, StoreError>),
    /// ACS was called.
    Called(Called),
    /// An operation was tried out on nobody.
    TriedOut(Called),
    /// The report of an ended campaign was sealed.
    Sealed(CampaignId, Result<(), StoreError>),
}

/// How a call to ACS ended.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) ended: Timestamp,
    pub(super) requests: u32,
    /// The request id, or how it failed.
    pub(super) result: Result<Option<String>, Failure>,
}

/// Withholds one row and waits a little until its consumers have confirmed.
pub(super) async fn withhold(store: Store, clock: Clock, item: Item) -> Done {
    Done::Withheld(withheld(&store, &clock, &item).await)
}

async fn withheld(store: &Store, clock: &Clock, item: &Item) -> Result<Vec<String>, StoreError> {
    let num = item.item.num;
    let step = StepOn {
        num,
        step: Step::Withhold,
        request_id: None,
    };
    store
        .step(vec![step], &cause(&item.campaign), clock.now())
        .await?;
    let ends = clock.steady() + CONFIRMED_WITHIN;
    loop {
        let deliveries = store.deliveries_of(num).await?;
        let pending: Vec<String> = deliveries
            .iter()
            .filter(|delivery| delivery.is_pending())
            .map(|delivery| delivery.sink.to_string())
            .collect();
        if pending.is_empty() || clock.steady() >= ends {
            return Ok(pending);
        }
        clock.sleep_until(clock.now() + LOOK).await;
    }
}

/// Calls ACS.
pub(super) async fn call(
    client: Arc<Client>,
    clock: Clock,
    operation: Operation,
    id: IdentityId,
) -> Done {
    let answer = match operation {
        Operation::Delete => client.delete(&id, DEADLINE).await,
        _ => client.revoke(&id, DEADLINE).await,
    };
    let (requests, result) = match answer {
        Ok(answer) => (answer.requests, Ok(answer.request_id)),
        Err(error) => (error.requests, Err(Error::failure(&error))),
    };
    Done::Called(Called {
        ended: clock.now(),
        requests,
        result,
    })
}

/// Tries an operation out on an identity that nobody has.
pub(super) async fn try_out(client: Arc<Client>, clock: Clock, operation: Operation) -> Done {
    let answer = client.try_out(operation, DEADLINE).await;
    let (requests, result) = match answer {
        Ok(requests) => (requests, Ok(None)),
        Err(error) => (error.requests, Err(Error::failure(&error))),
    };
    Done::TriedOut(Called {
        ended: clock.now(),
        requests,
        result,
    })
}

/// Who wants it, and why.
pub(super) fn cause(campaign: &Campaign) -> Cause {
    Cause {
        actor: campaign.actor.clone(),
        reason: campaign.reason.clone(),
    }
}
