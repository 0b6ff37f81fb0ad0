//! Each number of a plan against a computation of its own: by hand, or token by token and second by second.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{super::WhatIf, *};
use crate::{
    config::Renewal,
    model::{Declaration, Spec, Stock, TokenGroup},
};

const DAY: Duration = Duration::from_hours(24);

fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn usual() -> Renewal {
    Renewal {
        lifetime: DAY,
        renew_at: 0.5,
        spread: 0.02,
    }
}

fn cohort(identities: u64, lifetime: Duration) -> Cohort {
    Cohort {
        lifetime,
        ..Cohort::usual(&usual(), identities)
    }
}

fn room(calls: u32, window: u64) -> Room {
    let limit = Limit {
        calls,
        window: Duration::from_secs(window),
    };
    Room {
        limits: Limits {
            issue: limit,
            ..Limits::default()
        },
        max_in_flight: 32,
    }
}

fn planned(fleet: &Fleet, room: Room) -> Plan {
    plan(
        &"contoso".parse().unwrap(),
        (fleet, Basis::Store),
        room,
        noon(),
    )
}

fn level_of(identities: u64, lifetime: Duration) -> Fleet {
    Fleet::level(vec![cohort(identities, lifetime)], noon())
}

#[test]
fn the_steady_load_and_the_headroom_are_what_one_reckons_by_hand() {
    // 10,000 tokens of a day, each renewed after 49 % of it on the average: 10,000 in 11.76 h.
    let plan = planned(&level_of(10_000, DAY), room(1000, 30));
    assert!((plan.steady_per_hour - 850.34).abs() < 0.01, "{plan:?}");
    // 970 in 30 s, 120 times an hour.
    assert!((plan.allowed_per_hour - 116_400.0).abs() < 1e-6);
    assert!((plan.headroom - (1.0 - 850.34 / 116_400.0)).abs() < 1e-6);
    assert!(plan.keeps_up);
    // 32 calls at once at 32.33 a second.
    assert_eq!(plan.answers_within_ms, 989);
    assert_eq!((plan.identities, plan.to_create), (10_000, 0));
}

#[test]
fn a_fleet_that_never_keeps_up_is_told_apart_from_one_with_little_room() {
    let limit = |calls| Limit {
        calls,
        window: Duration::from_secs(3600),
    };
    // 100 tokens of an hour: 204.08 renewals an hour. 97 % of 210 are 203, of 250 are 242, of 270 are 261.
    let told = |calls| {
        let capacity = Capacity::for_cohorts(&[cohort(100, Duration::from_hours(1))], limit(calls));
        let finding = capacity.finding("resource[0].limits".to_owned());
        finding.map(|finding| (finding.severity, finding.message))
    };
    let (severity, message) = told(210).unwrap();
    assert_eq!(severity, Severity::Error);
    assert!(message.contains("never keep up"), "{message}");
    let (severity, message) = told(250).unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(message.contains("15 % are left"), "{message}");
    assert_eq!(told(270), None);
}

#[test]
fn cohorts_are_counted_by_how_they_are_renewed() {
    use crate::schedule::life::tests::spec;
    let short = Spec {
        declared: Declaration {
            lifetime: Duration::from_hours(1),
            ..spec().declared
        },
        ..spec()
    };
    let found = cohorts(&[spec(), short.clone(), spec(), short, spec()]);
    assert_eq!(found, [cohort(3, DAY), cohort(2, Duration::from_hours(1))]);
}

#[test]
fn what_the_store_knows_is_renewed_as_is_declared_for_its_life() {
    let early = Cohort {
        renew_at: 0.25,
        ..cohort(7, Duration::from_hours(2))
    };
    let start = minute_of(noon());
    let tokens = |life: i64, count| TokenGroup {
        due: start + 10,
        ends: start + 60,
        life,
        count,
    };
    let stock = Stock {
        tokens: vec![tokens(119, 5), tokens(1440, 3), tokens(240, 2)],
        without: 4,
        unmade: 1,
    };
    let fleet = Fleet::known(&stock, &[early, cohort(1, DAY)], &usual());
    assert_eq!(fleet.identities(), 15);
    let of = |lifetime| {
        fleet
            .cohorts
            .iter()
            .find(|one| one.lifetime == lifetime)
            .copied()
    };
    // 119 minutes are two hours by clocks that differ; those without a token are as most are declared.
    let two = of(Duration::from_hours(2)).unwrap();
    assert_eq!((two.renew_at, two.identities), (0.25, 10));
    assert_eq!(of(DAY).unwrap().identities, 3);
    assert_eq!(of(Duration::from_hours(4)).unwrap().renew_at, 0.5);
    let plan = planned(&fleet, room(1000, 30));
    assert_eq!((plan.to_create, plan.outage.now_seconds), (1, None));
}

