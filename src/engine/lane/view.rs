//! What a lane publishes each time round, and when it decides again.

use jiff::Timestamp;

use super::{LONGEST_REST, Lane, Moment, SHORTEST_REST, queue::Queue, starting::press};
use crate::{
    model::{HealthView, LaneView, Operation},
    schedule::{Press, Steady, presses_at},
};

impl Lane {
    /// Publishes what the lane knows.
    pub(super) fn publish(&mut self) {
        let now = self.moment();
        let key_hold = self
            .keys
            .until(None)
            .map(|(until, because)| held(now, until, because));
        let mut view = LaneView {
            decided_at: Some(now.wall),
            in_flight: self.calls.len(),
            next_due: [&self.issue, &self.create]
                .into_iter()
                .filter_map(|queue| queue.next_due(now.wall))
                .min(),
            skew_ms: self
                .client
                .measured_skew()
                .map(|skew| skew.as_millis() as i64),
            doubted: self.client.doubted_keys(),
            blocked: self.ledger.trouble().map(str::to_owned),
            creation_refused: self.creation_refused.clone(),
            calls: self.results.clone(),
            ..LaneView::default()
        };
        for queue in [&mut self.issue, &mut self.create] {
            let name = queue.operation.as_str().to_owned();
            let health = key_hold.clone().unwrap_or_else(|| queue.view(now));
            view.pace.insert(name.clone(), queue.pace.view(now.steady));
            view.health.insert(name, health);
        }
        self.view.send_replace(view);
    }

    /// When to decide again at the latest.
    pub(super) fn wake(&mut self) -> Timestamp {
        let now = self.moment();
        let mut at = now.steady + LONGEST_REST;
        let mut sooner = |other: Option<Steady>| at = other.map_or(at, |other| at.min(other));
        sooner(self.late.fold.ends_at());
        sooner(self.choked.values().min().copied());
        if !self.ledger.is_open() {
            sooner(self.ledger.retry_at());
        } else {
            sooner(self.scan.is_on().then_some(now.steady));
            sooner(self.queue_wake(Operation::Issue, now));
            sooner(self.queue_wake(Operation::CreateWithToken, now));
        }
        now.wall_at(at.max(now.steady + SHORTEST_REST))
    }

    /// When something of this operation may start that could not now; `None` while only an ended
    /// call can make room.
    fn queue_wake(&mut self, operation: Operation, now: Moment) -> Option<Steady> {
        if operation == Operation::CreateWithToken && self.creation_refused.is_some() {
            return None;
        }
        let Some(head) = self.queue_of(operation).ready.front() else {
            let look_at = self.queue_of(operation).look_at?;
            let wait =
                std::time::Duration::try_from(look_at.duration_since(now.wall)).unwrap_or_default();
            return Some(now.steady + wait);
        };
        let remaining = self.remaining(head, now);
        if let Some((until, _)) = self.keys.until(remaining.alive()) {
            return self.calls.is_empty().then_some(until);
        }
        let queue = self.queue_of(operation);
        if queue.health.is_probing() {
            return queue.health.probe_at(remaining.pressing());
        }
        if self.room(operation, remaining, now) == 0 {
            return None;
        }
        let grounds = self.grounds();
        let press = press(head, &grounds, now);
        // One that waits for a lowered pace need not, once it presses.
        let late = self.queue_of(operation).ready.iter();
        let late = late
            .filter_map(|row| presses_at(row, &grounds, now.wall))
            .min();
        let late = late.filter(|_| press == Press::Ordinary).map(|at| {
            let wait = at.duration_since(now.wall);
            now.steady + std::time::Duration::try_from(wait).unwrap_or_default()
        });
        let queue = self.queue(operation);
        let wanted = u32::try_from(queue.ready.len()).unwrap_or(u32::MAX);
        let ready = queue.pace.ready_at(wanted, press, now.steady);
        ready.into_iter().chain(late).min()
    }

    pub(super) fn queue_of(&self, operation: Operation) -> &Queue {
        match operation {
            Operation::CreateWithToken => &self.create,
            _ => &self.issue,
        }
    }
}

impl Queue {
    fn view(&mut self, now: Moment) -> HealthView {
        match self.pace.held_until(now.steady) {
            Some(until) if !self.health.is_probing() => {
                held(now, until, "ACS answered 429 and asked us to wait")
            }
            _ => self.health.view(),
        }
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        match self.ready.front() {
            Some(record) => record.due.map(|due| due.at),
            None => self.look_at.map(|at| at.max(now)),
        }
    }
}

fn held(now: Moment, until: Steady, because: &str) -> HealthView {
    HealthView::Held {
        until: now.wall_at(until),
        because: because.to_owned(),
    }
}
