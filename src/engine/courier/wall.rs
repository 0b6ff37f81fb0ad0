//! A wall clock that was set back must not make anybody wait for a time that was near before.

use jiff::Timestamp;

use super::Courier;
use crate::schedule::Steady;

/// So far, in seconds, the two clocks may drift apart between two decisions.
const DRIFT: f64 = 2.0;

/// Both clocks at the last decision.
pub(super) type Seen = (Timestamp, Steady);

impl Courier {
    /// Makes what is pending due when the wall clock went back since the last decision, and at the
    /// first one: who knows what the clock did while nobody looked.
    pub(super) async fn heed_the_clock(&mut self) {
        let seen = (self.clock.now(), self.clock.steady());
        if self.seen.is_none_or(|last| went_back(last, seen)) {
            self.empty_queue();
            if let Err(error) = self.store.hasten(&self.name, seen.0).await {
                self.outbox.failed(&error, seen.1);
                return;
            }
        }
        self.seen = Some(seen);
    }
}

fn went_back((was, then): Seen, (is, now): Seen) -> bool {
    let passed = now.saturating_sub(then).as_secs_f64();
    is.duration_since(was).as_secs_f64() < passed - DRIFT
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_step_back_counts() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let minute = Duration::from_mins(1);
        let last = (noon, minute);
        for (wall, wanted) in [
            (60, false),
            (59, false),
            (3600, false),
            (0, true),
            (-600, true),
        ] {
            let is = Timestamp::from_second(noon.as_second() + wall).unwrap();
            assert_eq!(went_back(last, (is, minute * 2)), wanted, "{wall}");
        }
    }
}
