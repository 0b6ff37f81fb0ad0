//! The pace of one operation: a sliding window of our own, kept under the service's limit.
//!
//! A call counts from its start until one window after its end, so that however long requests
//! travel, no window at the service ever holds more than was allowed. Permits are reserved in blocks
//! that the store knows before they are used, together with what counts at that moment; after a crash
//! the last block and what was in flight count as sent at the end of the block's validity, so that the
//! window holds over a restart as well, and a restart forgets little of what it may use.
//!
//! A 429 lowers the pace of ordinary work. What is pressing, because its token ends soon, may always
//! use the whole window: a pace lowered below the demand would let tokens die one after the other.

use std::{collections::VecDeque, time::Duration};

use jiff::SignedDuration;

use super::Steady;
use crate::config::Limit;

/// How long a block of reserved permits may be used.
const PERMITS_VALID: Duration = Duration::from_secs(5);

/// How long a request may still travel after its permit ran out, before it reaches the service.
const TRAVEL: Duration = Duration::from_secs(5);
/// A window is noted in so many steps.
const STEPS: u32 = 64;
/// The share of the limit that is ever used.
const USED: f64 = 0.97;
/// A 429 below this part of what we allow ourselves is brought about by somebody else.
const OURS: f64 = 0.5;
/// One such 429 may be an accident; after so many somebody uses the resource, until none came for so long.
const ACCIDENTS: u32 = 1;
const CALM: Duration = Duration::from_mins(10);
/// What a 429 leaves of the pace.
const LOWERED: f64 = 0.8;
const LOWEST: f64 = 0.1;
/// What comes back per [`GROWS_EVERY`] without a 429.
const GROWS_BY: f64 = 0.05;
const GROWS_EVERY: Duration = Duration::from_secs(10);
/// The wait where a 429 names none.
const USUAL_WAIT: Duration = Duration::from_secs(5);
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// The most calls of a limit that are ever sent in its window.
pub(super) fn most_of(limit: Limit) -> u32 {
    part_of(limit, 1.0)
}

fn part_of(limit: Limit, share: f64) -> u32 {
    ((f64::from(limit.calls) * USED * share) as u32).max(1)
}

/// How pressing a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// It may wait for a pace that a 429 lowered.
    Ordinary,
    /// Its token is urgent to renew, or dead, or it has waited long: now it waits for the window and for
    /// Retry-After alone.
    Pressing,
}

/// How many calls of one operation may be sent now.
#[derive(Debug, Clone)]
pub struct Pace {
    limit: Limit,
    share: f64,
    /// What somebody else leaves us of it.
    cap: f64,
    grown: Steady,
    held: Option<Steady>,
    /// The hold was not noted yet.
    unnoted: bool,
    /// What we had sent in the window when a 429 began the hold.
    sent_when_held: u32,
    /// 429s that somebody else brings about, while they come.
    crowd: Option<Crowd>,
    in_flight: u32,
    /// Ended calls and when they leave the window, oldest first.
    ended: VecDeque<(Steady, u32)>,
    ended_calls: u32,
    block: Option<Block>,
}

/// 429s that somebody else brings about.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    since: Steady,
    until: Steady,
    times: u32,
    /// What we had sent when the last one came.
    sent: u32,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    left: u32,
    until: Steady,
}

