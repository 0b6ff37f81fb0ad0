//! Limits and faults.
//!
//! Trouble on purpose: which request gets which.
//!
//! How many calls of each operation are let through, in sliding or fixed windows.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    time::Duration,
};

use http::StatusCode;
use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::call::{self, OPERATIONS, Purpose};
use renewd_acs_wire::Operation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FaultKind {
    /// An answer with a status of choice.
    Status,
    /// The answer is late, and otherwise as it would have been.
    Delay,
    /// No answer, and the connection stays open.
    Hang,
    /// The connection is reset.
    Reset,
    /// Every request of every operation has its connection reset, of ACS or, where it is aimed there, of
    /// Entra ID.
    Outage,
    /// The answer's body is not JSON; the operation took place.
    Malformed,
    /// The answer breaks off in its body; the operation took place.
    Truncated,
}

/// What a fault is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Aim {
    One(Purpose),
    All(Side),
}

/// The service that all requests go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Acs,
    Entra,
}

impl Aim {
    fn covers(self, purpose: Purpose) -> bool {
        match self {
            Self::One(one) => one == purpose,
            Self::All(side) => side == Side::of(purpose),
        }
    }

    /// Everything where the aim is.
    fn widened(self) -> Self {
        match self {
            Self::One(one) => Self::All(Side::of(one)),
            Self::All(_) => self,
        }
    }
}

impl Side {
    fn of(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Acs(_) => Self::Acs,
            Purpose::Entra(_) => Self::Entra,
        }
    }
}

/// A fault as it is asked for at the control API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultSpec {
    pub(super) kind: FaultKind,
    /// Only this operation; all of ACS if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<Aim>,
    /// Only requests for this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// For `status`; 503 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// For `status`: `Retry-After` in seconds; none if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after: Option<u64>,
    /// For `delay`; 1,000 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay_ms: Option<u64>,
    /// How many requests it hits; until cleared if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// The share of requests that it hits; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) probability: Option<f64>,
    /// For `probability`: the same seed hits the same requests of a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// Whether the operation takes place first, so that only its answer is lost.
    #[serde(default)]
    pub(super) after: bool,
}

/// A fault in force.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    pub(super) number: u64,
    #[serde(flatten)]
    spec: FaultSpec,
    /// How many requests it hit.
    hits: u64,
    #[serde(skip)]
    rng: ChaCha8Rng,
}

/// What a request is to suffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) delay: Duration,
    pub(super) blow: Option<Blow>,
}

/// What happens instead of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blow {
    pub(super) fault: u64,
    pub(super) harm: Harm,
    /// Whether the operation takes place first.
    pub(super) after: bool,
}

/// The kinds of [`Blow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    Status(StatusCode, Option<u64>),
    Hang,
    Reset,
    Malformed,
    Truncated,
}

/// The faults in force, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Faults {
    list: Vec<Fault>,
    next: u64,
    rng: ChaCha8Rng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            list: Vec::new(),
            next: 1,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    pub(super) fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Takes a fault, or says what is wrong with it.
    pub(super) fn add(&mut self, spec: FaultSpec) -> Result<u64, String> {
        if spec.status.is_some_and(|s| !(200..=599).contains(&s)) {
            return Err("status must be from 200 to 599".to_owned());
        }
        if spec.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err("probability must be from 0 to 1".to_owned());
        }
        let seed = spec.seed.unwrap_or_else(|| self.rng.random());
        let number = self.next;
        self.next += 1;
        self.list.push(Fault {
            number,
            spec,
            hits: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        });
        Ok(number)
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Takes one back; whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|fault| fault.number != number);
        before != self.list.len()
    }

    /// What this request is to suffer: delays add up, and of the rest the first one counts.
    pub(super) fn strike(&mut self, purpose: Purpose, id: Option<&str>) -> Trouble {
        let mut trouble = Trouble::default();
        for fault in &mut self.list {
            let delays = fault.spec.kind == FaultKind::Delay;
            if trouble.blow.is_some() && !delays || !fault.hits(purpose, id) {
                continue;
            }
            if delays {
                trouble.delay += Duration::from_millis(fault.spec.delay_ms.unwrap_or(1000));
            } else {
                trouble.blow = fault.blow();
            }
        }
        self.list
            .retain(|fault| fault.spec.count.is_none_or(|count| fault.hits < count));
        trouble
    }
}

impl Fault {
    fn hits(&mut self, purpose: Purpose, id: Option<&str>) -> bool {
        let spec = &self.spec;
        let aim = spec.operation.unwrap_or(Aim::All(Side::Acs));
        let applies = match spec.kind {
            FaultKind::Outage => aim.widened().covers(purpose),
            _ => aim.covers(purpose) && spec.id.as_deref().is_none_or(|wanted| Some(wanted) == id),
        };
        let used_up = spec.count.is_some_and(|count| self.hits >= count);
        let hit = applies
            && !used_up
            && spec
                .probability
                .is_none_or(|p| self.rng.random::<f64>() < p);
        self.hits += u64::from(hit);
        hit
    }

