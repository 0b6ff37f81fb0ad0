//! When what failed is tried again: a sink's deliveries, by its breaker; and items of bulk operations that
//! failed for good while others failed as well, once the rate of success is back, or after some time where
//! that cannot be seen.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use rand::{Rng, RngExt};

use super::{Steady, life::ahead};
use crate::model::Num;

/// So many failures in a row open it.
const TRIPS_AT: u32 = 10;
const SHORTEST_PROBE: Duration = Duration::from_secs(2);
const LONGEST_PROBE: Duration = Duration::from_secs(30);
/// The waits before the second, third … attempt; the last one repeats.
const GAPS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
];

/// Keeps a dead receiver from being asked more than now and then: after 10 failures in a row one
/// probe goes out, every 2 s growing to 30 s; a success closes it.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    /// When the first of the failures in a row was.
    since: Option<Steady>,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    probe_at: Steady,
    gap: Duration,
}

impl Open {
    /// A probe told nothing new; what was in flight when it opened is not a probe.
    fn rest(&mut self, now: Steady) {
        if now >= self.probe_at {
            self.gap = (self.gap * 2).min(LONGEST_PROBE);
            self.probe_at = now + self.gap;
        }
    }
}

impl Breaker {
    /// Whether another delivery may start while `in_flight` are on their way.
    pub fn admits(&self, in_flight: usize, now: Steady) -> bool {
        match self.open {
            None => true,
            Some(open) => in_flight == 0 && now >= open.probe_at,
        }
    }

    /// Notes a success. True when it closed the breaker: then everything pending is due.
    pub fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.since = None;
        self.open.take().is_some()
    }

    /// Notes a failure. True when it opened the breaker.
    pub fn failed(&mut self, now: Steady) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        let opened = self.open.is_none() && self.failures >= TRIPS_AT;
        if let Some(open) = &mut self.open {
            open.rest(now);
        } else if opened {
            self.open = Some(Open {
                probe_at: now + SHORTEST_PROBE,
                gap: SHORTEST_PROBE,
            });
        }
        opened
    }

    /// When the next probe may go out, while it is open.
    pub fn probe_at(&self) -> Option<Steady> {
        self.open.map(|open| open.probe_at)
    }

    /// There is nobody to probe with: the next probe waits as it does after a failure.
    pub fn put_off(&mut self, now: Steady) {
        if let Some(open) = &mut self.open {
            open.rest(now);
        }
    }

    /// Lets the next probe go out at once: somebody asked for it.
    pub fn probe_now(&mut self, now: Steady) {
        if let Some(open) = &mut self.open {
            open.probe_at = open.probe_at.min(now);
        }
    }

    /// Since when it fails, while it does.
    pub fn failing_since(&self) -> Option<Steady> {
        self.since
    }

    /// Failures in a row.
    pub fn failures_in_row(&self) -> u32 {
        self.failures
    }
}

/// The wait after so many failed attempts at one version: 1 s, 5 s, 30 s, 2 m, 10 m, then every
/// 10 m, ±20 %.
pub fn delivery_gap(failed_attempts: u32, rng: &mut impl Rng) -> Duration {
    let index = (failed_attempts.max(1) - 1).min(GAPS.len() as u32 - 1) as usize;
    GAPS[index].mul_f64(0.8 + 0.4 * rng.random::<f64>())
}

/// When a delivery is tried again after so many failed attempts; `None` when that would be after
/// what is delivered has expired (a newer version will take its place).
pub fn delivery_retry_at(
    failed_attempts: u32,
    expires: Option<Timestamp>,
    now: Timestamp,
    rng: &mut impl Rng,
) -> Option<Timestamp> {
    let at = ahead(now, delivery_gap(failed_attempts, rng));
    expires.is_none_or(|expires| at < expires).then_some(at)
}

/// Where so many of the others fail, it may be no fault of the item.
const MANY: f64 = 0.3;
/// So many successes without a failure between them, and the rate is back.
const SUCCESSES: u32 = 20;
/// Where nothing is called that could tell, it is tried again after this, then after twice as long …
const FIRST: Duration = Duration::from_mins(10);
/// … so often at most.
const CHANCES: u32 = 3;
/// More than so many are left to a person.
const MOST: usize = 10_000;

/// Those that wait for it; the first number says of which campaign each is.
#[derive(Debug, Clone, Default)]
pub struct SecondChance {
    items: BTreeMap<(i64, Num), Chance>,
    successes: u32,
}

#[derive(Debug, Clone, Default)]
struct Chance {
    used: u32,
    /// When it is tried again at the latest, while it waits.
    at: Option<Steady>,
}

impl SecondChance {
    /// An item failed for good, while this share of the others did as well. After how long it is tried again
    /// at the latest, if it is.
    pub fn failed(&mut self, item: (i64, Num), rate: f64, now: Steady) -> Option<Duration> {
        let known = self.items.contains_key(&item);
        if rate < MANY || !known && self.items.len() >= MOST {
            return None;
        }
        let chance = self.items.entry(item).or_default();
        if chance.used >= CHANCES {
            return None;
        }
        let wait = FIRST * 2_u32.pow(chance.used);
        chance.at = Some(now + wait);
        chance.used += 1;
        Some(wait)
    }

