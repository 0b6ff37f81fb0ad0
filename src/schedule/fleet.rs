//! The identities of a resource as far as renewals are concerned: as they are declared, as the store knows them, or as
//! somebody asks what if.

use std::time::Duration;

use jiff::Timestamp;

use super::level::minute_of;
use crate::{
    config::Renewal,
    model::{CountedLife, Lives, Spec, Stock, TokenGroup},
};

/// Lifetimes that differ by no more than this part are the same: clocks and whole seconds.
const SAME: f64 = 0.02;

/// Identities that are renewed alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cohort {
    /// How long their tokens live.
    pub lifetime: Duration,
    /// The share of it after which they are renewed.
    pub renew_at: f64,
    /// The share of it by which that is spread.
    pub spread: f64,
    pub identities: u64,
}

/// The identities of one resource, as far as renewals are concerned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    pub(super) cohorts: Vec<Cohort>,
    /// Live tokens with their cohort.
    pub(super) tokens: Vec<(TokenGroup, usize)>,
    pub(super) without: Vec<u64>,
    pub(super) unmade: Vec<u64>,
}

impl Cohort {
    fn of(spec: &Spec) -> Self {
        Self {
            lifetime: spec.declared.lifetime,
            renew_at: spec.declared.renew_at,
            spread: spec.declared.spread,
            identities: 1,
        }
    }

    /// The mean time from one token to the next.
    fn gap(&self) -> Duration {
        let share = (self.renew_at - self.spread / 2.0).clamp(0.0, 1.0);
        self.lifetime.mul_f64(share).max(Duration::from_secs(1))
    }

    pub(super) fn per_second(&self) -> f64 {
        self.identities as f64 / self.gap().as_secs_f64()
    }

    /// How far the renewal of these tokens lies from where it would, had they this length; in parts of a life.
    fn unlike(&self, group: &CountedLife) -> f64 {
        let ahead = (group.late - group.due) as f64 / self.life_minutes().max(1) as f64;
        let share = 0.75 - ahead;
        // Where many are due at once, some are renewed after half of that already.
        let usual = (self.renew_at - self.spread - share).max(0.0) / 4.0;
        usual + (share - self.renew_at).max(0.0)
    }

    fn is_like(&self, other: &Self) -> bool {
        (
            self.lifetime,
            self.renew_at.to_bits(),
            self.spread.to_bits(),
        ) == (
            other.lifetime,
            other.renew_at.to_bits(),
            other.spread.to_bits(),
        )
    }

    pub(super) fn life_minutes(&self) -> i64 {
        i64::try_from(self.lifetime.as_secs() / 60).unwrap_or(i64::MAX)
    }
}

/// Identities that are declared, by how they are renewed.
pub fn cohorts<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Vec<Cohort> {
    let mut cohorts: Vec<Cohort> = Vec::new();
    for spec in specs {
        let one = Cohort::of(spec);
        match cohorts.iter_mut().find(|cohort| cohort.is_like(&one)) {
            Some(cohort) => cohort.identities += 1,
            None => cohorts.push(one),
        }
    }
    cohorts
}

impl Fleet {
    /// Declared, and nothing is known of them yet: those with an id are issued a token first, the others created.
    pub fn declared<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Self {
        let mut fleet = Self::default();
        for spec in specs {
            let cohort = fleet.cohort(Cohort::of(spec));
            match spec.declared.id {
                Some(_) => fleet.without[cohort] += 1,
                None => fleet.unmade[cohort] += 1,
            }
        }
        fleet
    }

    /// As the store knows them. How long a token lives is in the store; how it is renewed is what is declared for
    /// that life, else `[renewal]`.
    pub fn known(stock: &Stock, declared: &[Cohort], usual: &Renewal) -> Self {
        let mut fleet = Self::default();
        let rules = Rules { declared, usual };
        for tokens in &stock.tokens {
            let cohort = fleet.cohort(rules.of_life(tokens.life));
            fleet.cohorts[cohort].identities += tokens.count - u64::from(tokens.count > 0);
            fleet.tokens.push((*tokens, cohort));
        }
        let most = rules.most();
        for (count, is_made) in [(stock.without, true), (stock.unmade, false)] {
            if count > 0 {
                let cohort = fleet.cohort(most);
                fleet.cohorts[cohort].identities += count - 1;
                match is_made {
                    true => fleet.without[cohort] += count,
                    false => fleet.unmade[cohort] += count,
                }
            }
        }
        fleet
    }

