//! What a resource's limits mean for its fleet: how many renewals each hour ahead holds, how much room is left, which
//! outage everybody survives, and how long it takes to revoke, to re-issue and to roll a key.
//!
//! | number | how |
//! |---|---|
//! | pace | as [`Pace`](super::Pace) keeps it: 97 % of the limit in any window, whole calls; `share` is in the limit already |
//! | steady load | each identity once in its mean gap: `renew_at` less half of `spread`, of its life |
//! | hours | minute by minute: what is due joins the queue, the pace works it off earliest end first, and what is renewed is due again where [`Load`] puts it |
//! | outage | the longest after which, for every instant, no more tokens end by it than the pace can have replaced, less the longest gap between two probes |
//! | campaigns | whole windows: the first window's worth goes out at once |
//!
//! Minutes are the grain, and ends are rounded down to them: what is promised is less than what is true, never more.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Life,
    fleet::{Cohort, Fleet, cohorts},
    level::{Load, minute_of},
    pace,
};
use crate::{
    config::{Finding, Limit, Limits, Renewal, ResourceSettings, Settings, Severity},
    model::ResourceName,
};

/// How far ahead is looked.
const HOURS: usize = 48;
const HORIZON: i64 = HOURS as i64 * 60;
/// Outages that begin later are looked at so many minutes apart.
const STEP: i64 = 10;
/// The longest gap between two probes, by which the end of an outage is noticed late.
const NOTICED: Duration = Duration::from_secs(30);
/// Less room than this is warned of.
const NARROW: f64 = 0.2;
/// What a plan was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The identities and tokens that the store knows.
    Store,
    /// What is declared: there is no store yet.
    Configuration,
    /// A fleet that was asked about, its load level.
    WhatIf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hour {
    pub at: Timestamp,
    /// Renewals, first tokens and creations that the pace lets through in it.
    pub renewals: u64,
    /// Tokens of now that end in it, unless they are renewed before.
    pub ends: u64,
    /// Tokens that end in it before their turn has come.
    pub lapses: u64,
}

/// The longest outages that everybody survives, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Survival {
    /// One that begins now; absent while somebody holds no live token.
    pub now_seconds: Option<u64>,
    /// One that begins at the worst instant of the hours ahead at which everybody holds a token.
    pub worst_seconds: Option<u64>,
    pub worst_at: Option<Timestamp>,
    /// One that meets the fleet with its load level.
    pub level_seconds: u64,
}

/// How long bulk operations over everybody take at the pace, in seconds; absent where they never end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Campaigns {
    /// Revoke everybody, without a successor.
    pub revoke_seconds: u64,
    /// Revoke everybody, and a new token each, beside the renewals.
    pub reissue_seconds: Option<u64>,
    /// Mint every token anew with the other access key.
    pub key_roll_seconds: Option<u64>,
}

/// What one resource can do for its fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plan {
    pub resource: ResourceName,
    /// What it was made from.
    pub basis: Basis,
    /// Identities that want a token.
    pub identities: u64,
    /// Those among them that are to be created.
    pub to_create: u64,
    /// Tokens that may be issued in an hour, as the pace keeps it.
    pub allowed_per_hour: f64,
    /// Renewals that the fleet needs in an hour, in the long run.
    pub steady_per_hour: f64,
    /// The part of the pace that this leaves; below zero the fleet never keeps up.
    pub headroom: f64,
    /// Whether the fleet keeps up.
    pub keeps_up: bool,
    /// So slow may answers be before `max_in_flight` and not the limit decides, in milliseconds.
    pub answers_within_ms: u64,
    pub outage: Survival,
    pub campaigns: Campaigns,
    pub hours: Vec<Hour>,
}

/// Plans of all resources: what `renewd plan --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plans {
    /// The form of this document; it grows when a meaning changes.
    pub schema: u32,
    /// The instant from which is counted.
    pub at: Timestamp,
    /// In the order of the configuration.
    pub resources: Vec<Plan>,
}

impl Plans {
    /// The form that this program writes.
    pub const SCHEMA: u32 = 1;
}

/// What a resource allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// Its limits, as far as they are ours.
    pub limits: Limits,
    pub max_in_flight: usize,
}

