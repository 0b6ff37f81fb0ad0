//! What one ended call means for its row: a plain function.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;

use super::{
    call::{CallResult, Done, Flight, Obtained},
    messages,
};
use crate::{
    model::{
        About, Attempt, Blame, Change, Due, DueReason, Failure, FailureClass, Notice, Operation,
        Token, TokenMeta,
    },
    schedule::{Finding, Grounds, Life, Remaining, next_attempt, quarantine_gap, refused_early},
    store::StoreError,
};

/// So often a row is refused, while nobody else is heard of, before it counts as its own fault.
const REFUSED_EARLY: u32 = 2;
/// A row that alone is asked to wait waits no longer.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// What to write, and what to tell once it is written.
#[derive(Debug)]
pub(super) struct Verdict {
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
    pub(super) finding: Finding,
}

/// Judges an ended call.
pub(super) fn judge(
    flight: &Flight,
    done: Done,
    circumstances: &Circumstances,
    rng: &mut impl Rng,
) -> Verdict {
    match done.result {
        CallResult::Token(obtained) => issued(flight, obtained, done.ended, circumstances, rng),
        CallResult::Named { id, request_id, .. } => Verdict {
            notices: vec![messages::created(&flight.record, &id, done.ended)],
            change: Change::Adopted {
                num: flight.record.num,
                id,
                attempt: attempt(flight, "created without a token".to_owned(), request_id),
            },
        },
        CallResult::Failed { failure, .. } => {
            failed(flight, &failure, done.ended, circumstances, rng)
        }
        CallResult::NotSent(error) => not_sent(flight, &error, done.ended, rng),
    }
}

/// A call of ours panicked: the row is quarantined, the house goes on.
pub(super) fn panicked(flight: &Flight, now: Timestamp, rng: &mut impl Rng) -> Verdict {
    Verdict {
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
    rng: &mut impl Rng,
) -> Verdict {
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
        Some(id) => vec![messages::created(record, id, ended)],
        None => Vec::new(),
    };
    Verdict {
        change: Change::Issued {
            num: record.num,
            call_began: flight.began,
            id: obtained.id,
            due: life.renewal(&record.spec, rng),
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
) -> Verdict {
    let record = &flight.record;
    let mut notices = Vec::new();
    if flight.operation == Operation::CreateWithToken && failure.maybe_done {
        notices.push(messages::orphaned(record, failure, ended));
    }
    let attempt = attempt(flight, result_of(failure), failure.request_id.clone());
    let class = match failure.class {
        // Nothing exists yet that could be gone.
        FailureClass::Gone if record.id.is_none() => FailureClass::Refuse,
        class => class,
    };
    let next = next_after((class, failure), flight, ended, circumstances, rng);
    let Some(at) = next.filter(|_| class != FailureClass::Gone) else {
        return Verdict {
            change: Change::Gone {
                num: record.num,
                attempt,
                because: failure.message.clone(),
            },
            notices,
        };
    };
    Verdict {
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

fn not_sent(flight: &Flight, error: &StoreError, now: Timestamp, rng: &mut impl Rng) -> Verdict {
    let num = flight.record.num;
    if matches!(error, StoreError::Refused { .. }) {
        return Verdict {
            change: quarantine(flight, "creation refused", now, rng),
            notices: Vec::new(),
        };
    }
    // The store cannot be written; the outbox waits for it. The row stays due.
    Verdict {
        change: Change::Due {
            num,
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
