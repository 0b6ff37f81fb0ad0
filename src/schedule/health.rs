//! What is known of one operation of a resource: open, or only probes go out, or it is held.
//!
//! When evidence has it that the resource does not answer, only probes go out, one at a time, 1 s
//! apart growing to 30 s but never further apart than a sixth of the life left to the most urgent
//! identity. The first answer opens it again: 1, 2, 4 … calls at once, up to the pace.
//!
//! A hold is on a resource, or on one operation of it, that refuses us. An outage is announced once when it
//! begins, and once when it ends.

use std::time::Duration;

use jiff::Timestamp;

use super::{Moment, Steady, life::doubled};
use crate::model::HealthView;

const SHORTEST_PROBE: Duration = Duration::from_secs(1);
const LONGEST_PROBE: Duration = Duration::from_secs(30);
/// After a probe that hung for longer than the gap, this much air is left.
const AIR: Duration = Duration::from_millis(250);

/// Tells calls of before an outage from its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Began {
    outage: u32,
    at: Steady,
}

/// The health of one (resource, operation).
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    phase: Phase,
    outages: u32,
}

#[derive(Debug, Clone, Default)]
enum Phase {
    #[default]
    Open,
    Probing(Probing),
    /// So many at once, growing.
    Opening(usize),
}

#[derive(Debug, Clone)]
struct Probing {
    since: Timestamp,
    because: String,
    probes: u32,
    began: Steady,
    ended: Steady,
    in_flight: bool,
}

impl Health {
    /// How many more calls may start while `in_flight` are on their way. `left` is the life left
    /// to the most urgent identity that waits.
    pub(super) fn room(&self, in_flight: usize, left: Option<Duration>, now: Steady) -> usize {
        match &self.phase {
            Phase::Open => usize::MAX,
            Phase::Opening(width) => width.saturating_sub(in_flight),
            Phase::Probing(probing) => usize::from(!probing.in_flight && now >= probing.next(left)),
        }
    }

    /// When the next probe may go out, while only probes do and none is on its way.
    pub(super) fn probe_at(&self, left: Option<Duration>) -> Option<Steady> {
        match &self.phase {
            Phase::Probing(probing) if !probing.in_flight => Some(probing.next(left)),
            _ => None,
        }
    }

    /// Whether only probes go out.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing(_))
    }

    pub(super) fn start(&mut self, now: Steady) -> Began {
        if let Phase::Probing(probing) = &mut self.phase {
            probing.in_flight = true;
            probing.began = now;
        }
        Began {
            outage: self.outages,
            at: now,
        }
    }

    /// The service answered, whatever it said. `widest` is how many calls may ever be in flight.
    /// True when this ended the probing.
    pub(super) fn answered(&mut self, widest: usize) -> bool {
        match &mut self.phase {
            Phase::Open => false,
            Phase::Probing(_) => {
                self.phase = Phase::Opening(2);
                true
            }
            Phase::Opening(width) => {
                *width += 1;
                if *width >= widest {
                    self.phase = Phase::Open;
                }
                false
            }
        }
    }

    /// The service does not answer: only probes go out from now on, after a call that `began` then
    /// and ended now.
    pub(super) fn trip(&mut self, began: Began, because: &str, now: Moment) {
        if self.is_probing() {
            return;
        }
        self.outages = self.outages.wrapping_add(1);
        self.phase = Phase::Probing(Probing {
            since: now.wall,
            because: because.to_owned(),
            probes: 0,
            began: began.at,
            ended: now.steady,
            in_flight: false,
        });
    }

    /// A call failed that may be the first of several: fewer go out while it is opening.
    pub(super) fn shaken(&mut self) {
        if let Phase::Opening(width) = &mut self.phase {
            *width = (*width / 2).max(1);
        }
    }

    /// A probe was not answered. What was on its way before the probing began is none.
    pub(super) fn probe_failed(&mut self, began: Began, because: &str, ended: Steady) {
        if let Phase::Probing(probing) = &mut self.phase
            && began.outage == self.outages
        {
            probing.probes = probing.probes.saturating_add(1);
            probing.in_flight = false;
            probing.ended = ended;
            because.clone_into(&mut probing.because);
        }
    }

    /// A call ended without telling anything about the service (it was never sent, our own code
    /// failed, or its row fails by itself).
    pub(super) fn abandoned(&mut self, began: Began, ended: Steady) {
        if let Phase::Probing(probing) = &mut self.phase
            && began.outage == self.outages
        {
            probing.in_flight = false;
            probing.ended = ended;
        }
    }

    pub(super) fn view(&self) -> HealthView {
        match &self.phase {
            Phase::Open | Phase::Opening(_) => HealthView::Open,
            Phase::Probing(probing) => HealthView::Probing {
                since: probing.since,
                because: probing.because.clone(),
            },
        }
    }
}