impl Room {
    /// What the settings of a resource say.
    pub fn of(resource: &ResourceSettings) -> Self {
        Self {
            limits: resource.limits,
            max_in_flight: resource.max_in_flight,
        }
    }
}

/// What a resource allows, and what is declared of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub room: Room,
    /// Its identities, by how they are renewed.
    pub cohorts: Vec<Cohort>,
}

impl Declared {
    /// All resources of a configuration.
    pub fn of(settings: &Settings) -> BTreeMap<ResourceName, Self> {
        let resources = settings.resources.iter().map(|resource| {
            let ours = settings.identities.iter();
            let declared = Self {
                room: Room::of(resource),
                cohorts: cohorts(ours.filter(|spec| spec.resource == resource.name)),
            };
            (resource.name.clone(), declared)
        });
        resources.collect()
    }

    /// What is needed of what is allowed, where there are so many identities, declared ones and others: those are
    /// renewed as usual.
    pub fn capacity(&self, identities: u64, usual: &Renewal) -> Capacity {
        let mut cohorts = self.cohorts.clone();
        let declared: u64 = cohorts.iter().map(|cohort| cohort.identities).sum();
        cohorts.push(Cohort::usual(usual, identities.saturating_sub(declared)));
        Capacity::for_cohorts(&cohorts, self.room.limits.issue)
    }
}

/// What is wrong with the room of the resources of a configuration: an error where its identities can never keep up, a
/// warning where little is left.
pub fn check_room(settings: &Settings) -> Vec<Finding> {
    let declared = Declared::of(settings);
    let numbered = settings.resources.iter().enumerate();
    let found = numbered.filter_map(|(number, resource)| {
        let capacity = declared.get(&resource.name)?.capacity(0, &settings.renewal);
        capacity.finding(format!("resource[{number}].limits"))
    });
    found.collect()
}

/// How long so many calls take within a limit.
pub fn takes(limit: Limit, calls: u64) -> Duration {
    Allowed::of(limit).takes(calls)
}

/// Plans for one resource.
pub fn plan(
    resource: &ResourceName,
    (fleet, basis): (&Fleet, Basis),
    room: Room,
    now: Timestamp,
) -> Plan {
    let pace = Allowed::of(room.limits.issue);
    let capacity = Capacity::of(fleet, &room);
    let mut ahead = Ahead::new(fleet, &room.limits, now);
    let ends = ahead.ends.clone();
    let (survival, mut hours) = ahead.run(pace);
    let start = minute_of(now);
    for (at, count) in ends {
        let hour = usize::try_from((at - start) / 60).ok();
        if let Some(hour) = hour.and_then(|hour| hours.get_mut(hour)) {
            hour.ends += count;
        }
    }
    Plan {
        resource: resource.clone(),
        basis,
        identities: fleet.identities(),
        to_create: fleet.unmade.iter().sum(),
        allowed_per_hour: capacity.allowed * 3600.0,
        steady_per_hour: capacity.needed * 3600.0,
        headroom: capacity.headroom(),
        keeps_up: capacity.keeps_up(),
        answers_within_ms: (room.max_in_flight as f64 / capacity.allowed * 1000.0) as u64,
        outage: match capacity.keeps_up() {
            true => Survival {
                level_seconds: level_survival(fleet, &pace, now),
                ..survival
            },
            // Who is late without an outage survives none.
            false => Survival {
                now_seconds: survival.now_seconds.map(|_| 0),
                worst_seconds: survival.worst_seconds.map(|_| 0),
                ..survival
            },
        },
        campaigns: campaigns(fleet, &room.limits),
        hours,
    }
}

/// Renewals that are needed and that are allowed, in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    needed: f64,
    allowed: f64,
}

impl Capacity {
    fn of(fleet: &Fleet, room: &Room) -> Self {
        Self::between(fleet.per_second(), room.limits.issue)
    }

    /// Of identities that are renewed so, at a limit of issuing.
    pub fn for_cohorts(cohorts: &[Cohort], limit: Limit) -> Self {
        Self::between(cohorts.iter().map(Cohort::per_second).sum(), limit)
    }

