//! How a token stands: good, doubtful or dead. The one function that says so, for everybody: socket,
//! files, status, `why`, metrics, tiers, retry gaps, call deadlines and the order of work.
//!
//! | standing | because | served | urgency |
//! |---|---|---|---|
//! | good | it lives, and its access key is accepted | yes | by the life left |
//! | doubtful | its access key is refused since, or no longer configured | yes, and said so | as if dead |
//! | dead | it expired, or was revoked | never | dead |
//! | none | there is none, or none on purpose | – | – |
//!
//! Instants of one clock alone are compared: a token's own times are the service's, so the difference
//! between the clocks is taken out first; a revocation is no comparison at all, but a fact of the row.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Life;
use crate::model::{DoubtedKeys, Record, RenewerView, State, Tier, TokenMeta};

/// What is known of a resource that decides how its tokens stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grounds {
    /// How far its clock is ahead of ours.
    pub skew: SignedDuration,
    /// Access keys whose tokens may be dead.
    pub doubted: DoubtedKeys,
}

impl Grounds {
    /// As the resource's renewer published it.
    pub fn of(renewer: &RenewerView) -> Self {
        Self {
            skew: SignedDuration::from_millis(renewer.skew_ms.unwrap_or(0)),
            doubted: renewer.doubted.clone(),
        }
    }
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none, or none on purpose.
    None,
    Good {
        /// So much of its life is left.
        left: Duration,
    },
    /// The access key that minted it is refused, or is no longer configured: where the key was
    /// regenerated, the token is dead; where it was only switched off or mistaken, it is good.
    Doubtful {
        /// Since when, by our clock.
        since: Timestamp,
        /// What would be left of its life if it is good.
        left: Duration,
    },
    /// ACS does not accept it any more.
    Dead {
        /// Since when, by our clock.
        since: Timestamp,
        how: TokenEnd,
    },
}

/// How a token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEnd {
    /// Its life is over.
    Expired,
    /// It was revoked, and its successor is still to come.
    Revoked,
    /// It was dropped with a lost seal key, or is of unknown standing since the store was restored. It may be alive, and
    /// consumers may hold it; the successor is still to come.
    Dropped,
}

impl Standing {
    /// Whether a consumer may be handed it: good, or doubtful.
    pub fn may_be_served(self) -> bool {
        matches!(self, Self::Good { .. } | Self::Doubtful { .. })
    }

    /// Whether it is known to be dead.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Dead { .. })
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Good { .. } => "good",
            Self::Doubtful { .. } => "doubtful",
            Self::Dead { .. } => "dead",
        }
    }
}

/// How the token of a row stands at an instant.
pub fn standing(record: &Record, grounds: &Grounds, now: Timestamp) -> Standing {
    match &record.token {
        Some(token) if record.state.wants_token() && record.revoked => {
            let dropped = (token.issued_at, TokenEnd::Dropped);
            let revoked = record.revoked_at.filter(|_| record.known_dead);
            let revoked = revoked.map(|at| (at, TokenEnd::Revoked));
            let (since, how) = revoked.unwrap_or(dropped);
            Standing::Dead {
                since: since.min(now),
                how,
            }
        }
        Some(token) if record.state.wants_token() => token_standing(token, grounds, now),
        _ => Standing::None,
    }
}

/// How a token that was not revoked stands at an instant.
pub fn token_standing(token: &TokenMeta, grounds: &Grounds, now: Timestamp) -> Standing {
    let life = Life::of(token, grounds.skew);
    if now >= life.to {
        return Standing::Dead {
            since: life.to,
            how: TokenEnd::Expired,
        };
    }
    let left = life.to.duration_since(now).try_into().unwrap_or_default();
    match grounds.doubted.since(&token.minted_by) {
        Some(since) => Standing::Doubtful {
            since: since.min(now),
            left,
        },
        None => Standing::Good { left },
    }
}

