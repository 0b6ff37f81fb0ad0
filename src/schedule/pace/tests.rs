//! The window is kept, whatever the draws and the crashes.

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn limit(calls: u32) -> Limit {
    Limit {
        calls,
        window: S * 30,
    }
}

/// Sends as fast as it may; each call arrives somewhere between its start and its end.
/// Returns the arrivals. At `crash` the process is killed: only the reservations survive.
fn run(pace: Pace, travel: &[u64], secs: u64, crash: Option<u64>) -> Vec<u64> {
    let mut pace = pace;
    let (mut arrivals, mut flying, mut n) = (Vec::new(), Vec::new(), 0);
    let mut noted: (Steady, Vec<(u32, SignedDuration)>) = (Steady::ZERO, Vec::new());
    for ms in (0..secs * 1000).step_by(50) {
        let now = Duration::from_millis(ms);
        flying.retain(|end| {
            let over = *end <= ms;
            if over {
                pace.end(1, now);
            }
            !over
        });
        if crash == Some(ms / 1000) && ms % 1000 == 0 {
            let limit = pace.limit;
            pace = Pace::new(limit);
            flying.clear();
            arrivals.retain(|at| *at <= ms);
            let passed = signed(now - noted.0);
            for (permits, ahead) in &noted.1 {
                pace.restore(*permits, *ahead - passed, now);
            }
        }
        let permits = pace.reservable(u32::MAX, Press::Ordinary, now);
        if permits > 0 {
            noted = (now, pace.noted(permits, now));
            pace.reserved(permits, now);
        }
        while flying.len() < 32 && pace.start(Press::Ordinary, now) {
            let (to, back) = (travel[n % travel.len()], travel[(n + 1) % travel.len()]);
            arrivals.push(ms + to);
            flying.push(ms + to + back);
            n += 1;
        }
    }
    arrivals.sort_unstable();
    arrivals
}