    fn blow(&self) -> Option<Blow> {
        let harm = match self.spec.kind {
            FaultKind::Delay => return None,
            FaultKind::Status => {
                let status = StatusCode::from_u16(self.spec.status.unwrap_or(503));
                let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                Harm::Status(status, self.spec.retry_after)
            }
            FaultKind::Hang => Harm::Hang,
            FaultKind::Reset | FaultKind::Outage => Harm::Reset,
            FaultKind::Malformed => Harm::Malformed,
            FaultKind::Truncated => Harm::Truncated,
        };
        let after = matches!(harm, Harm::Malformed | Harm::Truncated) || self.spec.after;
        Some(Blow {
            fault: self.number,
            harm,
            after,
        })
    }
}

/// At most `permits` calls in any (or each) `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub permits: u32,
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
            OPERATIONS
                .into_iter()
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
        let window = call::read_duration(window).filter(|w| !w.is_zero());
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
            "all" => OPERATIONS.to_vec(),
            name => match Purpose::named(name) {
                Some(Purpose::Acs(operation)) => vec![operation],
                _ => return Err(wrong()),
            },
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
            call::after(begin, limit.window)
        } else {
            let first = passed.front().copied().unwrap_or(now);
            call::after(first, limit.window + Duration::from_nanos(1))
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
mod faults_tests {
    use super::*;
    use crate::entra::EntraPart;

    const ISSUE: Purpose = Purpose::Acs(Operation::Issue);

    fn spec(json: &str) -> FaultSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_counted_fault_hits_its_operation_so_often_and_is_gone() {
        let mut faults = Faults::new(1);
        faults
            .add(spec(
                r#"{"kind":"status","status":500,"operation":"issue","count":2}"#,
            ))
            .unwrap();
        let mut hit = |operation| faults.strike(Purpose::Acs(operation), None).blow.is_some();
        assert!(!hit(Operation::Revoke));
        assert!(hit(Operation::Issue) && hit(Operation::Issue) && !hit(Operation::Issue));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn the_same_seed_hits_the_same_requests() {
        let sequence = |own: u64| {
            let mut faults = Faults::new(own);
            faults
                .add(spec(r#"{"kind":"reset","probability":0.3,"seed":7}"#))
                .unwrap();
            (0..200)
                .map(|_| faults.strike(ISSUE, None).blow.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(sequence(1), sequence(2));
        let hits = sequence(1).iter().filter(|hit| **hit).count();
        assert!((30..=90).contains(&hits), "{hits}");
    }

    #[test]
    fn delays_add_up_with_whatever_else_happens() {
        let mut faults = Faults::new(1);
        faults.add(spec(r#"{"kind":"hang","id":"8:x"}"#)).unwrap();
        faults
            .add(spec(r#"{"kind":"delay","delay_ms":200}"#))
            .unwrap();
        faults
            .add(spec(r#"{"kind":"delay","delay_ms":50}"#))
            .unwrap();
        let trouble = faults.strike(ISSUE, Some("8:x"));
        assert_eq!(trouble.delay, Duration::from_millis(250));
        assert_eq!(trouble.blow.map(|b| b.harm), Some(Harm::Hang));
        assert_eq!(faults.strike(ISSUE, Some("8:y")).blow, None);
    }

    #[test]
    fn a_fault_hits_the_side_that_it_is_aimed_at() {
        let entra = Purpose::Entra(EntraPart::Imds);
        let other = Purpose::Entra(EntraPart::Arc);
        for (json, hit) in [
            (r#"{"kind":"outage"}"#, [ISSUE].as_slice()),
            (r#"{"kind":"outage","operation":"revoke"}"#, &[ISSUE]),
            (r#"{"kind":"reset","operation":"acs"}"#, &[ISSUE]),
            (r#"{"kind":"hang","operation":"entra"}"#, &[entra, other]),
            (r#"{"kind":"outage","operation":"imds"}"#, &[entra, other]),
            (r#"{"kind":"status","operation":"imds"}"#, &[entra]),
        ] {
            let mut faults = Faults::new(1);
            faults.add(spec(json)).unwrap();
            let all = [ISSUE, entra, other].into_iter();
            let found = all.filter(|it| faults.strike(*it, None).blow.is_some());
            assert_eq!(found.collect::<Vec<_>>(), hit, "{json}");
        }
        let unknown = r#"{"kind":"reset","operation":"entry"}"#;
        assert!(serde_json::from_str::<FaultSpec>(unknown).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let mut faults = Faults::new(1);
        assert!(
            faults
                .add(spec(r#"{"kind":"status","status":99}"#))
                .is_err()
        );
        assert!(
            faults
                .add(spec(r#"{"kind":"reset","probability":1.5}"#))
                .is_err()
        );
        assert!(serde_json::from_str::<FaultSpec>(r#"{"kind":"reset","cuont":1}"#).is_err());
    }
}

#[cfg(test)]
mod limits_tests {
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
            let then = call::after(at(6_000), wait);
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
