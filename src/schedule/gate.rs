//! What stands between a resource and whoever calls it: for each operation its pace, its health, its
//! holds, the evidence for them, and what is in flight.
//!
//! There is one gate per resource, for renewals, campaigns and proofs of keys alike, so that what one
//! learns holds for all, and no call goes past a pace.
//!
//! | what failed | what it means |
//! |---|---|
//! | no connection, three times without an answer | an outage, whoever was asked for |
//! | no answer, an unreadable one, 5xx: three times, of two rows, without a success between | an outage |
//! | 401 `Denied`, a wrong clock ruled out | the keys are refused: everything is held |
//! | any other 401, 403: of two rows, without a success between | the operation is held |
//! | 429 | the operation is held for Retry-After, and goes on slower |
//! | there is no bearer to call with | everything is held until there is one; it is about nobody |
//!
//! A row that fails while others succeed is no witness any more. Where nothing else waits, a harmless
//! signed call is the second witness; see [`Gate::is_doubted`]. The same call ends an outage or a hold in which
//! nobody else is left to ask; see [`Gate::wants_proof`].

use std::collections::BTreeSet;

use super::{
    Moment, Press, Remaining, Steady,
    evidence::{Evidence, FailureKind, Sign},
    health::{Began, Health, KeyHold},
    pace::Pace,
};
use crate::{
    config::Limits,
    model::{About, Contention, Failure, FailureClass, HealthView, Num, Operation},
};

/// In a hold, after so many probes of rows one is a harmless call, whoever else waits.
const PROVED_EVERY: u32 = 2;

/// A call that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    operation: Operation,
    who: Num,
    began: Began,
}

/// What an ended call tells, besides its result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallFinding {
    /// It is about the resource, or something holds the whole operation now: it counts against no
    /// row, which simply stays due.
    pub gated: bool,
    /// It is about the row: it fails although a row like the others would not.
    pub own: bool,
    /// How likely a row like the others would have failed so often in a row; below 0.001 it is safe
    /// to say that it is not the resource. 1 where that is not known.
    pub chance: f64,
    /// Others have succeeded since the row began to fail.
    pub others_succeed: bool,
    /// Others have failed since then as well, so it may be no fault of the row: see `chance`.
    pub others_fail: bool,
    /// The share of the first attempts of others since then that failed.
    pub rate: f64,
    /// Others succeed again, after nobody did while rows were refused: those are tried again, too.
    pub rate_is_back: bool,
    /// Nobody else can be asked whether it is the row or the resource: the next attempt comes as
    /// soon as its floor allows, see [`Gate::is_doubted`].
    pub doubtful: bool,
    /// Harmless calls were answered since the row began to be refused, see [`Gate::asks_for_vouching`].
    pub vouched: bool,
    /// Rows whose failures are taken back: they were the beginning of what is now known to be about
    /// the resource.
    pub excused: Vec<Num>,
    /// From now on only probes go out.
    pub closed: bool,
    /// From now on more than probes go out again.
    pub opened: bool,
    /// The row was known to fail by itself, and does no more.
    pub recovered: bool,
}

/// The gate of one resource.
#[derive(Debug)]
pub struct Gate {
    keys: KeyHold,
    /// There is no bearer, and why; it is looked next then whether one is to be had.
    bearer: Option<(Steady, String)>,
    ways: [Way; 6],
    /// How many calls may ever be in flight.
    widest: usize,
}

#[derive(Debug)]
struct Way {
    pace: Pace,
    health: Health,
    hold: KeyHold,
    evidence: Evidence,
    in_flight: usize,
    /// Rows that were probed since only probes go out.
    probed: BTreeSet<Num>,
    probes: u32,
    /// Every row that waits was probed: the next probe is a harmless call.
    all_probed: bool,
}

impl Default for Gate {
    /// A gate with the documented limits.
    fn default() -> Self {
        Self::new(&Limits::default(), usize::MAX)
    }
}

