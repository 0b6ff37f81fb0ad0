//! Which rows are called for, in which order, and the calls that are in flight.
//!
//! Rows wait in lines, one for each operation, and one more for those that fail by themselves. Calls start,
//! earliest expiry first, as many as gate, pace and outbox allow. After a start, and after the clock was
//! corrected backwards, rows that wait for an instant which their token makes senseless get a due time that
//! fits: page by page, so that it never blocks.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Moment, Renewer};
use crate::{
    acs::Client,
    clock::Clock,
    config::Limit,
    model::{Change, Failure, Headroom, IdentityId, Num, Operation, Record, Scope, Secret},
    schedule::{
        Action, Grounds, Press, Remaining, Situation, Steady, Ticket, call_deadline, decide,
        hastened, is_refused_again, misplaced, press,
    },
    store::{Store, StoreError, Work},
};

/// Rows in hand are read again after this long: their order may have changed.
const FRESH: Duration = Duration::from_secs(1);
/// The same where there are more, none of them may start, and nobody was made due beside them.
const UNSTIRRED: Duration = Duration::from_secs(5);

/// One operation of a renewer.
#[derive(Debug)]
pub(super) struct Queue {
    /// Due rows in hand, the most urgent first.
    pub(super) ready: VecDeque<Record>,
    read_at: Steady,
    /// One of them was started, or something became due, since then.
    stirred: bool,
    /// The earliest due time of all that wait, in hand or not, when rows were last read.
    pub(super) earliest: Option<Timestamp>,
    /// When rows may be due that are not in hand.
    pub(super) look_at: Option<Timestamp>,
    limit: Limit,
}

/// A line of rows that wait for one operation. Those that fail by themselves wait in a line of their
/// own, so that they keep nobody waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) operation: Operation,
    pub(super) alone: bool,
}

impl Line {
    /// Those that are not known to fail by themselves.
    pub(super) fn main(operation: Operation) -> Self {
        Self {
            operation,
            alone: false,
        }
    }

    /// Those that are known to fail by themselves.
    pub(super) fn alone(operation: Operation) -> Self {
        Self {
            operation,
            alone: true,
        }
    }

    /// The other one of the same operation.
    fn other(self) -> Self {
        Self {
            alone: !self.alone,
            ..self
        }
    }

    /// Which rows of the store it is.
    pub(super) fn work(self) -> (Work, bool) {
        let work = match self.operation {
            Operation::CreateWithToken => Work::Create,
            _ => Work::Issue,
        };
        (work, self.alone)
    }
}

/// The lines of an operation.
#[derive(Debug)]
pub(super) struct Queues {
    main: Queue,
    alone: Queue,
    /// What those that fail by themselves have saved up of the permits of the others.
    saved: u32,
}

/// While others wait, those that fail by themselves get one permit after so many of theirs.
const TENTH: u32 = 10;
/// More than so many are not saved up.
const MOST_SAVED: u32 = 3;

impl Queues {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            main: Queue::new(limit),
            alone: Queue::new(limit),
            saved: 0,
        }
    }

    pub(super) fn line(&self, line: Line) -> &Queue {
        match line.alone {
            true => &self.alone,
            false => &self.main,
        }
    }

    pub(super) fn line_mut(&mut self, line: Line) -> &mut Queue {
        match line.alone {
            true => &mut self.alone,
            false => &mut self.main,
        }
    }

    pub(super) fn both(&mut self) -> [&mut Queue; 2] {
        [&mut self.main, &mut self.alone]
    }

    /// Whether it is the turn of one that fails by itself, although others wait.
    pub(super) fn tenth_is_saved(&self) -> bool {
        self.saved >= TENTH
    }

    pub(super) fn started(&mut self, alone: bool) {
        match alone {
            true => self.saved = self.saved.saturating_sub(TENTH),
            false => self.saved = (self.saved + 1).min(TENTH * MOST_SAVED),
        }
    }
}

