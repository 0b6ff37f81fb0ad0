//! A token's life on our own clock: tiers, the renewal's due time, what is left, and the tries that fit into
//! what is left.
//!
//! | failure | at least between two attempts | grows to |
//! |---|---|---|
//! | `retry`: no answer, an unreadable one, 5xx | 1 s | a sixth of the life left, at most 5 min; once dead 1 min |
//! | `wait`: throttled | 1 s (and the operation is held for Retry-After) | as above |
//! | `credentials` | 5 s (and the resource is held) | as above |
//! | `refuse`, while it is not known to be the row's own fault | 1 s | a sixth of the life left, at most 60 s |
//! | `refuse`: the same request will be refused again | 60 s, doubling | 1 h |
//! | `gone` | never again by itself | – |
//! | a panic in our own code | 60 s, doubling | 1 h |

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{Rng, RngExt};

use super::{Grounds, RenewalWindow, Standing, standing};
use crate::model::{Due, DueReason, FailureClass, Num, Record, Spec, Tier, TokenMeta};

/// Six of the gaps between probes while something is dead.
const AS_IF_ALIVE: Duration = Duration::from_secs(30);
/// A renewal never follows its token faster than this, whatever the token says.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// A token issued further in the future than this was minted under another clock.
const FUTURE: SignedDuration = SignedDuration::from_mins(5);

/// From when to when a token lives, by our clock. A token's own times are the service's; the
/// difference between the two clocks is taken out once, here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When it was issued.
    pub from: Timestamp,
    pub to: Timestamp,
}

/// What is left of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    Alive(Duration),
    /// It ended so long ago.
    Dead(Duration),
    /// There was never a token.
    Never,
}

impl Life {
    /// The life of a token, where the service's clock is `skew` ahead of ours.
    pub fn of(token: &TokenMeta, skew: SignedDuration) -> Self {
        let ours = |at: Timestamp| at.checked_sub(skew).unwrap_or(at);
        Self {
            from: ours(token.issued_at),
            to: ours(token.expires_at),
        }
    }

    /// The whole of it, never negative.
    pub fn length(&self) -> Duration {
        between(self.from, self.to)
    }

    /// When it becomes urgent: a quarter is left.
    pub fn late_at(&self) -> Timestamp {
        back(self.to, self.length() / 4)
    }

    /// When the next token may be due: at `renew_at` of the life, spread early only, and no earlier than half of
    /// that where the load is to be levelled. One instant of it is drawn, once per version, and stored.
    pub fn renewal(&self, spec: &Spec) -> RenewalWindow {
        self.renewal_at(spec.declared.renew_at, spec.declared.spread)
    }

    /// The same, by `renew_at` and `spread`.
    pub(super) fn renewal_at(&self, renew_at: f64, spread: f64) -> RenewalWindow {
        let after = |share: f64| {
            let wait = self.length().mul_f64(share.clamp(0.0, 1.0));
            ahead(self.from, wait.max(SHORTEST_WAIT))
        };
        RenewalWindow {
            half: after(renew_at / 2.0),
            from: after(renew_at - spread),
            to: after(renew_at),
        }
    }

    /// How pressing the renewal is.
    pub fn tier(&self, now: Timestamp) -> Tier {
        let (left, length) = (between(now, self.to), self.length());
        if left <= length / 10 {
            Tier::Emergency
        } else if left <= length / 4 {
            Tier::Urgent
        } else {
            Tier::Normal
        }
    }

    /// What is left at an instant.
    pub fn remaining(&self, now: Timestamp) -> Remaining {
        if now < self.to {
            Remaining::Alive(between(now, self.to))
        } else {
            Remaining::Dead(between(self.to, now))
        }
    }
}

impl Remaining {
    /// What is left to the token of a record: a doubtful one counts as dead since it is in doubt.
    pub fn of(record: &Record, grounds: &Grounds, now: Timestamp) -> Self {
        match standing(record, grounds, now) {
            Standing::None => Self::Never,
            Standing::Good { left } => Self::Alive(left),
            Standing::Doubtful { since, .. } | Standing::Dead { since, .. } => {
                Self::Dead(between(since, now))
            }
        }
    }

