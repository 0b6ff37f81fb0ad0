//! One item of a campaign: whose turn it is, the step that it takes, and what follows from how that ended.
//!
//! Items that came so far without a failure go first; those that fail get every tenth turn while others
//! wait. Where nothing but items that fail waits, nobody else can tell whether it is they or the service,
//! so the same operation is tried out now and then on an id that nobody has.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rand::Rng;

use crate::{
    acs::{Client, Error},
    clock::Clock,
    model::{
        About, Attempt, DueReason, Failure, FailureClass, IdentityId, Notice, NoticeKind, Num,
        Operation, ResourceName, State, Step, Then,
    },
    schedule::{CallFinding, Gate, Steady, Ticket, item_gap, item_is_over},
    store::{
        Campaign, CampaignAction, CampaignId, CampaignItem, Cause, ItemEnd, ItemNote, ItemOutcome,
        StepOn, Store, StoreError,
    },
};

/// Consumers get so long to confirm that they withhold.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A call takes no longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same where another machine may lead next: it waits for the end of what this one began.
const LED_DEADLINE: Duration = Duration::from_secs(10);

/// An item under way.
#[derive(Debug, Clone)]
pub(super) struct RunItem {
    pub(super) campaign: Arc<Campaign>,
    pub(super) item: CampaignItem,
    /// Sinks that had not confirmed when the tokens were revoked.
    pub(super) unconfirmed: Vec<String>,
    /// It failed since it was taken into hand, while something held the operation.
    pub(super) tried: bool,
    /// Calls without an answer although others were answered.
    pub(super) unanswered: u32,
}

impl RunItem {
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
pub(super) struct ItemFlight {
    pub(super) item: RunItem,
    /// `None` while it is only being withheld.
    pub(super) call: Option<(Operation, Ticket)>,
}

/// What a task brings back.
#[derive(Debug)]
pub(crate) enum ItemDone {
    /// Withheld; these sinks have not confirmed.
    Withheld(Result<Vec<String>, StoreError>),
    Called(Called),
    /// The store did not take the note of a call, so that it was not made.
    NotNoted(StoreError),
    /// An operation was tried out on nobody.
    TriedOut(Called),
    /// The report of an ended campaign was sealed.
    Sealed(CampaignId, Result<(), StoreError>),
}

/// How a call to ACS ended.
#[derive(Debug)]
pub(crate) struct Called {
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) requests: u32,
    /// The request id, or how it failed.
    pub(super) result: Result<Option<String>, Failure>,
}

/// Withholds one row and waits a little until its consumers have confirmed.
pub(super) async fn withhold(store: Store, clock: Clock, item: RunItem) -> ItemDone {
    ItemDone::Withheld(withheld(&store, &clock, &item).await)
}