impl Gate {
    /// A gate through which nothing has gone yet.
    pub fn new(limits: &Limits, widest: usize) -> Self {
        let way = |limit| Way {
            pace: Pace::new(limit),
            health: Health::default(),
            hold: KeyHold::default(),
            evidence: Evidence::default(),
            in_flight: 0,
            probed: BTreeSet::new(),
            probes: 0,
            all_probed: false,
        };
        Self {
            keys: KeyHold::default(),
            bearer: None,
            // In the order of the operations.
            ways: [
                way(limits.issue),
                way(limits.create),
                way(limits.create_with_token),
                way(limits.revoke),
                way(limits.delete),
                way(limits.exchange),
            ],
            widest,
        }
    }

    /// The pace of an operation.
    pub fn pace(&mut self, operation: Operation) -> &mut Pace {
        &mut self.way(operation).pace
    }

    /// How many more calls of an operation may start now, pace aside. `remaining` is what is left to
    /// the most urgent row that waits.
    pub fn room(&self, operation: Operation, remaining: Remaining, now: Steady) -> usize {
        if self.bearer.is_some() {
            return 0;
        }
        let way = self.look(operation);
        let alive = remaining.alive();
        let held = !self.keys.admits(self.in_flight(), alive, now)
            || !way.hold.admits(way.in_flight, alive, now);
        if held {
            return 0;
        }
        way.health.room(way.in_flight, remaining.pressing(), now)
    }

    /// When one of so many waiting calls may start that could not now; `None` while only an ended
    /// call can make room.
    pub fn opens_at(
        &mut self,
        operation: Operation,
        waiting: usize,
        (press, remaining): (Press, Remaining),
        now: Steady,
    ) -> Option<Steady> {
        if self.bearer.is_some() {
            // It is looked again as soon as there is one.
            return None;
        }
        let (alive, total) = (remaining.alive(), self.in_flight());
        if let Some((until, _)) = self.keys.until(alive).filter(|(until, _)| *until > now) {
            return (total == 0).then_some(until);
        }
        let way = self.look(operation);
        if let Some((until, _)) = way.hold.until(alive).filter(|(until, _)| *until > now) {
            return (way.in_flight == 0).then_some(until);
        }
        if way.health.is_probing() {
            let probe_at = way.health.probe_at(remaining.pressing());
            if probe_at.is_none_or(|at| at > now) {
                return probe_at;
            }
        }
        if self.room(operation, remaining, now) == 0 {
            return None;
        }
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        self.way(operation).pace.ready_at(waiting, press, now)
    }

    /// Whether one of so many waiting calls has a permit now: in hand, or one that may be reserved.
    pub fn has_permit(
        &mut self,
        operation: Operation,
        waiting: usize,
        press: Press,
        now: Steady,
    ) -> bool {
        let waiting = u32::try_from(waiting.max(1)).unwrap_or(u32::MAX);
        let pace = self.pace(operation);
        pace.available(press, now) > 0 || pace.reservable(waiting, press, now) > 0
    }

    /// Whether only probes of an operation go out.
    pub fn is_probing(&self, operation: Operation) -> bool {
        self.look(operation).health.is_probing() || self.is_held(operation)
    }

    /// Rows that the next probe passes over. The most urgent row is probed first; but every second
    /// probe goes to one that was not tried yet, so that a row that fails for a reason of its own
    /// cannot keep the others waiting.
    pub fn passed_over(&self, operation: Operation) -> Option<&BTreeSet<Num>> {
        let way = self.look(operation);
        let passes = way.probes % 2 == 1 && !way.probed.is_empty();
        (passes && self.is_probing(operation)).then_some(&way.probed)
    }

    /// Every row that waits was probed once: a harmless call is next, then start over.
    pub fn forget_probed(&mut self, operation: Operation) {
        let way = self.way(operation);
        way.probed.clear();
        way.all_probed = true;
    }

