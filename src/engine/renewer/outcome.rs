//! What an ended call means: for its row (a plain function), for the resource, and for what is committed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio::task::{Id, JoinError};

use super::{
    Moment, Renewer,
    calls::{CallDone, CallResult, Flight, Obtained},
    notices,
};
use crate::{
    model::{
        About, Applied, Attempt, AuditEntry, Blame, Change, Due, DueReason, Failure, FailureClass,
        Notice, Operation, Token, TokenMeta,
    },
    outbox::{ASIDE, Refused, Written},
    schedule::{
        CallFinding, Grounds, Life, Load, REFUSED_AGAIN, Remaining, next_attempt, quarantine_gap,
        refused_early,
    },
    store::{Decided, Posting, StoreError},
};

/// An outage that follows the last one closer than this may not be announced.
const SOON: Duration = Duration::from_hours(1);
/// So often a row is refused, while nobody else is heard of, before it counts as its own fault.
const REFUSED_EARLY: u32 = 2;
/// A row that alone is asked to wait waits no longer.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// What to write, and what to tell once it is written.
#[derive(Debug)]
pub(super) struct CallVerdict {
    pub(super) change: Change,
    pub(super) notices: Vec<Notice>,
}

/// How the answer is judged.
#[derive(Debug, Clone)]
pub(super) struct Circumstances {
    /// What decides how tokens stand; its skew is that of the service's clock.
    pub(super) grounds: Grounds,
    /// What the call tells besides its result. Where something else than the row's due time holds it
    /// back (probing, a hold, Retry-After), the row simply stays due.
    pub(super) finding: CallFinding,
}

/// Judges an ended call.
pub(super) fn judge(
    flight: &Flight,
    done: CallDone,
    circumstances: &Circumstances,
    load: &mut Load,
    rng: &mut impl Rng,
) -> CallVerdict {
    match done.result {
        CallResult::Token(obtained) => {
            issued(flight, obtained, done.ended, circumstances, load, rng)
        }
        CallResult::Named { id, request_id, .. } => CallVerdict {
            notices: vec![notices::created(&flight.record, &id, done.ended)],
            change: Change::Adopted {
                num: flight.record.num,
                id,
                attempt: attempt(flight, "created without a token".to_owned(), request_id),
            },
        },
        CallResult::Failed { failure, .. } if failure.about == About::Bearer => {
            stays(flight, done.ended)
        }
        CallResult::Failed { failure, .. } => {
            failed(flight, &failure, done.ended, circumstances, rng)
        }
        CallResult::NotSent(error) => not_sent(flight, &error, done.ended, rng),
    }
}

/// A call of ours panicked: the row is quarantined, everything else goes on.
pub(super) fn panicked(flight: &Flight, now: Timestamp, rng: &mut impl Rng) -> CallVerdict {
    CallVerdict {
        change: quarantine(flight, "panic", now, rng),
        notices: Vec::new(),
    }
}

/// Whether a token that just came can be used at all.
pub(super) fn is_stillborn(obtained: &Obtained, ended: Timestamp, skew: SignedDuration) -> bool {
    let theirs = ended.checked_add(skew).unwrap_or(ended);
    obtained.expires_at <= theirs
}

/// What a token that is already dead when it comes counts as.
pub(super) fn stillborn(obtained: &Obtained) -> Failure {
    Failure {
        class: FailureClass::Retry,
        about: About::Unclear,
        status: None,
        message: format!(
            "the answer's token had already expired at {:.0}; check the clocks",
            obtained.expires_at
        ),
        request_id: obtained.request_id.clone(),
        retry_after: None,
        maybe_done: false,
    }
}

fn issued(
    flight: &Flight,
    obtained: Obtained,
    ended: Timestamp,
    circumstances: &Circumstances,
    load: &mut Load,
    rng: &mut impl Rng,
) -> CallVerdict {
    let (record, skew) = (&flight.record, circumstances.grounds.skew);
    if obtained.id.is_none() && is_stillborn(&obtained, ended, skew) {
        return failed(flight, &stillborn(&obtained), ended, circumstances, rng);
    }
    let meta = TokenMeta {
        issued_at: flight.began.checked_add(skew).unwrap_or(flight.began),
        expires_at: obtained.expires_at,
        minted_by: obtained.key,
    };
    let life = Life::of(&meta, skew);
    let notices = match &obtained.id {
        Some(id) => vec![notices::created(record, id, ended)],
        None => Vec::new(),
    };
    CallVerdict {
        change: Change::Issued {
            num: record.num,
            call_began: flight.began,
            id: obtained.id,
            due: Due {
                at: load.draw(life.renewal(&record.spec), ended, rng),
                why: DueReason::Renewal,
            },
            late_at: life.late_at(),
            token: Token {
                secret: obtained.secret,
                meta,
            },
            attempt: attempt(flight, "ok".to_owned(), obtained.request_id),
        },
        notices,
    }
}