    /// The life left, where there is any.
    pub fn alive(self) -> Option<Duration> {
        match self {
            Self::Alive(left) => Some(left),
            Self::Dead(_) | Self::Never => None,
        }
    }

    /// What the gaps between probes follow: the life left. Something dead counts as having half a
    /// minute, so that recovery is noticed within 5 s while anything is without a token.
    pub fn pressing(self) -> Option<Duration> {
        match self {
            Self::Alive(left) => Some(left),
            Self::Dead(_) => Some(AS_IF_ALIVE),
            Self::Never => None,
        }
    }
}

/// Where a row waits for an instant that makes no sense, as the clock was corrected backwards since it was set, the due
/// time that it should have instead: what was to be done at once is, and a renewal is where its token says.
///
/// A token issued more than 5 min in the future is renewed at once; it happens once per version,
/// because the token that follows is not issued in the future.
pub fn misplaced(record: &Record, skew: SignedDuration, now: Timestamp) -> Option<Due> {
    let due = record.due?;
    if due.at <= now {
        return None;
    }
    let at_once = matches!(
        due.why,
        DueReason::Revoked | DueReason::Requested | DueReason::Released
    );
    if at_once && due.at.duration_since(now) > FUTURE {
        // It was set by a clock that was ahead.
        return Some(Due { at: now, ..due });
    }
    let token = record.token.as_ref()?;
    let life = Life::of(token, skew);
    if life.from.duration_since(now) > FUTURE {
        return Some(Due {
            at: now,
            why: DueReason::FutureToken,
        });
    }
    let latest = ahead(
        life.from,
        life.length()
            .mul_f64(record.spec.declared.renew_at)
            .max(SHORTEST_WAIT),
    );
    (due.why == DueReason::Renewal && due.at.duration_since(latest) > FUTURE).then(|| Due {
        at: latest.max(now),
        why: DueReason::Renewal,
    })
}