impl Queue {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            ready: VecDeque::new(),
            read_at: Steady::ZERO,
            stirred: false,
            earliest: None,
            look_at: Some(Timestamp::MIN),
            limit,
        }
    }

    /// Rows may have become due.
    pub(super) fn look_again(&mut self) {
        self.look_at = Some(Timestamp::MIN);
        self.stirred = true;
    }

    /// A row will be due then.
    pub(super) fn due_at(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |look| look.min(at)));
    }

    /// Whether the rows in hand should be read (again).
    pub(super) fn wants_rows(&self, now: Moment) -> bool {
        if self.ready.is_empty() {
            self.look_at.is_some_and(|at| at <= now.wall)
        } else {
            let lasts = match self.stirred || self.ready.len() < self.handful() {
                true => FRESH,
                false => UNSTIRRED,
            };
            now.steady >= self.read_at + lasts
        }
    }

    pub(super) fn hold(&mut self, rows: Vec<Record>, now: Moment) {
        self.ready = rows.into();
        self.read_at = now.steady;
        self.stirred = false;
    }

    /// How many rows to take into hand at once: some rounds' worth, so that the ordering query is
    /// not run for each call.
    pub(super) fn handful(&self) -> usize {
        (self.limit.calls as usize / 8).clamp(64, 1024)
    }
}

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
pub(super) struct TokenAsk {
    pub(super) num: Num,
    pub(super) id: Option<IdentityId>,
    pub(super) scopes: Vec<Scope>,
    pub(super) lifetime: Duration,
    pub(super) deadline: Duration,
}

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct CallDone {
    pub(super) ended: Timestamp,
    pub(super) result: CallResult,
}