fn failed(
    flight: &Flight,
    failure: &Failure,
    ended: Timestamp,
    circumstances: &Circumstances,
    rng: &mut impl Rng,
) -> CallVerdict {
    let record = &flight.record;
    let mut notices = Vec::new();
    if flight.operation == Operation::CreateWithToken && failure.maybe_done {
        notices.push(notices::orphaned(record, failure, ended));
    }
    let attempt = attempt(flight, result_of(failure), failure.request_id.clone());
    let class = match failure.class {
        // Nothing exists yet that could be gone.
        FailureClass::Gone if record.id.is_none() => FailureClass::Refuse,
        class => class,
    };
    let next = next_after((class, failure), flight, ended, circumstances, rng);
    let Some(at) = next.filter(|_| class != FailureClass::Gone) else {
        return CallVerdict {
            change: Change::Gone {
                num: record.num,
                attempt,
                because: failure.message.clone(),
            },
            notices,
        };
    };
    CallVerdict {
        change: Change::Failed {
            num: record.num,
            attempt,
            due: Due {
                at,
                why: DueReason::Retry,
            },
            blame: match &circumstances.finding {
                finding if finding.own => Blame::RowAlone,
                finding if finding.gated => Blame::Resource,
                _ => Blame::Row,
            },
        },
        notices,
    }
}

/// When a row is tried again whose call failed so; `None`: not by itself.
fn next_after(
    (class, failure): (FailureClass, &Failure),
    flight: &Flight,
    ended: Timestamp,
    circumstances: &Circumstances,
    rng: &mut impl Rng,
) -> Option<Timestamp> {
    let (record, finding) = (&flight.record, &circumstances.finding);
    let refused = class == FailureClass::Refuse;
    if (finding.gated || finding.doubtful) && !refused {
        return stays_due(class, flight.began, ended);
    }
    let remaining = Remaining::of(record, &circumstances.grounds, ended);
    let times = (flight.began, ended);
    let told = failure.retry_after.unwrap_or_default().min(LONGEST_WAIT);
    let told = flight.began.checked_add(told).unwrap_or(flight.began);
    // While most others fail as well, or nothing is known of them yet, it may be no fault of the row.
    let unproved = finding.others_succeed || record.failures < REFUSED_EARLY;
    match refused && !finding.own && unproved {
        true => Some(refused_early(times, remaining, record.failures, rng)),
        false => next_attempt(class, times, remaining, record.failures, rng).map(|at| at.max(told)),
    }
}

/// The row is due again as soon as the floor of its failure allows; what gates it decides when.
fn stays_due(class: FailureClass, began: Timestamp, ended: Timestamp) -> Option<Timestamp> {
    let floor = crate::schedule::floor(class)?;
    Some(began.checked_add(floor).unwrap_or(began).max(ended))
}

fn not_sent(
    flight: &Flight,
    error: &StoreError,
    now: Timestamp,
    rng: &mut impl Rng,
) -> CallVerdict {
    if matches!(error, StoreError::Refused { .. }) {
        return CallVerdict {
            change: quarantine(flight, "creation refused", now, rng),
            notices: Vec::new(),
        };
    }
    // The store cannot be written; the outbox waits for it.
    stays(flight, now)
}

/// Nothing was sent: the row stays due as it is.
fn stays(flight: &Flight, now: Timestamp) -> CallVerdict {
    CallVerdict {
        change: Change::Due {
            num: flight.record.num,
            due: flight.record.due.unwrap_or(Due {
                at: now,
                why: DueReason::Retry,
            }),
        },
        notices: Vec::new(),
    }
}

fn quarantine(flight: &Flight, result: &str, now: Timestamp, rng: &mut impl Rng) -> Change {
    let gap = quarantine_gap(flight.record.failures, rng);
    Change::Failed {
        num: flight.record.num,
        attempt: attempt(flight, result.to_owned(), None),
        due: Due {
            at: now.checked_add(gap).unwrap_or(now),
            why: DueReason::Retry,
        },
        blame: Blame::Row,
    }
}

fn attempt(flight: &Flight, result: String, request_id: Option<String>) -> Attempt {
    Attempt {
        at: flight.began,
        result,
        request_id,
    }
}

/// The class of a failure in a word or two.
pub(super) fn result_of(failure: &Failure) -> String {
    match failure.status {
        Some(status) => format!("{} {status}", failure.class.as_str()),
        None if failure.about == About::Request => format!("{} not sent", failure.class.as_str()),
        None => format!("{} no answer", failure.class.as_str()),
    }
}

/// Notices that wait while the store cannot be written; older ones are let go.
const NOTICES_KEPT: usize = 1024;

