//! What a simulation finds out: each call is answered as the script says, counted, and held against the limits; each
//! token that ends before its successor is held against the promise: as long as the service can be reached at all,
//! nobody who should have a live token is without one.
//!
//! How long it takes to react is granted once: [`Findings`] counts the time since a renewal was due in which nothing
//! was wrong, and calls it broken only where that is longer.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    Setting,
    faults::{FaultKind, PlannedFault},
    provider::{Call, Deed, Manner as Answer},
};
use crate::{
    config::{Limit, Limits},
    model::short_duration,
    schedule::takes,
};

/// What was broken is told so often, and counted further.
const TOLD: usize = 20;
/// To notice the end of an outage, to drain the backlog: what is granted besides two drains of the whole fleet.
const REACTION: Duration = Duration::from_mins(5);
/// One that was refused for hours is tried again at the latest after this.
const QUARANTINE: Duration = Duration::from_mins(75);

/// One hour of a simulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HourSeen {
    /// Tokens that were minted.
    pub minted: u64,
    /// Calls of all kinds.
    pub calls: u64,
    /// Calls that were answered 429.
    pub throttled: u64,
    /// Calls that failed otherwise.
    pub failed: u64,
    /// The least life that a token had left when its successor came, in seconds.
    pub least_left_seconds: Option<f64>,
    /// Identities without a live token at its end.
    pub without: u64,
}

/// The tokens of one identity.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// When the next is due at the latest.
    due: Duration,
}

/// All that was seen so far.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    setting: Setting,
    epoch: Timestamp,
    rng: ChaCha8Rng,
    /// Times at which the service could not be reached well, apart and in order.
    bad: Vec<(Duration, Duration)>,
    reaction: Duration,
    identities: BTreeMap<String, Seen>,
    /// What counts in each window: at the service, and what was sent.
    arrived: BTreeMap<&'static str, VecDeque<Duration>>,
    sent: BTreeMap<&'static str, VecDeque<Duration>>,
    second: (u64, u64),
    pub(super) calls: BTreeMap<&'static str, u64>,
    /// The most calls in any window.
    pub(super) peaks: BTreeMap<&'static str, u64>,
    /// The most calls in any second.
    pub(super) peak_second: u64,
    pub(super) minted: u64,
    pub(super) throttled: u64,
    /// 429s because a limit was exceeded.
    pub(super) past_limit: u64,
    pub(super) failed: u64,
    pub(super) least_left: Option<Duration>,
    /// The time that identities were without a live token, all together.
    pub(super) without: Duration,
    pub(super) longest: Duration,
    /// When the last identity had its first token.
    pub(super) all_had_one: Duration,
    pub(super) broken: Vec<String>,
    pub(super) broken_count: u64,
    hour: HourSeen,
    pub(super) hours: Vec<HourSeen>,
}

impl Findings {
    pub(super) fn new(setting: &Setting, epoch: Timestamp) -> Self {
        let drain = takes(setting.limits.issue, setting.simulated());
        Self {
            epoch,
            rng: ChaCha8Rng::seed_from_u64(setting.seed),
            bad: bad_times(&setting.faults),
            reaction: REACTION + drain * 2,
            identities: BTreeMap::new(),
            arrived: BTreeMap::new(),
            sent: BTreeMap::new(),
            second: (0, 0),
            calls: BTreeMap::new(),
            peaks: BTreeMap::new(),
            peak_second: 0,
            minted: 0,
            throttled: 0,
            past_limit: 0,
            failed: 0,
            least_left: None,
            without: Duration::ZERO,
            longest: Duration::ZERO,
            all_had_one: Duration::ZERO,
            broken: Vec::new(),
            broken_count: 0,
            hour: HourSeen::default(),
            hours: Vec::new(),
            setting: setting.clone(),
        }
    }

    /// How the service answers a call, if not well.
    pub(super) fn decide(&mut self, call: &Call) -> Option<Answer> {
        self.count(call);
        let answer = self.answer(call);
        match &answer {
            Some(Answer::Throttle(_)) => {
                self.throttled += 1;
                self.hour.throttled += 1;
            }
            Some(Answer::Slow(_)) | None => {}
            Some(_) => {
                self.failed += 1;
                self.hour.failed += 1;
            }
        }
        answer
    }

    fn answer(&mut self, call: &Call) -> Option<Answer> {
        let going_on = |fault: &&PlannedFault| fault.holds(call.at);
        let faults: Vec<PlannedFault> = self
            .setting
            .faults
            .iter()
            .filter(going_on)
            .copied()
            .collect();
        if faults.iter().any(|fault| fault.kind == FaultKind::Outage) {
            return Some(Answer::Connect);
        }
        if self.is_past_limit(call) {
            self.past_limit += 1;
            return Some(Answer::Throttle(5));
        }
        if call.key.is_none() && self.setting.loses_keys() {
            let denied = "Denied by the resource provider.";
            return Some(Answer::Status(401, "Denied", denied));
        }
        faults.iter().find_map(|fault| self.of_fault(fault, call))
    }