/// A token as one by one goes through it, in seconds.
#[derive(Debug, Clone, Copy)]
struct One {
    due: i64,
    ends: i64,
}

/// Whether all live on through an outage from 0 to `outage`, where so many calls may go out in any window, earliest
/// end first.
fn all_survive(tokens: &[One], outage: i64, calls: usize, window: i64) -> bool {
    let mut waiting: Vec<One> = tokens.to_vec();
    waiting.sort_by_key(|token| token.ends);
    let mut sent: Vec<i64> = Vec::new();
    let mut at = outage;
    while !waiting.is_empty() {
        if waiting.iter().any(|token| token.ends <= at) {
            return false;
        }
        sent.retain(|began| began + window > at);
        while sent.len() < calls {
            let Some(next) = waiting.iter().position(|token| token.due <= at) else {
                break;
            };
            waiting.remove(next);
            sent.push(at);
        }
        at += 1;
    }
    true
}

/// Random tokens of an hour or two, some of them in bursts, all in their lives.
fn tokens_of(seed: u64, count: usize) -> Vec<One> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let burst = rng.random_range(0..1500);
    let token = |_| {
        let life = if rng.random_bool(0.5) { 3600 } else { 7200 };
        let due = match rng.random_bool(0.4) {
            true => burst + rng.random_range(0..60),
            false => rng.random_range(0..life / 2),
        };
        One {
            due,
            ends: due + life / 2,
        }
    };
    (0..count).map(token).collect()
}

fn as_tokens(ones: &[One]) -> Vec<TokenGroup> {
    let start = minute_of(noon());
    let of = |one: &One| TokenGroup {
        due: start + one.due / 60,
        ends: start + one.ends / 60,
        life: 2 * (one.ends - one.due) / 60,
        count: 1,
    };
    ones.iter().map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_outage_that_is_promised_is_survived_and_little_more(seed: u64, count in 1_usize..300, calls in 4_u32..60) {
        let ones = tokens_of(seed, count);
        let stock = Stock { tokens: as_tokens(&ones), ..Stock::default() };
        let fleet = Fleet::known(&stock, &[], &usual());
        let plan = planned(&fleet, room(calls, 30));
        let most = (f64::from(calls) * 0.97) as usize;
        let promised = i64::try_from(plan.outage.now_seconds.unwrap()).unwrap();
        if promised > 0 {
            prop_assert!(all_survive(&ones, promised, most, 30), "{promised} s are not survived");
        }
        // A minute for the rounding, 30 s for the notice, a window for the last calls.
        prop_assert!(!plan.keeps_up || !all_survive(&ones, promised + 60 + 30 + 31, most, 30), "{promised} s are too few");
    }

    #[test]
    fn calls_in_windows_take_as_long_as_one_counts_them(calls in 0_u64..5000, most in 1_u64..1000) {
        let window = 30;
        let (mut sent, mut at) = (most.min(calls), 0);
        while sent < calls {
            at += window;
            sent += most;
        }
        let allowed = Allowed { calls: most, window: Duration::from_secs(window) };
        prop_assert_eq!(allowed.takes(calls).as_secs(), at);
    }
}

/// Renewals of each hour, token by token, each drawn by chance as the renewer does.
fn hours_one_by_one(fleet: &Fleet, hours: usize) -> Vec<u64> {
    // Counted from the first that is due on.
    let first = minute_of(noon()) + 90;
    let mut load = Load::counted([(first, 0)]);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut due = std::collections::BTreeSet::new();
    for (tokens, cohort) in &fleet.tokens {
        for _ in 0..tokens.count {
            due.insert((tokens.due * 60, due.len(), *cohort));
        }
    }
    let start = minute_of(noon()) * 60;
    let mut counted = vec![0; hours];
    while let Some((at, number, cohort)) = due.pop_first() {
        let Some(hour) = counted.get_mut(usize::try_from((at - start) / 3600).unwrap()) else {
            break;
        };
        *hour += 1;
        let like = fleet.cohorts[cohort];
        let now = Timestamp::from_second(at).unwrap();
        let life = Life {
            from: now,
            to: now + like.lifetime,
        };
        let next = load.draw(life.renewal_at(like.renew_at, like.spread), now, &mut rng);
        due.insert((next.as_second(), number, cohort));
    }
    counted
}

#[test]
fn the_hours_are_those_of_a_fleet_that_is_renewed_one_by_one() {
    // 6,000 in one burst, and 3,000 of six hours: the wave returns, and flattens.
    let start = minute_of(noon());
    let burst = TokenGroup {
        due: start + 90,
        ends: start + 90 + 720,
        life: 1440,
        count: 6000,
    };
    let stock = Stock {
        tokens: vec![burst],
        ..Stock::default()
    };
    let fleet = Fleet::known(&stock, &[cohort(1, DAY)], &usual());
    let plan = planned(&fleet, room(100_000, 30));
    let real = hours_one_by_one(&fleet, HOURS);
    let (mut all, mut other) = (0u64, 0u64);
    for (hour, counted) in plan.hours.iter().zip(&real) {
        // Where a wave stands may differ by an hour, its size hardly.
        all += hour.renewals;
        other += counted;
        assert!(all.abs_diff(other) <= 700, "{:?}\n{real:?}", plan.hours);
    }
    assert!(all.abs_diff(other) <= 150, "{all} and {other}");
    assert_eq!(plan.hours[1].renewals, 6000);
    assert_eq!(plan.hours[13].ends, 6000);
}

