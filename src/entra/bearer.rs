//! A bearer, and what is decided about it: when it is renewed, who may use it, and what is done while there is none.
//! Plain state; the time is an argument, on the clock that never steps.
//!
//! It is renewed at half of what is left of its life, or when whoever gave it asked for that; the one in hand is used
//! to its end. One request at a time goes out, for all who wait, and never sooner after another one than the answer to
//! that allows. A renewal may bring the same bearer, as metadata services keep theirs: then it is half of the rest.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, header::InvalidHeaderValue};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    answer::{EDGE, Grant},
    error::{BETWEEN, BearerError},
};
use crate::model::{BearerCause, BearerTrouble, Secret};

/// On the clock that never steps.
type Steady = Duration;
/// When a request was begun. Whoever is given it sends the request and says how that ended.
pub(super) type Begun = Steady;

/// So many refusals in a row, of a bearer that was taken before, are no longer about whom the calls were for.
const REFUSALS: u32 = 2;

/// What calls to ACS carry in place of a signature. `Debug` does not show it.
pub struct Bearer {
    authorization: HeaderValue,
    /// The `minted_by` of tokens that it brings.
    minter: String,
}

impl Bearer {
    pub(super) fn new(secret: &Secret, minter: String) -> Result<Self, InvalidHeaderValue> {
        let mut text = Zeroizing::new(Vec::with_capacity(7 + secret.expose().len()));
        text.extend_from_slice(b"Bearer ");
        text.extend_from_slice(secret.expose().as_bytes());
        let mut authorization = HeaderValue::from_maybe_shared(Bytes::from_owner(text))?;
        authorization.set_sensitive(true);
        Ok(Self {
            authorization,
            minter,
        })
    }

    /// The value of the `Authorization` header.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The `minted_by` of tokens that it brings.
    pub fn minter(&self) -> &str {
        &self.minter
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({})", self.minter)
    }
}

/// Everything that is known of the bearers of a resource.
#[derive(Debug, Default)]
pub(super) struct Hand {
    held: Option<Held>,
    /// When the last request was begun.
    tried_at: Option<Steady>,
    trying: bool,
    /// No request goes out before this.
    again_at: Steady,
    /// Requests in a row that brought none.
    failures: u32,
    /// Why the last one did not.
    trouble: Option<BearerTrouble>,
    /// Calls in a row that ACS refused because of the bearer.
    refusals: u32,
    /// Some call with some bearer was not refused.
    taken: bool,
    /// ACS does not take it.
    refused: Option<BearerTrouble>,
}

#[derive(Debug, Clone)]
struct Held {
    bearer: Arc<Bearer>,
    ends: Steady,
    renews_at: Steady,
    /// A call with it was not refused.
    taken: bool,
    /// It came because ACS did not take the one before.
    instead: bool,
    /// Another one was asked for because ACS refused it, or challenged it.
    replaced: bool,
}

/// What a call does for its bearer.
#[derive(Debug)]
pub(super) enum BearerTurn {
    Take(Arc<Bearer>),
    /// A request is on its way.
    Wait,
    /// A request was begun, which is to be sent now.
    Ask(Begun),
    /// None may, because of this.
    Fail(BearerTrouble),
}

impl Hand {
    fn usable(&self, now: Steady) -> Option<&Held> {
        self.held.as_ref().filter(|held| now + EDGE < held.ends)
    }

    /// Takes over what is in hand elsewhere for the same caller, to be used to its end; where something else `proves`
    /// who that is, that is tried at once.
    pub(super) fn take_over(&mut self, before: &Self, proves: bool, now: Steady) {
        self.held = before.held.clone();
        self.taken = before.taken;
        match &mut self.held {
            Some(held) if proves => held.renews_at = now,
            _ => self.again_at = before.again_at,
        }
    }

    /// What a call does now.
    pub(super) fn turn(&mut self, now: Steady) -> BearerTurn {
        match (self.usable(now), &self.trouble) {
            (Some(held), _) => BearerTurn::Take(held.bearer.clone()),
            _ if self.trying => BearerTurn::Wait,
            (None, Some(trouble)) if now < self.again_at => BearerTurn::Fail(trouble.clone()),
            // The end of a bearer that came just before is no reason to wait.
            (None, _) => BearerTurn::Ask(self.begin(now)),
        }
    }

