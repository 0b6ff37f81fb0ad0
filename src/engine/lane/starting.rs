//! Starting calls: as many as gate, pace and outbox allow, earliest expiry first.

use std::collections::BTreeSet;

use super::{
    Lane, Moment,
    call::{Ask, Flight, obtain},
    queue::Line,
};
use crate::{
    model::{Change, Operation, Record},
    schedule::{
        Action, Grounds, Press, Remaining, Ticket, call_deadline, decide, hastened, presses_at,
    },
    store::StoreError,
};

/// At most so many rows are hastened after an outage; only those fail that were tried in it.
const HASTENED: usize = 1000;
/// So many results at least may be obtained and not committed.
const SMALLEST_BATCH: usize = 256;

/// Whether a row waits for a lowered pace.
pub(super) fn press(record: &Record, grounds: &Grounds, now: Moment) -> Press {
    match presses_at(record, grounds, now.wall) {
        Some(at) if at <= now.wall => Press::Pressing,
        _ => Press::Ordinary,
    }
}

/// What became of the turn of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Started,
    /// Something waits, and may not start yet.
    MustWait,
    Nobody,
}

impl Lane {
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
        if line.alone && self.alone_in_flight() >= self.most_alone() {
            return Ok(Next::MustWait);
        }
        let now = self.moment();
        let Some(record) = self.next_row(line, now).await? else {
            return Ok(Next::Nobody);
        };
        let waits = self.awaits_proof(line.operation, &record, now)
            || !line.alone && self.is_doubtful(line.operation, &record, now);
        let ticket = match waits {
            true => None,
            false => self.permit(line, &record, now).await?,
        };
        let Some(ticket) = ticket else {
            self.queue(line).ready.push_front(record);
            return self.start_pressing(line, now).await;
        };
        self.launch(ticket, line.operation, record);
        Ok(Next::Started)
    }

    /// Where the head of a line waits for a pace that was lowered, one behind it may press.
    async fn start_pressing(&mut self, line: Line, now: Moment) -> Result<Next, StoreError> {
        let grounds = self.grounds();
        let presses = |row: &Record| press(row, &grounds, now) == Press::Pressing;
        let ready = &self.queue_of(line).ready;
        let behind = ready.iter().position(presses).filter(|at| *at > 0);
        let held = ready.front().is_none_or(presses) || line.alone;
        let Some(record) = behind
            .filter(|_| !held)
            .and_then(|at| self.queue(line).ready.remove(at))
        else {
            return Ok(Next::MustWait);
        };
        match self.permit(line, &record, now).await? {
            Some(ticket) => {
                self.launch(ticket, line.operation, record);
                Ok(Next::Started)
            }
            None => {
                self.queue(line).ready.push_back(record);
                Ok(Next::MustWait)
            }
        }
    }

    /// Calls in flight for rows that fail by themselves.
    pub(super) fn alone_in_flight(&self) -> usize {
        let flights = self.flights.values();
        let alone = |flight: &&Flight| flight.record.failing_since.is_some();
        flights.filter(alone).count()
    }

    /// How many of those may be in flight, so that slow failures leave the others their room.
    pub(super) fn most_alone(&self) -> usize {
        (self.settings.max_in_flight / 10).max(1)
    }

    /// How many more calls of the lane may start now, whatever the gate says.
    pub(super) fn room(&self) -> usize {
        let in_flight = self.calls.len();
        let most = self.settings.max_in_flight;
        // What is in flight and not committed is at most one batch.
        let batch = (4 * most).max(SMALLEST_BATCH);
        let uncommitted = batch.saturating_sub(in_flight + self.outbox.pressing());
        most.saturating_sub(in_flight).min(uncommitted)
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

    /// The most urgent row that waits.
    async fn next_row(&mut self, line: Line, now: Moment) -> Result<Option<Record>, StoreError> {
        if self.queue(line).wants_rows(now) {
            self.read_rows(line, now).await?;
        }
        while let Some(record) = self.queue(line).ready.pop_front() {
            let action = decide(&record, &self.view.borrow(), now.wall);
            if matches!(
                action,
                Action::Issue { .. } | Action::Create { .. } | Action::HeldBack { .. }
            ) {
                return Ok(Some(record));
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

    /// Takes a permit for a row, where room, gate and pace allow a call now.
    async fn permit(
        &mut self,
        line: Line,
        record: &Record,
        now: Moment,
    ) -> Result<Option<Ticket>, StoreError> {
        let operation = line.operation;
        let remaining = self.remaining(record, now);
        let gate_room = self.permits.gate().room(operation, remaining, now.steady);
        if self.room().min(gate_room) == 0 {
            return Ok(None);
        }
        let waiting = self.queue_of(line).ready.len() + 1;
        let press = press(record, &self.grounds(), now);
        self.permits
            .take(operation, record.num, press, waiting)
            .await
    }

    fn launch(&mut self, ticket: Ticket, operation: Operation, record: Record) {
        let now = self.moment();
        let remaining = self.remaining(&record, now);
        let ask = Ask {
            num: record.num,
            id: record.id.clone(),
            scopes: record.spec.scopes.clone(),
            lifetime: record.spec.lifetime,
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
