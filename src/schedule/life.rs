//! A token's life on our own clock: tiers, the renewal's due time, and what is left.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{Rng, RngExt};

use super::{Grounds, Standing, standing};
use crate::model::{Due, DueReason, Record, Spec, Tier, TokenMeta};

/// Six of the gaps between probes while something is dead.
const AS_IF_ALIVE: Duration = Duration::from_secs(30);
/// A renewal never follows its token faster than this, whatever the token says.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// A token issued further in the future than this was minted under another clock.
const FUTURE: SignedDuration = SignedDuration::from_mins(5);

/// From when to when a token lives, by our clock. A token's own times are the service's; the
/// difference between the two clocks is taken out once, here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When it was issued.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
}

/// What is left of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// So much.
    Alive(Duration),
    /// It ended so long ago.
    Dead(Duration),
    /// There was never a token.
    Never,
}

impl Life {
    /// The life of a token, where the service's clock is `skew` ahead of ours.
    pub fn of(token: &TokenMeta, skew: SignedDuration) -> Self {
        let ours = |at: Timestamp| at.checked_sub(skew).unwrap_or(at);
        Self {
            from: ours(token.issued_at),
            to: ours(token.expires_at),
        }
    }

    /// The whole of it, never negative.
    pub fn length(&self) -> Duration {
        between(self.from, self.to)
    }

    /// When it becomes urgent: a quarter is left.
    pub fn late_at(&self) -> Timestamp {
        back(self.to, self.length() / 4)
    }

    /// When the next token is due: at `renew_at` of the life, spread early only. The chance is
    /// drawn here, once per version; only the result is stored.
    pub fn renewal(&self, spec: &Spec, rng: &mut impl Rng) -> Due {
        let length = self.length();
        let share = (spec.renew_at - spec.spread * rng.random::<f64>()).clamp(0.0, 1.0);
        let wait = length.mul_f64(share).max(SHORTEST_WAIT);
        Due {
            at: ahead(self.from, wait),
            why: DueReason::Renewal,
        }
    }

    /// How pressing the renewal is.
    pub fn tier(&self, now: Timestamp) -> Tier {
        let (left, length) = (between(now, self.to), self.length());
        if left <= length / 10 {
            Tier::Emergency
        } else if left <= length / 4 {
            Tier::Urgent
        } else {
            Tier::Normal
        }
    }

    /// What is left at an instant.
    pub fn remaining(&self, now: Timestamp) -> Remaining {
        if now < self.to {
            Remaining::Alive(between(now, self.to))
        } else {
            Remaining::Dead(between(self.to, now))
        }
    }
}

impl Remaining {
    /// What is left to the token of a record: a doubtful one counts as dead since it is in doubt.
    pub fn of(record: &Record, grounds: &Grounds, now: Timestamp) -> Self {
        match standing(record, grounds, now) {
            Standing::None => Self::Never,
            Standing::Good { left } => Self::Alive(left),
            Standing::Doubtful { since, .. } | Standing::Dead { since, .. } => {
                Self::Dead(between(since, now))
            }
        }
    }

    /// The life left, where there is any.
    pub fn alive(self) -> Option<Duration> {
        match self {
            Self::Alive(left) => Some(left),
            Self::Dead(_) | Self::Never => None,
        }
    }

    /// What the gaps between probes follow: the life left. Something dead counts as having half a
    /// minute, so that recovery is noticed within 5 s while anything is without a token.
    pub fn pressing(self) -> Option<Duration> {
        match self {
            Self::Alive(left) => Some(left),
            Self::Dead(_) => Some(AS_IF_ALIVE),
            Self::Never => None,
        }
    }
}

/// Where a row waits for an instant that its token makes senseless (the clock was corrected
/// backwards since), the due time that it should have instead.
///
/// A token issued more than 5 min in the future is renewed at once; it happens once per version,
/// because the token that follows is not issued in the future.
pub fn misplaced(record: &Record, skew: SignedDuration, now: Timestamp) -> Option<Due> {
    let (token, due) = (record.token.as_ref()?, record.due?);
    if due.at <= now {
        return None;
    }
    let life = Life::of(token, skew);
    if life.from.duration_since(now) > FUTURE {
        return Some(Due {
            at: now,
            why: DueReason::FutureToken,
        });
    }
    let latest = ahead(
        life.from,
        life.length()
            .mul_f64(record.spec.renew_at)
            .max(SHORTEST_WAIT),
    );
    (due.why == DueReason::Renewal && due.at.duration_since(latest) > FUTURE).then(|| Due {
        at: latest.max(now),
        why: DueReason::Renewal,
    })
}

