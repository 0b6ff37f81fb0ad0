//! Starting calls: as many as health, pace, keys and the ledger allow, earliest expiry first.

use super::{
    Lane, Moment,
    call::{Ask, Flight, obtain},
    queue,
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

/// Whether a row waits for a lowered pace.
pub(super) fn press(record: &Record, grounds: &Grounds, now: Moment) -> Press {
    match presses_at(record, grounds, now.wall) {
        Some(at) if at <= now.wall => Press::Pressing,
        _ => Press::Ordinary,
    }
}

impl Lane {
    /// Starts what may start of one operation.
    pub(super) async fn start_queue(&mut self, operation: Operation) -> Result<(), StoreError> {
        if operation == Operation::CreateWithToken && self.creation_refused.is_some() {
            return Ok(());
        }
        loop {
            let now = self.moment();
            let Some(record) = self.next_row(operation, now).await? else {
                return Ok(());
            };
            let ticket = match self.is_doubtful(operation, &record, now) {
                true => None,
                false => self.permit(operation, &record, now).await?,
            };
            match ticket {
                Some(ticket) => self.launch(ticket, operation, record),
                None => {
                    self.queue(operation).ready.push_front(record);
                    return Ok(());
                }
            }
        }
    }

    /// How many more calls of the lane may start now, whatever the gate says.
    pub(super) fn room(&self) -> usize {
        let in_flight = self.calls.len();
        self.settings
            .max_in_flight
            .saturating_sub(in_flight)
            .min(self.ledger.room(in_flight))
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
    async fn next_row(
        &mut self,
        operation: Operation,
        now: Moment,
    ) -> Result<Option<Record>, StoreError> {
        if self.queue(operation).wants_rows(now) {
            self.read_rows(operation, now).await?;
        }
        while let Some(record) = self.queue(operation).ready.pop_front() {
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

    async fn read_rows(&mut self, operation: Operation, now: Moment) -> Result<(), StoreError> {
        let mut skip = self.busy.clone();
        let limit = {
            let gate = self.permits.gate();
            skip.extend(gate.passed_over(operation).into_iter().flatten());
            match gate.is_probing(operation) {
                true => 1,
                false => self.queue_of(operation).handful(),
            }
        };
        let name = self.settings.name.clone();
        let mut rows = self
            .store
            .due(&name, queue::work(operation), now.wall, limit, &skip)
            .await?;
        if rows.is_empty() && skip.len() > self.busy.len() {
            self.permits.gate().forget_probed(operation);
            let busy = &self.busy;
            rows = self
                .store
                .due(&name, queue::work(operation), now.wall, limit, busy)
                .await?;
        }
        if rows.is_empty() {
            let next = self
                .store
                .next_due(&name, queue::work(operation), &self.busy)
                .await?;
            self.queue(operation).look_at = next;
        }
        self.queue(operation).hold(rows, now);
        Ok(())
    }

    /// Takes a permit for a row, where room, gate and pace allow a call now.
    async fn permit(
        &mut self,
        operation: Operation,
        record: &Record,
        now: Moment,
    ) -> Result<Option<Ticket>, StoreError> {
        let remaining = self.remaining(record, now);
        let gate_room = self.permits.gate().room(operation, remaining, now.steady);
        if self.room().min(gate_room) == 0 {
            return Ok(None);
        }
        let waiting = self.queue_of(operation).ready.len() + 1;
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
            .filter_map(|record| hastened(record, now.wall))
            .map(|(num, due)| Change::Due { num, due })
            .collect();
        if !changes.is_empty() {
            self.store.commit(changes, now.wall).await?;
            self.issue.look_again();
            self.create.look_again();
        }
        // Only now: what the store did not take is hastened again.
        self.hastening = next;
        Ok(())
    }
}
