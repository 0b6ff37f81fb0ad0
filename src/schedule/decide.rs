//! What to do about one identity now: a plain function of its row, of everything that stands between it and its
//! call, and of the time. The engine acts on it; `why` prints the same, in words.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Gate, Grounds, Life, Moment, Press, Remaining, Standing, TokenEnd, presses_at, standing, state,
    tier,
};
use crate::model::{
    Attempt, Due, DueReason, FailureClass, Headroom, HealthView, Name, Operation, Record,
    RenewerView, State, Tier, Version, short_duration,
};

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

fn held(by: HeldBy, because: impl Into<String>) -> Action {
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

/// Everything that a person needs to understand what happens to one identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    pub name: Name,
    pub state: State,
    pub version: Version,
    /// What is decided now.
    pub action: Action,
    /// The same in a sentence.
    pub sentence: String,
    /// When the next attempt is due, and by which rule.
    pub next: Option<Due>,
    /// How its token stands: `good`, `doubtful`, `dead` or `none`.
    pub standing: String,
    /// The same in a sentence, where it is not good.
    pub about_token: Option<String>,
    /// How pressing it is, where there is a token.
    pub tier: Option<Tier>,
    /// When the token ends.
    pub expires_at: Option<Timestamp>,
    /// Now, by the resource's clock, which tokens end by.
    #[serde(default)]
    pub service_time: Option<Timestamp>,
    /// The life left in seconds; once dead, less than zero: for how long it has been.
    pub left_secs: Option<i64>,
    /// Since when it fails by itself, while others of its resource succeed.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// The same in a sentence: how the last attempt ended, and when the next is.
    #[serde(default)]
    pub about_failing: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// The last attempts, newest last.
    pub attempts: Vec<Attempt>,
    /// What slows its renewer down at the moment, in sentences.
    #[serde(rename = "lane")]
    pub renewer: Vec<String>,
    /// What people ordered for it and is not carried out yet, or failed, in sentences.
    #[serde(default)]
    pub orders: Vec<String>,
    /// What is still to be delivered, by sink, in sentences.
    #[serde(default)]
    pub deliveries: Vec<String>,
}

impl Explanation {
    /// The same while nothing at all is issued, for this reason, whatever would be decided otherwise.
    #[must_use]
    pub fn withheld(mut self, because: &str) -> Self {
        self.action = held(HeldBy::Permission, because);
        self.sentence = format!("Nothing happens: {because}.");
        self.next = None;
        self
    }

    /// The same with what a call said, if that is what holds it back, in these words.
    #[must_use]
    pub fn retold(mut self, words: fn(&str) -> String) -> Self {
        if let Action::HeldBack {
            because,
            by: HeldBy::Health | HeldBy::Bearer,
            ..
        } = &mut self.action
        {
            let told = words(because);
            self.sentence = self.sentence.replace(because.as_str(), &told);
            *because = told;
        }
        self
    }

    /// The same beside orders that are not carried out yet, and what is still to be delivered: then it is
    /// not true that nothing happens.
    #[must_use]
    pub fn beside(mut self, orders: Vec<String>, deliveries: Vec<String>) -> Self {
        let is_all = orders.is_empty() && deliveries.is_empty();
        if let (Action::Rest { because }, false) = (&self.action, is_all) {
            self.sentence = format!("No token is obtained: {because}.");
        }
        self.orders = orders;
        self.deliveries = deliveries;
        self
    }
}

/// Explains what is decided about `record` at an instant.
pub fn why(record: &Record, renewer: &RenewerView, gate: &mut Gate, moment: Moment) -> Explanation {
    let grounds = Grounds::of(renewer);
    let mut situation = Situation {
        blocked: renewer.blocked.as_deref(),
        creation_refused: renewer.creation_refused.as_deref(),
        grounds: &grounds,
        headroom: renewer
            .headroom
            .get(&operation(record))
            .copied()
            .unwrap_or_default(),
        gate,
    };
    let action = decide(record, &mut situation, moment);
    let now = moment.wall;
    let stands = standing(record, &grounds, now);
    let life = record
        .token
        .as_ref()
        .map(|token| Life::of(token, grounds.skew));
    Explanation {
        name: record.spec.name.clone(),
        state: state(record, &grounds, now),
        version: record.version,
        sentence: sentence(record, &action, now),
        action,
        next: record.due,
        standing: stands.as_str().to_owned(),
        about_token: about_token(record, stands, now),
        tier: tier(record, &grounds, now),
        expires_at: record.token.as_ref().map(|token| token.expires_at),
        service_time: Some(renewer.service_time(now)),
        left_secs: match stands {
            Standing::Dead { since, .. } => Some(since.duration_since(now).as_secs()),
            _ => life.map(|life| life.to.duration_since(now).as_secs()),
        },
        failing_since: record.failing_since,
        about_failing: about_failing(record, now),
        failures: record.failures,
        attempts: record.attempts.iter().cloned().collect(),
        renewer: troubles(record, renewer),
        orders: Vec::new(),
        deliveries: Vec::new(),
    }
}