#[derive(Debug)]
pub(crate) enum CallResult {
    Token(Obtained),
    /// An identity was made, but its token could not be read.
    Named {
        id: IdentityId,
        request_id: Option<String>,
        /// Requests sent for it.
        requests: u32,
    },
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
pub(crate) struct Obtained {
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
pub(super) async fn obtain(
    client: Arc<Client>,
    store: Store,
    clock: Clock,
    ask: TokenAsk,
) -> CallDone {
    let result = match &ask.id {
        Some(id) => issue(&client, id, &ask).await,
        None => create(&client, &store, &clock, &ask).await,
    };
    CallDone {
        ended: clock.now(),
        result,
    }
}

async fn issue(client: &Client, id: &IdentityId, ask: &TokenAsk) -> CallResult {
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

async fn create(client: &Client, store: &Store, clock: &Clock, ask: &TokenAsk) -> CallResult {
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

/// At most so many rows are hastened after an outage; only those fail that were tried in it.
const HASTENED: usize = 1000;
/// So many results at least may be obtained and not committed.
const SMALLEST_BATCH: usize = 256;

/// What became of the turn of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Started,
    /// Something waits, and may not start yet.
    MustWait,
    Nobody,
}

impl Renewer {
    /// Starts what may start of one operation.
    pub(super) async fn start_queue(&mut self, operation: Operation) -> Result<(), StoreError> {
        if operation == Operation::CreateWithToken && self.creation_refused.is_some() {
            return Ok(());
        }
        let (main, alone) = (Line::main(operation), Line::alone(operation));
        loop {
            if self.queues(operation).tenth_is_saved() {
                self.start_next(alone).await?;
            }
            match self.start_next(main).await? {
                Next::Started => {}
                Next::MustWait => return Ok(()),
                Next::Nobody => break,
            }
        }
        while self.start_next(alone).await? == Next::Started {}
        Ok(())
    }

    /// Starts the call of the row whose turn it is in a line.
    async fn start_next(&mut self, line: Line) -> Result<Next, StoreError> {
        let now = self.moment();
        let Some((record, action)) = self.next_row(line, now).await? else {
            return Ok(Next::Nobody);
        };
        let waits = self.find_out(line, &record, &action, now).await?;
        let ticket = match waits {
            true => None,
            false => self.permit(line, &record, &action, now).await?,
        };
        let Some(ticket) = ticket else {
            self.queue(line).ready.push_front(record);
            return self.start_pressing(line, now).await;
        };
        self.queue(line).stirred = true;
        self.launch(ticket, line.operation, record);
        Ok(Next::Started)
    }

    /// Where the head of a line waits for a pace that was lowered, one behind it may press.
    async fn start_pressing(&mut self, line: Line, now: Moment) -> Result<Next, StoreError> {
        let grounds = self.grounds();
        let presses = |row: &Record| press(row, &grounds, now.wall) == Press::Pressing;
        let ready = &self.queue_of(line).ready;
        let behind = ready.iter().position(presses).filter(|at| *at > 0);
        let held = ready.front().is_none_or(presses) || line.alone;
        let Some(record) = behind
            .filter(|_| !held)
            .and_then(|at| self.queue(line).ready.remove(at))
        else {
            return Ok(Next::MustWait);
        };
        let action = self.decide(line, &record, now);
        match self.permit(line, &record, &action, now).await? {
            Some(ticket) => {
                self.queue(line).stirred = true;
                self.launch(ticket, line.operation, record);
                Ok(Next::Started)
            }
            None => {
                self.queue(line).ready.push_back(record);
                Ok(Next::MustWait)
            }
        }
    }

    /// Whether as many calls are in flight for rows that fail by themselves as may, so that slow failures leave the
    /// others their room.
    pub(super) fn is_full_of_failing(&self) -> bool {
        let most = (self.settings.max_in_flight / 10).max(1);
        let flights = self.flights.values();
        let alone = flights.filter(|flight| flight.record.failing_since.is_some());
        alone.count() >= most
    }

    /// How many more calls of the renewer may start now, whatever the gate says.
    pub(super) fn room(&self) -> usize {
        let in_flight = self.calls.len();
        let most = self.settings.max_in_flight;
        // What is in flight and not committed is at most one batch.
        let batch = (4 * most).max(SMALLEST_BATCH);
        let uncommitted = batch.saturating_sub(in_flight + self.outbox.pressing());
        most.saturating_sub(in_flight).min(uncommitted)
    }

    /// What the renewer has room for in a line, and what it is finding out.
    pub(super) fn headroom(&self, line: Line) -> Headroom {
        let gate = self.permits.gate();
        let main = &self.queue_of(Line::main(line.operation)).ready;
        let vouches = self.doubts.vouches(self.clock.steady());
        Headroom {
            full: self.room() == 0,
            full_of_failing: line.alone && self.is_full_of_failing(),
            waiting: self.queue_of(line).ready.len() + 1,
            testified: main
                .iter()
                .all(|row| gate.has_testified(line.operation, row.num)),
            rests_until: self.doubts.rest,
            vouching: vouches && main.iter().all(is_refused_again),
        }
    }

    /// What is decided about a row.
    fn decide(&self, line: Line, record: &Record, now: Moment) -> Action {
        let headroom = self.headroom(line);
        let mut situation = Situation {
            blocked: self.outbox.trouble(),
            creation_refused: self.creation_refused.as_deref(),
            grounds: &self.grounds(),
            headroom,
            gate: &mut self.permits.gate(),
        };
        decide(record, &mut situation, now)
    }

    pub(super) fn remaining(&self, record: &Record, now: Moment) -> Remaining {
        Remaining::of(record, &self.grounds(), now.wall)
    }

    /// What decides how tokens of this resource stand.
    pub(super) fn grounds(&self) -> Grounds {
        Grounds {
            skew: self.client.skew(),
            doubted: self.client.doubted_keys(),
        }
    }

    /// The most urgent row that waits, and what is decided about it.
    async fn next_row(
        &mut self,
        line: Line,
        now: Moment,
    ) -> Result<Option<(Record, Action)>, StoreError> {
        if self.queue(line).wants_rows(now) {
            self.read_rows(line, now).await?;
        }
        while let Some(record) = self.queue(line).ready.pop_front() {
            let action = self.decide(line, &record, now);
            if matches!(
                action,
                Action::Issue { .. } | Action::Create { .. } | Action::HeldBack { .. }
            ) {
                return Ok(Some((record, action)));
            }
        }
        Ok(None)
    }

    async fn read_rows(&mut self, line: Line, now: Moment) -> Result<(), StoreError> {
        let mut skip = self.busy.clone();
        let limit = {
            let gate = self.permits.gate();
            skip.extend(gate.passed_over(line.operation).into_iter().flatten());
            match gate.is_probing(line.operation) {
                true => 1,
                false => self.queue_of(line).handful(),
            }
        };
        let name = self.settings.name.clone();
        let mut rows = self
            .store
            .due_in(&name, line.work(), now.wall, limit, &skip)
            .await?;
        if rows.is_empty() && skip.len() > self.busy.len() {
            // Those of the other line wait for the same probes.
            let other = line.other().work();
            let untried = self.store.due_in(&name, other, now.wall, 1, &skip).await?;
            if !untried.is_empty() {
                let queue = self.queue(line);
                queue.hold(rows, now);
                queue.look_at = now.wall.checked_add(FRESH).ok();
                return Ok(());
            }
            self.permits.gate().forget_probed(line.operation);
            let busy = &self.busy;
            rows = self
                .store
                .due_in(&name, line.work(), now.wall, limit, busy)
                .await?;
        }
        if rows.is_empty() {
            let next = self
                .store
                .next_due_in(&name, line.work(), &self.busy)
                .await?;
            self.queue(line).look_at = next;
        }
        let nobody = BTreeSet::new();
        let earliest = self.store.next_due_in(&name, line.work(), &nobody).await?;
        let queue = self.queue(line);
        queue.earliest = earliest;
        queue.hold(rows, now);
        Ok(())
    }

    /// Takes a permit for a row about which it is decided that it may go.
    async fn permit(
        &mut self,
        line: Line,
        record: &Record,
        action: &Action,
        now: Moment,
    ) -> Result<Option<Ticket>, StoreError> {
        if !matches!(action, Action::Issue { .. } | Action::Create { .. }) {
            return Ok(None);
        }
        let waiting = self.queue_of(line).ready.len() + 1;
        let press = press(record, &self.grounds(), now.wall);
        self.permits
            .take(line.operation, record.num, press, waiting)
            .await
    }

    fn launch(&mut self, ticket: Ticket, operation: Operation, record: Record) {
        let now = self.moment();
        let remaining = self.remaining(&record, now);
        let ask = TokenAsk {
            num: record.num,
            id: record.id.clone(),
            scopes: record.spec.declared.scopes.clone(),
            lifetime: record.spec.declared.lifetime,
            deadline: call_deadline(remaining),
        };
        self.busy.insert(record.num);
        let alone = record.failing_since.is_some();
        self.queues(operation).started(alone);
        if alone {
            self.permits.gate().knows_failing(operation, record.num);
        }
        let call = obtain(
            self.client.clone(),
            self.store.clone(),
            self.clock.clone(),
            ask,
        );
        let task = self.calls.spawn(call);
        let flight = Flight {
            record,
            operation,
            ticket,
            began: now.wall,
        };
        self.flights.insert(task.id(), flight);
    }

    /// After an outage what failed in it is due at once, instead of waiting for times that were drawn
    /// while nothing answered; but never sooner than a second after its last attempt.
    pub(super) async fn hasten_failed(&mut self) -> Result<(), StoreError> {
        let refused = self.hastening_refused;
        let Some(after) = self.hastening else {
            return Ok(());
        };
        let now = self.moment();
        let name = self.settings.name.clone();
        let failing = self.store.failing(&name, after, HASTENED).await?;
        let full = failing.last().filter(|_| failing.len() == HASTENED);
        let next = full.and_then(|last| last.due).map(|due| due.at);
        let changes: Vec<Change> = failing
            .iter()
            .filter(|record| !self.busy.contains(&record.num))
            .filter_map(|record| hastened(record, refused, now.wall))
            .map(|(num, due)| Change::Due { num, due })
            .collect();
        if !changes.is_empty() {
            self.store.commit(changes, now.wall).await?;
            self.look_again();
        }
        // Only now: what the store did not take is hastened again.
        self.hastening = next;
        self.hastening_refused &= next.is_some();
        Ok(())
    }
}

/// So many rows are looked at in one read, and so many of them are moved.
const LOOKED_AT: usize = 4096;
const MOVED: usize = 256;
/// Corrections up to this need no scan.
const SMALL: SignedDuration = SignedDuration::from_secs(2);

/// Where the scan stands.
#[derive(Debug)]
pub(super) struct Scan {
    /// The wall clock less the steady one, when last seen.
    offset: SignedDuration,
    /// The row after which the next page begins.
    next: Option<Num>,
    moved: u64,
}

impl Scan {
    pub(super) fn new(clock: &Clock) -> Self {
        let now = Moment {
            wall: clock.now(),
            steady: clock.steady(),
        };
        Self {
            offset: offset(now),
            next: Some(0),
            moved: 0,
        }
    }

    fn observe(&mut self, now: Moment) {
        let offset = offset(now);
        if offset < self.offset - SMALL {
            self.next = Some(0);
        }
        self.offset = offset;
    }
}

impl Renewer {
    /// Whether there are pages left, and what was moved before is as good as noted.
    pub(super) fn may_scan(&self) -> bool {
        self.scan.next.is_some() && self.outbox.pressing() <= MOVED
    }

    /// Looks at one page of rows, while there are pages left to look at.
    pub(super) async fn mend_due_times(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        self.scan.observe(now);
        let Some(after) = self.scan.next.filter(|_| self.may_scan()) else {
            return Ok(());
        };
        let (name, skew) = (self.settings.name.clone(), self.client.skew());
        let among = (after, LOOKED_AT, MOVED);
        let page = self
            .store
            .waiting_past_their_token(&name, among, skew, now.wall);
        let (mut rows, next) = page.await?;
        rows.retain(|row| !self.busy.contains(&row.num));
        for record in rows {
            if let Some(due) = misplaced(&record, skew, now.wall) {
                let num = record.num;
                tracing::debug!(identity = %record.spec.name, "its renewal is moved to {:.0}", due.at);
                self.scan.moved += 1;
                self.note(Change::Due { num, due }, Vec::new());
            }
        }
        self.scan.next = next;
        if next.is_none() && self.scan.moved > 0 {
            let moved = std::mem::take(&mut self.scan.moved);
            tracing::info!(resource = %self.settings.name, renewals = moved, "the clock was corrected; renewals were moved");
        }
        Ok(())
    }
}

fn offset(now: Moment) -> SignedDuration {
    let steady = SignedDuration::try_from(now.steady).unwrap_or(SignedDuration::MAX);
    SignedDuration::new(now.wall.as_second(), now.wall.subsec_nanosecond()) - steady
}
