//! Items of bulk operations that failed for good while others failed as well: when the rate of success
//! is back they are tried again, and where that cannot be seen after some time.

use std::{collections::BTreeMap, time::Duration};

use super::Steady;
use crate::model::Num;

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
    /// An item failed for good, while this share of the others did as well.
    pub fn failed(&mut self, item: (i64, Num), rate: f64, now: Steady) {
        let known = self.items.contains_key(&item);
        if rate < MANY || !known && self.items.len() >= MOST {
            return;
        }
        let chance = self.items.entry(item).or_default();
        if chance.used < CHANCES {
            chance.at = Some(now + FIRST * 2_u32.pow(chance.used));
            chance.used += 1;
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

    /// They are.
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
mod tests {
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
        for wait in [FIRST, FIRST * 2, FIRST * 4] {
            chance.failed((1, 7), 0.6, now);
            assert_eq!(chance.wakes_at(), Some(now + wait));
            now += wait;
            assert_eq!(chance.due(now), [(1, 7)]);
            chance.taken(&[(1, 7)]);
        }
        chance.failed((1, 7), 0.6, now);
        assert_eq!(chance.wakes_at(), None, "then it is a person's turn");
    }
}
