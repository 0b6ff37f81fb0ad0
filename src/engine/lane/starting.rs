//! Starting calls: as many as health, pace, keys and the ledger allow, earliest expiry first.

use super::{
    Lane, Moment,
    call::{Ask, Flight, obtain},
    queue,
};
use crate::{
    model::{Change, Operation, Record},
    schedule::{Action, Grounds, Press, Remaining, call_deadline, decide, hastened, presses_at},
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
            let remaining = self.remaining(&record, now);
            let press = press(&record, &self.grounds(), now);
            let may = self.room(operation, remaining, now) > 0
                && self.permit(operation, press, now).await?;
            if !may {
                self.queue(operation).ready.push_front(record);
                return Ok(());
            }
            self.launch(operation, record);
        }
    }

    /// How many more calls of an operation may start now, pace aside.
    pub(super) fn room(&self, operation: Operation, remaining: Remaining, now: Moment) -> usize {
        let queue = self.queue_of(operation);
        let (in_flight, left) = (self.calls.len(), remaining.pressing());
        if !self.keys.admits(in_flight, remaining.alive(), now.steady) {
            return 0;
        }
        self.settings
            .max_in_flight
            .saturating_sub(in_flight)
            .min(self.ledger.room(in_flight))
            .min(queue.health.room(queue.in_flight, left, now.steady))
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
        let probing = self.is_probing(operation);
        let mut skip = self.busy.clone();
        let queue = self.queue(operation);
        let limit = if probing { 1 } else { queue.handful() };
        if probing && let Some(passed) = queue.passed_over() {
            skip.extend(passed);
        }
        let name = self.settings.name.clone();
        let mut rows = self
            .store
            .due(&name, queue::work(operation), now.wall, limit, &skip)
            .await?;
        if rows.is_empty() && skip.len() > self.busy.len() {
            self.queue(operation).forget_probed();
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

    /// Takes a permit that the store knows of; getting one proves that the store can be written
    /// before ACS is called.
    async fn permit(
        &mut self,
        operation: Operation,
        press: Press,
        now: Moment,
    ) -> Result<bool, StoreError> {
        let queue = self.queue(operation);
        if queue.pace.available(press, now.steady) == 0 {
            let wanted = u32::try_from(queue.ready.len() + 1).unwrap_or(u32::MAX);
            let permits = queue.pace.reservable(wanted, press, now.steady);
            if permits == 0 {
                return Ok(false);
            }
            let window = queue.pace.noted(permits, now.steady);
            let at = |ahead| now.wall.checked_add(ahead).unwrap_or(now.wall);
            let window = window.into_iter().map(|(calls, ahead)| (calls, at(ahead)));
            let name = &self.settings.name;
            self.store
                .reserve(name, operation, window.collect())
                .await?;
            self.queue(operation).pace.reserved(permits, now.steady);
        }
        let steady = self.clock.steady();
        Ok(self.queue(operation).pace.start(press, steady))
    }

    fn launch(&mut self, operation: Operation, record: Record) {
        let now = self.moment();
        let remaining = self.remaining(&record, now);
        let ask = Ask {
            num: record.num,
            id: record.id.clone(),
            scopes: record.spec.scopes.clone(),
            lifetime: record.spec.lifetime,
            deadline: call_deadline(remaining),
        };
        let probing = self.is_probing(operation);
        let queue = self.queue(operation);
        if probing {
            queue.probe(record.num);
        }
        queue.in_flight += 1;
        let ticket = queue.health.start(now.steady);
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
        if !std::mem::take(&mut self.hastening) {
            return Ok(());
        }
        let now = self.moment();
        let name = self.settings.name.clone();
        let failing = self.store.failing(&name, now.wall, HASTENED).await?;
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
        Ok(())
    }

    pub(super) fn is_probing(&self, operation: Operation) -> bool {
        self.queue_of(operation).health.is_probing() || self.keys.until(None).is_some()
    }
}