/// What is wrong with the token, if anything is.
fn about_token(record: &Record, stands: Standing, now: Timestamp) -> Option<String> {
    let ago =
        |since: Timestamp| short_duration(now.duration_since(since).try_into().unwrap_or_default());
    match stands {
        Standing::None | Standing::Good { .. } => None,
        Standing::Doubtful { since, .. } => {
            let key = record.token.as_ref().map_or("", |token| &token.minted_by);
            Some(format!(
                "its token may be dead: the access key {key} that minted it is refused or no longer configured, since \
                 {} ago; it is minted anew as soon as a key works, and served until then",
                ago(since)
            ))
        }
        Standing::Dead {
            since,
            how: TokenEnd::Expired,
        } => Some(format!(
            "its token expired {} ago; none is served until the next one is there",
            ago(since)
        )),
        Standing::Dead {
            since,
            how: TokenEnd::Revoked,
        } => Some(format!(
            "its token was revoked {} ago and is dead; none is served until the next one is there",
            ago(since)
        )),
    }
}

/// That it fails by itself, if it does.
fn about_failing(record: &Record, now: Timestamp) -> Option<String> {
    let long = |time: jiff::SignedDuration| short_duration(time.try_into().unwrap_or_default());
    let since = long(now.duration_since(record.failing_since?));
    let last = record.attempts.last().map_or(String::new(), |last| {
        format!(
            "; the last attempt, {} ago, ended with {}",
            long(now.duration_since(last.at)),
            last.result
        )
    });
    let next = match record.due {
        Some(due) if due.at > now => {
            format!(", the next is in {}", long(due.at.duration_since(now)))
        }
        _ => ", the next comes as soon as its turn does".to_owned(),
    };
    Some(format!(
        "it fails by itself since {since}, while {} answers other calls{last}{next}",
        record.spec.resource
    ))
}

fn sentence(record: &Record, action: &Action, now: Timestamp) -> String {
    match action {
        Action::Rest { because } => format!("Nothing happens: {because}."),
        Action::Wait { until, reason } => {
            let wait = until.duration_since(now).try_into().unwrap_or_default();
            format!("In {}: {}.", short_duration(wait), rule(*reason, record))
        }
        Action::HeldBack { until, because, .. } => match until {
            Some(until) => {
                let wait = until.duration_since(now).try_into().unwrap_or_default();
                format!(
                    "It is due, and has to wait for {}: {because}.",
                    short_duration(wait)
                )
            }
            None => format!("It is due, and has to wait: {because}."),
        },
        Action::Issue { reason } => format!(
            "Due now: {}; it is tried as soon as its turn comes, earliest expiry first.",
            rule(*reason, record)
        ),
        Action::Create { reason } => format!(
            "Due now: {}; it is created at ACS together with its token as soon as its turn comes.",
            rule(*reason, record)
        ),
    }
}

/// Shares of a life that differ by no more than this may do so by the service's clock.
const BY_CLOCKS: f64 = 0.01;

/// Where the due time was drawn from, as [`Load`](super::Load) does it.
fn renewal_rule(record: &Record) -> String {
    let (renew_at, spread) = (record.spec.declared.renew_at, record.spec.declared.spread);
    let share = record.token.as_ref().zip(record.due).map(|(token, due)| {
        let life = token.expires_at.duration_since(token.issued_at);
        due.at.duration_since(token.issued_at).as_secs_f64() / life.as_secs_f64()
    });
    match share {
        Some(share) if share < renew_at - spread - BY_CLOCKS => format!(
            "its token reaches {:.0} % of its life (before {:.0} %, because too many others are due then)",
            share * 100.0,
            renew_at * 100.0
        ),
        _ => format!(
            "its token reaches {:.0} % of its life (less a spread drawn once)",
            renew_at * 100.0
        ),
    }
}

