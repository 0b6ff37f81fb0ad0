//! Why there is no bearer, and when it is worth another try.

use std::time::Duration;

use crate::model::BearerCause;

/// Between two tries, whatever came of the first.
pub(super) const BETWEEN: Duration = Duration::from_secs(30);
/// The same of a metadata service that restarts.
const SOONEST: Duration = Duration::from_secs(1);
/// What is refused stays refused until somebody changes something.
const SLOWLY: Duration = Duration::from_mins(10);
/// Nobody is believed who asks us to wait longer.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// A token request that brought no bearer. Its text is one sentence, the reason first; it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{told}")]
pub struct BearerError {
    pub cause: BearerCause,
    /// The reason, in a sentence.
    pub told: String,
    pub(super) again: Again,
}

/// When the next try is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// As soon as a local service may have restarted.
    Soon,
    Later,
    /// When it allows that.
    After(Duration),
    Slowly,
}

impl Again {
    /// The wait after so many failures in a row, this one included.
    pub(super) fn wait(self, failures: u32) -> Duration {
        match self {
            Self::Soon => {
                let times = failures.saturating_sub(1).min(20);
                SOONEST.saturating_mul(1 << times).min(BETWEEN)
            }
            Self::Later => BETWEEN,
            Self::After(told) => told.clamp(SOONEST, LONGEST_WAIT),
            Self::Slowly => SLOWLY,
        }
    }
}

impl BearerError {
    pub(super) fn unanswered(told: impl Into<String>, again: Again) -> Self {
        Self {
            cause: BearerCause::Unanswered,
            told: told.into(),
            again,
        }
    }

    /// Somebody has to change something.
    pub(super) fn refused(cause: BearerCause, told: impl Into<String>) -> Self {
        Self {
            cause,
            told: told.into(),
            again: Again::Slowly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_only_where_a_service_restarts() {
        let soon = |failures| Again::Soon.wait(failures);
        assert_eq!(
            [1, 2, 3, 6, 99].map(soon),
            [S, S * 2, S * 4, S * 30, S * 30]
        );
        // It is back after 70 s at most: a try comes 1, 3, 7, 15, 31, 61 and 91 s after the first.
        let seventh: Duration = (1..=7).map(soon).sum();
        assert!(seventh <= S * 100);
        assert_eq!([1, 9].map(|n| Again::Later.wait(n)), [S * 30; 2]);
        assert_eq!(Again::After(S * 60).wait(1), S * 60);
        assert_eq!(Again::After(S * 90_000).wait(1), S * 3600);
        assert_eq!(Again::After(Duration::ZERO).wait(1), S);
        assert_eq!(Again::Slowly.wait(5), S * 600);
    }
}