impl Probing {
    fn next(&self, left: Option<Duration>) -> Steady {
        let mut gap = doubled(SHORTEST_PROBE, self.probes).min(LONGEST_PROBE);
        if let Some(left) = left {
            gap = gap.min((left / 6).max(SHORTEST_PROBE));
        }
        (self.began + gap).max(self.ended + AIR)
    }
}

const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(5);

/// While we are refused: one probe at a time, 5 s apart growing to 5 min, but
/// never further apart than a sixth of the life left to the most urgent identity (5 s at least). An
/// answer that accepts us ends it.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyHold {
    held: Option<Held>,
}

#[derive(Debug, Clone)]
struct Held {
    because: String,
    gap: Duration,
    from: Steady,
}

impl KeyHold {
    /// Whether another call may start while `in_flight` are on their way. `left` is the life left
    /// to the most urgent identity that waits.
    pub(super) fn admits(&self, in_flight: usize, left: Option<Duration>, now: Steady) -> bool {
        match &self.held {
            None => true,
            Some(held) => in_flight == 0 && now >= held.until(left),
        }
    }

    /// The keys were refused. True when this began the hold.
    pub(super) fn refused(&mut self, because: &str, now: Steady) -> bool {
        if let Some(held) = &mut self.held {
            // What was in flight when it began is not a probe.
            if now >= held.from + SHORTEST {
                held.gap = (held.gap * 2).min(LONGEST);
                held.from = now;
                because.clone_into(&mut held.because);
            }
            return false;
        }
        self.held = Some(Held {
            because: because.to_owned(),
            gap: SHORTEST,
            from: now,
        });
        true
    }

    /// A key was accepted, or the keys were changed. True when this ended the hold.
    pub(super) fn accepted(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Until when, and why, while it holds.
    pub(super) fn until(&self, left: Option<Duration>) -> Option<(Steady, &str)> {
        let held = self.held.as_ref()?;
        Some((held.until(left), &held.because))
    }
}

impl Held {
    fn until(&self, left: Option<Duration>) -> Steady {
        let gap = left.map_or(self.gap, |left| self.gap.min((left / 6).max(SHORTEST)));
        self.from + gap
    }
}

/// An outage that follows the last one closer than this …
const RELAPSE: Duration = Duration::from_hours(1);
/// … is announced only when it lasts so long, and twice as long after each that was, so that a
/// half-broken service is not a flood.
const LASTING: Duration = Duration::from_secs(30);
const MOST_DOUBLED: u32 = 6;

/// Turns bad and good news into at most one announcement of each.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    since: Option<Steady>,
    announced: bool,
    ended: Option<Steady>,
    /// Announced relapses, one after the other.
    relapses: u32,
    /// An earlier process announced it, and nothing was heard of the service since.
    inherited: bool,
}

impl Outage {
    /// One that an earlier process announced and did not see the end of. It ends with the first good
    /// news after an answer.
    pub fn inherited(now: Steady) -> Self {
        Self {
            since: Some(now),
            announced: true,
            inherited: true,
            ..Self::default()
        }
    }

    /// The service said something.
    pub fn heard(&mut self) {
        self.inherited = false;
    }

    /// Bad at this instant. True when the beginning is to be announced now.
    pub fn bad(&mut self, now: Steady) -> bool {
        let since = *self.since.get_or_insert(now);
        let relapse = self.ended.is_some_and(|ended| since < ended + RELAPSE);
        let lasting = LASTING * 2_u32.pow(self.relapses.min(MOST_DOUBLED));
        if self.announced || (relapse && now < since + lasting) {
            return false;
        }
        self.relapses = if relapse { self.relapses + 1 } else { 0 };
        self.announced = true;
        true
    }

    /// Good at this instant. True when the end is to be announced now.
    pub fn good(&mut self, now: Steady) -> bool {
        if self.inherited || self.since.take().is_none() {
            return false;
        }
        self.ended = Some(now);
        std::mem::take(&mut self.announced)
    }

    /// Whether one is going on that people know of.
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// Whether one is going on, announced or not.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod health_tests {
    use super::{super::life::tests::noon, *};

