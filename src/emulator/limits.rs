//! How many calls of each operation are let through, in sliding or fixed windows.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::Operation;

use super::times;

/// At most `permits` calls in any (or each) `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// How many.
    pub permits: u32,
    /// In how long.
    pub window: Duration,
    /// Whether windows follow each other on a fixed grid, instead of ending at every call.
    pub fixed: bool,
}

/// The limits in force; an operation without an entry is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits(pub BTreeMap<Operation, Limit>);

impl Default for Limits {
    /// What ACS documents, per 30 s: 1,000 creations and issues, 500 of the rest.
    fn default() -> Self {
        let documented = |operation| match operation {
            Operation::Issue | Operation::Create | Operation::CreateWithToken => 1000,
            Operation::Revoke | Operation::Delete | Operation::Exchange => 500,
        };
        Self(
            ALL.into_iter()
                .map(|operation| {
                    let limit = Limit {
                        permits: documented(operation),
                        window: Duration::from_secs(30),
                        fixed: false,
                    };
                    (operation, limit)
                })
                .collect(),
        )
    }
}

/// Every operation, in the order of listings.
pub(super) const ALL: [Operation; 6] = [
    Operation::Create,
    Operation::CreateWithToken,
    Operation::Issue,
    Operation::Revoke,
    Operation::Delete,
    Operation::Exchange,
];

/// The operation of this name.
pub(super) fn operation(name: &str) -> Option<Operation> {
    ALL.into_iter().find(|o| o.as_str() == name)
}

/// A text that is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a limit; write it as issue=1000/30s, issue=1000/30s/fixed or issue=off")]
pub struct UnlikeALimit(String);

impl FromStr for Limit {
    type Err = UnlikeALimit;