fn busiest(arrivals: &[u64]) -> usize {
    let mut most = 0;
    let mut first = 0;
    for (last, at) in arrivals.iter().enumerate() {
        while arrivals[first] + 30_000 <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_window_ever_holds_too_many(
        calls in 2u32..400,
        travel in proptest::collection::vec(0u64..2000, 2..6),
        crash in proptest::option::of(1u64..90),
    ) {
        let arrivals = run(Pace::new(limit(calls)), &travel, 100, crash);
        let most = busiest(&arrivals);
        prop_assert!(most <= (f64::from(calls) * 0.97) as usize, "{most} of {calls}");
    }
}

#[test]
fn the_limit_is_used_well() {
    let arrivals = run(Pace::new(limit(1000)), &[5, 5], 120, None);
    assert!(arrivals.len() >= 3 * 930, "{}", arrivals.len());
}

#[test]
fn a_throttle_holds_the_operation_and_lowers_it_once() {
    let mut pace = Pace::new(limit(1000));
    pace.reserved(31, Steady::ZERO);
    assert!(pace.start(Press::Ordinary, S));
    pace.throttled(Some(S * 10), S);
    pace.throttled(Some(S * 8), S * 2);
    assert_eq!(pace.held_until(S * 2), Some(S * 11));
    assert!(!pace.start(Press::Ordinary, S * 3));
    assert_eq!(pace.reservable(1, Press::Pressing, S * 3), 0);
    assert_eq!(pace.ready_at(1, Press::Pressing, S * 3), Some(S * 11));
    assert_eq!(pace.view(S * 11).1, 776);
    assert_eq!(pace.reservable(1, Press::Ordinary, S * 11), 31);
    // Ten seconds after the hold ended, a twentieth of the limit is back.
    assert_eq!(pace.view(S * 21).1, 824);
    assert_eq!(pace.view(S * 61).1, 970);
}

#[test]
fn it_is_never_lowered_to_nothing() {
    let mut pace = Pace::new(limit(1000));
    for n in 0..100 {
        pace.throttled(Some(S), S * (2 * n));
    }
    assert_eq!(pace.view(S * 200).1, 97);
}

#[test]
fn what_is_pressing_has_the_whole_window_however_often_it_was_lowered() {
    let mut pace = Pace::new(limit(100));
    for n in 0..6 {
        pace.throttled(Some(S), S * 2 * n);
    }
    let now = S * 20;
    let mut sent = 0;
    for press in [Press::Ordinary, Press::Pressing] {
        loop {
            let permits = pace.reservable(1, press, now);
            if permits > 0 {
                pace.reserved(permits, now);
            }
            if !pace.start(press, now) {
                break;
            }
            pace.end(1, now);
            sent += 1;
        }
        let most = if press == Press::Ordinary { 25 } else { 97 };
        assert_eq!(sent, most, "{press:?}");
    }
    assert_eq!(pace.ready_at(1, Press::Pressing, now), Some(now + S * 30));
}

#[test]
fn absurd_waits_are_bounded() {
    let mut pace = Pace::new(limit(1000));
    pace.throttled(Some(Duration::from_hours(10_000)), S);
    assert_eq!(pace.held_until(S), Some(S + LONGEST_WAIT));
    let mut pace = Pace::new(limit(1000));
    pace.throttled(Some(Duration::ZERO), S);
    assert_eq!(pace.held_until(S), Some(S * 2));
}

#[test]
fn unused_permits_come_back() {
    let mut pace = Pace::new(limit(128));
    pace.reserved(4, Steady::ZERO);
    assert!(pace.start(Press::Ordinary, S));
    assert_eq!(
        pace.reservable(10, Press::Ordinary, S * 2),
        0,
        "some are in hand"
    );
    pace.end(1, S * 2);
    assert_eq!(pace.view(S * 6), (1, 124));
    assert_eq!(pace.available(Press::Ordinary, S * 6), 0);
    assert_eq!(pace.reservable(10, Press::Ordinary, S * 6), 4);
}

#[test]
fn a_small_share_is_used_however_many_wait() {
    let mut pace = Pace::new(limit(500));
    pace.cap(0.0024);
    let permits = pace.reservable(100, Press::Ordinary, Steady::ZERO);
    assert_eq!(permits, 1, "the one that is allowed in a window");
    pace.reserved(permits, Steady::ZERO);
    assert!(pace.start(Press::Ordinary, Steady::ZERO));
    assert!(!pace.start(Press::Ordinary, Steady::ZERO));
}

#[test]
fn a_429_far_below_our_own_pace_is_brought_about_by_somebody_else() {
    let limit = Limit {
        calls: 100,
        window: Duration::from_secs(30),
    };
    for (sent, others) in [(10, true), (90, false)] {
        let mut pace = Pace::new(limit);
        let now = Steady::ZERO + Duration::from_secs(60);
        pace.reserved(97, now);
        for _ in 0..sent {
            assert!(pace.start(Press::Ordinary, now));
            pace.end(1, now);
        }
        pace.throttled(None, now);
        let because = pace.held_because();
        assert_eq!(
            because.contains("somebody else uses this resource"),
            others,
            "{because}"
        );
    }
}

#[test]
fn one_429_below_our_pace_is_an_accident_and_two_are_somebody_else() {
    let mut pace = Pace::new(Limit {
        calls: 1000,
        window: Duration::from_secs(30),
    });
    let mut now = Duration::from_secs(1000);
    let begun = now;
    pace.throttled(Some(Duration::from_secs(5)), now);
    assert_eq!(pace.contention(now), None);
    now += Duration::from_secs(6);
    pace.throttled(Some(Duration::from_secs(5)), now);
    let (since, sent, most, window) = pace.contention(now).unwrap();
    assert_eq!((since, sent, most), (begun, 0, 970));
    assert_eq!(window, Duration::from_secs(30));
    now += Duration::from_mins(9);
    assert!(pace.contention(now).is_some());
    now += Duration::from_mins(2);
    assert_eq!(pace.contention(now), None);
}

#[test]
fn a_429_at_our_own_pace_is_ours() {
    let mut pace = Pace::new(Limit {
        calls: 10,
        window: Duration::from_secs(30),
    });
    let mut now = Duration::from_secs(1000);
    for _ in 0..3 {
        pace.reserved(9, now);
        for _ in 0..9 {
            assert!(pace.start(Press::Pressing, now));
            pace.end(1, now);
        }
        pace.throttled(None, now);
        now += Duration::from_secs(40);
    }
    assert_eq!(pace.contention(now), None);
}