impl Renewer {
    /// A call has ended, or panicked.
    pub(super) fn on_call(&mut self, joined: Result<(Id, CallDone), JoinError>) {
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
                judge(&flight, done, &circumstances, &mut self.load, &mut self.rng)
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
    fn learn(&mut self, flight: &Flight, done: &CallDone, now: Moment) -> CallFinding {
        let skew = self.client.skew();
        match &done.result {
            CallResult::Token(obtained) => {
                if obtained.switched_key {
                    self.tell_switched(&obtained.key, obtained.request_id.clone(), now);
                }
                if is_stillborn(obtained, done.ended, skew) {
                    let failure = stillborn(obtained);
                    return self.learn_failure(flight, &failure, obtained.requests, now);
                }
                self.count(flight, "ok", done.ended);
                self.obtained(flight, done.ended);
                self.outage.heard();
                self.key_outage.heard();
                self.bearer_refusal.heard();
                self.find(flight, obtained.requests, Ok(()), now)
            }
            CallResult::Named { requests, .. } => {
                self.count(flight, "named", done.ended);
                self.outage.heard();
                self.key_outage.heard();
                self.find(flight, *requests, Ok(()), now)
            }
            CallResult::Failed { failure, requests } if failure.about == About::Bearer => {
                self.count(flight, "not_sent", now.wall);
                tracing::debug!(resource = %self.settings.name, "nothing was sent: {}", failure.message);
                self.find(flight, *requests, Err(failure), now)
            }
            CallResult::Failed { failure, requests } => {
                self.learn_failure(flight, failure, *requests, now)
            }
            CallResult::NotSent(error) => {
                self.learn_not_sent(flight, error, now);
                CallFinding::default()
            }
        }
    }

    fn learn_failure(
        &mut self,
        flight: &Flight,
        failure: &Failure,
        requests: u32,
        now: Moment,
    ) -> CallFinding {
        self.count(flight, failure.class.as_str(), now.wall);
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
        let mut finding = self.find(flight, requests, Err(failure), now);
        self.take_back(&finding);
        if finding.vouched && flight.record.failures >= REFUSED_AGAIN {
            finding.own = true;
            let mut gate = self.permits.gate();
            gate.knows_failing(flight.operation, flight.record.num);
        }
        finding
    }

    /// Passes what became of a call on to the gate.
    fn find(
        &mut self,
        flight: &Flight,
        requests: u32,
        result: Result<(), &Failure>,
        now: Moment,
    ) -> CallFinding {
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
        self.count(flight, "not_sent", now.wall);
        self.permits.gate().abandoned(flight.ticket, 0, now.steady);
        if let StoreError::Refused { reason, .. } = error {
            self.tell_creation_refused(reason, now);
        } else {
            self.outbox.failed(error, now.steady);
        }
    }

    fn learn_panic(&mut self, flight: &Flight, now: Moment) -> CallVerdict {
        tracing::error!(
            resource = %self.settings.name, identity = %flight.record.spec.name, operation = %flight.operation,
            "a call panicked; its identity is quarantined"
        );
        self.count(flight, "panic", now.wall);
        self.permits.gate().abandoned(flight.ticket, 1, now.steady);
        panicked(flight, now.wall, &mut self.rng)
    }

    /// A token was obtained.
    fn obtained(&mut self, flight: &Flight, ended: Timestamp) {
        self.last_success = Some(ended);
        if let Some(due) = &flight.record.due {
            let delay = ended.duration_since(due.at).try_into().unwrap_or_default();
            self.metrics.renewed(&self.settings.name, delay);
        }
    }

    fn count(&mut self, flight: &Flight, result: &'static str, ended: Timestamp) {
        let took = ended.duration_since(flight.began);
        let took = took.try_into().unwrap_or_default();
        self.metrics
            .call_ended(&self.settings.name, flight.operation, result, took);
        if let Some(count) = self.results.get_mut(result) {
            *count += 1;
        } else {
            self.results.insert(result.to_owned(), 1);
        }
    }

    /// Once per failure; but inside of an announced outage nobody needs a line for each probe, and where no
    /// connection came about, that line is the announcement, unless it is too soon for another one.
    fn log_failure(&mut self, flight: &Flight, failure: &Failure) {
        let now = self.clock.steady();
        let announced = self.in_announced_outage();
        let relapse = self.recovered.is_some_and(|at| now < at.steady + SOON);
        let unconnected = failure.about == About::Resource;
        let told =
            unconnected && !(relapse && self.said_unconnected.is_news(&failure.message, now));
        let (resource, operation) = (&self.settings.name, flight.operation);
        let (identity, request_id) = (&flight.record.spec.name, failure.request_id.as_deref());
        if announced || told {
            tracing::debug!(%resource, %identity, %operation, request_id, "a probe failed: {}", failure.message);
        } else {
            tracing::warn!(%resource, %identity, %operation, request_id, "a token was not obtained: {}", failure.message);
        }
    }

    fn tell_switched(&mut self, key: &str, request_id: Option<String>, now: Moment) {
        let resource = &self.settings.name.clone();
        tracing::warn!(%resource, key, "one access key is refused, the other one works and is used from now on");
        self.raise(notices::key_switched(resource, key, now.wall));
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
        self.is_deposed |= matches!(&written, Err(StoreError::NotLeader { .. }));
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
            tracing::error!(%resource, %error, "a notice is dropped, because the store refuses it");
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
            if self.busy_then.remove(&num) {
                self.look_again();
            }
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