    fn from_str(text: &str) -> Result<Self, UnlikeALimit> {
        let wrong = || UnlikeALimit(text.to_owned());
        let (plain, fixed) = match text.strip_suffix("/fixed") {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        let (permits, window) = plain.split_once('/').ok_or_else(wrong)?;
        let window = times::read_duration(window).filter(|w| !w.is_zero());
        Ok(Self {
            permits: permits.parse().map_err(|_| wrong())?,
            window: window.ok_or_else(wrong)?,
            fixed,
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = if self.fixed { "/fixed" } else { "" };
        write!(f, "{}/{}s{fixed}", self.permits, self.window.as_secs_f64())
    }
}

impl Limits {
    /// Takes `issue=1000/30s`, `issue=off` or `all=off` on top of what is there.
    ///
    /// # Errors
    /// When the text is not such a thing.
    pub fn set(&mut self, text: &str) -> Result<(), UnlikeALimit> {
        let wrong = || UnlikeALimit(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let operations = match name {
            "all" => ALL.to_vec(),
            name => vec![operation(name).ok_or_else(wrong)?],
        };
        let limit = match value {
            "off" => None,
            value => Some(value.parse::<Limit>().map_err(|_| wrong())?),
        };
        for operation in operations {
            match limit {
                Some(limit) => self.0.insert(operation, limit),
                None => self.0.remove(&operation),
            };
        }
        Ok(())
    }
}

/// Counts calls against the limits.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    limits: Limits,
    passed: BTreeMap<Operation, VecDeque<Timestamp>>,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            passed: BTreeMap::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes other limits; an operation whose limit changed is counted anew.
    pub(super) fn replace(&mut self, limits: Limits) {
        self.passed
            .retain(|operation, _| self.limits.0.get(operation) == limits.0.get(operation));
        self.limits = limits;
    }

    /// Lets a call through, or says how long until one will be. A call that is refused does not
    /// count, so that whoever obeys the answer gets through.
    pub(super) fn admit(&mut self, operation: Operation, now: Timestamp) -> Result<(), Duration> {
        let Some(limit) = self.limits.0.get(&operation).copied() else {
            return Ok(());
        };
        let passed = self.passed.entry(operation).or_default();
        // A clock that was moved back must not leave calls in the future that never expire.
        passed.retain(|at| *at <= now);
        let begin = window_begin(limit, now);
        while passed.front().is_some_and(|at| *at < begin) {
            passed.pop_front();
        }
        if passed.len() < limit.permits as usize {
            passed.push_back(now);
            return Ok(());
        }
        let free = if limit.fixed {
            times::after(begin, limit.window)
        } else {
            let first = passed.front().copied().unwrap_or(now);
            times::after(first, limit.window + Duration::from_nanos(1))
        };
        Err(Duration::try_from(free.duration_since(now)).unwrap_or_default())
    }
}

/// Calls before this instant no longer count.
fn window_begin(limit: Limit, now: Timestamp) -> Timestamp {
    if limit.fixed {
        let window = i128::try_from(limit.window.as_nanos()).unwrap_or(i128::MAX);
        let begin = now.as_nanosecond() - now.as_nanosecond().rem_euclid(window);
        Timestamp::from_nanosecond(begin).unwrap_or(Timestamp::MIN)
    } else {
        now.checked_sub(limit.window).unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn limiter(text: &str) -> Limiter {
        let mut limits = Limits::default();
        limits.set(text).unwrap();
        Limiter::new(limits)
    }

    #[test]
    fn a_sliding_window_never_lets_more_through_in_any_window() {
        let mut limiter = limiter("issue=3/30s");
        let mut passed = Vec::new();
        for millis in (0..200_000).step_by(700) {
            if limiter.admit(Operation::Issue, at(millis)).is_ok() {
                passed.push(millis);
            }
        }
        assert!(passed.len() > 15);
        assert!(
            passed.windows(4).all(|w| w[3] - w[0] > 30_000),
            "{passed:?}"
        );
    }

    #[test]
    fn a_fixed_window_lets_twice_as_many_through_over_its_edge() {
        let mut limiter = limiter("issue=2/30s/fixed");
        let edge = 30_000 - 1_800_000_000_000_i64.rem_euclid(30_000);
        let mut admit = |millis| limiter.admit(Operation::Issue, at(edge + millis)).is_ok();
        assert!(admit(-20) && admit(-10) && !admit(-1));
        assert!(admit(0) && admit(10) && !admit(20));
    }

    #[test]
    fn whoever_waits_as_told_gets_through_and_not_a_moment_before() {
        for text in ["issue=1/30s", "issue=1/30s/fixed"] {
            let mut limiter = limiter(text);
            assert_eq!(limiter.admit(Operation::Issue, at(5_000)), Ok(()));
            let wait = limiter.admit(Operation::Issue, at(6_000)).unwrap_err();
            let then = times::after(at(6_000), wait);
            let before = then - Duration::from_millis(1);
            assert!(limiter.admit(Operation::Issue, before).is_err(), "{text}");
            assert_eq!(limiter.admit(Operation::Issue, then), Ok(()), "{text}");
        }
    }

    #[test]
    fn operations_do_not_share_a_limit_and_off_is_off() {
        let mut limiter = limiter("all=1/30s");
        assert!(limiter.admit(Operation::Issue, at(0)).is_ok());
        assert!(limiter.admit(Operation::Delete, at(0)).is_ok());
        assert!(limiter.admit(Operation::Issue, at(0)).is_err());
        let mut limits = limiter.limits().clone();
        limits.set("issue=off").unwrap();
        limiter.replace(limits.clone());
        assert!(limiter.admit(Operation::Issue, at(0)).is_ok());
        limits.set("issue=1/30s").unwrap();
        limiter.replace(limits);
        assert!(
            limiter.admit(Operation::Issue, at(0)).is_ok(),
            "counted anew"
        );
        assert!(
            limiter.admit(Operation::Delete, at(0)).is_err(),
            "counted on"
        );
    }

    #[test]
    fn what_is_not_a_limit_is_refused() {
        for bad in [
            "",
            "issue",
            "issue=",
            "issue=1",
            "issue=1/0s",
            "x=1/30s",
            "issue=-1/3s",
        ] {
            assert!(Limits::default().set(bad).is_err(), "{bad:?}");
        }
    }
}