    fn of_fault(&mut self, fault: &PlannedFault, call: &Call) -> Option<Answer> {
        match fault.kind {
            FaultKind::Throttle(wait) => Some(Answer::Throttle(wait.as_secs())),
            FaultKind::Slow(by) => Some(Answer::Slow(by)),
            FaultKind::Poison(share) if self.is_poisoned(&call.id, fault.at, share) => {
                Some(Answer::Status(500, "InternalError", "Sorry."))
            }
            FaultKind::BrownOut(share) if self.rng.random_bool(share) => {
                Some(match self.rng.random_range(0..4) {
                    0 => Answer::Status(500, "InternalError", "Sorry."),
                    1 => Answer::Hang,
                    // A lost answer to a creation leaves a person behind whom nobody renews.
                    2 if call.operation != "create" => Answer::Reset,
                    _ => Answer::Status(503, "Unavailable", "Later."),
                })
            }
            _ => None,
        }
    }

    /// Whether chance made an identity one of those that are refused.
    fn is_poisoned(&self, id: &str, at: Duration, share: f64) -> bool {
        let number = id
            .rsplit('_')
            .next()
            .and_then(|digits| digits.parse::<u64>().ok());
        number.is_some_and(|number| {
            let seed = self.setting.seed ^ at.as_secs() << 20 ^ number << 40;
            ChaCha8Rng::seed_from_u64(seed).random_bool(share)
        })
    }

    fn count(&mut self, call: &Call) {
        *self.calls.entry(call.operation).or_default() += 1;
        self.hour.calls += 1;
        let second = call.at.as_secs();
        self.second = match self.second {
            (at, calls) if at == second => (at, calls + 1),
            _ => (second, 1),
        };
        self.peak_second = self.peak_second.max(self.second.1);
        let limit = limit_of(&self.setting.limits, call.operation);
        let sent = self.sent.entry(call.operation).or_default();
        let most = within(sent, limit.window, call.at);
        let peak = self.peaks.entry(call.operation).or_default();
        *peak = most.max(*peak);
    }

    fn is_past_limit(&mut self, call: &Call) -> bool {
        let limit = limit_of(&self.setting.limits, call.operation);
        let arrived = self.arrived.entry(call.operation).or_default();
        within(arrived, limit.window, call.at) > u64::from(limit.calls)
    }

    /// What the service did to an identity.
    pub(super) fn see(&mut self, id: &str, deed: Deed, now: Timestamp) {
        let at = self.since(now);
        let renew_at = self.setting.lifetime.mul_f64(self.setting.renew_at);
        let seen = self.identities.get(id).copied().unwrap_or_default();
        match deed {
            Deed::Minted { before, .. } => {
                self.minted += 1;
                self.hour.minted += 1;
                match before.map(|end| self.since(end)) {
                    None => {
                        self.all_had_one = self.all_had_one.max(at);
                        self.judge(id, seen.due, (Duration::ZERO, at));
                    }
                    Some(end) if end <= at => self.lacked(id, seen.due, (end, at)),
                    Some(end) => self.had_left(end.saturating_sub(at)),
                }
                let due = at + renew_at;
                self.identities.insert(id.to_owned(), Seen { due });
            }
            Deed::Killed { before } => {
                if let Some(end) = before.map(|end| self.since(end)).filter(|end| *end < at) {
                    self.lacked(id, seen.due, (end, at));
                }
                let due = seen.due.min(at);
                self.identities.insert(id.to_owned(), Seen { due });
            }
        }
    }

    fn had_left(&mut self, left: Duration) {
        self.least_left = Some(self.least_left.map_or(left, |least| least.min(left)));
        let least = &mut self.hour.least_left_seconds;
        *least = Some(least.map_or(left.as_secs_f64(), |least| least.min(left.as_secs_f64())));
    }

    /// An identity was without a live token.
    fn lacked(&mut self, id: &str, due: Duration, (from, to): (Duration, Duration)) {
        let lasted = to.saturating_sub(from);
        self.without += lasted;
        self.longest = self.longest.max(lasted);
        if !lasted.is_zero() {
            self.had_left(Duration::ZERO);
            self.judge(id, due, (from, to));
        }
    }

    /// Whether that could have been otherwise.
    fn judge(&mut self, id: &str, due: Duration, (from, to): (Duration, Duration)) {
        let mut could = good_time(&self.bad, due, to);
        if could <= self.reaction {
            return;
        }
        let own: Vec<(Duration, Duration)> = self.own_bad_times(id);
        if !own.is_empty() {
            let all = joined(self.bad.iter().copied().chain(own).collect());
            could = good_time(&all, due, to);
        }
        if could <= self.reaction {
            return;
        }
        self.broken_count += 1;
        if self.broken.len() < TOLD {
            let told = format!(
                "{id} was without a live token for {}, from {} on, although its renewal was due for {} in which nothing \
                 was wrong",
                short_duration(to.saturating_sub(from)),
                short_duration(from),
                short_duration(could)
            );
            self.broken.push(told);
        }
    }