    /// Whether the next probe is a harmless call, because every row that waits has failed: perhaps each of
    /// them by itself. Refused keys are proved by whoever watches over them.
    pub fn wants_proof(&self, operation: Operation) -> bool {
        let shut = self.is_probing(operation) && self.keys.until(None).is_none();
        shut && self.look(operation).all_probed
    }

    /// Uses a permit for a call that starts now; `None` where none is in hand.
    pub fn start(
        &mut self,
        operation: Operation,
        who: Num,
        press: Press,
        now: Steady,
    ) -> Option<Ticket> {
        let probing = self.is_probing(operation);
        let way = self.way(operation);
        if !way.pace.start(press, now) {
            return None;
        }
        if probing {
            way.probed.insert(who);
            way.probes += 1;
            // What only a right of the key can explain is soon found out.
            let held = operation == Operation::Issue && way.hold.until(None).is_some();
            way.all_probed |= held && way.probes.is_multiple_of(PROVED_EVERY);
        }
        way.in_flight += 1;
        Some(Ticket {
            operation,
            who,
            began: way.health.start(now),
        })
    }

    /// A row is known to fail by itself, as an earlier process found out.
    pub fn knows_failing(&mut self, operation: Operation, who: Num) {
        self.way(operation).evidence.knows_failing(who);
    }

    /// A call has ended; so many requests were sent for it.
    pub fn ended(
        &mut self,
        ticket: Ticket,
        requests: u32,
        result: Result<(), &Failure>,
        now: Moment,
    ) -> CallFinding {
        let way = self.way(ticket.operation);
        way.in_flight = way.in_flight.saturating_sub(1);
        way.pace.end(requests, now.steady);
        let Err(failure) = result else {
            return self.succeeded(ticket);
        };
        match (failure.class, failure.about) {
            (_, About::Bearer) => {
                way.health.abandoned(ticket.began, now.steady);
                gated()
            }
            (_, About::Request) => {
                way.health.abandoned(ticket.began, now.steady);
                CallFinding {
                    own: true,
                    ..CallFinding::default()
                }
            }
            (FailureClass::Retry, About::Resource) => {
                self.unanswered(ticket, FailureKind::Unconnected, failure, now)
            }
            (FailureClass::Retry, _) => {
                self.unanswered(ticket, FailureKind::Unanswered, failure, now)
            }
            (FailureClass::Credentials, About::Keys) => self.denied(ticket, failure, now),
            (FailureClass::Credentials, _) => self.forbidden(ticket, failure, now),
            (FailureClass::Wait, _) => self.throttled(ticket, failure, now),
            (FailureClass::Refuse | FailureClass::Gone, _) => self.refused(ticket, failure, now),
        }
    }

    /// A call was never sent, or our own code failed: it tells nothing. So many requests were sent.
    pub fn abandoned(&mut self, ticket: Ticket, requests: u32, now: Steady) {
        let way = self.way(ticket.operation);
        way.in_flight = way.in_flight.saturating_sub(1);
        way.pace.end(requests, now);
        way.health.abandoned(ticket.began, now);
    }

    /// Whether failures are about this row or about the resource can only be found out by a harmless signed
    /// call, now that it is its turn again: nothing but rows that cannot tell any more may wait beside it,
    /// see [`Gate::has_testified`].
    pub fn is_doubted(&self, operation: Operation, who: Num) -> bool {
        let evidence = &self.look(operation).evidence;
        !self.is_probing(operation)
            && evidence.has_testified(who)
            && evidence.open_question().is_some()
    }

    /// Whether a row was forbidden something, and it is not known whether all are.
    pub fn is_forbidding(&self, operation: Operation) -> bool {
        let question = self.look(operation).evidence.open_question();
        question == Some(FailureKind::Forbidden) && !self.is_probing(operation)
    }

    /// Whether harmless calls are to tell that it is a row's own fault that it is refused again and again.
    pub fn asks_for_vouching(&mut self, operation: Operation, who: Num) -> bool {
        if self.is_probing(operation) {
            return false;
        }
        self.way(operation).evidence.asks_for_vouching(who)
    }

