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

#[cfg(test)]
mod tests;

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
        let share = match press {
            Press::Pressing => 1.0,
            Press::Ordinary => self.share.min(self.cap),
        };
        ((f64::from(self.limit.calls) * USED * share) as u32).max(1)
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