/// How pressing the next token of a row is; `None` where there was never one, or none on purpose.
pub fn tier(record: &Record, grounds: &Grounds, now: Timestamp) -> Option<Tier> {
    match standing(record, grounds, now) {
        Standing::None => None,
        Standing::Dead { .. } | Standing::Doubtful { .. } => Some(Tier::Emergency),
        Standing::Good { .. } => {
            let token = record.token.as_ref()?;
            Some(Life::of(token, grounds.skew).tier(now))
        }
    }
}

/// The state as people see it at an instant: one whose token is urgent to renew, doubtful or dead is late.
pub fn state(record: &Record, grounds: &Grounds, now: Timestamp) -> State {
    match (record.state, tier(record, grounds, now)) {
        (State::Active, Some(Tier::Urgent | Tier::Emergency)) => State::Late,
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Remaining,
            life::{
                ahead,
                tests::{noon, record, token},
            },
        },
        *,
    };

    const HOUR: Duration = Duration::from_hours(1);

    fn row() -> Record {
        record(Some(token(noon(), HOUR)), None)
    }

    fn doubt() -> Grounds {
        Grounds {
            doubted: [("aabbcc".to_owned(), ahead(noon(), HOUR / 4))].into(),
            ..Grounds::default()
        }
    }

    #[test]
    fn a_token_is_good_until_it_expires_by_its_own_clock() {
        let trust = Grounds::default();
        assert_eq!(
            standing(&row(), &trust, noon()),
            Standing::Good { left: HOUR }
        );
        let end = ahead(noon(), HOUR);
        assert_eq!(
            standing(&row(), &trust, end),
            Standing::Dead {
                since: end,
                how: TokenEnd::Expired
            }
        );
        // The service's clock is a quarter ahead: by ours it ends a quarter earlier.
        let fast = Grounds {
            skew: SignedDuration::from_mins(15),
            ..Grounds::default()
        };
        let ends = ahead(noon(), HOUR * 3 / 4);
        assert!(standing(&row(), &fast, ends).is_dead());
        let slow = Grounds {
            skew: SignedDuration::from_hours(-5),
            ..Grounds::default()
        };
        assert!(standing(&row(), &slow, end).may_be_served());
    }

    #[test]
    fn what_a_doubted_key_minted_is_doubtful_and_as_urgent_as_dead() {
        let now = ahead(noon(), HOUR / 2);
        let found = standing(&row(), &doubt(), now);
        assert_eq!(
            found,
            Standing::Doubtful {
                since: ahead(noon(), HOUR / 4),
                left: HOUR / 2
            }
        );
        assert!(found.may_be_served() && !found.is_dead());
        assert_eq!(tier(&row(), &doubt(), now), Some(Tier::Emergency));
        assert_eq!(state(&row(), &doubt(), now), State::Late);
        assert_eq!(
            Remaining::of(&row(), &doubt(), now),
            Remaining::Dead(HOUR / 4)
        );
        let other = Grounds {
            doubted: [("another".to_owned(), noon())].into(),
            ..Grounds::default()
        };
        assert_eq!(
            standing(&row(), &other, now),
            Standing::Good { left: HOUR / 2 }
        );
        assert_eq!(tier(&row(), &other, now), Some(Tier::Normal));
    }

    #[test]
    fn a_revoked_token_is_dead_whatever_the_clocks_say() {
        let revoked = Record {
            revoked: true,
            known_dead: true,
            revoked_at: Some(noon()),
            ..row()
        };
        let now = ahead(noon(), Duration::from_secs(3));
        for hours in [-5, 0, 5] {
            let grounds = Grounds {
                skew: SignedDuration::from_hours(hours),
                ..Grounds::default()
            };
            assert_eq!(
                standing(&revoked, &grounds, now),
                Standing::Dead {
                    since: noon(),
                    how: TokenEnd::Revoked
                }
            );
            assert_eq!(tier(&revoked, &grounds, now), Some(Tier::Emergency));
        }
    }

    #[test]
    fn where_none_is_wanted_there_is_none() {
        for state in [State::Held, State::Gone, State::Deleted] {
            let row = Record { state, ..row() };
            assert_eq!(standing(&row, &doubt(), noon()), Standing::None);
            assert_eq!(tier(&row, &doubt(), noon()), None);
        }
    }
}