/// `at` plus `by`, kept within what a timestamp can hold.
pub(super) fn ahead(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn back(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::{Attempts, Declaration, OnRemoval, Origin, Scope, State, Version};

    pub(in crate::schedule) fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    pub(in crate::schedule) fn noon() -> Timestamp {
        at("2026-11-22T12:00:00Z")
    }

    pub(in crate::schedule) fn spec() -> Spec {
        Spec {
            name: "bot".parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            origin: Origin::File,
            declared: Declaration {
                id: None,
                scopes: vec![Scope::Chat],
                lifetime: Duration::from_hours(24),
                renew_at: 0.5,
                spread: 0.02,
                labels: std::collections::BTreeMap::default(),
                readers: Vec::new(),
                sinks: Vec::new(),
                on_removal: OnRemoval::Hold,
            },
        }
    }

    pub(in crate::schedule) fn token(from: Timestamp, life: Duration) -> TokenMeta {
        TokenMeta {
            issued_at: from,
            expires_at: ahead(from, life),
            minted_by: "aabbcc".to_owned(),
        }
    }

    pub(in crate::schedule) fn record(token: Option<TokenMeta>, due: Option<Due>) -> Record {
        Record {
            num: 1,
            spec: spec(),
            id: Some("8:acs:1".parse().unwrap()),
            state: State::Active,
            version: Version(1),
            late_at: token
                .as_ref()
                .map(|t| Life::of(t, SignedDuration::ZERO).late_at()),
            token,
            due,
            attempts: Attempts::default(),
            failures: 0,
            failing_since: None,
            revoked_at: None,
            revoked: false,
            known_dead: false,
            doubted: false,
            late_notified: false,
        }
    }

    proptest! {
        #[test]
        fn renewals_are_spread_early_only(secs in 20u64..=86_400, seed: u64) {
            let life = Life { from: noon(), to: ahead(noon(), Duration::from_secs(secs)) };
            let due = due(life, &mut ChaCha8Rng::seed_from_u64(seed));
            let share = between(noon(), due).as_secs_f64() / secs as f64;
            prop_assert!((0.48..=0.5).contains(&share), "{share}");
        }
    }

    pub(in crate::schedule) fn due(life: Life, rng: &mut impl Rng) -> Timestamp {
        crate::schedule::Load::default().draw(life.renewal(&spec()), noon(), rng)
    }

    #[test]
    fn tiers_follow_the_life_left() {
        let life = Life {
            from: noon(),
            to: ahead(noon(), Duration::from_secs(1000)),
        };
        let tier = |secs| life.tier(ahead(noon(), Duration::from_secs(secs)));
        assert_eq!(tier(0), Tier::Normal);
        assert_eq!(tier(749), Tier::Normal);
        assert_eq!(tier(750), Tier::Urgent);
        assert_eq!(tier(899), Tier::Urgent);
        assert_eq!(tier(900), Tier::Emergency);
        assert_eq!(tier(5000), Tier::Emergency);
        assert_eq!(life.late_at(), ahead(noon(), Duration::from_secs(750)));
    }

    #[test]
    fn a_token_that_was_born_dead_does_not_loop() {
        let life = Life {
            from: noon(),
            to: at("2026-11-22T11:00:00Z"),
        };
        assert!(life.renewal(&spec()).half >= ahead(noon(), SHORTEST_WAIT));
    }

    #[test]
    fn a_token_from_the_future_is_renewed_once() {
        let tomorrow = ahead(noon(), Duration::from_hours(24));
        let later = Due {
            at: ahead(tomorrow, Duration::from_hours(12)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(tomorrow, Duration::from_hours(24))), Some(later));
        let moved = misplaced(&row, SignedDuration::ZERO, noon()).unwrap();
        assert_eq!(
            moved,
            Due {
                at: noon(),
                why: DueReason::FutureToken
            }
        );
        // Now due: nothing is left to move.
        let row = record(row.token, Some(moved));
        assert_eq!(misplaced(&row, SignedDuration::ZERO, noon()), None);
        // The service's clock is a day ahead as well: the token is as it should be.
        let due = Due {
            at: ahead(noon(), Duration::from_hours(12)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(tomorrow, Duration::from_hours(24))), Some(due));
        assert_eq!(
            misplaced(&row, SignedDuration::from_hours(24), noon()),
            None
        );
    }

    #[test]
    fn a_row_that_waits_past_its_token_is_brought_forward() {
        // Issued under a clock a day ahead of the service: due a day too late once that is mended.
        let late = Due {
            at: ahead(noon(), Duration::from_hours(36)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(noon(), Duration::from_hours(24))), Some(late));
        let moved = misplaced(&row, SignedDuration::ZERO, noon()).unwrap();
        assert_eq!(moved.at, ahead(noon(), Duration::from_hours(12)));
    }
}

/// The share of its life left that a due renewal may wait for a lowered pace: one in so many.
const WAITS: u32 = 7;
const SHORTEST_GAP: Duration = Duration::from_secs(1);
const LONGEST_GAP: Duration = Duration::from_mins(5);
/// Once a token is dead, or where there never was one.
const LONGEST_GAP_WITHOUT_TOKEN: Duration = Duration::from_mins(1);
const SHORTEST_REFUSED: Duration = Duration::from_mins(1);
const LONGEST_REFUSED: Duration = Duration::from_hours(1);
/// An item of a bulk operation that failed so often has failed for good, where it is known to be about
/// the item: others would hardly ever see such a run of failures.
const ITEM_ATTEMPTS: u32 = 6;
const ITEM_CHANCE: f64 = 3e-5;
/// One that is not answered although others are is given up after so many calls.
const ITEM_UNANSWERED: u32 = 20;
/// The gap once there were that many: what is looked for is evidence.
const LATER_ITEM_GAP: Duration = Duration::from_secs(4);
/// A call that hung has used up its gap; this much air is left all the same.
const AIR: Duration = Duration::from_millis(250);

const SHORTEST_DEADLINE: Duration = Duration::from_secs(1);
const LONGEST_DEADLINE: Duration = Duration::from_secs(30);
/// Where there is no life that a hanging answer could eat.
const DEADLINE_WITHOUT_TOKEN: Duration = Duration::from_secs(10);

/// The least time retry_between the beginnings of two attempts that fail so; `None`: no second attempt.
pub fn floor(class: FailureClass) -> Option<Duration> {
    match class {
        FailureClass::Retry | FailureClass::Wait => Some(SHORTEST_GAP),
        FailureClass::Credentials => Some(Duration::from_secs(5)),
        FailureClass::Refuse => Some(SHORTEST_REFUSED),
        FailureClass::Gone => None,
    }
}

/// How long one call may take: at most a sixth of the life left, 1 s to 30 s.
pub fn call_deadline(remaining: Remaining) -> Duration {
    match remaining {
        Remaining::Alive(left) => (left / 6).clamp(SHORTEST_DEADLINE, LONGEST_DEADLINE),
        Remaining::Dead(_) | Remaining::Never => DEADLINE_WITHOUT_TOKEN,
    }
}

/// When to try again after an attempt that began and ended then and failed so; `None`: not by
/// itself. `failures` counts those in a row before this one.
///
/// The gap is counted from the beginning of the attempt, so that a call that hangs does not cost
/// its own time and a gap on top.
pub fn next_attempt(
    class: FailureClass,
    (began, ended): (Timestamp, Timestamp),
    remaining: Remaining,
    failures: u32,
    rng: &mut impl Rng,
) -> Option<Timestamp> {
    let gap = match class {
        FailureClass::Gone => return None,
        FailureClass::Refuse => quarantine_gap(failures, rng),
        FailureClass::Retry | FailureClass::Wait | FailureClass::Credentials => {
            let floor = floor(class)?;
            retry_between(floor, longest_gap(remaining, failures).max(floor), rng)
        }
    };
    Some(ahead(began, gap).max(ahead(ended, AIR)))
}

/// When to try again after a refusal that may not be the row's own fault: soon enough that its token
/// outlives a service that refuses at random, and after a minute at the latest.
pub fn refused_early(
    (began, ended): (Timestamp, Timestamp),
    remaining: Remaining,
    failures: u32,
    rng: &mut impl Rng,
) -> Timestamp {
    let base = longest_gap(remaining, failures).min(SHORTEST_REFUSED);
    ahead(began, retry_between(base, base.mul_f64(1.2), rng)).max(ahead(ended, AIR))
}

/// The gap after something that will fail again unless somebody changes it: 60 s, doubling to 1 h.
pub fn quarantine_gap(failures: u32, rng: &mut impl Rng) -> Duration {
    let base = doubled(SHORTEST_REFUSED, failures).min(LONGEST_REFUSED);
    retry_between(base, base.mul_f64(1.2), rng)
}

/// The gap before another attempt at one item of a bulk operation that has failed so often.
pub fn item_gap(failed_attempts: u32, rng: &mut impl Rng) -> Duration {
    let base = match failed_attempts {
        0..ITEM_ATTEMPTS => doubled(SHORTEST_GAP, failed_attempts.saturating_sub(1)),
        _ => LATER_ITEM_GAP,
    };
    retry_between(base, base.mul_f64(1.2), rng)
}

/// Whether an item has failed for good: it was answered with a failure so often, or left without an
/// answer, and `chance` is how likely an item like the others would have been.
pub fn item_is_over(failed_attempts: u32, unanswered: u32, chance: f64) -> bool {
    let often = failed_attempts >= ITEM_ATTEMPTS || unanswered >= ITEM_UNANSWERED;
    often && chance <= ITEM_CHANCE
}

/// From when on a row waits no longer for a pace that a 429 lowered: once it is late, and before that
/// when it has waited for a seventh of the life that was left when it became due. So however often the
/// pace was lowered, as many attempts as promised fit in before expiry. What is dead or doubtful presses
/// since it is.
pub fn presses_at(record: &Record, grounds: &Grounds, now: Timestamp) -> Option<Timestamp> {
    if let Standing::Doubtful { since, .. } | Standing::Dead { since, .. } =
        standing(record, grounds, now)
    {
        return Some(since);
    }
    let renewal = |due: &Due| matches!(due.why, DueReason::Renewal | DueReason::Retry);
    let waited = record
        .due
        .filter(renewal)
        .zip(record.token.as_ref())
        .map(|(due, token)| ahead(due.at, token.left(due.at) / WAITS));
    record.late_at.into_iter().chain(waited).min()
}

/// When a row that failed in an outage is due once the service answers again: now, but a second after
/// its last attempt at the earliest. `None` for one that waits for another reason: a refusal, unless
/// those are tried again too because nobody else had succeeded either; a failure of its own, or ours; or
/// a time that is not later than that.
pub fn hastened(record: &Record, refused: bool, now: Timestamp) -> Option<(Num, Due)> {
    let due = record.due.filter(|due| due.why == DueReason::Retry)?;
    if record.failing_since.is_some() {
        return None;
    }
    let last = record.attempts.last()?;
    let waits = [FailureClass::Retry, FailureClass::Wait];
    let refusal = refused.then_some(FailureClass::Refuse);
    if !waits
        .iter()
        .chain(&refusal)
        .any(|class| last.result.starts_with(class.as_str()))
    {
        return None;
    }
    let at = now.max(ahead(last.at, SHORTEST_GAP));
    (at < due.at).then_some((record.num, Due { at, ..due }))
}

/// The longest gap that the life left allows.
fn longest_gap(remaining: Remaining, failures: u32) -> Duration {
    match remaining {
        Remaining::Alive(left) => (left / 6).clamp(SHORTEST_GAP, LONGEST_GAP),
        Remaining::Dead(since) => (since / 6).clamp(SHORTEST_GAP, LONGEST_GAP_WITHOUT_TOKEN),
        Remaining::Never => doubled(SHORTEST_GAP, failures).min(LONGEST_GAP_WITHOUT_TOKEN),
    }
}

/// `from`, doubled so many times, without overflow.
pub(super) fn doubled(from: Duration, times: u32) -> Duration {
    from.saturating_mul(1 << times.min(20))
}

fn retry_between(least: Duration, most: Duration, rng: &mut impl Rng) -> Duration {
    least + most.saturating_sub(least).mul_f64(rng.random::<f64>())
}

#[cfg(test)]
mod retry_tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use crate::model::Attempt;

    use super::{
        super::{
            Life,
            life::tests::{due, noon, record, token},
        },
        *,
    };

    /// Draws the same number for ever.
    struct Constant(u64);

    impl rand::TryRng for Constant {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(self.0 as u32)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(self.0)
        }
        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.fill(self.0 as u8);
            Ok(())
        }
    }

    /// Begins of the attempts from the renewal's due time until expiry, all failing.
    fn attempts(life: Duration, hangs: bool, rng: &mut impl Rng) -> Vec<Timestamp> {
        let life = Life {
            from: noon(),
            to: ahead(noon(), life),
        };
        let mut begins = Vec::new();
        let mut at = due(life, rng);
        while let Remaining::Alive(_) = life.remaining(at) {
            begins.push(at);
            let deadline = call_deadline(life.remaining(at));
            let ended = if hangs { ahead(at, deadline) } else { at };
            at =
                next_attempt(FailureClass::Retry, (at, ended), life.remaining(at), 0, rng).unwrap();
        }
        begins
    }

    fn assert_enough(life: Duration, rng: &mut impl Rng) {
        let at_once = attempts(life, false, rng);
        assert!(at_once.len() >= 8, "{life:?}: {} at once", at_once.len());
        let hanging = attempts(life, true, rng);
        assert!(hanging.len() >= 6, "{life:?}: {} hanging", hanging.len());
        for begins in [at_once, hanging] {
            for pair in begins.windows(2) {
                assert!(pair[1].duration_since(pair[0]).as_secs_f64() >= 1.0);
            }
        }
    }

    proptest! {
        #[test]
        fn enough_attempts_before_expiry(secs in 20u64..=86_400, seed: u64) {
            assert_enough(Duration::from_secs(secs), &mut ChaCha8Rng::seed_from_u64(seed));
        }

        #[test]
        fn enough_attempts_with_the_worst_luck(secs in 20u64..=600) {
            assert_enough(Duration::from_secs(secs), &mut Constant(u64::MAX));
            assert_enough(Duration::from_secs(secs), &mut Constant(0));
        }

        #[test]
        fn no_gap_under_its_floor_nor_over_its_cap(
            left in 0u64..=100_000, state in 0u8..3, failures in 0u32..100, seed: u64,
        ) {
            let left = Duration::from_secs(left);
            let remaining = match state {
                0 => Remaining::Alive(left),
                1 => Remaining::Dead(left),
                _ => Remaining::Never,
            };
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for class in [FailureClass::Retry, FailureClass::Wait, FailureClass::Credentials, FailureClass::Refuse] {
                let next = next_attempt(class, (noon(), noon()), remaining, failures, &mut rng).unwrap();
                let gap = Duration::try_from(next.duration_since(noon())).unwrap();
                prop_assert!(gap >= floor(class).unwrap());
                let cap = if class == FailureClass::Refuse { LONGEST_REFUSED.mul_f64(1.2) } else { LONGEST_GAP };
                prop_assert!(gap <= cap, "{gap:?}");
            }
        }
    }

    #[test]
    fn a_lowered_pace_is_waited_for_only_so_long() {
        let life = Duration::from_secs(20);
        let due = |secs, why| Due {
            at: ahead(noon(), Duration::from_secs(secs)),
            why,
        };
        let row = |due, late: u64| Record {
            late_at: Some(ahead(noon(), Duration::from_secs(late))),
            ..record(Some(token(noon(), life)), Some(due))
        };
        let trust = Grounds::default();
        let secs = |row: &Record| {
            presses_at(row, &trust, noon())
                .unwrap()
                .duration_since(noon())
                .as_millis()
        };
        assert_eq!(secs(&row(due(10, DueReason::Renewal), 15)), 11_428);
        assert_eq!(secs(&row(due(14, DueReason::Retry), 14)), 14_000);
        assert_eq!(secs(&row(due(3, DueReason::Requested), 15)), 15_000);
        assert_eq!(secs(&row(due(25, DueReason::Retry), 99)), 25_000, "dead");
        assert_eq!(presses_at(&record(None, None), &trust, noon()), None);
    }

    #[test]
    fn what_failed_in_an_outage_is_hastened_and_what_was_refused_is_not() {
        let due = Due {
            at: ahead(noon(), Duration::from_secs(50)),
            why: DueReason::Retry,
        };
        let failed = |result: &str| {
            let mut row = record(None, Some(due));
            row.attempts.push(Attempt {
                at: noon(),
                result: result.to_owned(),
                request_id: None,
            });
            row
        };
        let later = ahead(noon(), Duration::from_secs(20));
        let at = |row: &Record, now| hastened(row, false, now).map(|(_, due)| due.at);
        assert_eq!(at(&failed("retry no answer"), later), Some(later));
        let floor = ahead(noon(), SHORTEST_GAP);
        assert_eq!(at(&failed("retry 503"), noon()), Some(floor));
        assert_eq!(at(&failed("refuse 400"), later), None);
        assert_eq!(at(&failed("panic"), later), None);
        assert_eq!(at(&failed("retry 503"), ahead(due.at, SHORTEST_GAP)), None);
    }

    #[test]
    fn attempts_go_on_after_expiry() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let dead = Remaining::Dead(Duration::from_hours(10));
        let next =
            next_attempt(FailureClass::Retry, (noon(), noon()), dead, 500, &mut rng).unwrap();
        assert!(next <= ahead(noon(), LONGEST_GAP_WITHOUT_TOKEN));
    }

    #[test]
    fn the_sixth_failure_of_an_item_is_its_last() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut gaps = (1..=7).map(|n| item_gap(n, &mut rng).as_secs());
        assert!(
            [1, 2, 4, 8, 16, 4, 4]
                .iter()
                .all(|least| gaps.next().unwrap() >= *least)
        );
        assert!(!item_is_over(5, 0, 1e-9) && item_is_over(6, 0, 1e-9));
        assert!(!item_is_over(40, 0, 0.01), "as many others fail");
        assert!(!item_is_over(0, 19, 1e-9) && item_is_over(0, 20, 1e-9));
    }

    #[test]
    fn gone_is_never_tried_again() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let next = next_attempt(
            FailureClass::Gone,
            (noon(), noon()),
            Remaining::Never,
            0,
            &mut rng,
        );
        assert_eq!(next, None);
    }
}