    /// An item that failed so before a restart: how often that was, and when it is tried again at the latest,
    /// while it waits.
    pub fn remembers(&mut self, item: (i64, Num), used: u32, at: Option<Steady>) {
        if self.items.len() < MOST {
            self.items.insert(item, Chance { used, at });
        }
    }

    /// A call succeeded, or failed and nothing says that it is about its row.
    pub fn heard(&mut self, success: bool) {
        self.successes = if success { self.successes + 1 } else { 0 };
    }

    /// Those to be tried again now.
    pub fn due(&self, now: Steady) -> Vec<(i64, Num)> {
        let is_back = self.successes >= SUCCESSES;
        let items = self.items.iter();
        let due = items.filter(|(_, chance)| chance.at.is_some_and(|at| is_back || at <= now));
        due.map(|(item, _)| *item).collect()
    }

    pub fn taken(&mut self, items: &[(i64, Num)]) {
        for item in items {
            if let Some(chance) = self.items.get_mut(item) {
                chance.at = None;
            }
        }
    }

    /// When the next of them is due at the latest.
    pub fn wakes_at(&self) -> Option<Steady> {
        self.items.values().filter_map(|chance| chance.at).min()
    }
}

#[cfg(test)]
mod breaker_tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::{super::life::tests::noon, *};

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn ten_failures_open_it_and_a_success_closes_it() {
        let mut breaker = Breaker::default();
        for n in 1..10 {
            assert!(!breaker.failed(S * n));
            assert!(breaker.admits(5, S * n));
        }
        assert!(breaker.failed(S * 10));
        assert!(!breaker.admits(0, S * 11));
        assert!(breaker.admits(0, S * 12));
        assert!(!breaker.admits(1, S * 12), "one probe at a time");
        assert!(breaker.succeeded());
        assert!(!breaker.succeeded());
        assert!(breaker.admits(5, S * 12));
    }

    #[test]
    fn whoever_asks_gets_a_probe_at_once() {
        let mut breaker = Breaker::default();
        (0..10).for_each(|_| {
            breaker.failed(S);
        });
        assert!(!breaker.admits(0, S * 2));
        breaker.probe_now(S * 2);
        assert!(breaker.admits(0, S * 2));
        assert!(!breaker.failed(S * 2));
        assert!(!breaker.admits(0, S * 3), "and then the usual ones");
    }

    #[test]
    fn probes_grow_to_thirty_seconds() {
        let mut breaker = Breaker::default();
        (0..10).for_each(|_| {
            breaker.failed(S);
        });
        let mut gaps = Vec::new();
        let mut now = S;
        for _ in 0..7 {
            let next = breaker.probe_at().unwrap();
            gaps.push((next - now).as_secs());
            now = next;
            breaker.failed(now);
        }
        assert_eq!(gaps, [2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn deliveries_are_retried_as_promised() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (failed, secs) in [
            (1, 1.0),
            (2, 5.0),
            (3, 30.0),
            (4, 120.0),
            (5, 600.0),
            (50, 600.0),
        ] {
            let gap = delivery_gap(failed, &mut rng).as_secs_f64();
            assert!((0.8 * secs..=1.2 * secs).contains(&gap), "{failed}: {gap}");
        }
        let soon = Some(ahead(noon(), S * 60));
        assert!(delivery_retry_at(1, soon, noon(), &mut rng).is_some());
        assert!(delivery_retry_at(5, soon, noon(), &mut rng).is_none());
        assert!(delivery_retry_at(5, None, noon(), &mut rng).is_some());
    }
}

#[cfg(test)]
mod second_chance_tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn what_failed_among_failures_waits_until_the_rate_is_back() {
        let mut chance = SecondChance::default();
        chance.heard(false);
        chance.failed((1, 7), 0.6, S * 10);
        chance.failed((1, 8), 0.1, S * 10);
        (0..19).for_each(|_| chance.heard(true));
        assert!(chance.due(S * 20).is_empty());
        chance.heard(true);
        assert_eq!(chance.due(S * 20), [(1, 7)]);
        chance.taken(&[(1, 7)]);
        assert!(chance.due(S * 20).is_empty() && chance.wakes_at().is_none());
    }

    #[test]
    fn where_nothing_is_called_it_is_tried_again_three_times() {
        let mut chance = SecondChance::default();
        let mut now = S;
        for (used, wait) in [FIRST, FIRST * 2, FIRST * 4].into_iter().enumerate() {
            // Over restarts as well.
            chance = SecondChance::default();
            chance.remembers((1, 7), used as u32, None);
            assert_eq!(chance.failed((1, 7), 0.6, now), Some(wait));
            assert_eq!(chance.wakes_at(), Some(now + wait));
            now += wait;
            assert_eq!(chance.due(now), [(1, 7)]);
            chance.taken(&[(1, 7)]);
        }
        assert_eq!(chance.failed((1, 7), 0.6, now), None);
        assert_eq!(chance.wakes_at(), None, "then it is a person's turn");
    }
}
