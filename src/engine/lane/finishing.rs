//! What an ended call, and an ended commit, mean for the lane.

use tokio::task::{Id, JoinError};

use super::{
    Aside, Lane, Moment,
    call::{CallResult, Done, Flight},
    ledger::Written,
    messages,
    verdict::{self, Circumstances, judge},
};
use crate::{
    model::{Applied, AuditEntry, Change, Failure, FailureClass, Num, Operation},
    schedule::Finding,
    store::{Decided, StoreError},
};

impl Lane {
    /// A call has ended, or panicked.
    pub(super) fn on_call(&mut self, joined: Result<(Id, Done), JoinError>) {
        let (id, done) = match joined {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        let now = self.moment();
        let verdict = match done {
            Some(done) => {
                let finding = self.learn(&flight, &done, now);
                if finding.rate_is_back {
                    self.hastening_refused = true;
                    self.hastening = Some(now.wall);
                }
                let circumstances = Circumstances {
                    grounds: self.grounds(),
                    finding,
                };
                judge(&flight, done, &circumstances, &mut self.rng)
            }
            None => self.learn_panic(&flight, now),
        };
        if matches!(verdict.change, Change::Failed { .. }) {
            self.tell_if_late(&flight.record, now);
        }
        let mut notices = verdict.notices;
        notices.extend(self.failing_notices(&flight.record, &verdict.change, now));
        self.ledger.add(verdict.change, notices);
    }

    /// Takes from an ended call what it tells of the resource and of its row.
    fn learn(&mut self, flight: &Flight, done: &Done, now: Moment) -> Finding {
        let skew = self.client.skew();
        match &done.result {
            CallResult::Token(obtained) => {
                if obtained.switched_key {
                    self.tell_switched(&obtained.key, obtained.request_id.clone(), now);
                }
                if verdict::is_stillborn(obtained, done.ended, skew) {
                    let failure = verdict::stillborn(obtained);
                    return self.learn_failure(flight, &failure, obtained.requests, now);
                }
                self.count(flight.operation, "ok");
                self.outage.heard();
                self.key_outage.heard();
                self.find(flight, obtained.requests, Ok(()), now)
            }
            CallResult::Named { requests, .. } => {
                self.count(flight.operation, "named");
                self.outage.heard();
                self.key_outage.heard();
                self.find(flight, *requests, Ok(()), now)
            }
            CallResult::Failed { failure, requests } => {
                self.learn_failure(flight, failure, *requests, now)
            }
            CallResult::NotSent(error) => {
                self.learn_not_sent(flight, error, now);
                Finding::default()
            }
        }
    }

    fn learn_failure(
        &mut self,
        flight: &Flight,
        failure: &Failure,
        requests: u32,
        now: Moment,
    ) -> Finding {
        self.count(flight.operation, failure.class.as_str());
        self.log_failure(flight, failure);
        if failure.class != FailureClass::Retry {
            self.outage.heard();
        }
        if !matches!(
            failure.class,
            FailureClass::Retry | FailureClass::Credentials
        ) {
            self.key_outage.heard();
        }
        self.doubts.because.clone_from(&failure.message);
        let finding = self.find(flight, requests, Err(failure), now);
        self.take_back(&finding);
        finding
    }

    /// Passes what became of a call on to the gate.
    fn find(
        &mut self,
        flight: &Flight,
        requests: u32,
        result: Result<(), &Failure>,
        now: Moment,
    ) -> Finding {
        let finding = self
            .permits
            .gate()
            .ended(flight.ticket, requests, result, now);
        if finding.opened {
            self.hastening = Some(now.wall);
        }
        finding
    }

    fn learn_not_sent(&mut self, flight: &Flight, error: &StoreError, now: Moment) {
        self.count(flight.operation, "not_sent");
        self.permits.gate().abandoned(flight.ticket, 0, now.steady);
        if let StoreError::Refused { reason, .. } = error {
            self.tell_creation_refused(reason, now);
        } else {
            self.ledger.failed(error, now.steady);
        }
    }

    fn learn_panic(&mut self, flight: &Flight, now: Moment) -> verdict::Verdict {
        tracing::error!(
            resource = %self.settings.name, identity = %flight.record.spec.name, operation = %flight.operation,
            "a call panicked; its identity is quarantined"
        );
        self.count(flight.operation, "panic");
        self.permits.gate().abandoned(flight.ticket, 1, now.steady);
        verdict::panicked(flight, now.wall, &mut self.rng)
    }

    fn count(&mut self, operation: Operation, result: &str) {
        self.metrics
            .call_ended(&self.settings.name, operation, result);
        if let Some(count) = self.results.get_mut(result) {
            *count += 1;
        } else {
            self.results.insert(result.to_owned(), 1);
        }
    }

    /// Once per failure; inside an announced outage nobody needs a line for each probe.
    fn log_failure(&self, flight: &Flight, failure: &Failure) {
        let (resource, operation) = (&self.settings.name, flight.operation);
        let (identity, request_id) = (&flight.record.spec.name, failure.request_id.as_deref());
        if self.outage.is_on() || self.key_outage.is_on() {
            tracing::debug!(%resource, %identity, %operation, request_id, "a probe failed: {}", failure.message);
        } else {
            tracing::warn!(%resource, %identity, %operation, request_id, "a token was not obtained: {}", failure.message);
        }
    }

    fn tell_switched(&mut self, key: &str, request_id: Option<String>, now: Moment) {
        let resource = &self.settings.name;
        tracing::warn!(%resource, key, "one access key is refused, the other one works and is used from now on");
        self.ledger
            .tell(messages::key_switched(resource, key, now.wall));
        self.ledger.audit(AuditEntry {
            at: now.wall,
            actor: "renewd".to_owned(),
            action: "key.switch".to_owned(),
            name: None,
            reason: Some(format!("{resource} refuses the other key")),
            request_id,
            result: format!("now using {key}"),
        });
    }

    /// A write has ended.
    pub(super) fn on_commit(&mut self, written: Written) {
        let now = self.moment();
        match written {
            Ok(applied) => {
                let took = self.ledger.took(now.steady);
                self.metrics.committed(applied.len(), took);
                for (decided, applied) in self.ledger.settled(now.steady).into_iter().zip(applied) {
                    self.on_applied(&decided.change, applied);
                }
            }
            Err(error) if error.is_unwritable() || matches!(error, StoreError::Closed { .. }) => {
                self.ledger.failed(&error, now.steady);
            }
            Err(error) => {
                tracing::error!(resource = %self.settings.name, %error, "results could not be committed");
                if let Some(decided) = self.ledger.choked() {
                    self.set_aside(decided, &error, now);
                }
            }
        }
    }

    /// A change that the store refuses by itself: it stays out of the way for a while, its row too. An
    /// identity that was made is at least not made anew: its id is committed alone. What was obtained is
    /// kept and tried again; what can be decided anew is not.
    fn set_aside(&mut self, decided: Decided, error: &StoreError, now: Moment) {
        let num = num_of(&decided.change);
        let until = now.steady + super::CHOKED;
        let kept = match decided.change {
            Change::Issued {
                id: Some(id),
                attempt,
                ..
            } => {
                let change = Change::Adopted { num, id, attempt };
                return self.ledger.add(change, decided.notices);
            }
            Change::Issued { .. } | Change::Adopted { .. } => Some(decided),
            _ => None,
        };
        let reason = error.to_string();
        let aside = Aside {
            until,
            kept,
            reason,
        };
        self.choked.insert(num, aside);
    }

    /// Lets rows go that were left alone long enough; what was obtained for them is tried again.
    pub(super) fn release_choked(&mut self) {
        let now = self.clock.steady();
        let over: Vec<Num> = self
            .choked
            .iter()
            .filter(|(_, aside)| aside.until <= now)
            .map(|(num, _)| *num)
            .collect();
        self.release(&over);
    }

    /// Lets rows go before their time: what was obtained for them is tried once more.
    pub(super) fn release_all(&mut self) {
        let all: Vec<Num> = self.choked.keys().copied().collect();
        self.release(&all);
    }

    fn release(&mut self, nums: &[Num]) {
        for num in nums {
            match self.choked.remove(num).and_then(|aside| aside.kept) {
                Some(Decided { change, notices }) => self.ledger.add(change, notices),
                None => {
                    self.busy.remove(num);
                }
            }
        }
        if !nums.is_empty() {
            self.look_again();
        }
    }

    fn on_applied(&mut self, change: &Change, applied: Applied) {
        let num = num_of(change);
        if !matches!(change, Change::LateNotified { .. } | Change::Excused { .. }) {
            self.busy.remove(&num);
        }
        match applied {
            Applied::Done(_) => {
                if let Some(due) = due_of(change) {
                    self.lines().for_each(|line| line.due_at(due));
                } else if matches!(change, Change::Gone { .. }) {
                    // The store says when it is asked for once more.
                    self.look_again();
                }
            }
            Applied::Stale => {
                tracing::debug!(resource = %self.settings.name, num, "a result came too late; its row had moved on");
                self.look_again();
            }
        }
    }
}

fn num_of(change: &Change) -> crate::model::Num {
    match change {
        Change::Issued { num, .. }
        | Change::Adopted { num, .. }
        | Change::Failed { num, .. }
        | Change::Gone { num, .. }
        | Change::Due { num, .. }
        | Change::Excused { num }
        | Change::LateNotified { num } => *num,
    }
}

fn due_of(change: &Change) -> Option<jiff::Timestamp> {
    match change {
        Change::Issued { due, .. } | Change::Failed { due, .. } | Change::Due { due, .. } => {
            Some(due.at)
        }
        Change::Adopted { attempt, .. } => Some(attempt.at),
        Change::Gone { .. } | Change::Excused { .. } | Change::LateNotified { .. } => None,
    }
}