    fn between(needed: f64, limit: Limit) -> Self {
        Self {
            needed,
            allowed: Allowed::of(limit).per_second(),
        }
    }

    /// The part of the pace that is left.
    pub fn headroom(&self) -> f64 {
        1.0 - self.needed / self.allowed
    }

    /// Whether what is due is ever worked off.
    pub fn keeps_up(&self) -> bool {
        self.needed <= self.allowed
    }

    /// What is wrong with the room of a resource, for the place in the configuration where its limits stand.
    pub fn finding(&self, path: String) -> Option<Finding> {
        let (needed, allowed) = (rate(self.needed), rate(self.allowed));
        let hint = "longer lifetimes, a later renew_at, fewer identities, or a higher limit where Azure has granted one; \
                    `renewd plan` shows what follows, and `renewd run` starts all the same";
        let (severity, message) = if !self.keeps_up() {
            let message = format!(
                "the identities of this resource need {needed}, its limit of `issue` allows {allowed}: they can \
                 never keep up, and tokens will end before their turn"
            );
            (Severity::Error, message)
        } else if self.headroom() < NARROW {
            let message = format!(
                "the identities of this resource need {needed} of the {allowed} that its limit of `issue` allows: \
                 {:.0} % are left, which makes recoveries and campaigns slow",
                (self.headroom() * 100.0).floor()
            );
            (Severity::Warning, message)
        } else {
            return None;
        };
        Some(Finding {
            path,
            severity,
            message,
            hint: Some(hint.to_owned()),
        })
    }
}

/// Calls in a second or an hour, as a person says it.
fn rate(per_second: f64) -> String {
    if per_second >= 10.0 {
        format!("{per_second:.0}/s")
    } else if per_second >= 0.1 {
        format!("{per_second:.1}/s")
    } else {
        format!("{:.1}/h", per_second * 3600.0)
    }
}

/// So many calls in any window.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    calls: u64,
    window: Duration,
}

impl Allowed {
    fn of(limit: Limit) -> Self {
        Self {
            calls: u64::from(pace::most_of(limit)),
            window: limit.window,
        }
    }

    fn per_second(&self) -> f64 {
        self.calls as f64 / self.window.as_secs_f64().max(1e-3)
    }

    /// How long so many calls take: a window's worth goes out at once, and the same again each window.
    fn takes(&self, calls: u64) -> Duration {
        let windows = calls.div_ceil(self.calls.max(1)).saturating_sub(1);
        self.window
            .saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX))
    }

    /// The same beside so many other calls a second; `None` where they leave nothing.
    fn beside(&self, others: f64) -> Option<Self> {
        let taken = (others * self.window.as_secs_f64()).ceil() as u64;
        let calls = self.calls.checked_sub(taken).filter(|calls| *calls > 0)?;
        Some(Self { calls, ..*self })
    }
}

fn campaigns(fleet: &Fleet, limits: &Limits) -> Campaigns {
    let all = fleet.identities() - fleet.unmade.iter().sum::<u64>();
    let (revoke, issue) = (Allowed::of(limits.revoke), Allowed::of(limits.issue));
    let beside = issue.beside(fleet.per_second());
    Campaigns {
        revoke_seconds: revoke.takes(all).as_secs(),
        reissue_seconds: beside.map(|issue| issue.takes(all).max(revoke.takes(all)).as_secs()),
        // Whoever is renewed meanwhile has the new key's token already.
        key_roll_seconds: Some(issue.takes(all).as_secs()),
    }
}

/// The longest outage that a fleet survives whose load is level.
fn level_survival(fleet: &Fleet, pace: &Allowed, now: Timestamp) -> u64 {
    let level = Fleet::level(fleet.cohorts.clone(), now);
    let mut ends = BTreeMap::new();
    for (tokens, _) in &level.tokens {
        *ends.entry(tokens.ends).or_default() += tokens.count;
    }
    survival(&ends, minute_of(now), pace).unwrap_or(0)
}