async fn withheld(store: &Store, clock: &Clock, item: &RunItem) -> Result<Vec<String>, StoreError> {
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

/// Makes a call that the store knows of before it is made; one that it does not take is not made.
pub(super) async fn call_noted(
    (store, resource, called): (Store, ResourceName, ItemNote),
    client: Arc<Client>,
    clock: Clock,
    (operation, id): (Operation, IdentityId),
) -> ItemDone {
    let noted = store.note_items(&resource, Arc::new(vec![called]), clock.now());
    let noted = noted
        .await
        .and_then(|each| each.into_iter().collect::<Result<Vec<()>, _>>());
    match noted {
        Ok(_) => call_within(client, clock, (operation, id), LED_DEADLINE).await,
        Err(error) => ItemDone::NotNoted(error),
    }
}

pub(super) async fn call(
    client: Arc<Client>,
    clock: Clock,
    operation: Operation,
    id: IdentityId,
) -> ItemDone {
    call_within(client, clock, (operation, id), DEADLINE).await
}

async fn call_within(
    client: Arc<Client>,
    clock: Clock,
    (operation, id): (Operation, IdentityId),
    deadline: Duration,
) -> ItemDone {
    let began = clock.now();
    let answer = match operation {
        Operation::Delete => client.delete(&id, deadline).await,
        _ => client.revoke(&id, deadline).await,
    };
    let (requests, result) = match answer {
        Ok(answer) => (answer.requests, Ok(answer.request_id)),
        Err(error) => (error.requests, Err(Error::failure(&error))),
    };
    ItemDone::Called(Called {
        began,
        ended: clock.now(),
        requests,
        result,
    })
}

/// Tries an operation out on an identity that nobody has.
pub(super) async fn try_out(client: Arc<Client>, clock: Clock, operation: Operation) -> ItemDone {
    let began = clock.now();
    let answer = client.try_out(operation, DEADLINE).await;
    let (requests, result) = match answer {
        Ok(requests) => (requests, Ok(None)),
        Err(error) => (error.requests, Err(Error::failure(&error))),
    };
    ItemDone::TriedOut(Called {
        began,
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

/// An item that alone is asked to wait waits no longer.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// What becomes of an item.
#[derive(Debug)]
pub(super) struct ItemVerdict {
    pub(super) step: Option<StepOn>,
    pub(super) outcome: ItemOutcome,
    pub(super) notice: Option<Notice>,
}

/// What an item needs before anything else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ItemNeed {
    /// No call at all: the step says it all.
    Step(Option<Step>),
    /// It cannot be done.
    Refusal(&'static str),
    /// To be withheld, then revoked.
    Withhold,
    Call(Operation),
}

/// What is to be done about an item first.
pub(super) fn need(item: &RunItem) -> ItemNeed {
    let deleted = item.item.state == Some(State::Deleted);
    let renew = || ItemNeed::Step(Some(Step::Due(DueReason::Requested)));
    match item.campaign.action {
        CampaignAction::Delete if deleted => ItemNeed::Step(None),
        _ if deleted => ItemNeed::Refusal("it was deleted"),
        CampaignAction::Hold => ItemNeed::Step(Some(Step::Withhold)),
        CampaignAction::Release => ItemNeed::Step(Some(Step::Release)),
        CampaignAction::Renew if item.item.state.is_some_and(State::wants_token) => renew(),
        CampaignAction::Renew => ItemNeed::Refusal("it is held or gone, so it gets no token"),
        CampaignAction::Delete if item.item.id.is_none() => ItemNeed::Refusal("it has no id yet"),
        CampaignAction::Delete => ItemNeed::Call(Operation::Delete),
        CampaignAction::Revoke
            if item.campaign.then == Some(Then::Hold) && item.item.state.is_some() =>
        {
            ItemNeed::Withhold
        }
        CampaignAction::Revoke if item.item.id.is_none() => ItemNeed::Step(None),
        CampaignAction::Revoke => ItemNeed::Call(Operation::Revoke),
    }
}

/// An item that is done without a call.
pub(super) fn stepped(item: &RunItem, step: Option<Step>, now: Timestamp) -> ItemVerdict {
    ItemVerdict {
        step: step.map(|step| StepOn {
            num: item.item.num,
            step,
            request_id: None,
        }),
        outcome: ItemOutcome::Done {
            at: now,
            request_id: None,
        },
        notice: None,
    }
}

/// An item that cannot be done.
pub(super) fn refused(item: &RunItem, why: &str, now: Timestamp) -> ItemVerdict {
    let matters = matches!(
        item.campaign.action,
        CampaignAction::Revoke | CampaignAction::Delete
    );
    ItemVerdict {
        step: None,
        outcome: ItemOutcome::Failed {
            error: why.to_owned(),
            request_id: None,
        },
        notice: matters.then(|| failed_for_good(item, why, now)),
    }
}

/// Judges an ended call with what it told of the item and of the resource. `None`: something holds the
/// whole operation back (an outage, Retry-After, refused keys), which is not the item's failure; it stays
/// pending as it is.
pub(super) fn judge(
    item: &RunItem,
    operation: Operation,
    called: &Called,
    finding: &CallFinding,
    rng: &mut impl Rng,
) -> Option<ItemVerdict> {
    match &called.result {
        Ok(request_id) => Some(acknowledged(
            item,
            operation,
            called.ended,
            request_id.clone(),
        )),
        Err(failure) if failure.class == FailureClass::Gone && operation == Operation::Delete => {
            Some(acknowledged(
                item,
                operation,
                called.ended,
                failure.request_id.clone(),
            ))
        }
        Err(_) if finding.gated => None,
        Err(failure) => Some(failed(item, failure, called.ended, finding.chance, rng)),
    }
}

/// What was done, but the store refuses to note it with its row: the item has failed, and says so.
pub(super) fn unnoted(end: &ItemEnd, why: &str, at: Timestamp) -> ItemEnd {
    let (done, request_id) = match &end.outcome {
        ItemOutcome::Done { request_id, .. } => ("it was done, but", request_id),
        ItemOutcome::Retry { request_id, .. }
        | ItemOutcome::Unanswered { request_id, .. }
        | ItemOutcome::Failed { request_id, .. } => ("it was not done, and", request_id),
    };
    let error = format!("{done} the store refuses to note it: {why}");
    let (id, num) = (end.campaign.id, end.num);
    let notice = Notice {
        at,
        kind: NoticeKind::OrderFailed,
        resource: None,
        name: end.notice.as_ref().and_then(|notice| notice.name.clone()),
        key: None,
        message: format!("Item {num} of campaign {id}: {error}."),
    };
    ItemEnd {
        step: None,
        outcome: ItemOutcome::Failed {
            error,
            request_id: request_id.clone(),
        },
        notice: Some(notice),
        ..end.clone()
    }
}

/// A call of ours panicked.
pub(super) fn panicked(item: &RunItem, now: Timestamp, rng: &mut impl Rng) -> ItemVerdict {
    again(item, "our own code failed".to_owned(), None, now, 0.0, rng)
}

/// The store refuses to withhold this row.
pub(super) fn not_withheld(
    item: &RunItem,
    error: &StoreError,
    now: Timestamp,
    rng: &mut impl Rng,
) -> ItemVerdict {
    let why = format!("its token could not be withheld, so it was not revoked: {error}");
    again(item, why, None, now, 0.0, rng)
}

fn acknowledged(
    item: &RunItem,
    operation: Operation,
    at: Timestamp,
    request_id: Option<String>,
) -> ItemVerdict {
    let then = item.campaign.then.unwrap_or(Then::Reissue);
    let step = match operation {
        Operation::Delete => Step::Deleted { at },
        _ => Step::Revoked { at, then },
    };
    // Of many it is told once, when their campaign ends; but for what has to be known of one.
    let told = item.campaign.items() == 1 || !item.unconfirmed.is_empty();
    let notice = (operation == Operation::Revoke && told)
        .then(|| revoked(item, then, at, request_id.as_deref()));
    ItemVerdict {
        step: Some(StepOn {
            num: item.item.num,
            step,
            request_id: request_id.clone(),
        }),
        outcome: ItemOutcome::Done { at, request_id },
        notice,
    }
}

/// More orders failed for good than are told one by one.
pub(super) fn many_failed(resource: &ResourceName, more: u32, at: Timestamp) -> Notice {
    Notice::new(NoticeKind::OrderFailed, at, format!(
            "What was ordered for {more} more identities of {resource} failed for good. See `renewd status`."
        )).about(resource)
}

fn failed(
    item: &RunItem,
    failure: &Failure,
    now: Timestamp,
    chance: f64,
    rng: &mut impl Rng,
) -> ItemVerdict {
    let request_id = failure.request_id.clone();
    if failure.class == FailureClass::Gone {
        return gone(item, failure, now);
    }
    let unanswered = failure.status.is_none() && failure.about != About::Request;
    if unanswered && !item_is_over(0, item.unanswered + 1, chance) {
        // What was not answered is tried again, and counts for nothing but that.
        let gap = item_gap(item.item.attempts + item.unanswered + 1, rng);
        return ItemVerdict {
            step: None,
            outcome: ItemOutcome::Unanswered {
                next_at: now.checked_add(gap).unwrap_or(now),
                error: failure.message.clone(),
                request_id,
            },
            notice: None,
        };
    }
    let mut verdict = again(item, failure.message.clone(), request_id, now, chance, rng);
    if let ItemOutcome::Retry { next_at, .. } = &mut verdict.outcome {
        // One that alone is asked to wait does.
        let told = failure.retry_after.unwrap_or_default().min(LONGEST_WAIT);
        *next_at = now.checked_add(told).unwrap_or(now).max(*next_at);
    }
    verdict
}

/// Nothing can be revoked of it any more: what its consumers hold is withdrawn, as wherever this is
/// learned.
fn gone(item: &RunItem, failure: &Failure, now: Timestamp) -> ItemVerdict {
    let request_id = failure.request_id.clone();
    let ours = item.item.state.is_some_and(|state| state != State::Gone);
    let status = failure
        .status
        .map_or(String::new(), |status| format!(" {status}"));
    ItemVerdict {
        step: ours.then(|| StepOn {
            num: item.item.num,
            step: Step::Gone {
                attempt: Attempt {
                    at: now,
                    result: format!("{}{status}", failure.class.as_str()),
                    request_id: request_id.clone(),
                },
                because: failure.message.clone(),
            },
            request_id: request_id.clone(),
        }),
        outcome: ItemOutcome::Failed {
            error: failure.message.clone(),
            request_id,
        },
        notice: None,
    }
}

/// Another attempt later, unless there were enough and `chance` says that it is the item.
fn again(
    item: &RunItem,
    error: String,
    request_id: Option<String>,
    now: Timestamp,
    chance: f64,
    rng: &mut impl Rng,
) -> ItemVerdict {
    let attempts = item.item.attempts + 1;
    if item_is_over(attempts, item.unanswered + 1, chance) {
        return ItemVerdict {
            step: None,
            notice: Some(failed_for_good(item, &error, now)),
            outcome: ItemOutcome::Failed { error, request_id },
        };
    }
    let gap = item_gap(attempts, rng);
    ItemVerdict {
        step: None,
        outcome: ItemOutcome::Retry {
            next_at: now.checked_add(gap).unwrap_or(now),
            error,
            request_id,
        },
        notice: None,
    }
}

fn failed_for_good(item: &RunItem, error: &str, at: Timestamp) -> Notice {
    let (campaign, label) = (&item.campaign, item.item.label());
    let what = match campaign.action {
        CampaignAction::Revoke => "The tokens of {} could not be revoked and may still work",
        CampaignAction::Delete => "{} could not be deleted",
        _ => "What was ordered for {} could not be done",
    };
    let what = what.replace("{}", label);
    let id = campaign.id;
    Notice {
        at,
        kind: NoticeKind::OrderFailed,
        resource: Some(item.item.resource.clone()),
        name: item.item.name.clone(),
        key: Some(Notice::order_key(label)),
        message: format!(
            "{what}: {error}. It was ordered by {}; `renewd campaign retry {id}` tries again.",
            campaign.actor
        ),
    }
}

fn revoked(item: &RunItem, then: Then, at: Timestamp, request_id: Option<&str>) -> Notice {
    let follows = match then {
        Then::Reissue => "a new one follows",
        Then::Hold => "it is held until it is released",
    };
    let mut message = format!(
        "All tokens of {} were revoked by {}; {follows}. ACS may take 15 minutes until the old ones are refused everywhere.",
        item.item.label(),
        item.campaign.actor
    );
    if let Some(reason) = &item.campaign.reason {
        message.push_str(&format!(" Reason: {reason}."));
    }
    if let Some(request_id) = request_id {
        message.push_str(&format!(" Request {request_id}."));
    }
    if !item.unconfirmed.is_empty() {
        let sinks = item.unconfirmed.join(", ");
        message.push_str(&format!(" Not confirmed before the revocation: {sinks}."));
    }
    Notice {
        at,
        kind: NoticeKind::IdentityRevoked,
        resource: Some(item.item.resource.clone()),
        name: item.item.name.clone(),
        key: Some(Notice::order_key(item.item.label())),
        message,
    }
}

/// The row of the harmless call: no item has it.
pub(super) const NOBODY: Num = Num::MIN;
/// While others wait, one turn of so many goes to an item that fails.
const SHARE: u32 = 10;
/// Between two harmless calls, where not only probes go out.
const EVERY: Steady = Steady::from_secs(1);

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum ItemTurn {
    Of(Box<RunItem>),
    /// The operation is tried out on nobody.
    Nobody,
}

/// What waits for one operation.
#[derive(Debug)]
pub(super) struct ItemLine {
    pub(super) operation: Operation,
    fresh: VecDeque<RunItem>,
    failing: VecDeque<RunItem>,
    /// Turns since the last one of an item that fails.
    turns: u32,
    /// The harmless call is on its way.
    trying: bool,
    tried: Option<Steady>,
}

impl ItemLine {
    pub(super) fn new(operation: Operation) -> Self {
        Self {
            operation,
            fresh: VecDeque::new(),
            failing: VecDeque::new(),
            turns: 0,
            trying: false,
            tried: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.failing.len()
    }

    /// At the end of its part, also when it comes back because something holds the operation: what is
    /// gated never blocks the head.
    pub(super) fn push(&mut self, item: RunItem) {
        match item.fails() {
            true => self.failing.push_back(item),
            false => self.fresh.push_back(item),
        }
    }

    pub(super) fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Back to where it was: its call could not start.
    pub(super) fn give_back(&mut self, item: RunItem) {
        match item.fails() {
            true => self.failing.push_front(item),
            false => self.fresh.push_front(item),
        }
    }

    /// Lets go of the items of campaigns that do not run any more; their rows.
    pub(super) fn let_go(&mut self, runs: impl Fn(CampaignId) -> bool) -> Vec<Num> {
        let mut gone = Vec::new();
        for part in [&mut self.fresh, &mut self.failing] {
            part.retain(|item| {
                let keep = runs(item.campaign.id);
                if !keep {
                    gone.push(item.item.num);
                }
                keep
            });
        }
        gone
    }

    /// Whose turn it is; the caller has seen that a call may start.
    pub(super) fn next(&mut self, gate: &Gate, now: Steady) -> Option<ItemTurn> {
        if self.len() == 0 {
            return None;
        }
        if gate.is_probing(self.operation) {
            return self.probe(gate.passed_over(self.operation));
        }
        let blind = self.fresh.iter().all(|item| item.tried);
        let due = self.tried.is_none_or(|at| now >= at + EVERY);
        if blind && due && !self.trying {
            return Some(self.try_out(now));
        }
        let turn = self.failing.is_empty() || (self.turns + 1 < SHARE && !self.fresh.is_empty());
        let item = match turn {
            true => self.fresh.pop_front(),
            false => self.failing.pop_front(),
        };
        self.turns = if turn { self.turns + 1 } else { 0 };
        item.map(|item| ItemTurn::Of(Box::new(item)))
    }

    /// The next probe: by turns the first item and one that was not tried since only probes go out; once
    /// all were, nobody.
    fn probe(&mut self, passed: Option<&BTreeSet<Num>>) -> Option<ItemTurn> {
        let fresh = |item: &RunItem| {
            !item.tried && passed.is_none_or(|probed| !probed.contains(&item.item.num))
        };
        let untried = self.fresh.iter().position(fresh);
        let all_tried = self.fresh.iter().all(|item| item.tried);
        let nobodys = passed.is_none_or(|probed| !probed.contains(&NOBODY));
        match (untried, passed) {
            (Some(at), Some(_)) => self.fresh.remove(at),
            _ if all_tried && nobodys && !self.trying => return Some(self.try_out(Steady::ZERO)),
            _ if self.fresh.is_empty() => self.failing.pop_front(),
            _ => self.fresh.pop_front(),
        }
        .map(|item| ItemTurn::Of(Box::new(item)))
    }

    fn try_out(&mut self, now: Steady) -> ItemTurn {
        self.trying = true;
        self.tried = Some(now);
        ItemTurn::Nobody
    }

    /// The harmless call could not start, or has ended.
    pub(super) fn tried_out(&mut self) {
        self.trying = false;
    }
}
