//! What to do about one identity now: a plain function of its row, of everything that stands between it and its
//! call, and of the time. The engine acts on it, and `why` prints it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Gate, Grounds, Moment, Press, Remaining, presses_at};
use crate::model::{DueReason, FailureClass, Headroom, HealthView, Operation, Record, State};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Nothing happens to it, on purpose.
    Rest {
        /// Why, in a sentence.
        because: String,
    },
    /// Nothing happens until it is due.
    Wait {
        until: Timestamp,
        reason: DueReason,
    },
    /// It is due, but something holds it back.
    HeldBack {
        /// Until when, where that is known.
        until: Option<Timestamp>,
        /// What holds it, in a sentence.
        because: String,
        #[serde(skip)]
        by: HeldBy,
    },
    Issue {
        reason: DueReason,
    },
    /// Create the identity together with its first token.
    Create {
        reason: DueReason,
    },
}

/// What holds back what is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeldBy {
    /// The store, which cannot be written, or a person, who is asked first.
    #[default]
    Permission,
    /// There is no bearer to call with.
    Bearer,
    /// The calls that may be in flight at once.
    Capacity,
    /// A harmless call is the next probe.
    Proof,
    /// A harmless call has to tell whether failures are about the row or about the resource.
    Doubt,
    /// The health of the operation, or keys that are refused.
    Health,
    /// The pace of the operation.
    Pace,
}

/// So often a row was refused before harmless calls are made to find out whether anybody else would be.
pub const REFUSED_AGAIN: u32 = 4;
/// A token that ends sooner leaves no time for that.
const SOON_ENDS: Duration = Duration::from_mins(10);

/// Whether a row was refused again and again, and it is not known whose fault that is.
pub fn is_refused_again(record: &Record) -> bool {
    let last = record.attempts.last();
    record.failing_since.is_none()
        && record.failures >= REFUSED_AGAIN
        && last.is_some_and(|last| last.result.starts_with(FailureClass::Refuse.as_str()))
}

/// Whether a row that was refused again and again may wait until harmless calls say whether anybody else
/// would be: its token leaves the time.
pub fn waits_for_vouching(record: &Record, remaining: Remaining) -> bool {
    is_refused_again(record) && remaining.alive().is_none_or(|left| left >= SOON_ENDS)
}

/// Everything that stands between a row that is due and its call.
#[derive(Debug)]
pub struct Situation<'a> {
    /// Why nothing can be obtained.
    pub blocked: Option<&'a str>,
    /// Why nobody is created.
    pub creation_refused: Option<&'a str>,
    /// What decides how tokens stand.
    pub grounds: &'a Grounds,
    /// What the renewer has room for.
    pub headroom: Headroom,
    /// Health, holds and pace of the resource.
    pub gate: &'a mut Gate,
}

/// The operation that gives this record its next token.
pub fn operation(record: &Record) -> Operation {
    match record.id {
        Some(_) => Operation::Issue,
        None => Operation::CreateWithToken,
    }
}

/// Whether a row waits for a lowered pace.
pub fn press(record: &Record, grounds: &Grounds, now: Timestamp) -> Press {
    match presses_at(record, grounds, now) {
        Some(at) if at <= now => Press::Pressing,
        _ => Press::Ordinary,
    }
}

/// What to do about one identity at an instant. `Issue` and `Create` mean that nothing stands against it but
/// the order of those that wait.
pub fn decide(record: &Record, at: &mut Situation<'_>, now: Moment) -> Action {
    if !record.state.wants_token() {
        return rest(record.state);
    }
    let Some(due) = record.due else {
        if record.state == State::New && record.id.is_none() {
            let name = &record.spec.name;
            return held(
                HeldBy::Permission,
                format!(
                    "its id is not known, because the store had been lost, and it may exist at ACS: import its id, or \
                 `renewd identity create {name}` lets it be created"
                ),
            );
        }
        return Action::Rest {
            because: "nothing is due".to_owned(),
        };
    };
    if now.wall < due.at {
        return Action::Wait {
            until: due.at,
            reason: due.why,
        };
    }
    let operation = operation(record);
    if let Some(held) = not_permitted(operation, at)
        .or_else(|| no_bearer(at))
        .or_else(|| in_question(record, operation, at, now))
        .or_else(|| no_room(record, operation, at, now))
        .or_else(|| no_pace(record, operation, at, now))
    {
        return held;
    }
    match operation {
        Operation::Issue => Action::Issue { reason: due.why },
        _ => Action::Create { reason: due.why },
    }
}

/// The store cannot be written, or nobody may be created.
fn not_permitted(operation: Operation, at: &Situation<'_>) -> Option<Action> {
    let refused = at
        .creation_refused
        .filter(|_| operation == Operation::CreateWithToken);
    let because = at.blocked.or(refused)?;
    Some(held(HeldBy::Permission, because))
}

/// Nothing can be called without a bearer, be it to find out what failures are about.
fn no_bearer(at: &Situation<'_>) -> Option<Action> {
    let because = at.gate.without_bearer()?;
    let because = format!("there is no bearer to call with: {because}");
    Some(held(HeldBy::Bearer, because))
}