/// The longest outage, from a minute on, that all survive whose ends are these: for every instant the pace must have
/// replaced all that end by it. `None` where there is nobody.
fn survival(ends: &BTreeMap<i64, u64>, from: i64, pace: &Allowed) -> Option<u64> {
    let (mut least, mut ending) = (None, 0u64);
    for (at, count) in ends.iter().filter(|(_, count)| **count > 0) {
        ending += count;
        let left = Duration::from_secs(60 * u64::try_from(at - from).unwrap_or(0));
        let room = left
            .saturating_sub(pace.takes(ending))
            .saturating_sub(NOTICED);
        least = Some(least.map_or(room, |least: Duration| least.min(room)));
    }
    least.map(|least| least.as_secs())
}

/// Tokens that wait, the earliest end first.
type Queue = BTreeMap<(i64, usize), u64>;

struct Ahead<'a> {
    cohorts: &'a [Cohort],
    now: Timestamp,
    start: i64,
    load: Load,
    due: BTreeMap<i64, Queue>,
    waiting: Queue,
    unmade: Queue,
    /// Live tokens by their end.
    ends: BTreeMap<i64, u64>,
    /// How many hold none.
    without: u64,
    creates: Allowed,
}

/// What stands in the queue for the end of one that holds no token.
const NONE: i64 = i64::MIN;

impl<'a> Ahead<'a> {
    fn new(fleet: &'a Fleet, limits: &Limits, now: Timestamp) -> Self {
        let start = minute_of(now);
        let mut ahead = Self {
            cohorts: &fleet.cohorts,
            now,
            start,
            load: Load::default(),
            due: BTreeMap::new(),
            waiting: Queue::new(),
            unmade: Queue::new(),
            ends: BTreeMap::new(),
            without: 0,
            creates: Allowed::of(limits.create_with_token),
        };
        for (tokens, cohort) in &fleet.tokens {
            ahead.hold(tokens.due, tokens.ends, *cohort, tokens.count);
        }
        for (cohort, (issue, create)) in fleet.without.iter().zip(&fleet.unmade).enumerate() {
            for (queue, count) in [(&mut ahead.waiting, *issue), (&mut ahead.unmade, *create)] {
                if count > 0 {
                    queue.insert((NONE, cohort), count);
                }
                ahead.without += count;
            }
        }
        let counted = ahead.due.iter().map(|(minute, tokens)| {
            let count: u64 = tokens.values().sum();
            (*minute, u32::try_from(count).unwrap_or(u32::MAX))
        });
        // The first count is of this minute, or what is put before all others would not be counted.
        ahead.load = Load::counted(std::iter::once((start, 0)).chain(counted));
        ahead
    }

    fn hold(&mut self, due: i64, ends: i64, cohort: usize, count: u64) {
        if count == 0 {
            return;
        }
        let due = due.max(self.start);
        *self
            .due
            .entry(due)
            .or_default()
            .entry((ends, cohort))
            .or_default() += count;
        *self.ends.entry(ends).or_default() += count;
    }

    /// Lets the hours pass.
    fn run(&mut self, pace: Allowed) -> (Survival, Vec<Hour>) {
        let mut hours: Vec<Hour> = (0..HOURS).map(|hour| self.hour(hour)).collect();
        let mut survival = Survival {
            now_seconds: None,
            worst_seconds: None,
            worst_at: None,
            level_seconds: 0,
        };
        let (mut issues, mut creates) = (Credit::of(pace), Credit::of(self.creates));
        for minute in 0..HORIZON {
            if minute % STEP == 0 {
                self.look(minute, &pace, &mut survival);
            }
            let hour = &mut hours[usize::try_from(minute / 60).unwrap_or(0)];
            self.minute(self.start + minute, (&mut issues, &mut creates), hour);
        }
        (survival, hours)
    }

    fn hour(&self, hour: usize) -> Hour {
        let begins = Duration::from_secs(3600 * hour as u64);
        Hour {
            at: self.now.checked_add(begins).unwrap_or(self.now),
            renewals: 0,
            ends: 0,
            lapses: 0,
        }
    }

