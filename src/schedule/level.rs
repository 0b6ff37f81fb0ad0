//! How many renewals each minute ahead holds, and which minute the next one goes to.
//!
//! Tokens that were issued in one burst would come due in one burst again, at every renewal. So a due time is
//! drawn into the least loaded minute of its window (`spread`, ahead of `renew_at`). Where even that minute holds
//! clearly more than the mean, the window begins at half of `renew_at`: some are renewed earlier than they had to be,
//! until the load is level.
//!
//! The counts live in memory. They are read from the database after a start and each hour, and kept up by every
//! draw; what is renewed before its time leaves its old minute counted until the next reading.

use std::{collections::VecDeque, ops::Range, time::Duration};

use jiff::Timestamp;
use rand::{Rng, RngExt};

const MINUTE: Duration = Duration::from_mins(1);

/// A minute that holds more than this much of the mean is too full. With twice a burst would spread once and stay so:
/// renewals that fill six hours of twelve hold just twice the mean in each minute.
const FULL: f64 = 1.25;

/// When a token may be renewed, by our clock: all three at or after its issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalWindow {
    /// Half of `renew_at`: no earlier, whatever the load.
    pub half: Timestamp,
    /// Where the usual window begins.
    pub from: Timestamp,
    /// Where it ends: `renew_at`.
    pub to: Timestamp,
}

/// The renewals of one resource, counted by the minute.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// The minute since 1970 that the first count is of.
    first: i64,
    counts: VecDeque<u32>,
}

impl Load {
    /// The counts as they were read: minutes since 1970, ascending, with how many rows are due in each.
    pub fn counted(minutes: impl IntoIterator<Item = (i64, u32)>) -> Self {
        let mut load = Self::default();
        for (minute, count) in minutes {
            load.add(minute, count);
        }
        load
    }

    /// Draws a due time, and counts it. A window that holds no whole minute is too short for counts: the instant is
    /// anywhere in it.
    pub fn draw(&mut self, window: RenewalWindow, now: Timestamp, rng: &mut impl Rng) -> Timestamp {
        self.begin(minute_of(now));
        let usual = whole_minutes(window.from, window.to);
        if usual.is_empty() {
            return between(window.from, window.to, rng.random());
        }
        let minute = self.choose(usual, window, now, rng);
        self.add(minute, 1);
        let begins = Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(window.from);
        between(begins, begins + MINUTE, rng.random())
    }