    /// As the counters of the store know them, `without` of which hold no live token. Where tokens of several lengths
    /// are counted together, each is taken for one of the length whose renewals come at that part of a life.
    pub fn counted(
        lives: &Lives,
        without: u64,
        (declared, usual): (&[Cohort], &Renewal),
        now: Timestamp,
    ) -> Self {
        let rules = Rules { declared, usual };
        let mut known: Vec<Cohort> = lives.lengths.iter().map(|of| rules.of_life(*of)).collect();
        if known.is_empty() {
            known.push(rules.most());
        }
        let tokens = lives.groups.iter().filter_map(|group| {
            let like = known
                .iter()
                .min_by(|a, b| a.unlike(group).total_cmp(&b.unlike(group)))?;
            let life = like.life_minutes().max(1);
            Some(TokenGroup {
                due: group.due,
                ends: group.late + life / 4,
                life,
                count: group.count,
            })
        });
        let unmade = lives.unmade.min(without);
        let stock = Stock {
            tokens: tokens.filter(|group| group.ends > minute_of(now)).collect(),
            without: without - unmade,
            unmade,
        };
        Self::known(&stock, declared, usual)
    }

    /// A fleet that does not exist, as it would be after some lives: its load level.
    pub fn level(cohorts: Vec<Cohort>, now: Timestamp) -> Self {
        let mut fleet = Self::default();
        for cohort in cohorts {
            let at = fleet.cohort(Cohort {
                identities: 0,
                ..cohort
            });
            fleet.cohorts[at].identities = cohort.identities;
            fleet
                .tokens
                .extend(level(&cohort, minute_of(now)).map(|tokens| (tokens, at)));
        }
        fleet
    }

    /// How many identities there are.
    pub fn identities(&self) -> u64 {
        self.cohorts.iter().map(|cohort| cohort.identities).sum()
    }

    /// The same fleet with another size or another life of all tokens, its load level.
    #[must_use]
    pub fn instead(&self, what_if: &WhatIf, usual: &Renewal, now: Timestamp) -> Self {
        let all = self.identities();
        let wanted = what_if.identities.unwrap_or(all);
        let mut cohorts = self.cohorts.clone();
        if cohorts.is_empty() || all == 0 {
            cohorts = vec![Cohort::usual(usual, 1)];
        }
        if let Some(lifetime) = what_if.lifetime {
            let rules = Rules {
                declared: &cohorts,
                usual,
            };
            let cohort = rules.of_life(i64::try_from(lifetime.as_secs() / 60).unwrap_or(i64::MAX));
            cohorts = vec![Cohort { lifetime, ..cohort }];
        }
        scale(&mut cohorts, wanted);
        Self::level(cohorts, now)
    }

    fn cohort(&mut self, like: Cohort) -> usize {
        let found = self.cohorts.iter().position(|cohort| cohort.is_like(&like));
        let at = found.unwrap_or(self.cohorts.len());
        match found {
            Some(at) => self.cohorts[at].identities += like.identities,
            None => {
                self.cohorts.push(like);
                self.without.push(0);
                self.unmade.push(0);
            }
        }
        at
    }

    /// Renewals that it needs in a second, in the long run.
    pub(super) fn per_second(&self) -> f64 {
        self.cohorts.iter().map(Cohort::per_second).sum()
    }
}

impl Cohort {
    /// Renewed as `[renewal]` says.
    pub fn usual(usual: &Renewal, identities: u64) -> Self {
        Self {
            lifetime: usual.lifetime,
            renew_at: usual.renew_at,
            spread: usual.spread,
            identities,
        }
    }
}

/// Shares `wanted` identities out as they are now.
fn scale(cohorts: &mut [Cohort], wanted: u64) {
    let all: u64 = cohorts.iter().map(|cohort| cohort.identities).sum();
    let mut left = wanted;
    for cohort in cohorts.iter_mut() {
        let share = cohort.identities as f64 / all.max(1) as f64;
        cohort.identities = ((wanted as f64 * share).round() as u64).min(left);
        left -= cohort.identities;
    }
    if let Some(first) = cohorts.first_mut() {
        first.identities += left;
    }
}

