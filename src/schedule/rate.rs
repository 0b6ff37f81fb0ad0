//! The most that one sink may be asked: so many attempts in any window of so long.

use std::collections::VecDeque;

use super::Steady;
use crate::config::Limit;

/// Keeps a sink's own limit, exactly: it remembers when the attempts of one window began. Without a
/// limit everything may start.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    limit: Option<Limit>,
    begun: VecDeque<Steady>,
}

impl Rate {
    /// Nothing has begun yet.
    pub fn new(limit: Option<Limit>) -> Self {
        Self {
            limit,
            begun: VecDeque::new(),
        }
    }

    /// When another attempt may begin; `None`: now.
    pub fn opens_at(&self, now: Steady) -> Option<Steady> {
        let limit = self.limit?;
        let most = usize::try_from(limit.calls).unwrap_or(usize::MAX);
        let eldest = self.begun.iter().rev().nth(most.checked_sub(1)?)?;
        let opens = *eldest + limit.window;
        (now < opens).then_some(opens)
    }

    /// Notes that an attempt begins.
    pub fn began(&mut self, now: Steady) {
        let Some(limit) = self.limit else {
            return;
        };
        self.begun.push_back(now);
        while self.begun.len() as u64 > u64::from(limit.calls) {
            self.begun.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limit(calls: u32, secs: u64) -> Option<Limit> {
        Some(Limit {
            calls,
            window: Duration::from_secs(secs),
        })
    }

    #[test]
    fn without_a_limit_everything_may_start() {
        let mut rate = Rate::new(None);
        (0..1000).for_each(|_| rate.began(Duration::ZERO));
        assert_eq!(rate.opens_at(Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_and_none_waits_for_nothing(
            calls in 1_u32..20, window in 1_u64..10, pauses in prop::collection::vec(0_u64..1500, 1..200)
        ) {
            let mut rate = Rate::new(limit(calls, window));
            let (mut now, mut begun) = (Duration::ZERO, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                if let Some(opens) = rate.opens_at(now) {
                    prop_assert!(opens > now && opens <= now + Duration::from_secs(window));
                    now = opens;
                    prop_assert_eq!(rate.opens_at(now), None);
                }
                rate.began(now);
                begun.push(now);
            }
            for (at, first) in begun.iter().enumerate() {
                let within = begun[at..].iter().filter(|at| **at < *first + Duration::from_secs(window));
                prop_assert!(within.count() <= calls as usize);
            }
        }
    }
}