/// A harmless call comes first, which tells what failures are about.
fn in_question(
    record: &Record,
    operation: Operation,
    at: &Situation<'_>,
    now: Moment,
) -> Option<Action> {
    if at.gate.wants_proof(operation) {
        let because = "every identity that was tried has failed: a harmless call first tells whether ACS answers";
        return Some(held(HeldBy::Proof, because));
    }
    if record.failing_since.is_some() {
        return None;
    }
    let remaining = Remaining::of(record, at.grounds, now.wall);
    if at.headroom.vouching && waits_for_vouching(record, remaining) {
        let because = "it is refused again and again: harmless calls first tell whether anybody else would be";
        return Some(held(HeldBy::Doubt, because));
    }
    if !at.headroom.testified {
        return None;
    }
    let rests = now.steady < at.headroom.rests_until;
    let in_doubt = at.gate.is_doubted(operation, record.num)
        || rests && at.gate.has_testified(operation, record.num);
    in_doubt.then(|| {
        let because =
            "a harmless call first tells whether its failures are about it or about the resource";
        held(HeldBy::Doubt, because)
    })
}

/// As much goes on as may, or health lets nothing through.
fn no_room(
    record: &Record,
    operation: Operation,
    at: &mut Situation<'_>,
    now: Moment,
) -> Option<Action> {
    if record.failing_since.is_some() && at.headroom.full_of_failing {
        let because =
            "others that fail by themselves have all the calls that such may have at once";
        return Some(held(HeldBy::Capacity, because));
    }
    if at.headroom.full {
        let because = "so many calls are in flight, or not committed yet, that no other may start";
        return Some(held(HeldBy::Capacity, because));
    }
    let remaining = Remaining::of(record, at.grounds, now.wall);
    if at.gate.room(operation, remaining, now.steady) > 0 {
        return None;
    }
    let because = match at.gate.view(operation, now) {
        HealthView::Held { because, .. } => because,
        HealthView::Probing { because, .. } => {
            format!("{operation} has no answer, so that only probes go out: {because}")
        }
        HealthView::Open => format!("few calls of {operation} go out at once after an outage"),
    };
    Some(Action::HeldBack {
        until: opens_at(record, operation, at, now),
        because,
        by: HeldBy::Health,
    })
}

/// The pace of the operation allows no call.
fn no_pace(
    record: &Record,
    operation: Operation,
    at: &mut Situation<'_>,
    now: Moment,
) -> Option<Action> {
    let press = press(record, at.grounds, now.wall);
    if at
        .gate
        .has_permit(operation, at.headroom.waiting, press, now.steady)
    {
        return None;
    }
    let because = match at.gate.view(operation, now) {
        HealthView::Held { because, .. } => because,
        _ => {
            let (sent, allowed) = at.gate.pace(operation).view(now.steady);
            format!("{operation} is at its pace: {sent} of {allowed} calls are sent in this window")
        }
    };
    Some(Action::HeldBack {
        until: opens_at(record, operation, at, now),
        because,
        by: HeldBy::Pace,
    })
}

/// When the gate lets a call of this row through, where that is known.
fn opens_at(
    record: &Record,
    operation: Operation,
    at: &mut Situation<'_>,
    now: Moment,
) -> Option<Timestamp> {
    let pressing = (
        press(record, at.grounds, now.wall),
        Remaining::of(record, at.grounds, now.wall),
    );
    let waiting = at.headroom.waiting;
    let opens = at.gate.opens_at(operation, waiting, pressing, now.steady);
    opens
        .filter(|opens| *opens > now.steady)
        .map(|at| now.wall_at(at))
}

pub(super) fn held(by: HeldBy, because: impl Into<String>) -> Action {
    Action::HeldBack {
        until: None,
        because: because.into(),
        by,
    }
}

