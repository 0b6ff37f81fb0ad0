//! How campaigns share an operation with renewals.
//!
//! Renewals that are late go before everything (the store orders what is due so). A campaign whose
//! items each need a new token begins only as many as tokens can follow, and while renewals wait it
//! leaves them the pace but for a tenth. An urgent campaign begins all it can.

use crate::config::Limit;

/// What is always left to a campaign while renewals wait.
const LEAST: f64 = 0.1;

/// Whether so many renewals wait that a campaign is to make room: more than are just passing
/// through, which are as many as fly at once.
pub fn is_yielding(waiting: usize, max_in_flight: usize) -> bool {
    waiting > 2 * max_in_flight
}

/// The share of `limit` that a campaign may use so that its tokens need a tenth of `issue`.
pub fn share_beside(issue: Limit, limit: Limit) -> f64 {
    let rate = |limit: Limit| f64::from(limit.calls) / limit.window.as_secs_f64().max(1e-3);
    (LEAST * rate(issue) / rate(limit).max(1e-9)).clamp(0.0, 1.0)
}

/// How many items of a campaign may wait for their tokens at once: half a window of them, a tenth
/// while it yields. So a gap is never longer than the window, and when tokens cannot be issued no
/// more identities lose theirs.
pub fn awaiting(issue: Limit, yielding: bool) -> usize {
    let calls = issue.calls as usize;
    (if yielding { calls / 10 } else { calls / 2 }).max(8)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(calls: u32) -> Limit {
        Limit {
            calls,
            window: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_campaign_gets_a_tenth_while_renewals_wait() {
        assert!(!is_yielding(64, 32) && is_yielding(65, 32));
        // Of 1,000 issues in 30 s a tenth are 100, of 500 revocations a fifth.
        assert!((share_beside(limit(1000), limit(500)) - 0.2).abs() < 1e-9);
        assert!((share_beside(limit(1000), limit(50)) - 1.0).abs() < 1e-9);
        assert_eq!(
            (awaiting(limit(1000), true), awaiting(limit(1000), false)),
            (100, 500)
        );
        assert_eq!(awaiting(limit(10), true), 8);
    }
}