/// The tokens of a cohort whose load has become level: as many due in each minute of their gap. Each has left what it
/// has where its spread is nothing, so that no more is promised of outages than is true.
fn level(cohort: &Cohort, now: i64) -> impl Iterator<Item = TokenGroup> + use<> {
    let gap = i64::try_from(cohort.gap().as_secs() / 60)
        .unwrap_or(i64::MAX)
        .max(1);
    let (all, life) = (i128::from(cohort.identities), cohort.life_minutes());
    let left = (life as f64 * (1.0 - cohort.renew_at)) as i64;
    let upto = move |minute: i64| all * i128::from(minute) / i128::from(gap);
    let count = move |minute| u64::try_from(upto(minute + 1) - upto(minute)).unwrap_or(0);
    (0..gap).map(move |ahead| TokenGroup {
        due: now + ahead,
        ends: now + ahead + left,
        life,
        count: count(ahead),
    })
}

/// How tokens of a life are renewed.
struct Rules<'a> {
    declared: &'a [Cohort],
    usual: &'a Renewal,
}

impl Rules<'_> {
    fn of_life(&self, minutes: i64) -> Cohort {
        let lifetime = Duration::from_secs(60 * minutes.max(1).unsigned_abs());
        let near = |cohort: &&Cohort| {
            let (one, other) = (cohort.lifetime.as_secs_f64(), lifetime.as_secs_f64());
            (one - other).abs() <= SAME * one.max(other)
        };
        let declared = self.declared.iter().filter(near);
        let like = declared.max_by_key(|cohort| cohort.identities).copied();
        let usual = Cohort::usual(self.usual, 1);
        let like = like.or(Some(usual).filter(|usual| near(&usual)));
        match like {
            Some(like) => Cohort {
                identities: 1,
                ..like
            },
            None => Cohort { lifetime, ..usual },
        }
    }

    /// One identity as most are.
    fn most(&self) -> Cohort {
        let declared = self.declared.iter().max_by_key(|cohort| cohort.identities);
        Cohort {
            identities: 1,
            ..declared.copied().unwrap_or(Cohort::usual(self.usual, 1))
        }
    }
}

/// A fleet that is asked about instead of the real one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WhatIf {
    pub identities: Option<u64>,
    /// Tokens that live so long.
    pub lifetime: Option<Duration>,
}

impl WhatIf {
    /// Whether anything is asked at all.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 1440;

    fn cohort(minutes: i64) -> Cohort {
        Cohort {
            lifetime: Duration::from_secs(60 * minutes.unsigned_abs()),
            renew_at: 0.5,
            spread: 0.02,
            identities: 1,
        }
    }

    fn usual() -> Renewal {
        Renewal {
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
        }
    }

    /// What the counters keep of tokens that were issued in this minute and are renewed at this part of their life.
    fn issued(minute: i64, life: i64, share: f64) -> CountedLife {
        CountedLife {
            due: minute + (life as f64 * share) as i64,
            late: minute + life * 3 / 4,
            count: 10,
        }
    }

    #[test]
    fn tokens_that_are_counted_by_minutes_end_when_their_length_says() {
        let now = Timestamp::from_second(60 * 1_000_000).unwrap();
        let of = |life, share| issued(1_000_000 - 5, life, share);
        let lives = Lives {
            groups: vec![
                of(DAY, 0.5),
                of(DAY, 0.48),
                of(DAY, 0.3),
                of(DAY / 2, 0.49),
                of(60, 0.5),
                of(4, 0.5),
            ],
            lengths: [DAY, DAY / 2, 60, 4].into(),
            unmade: 3,
        };
        let declared = [cohort(DAY), cohort(DAY / 2), cohort(60)];
        let fleet = Fleet::counted(&lives, 7, (&declared, &usual()), now);
        let found: Vec<(i64, i64)> = (fleet.tokens.iter())
            .map(|(group, _)| (group.life, group.ends - (1_000_000 - 5)))
            .collect();
        let expected = [DAY, DAY, DAY, DAY / 2, 60].map(|life| (life, life));
        assert_eq!(found, expected, "those of four minutes have ended");
        assert_eq!(fleet.without.iter().sum::<u64>(), 4);
        assert_eq!(fleet.unmade.iter().sum::<u64>(), 3);
    }
}