    /// Such a call was answered, or failed as well.
    pub fn vouches(&mut self, operation: Operation, answered: bool) {
        self.way(operation).evidence.vouches(answered);
    }

    /// Whether another failure of this row could tell nothing new of the resource.
    pub fn has_testified(&self, operation: Operation, who: Num) -> bool {
        self.look(operation).evidence.has_testified(who)
    }

    /// A harmless call failed as well: it is about the resource. The rows whose failures are taken back.
    pub fn conclude(&mut self, operation: Operation, because: &str, now: Moment) -> CallFinding {
        let way = self.way(operation);
        let forbidden = way.evidence.open_question() == Some(FailureKind::Forbidden);
        let kind = match forbidden {
            true => FailureKind::Forbidden,
            false => FailureKind::Unanswered,
        };
        let excused = way.evidence.concluded(kind);
        if forbidden {
            way.hold.refused(because, now.steady);
        } else {
            let began = way.health.start(now.steady);
            way.health.trip(began, because, now);
        }
        CallFinding {
            gated: true,
            closed: true,
            excused,
            chance: 1.0,
            ..CallFinding::default()
        }
    }

    /// A harmless signed call was answered well: what failed is about the rows. Where only probes go out,
    /// that ends; but where many rows fail, what works for nobody says little.
    pub fn proved(&mut self, operation: Operation, now: Moment) -> CallFinding {
        let (widest, probing) = (self.widest, self.is_probing(operation));
        let way = self.way(operation);
        if !probing {
            way.evidence.vouched();
            return CallFinding::default();
        }
        // A right that the key has is no other for another row.
        let forbidden = way.hold.until(None).is_some();
        let conclusive = forbidden && operation == Operation::Issue;
        if !way.evidence.vindicated(conclusive) {
            let because = "nobody else is served";
            self.disproved(operation, because, now.steady);
            return CallFinding::default();
        }
        let opened = way.hold.accepted() | way.health.answered(widest);
        way.end_probing();
        CallFinding {
            opened,
            chance: 1.0,
            ..CallFinding::default()
        }
    }

    /// A harmless signed call failed as well, while only probes go out.
    pub fn disproved(&mut self, operation: Operation, because: &str, now: Steady) {
        let way = self.way(operation);
        way.all_probed = false;
        if way.hold.until(None).is_some() {
            way.hold.refused(because, now);
        }
        let began = way.health.start(now);
        way.health.probe_failed(began, because, now);
    }

    /// The keys are refused, as a harmless signed call says.
    pub fn keys_refused(&mut self, because: &str, now: Steady) {
        self.keys.refused(because, now);
    }

    /// A key is accepted: whatever its refusal held goes on. True when something was held.
    pub fn keys_accepted(&mut self) -> bool {
        self.keys.accepted()
    }

    /// Takes in why there is no bearer to call with, if there is none, and when it is looked next.
    pub fn heed_bearer(&mut self, none: Option<(Steady, String)>) {
        self.bearer = none;
    }

    /// Why there is no bearer to call with.
    pub fn without_bearer(&self) -> Option<&str> {
        self.bearer.as_ref().map(|(_, because)| because.as_str())
    }

    /// Uses a permit for a harmless call, which takes part in nothing but the pace.
    pub fn start_proof(&mut self, now: Steady) -> bool {
        self.way(Operation::Issue).pace.start(Press::Pressing, now)
    }

    pub fn end_proof(&mut self, requests: u32, now: Steady) {
        self.way(Operation::Issue).pace.end(requests, now);
    }

    /// Why we are refused at any of these operations, while we are.
    pub fn refusal(&self, operations: &[Operation]) -> Option<&str> {
        let holds = operations.iter().map(|one| &self.look(*one).hold);
        let mut holds = std::iter::once(&self.keys).chain(holds);
        holds.find_map(|hold| hold.until(None).map(|(_, because)| because))
    }