#[test]
fn a_level_fleet_stays_level_and_loses_nobody() {
    for lifetime in [1, 6, 24].map(Duration::from_hours) {
        let plan = planned(&level_of(12_000, lifetime), room(1000, 30));
        let mean = plan.steady_per_hour;
        for hour in &plan.hours {
            let share = hour.renewals as f64 / mean;
            assert!(
                (0.85..1.15).contains(&share),
                "{lifetime:?}: {share} in {hour:?}"
            );
            assert_eq!(hour.lapses, 0);
        }
        // Half a life is left to whoever was just due; so long lasts the outage, less what rounding takes.
        let half = lifetime.as_secs() / 2;
        let level = plan.outage.level_seconds;
        assert!(
            level <= half && level + 300 >= half,
            "{lifetime:?}: {level}"
        );
    }
}

#[test]
fn an_overloaded_fleet_lapses_at_the_rate_that_is_missing() {
    // 1,000 tokens of an hour and 485 calls an hour: whatever the order, 515 an hour end.
    let plan = planned(&level_of(1000, Duration::from_hours(1)), room(500, 3600));
    assert!(!plan.keeps_up && plan.headroom < -1.0);
    let day: u64 = plan.hours[24..].iter().map(|hour| hour.renewals).sum();
    assert!((24 * 484..=24 * 486).contains(&day), "{day}");
    let lapses: u64 = plan.hours.iter().map(|hour| hour.lapses).sum();
    assert!(lapses > 0);
    assert_eq!(plan.campaigns.reissue_seconds, None);
}

#[test]
fn a_first_start_creates_everybody_at_the_pace_of_creations() {
    use crate::schedule::life::tests::spec;
    let fleet = Fleet::declared(&vec![spec(); 5000]);
    let mut room = room(1000, 30);
    room.limits.create_with_token.calls = 100;
    let plan = planned(&fleet, room);
    // 97 in 30 s: 194 a minute, 5,000 in 26 minutes; half a life later the first wave is due again.
    assert_eq!((plan.to_create, plan.hours[0].renewals), (5000, 5000));
    assert_eq!(plan.outage.now_seconds, None);
    let again: u64 = plan.hours[1..12].iter().map(|hour| hour.renewals).sum();
    assert!(again < 5000, "{:?}", plan.hours);
    assert_eq!(
        plan.campaigns.revoke_seconds, 0,
        "nobody is there to be revoked"
    );
}

#[test]
fn campaigns_take_the_windows_that_they_need() {
    let plan = planned(&level_of(10_000, DAY), room(1000, 30));
    // 485 in 30 s: 21 windows, the first at once. Of 970 issues 8 are left to the renewals: 11 windows.
    assert_eq!(plan.campaigns.revoke_seconds, 20 * 30);
    assert_eq!(plan.campaigns.reissue_seconds, Some(20 * 30));
    assert_eq!(plan.campaigns.key_roll_seconds, Some(10 * 30));
    let slow = planned(&level_of(10_000, DAY), room(100, 30));
    // 97, of which 8 are for renewals: 89, so 113 windows.
    assert_eq!(slow.campaigns.reissue_seconds, Some(112 * 30));
}

#[test]
fn a_what_if_is_a_level_fleet_of_that_size_and_life() {
    let fleet = level_of(100, DAY);
    let what_if = WhatIf {
        identities: Some(30_000),
        lifetime: Some(Duration::from_hours(6)),
    };
    let other = fleet.instead(&what_if, &usual(), noon());
    assert_eq!(other.identities(), 30_000);
    let plan = planned(&other, room(1000, 30));
    assert!((plan.steady_per_hour - 30_000.0 / (6.0 * 0.49)).abs() < 0.01);
    let tokens: u64 = other.tokens.iter().map(|(tokens, _)| tokens.count).sum();
    assert_eq!(tokens, 30_000);
    let empty = Fleet::default().instead(&what_if, &usual(), noon());
    assert_eq!(empty.identities(), 30_000);
    let more = Fleet::level(
        vec![cohort(100, DAY), cohort(300, Duration::from_hours(1))],
        noon(),
    );
    let what_if = WhatIf {
        identities: Some(41),
        lifetime: None,
    };
    assert_eq!(more.instead(&what_if, &usual(), noon()).identities(), 41);
}