impl Pace {
    /// A pace that has sent nothing yet.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            share: 1.0,
            cap: 1.0,
            grown: Steady::ZERO,
            held: None,
            unnoted: false,
            sent_when_held: 0,
            crowd: None,
            in_flight: 0,
            ended: VecDeque::new(),
            ended_calls: 0,
            block: None,
        }
    }

    /// Leaves all but this share of the limit to others.
    pub fn cap(&mut self, share: f64) {
        self.cap = share.clamp(0.0, 1.0);
    }

    /// How long permits count on after the end of their validity.
    fn counts_for(&self) -> Duration {
        TRAVEL + self.limit.window
    }

    /// What a later process must count if this one is killed after it has reserved so many permits: calls,
    /// and how far ahead of now, or behind it, the validity of their permits ends. Ended calls are as if
    /// their permits had run out just so long ago that they leave the window when they do; in steps, so
    /// that there are few lines.
    pub fn noted(&mut self, permits: u32, now: Steady) -> Vec<(u32, SignedDuration)> {
        self.settle(now);
        let (step, counts_for) = (self.limit.window / STEPS, signed(self.counts_for()));
        let mut lines: Vec<(u32, SignedDuration)> = Vec::new();
        for (leaves, calls) in &self.ended {
            let left = leaves.saturating_sub(now).as_nanos();
            let steps = left.div_ceil(step.as_nanos().max(1));
            let ahead = signed(step * u32::try_from(steps).unwrap_or(u32::MAX)) - counts_for;
            match lines.last_mut() {
                Some((counted, at)) if *at == ahead => *counted += calls,
                _ => lines.push((*calls, ahead)),
            }
        }
        lines.push((permits + self.in_flight, signed(PERMITS_VALID)));
        lines
    }

    /// Counts what an earlier process noted: permits whose validity ends so far ahead of now, or behind
    /// it. None is further ahead than it is long, so a wall clock that stepped back costs nothing.
    pub fn restore(&mut self, permits: u32, ahead: SignedDuration, now: Steady) {
        let ahead = ahead.min(signed(PERMITS_VALID));
        let Ok(left) = Duration::try_from(ahead.saturating_add(signed(self.counts_for()))) else {
            return;
        };
        let leaves = now + left;
        let index = self.ended.partition_point(|(at, _)| *at <= leaves);
        self.ended.insert(index, (leaves, permits));
        self.ended_calls += permits;
    }

    /// How many permits to reserve for so many waiting calls: zero while there are some in hand,
    /// or while too few are free to be worth a write.
    pub fn reservable(&mut self, wanted: u32, press: Press, now: Steady) -> u32 {
        self.settle(now);
        if wanted == 0 || self.held.is_some() || self.block.is_some() {
            return 0;
        }
        let free = self.room(press);
        if free < self.worthwhile(wanted, press) {
            return 0;
        }
        free.min(self.block_size())
    }

    /// The store knows of these permits since then, so they may be used.
    pub fn reserved(&mut self, permits: u32, since: Steady) {
        self.block = Some(Block {
            left: permits,
            until: since + PERMITS_VALID,
        });
    }

    /// Permits in hand that may be used.
    pub fn available(&mut self, press: Press, now: Steady) -> u32 {
        self.settle(now);
        if self.held.is_some() {
            return 0;
        }
        let in_hand = self.block.map_or(0, |block| block.left);
        in_hand.min(self.room(press))
    }

    /// Uses one permit for a call that starts now; false where none is in hand.
    pub fn start(&mut self, press: Press, now: Steady) -> bool {
        if self.available(press, now) == 0 {
            return false;
        }
        if let Some(block) = &mut self.block {
            block.left -= 1;
            if block.left == 0 {
                self.block = None;
            }
        }
        self.in_flight += 1;
        true
    }

    /// A call has ended, however it did. `requests` were sent for it: none when it was given up
    /// before, more than one when it was signed again.
    pub fn end(&mut self, requests: u32, now: Steady) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if requests == 0 {
            return;
        }
        self.ended_calls += requests;
        let leaves = now + self.limit.window;
        match self.ended.back_mut() {
            Some((at, calls)) if *at >= leaves => *calls += requests,
            _ => self.ended.push_back((leaves, requests)),
        }
    }

    /// The service said 429: the operation is held for what it asks, 1 s to 10 min, and goes on
    /// slower. Within one hold the pace is lowered once.
    pub fn throttled(&mut self, retry_after: Option<Duration>, now: Steady) {
        self.settle(now);
        let wait = retry_after
            .unwrap_or(USUAL_WAIT)
            .clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let until = now + wait;
        match &mut self.held {
            Some(held) => *held = until.max(*held),
            None => {
                self.held = Some(until);
                self.sent_when_held = self.ended_calls + self.in_flight;
                if self.is_crowded_out() {
                    let (since, times) = self.crowd.map_or((now, 0), |c| (c.since, c.times));
                    self.crowd = Some(Crowd {
                        since,
                        until: until + CALM,
                        times: times + 1,
                        sent: self.sent_when_held,
                    });
                }
                self.share = (self.share * LOWERED).max(LOWEST);
            }
        }
        self.grown = self.held.unwrap_or(until);
        self.unnoted = true;
    }

    /// What a later process must know of a hold, while it is not noted: until when it lasts, and what of the pace it
    /// leaves, in thousandths.
    pub fn unnoted_hold(&self) -> Option<(Steady, u32)> {
        let thousandths = (self.share * 1000.0) as u32;
        self.unnoted.then_some((self.grown, thousandths))
    }

    /// The hold until then is noted.
    pub fn hold_noted(&mut self, until: Steady) {
        self.unnoted &= self.grown != until;
    }

    /// Takes over a hold that an earlier process noted, which ends so far ahead of now, or behind it. None lasts
    /// longer than a service may ask for, so a wall clock that stepped back costs no more than that.
    pub fn restore_hold(&mut self, ahead: SignedDuration, thousandths: u32, now: Steady) {
        let grows = GROWS_EVERY.as_secs_f64();
        let grown = (-ahead.as_secs_f64()).max(0.0) / grows * GROWS_BY;
        self.share = (f64::from(thousandths) / 1000.0 + grown).clamp(LOWEST, 1.0);
        let left = Duration::try_from(ahead).unwrap_or_default();
        self.grown = now + left.min(LONGEST_WAIT);
        self.held = (self.grown > now).then_some(self.grown);
        // Whether it was us is not known any more.
        self.sent_when_held = u32::MAX;
    }

    /// Until when a 429 holds the operation.
    pub fn held_until(&mut self, now: Steady) -> Option<Steady> {
        self.settle(now);
        self.held
    }

    /// Whether the hold began far below what we allow ourselves: then it is not us.
    fn is_crowded_out(&self) -> bool {
        let most = self.allowed(Press::Pressing);
        f64::from(self.sent_when_held) < f64::from(most) * OURS
    }

    /// Why a 429 holds the operation.
    pub fn held_because(&self) -> String {
        let (sent, most) = (self.sent_when_held, self.allowed(Press::Pressing));
        let window = self.limit.window.as_secs();
        match self.is_crowded_out() {
            true => format!(
                "ACS answered 429 and asked us to wait, though we had sent only {sent} of our {most} calls in {window} s: \
                 somebody else uses this resource (with `share` in its [[resource]] installations leave room to each other)"
            ),
            false => "ACS answered 429 and asked us to wait".to_owned(),
        }
    }

    /// That somebody else uses the resource, while 429s far below our own pace keep coming: since when, what
    /// we had sent at the last one, what we may send, and in which window.
    pub fn contention(&mut self, now: Steady) -> Option<(Steady, u32, u32, Duration)> {
        self.settle(now);
        let crowd = self.crowd.filter(|crowd| crowd.times > ACCIDENTS)?;
        let most = self.allowed(Press::Pressing);
        Some((crowd.since, crowd.sent, most, self.limit.window))
    }

    /// When so many waiting calls are worth another look; `None` while only calls in flight can
    /// make room.
    pub fn ready_at(&mut self, wanted: u32, press: Press, now: Steady) -> Option<Steady> {
        self.settle(now);
        if let Some(held) = self.held {
            return Some(held);
        }
        let needed = match self.block {
            Some(_) => 1,
            None => self.worthwhile(wanted.max(1), press),
        };
        let mut free = self.room(press);
        if free >= needed {
            return Some(now);
        }
        for (leaves, calls) in &self.ended {
            free += calls;
            if free >= needed {
                return Some(*leaves);
            }
        }
        None
    }

    /// Calls that count within the window, and the most that may.
    pub fn view(&mut self, now: Steady) -> (u32, u32) {
        self.settle(now);
        (
            self.ended_calls + self.in_flight,
            self.allowed(Press::Ordinary),
        )
    }

    /// Lets go of what has left the window, ends holds and blocks, and lets the pace grow.
    fn settle(&mut self, now: Steady) {
        while let Some((leaves, calls)) = self.ended.front().copied()
            && leaves <= now
        {
            self.ended.pop_front();
            self.ended_calls -= calls;
        }
        self.held.take_if(|held| *held <= now);
        self.crowd.take_if(|crowd| crowd.until <= now);
        self.block.take_if(|block| block.until <= now);
        while self.share < 1.0 && now >= self.grown + GROWS_EVERY {
            self.share = (self.share + GROWS_BY).min(1.0);
            self.grown += GROWS_EVERY;
        }
    }

    /// The most calls in any window; at least one, or nothing would ever go out.
    fn allowed(&self, press: Press) -> u32 {
        part_of(
            self.limit,
            match press {
                Press::Pressing => 1.0,
                Press::Ordinary => self.share.min(self.cap),
            },
        )
    }

    /// Calls that may still start within the window.
    fn room(&self, press: Press) -> u32 {
        self.allowed(press)
            .saturating_sub(self.ended_calls + self.in_flight)
    }

    /// A block is one write to the store: large enough to be cheap, small enough that a lost one
    /// costs little of the window.
    fn block_size(&self) -> u32 {
        (self.limit.calls / 32).clamp(1, 1024)
    }

    /// Permits are not worth a write one by one while many calls wait, unless few are allowed at all.
    fn worthwhile(&self, wanted: u32, press: Press) -> u32 {
        let most = self.block_size().min(self.allowed(press));
        wanted.min(most / 4).max(1)
    }
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    //! The window is kept, whatever the draws and the crashes.

    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn limit(calls: u32) -> Limit {
        Limit {
            calls,
            window: S * 30,
        }
    }

    /// Sends as fast as it may; each call arrives somewhere between its start and its end.
    /// Returns the arrivals. At `crash` the process is killed: only the reservations survive.
    fn run(pace: Pace, travel: &[u64], secs: u64, crash: Option<u64>) -> Vec<u64> {
        let mut pace = pace;
        let (mut arrivals, mut flying, mut n) = (Vec::new(), Vec::new(), 0);
        let mut noted: (Steady, Vec<(u32, SignedDuration)>) = (Steady::ZERO, Vec::new());
        for ms in (0..secs * 1000).step_by(50) {
            let now = Duration::from_millis(ms);
            flying.retain(|end| {
                let over = *end <= ms;
                if over {
                    pace.end(1, now);
                }
                !over
            });
            if crash == Some(ms / 1000) && ms % 1000 == 0 {
                let limit = pace.limit;
                pace = Pace::new(limit);
                flying.clear();
                arrivals.retain(|at| *at <= ms);
                let passed = signed(now - noted.0);
                for (permits, ahead) in &noted.1 {
                    pace.restore(*permits, *ahead - passed, now);
                }
            }
            let permits = pace.reservable(u32::MAX, Press::Ordinary, now);
            if permits > 0 {
                noted = (now, pace.noted(permits, now));
                pace.reserved(permits, now);
            }
            while flying.len() < 32 && pace.start(Press::Ordinary, now) {
                let (to, back) = (travel[n % travel.len()], travel[(n + 1) % travel.len()]);
                arrivals.push(ms + to);
                flying.push(ms + to + back);
                n += 1;
            }
        }
        arrivals.sort_unstable();
        arrivals
    }

    fn busiest(arrivals: &[u64]) -> usize {
        let mut most = 0;
        let mut first = 0;
        for (last, at) in arrivals.iter().enumerate() {
            while arrivals[first] + 30_000 <= *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    #[test]
    fn a_hold_is_waited_for_by_the_next_process_and_its_pace_grows_meanwhile() {
        let limit = Limit {
            calls: 1000,
            window: Duration::from_secs(30),
        };
        let mut before = Pace::new(limit);
        assert_eq!(before.unnoted_hold(), None);
        before.throttled(Some(Duration::from_secs(60)), Duration::from_secs(100));
        let (until, thousandths) = before.unnoted_hold().unwrap();
        assert_eq!((until, thousandths), (Duration::from_secs(160), 800));
        before.hold_noted(until);
        assert_eq!(before.unnoted_hold(), None);
        let after = |ahead| {
            let (mut pace, now) = (Pace::new(limit), Duration::from_secs(7));
            pace.restore_hold(SignedDuration::from_secs(ahead), thousandths, now);
            let held = pace
                .held_until(now)
                .map(|held| held.saturating_sub(now).as_secs());
            (held, pace.view(now).1)
        };
        assert_eq!(after(20), (Some(20), 776));
        assert_eq!(after(-25), (None, 897), "two and a half steps of growth");
        assert_eq!(after(-1000), (None, 970));
        assert_eq!(after(1_000_000).0, Some(600), "the wall clock stepped back");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_window_ever_holds_too_many(
            calls in 2u32..400,
            travel in proptest::collection::vec(0u64..2000, 2..6),
            crash in proptest::option::of(1u64..90),
        ) {
            let arrivals = run(Pace::new(limit(calls)), &travel, 100, crash);
            let most = busiest(&arrivals);
            prop_assert!(most <= (f64::from(calls) * 0.97) as usize, "{most} of {calls}");
        }
    }

    #[test]
    fn the_limit_is_used_well() {
        let arrivals = run(Pace::new(limit(1000)), &[5, 5], 120, None);
        assert!(arrivals.len() >= 3 * 930, "{}", arrivals.len());
    }

    #[test]
    fn a_throttle_holds_the_operation_and_lowers_it_once() {
        let mut pace = Pace::new(limit(1000));
        pace.reserved(31, Steady::ZERO);
        assert!(pace.start(Press::Ordinary, S));
        pace.throttled(Some(S * 10), S);
        pace.throttled(Some(S * 8), S * 2);
        assert_eq!(pace.held_until(S * 2), Some(S * 11));
        assert!(!pace.start(Press::Ordinary, S * 3));
        assert_eq!(pace.reservable(1, Press::Pressing, S * 3), 0);
        assert_eq!(pace.ready_at(1, Press::Pressing, S * 3), Some(S * 11));
        assert_eq!(pace.view(S * 11).1, 776);
        assert_eq!(pace.reservable(1, Press::Ordinary, S * 11), 31);
        // Ten seconds after the hold ended, a twentieth of the limit is back.
        assert_eq!(pace.view(S * 21).1, 824);
        assert_eq!(pace.view(S * 61).1, 970);
    }

    #[test]
    fn it_is_never_lowered_to_nothing() {
        let mut pace = Pace::new(limit(1000));
        for n in 0..100 {
            pace.throttled(Some(S), S * (2 * n));
        }
        assert_eq!(pace.view(S * 200).1, 97);
    }

    #[test]
    fn what_is_pressing_has_the_whole_window_however_often_it_was_lowered() {
        let mut pace = Pace::new(limit(100));
        for n in 0..6 {
            pace.throttled(Some(S), S * 2 * n);
        }
        let now = S * 20;
        let mut sent = 0;
        for press in [Press::Ordinary, Press::Pressing] {
            loop {
                let permits = pace.reservable(1, press, now);
                if permits > 0 {
                    pace.reserved(permits, now);
                }
                if !pace.start(press, now) {
                    break;
                }
                pace.end(1, now);
                sent += 1;
            }
            let most = if press == Press::Ordinary { 25 } else { 97 };
            assert_eq!(sent, most, "{press:?}");
        }
        assert_eq!(pace.ready_at(1, Press::Pressing, now), Some(now + S * 30));
    }

    #[test]
    fn absurd_waits_are_bounded() {
        let mut pace = Pace::new(limit(1000));
        pace.throttled(Some(Duration::from_hours(10_000)), S);
        assert_eq!(pace.held_until(S), Some(S + LONGEST_WAIT));
        let mut pace = Pace::new(limit(1000));
        pace.throttled(Some(Duration::ZERO), S);
        assert_eq!(pace.held_until(S), Some(S * 2));
    }

    #[test]
    fn unused_permits_come_back() {
        let mut pace = Pace::new(limit(128));
        pace.reserved(4, Steady::ZERO);
        assert!(pace.start(Press::Ordinary, S));
        assert_eq!(
            pace.reservable(10, Press::Ordinary, S * 2),
            0,
            "some are in hand"
        );
        pace.end(1, S * 2);
        assert_eq!(pace.view(S * 6), (1, 124));
        assert_eq!(pace.available(Press::Ordinary, S * 6), 0);
        assert_eq!(pace.reservable(10, Press::Ordinary, S * 6), 4);
    }

    #[test]
    fn a_small_share_is_used_however_many_wait() {
        let mut pace = Pace::new(limit(500));
        pace.cap(0.0024);
        let permits = pace.reservable(100, Press::Ordinary, Steady::ZERO);
        assert_eq!(permits, 1, "the one that is allowed in a window");
        pace.reserved(permits, Steady::ZERO);
        assert!(pace.start(Press::Ordinary, Steady::ZERO));
        assert!(!pace.start(Press::Ordinary, Steady::ZERO));
    }

    #[test]
    fn a_429_far_below_our_own_pace_is_brought_about_by_somebody_else() {
        let limit = Limit {
            calls: 100,
            window: Duration::from_secs(30),
        };
        for (sent, others) in [(10, true), (90, false)] {
            let mut pace = Pace::new(limit);
            let now = Steady::ZERO + Duration::from_secs(60);
            pace.reserved(97, now);
            for _ in 0..sent {
                assert!(pace.start(Press::Ordinary, now));
                pace.end(1, now);
            }
            pace.throttled(None, now);
            let because = pace.held_because();
            assert_eq!(
                because.contains("somebody else uses this resource"),
                others,
                "{because}"
            );
        }
    }

    #[test]
    fn one_429_below_our_pace_is_an_accident_and_two_are_somebody_else() {
        let mut pace = Pace::new(Limit {
            calls: 1000,
            window: Duration::from_secs(30),
        });
        let mut now = Duration::from_secs(1000);
        let begun = now;
        pace.throttled(Some(Duration::from_secs(5)), now);
        assert_eq!(pace.contention(now), None);
        now += Duration::from_secs(6);
        pace.throttled(Some(Duration::from_secs(5)), now);
        let (since, sent, most, window) = pace.contention(now).unwrap();
        assert_eq!((since, sent, most), (begun, 0, 970));
        assert_eq!(window, Duration::from_secs(30));
        now += Duration::from_mins(9);
        assert!(pace.contention(now).is_some());
        now += Duration::from_mins(2);
        assert_eq!(pace.contention(now), None);
    }

    #[test]
    fn a_429_at_our_own_pace_is_ours() {
        let mut pace = Pace::new(Limit {
            calls: 10,
            window: Duration::from_secs(30),
        });
        let mut now = Duration::from_secs(1000);
        for _ in 0..3 {
            pace.reserved(9, now);
            for _ in 0..9 {
                assert!(pace.start(Press::Pressing, now));
                pace.end(1, now);
            }
            pace.throttled(None, now);
            now += Duration::from_secs(40);
        }
        assert_eq!(pace.contention(now), None);
    }
}
