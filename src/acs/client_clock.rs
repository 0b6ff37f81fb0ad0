//! The service's clock: how far it is ahead of ours, by the median of the last authenticated answers, and what a
//! refusal blames, the clock or the key; both deserve one more try at once. Pure.
//!
//! Samples are kept against the clock that never steps, so that a step of ours does not spoil them.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::ErrorCause;

/// The difference is the median of so many answers.
const KEPT: usize = 9;
/// An HTTP date is cut to whole seconds; its middle is nearer to the truth.
const HALF_A_SECOND: SignedDuration = SignedDuration::from_millis(500);
/// No clock is believed to be further away than this: neither that of whoever answers, nor ours. A
/// certificate would not be valid much longer by either.
const FURTHEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Whether a date this far from ours can be that of a clock.
pub(super) fn is_believed(ahead: SignedDuration) -> bool {
    ahead.abs() <= FURTHEST
}

/// The last dates, each as what the resource's clock showed when our steady clock showed zero.
#[derive(Debug, Default)]
pub(super) struct Skew {
    dates: VecDeque<SignedDuration>,
    /// Of those: it is asked for more often than it changes.
    median: Option<SignedDuration>,
}

impl Skew {
    /// Notes the `Date` of an authenticated answer that came when the steady clock showed `steady`.
    pub(super) fn note(&mut self, date: Timestamp, steady: Duration) {
        if self.dates.len() == KEPT {
            self.dates.pop_front();
        }
        self.dates
            .push_back(date.as_duration() + HALF_A_SECOND - signed(steady));
        let mut sorted = [SignedDuration::MAX; KEPT];
        for (place, date) in sorted.iter_mut().zip(&self.dates) {
            *place = *date;
        }
        sorted.sort_unstable();
        self.median = sorted.get(self.dates.len() / 2).copied();
    }

    /// What to add to our time to get the resource's; `None` before the first answer.
    pub(super) fn at(&self, now: Timestamp, steady: Duration) -> Option<SignedDuration> {
        let ahead = self.median? + signed(steady) - now.as_duration();
        Some(ahead.clamp(-FURTHEST, FURTHEST))
    }
}

fn signed(steady: Duration) -> SignedDuration {
    SignedDuration::try_from(steady).unwrap_or(SignedDuration::MAX)
}

/// Clocks this near are not the reason for a refusal.
const SKEW_RULED_OUT: SignedDuration = SignedDuration::from_secs(60);

/// What is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Diagnosis {
    /// Neither clock nor key, or it cannot be known.
    Neither,
    /// The clock: signed with this much added to our time, the request may pass.
    Clock(SignedDuration),
    Key,
}

/// Looks into a failure whose answer bore `date`, at `now` by our clock, with `ahead` added to it for
/// signing. Without a date skew is never ruled out, so no key is blamed.
pub(super) fn diagnose(
    cause: &ErrorCause,
    date: Option<Timestamp>,
    now: Timestamp,
    ahead: SignedDuration,
) -> Diagnosis {
    let Some(date) = date.filter(|_| is_unproved_401(cause)) else {
        return Diagnosis::Neither;
    };
    let correction = date.duration_since(now);
    if !is_believed(correction) {
        Diagnosis::Neither
    } else if (correction - ahead).abs() > SKEW_RULED_OUT {
        Diagnosis::Clock(correction)
    } else if matches!(cause, ErrorCause::Rejected(rejection) if rejection.code == "Denied") {
        Diagnosis::Key
    } else {
        Diagnosis::Neither
    }
}

/// A 401 that does not itself prove that the signature was fine.
fn is_unproved_401(cause: &ErrorCause) -> bool {
    cause.status() == Some(401)
        && !matches!(cause, ErrorCause::Rejected(rejection) if rejection.proves_key())
}