    /// That somebody else uses the resource, as 429s far below our own pace say.
    pub fn contention(&mut self, operation: Operation, now: Moment) -> Option<Contention> {
        let (since, sent, allowed, window) = self.way(operation).pace.contention(now.steady)?;
        Some(Contention {
            since: now.wall_before(since),
            operation: operation.as_str().to_owned(),
            sent,
            allowed,
            window_secs: window.as_secs(),
        })
    }

    /// Whether an operation is answered, whatever holds it.
    pub fn health(&self, operation: Operation) -> HealthView {
        self.look(operation).health.view()
    }

    pub fn view(&mut self, operation: Operation, now: Moment) -> HealthView {
        let held = |until, because: &str| HealthView::Held {
            until: now.wall_at(until),
            because: because.to_owned(),
        };
        if let Some((until, because)) = &self.bearer {
            return held(*until, because);
        }
        if let Some((until, because)) = self.keys.until(None) {
            return held(until, because);
        }
        let way = self.way(operation);
        if let Some((until, because)) = way.hold.until(None) {
            return held(until, because);
        }
        match way.pace.held_until(now.steady) {
            Some(until) if !way.health.is_probing() => held(until, &way.pace.held_because()),
            _ => way.health.view(),
        }
    }

    fn succeeded(&mut self, ticket: Ticket) -> CallFinding {
        let widest = self.widest;
        let keys = self.keys.accepted();
        let way = self.way(ticket.operation);
        let rate_is_back = way.evidence.end_hush();
        let recovered = way.evidence.succeeded(ticket.who);
        let opened = way.hold.accepted() | way.health.answered(widest) | keys;
        if opened {
            way.end_probing();
        }
        CallFinding {
            opened,
            recovered,
            rate_is_back,
            chance: 1.0,
            ..CallFinding::default()
        }
    }

    fn unanswered(
        &mut self,
        ticket: Ticket,
        kind: FailureKind,
        failure: &Failure,
        now: Moment,
    ) -> CallFinding {
        let held = self.is_held(ticket.operation);
        let way = self.way(ticket.operation);
        if way.health.is_probing() {
            let because = &failure.message;
            way.health.probe_failed(ticket.began, because, now.steady);
            way.evidence.accuse(ticket.who);
            return gated();
        }
        let suspect = way.evidence.is_suspect(ticket.who);
        let sign = way.evidence.failed(ticket.who, kind);
        if sign.trips {
            way.health.trip(ticket.began, &failure.message, now);
        } else if !suspect {
            way.health.shaken();
        }
        // A failed connection says nothing of any row.
        let gated = sign.trips || held || kind == FailureKind::Unconnected;
        self.found(ticket, sign, gated)
    }

    fn denied(&mut self, ticket: Ticket, failure: &Failure, now: Moment) -> CallFinding {
        let evidence = &self.look(ticket.operation).evidence;
        if evidence.is_suspect(ticket.who) && self.keys.until(None).is_none() {
            // Others were served with the same key since this row began to be refused.
            return self.forbidden(ticket, failure, now);
        }
        self.health_answered(ticket, now);
        self.way(ticket.operation).evidence.accuse(ticket.who);
        let closed = self.keys.refused(&failure.message, now.steady);
        CallFinding { closed, ..gated() }
    }

    fn forbidden(&mut self, ticket: Ticket, failure: &Failure, now: Moment) -> CallFinding {
        let because = &failure.message;
        self.health_answered(ticket, now);
        if self.keys.until(None).is_some() {
            self.keys.refused(because, now.steady);
            self.way(ticket.operation).evidence.accuse(ticket.who);
            return gated();
        }
        let way = self.way(ticket.operation);
        if way.hold.until(None).is_some() {
            way.hold.refused(because, now.steady);
            way.evidence.accuse(ticket.who);
            return gated();
        }
        let sign = way.evidence.failed(ticket.who, FailureKind::Forbidden);
        if sign.trips {
            way.hold.refused(because, now.steady);
        }
        let gated = sign.trips;
        self.found(ticket, sign, gated)
    }