    /// What a call does whose bearer was refused: `challenged` where ACS asked for another one. `None`: nothing, the
    /// refusal stands.
    pub(super) fn turn_after(
        &mut self,
        refused: &Arc<Bearer>,
        challenged: bool,
        now: Steady,
    ) -> Option<BearerTurn> {
        let Some(held) = self.usable(now) else {
            return Some(self.turn(now));
        };
        if !Arc::ptr_eq(&held.bearer, refused) {
            return Some(BearerTurn::Take(held.bearer.clone()));
        }
        if self.trying {
            return Some(BearerTurn::Wait);
        }
        // A challenge is answered at once, unless that was just done; else it is not sooner asked for another one
        // than by itself.
        let may = match challenged {
            true => !held.instead || held.taken || now >= self.again_at,
            false => held.taken && now >= self.again_at,
        };
        if held.replaced || !may {
            return None;
        }
        self.held.iter_mut().for_each(|held| held.replaced = true);
        Some(BearerTurn::Ask(self.begin(now)))
    }

    /// Begins the request that is due by itself, if one is.
    pub(super) fn begin_due(&mut self, now: Steady) -> Option<Begun> {
        let due = self.due_at().is_some_and(|at| at <= now);
        due.then(|| self.begin(now))
    }

    /// When the next request is due by itself; `None` while one is on its way.
    pub(super) fn due_at(&self) -> Option<Steady> {
        let renews_at = self
            .held
            .as_ref()
            .map_or(Steady::ZERO, |held| held.renews_at);
        (!self.trying).then(|| renews_at.max(self.again_at))
    }

    fn begin(&mut self, now: Steady) -> Begun {
        self.trying = true;
        self.tried_at = Some(now);
        now
    }

    /// A request that began at `since` brought a bearer.
    pub(super) fn granted(&mut self, granted: &Grant, bearer: Bearer, since: Begun, now: Steady) {
        self.trying = false;
        (self.failures, self.trouble) = (0, None);
        self.again_at = since + BETWEEN;
        let ends = since + granted.lives;
        let half = ends.saturating_sub(now) / 2;
        let told = granted.refresh_in.filter(|told| *told < granted.lives);
        let renews_at = told.map_or(now + half, |told| since + told.max(BETWEEN));
        let before = self.held.take();
        self.held = Some(match before {
            Some(held) if held.bearer.authorization == bearer.authorization => Held {
                ends,
                // One that comes back as it was is not asked for again as soon as it was said of it.
                renews_at: renews_at.max(now + half.min(BETWEEN * 10)),
                ..held
            },
            before => Held {
                bearer: Arc::new(bearer),
                ends,
                renews_at,
                taken: false,
                instead: before.is_some_and(|held| held.replaced),
                replaced: false,
            },
        });
    }

    /// A request brought none.
    pub(super) fn failed(&mut self, error: &BearerError, now: (Steady, Timestamp)) {
        self.trying = false;
        self.failures = self.failures.saturating_add(1);
        self.again_at = now.0 + error.again.wait(self.failures);
        let before = self.trouble.take();
        // An outage goes on while its reasons change; one refusal is not another.
        let goes_on = before.filter(|before| {
            before.cause == error.cause || (before.cause.is_outage() && error.cause.is_outage())
        });
        self.trouble = Some(BearerTrouble {
            since: goes_on.map_or(now.1, |before| before.since),
            cause: error.cause,
            told: error.told.clone(),
        });
    }

    /// Another secret lies in the place of the one that was refused: it need not wait.
    pub(super) fn hurry(&mut self, now: Steady) {
        let between = self.tried_at.map_or(Steady::ZERO, |at| at + BETWEEN);
        self.again_at = self.again_at.min(between.max(now));
    }