    fn own_bad_times(&self, id: &str) -> Vec<(Duration, Duration)> {
        let faults = self.setting.faults.iter();
        let own = faults.filter(|fault| match fault.kind {
            FaultKind::Poison(share) => self.is_poisoned(id, fault.at, share),
            _ => false,
        });
        own.map(|fault| (fault.at, fault.ends() + QUARANTINE))
            .collect()
    }

    /// An hour is over.
    pub(super) fn hour_ends(&mut self, without: usize) {
        let mut hour = std::mem::take(&mut self.hour);
        hour.without = without as u64;
        self.hours.push(hour);
    }

    /// It is over: who is without a token now, or never had one.
    pub(super) fn ends(&mut self, dead: Vec<(String, Timestamp)>, now: Timestamp) {
        let at = self.since(now);
        for (id, end) in dead {
            let due = self
                .identities
                .get(&id)
                .map_or(Duration::ZERO, |seen| seen.due);
            let end = self.since(end);
            self.lacked(&id, due, (end, at));
        }
        let missing = self
            .setting
            .simulated()
            .saturating_sub(self.identities.len() as u64);
        if missing > 0 {
            self.all_had_one = at;
            self.broken_count += missing;
            self.broken
                .push(format!("{missing} identities never had a token"));
        }
        if self.past_limit > 0 {
            self.broken_count += 1;
            let told = format!("{} calls went past a limit of the service", self.past_limit);
            self.broken.push(told);
        }
    }

    fn since(&self, at: Timestamp) -> Duration {
        at.duration_since(self.epoch).try_into().unwrap_or_default()
    }
}

fn limit_of(limits: &Limits, operation: &str) -> Limit {
    match operation {
        "create" => limits.create_with_token,
        "revoke" => limits.revoke,
        "delete" => limits.delete,
        _ => limits.issue,
    }
}

/// How many calls the window that ends now holds, with this one.
fn within(calls: &mut VecDeque<Duration>, window: Duration, now: Duration) -> u64 {
    calls.push_back(now);
    while calls.front().is_some_and(|at| *at + window <= now) {
        calls.pop_front();
    }
    calls.len() as u64
}

fn bad_times(faults: &[PlannedFault]) -> Vec<(Duration, Duration)> {
    let bad = faults.iter().filter(|fault| fault.is_bad_time());
    let times = bad.map(|fault| match fault.kind {
        // Whoever was told to wait does.
        FaultKind::Throttle(wait) => (fault.at, fault.ends() + wait),
        _ => (fault.at, fault.ends()),
    });
    joined(times.collect())
}

/// The same times, apart and in order.
fn joined(mut times: Vec<(Duration, Duration)>) -> Vec<(Duration, Duration)> {
    times.sort_unstable();
    let mut apart: Vec<(Duration, Duration)> = Vec::new();
    for (from, to) in times {
        match apart.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => apart.push((from, to)),
        }
    }
    apart
}

/// The time between two instants that is none of the bad times.
fn good_time(bad: &[(Duration, Duration)], from: Duration, to: Duration) -> Duration {
    let lost: Duration = bad
        .iter()
        .map(|(begins, ends)| (*ends).min(to).saturating_sub((*begins).max(from)))
        .sum();
    to.saturating_sub(from).saturating_sub(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(pairs: &[(u64, u64)]) -> Vec<(Duration, Duration)> {
        let of = |(from, to): &(u64, u64)| (Duration::from_secs(*from), Duration::from_secs(*to));
        pairs.iter().map(of).collect()
    }

    #[test]
    fn bad_times_that_overlap_are_one() {
        assert_eq!(
            joined(secs(&[(50, 60), (0, 10), (5, 20), (20, 30)])),
            secs(&[(0, 30), (50, 60)])
        );
        let bad = secs(&[(0, 30), (50, 60)]);
        let good = |from, to| {
            good_time(&bad, Duration::from_secs(from), Duration::from_secs(to)).as_secs()
        };
        assert_eq!(
            (good(0, 30), good(10, 40), good(40, 70), good(0, 100)),
            (0, 10, 20, 60)
        );
    }

    #[test]
    fn a_window_forgets_what_has_left_it() {
        let mut calls = VecDeque::new();
        let mut at = |secs| {
            within(
                &mut calls,
                Duration::from_secs(30),
                Duration::from_secs(secs),
            )
        };
        assert_eq!((at(0), at(10), at(29), at(30), at(45)), (1, 2, 3, 3, 3));
    }
}