fn rest(state: State) -> Action {
    let because = match state {
        State::Held => "it is held: without a token on purpose, until it is released",
        State::Gone => {
            "ACS says that it does not exist, or belongs to another resource; renewd never creates it again by itself"
        }
        State::Deleted => "it was deleted by command",
        State::New | State::Active | State::Late => "nothing is due",
    };
    Action::Rest {
        because: because.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::life::tests::{noon, record, token},
        *,
    };
    use crate::{
        config::Limits,
        model::{About, Due, Failure, RenewerView},
        schedule::why,
    };

    fn at(wall: Timestamp) -> Moment {
        let since = wall.duration_since(noon());
        Moment {
            wall,
            steady: Duration::from_hours(24) + Duration::try_from(since).unwrap_or_default(),
        }
    }

    /// A gate through which nothing has gone.
    fn gate() -> Gate {
        Gate::new(&Limits::default(), 100)
    }

    fn decided(record: &Record, renewer: &RenewerView, gate: &mut Gate, now: Timestamp) -> Action {
        why(record, renewer, gate, at(now)).action
    }

    fn with(headroom: Headroom) -> RenewerView {
        RenewerView {
            headroom: [(Operation::Issue, headroom)].into(),
            ..RenewerView::default()
        }
    }

    fn by(action: &Action) -> Option<HeldBy> {
        match action {
            Action::HeldBack { by, .. } => Some(*by),
            _ => None,
        }
    }

    /// A call of this row failed so.
    fn fail(gate: &mut Gate, who: i64, class: FailureClass, about: About, now: Timestamp) {
        gate.pace(Operation::Issue).reserved(1, at(now).steady);
        let ticket = gate.start(Operation::Issue, who, Press::Pressing, at(now).steady);
        let failure = Failure {
            class,
            about,
            status: None,
            message: "it failed".to_owned(),
            request_id: None,
            retry_after: None,
            maybe_done: false,
        };
        gate.ended(ticket.unwrap(), 1, Err(&failure), at(now));
    }

    fn due_now() -> Record {
        let due = Due {
            at: noon(),
            why: DueReason::Renewal,
        };
        record(Some(token(noon(), Duration::from_hours(1))), Some(due))
    }

    #[test]
    fn what_is_due_is_issued_or_created() {
        let renewer = RenewerView::default();
        assert_eq!(
            decided(&due_now(), &renewer, &mut gate(), noon()),
            Action::Issue {
                reason: DueReason::Renewal
            }
        );
        let new = Record {
            id: None,
            ..due_now()
        };
        assert_eq!(
            decided(&new, &renewer, &mut gate(), noon()),
            Action::Create {
                reason: DueReason::Renewal
            }
        );
        let early = noon() - Duration::from_secs(1);
        assert!(
            matches!(decided(&new, &renewer, &mut gate(), early), Action::Wait { until, .. } if until == noon())
        );
    }

    #[test]
    fn some_states_rest() {
        for state in [State::Held, State::Gone, State::Deleted] {
            let row = Record { state, ..due_now() };
            assert!(matches!(
                decided(&row, &RenewerView::default(), &mut gate(), noon()),
                Action::Rest { .. }
            ));
        }
    }

    #[test]
    fn refused_creation_holds_only_those_without_an_id() {
        let renewer = RenewerView {
            creation_refused: Some("import first".to_owned()),
            ..RenewerView::default()
        };
        assert!(matches!(
            decided(&due_now(), &renewer, &mut gate(), noon()),
            Action::Issue { .. }
        ));
        let new = Record {
            id: None,
            ..due_now()
        };
        assert!(matches!(
            decided(&new, &renewer, &mut gate(), noon()),
            Action::HeldBack { until: None, .. }
        ));
    }

    #[test]
    fn a_hold_ends_by_itself() {
        let mut gate = gate();
        let renewer = RenewerView::default();
        fail(&mut gate, 7, FailureClass::Wait, About::Unclear, noon());
        let held = decided(&due_now(), &renewer, &mut gate, noon());
        let Action::HeldBack { until, because, by } = held else {
            panic!("{held:?}");
        };
        assert!(because.contains("429"), "{because}");
        assert_eq!(by, HeldBy::Pace);
        assert!(matches!(
            decided(&due_now(), &renewer, &mut gate, until.unwrap()),
            Action::Issue { .. }
        ));
    }

    #[test]
    fn an_outage_holds_back_all_but_probes() {
        let mut gate = gate();
        let renewer = RenewerView::default();
        for who in 7..10 {
            fail(&mut gate, who, FailureClass::Retry, About::Resource, noon());
        }
        let held = decided(&due_now(), &renewer, &mut gate, noon());
        let Action::HeldBack { until, by, .. } = held else {
            panic!("{held:?}");
        };
        assert_eq!(by, HeldBy::Health);
        let probe = decided(&due_now(), &renewer, &mut gate, until.unwrap());
        assert!(matches!(probe, Action::Issue { .. }), "{probe:?}");
    }

    #[test]
    fn nothing_starts_beyond_what_may_be_in_flight() {
        let full = with(Headroom {
            full: true,
            ..Headroom::default()
        });
        let action = decided(&due_now(), &full, &mut gate(), noon());
        assert_eq!(by(&action), Some(HeldBy::Capacity));
        let full = with(Headroom {
            full_of_failing: true,
            ..Headroom::default()
        });
        let action = decided(&due_now(), &full, &mut gate(), noon());
        assert_eq!(by(&action), None, "it does not fail by itself");
        let failing = Record {
            failing_since: Some(noon()),
            ..due_now()
        };
        let action = decided(&failing, &full, &mut gate(), noon());
        assert_eq!(by(&action), Some(HeldBy::Capacity));
    }

    #[test]
    fn who_was_forbidden_something_waits_for_a_harmless_call_where_nobody_else_can_tell() {
        let mut gate = gate();
        let row = due_now();
        let forbidden = FailureClass::Credentials;
        fail(&mut gate, row.num, forbidden, About::Unclear, noon());
        let alone = with(Headroom {
            testified: true,
            ..Headroom::default()
        });
        let action = decided(&row, &alone, &mut gate, noon());
        assert_eq!(by(&action), Some(HeldBy::Doubt));
        let beside = RenewerView::default();
        let action = decided(&row, &beside, &mut gate, noon());
        assert_eq!(by(&action), None, "others are witnesses: {action:?}");
    }
}
