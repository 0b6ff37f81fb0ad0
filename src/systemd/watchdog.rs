//! Whether the service manager's watchdog may be fed.
//!
//! It is fed while every loop has made or reaffirmed its decision lately, which says nothing about
//! success: an outage of ACS must not restart the daemon.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::decided_lately;

/// Decides about the watchdog; it neither reads the time nor sends anything.
#[derive(Debug)]
pub struct Watchdog {
    period: Duration,
    since: Timestamp,
    ticked: Timestamp,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send `WATCHDOG=1`.
    Feed,
    /// Send nothing: these loops have not decided in time.
    Starve(Vec<String>),
}

impl Watchdog {
    /// The watchdog that the service manager asks for, if it does.
    pub fn from_env(now: Timestamp) -> Option<Self> {
        let read = |name| std::env::var(name).ok();
        let period = asked_period(
            read("WATCHDOG_USEC").as_deref(),
            read("WATCHDOG_PID").as_deref(),
            std::process::id(),
        )?;
        Some(Self::new(period, now))
    }

    /// A watchdog that bites after `period`.
    pub fn new(period: Duration, now: Timestamp) -> Self {
        Self {
            period,
            since: now,
            ticked: now,
        }
    }

    /// How often to ask for a [`Verdict`]: a third of the period, so that one late tick is no harm.
    pub fn interval(&self) -> Duration {
        self.period / 3
    }

    /// Decides from each loop's name and its last decision.
    ///
    /// A loop that has not decided yet is measured from the start. When the ticks themselves come
    /// a whole period late, the machine was asleep: then every loop is measured from its waking.
    pub fn tick(&mut self, loops: &[(String, Option<Timestamp>)], now: Timestamp) -> Verdict {
        let period = SignedDuration::try_from(self.period).unwrap_or(SignedDuration::MAX);
        if now.duration_since(self.ticked) > period {
            self.since = now;
        }
        self.ticked = now;
        let stuck: Vec<String> = loops
            .iter()
            .filter(|(_, decided_at)| !decided_lately(*decided_at, self.since, now))
            .map(|(name, _)| name.clone())
            .collect();
        if stuck.is_empty() {
            Verdict::Feed
        } else {
            Verdict::Starve(stuck)
        }
    }
}

/// `WATCHDOG_USEC` counts only for the process that `WATCHDOG_PID` names, or any where it is unset
/// (sd_watchdog_enabled(3)).
fn asked_period(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok()?;
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    (ours && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_period_is_ours_alone() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(asked_period(Some("1000000"), None, 7), second);
        assert_eq!(asked_period(Some("1000000"), Some("7"), 7), second);
        assert_eq!(asked_period(Some("1000000"), Some("8"), 7), None);
        assert_eq!(asked_period(Some("0"), None, 7), None);
        assert_eq!(asked_period(Some("soon"), None, 7), None);
        assert_eq!(asked_period(None, Some("7"), 7), None);
    }

    #[test]
    fn one_stuck_loop_starves_it_and_is_named() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30), at(0));
        let loops = |b| {
            vec![
                ("lane a".to_owned(), Some(at(200))),
                ("lane b".to_owned(), b),
            ]
        };
        for second in (10..=200).step_by(10) {
            watchdog.tick(&[], at(second));
        }
        assert_eq!(watchdog.tick(&loops(Some(at(150))), at(205)), Verdict::Feed);
        let stuck = Verdict::Starve(vec!["lane b".to_owned()]);
        assert_eq!(watchdog.tick(&loops(Some(at(100))), at(205)), stuck);
        assert_eq!(
            watchdog.tick(&loops(None), at(205)),
            stuck,
            "it never began"
        );
    }

    #[test]
    fn a_loop_has_time_to_begin() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30), at(0));
        let loops = [("courier".to_owned(), None)];
        assert_eq!(watchdog.tick(&loops, at(10)), Verdict::Feed);
    }

    #[test]
    fn after_a_sleep_of_the_machine_every_loop_may_wake_first() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30), at(0));
        let loops = [("lane".to_owned(), Some(at(5)))];
        assert_eq!(watchdog.tick(&loops, at(10)), Verdict::Feed);
        assert_eq!(watchdog.tick(&loops, at(36_000)), Verdict::Feed);
        for second in (36_010..=36_090).step_by(10) {
            assert_eq!(watchdog.tick(&loops, at(second)), Verdict::Feed);
        }
        let stuck = Verdict::Starve(vec!["lane".to_owned()]);
        assert_eq!(watchdog.tick(&loops, at(36_100)), stuck);
    }
}