    /// What was refused waits for a person, who may put another secret in place.
    pub(super) fn waits_for_person(&self) -> bool {
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|trouble| !trouble.cause.is_outage()) && !self.trying
    }

    /// ACS took a bearer.
    pub(super) fn taken(&mut self, bearer: &Arc<Bearer>) {
        (self.refusals, self.refused) = (0, None);
        self.taken = true;
        if let Some(held) = self
            .held
            .as_mut()
            .filter(|held| Arc::ptr_eq(&held.bearer, bearer))
        {
            held.taken = true;
        }
    }

    /// ACS refused a bearer for good, or challenged it once more.
    pub(super) fn refused(&mut self, cause: BearerCause, told: &str, now: Timestamp) {
        self.refusals = self.refusals.saturating_add(1);
        if self.taken && self.refusals < REFUSALS {
            return;
        }
        let since = self.refused.take().map_or(now, |before| before.since);
        self.refused = Some(BearerTrouble {
            since,
            cause,
            told: told.to_owned(),
        });
    }

    /// What is wrong: there is none to be had, or ACS does not take it.
    pub(super) fn trouble(&self) -> Option<&BearerTrouble> {
        self.trouble.as_ref().or(self.refused.as_ref())
    }

    /// Why no call can be made, and when it is looked next whether one can: no bearer is in hand, and the last request
    /// brought none.
    pub(super) fn hold(&self, now: Steady) -> Option<(Steady, &BearerTrouble)> {
        let trouble = self
            .trouble
            .as_ref()
            .filter(|_| self.usable(now).is_none())?;
        Some((self.again_at, trouble))
    }

    /// How long the bearer in hand lasts.
    pub(super) fn lasts(&self, now: Steady) -> Option<Duration> {
        self.usable(now).map(|held| held.ends.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::error::Again, *};

    const S: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);

    fn wall(now: Steady) -> (Steady, Timestamp) {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        (now, noon + now)
    }

    fn granted(text: &str, lives: Duration) -> Grant {
        Grant {
            secret: Secret::new(text.to_owned()),
            lives,
            refresh_in: None,
            client: None,
        }
    }

    fn give(hand: &mut Hand, what: &Grant, now: Steady) {
        let bearer = Bearer::new(&what.secret, "entra:me".to_owned()).unwrap();
        hand.granted(what, bearer, now, now);
    }

    /// A hand that holds a bearer of an hour since the beginning.
    fn with(text: &str) -> Hand {
        let mut hand = Hand::default();
        assert!(matches!(hand.turn(Steady::ZERO), BearerTurn::Ask(_)));
        give(&mut hand, &granted(text, MINUTE * 60), Steady::ZERO);
        hand
    }

    fn in_hand(hand: &mut Hand, now: Steady) -> Arc<Bearer> {
        match hand.turn(now) {
            BearerTurn::Take(bearer) => bearer,
            other => panic!("{other:?}"),
        }
    }

    fn silent() -> BearerError {
        BearerError::unanswered("silence", Again::Later)
    }

    #[test]
    fn it_is_renewed_at_half_of_its_life_and_used_to_its_end() {
        let mut hand = with("one");
        assert_eq!(hand.due_at(), Some(MINUTE * 30));
        assert_eq!(hand.begin_due(MINUTE * 29), None);
        assert!(hand.begin_due(MINUTE * 30).is_some());
        assert_eq!(hand.begin_due(MINUTE * 31), None, "one at a time");
        let mut now = MINUTE * 30;
        hand.failed(&silent(), wall(now));
        let mut requests = 1;
        while now < MINUTE * 60 - EDGE * 2 {
            now += S;
            in_hand(&mut hand, now);
            if hand.begin_due(now).is_some() {
                requests += 1;
                hand.failed(&silent(), wall(now));
            }
        }
        assert_eq!(requests, 60, "one each 30 s");
        assert!(hand.hold(now).is_none());
        assert_eq!(hand.trouble().unwrap().since, wall(MINUTE * 30).1);
        assert!(matches!(
            hand.turn(MINUTE * 60),
            BearerTurn::Fail(_) | BearerTurn::Ask(_)
        ));
        assert!(hand.hold(MINUTE * 60).is_some());
    }

    #[test]
    fn a_successor_uses_what_is_in_hand_to_its_end_and_tries_another_secret_at_once() {
        let mut before = with("one");
        let held = in_hand(&mut before, S);
        for (proves, due) in [(false, before.due_at().unwrap()), (true, S * 2)] {
            let mut hand = Hand::default();
            hand.take_over(&before, proves, S * 2);
            assert!(Arc::ptr_eq(&in_hand(&mut hand, S * 2), &held));
            assert_eq!(hand.due_at(), Some(due));
            assert_eq!(hand.lasts(S * 2), before.lasts(S * 2));
        }
        let mut hand = Hand::default();
        hand.take_over(&Hand::default(), true, S);
        assert!(matches!(hand.turn(S), BearerTurn::Ask(_)));
    }

    #[test]
    fn what_gave_it_may_say_when_it_is_renewed() {
        for (said, due) in [(45, 45), (0, 0), (70, 30)] {
            let mut hand = Hand::default();
            hand.begin_due(S);
            let what = Grant {
                refresh_in: Some(MINUTE * said),
                ..granted("one", MINUTE * 60)
            };
            let bearer = Bearer::new(&what.secret, String::new()).unwrap();
            hand.granted(&what, bearer, Steady::ZERO, Steady::ZERO);
            assert_eq!(hand.due_at(), Some((MINUTE * due).max(BETWEEN)), "{said}");
        }
    }

    #[test]
    fn the_same_one_again_is_no_loop() {
        let mut hand = with("one");
        let (mut now, mut requests) = (Steady::ZERO, 0);
        while now < MINUTE * 60 {
            now += S;
            if hand.begin_due(now).is_some() {
                requests += 1;
                let what = Grant {
                    refresh_in: Some(S),
                    ..granted("one", MINUTE * 60 - now)
                };
                give(&mut hand, &what, now);
            }
        }
        assert!(requests < 20, "{requests} requests");
    }

    #[test]
    fn whoever_waits_is_served_by_one_request_and_fails_at_once_where_none_may_go_out() {
        let mut hand = Hand::default();
        assert!(matches!(hand.turn(S), BearerTurn::Ask(_)));
        assert!(matches!(hand.turn(S), BearerTurn::Wait));
        hand.failed(&silent(), wall(S * 2));
        assert!(matches!(hand.turn(S * 3), BearerTurn::Fail(_)));
        assert!(hand.hold(S * 3).is_some_and(|(until, _)| until == S * 32));
        assert!(matches!(hand.turn(S * 32), BearerTurn::Ask(_)));
        assert!(hand.hold(S * 33).is_some(), "it holds while it is asked");
        give(&mut hand, &granted("one", MINUTE * 60), S * 34);
        assert!(hand.hold(S * 34).is_none() && hand.trouble().is_none());
    }

    #[test]
    fn what_is_refused_waits_long_and_is_hurried_by_another_secret() {
        let mut hand = Hand::default();
        hand.begin_due(S);
        hand.failed(
            &BearerError::refused(BearerCause::WrongSecret, "no"),
            wall(S),
        );
        assert_eq!(hand.due_at(), Some(S * 601));
        assert!(hand.waits_for_person());
        hand.hurry(S * 10);
        assert_eq!(hand.due_at(), Some(S * 31));
        hand.hurry(S * 100);
        assert_eq!(hand.due_at(), Some(S * 31));
    }

    #[test]
    fn one_that_was_taken_and_is_refused_is_replaced_once() {
        let mut hand = with("one");
        let one = in_hand(&mut hand, MINUTE);
        assert!(
            hand.turn_after(&one, false, MINUTE).is_none(),
            "it was never taken"
        );
        hand.taken(&one);
        assert!(matches!(
            hand.turn_after(&one, false, MINUTE),
            Some(BearerTurn::Ask(_))
        ));
        assert!(matches!(
            hand.turn_after(&one, false, MINUTE),
            Some(BearerTurn::Wait)
        ));
        assert!(
            matches!(hand.turn(MINUTE), BearerTurn::Take(_)),
            "for all others it goes on"
        );
        give(&mut hand, &granted("one", MINUTE * 59), MINUTE);
        assert!(
            hand.turn_after(&one, false, MINUTE * 5).is_none(),
            "it is the same"
        );
        let mut hand = with("one");
        let one = in_hand(&mut hand, MINUTE);
        hand.taken(&one);
        hand.turn_after(&one, false, MINUTE);
        give(&mut hand, &granted("two", MINUTE * 60), MINUTE);
        assert!(matches!(
            hand.turn_after(&one, false, MINUTE),
            Some(BearerTurn::Take(_))
        ));
        let two = in_hand(&mut hand, MINUTE);
        hand.taken(&two);
        assert!(
            hand.turn_after(&two, false, MINUTE).is_none(),
            "not within 30 s"
        );
        assert!(hand.turn_after(&two, false, MINUTE * 2).is_some());
    }

    #[test]
    fn a_challenge_is_answered_at_once_and_once() {
        let mut hand = with("one");
        let one = in_hand(&mut hand, S);
        assert!(matches!(
            hand.turn_after(&one, true, S),
            Some(BearerTurn::Ask(_))
        ));
        hand.failed(&silent(), wall(S));
        assert!(hand.turn_after(&one, true, S).is_none());
    }

    #[test]
    fn one_refusal_among_many_that_are_served_says_nothing() {
        let mut hand = with("one");
        let one = in_hand(&mut hand, S);
        let refuse = |hand: &mut Hand| hand.refused(BearerCause::MissingRole, "403", wall(S).1);
        refuse(&mut hand);
        assert!(hand.trouble().is_some(), "it was never taken");
        hand.taken(&one);
        assert!(hand.trouble().is_none());
        refuse(&mut hand);
        assert!(hand.trouble().is_none());
        refuse(&mut hand);
        assert_eq!(hand.trouble().unwrap().cause, BearerCause::MissingRole);
    }

    #[test]
    fn it_is_not_shown() {
        let hand = with("canary");
        let one = granted("canary", S);
        let bearer = Bearer::new(&one.secret, "entra:me".to_owned()).unwrap();
        let shown = format!("{hand:?} {one:?} {bearer:?} {:?}", bearer.authorization());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
