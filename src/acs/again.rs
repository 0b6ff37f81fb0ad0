//! What a refusal blames, the clock or the key: both deserve one more try at once. Pure.

use jiff::{SignedDuration, Timestamp};

use super::{Cause, skew};

/// Clocks this near are not the reason for a refusal.
const SKEW_RULED_OUT: SignedDuration = SignedDuration::from_secs(60);

/// What is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Diagnosis {
    /// Neither clock nor key, or it cannot be known.
    Neither,
    /// The clock: signed with this much added to our time, the request may pass.
    Clock(SignedDuration),
    /// The key.
    Key,
}

/// Looks into a failure whose answer bore `date`, at `now` by our clock, with `ahead` added to it for
/// signing. Without a date skew is never ruled out, so no key is blamed.
pub(super) fn diagnose(
    cause: &Cause,
    date: Option<Timestamp>,
    now: Timestamp,
    ahead: SignedDuration,
) -> Diagnosis {
    let Some(date) = date.filter(|_| is_unproved_401(cause)) else {
        return Diagnosis::Neither;
    };
    let correction = date.duration_since(now);
    if !skew::is_believed(correction) {
        Diagnosis::Neither
    } else if (correction - ahead).abs() > SKEW_RULED_OUT {
        Diagnosis::Clock(correction)
    } else if matches!(cause, Cause::Rejected(rejection) if rejection.code == "Denied") {
        Diagnosis::Key
    } else {
        Diagnosis::Neither
    }
}

/// A 401 that does not itself prove that the signature was fine.
fn is_unproved_401(cause: &Cause) -> bool {
    cause.status() == Some(401)
        && !matches!(cause, Cause::Rejected(rejection) if rejection.proves_key())
}

#[cfg(test)]
mod tests {
    use super::{super::Rejection, *};

    fn rejection(status: u16, code: &str) -> Cause {
        Cause::Rejected(Box::new(Rejection {
            status,
            code: code.to_owned(),
            message: String::new(),
            target: None,
            retry_after: None,
            about_identity: true,
        }))
    }

    fn blame(cause: &Cause, date: Option<i64>, ahead: i64) -> Diagnosis {
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