    /// 429: the operation is held, unless others are served at the same pace and this row alone is not; then
    /// it alone waits as long as it was told.
    fn throttled(&mut self, ticket: Ticket, failure: &Failure, now: Moment) -> CallFinding {
        let opened = self.answered(ticket, now);
        let way = self.way(ticket.operation);
        if way.evidence.throttled(ticket.who, way.in_flight) {
            way.pace.throttled(failure.retry_after, now.steady);
            return CallFinding { opened, ..gated() };
        }
        let sign = way.evidence.failed(ticket.who, FailureKind::Throttled);
        CallFinding {
            opened,
            ..self.found(ticket, sign, false)
        }
    }

    fn refused(&mut self, ticket: Ticket, failure: &Failure, now: Moment) -> CallFinding {
        let opened = self.answered(ticket, now);
        let way = self.way(ticket.operation);
        // Nothing that is to be made can be gone.
        if failure.class == FailureClass::Gone && ticket.operation != Operation::CreateWithToken {
            way.evidence.forget(ticket.who);
            return CallFinding {
                opened,
                chance: 1.0,
                ..CallFinding::default()
            };
        }
        let sign = way.evidence.failed(ticket.who, FailureKind::Refused);
        let vouched = way.evidence.is_refused_alone(ticket.who);
        CallFinding {
            opened,
            vouched,
            ..self.found(ticket, sign, false)
        }
    }

    fn found(&self, ticket: Ticket, sign: Sign, gated: bool) -> CallFinding {
        let evidence = &self.look(ticket.operation).evidence;
        let doubtful = !sign.trips && !sign.own && evidence.open_question().is_some();
        CallFinding {
            gated,
            own: sign.own,
            others_succeed: sign.others_succeed,
            others_fail: sign.others_fail,
            rate: sign.rate,
            chance: sign.chance,
            doubtful,
            excused: sign.excused,
            closed: sign.trips,
            ..CallFinding::default()
        }
    }

    /// The service said something that only a signature that it accepts can have brought about. True
    /// when more than probes go out from now on.
    fn answered(&mut self, ticket: Ticket, now: Moment) -> bool {
        let opened = self.health_answered(ticket, now);
        if self.look(ticket.operation).evidence.is_suspect(ticket.who) {
            return opened;
        }
        let keys = self.keys.accepted();
        let way = self.way(ticket.operation);
        let opened = way.hold.accepted() | keys | opened;
        if opened {
            way.end_probing();
        }
        opened
    }

    /// The service said something. What it says to a row that fails while others succeed is no sign.
    fn health_answered(&mut self, ticket: Ticket, now: Moment) -> bool {
        let widest = self.widest;
        let way = self.way(ticket.operation);
        if way.evidence.is_suspect(ticket.who) {
            way.health.abandoned(ticket.began, now.steady);
            return false;
        }
        let opened = way.health.answered(widest);
        if opened {
            way.end_probing();
        }
        opened
    }

    fn is_held(&self, operation: Operation) -> bool {
        self.keys.until(None).is_some() || self.look(operation).hold.until(None).is_some()
    }

    /// Calls of all operations that are on their way.
    fn in_flight(&self) -> usize {
        self.ways.iter().map(|way| way.in_flight).sum()
    }

    fn look(&self, operation: Operation) -> &Way {
        &self.ways[operation as usize]
    }

    fn way(&mut self, operation: Operation) -> &mut Way {
        &mut self.ways[operation as usize]
    }
}

impl Way {
    fn end_probing(&mut self) {
        self.probed.clear();
        self.probes = 0;
        self.all_probed = false;
    }
}

/// What is about no row.
fn gated() -> CallFinding {
    CallFinding {
        gated: true,
        chance: 1.0,
        ..CallFinding::default()
    }
}