#[cfg(test)]
mod skew_tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn ahead(skew: &Skew, now: i64, steady: u64) -> i64 {
        skew.at(at(now), Duration::from_secs(steady))
            .unwrap()
            .as_secs()
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        assert_eq!(Skew::default().at(at(0), Duration::ZERO), None);
    }

    #[test]
    fn one_odd_answer_does_not_count() {
        let mut skew = Skew::default();
        for second in 0..8 {
            skew.note(
                at(90 + i64::try_from(second).unwrap()),
                Duration::from_secs(second),
            );
        }
        skew.note(at(100_000), Duration::from_secs(8));
        assert_eq!(ahead(&skew, 8, 8), 90);
    }

    #[test]
    fn no_clock_is_believed_to_be_further_away_than_a_week() {
        let week = 7 * 24 * 3600;
        for (date, ahead) in [(week + 1, week), (-week - 1, -week), (week - 1, week - 1)] {
            let mut skew = Skew::default();
            skew.note(at(date), Duration::ZERO);
            let seen = skew.at(at(0), Duration::ZERO).unwrap();
            assert_eq!(
                (seen - HALF_A_SECOND).as_secs(),
                ahead - i64::from(date > week)
            );
        }
        assert!(is_believed(FURTHEST) && !is_believed(-FURTHEST - HALF_A_SECOND));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let mut skew = Skew::default();
        for second in 0..9 {
            skew.note(at(500), Duration::from_secs(second));
        }
        for _ in 0..9 {
            skew.note(at(20), Duration::from_secs(20));
        }
        assert_eq!(ahead(&skew, 20, 20), 0);
    }

    #[test]
    fn a_step_of_our_clock_moves_the_skew_against_it() {
        let mut skew = Skew::default();
        skew.note(at(3600), Duration::ZERO);
        assert_eq!(ahead(&skew, 0, 0), 3600);
        assert_eq!(ahead(&skew, 3600, 0), 0, "our clock was put right");
    }
}

#[cfg(test)]
mod again_tests {
    use super::{super::Rejection, *};

    fn rejection(status: u16, code: &str) -> ErrorCause {
        ErrorCause::Rejected(Box::new(Rejection {
            status,
            code: code.to_owned(),
            message: String::new(),
            target: None,
            retry_after: None,
            about_identity: true,
        }))
    }

    fn blame(cause: &ErrorCause, date: Option<i64>, ahead: i64) -> Diagnosis {
        let second = |s| Timestamp::from_second(1_800_000_000 + s).unwrap();
        let ahead = SignedDuration::from_secs(ahead);
        diagnose(cause, date.map(second), second(0), ahead)
    }

    fn clock(ahead: i64) -> Diagnosis {
        Diagnosis::Clock(SignedDuration::from_secs(ahead))
    }

    #[test]
    fn a_wrong_clock_comes_before_a_wrong_key() {
        let denied = rejection(401, "Denied");
        assert_eq!(blame(&denied, Some(61), 0), clock(61));
        assert_eq!(blame(&denied, Some(-90_000), 0), clock(-90_000));
        assert_eq!(blame(&denied, Some(0), 61), clock(0), "our skew was stale");
        assert_eq!(blame(&denied, Some(60), 0), Diagnosis::Key);
        assert_eq!(blame(&denied, Some(300), 299), Diagnosis::Key);
    }

    #[test]
    fn any_unexplained_401_may_be_the_clock_but_only_denied_is_the_key() {
        let other = rejection(401, "RequestTimeTooSkewed");
        assert_eq!(blame(&other, Some(400), 0), clock(400));
        assert_eq!(blame(&other, Some(0), 0), Diagnosis::Neither);
    }

    #[test]
    fn nothing_else_is_blamed() {
        assert_eq!(
            blame(&rejection(401, "Denied"), None, 0),
            Diagnosis::Neither
        );
        for (status, code) in [
            (401, "IdentityNotOwned"),
            (401, "InvalidAccessToken"),
            (403, "Denied"),
            (400, "ValidationError"),
            (429, "TooManyRequests"),
            (500, "InternalServerError"),
        ] {
            let cause = rejection(status, code);
            assert_eq!(blame(&cause, Some(400), 0), Diagnosis::Neither, "{code}");
        }
    }
}