    /// What if an outage began in this minute.
    fn look(&self, minute: i64, pace: &Allowed, survival: &mut Survival) {
        let from = self.start + minute;
        let everybody = self.without == 0 && self.ends.keys().next().is_none_or(|at| *at > from);
        let survived = match everybody {
            true => self::survival(&self.ends, from, pace),
            false => None,
        };
        if minute == 0 {
            survival.now_seconds = survived;
        }
        if let Some(seconds) = survived
            && survival.worst_seconds.is_none_or(|worst| seconds < worst)
        {
            let later = Duration::from_secs(60 * minute.unsigned_abs());
            survival.worst_seconds = Some(seconds);
            survival.worst_at = self.now.checked_add(later).ok();
        }
    }

    fn minute(
        &mut self,
        minute: i64,
        (issues, creates): (&mut Credit, &mut Credit),
        hour: &mut Hour,
    ) {
        for (token, count) in self.due.remove(&minute).unwrap_or_default() {
            *self.waiting.entry(token).or_default() += count;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = self.work_off(waiting, minute, issues.take(), hour, issues);
        let unmade = std::mem::take(&mut self.unmade);
        self.unmade = self.work_off(unmade, minute, creates.take(), hour, creates);
        hour.lapses += self.lapse(minute);
    }

    /// What is left of a queue after so many calls.
    fn work_off(
        &mut self,
        queue: Queue,
        minute: i64,
        mut may: u64,
        hour: &mut Hour,
        credit: &mut Credit,
    ) -> Queue {
        let mut left = Queue::new();
        for ((ends, cohort), count) in queue {
            let done = count.min(may);
            may -= done;
            if done < count {
                left.insert((ends, cohort), count - done);
            }
            if done > 0 {
                hour.renewals += done;
                self.renew(minute, ends, cohort, done);
            }
        }
        credit.give_back(may);
        left
    }

    fn renew(&mut self, minute: i64, ended: i64, cohort: usize, count: u64) {
        match ended {
            NONE => self.without = self.without.saturating_sub(count),
            _ => self.ended(ended, count),
        }
        let like = self.cohorts[cohort];
        let issued = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(self.now);
        let window = Life {
            from: issued,
            to: issued.checked_add(like.lifetime).unwrap_or(issued),
        }
        .renewal_at(like.renew_at, like.spread);
        let ends = minute + like.life_minutes();
        let placed = self.load.pour(window, count, issued);
        for (due, count) in placed {
            self.hold(due.max(minute + 1), ends, cohort, count);
        }
    }

    /// So many tokens of this end are no more.
    fn ended(&mut self, ended: i64, count: u64) {
        let left = self
            .ends
            .get(&ended)
            .map_or(0, |held| held.saturating_sub(count));
        match left {
            0 => self.ends.remove(&ended),
            left => self.ends.insert(ended, left),
        };
    }

    /// Tokens that end before their turn: from here on their identities hold none.
    fn lapse(&mut self, minute: i64) -> u64 {
        let over: Vec<_> = self
            .waiting
            .range((NONE + 1, 0)..=(minute, usize::MAX))
            .map(|(token, count)| (*token, *count))
            .collect();
        let mut lapsed = 0;
        for ((ends, cohort), count) in over {
            self.waiting.remove(&(ends, cohort));
            self.ended(ends, count);
            *self.waiting.entry((NONE, cohort)).or_default() += count;
            self.without += count;
            lapsed += count;
        }
        lapsed
    }
}

/// Calls that may be made and were not, up to a window's worth.
struct Credit {
    pace: Allowed,
    held: f64,
}

impl Credit {
    fn of(pace: Allowed) -> Self {
        let mut credit = Self { pace, held: 0.0 };
        credit.held = credit.most();
        credit
    }

    /// What a minute allows, or a window where that is longer.
    fn most(&self) -> f64 {
        (self.pace.calls as f64).max(self.pace.per_second() * 60.0)
    }

    /// What may be called for in the next minute.
    fn take(&mut self) -> u64 {
        let whole = self.held.floor();
        self.held -= whole;
        whole as u64
    }

    fn give_back(&mut self, unused: u64) {
        let minute = self.pace.per_second() * 60.0;
        self.held = (self.held + unused as f64 + minute).min(self.most());
    }
}

#[cfg(test)]
mod tests;