/// `at` plus `by`, kept within what a timestamp can hold.
pub(super) fn ahead(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn back(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::{Attempts, OnRemoval, Origin, Scope, State, Version};

    pub(in crate::schedule) fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    pub(in crate::schedule) fn noon() -> Timestamp {
        at("2026-11-22T12:00:00Z")
    }

    pub(in crate::schedule) fn spec() -> Spec {
        Spec {
            name: "bot".parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            id: None,
            scopes: vec![Scope::Chat],
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
            labels: std::collections::BTreeMap::default(),
            readers: Vec::new(),
            sinks: Vec::new(),
            on_removal: OnRemoval::Hold,
            origin: Origin::File,
        }
    }

    pub(in crate::schedule) fn token(from: Timestamp, life: Duration) -> TokenMeta {
        TokenMeta {
            issued_at: from,
            expires_at: ahead(from, life),
            minted_by: "aabbcc".to_owned(),
        }
    }

    pub(in crate::schedule) fn record(token: Option<TokenMeta>, due: Option<Due>) -> Record {
        Record {
            num: 1,
            spec: spec(),
            id: Some("8:acs:1".parse().unwrap()),
            state: State::Active,
            version: Version(1),
            late_at: token
                .as_ref()
                .map(|t| Life::of(t, SignedDuration::ZERO).late_at()),
            token,
            due,
            attempts: Attempts::default(),
            failures: 0,
            failing_since: None,
            revoked_at: None,
            revoked: false,
            doubted: false,
            late_notified: false,
        }
    }

    proptest! {
        #[test]
        fn renewals_are_spread_early_only(secs in 20u64..=86_400, seed: u64) {
            let life = Life { from: noon(), to: ahead(noon(), Duration::from_secs(secs)) };
            let due = life.renewal(&spec(), &mut ChaCha8Rng::seed_from_u64(seed));
            let share = between(noon(), due.at).as_secs_f64() / secs as f64;
            prop_assert!((0.48..=0.5).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_fleet_issued_in_one_second_is_renewed_evenly() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let life = Life {
            from: noon(),
            to: ahead(noon(), Duration::from_hours(1)),
        };
        let mut per_second = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let due = life.renewal(&spec(), &mut rng);
            *per_second.entry(due.at.as_second()).or_insert(0u32) += 1;
        }
        let window = 0.02 * 3600.0;
        let busiest = f64::from(*per_second.values().max().unwrap());
        assert!(busiest <= 2.0 * 10_000.0 / window, "{busiest}");
        assert!(per_second.len() as f64 >= 0.9 * window);
    }

    #[test]
    fn tiers_follow_the_life_left() {
        let life = Life {
            from: noon(),
            to: ahead(noon(), Duration::from_secs(1000)),
        };
        let tier = |secs| life.tier(ahead(noon(), Duration::from_secs(secs)));
        assert_eq!(tier(0), Tier::Normal);
        assert_eq!(tier(749), Tier::Normal);
        assert_eq!(tier(750), Tier::Urgent);
        assert_eq!(tier(899), Tier::Urgent);
        assert_eq!(tier(900), Tier::Emergency);
        assert_eq!(tier(5000), Tier::Emergency);
        assert_eq!(life.late_at(), ahead(noon(), Duration::from_secs(750)));
    }

    #[test]
    fn a_token_that_was_born_dead_does_not_loop() {
        let life = Life {
            from: noon(),
            to: at("2026-11-22T11:00:00Z"),
        };
        let due = life.renewal(&spec(), &mut ChaCha8Rng::seed_from_u64(1));
        assert!(due.at >= ahead(noon(), SHORTEST_WAIT));
    }

    #[test]
    fn a_token_from_the_future_is_renewed_once() {
        let tomorrow = ahead(noon(), Duration::from_hours(24));
        let later = Due {
            at: ahead(tomorrow, Duration::from_hours(12)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(tomorrow, Duration::from_hours(24))), Some(later));
        let moved = misplaced(&row, SignedDuration::ZERO, noon()).unwrap();
        assert_eq!(
            moved,
            Due {
                at: noon(),
                why: DueReason::FutureToken
            }
        );
        // Now due: nothing is left to move.
        let row = record(row.token, Some(moved));
        assert_eq!(misplaced(&row, SignedDuration::ZERO, noon()), None);
        // The service's clock is a day ahead as well: the token is as it should be.
        let due = Due {
            at: ahead(noon(), Duration::from_hours(12)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(tomorrow, Duration::from_hours(24))), Some(due));
        assert_eq!(
            misplaced(&row, SignedDuration::from_hours(24), noon()),
            None
        );
    }

    #[test]
    fn a_row_that_waits_past_its_token_is_brought_forward() {
        // Issued under a clock a day ahead of the service: due a day too late once that is mended.
        let late = Due {
            at: ahead(noon(), Duration::from_hours(36)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(noon(), Duration::from_hours(24))), Some(late));
        let moved = misplaced(&row, SignedDuration::ZERO, noon()).unwrap();
        assert_eq!(moved.at, ahead(noon(), Duration::from_hours(12)));
    }
}
