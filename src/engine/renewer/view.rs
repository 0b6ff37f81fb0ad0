//! What a renewer publishes each time round, and when it decides again.

use jiff::Timestamp;

use super::{
    Moment, Renewer,
    calls::{Line, Queue, press},
};
use crate::{
    model::{Operation, RenewerView},
    schedule::{Press, Steady, presses_at},
    worker::Wake,
};

/// While a question is open, whether others wait beside it is looked at so often.
const LOOK_BESIDE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a renewer calls.
pub(super) const OPERATIONS: [Operation; 2] = [Operation::Issue, Operation::CreateWithToken];

/// What campaigns call; the gate knows how those are, too.
const CAMPAIGNS: [Operation; 2] = [Operation::Revoke, Operation::Delete];

impl Renewer {
    /// Publishes what the renewer knows.
    pub(super) fn publish(&mut self) {
        let now = self.moment();
        let mut view = RenewerView {
            decided_at: Some(now.wall),
            in_flight: self.calls.len(),
            next_due: self
                .lines()
                .filter_map(|line| line.next_due(now.wall))
                .min(),
            skew_ms: self
                .client
                .measured_skew()
                .map(|skew| skew.as_millis() as i64),
            doubted: self.client.doubted_keys(),
            blocked: self.outbox.trouble().map(str::to_owned),
            creation_refused: self.creation_refused.clone(),
            calls: self.results.clone(),
            ..RenewerView::default()
        };
        {
            let mut gate = self.permits.gate();
            for operation in OPERATIONS.into_iter().chain(CAMPAIGNS) {
                let name = operation.as_str().to_owned();
                let pace = gate.pace(operation).view(now.steady);
                view.pace.insert(name.clone(), pace);
                view.contention = view.contention.or(gate.contention(operation, now));
                view.health.insert(name, gate.view(operation, now));
            }
        }
        self.view.send_replace(view);
    }

    /// When to decide again at the latest.
    pub(super) fn wake(&mut self) -> Timestamp {
        let now = self.moment();
        let mut wake = Wake::new(now);
        wake.by(self.late.fold.ends_at());
        wake.by(self.failing.ends_at());
        wake.by(self.resting.values().min().copied());
        wake.by(self.outbox.wakes_at());
        if self.outbox.is_open() {
            wake.by(Some(self.doubts.rest).filter(|rest| *rest > now.steady));
            wake.by(self.may_scan().then_some(now.steady));
            for operation in OPERATIONS {
                wake.by(self.queue_wake(Line::main(operation), now));
                wake.by(self.queue_wake(Line::alone(operation), now));
            }
        }
        wake.at()
    }

    /// When something of this operation may start that could not now; `None` while only an ended
    /// call can make room.
    fn queue_wake(&mut self, line: Line, now: Moment) -> Option<Steady> {
        let operation = line.operation;
        if operation == Operation::CreateWithToken && self.creation_refused.is_some() {
            return None;
        }
        let Some(head) = self.queue_of(line).ready.front() else {
            let look_at = self.queue_of(line).look_at?;
            let wait =
                std::time::Duration::try_from(look_at.duration_since(now.wall)).unwrap_or_default();
            return Some(now.steady + wait);
        };
        let others_wait = line.alone && !self.queue_of(Line::main(operation)).ready.is_empty();
        if self.room() == 0
            || others_wait
            || line.alone && self.alone_in_flight() >= self.most_alone()
        {
            return None;
        }
        if !line.alone && (self.doubts.is_asking() || now.steady < self.doubts.rest) {
            return Some(now.steady + LOOK_BESIDE);
        }
        let grounds = self.grounds();
        let (remaining, press) = (self.remaining(head, now), press(head, &grounds, now));
        // One that waits for a lowered pace need not, once it presses.
        let late = self.queue_of(line).ready.iter();
        let late = late
            .filter_map(|row| presses_at(row, &grounds, now.wall))
            .min();
        let late = late.filter(|_| press == Press::Ordinary).map(|at| {
            let wait = at.duration_since(now.wall);
            now.steady + std::time::Duration::try_from(wait).unwrap_or_default()
        });
        let waiting = self.queue_of(line).ready.len();
        let mut gate = self.permits.gate();
        let opens = gate.opens_at(operation, waiting, (press, remaining), now.steady);
        let late = late.filter(|_| !gate.is_probing(operation));
        opens.into_iter().chain(late).min()
    }
}

impl Queue {
    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        match self.ready.front() {
            Some(record) => self
                .earliest
                .into_iter()
                .chain(record.due.map(|due| due.at))
                .min(),
            None => self.look_at.map(|at| at.max(now)),
        }
    }
}