/// The rule that set the due time, in words.
fn rule(reason: DueReason, record: &Record) -> String {
    match reason {
        DueReason::First => "it has no token yet".to_owned(),
        DueReason::Renewal => renewal_rule(record),
        DueReason::Retry => format!("the last attempt failed ({} in a row)", record.failures),
        DueReason::Changed => "its scopes or lifetime changed".to_owned(),
        DueReason::Requested => "somebody asked for it".to_owned(),
        DueReason::Revoked => "its tokens were revoked and one is to follow".to_owned(),
        DueReason::Released => "it was released from a hold".to_owned(),
        DueReason::KeyChange => "the access key that minted its token is replaced".to_owned(),
        DueReason::FutureToken => "its token says that it was issued in the future".to_owned(),
    }
}

/// What slows the renewer down for this record's operation.
fn troubles(record: &Record, renewer: &RenewerView) -> Vec<String> {
    let operation = operation(record).as_str();
    let mut troubles: Vec<String> = renewer.blocked.iter().cloned().collect();
    match renewer.health.get(operation) {
        Some(HealthView::Probing { since, because }) => troubles.push(format!(
            "{operation} has had no answer since {since:.0}: {because}; only probes go out, the most urgent identity first"
        )),
        Some(HealthView::Held { until, because }) => {
            troubles.push(format!("{operation} waits until {until:.0}: {because}"));
        }
        Some(HealthView::Open) | None => {}
    }
    if let Some((sent, allowed)) = renewer.pace.get(operation)
        && sent >= allowed
    {
        troubles.push(format!(
            "{operation} is at its pace: {sent} of {allowed} calls are sent in this window"
        ));
    }
    troubles
}

#[cfg(test)]
mod decide_tests {

    use super::{
        super::life::tests::{noon, record, token},
        *,
    };
    use crate::{
        config::Limits,
        model::{About, Failure},
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

#[cfg(test)]
mod why_tests {

    use super::{
        super::life::{
            ahead,
            tests::{noon, record, token},
        },
        *,
    };

    fn explained(record: &Record, renewer: &RenewerView) -> Explanation {
        let mut gate = Gate::new(&crate::config::Limits::default(), 100);
        let now = Moment {
            wall: noon(),
            steady: Duration::ZERO,
        };
        why(record, renewer, &mut gate, now)
    }

    #[test]
    fn it_says_what_is_decided() {
        let due = Due {
            at: ahead(noon(), Duration::from_mins(30)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(noon(), Duration::from_hours(1))), Some(due));
        let told = explained(&row, &RenewerView::default());
        assert_eq!(
            told.sentence,
            "In 30m: its token reaches 50 % of its life (less a spread drawn once)."
        );
        assert_eq!(told.left_secs, Some(3600));
        assert!(matches!(told.action, Action::Wait { .. }));
        let levelled = Due {
            at: ahead(noon(), Duration::from_mins(18)),
            ..due
        };
        let row = record(Some(token(noon(), Duration::from_hours(1))), Some(levelled));
        assert_eq!(
            explained(&row, &RenewerView::default()).sentence,
            "In 18m: its token reaches 30 % of its life (before 50 %, because too many others are due then)."
        );
    }

    #[test]
    fn it_says_that_an_identity_fails_by_itself() {
        let due = Due {
            at: ahead(noon(), Duration::from_secs(90)),
            why: DueReason::Retry,
        };
        let mut row = record(Some(token(noon(), Duration::from_hours(1))), Some(due));
        let told = |row: &Record| explained(row, &RenewerView::default()).about_failing;
        assert_eq!(told(&row), None);
        row.failing_since = Some(noon() - Duration::from_mins(14));
        row.attempts.push(Attempt {
            at: noon() - Duration::from_secs(30),
            result: "credentials 403".to_owned(),
            request_id: None,
        });
        let told = told(&row).unwrap();
        for part in [
            "since 14m",
            "30s ago",
            "credentials 403",
            "next is in 1m 30s",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn it_names_what_holds_an_identity_back() {
        let due = Due {
            at: noon(),
            why: DueReason::Retry,
        };
        let row = record(Some(token(noon(), Duration::from_hours(1))), Some(due));
        let mut renewer = RenewerView::default();
        let probing = HealthView::Probing {
            since: noon(),
            because: "connection refused".to_owned(),
        };
        renewer.health.insert("issue".to_owned(), probing);
        renewer.pace.insert("issue".to_owned(), (970, 970));
        let told = explained(&row, &renewer);
        assert_eq!(told.renewer.len(), 2, "{:?}", told.renewer);
        assert!(told.renewer[0].contains("connection refused"));
    }
}