    fn choose(
        &self,
        usual: Range<i64>,
        window: RenewalWindow,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> i64 {
        let ahead = minute_of(now)..usual.end;
        let mean = self.held(ahead.clone()) as f64 / (ahead.end - ahead.start).max(1) as f64;
        let least = self.least(usual, rng);
        match f64::from(self.at(least)) <= FULL * mean {
            true => least,
            false => self.least(whole_minutes(window.half, window.to), rng),
        }
    }

    /// The minute with the least renewals; any of several. At least one must be given.
    fn least(&self, minutes: Range<i64>, rng: &mut impl Rng) -> i64 {
        let least = minutes.clone().map(|minute| self.at(minute)).min();
        let like_it = || {
            minutes
                .clone()
                .filter(|minute| Some(self.at(*minute)) == least)
        };
        let chosen = rng.random_range(0..like_it().count().max(1));
        like_it().nth(chosen).unwrap_or(minutes.start)
    }

    /// Puts so many renewals where as many draws would, one after the other, but for chance: minutes, and how many
    /// each of them gets.
    pub fn pour(&mut self, window: RenewalWindow, count: u64, now: Timestamp) -> Vec<(i64, u64)> {
        self.begin(minute_of(now));
        let usual = whole_minutes(window.from, window.to);
        if usual.is_empty() {
            return vec![(minute_of(window.from), count)];
        }
        let ahead = minute_of(now)..usual.end;
        let length = (ahead.end - ahead.start).max(1) as f64;
        let mean = (self.held(ahead) + count) as f64 / length;
        let mut poured = Vec::new();
        let left = self.fill(usual, (FULL * mean).ceil() as u32, count, &mut poured);
        let wide = whole_minutes(window.half, window.to);
        self.fill(wide, u32::MAX, left, &mut poured);
        poured
    }

    /// Fills the least loaded of these minutes first, none above `most`; how many found no room.
    fn fill(
        &mut self,
        minutes: Range<i64>,
        most: u32,
        count: u64,
        poured: &mut Vec<(i64, u64)>,
    ) -> u64 {
        let mut by_load: Vec<(u32, i64)> =
            minutes.map(|minute| (self.at(minute), minute)).collect();
        by_load.sort_unstable();
        let loads: Vec<u64> = by_load.iter().map(|(held, _)| u64::from(*held)).collect();
        let (level, over) = water_level(&loads, count);
        let mut left = count;
        for (number, (held, minute)) in by_load.into_iter().enumerate() {
            let level = (level + u64::from((number as u64) < over)).min(u64::from(most));
            let more = level.saturating_sub(u64::from(held)).min(left);
            if more > 0 {
                left -= more;
                self.add(minute, u32::try_from(more).unwrap_or(u32::MAX));
                poured.push((minute, more));
            }
        }
        left
    }

    fn at(&self, minute: i64) -> u32 {
        let index = usize::try_from(minute - self.first).ok();
        index
            .and_then(|index| self.counts.get(index))
            .copied()
            .unwrap_or(0)
    }

    fn held(&self, minutes: Range<i64>) -> u64 {
        let index = |minute: i64| {
            usize::try_from(minute - self.first)
                .unwrap_or(0)
                .min(self.counts.len())
        };
        let (from, to) = (index(minutes.start), index(minutes.end));
        self.counts
            .range(from..to.max(from))
            .map(|count| u64::from(*count))
            .sum()
    }

    fn add(&mut self, minute: i64, count: u32) {
        if self.counts.is_empty() {
            self.first = minute;
        }
        let Ok(index) = usize::try_from(minute - self.first) else {
            return;
        };
        if index > MOST {
            return;
        }
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        if let Some(held) = self.counts.get_mut(index) {
            *held = held.saturating_add(count);
        }
    }

    /// Begins with this minute: drops those that are over, and makes room for those before the first that holds any.
    fn begin(&mut self, now: i64) {
        while self.first < now && self.counts.pop_front().is_some() {
            self.first += 1;
        }
        if self.counts.is_empty() || self.first.saturating_sub(now) > MOST as i64 {
            (self.first, self.counts) = (now, VecDeque::from([0]));
        }
        while self.first > now {
            self.first -= 1;
            self.counts.push_front(0);
        }
    }
}

/// To which level so much more raises loads that ascend, and how many of the first get one more than that.
fn water_level(loads: &[u64], count: u64) -> (u64, u64) {
    let mut all = count;
    for (number, load) in loads.iter().enumerate() {
        all += load;
        let among = number as u64 + 1;
        let level = all / among;
        if loads.get(number + 1).is_none_or(|next| *next >= level) {
            return (level, all % among);
        }
    }
    (0, 0)
}

/// No token lives longer than a day; what is due later is none of the counts' business.
const MOST: usize = 2 * 24 * 60;

pub(super) fn minute_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

/// The minutes that lie in a window as a whole, of a very long one the first of them.
fn whole_minutes(from: Timestamp, to: Timestamp) -> Range<i64> {
    let first = minute_of(from)
        + i64::from(from.as_second().rem_euclid(60) > 0 || from.subsec_nanosecond() > 0);
    first..minute_of(to).clamp(first, first + MOST as i64)
}

fn between(from: Timestamp, to: Timestamp, share: f64) -> Timestamp {
    let length: Duration = to.duration_since(from).try_into().unwrap_or_default();
    from.checked_add(length.mul_f64(share)).unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn window(from: Timestamp, life: Duration) -> RenewalWindow {
        RenewalWindow {
            half: from + life.mul_f64(0.25),
            from: from + life.mul_f64(0.48),
            to: from + life.mul_f64(0.5),
        }
    }

    /// The fullest minute of each twelve hours against their mean, over so many of them, where each token is renewed
    /// just when it is due.
    fn peaks(issued: Vec<Timestamp>, halves: i64) -> Vec<f64> {
        let (mut load, mut rng) = (Load::default(), ChaCha8Rng::seed_from_u64(1));
        let mut due: std::collections::BTreeSet<(Timestamp, usize)> = issued
            .into_iter()
            .enumerate()
            .map(|(n, at)| (at, n))
            .collect();
        let mut minutes = std::collections::BTreeMap::<i64, u32>::new();
        while let Some((at, number)) = due.pop_first() {
            if at >= noon() + 12 * Duration::from_hours(1) * u32::try_from(halves).unwrap() {
                break;
            }
            *minutes.entry(minute_of(at)).or_default() += 1;
            due.insert((load.draw(window(at, DAY), at, &mut rng), number));
        }
        let start = minute_of(noon());
        let half = |number: i64| start + number * 720..start + (number + 1) * 720;
        let peak = |number| {
            let held: Vec<u32> = minutes
                .range(half(number))
                .map(|(_, count)| *count)
                .collect();
            f64::from(*held.iter().max().unwrap()) / (f64::from(held.iter().sum::<u32>()) / 720.0)
        };
        (0..halves).map(peak).collect()
    }

    #[test]
    fn a_burst_is_level_within_two_lives() {
        let burst = vec![noon(); 36_000];
        let peaks = peaks(burst, 8);
        assert!(peaks[0] > 100.0, "{peaks:?}");
        assert!(peaks[4..].iter().all(|peak| *peak <= 1.5), "{peaks:?}");
    }

    /// Half of the day is all that the first wave can be spread over: twice the mean, and no burst.
    #[test]
    fn what_an_empty_fleet_begins_with_is_no_burst_again() {
        let peaks = peaks(vec![noon(); 36_000], 4);
        assert!(peaks[0] > 100.0, "{peaks:?}");
        assert!(peaks[1..].iter().all(|peak| *peak <= 2.5), "{peaks:?}");
    }

    #[test]
    fn a_backlog_worked_off_in_five_hours_is_level_within_two_lives() {
        let issued: Vec<Timestamp> = (0..36_000u32)
            .map(|n| noon() + Duration::from_secs(u64::from(n) / 2))
            .collect();
        // By itself it is a burst; the renewals that follow within the half day fill that up.
        let fullest = issued.chunk_by(|one, next| minute_of(*one) == minute_of(*next));
        let fullest = fullest.map(<[Timestamp]>::len).max().unwrap();
        assert!(fullest as f64 / (issued.len() as f64 / 720.0) > 2.0);
        let peaks = peaks(issued, 8);
        assert!(peaks[4..].iter().all(|peak| *peak <= 1.5), "{peaks:?}");
    }

    #[test]
    fn a_level_load_is_renewed_no_earlier_than_its_spread() {
        let start = minute_of(noon());
        let mut load = Load::counted((start..start + 705).map(|minute| (minute, 15)));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for n in 0..10_000u32 {
            let at = noon() + Duration::from_secs(u64::from(n) * 4);
            let due = load.draw(window(at, DAY), at, &mut rng);
            assert!(
                due >= window(at, DAY).from && due <= window(at, DAY).to,
                "{n}"
            );
        }
    }

    #[test]
    fn what_is_poured_lies_as_what_is_drawn_one_by_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let start = minute_of(noon());
        let uneven =
            || Load::counted((start..start + 720).map(|minute| (minute, (minute % 40) as u32)));
        for count in [1, 10, 500, 40_000] {
            let (mut drawn, mut poured) = (uneven(), uneven());
            for _ in 0..count {
                drawn.draw(window(noon(), DAY), noon(), &mut rng);
            }
            let minutes = poured.pour(window(noon(), DAY), count, noon());
            assert_eq!(minutes.iter().map(|(_, count)| count).sum::<u64>(), count);
            let apart: u64 = (start..start + 720)
                .map(|minute| u64::from(drawn.at(minute).abs_diff(poured.at(minute))))
                .sum();
            assert!(apart <= count / 10 + 60, "{count}: {apart} lie elsewhere");
        }
    }

    #[test]
    fn a_short_life_is_spread_over_its_window() {
        let (mut load, mut rng) = (Load::default(), ChaCha8Rng::seed_from_u64(1));
        let window = window(noon(), Duration::from_secs(200));
        for _ in 0..1000 {
            let due = load.draw(window, noon(), &mut rng);
            assert!(due >= window.from && due <= window.to);
        }
    }

    #[test]
    fn a_window_of_centuries_is_gone_through_no_longer_than_a_day_or_two() {
        let (mut load, mut rng) = (Load::default(), ChaCha8Rng::seed_from_u64(1));
        let century = Duration::from_hours(24 * 365 * 7000);
        for _ in 0..100 {
            let due = load.draw(window(noon(), century), noon(), &mut rng);
            assert!(due > noon());
        }
        assert!(load.counts.len() <= MOST + 1);
    }

    #[test]
    fn what_is_counted_far_ahead_or_behind_takes_no_room() {
        let load = Load::counted([(0, 1), (i64::MAX, 7), (-5, 3)]);
        assert_eq!(load.counts.len(), 1);
    }
}
