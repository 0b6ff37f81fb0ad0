//! How many may start in a time: calls to one sink, campaign items beside renewals, and lines that tell of the
//! same thing (at most ten a minute one by one and the rest in one; the same line again, once an hour).
//!
//! Renewals that are late go before everything (the store orders what is due so). A campaign whose
//! items each need a new token begins only as many as tokens can follow, and while renewals wait it
//! leaves them the pace but for a tenth. An urgent campaign begins all it can.

use std::{collections::VecDeque, time::Duration};

use super::Steady;
use crate::config::Limit;

/// Keeps a sink's own limit, exactly: it remembers when the attempts of one window began. Without a
/// limit everything may start.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    limit: Option<Limit>,
    begun: VecDeque<Steady>,
}

impl Rate {
    /// Nothing has begun yet.
    pub fn new(limit: Option<Limit>) -> Self {
        Self {
            limit,
            begun: VecDeque::new(),
        }
    }

    /// When another attempt may begin; `None`: now.
    pub fn opens_at(&self, now: Steady) -> Option<Steady> {
        let limit = self.limit?;
        let most = usize::try_from(limit.calls).unwrap_or(usize::MAX);
        let eldest = self.begun.iter().rev().nth(most.checked_sub(1)?)?;
        let opens = *eldest + limit.window;
        (now < opens).then_some(opens)
    }

    /// Notes that an attempt begins.
    pub fn began(&mut self, now: Steady) {
        let Some(limit) = self.limit else {
            return;
        };
        self.begun.push_back(now);
        while self.begun.len() as u64 > u64::from(limit.calls) {
            self.begun.pop_front();
        }
    }
}

/// What is always left to a campaign while renewals wait.
const LEAST: f64 = 0.1;

/// Whether so many renewals wait that a campaign is to make room: more than are just passing
/// through, which are as many as fly at once.
pub fn is_yielding(waiting: usize, max_in_flight: usize) -> bool {
    waiting > 2 * max_in_flight
}

/// The share of `limit` that a campaign may use so that its tokens need a tenth of `issue`.
pub fn share_beside(issue: Limit, limit: Limit) -> f64 {
    let rate = |limit: Limit| f64::from(limit.calls) / limit.window.as_secs_f64().max(1e-3);
    (LEAST * rate(issue) / rate(limit).max(1e-9)).clamp(0.0, 1.0)
}

/// How many items of a campaign may wait for their tokens at once: half a window of them, a tenth
/// while it yields. So a gap is never longer than the window, and when tokens cannot be issued no
/// more identities lose theirs.
pub fn awaiting(issue: Limit, yielding: bool) -> usize {
    let calls = issue.calls as usize;
    (if yielding { calls / 10 } else { calls / 2 }).max(8)
}

const ONE_BY_ONE: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);
/// The same is said again after so long.
const AGAIN: Duration = Duration::from_hours(1);

/// Folds news above ten a minute into one.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    minute: Option<Steady>,
    told: u32,
    folded: u32,
}

impl Fold {
    /// One more. Whether it is told by itself.
    pub fn tells(&mut self, now: Steady) -> bool {
        self.minute.get_or_insert(now);
        let by_itself = self.told < ONE_BY_ONE;
        match by_itself {
            true => self.told += 1,
            false => self.folded += 1,
        }
        by_itself
    }

    /// At the end of a minute: how many were not told by themselves, if any.
    pub fn rest(&mut self, now: Steady) -> Option<u32> {
        if now < self.ends_at()? {
            return None;
        }
        let folded = std::mem::take(self).folded;
        (folded > 0).then_some(folded)
    }

    /// When the current minute ends.
    pub fn ends_at(&self) -> Option<Steady> {
        Some(self.minute? + MINUTE)
    }
}

/// Says the same once an hour.
#[derive(Debug, Clone, Default)]
pub struct Repeat {
    last: Option<(String, Steady)>,
}

impl Repeat {
    /// Whether to say it: it is another text than the last, or that is an hour ago.
    pub fn is_news(&mut self, text: &str, now: Steady) -> bool {
        let known = self.last.as_ref();
        let known = known.is_some_and(|(last, at)| last == text && now < *at + AGAIN);
        if !known {
            self.last = Some((text.to_owned(), now));
        }
        !known
    }
}

#[cfg(test)]
mod rate_tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limit(calls: u32, secs: u64) -> Option<Limit> {
        Some(Limit {
            calls,
            window: Duration::from_secs(secs),
        })
    }

    #[test]
    fn without_a_limit_everything_may_start() {
        let mut rate = Rate::new(None);
        (0..1000).for_each(|_| rate.began(Duration::ZERO));
        assert_eq!(rate.opens_at(Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_and_none_waits_for_nothing(
            calls in 1_u32..20, window in 1_u64..10, pauses in prop::collection::vec(0_u64..1500, 1..200)
        ) {
            let mut rate = Rate::new(limit(calls, window));
            let (mut now, mut begun) = (Duration::ZERO, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                if let Some(opens) = rate.opens_at(now) {
                    prop_assert!(opens > now && opens <= now + Duration::from_secs(window));
                    now = opens;
                    prop_assert_eq!(rate.opens_at(now), None);
                }
                rate.began(now);
                begun.push(now);
            }
            for (at, first) in begun.iter().enumerate() {
                let within = begun[at..].iter().filter(|at| **at < *first + Duration::from_secs(window));
                prop_assert!(within.count() <= calls as usize);
            }
        }
    }
}

#[cfg(test)]
mod fairness_tests {
    use std::time::Duration;

    use super::*;

    fn limit(calls: u32) -> Limit {
        Limit {
            calls,
            window: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_campaign_gets_a_tenth_while_renewals_wait() {
        assert!(!is_yielding(64, 32) && is_yielding(65, 32));
        // Of 1,000 issues in 30 s a tenth are 100, of 500 revocations a fifth.
        assert!((share_beside(limit(1000), limit(500)) - 0.2).abs() < 1e-9);
        assert!((share_beside(limit(1000), limit(50)) - 1.0).abs() < 1e-9);
        assert_eq!(
            (awaiting(limit(1000), true), awaiting(limit(1000), false)),
            (100, 500)
        );
        assert_eq!(awaiting(limit(10), true), 8);
    }
}

#[cfg(test)]
mod fold_tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_an_hour() {
        let mut repeat = Repeat::default();
        let start = Duration::from_secs(100);
        assert!(repeat.is_news("a", start));
        assert!(!repeat.is_news("a", start + AGAIN / 2));
        assert!(repeat.is_news("b", start + AGAIN / 2));
        assert!(!repeat.is_news("b", start + AGAIN));
        assert!(repeat.is_news("b", start + AGAIN / 2 + AGAIN));
    }

    #[test]
    fn ten_a_minute_and_the_rest_in_one() {
        let mut fold = Fold::default();
        let start = Duration::from_secs(100);
        let told = (0..50).filter(|_| fold.tells(start)).count();
        assert_eq!(told, 10);
        assert_eq!(fold.rest(start + MINUTE / 2), None);
        assert_eq!(fold.rest(start + MINUTE), Some(40));
        assert_eq!(fold.rest(start + MINUTE * 2), None);
        assert!(fold.tells(start + MINUTE));
    }
}