    const S: Duration = Duration::from_secs(1);

    fn at(steady: Steady) -> Moment {
        Moment {
            wall: noon(),
            steady,
        }
    }

    fn down() -> Health {
        let mut health = Health::default();
        let began = health.start(S);
        health.trip(began, "reset", at(S));
        health
    }

    #[test]
    fn only_probes_go_out() {
        let health = down();
        assert_eq!(health.room(0, None, S), 0);
        assert_eq!(health.room(0, None, S * 2), 1);
        assert!(matches!(health.view(), HealthView::Probing { .. }));
    }

    #[test]
    fn what_was_in_flight_before_is_no_probe() {
        let mut health = Health::default();
        let began: Vec<_> = (0..32).map(|_| health.start(S)).collect();
        health.trip(began[0], "reset", at(S));
        for began in began {
            health.probe_failed(began, "reset", S);
        }
        assert_eq!(health.probe_at(None), Some(S * 2), "the gap has not grown");
    }

    #[test]
    fn probes_grow_to_thirty_seconds_and_follow_the_most_urgent() {
        let mut health = down();
        let (mut now, mut gaps) = (S, Vec::new());
        for _ in 0..7 {
            let next = health.probe_at(None).unwrap();
            gaps.push((next - now).as_secs());
            now = next;
            let began = health.start(now);
            assert_eq!(health.room(1, None, now + S * 100), 0, "one at a time");
            health.probe_failed(began, "reset", now);
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(health.probe_at(Some(S * 60)), Some(now + S * 10));
        assert_eq!(health.probe_at(Some(S)), Some(now + S));
    }

    #[test]
    fn a_probe_that_hung_leaves_air() {
        let mut health = down();
        let began = health.start(S * 2);
        health.probe_failed(began, "timeout", S * 32);
        assert_eq!(health.probe_at(None), Some(S * 32 + AIR));
    }

    #[test]
    fn it_opens_gently() {
        let mut health = down();
        assert!(health.answered(8));
        let mut widths = Vec::new();
        while health.room(0, None, S) != usize::MAX {
            let width = health.room(0, None, S);
            widths.push(width);
            for _ in 0..width {
                assert!(!health.answered(8));
            }
        }
        assert_eq!(widths, [2, 4]);
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let mut health = down();
        let began = health.start(S * 2);
        health.abandoned(began, S * 2);
        assert_eq!(health.room(0, None, S * 3), 1);
    }
}

#[cfg(test)]
mod hold_tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn probes_grow_until_a_key_is_accepted() {
        let mut hold = KeyHold::default();
        assert!(hold.admits(31, None, S));
        assert!(hold.refused("Denied", S));
        assert!(!hold.refused("Denied", S), "in flight when it began");
        let (mut now, mut gaps) = (S, Vec::new());
        for _ in 0..8 {
            let (next, _) = hold.until(None).unwrap();
            gaps.push((next - now).as_secs());
            now = next;
            assert!(hold.admits(0, None, now) && !hold.admits(1, None, now));
            assert!(!hold.refused("Denied", now));
        }
        assert_eq!(gaps, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(hold.until(Some(S * 60)).unwrap().0, now + S * 10);
        assert!(hold.accepted() && !hold.accepted());
        assert!(hold.admits(31, None, now));
    }
}

#[cfg(test)]
mod outage_tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn one_at_the_beginning_and_one_at_the_end() {
        let mut outage = Outage::default();
        assert!(!outage.good(S));
        assert!(outage.bad(S));
        assert!(!outage.bad(S * 2) && outage.is_announced());
        assert!(outage.good(S * 3) && !outage.good(S * 4));
    }

    #[test]
    fn what_an_earlier_process_announced_ends_when_the_service_was_heard() {
        let mut outage = Outage::inherited(S);
        assert!(outage.is_on() && !outage.good(S * 2) && outage.is_on());
        assert!(!outage.bad(S * 3), "it is announced already");
        outage.heard();
        assert!(outage.good(S * 4) && !outage.is_on());
    }

    #[test]
    fn a_flapping_service_is_not_a_flood() {
        let mut outage = Outage::default();
        let announced = (0..3600)
            .filter(|n| {
                if n % 2 == 0 {
                    outage.bad(S * *n)
                } else {
                    outage.good(S * *n)
                }
            })
            .count();
        assert_eq!(announced, 2);
        outage.bad(S * 3600);
        assert!(outage.bad(S * 3630), "this one lasts");
    }
}
