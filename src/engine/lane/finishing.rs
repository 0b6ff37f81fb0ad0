//! What an ended call, and an ended commit, mean for the lane.

use tokio::task::{Id, JoinError};

use super::{
    Lane, Moment,
    call::{CallResult, Done, Flight},
    messages,
    verdict::{self, Circumstances, judge},
};
use crate::{
    model::{Applied, AuditEntry, Change, Failure, FailureClass, Notice, Operation},
    outbox::{ASIDE, Refused, Written},
    schedule::Finding,
    store::{Decided, Posting, StoreError},
};

/// Notices that wait while the store cannot be written; older ones are let go.
const NOTICES_KEPT: usize = 1024;

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
        self.note(verdict.change, notices);
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
            self.outbox.failed(error, now.steady);
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
        let resource = &self.settings.name.clone();
        tracing::warn!(%resource, key, "one access key is refused, the other one works and is used from now on");
        self.raise(messages::key_switched(resource, key, now.wall));
        self.outbox.add(Posting::Audit(AuditEntry {
            at: now.wall,
            actor: "renewd".to_owned(),
            action: "key.switch".to_owned(),
            name: None,
            reason: Some(format!("{resource} refuses the other key")),
            request_id,
            result: format!("now using {key}"),
        }));
    }

    /// Takes a result to be committed, and what is told of it.
    pub(super) fn note(&mut self, change: Change, notices: Vec<Notice>) {
        let decided = Decided { change, notices };
        self.outbox.add(Posting::Decided(decided));
    }

    /// Takes a notice that is about no row's result.
    pub(super) fn raise(&mut self, notice: Notice) {
        let is_notice = |posting: &Posting| matches!(posting, Posting::Notice(_));
        self.outbox.keep_at_most(NOTICES_KEPT, is_notice);
        self.outbox.add(Posting::Notice(notice));
    }

    /// A write has ended.
    pub(super) fn on_commit(&mut self, written: Written<Option<Applied>>) {
        let now = self.moment();
        let Some(noted) = self.outbox.settle(written, now.steady) else {
            return;
        };
        self.metrics.committed(noted.done.len(), noted.took);
        for (posting, applied) in noted.done {
            if let (Posting::Decided(decided), Some(applied)) = (posting, applied) {
                self.on_applied(&decided.change, applied);
            }
        }
        for refused in noted.refused {
            self.on_refused(refused, now);
        }
    }

    /// The store refuses one result by itself: it and its row stay out of the way for a while. What was
    /// obtained is kept and tried again; what can be decided anew is not. An identity that was made is at
    /// least not made anew: its id is committed alone.
    fn on_refused(&mut self, refused: Refused<Posting>, now: Moment) {
        let Refused { entry, error, .. } = refused;
        let resource = &self.settings.name;
        let Posting::Decided(Decided { change, notices }) = entry else {
            tracing::error!(%resource, %error, "a notice is let go of, because the store refuses it");
            return;
        };
        let num = num_of(&change);
        tracing::error!(%resource, row = num, %error, "a result is set aside, because the store refuses it");
        match change {
            Change::Issued {
                id: Some(id),
                attempt,
                ..
            } => self.note(Change::Adopted { num, id, attempt }, notices),
            Change::Issued { .. } | Change::Adopted { .. } | Change::Gone { .. } => {
                let decided = Decided { change, notices };
                let posting = Posting::Decided(decided);
                self.outbox.set_aside(posting, &error, now.steady);
            }
            Change::LateNotified { .. } | Change::Excused { .. } => {}
            Change::Failed { .. } | Change::Due { .. } => {
                self.resting.insert(num, now.steady + ASIDE);
            }
        }
    }

    /// Lets rows go that were left alone long enough.
    pub(super) fn release_rested(&mut self) {
        let now = self.clock.steady();
        let before = self.resting.len();
        let busy = &mut self.busy;
        self.resting.retain(|num, until| {
            let rests = now < *until;
            if !rests {
                busy.remove(num);
            }
            rests
        });
        if self.resting.len() < before {
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
