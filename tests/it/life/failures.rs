//! Each failure alone, for an hour: recorded gaps stay over the floor, and calls under a bound.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::SignedDuration;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd::{
    config::Limit,
    model::{State, Step, Then, Tier, Version},
    schedule::{Action, HeldBy},
    simulation::NOBODY,
    store::{Cause, Link, StepOn},
};

use super::{
    HOUR, MINUTE, SECOND, gaps,
    service::Fault,
    world::{Setting, World},
};

/// A failure that lasts for an hour: the least gap between its attempts, and the most attempts.
struct Trial {
    fault: Fault,
    floor: Duration,
    most: usize,
    /// When all is well again, a token comes within this time.
    back_within: Duration,
}

fn trial(fault: Fault, floor: Duration, most: usize, back_within: Duration) -> Trial {
    Trial {
        fault,
        floor,
        most,
        back_within,
    }
}

fn trials() -> Vec<Trial> {
    let denied = "Denied by the resource provider.";
    // Every 5 s once the token is dead.
    let unanswered = |fault| trial(fault, SECOND, 600, MINUTE * 2);
    let refused = |fault| trial(fault, MINUTE, 8, HOUR + MINUTE * 15);
    let keys = |fault| trial(fault, SECOND * 5, 100, MINUTE * 6);
    vec![
        unanswered(Fault::Connect),
        unanswered(Fault::Reset),
        unanswered(Fault::Hang),
        unanswered(Fault::Malformed),
        unanswered(Fault::Expired),
        unanswered(Fault::Status(500, "InternalError", "Sorry.")),
        unanswered(Fault::Status(503, "Unavailable", "Later.")),
        keys(Fault::Status(401, "Denied", denied)),
        keys(Fault::Status(403, "Forbidden", "No.")),
        refused(Fault::Status(400, "ValidationError", "No.")),
        refused(Fault::Status(409, "Conflict", "No.")),
        refused(Fault::Panic),
        trial(Fault::Throttle(10), SECOND * 10, 340, MINUTE),
        trial(Fault::Throttle(0), SECOND, 3400, MINUTE),
    ]
}

#[tokio::test(start_paused = true)]
async fn no_failure_makes_a_hot_loop() {
    for trial in trials() {
        let told = format!("{:?}", trial.fault);
        let world = World::start(Setting::of(1)).await;
        world.service.tokens_live(HOUR);
        world.pass(MINUTE * 25).await;
        world.service.forget_calls();
        let fault = trial.fault.clone();
        world.service.fail(move |_| Some(fault.clone()));
        world.pass(HOUR).await;
        let calls = world.service.calls();
        assert!(calls.len() >= 4, "{told}: {} calls", calls.len());
        assert!(calls.len() <= trial.most, "{told}: {} calls", calls.len());
        let shortest = gaps(&calls).into_iter().min().unwrap();
        assert!(shortest >= trial.floor, "{told}: {shortest:?}");
        assert!(
            world.news().await.len() <= 3,
            "{told}: {:?}",
            world.news().await
        );
        world.service.mend();
        world.pass(trial.back_within).await;
        assert_eq!(world.service.without_live_token(), 0, "{told}");
        assert_eq!(world.record("bot-0000").await.failures, 0, "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_asked_for_twice_and_never_again() {
    let world = World::start(Setting::of(2)).await;
    world.pass(HOUR).await;
    world.service.forget_calls();
    let message = "Provided identity doesn't exist.";
    let gone = world.record("bot-0000").await.id.unwrap().to_string();
    let id = gone.clone();
    world.service.fail(move |call| {
        (call.id == id).then_some(Fault::Status(404, "IdentityNotFound", message))
    });
    world.pass(HOUR * 100).await;
    let calls = world.service.calls();
    assert_eq!(calls.iter().filter(|call| call.id == gone).count(), 2);
    assert_eq!(world.record("bot-0000").await.state, State::Gone);
    assert_eq!(world.news().await, ["identity.gone"]);
    assert!(
        calls.iter().all(|call| call.operation == "issue"),
        "never re-created"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_always_fails_hurts_no_other() {
    let faults = [
        Fault::Status(500, "InternalError", "Sorry."),
        Fault::Status(400, "ValidationError", "No."),
        Fault::Panic,
        Fault::Hang,
    ];
    for fault in faults {
        let world = World::start(Setting::of(20)).await;
        world.service.tokens_live(HOUR);
        world.pass(MINUTE * 5).await;
        let poisoned = world.record("bot-0007").await.id.unwrap().to_string();
        let told = format!("{fault:?}");
        world
            .service
            .fail(move |call| (call.id == poisoned).then(|| fault.clone()));
        for _ in 0..5 * 60 {
            world.pass(MINUTE).await;
            assert!(world.service.without_live_token() <= 1, "{told}");
        }
        let failing = world.record("bot-0007").await;
        assert!(failing.failures > 3, "{told}");
        let kinds = world.news().await;
        let late = kinds.iter().filter(|kind| *kind == "renewal.late").count();
        assert!(late <= 1, "{told}: {kinds:?}");
        assert!(kinds.len() <= 60, "{told}: {kinds:?}");
    }
}

/// The service asked to wait for five minutes: whoever comes after a process that ended meanwhile waits as well.
#[tokio::test(start_paused = true)]
async fn a_restart_waits_as_long_as_a_429_asked() {
    for kill in [true, false] {
        let mut world = World::start(Setting::of(40)).await;
        world.service.tokens_live(HOUR);
        world.pass(MINUTE * 2).await;
        world.service.forget_calls();
        world.service.fail(|_| Some(Fault::Throttle(300)));
        while world.service.calls().is_empty() {
            world.pass(SECOND * 10).await;
        }
        world.service.mend();
        world.service.forget_calls();
        match kill {
            true => world.kill().await,
            false => world.down().await.unwrap(),
        }
        world.up().await;
        world.pass(SECOND * 280).await;
        let calls = world.service.calls();
        assert!(calls.is_empty(), "kill {kill}: {calls:?}");
        world.pass(MINUTE * 30).await;
        assert!(!world.service.calls().is_empty(), "kill {kill}");
        assert_eq!(world.service.without_live_token(), 0, "kill {kill}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lapse_is_told_once_and_many_are_folded() {
    let mut setting = Setting::abreast(40);
    setting.resource.max_in_flight = 40;
    let world = World::start(setting).await;
    world.pass(MINUTE).await;
    // Refused, which is no outage: every one of them lapses for a reason of its own.
    world
        .service
        .fail(|_| Some(Fault::Status(400, "ValidationError", "No.")));
    world.pass(HOUR * 30).await;
    let kinds = world.news().await;
    assert!(kinds.iter().all(|kind| kind == "renewal.late"), "{kinds:?}");
    assert!((11..=40).contains(&kinds.len()), "{}", kinds.len());
    assert!(
        world
            .records()
            .await
            .iter()
            .all(|record| record.late_notified)
    );
    // The next lapse is told again.
    world.service.mend();
    world.pass(HOUR * 2).await;
    assert!(
        world
            .records()
            .await
            .iter()
            .all(|record| !record.late_notified)
    );
    // Each one told of, and the many told of in one notice, are told to be over under their keys.
    let open = world.store().open_notices().await.unwrap();
    assert!(open.is_empty(), "{open:?}");
    let over = world.notices().await;
    let over = over
        .iter()
        .filter(|told| told.kind.as_str() == "renewal.recovered");
    assert!(over.count() >= 11);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_creation_is_counted_and_told() {
    let world = World::start(Setting::of(1)).await;
    let mut lost = 0;
    world.service.fail(move |_| {
        lost += 1;
        (lost <= 2).then_some(Fault::Reset)
    });
    world.pass(MINUTE).await;
    assert_eq!(
        world.news().await,
        ["identity.orphaned", "identity.orphaned"]
    );
    assert_eq!(world.store().counts().await.unwrap().orphans, 2);
    assert_eq!(world.record("bot-0000").await.state, State::Active);
}

#[tokio::test(start_paused = true)]
async fn what_was_issued_but_not_committed_is_held_until_it_is() {
    let mut setting = Setting::abreast(300);
    setting.resource.max_in_flight = 8;
    let world = World::start(setting).await;
    world.pass(MINUTE).await;
    let before: Vec<Version> = world.records().await.iter().map(|r| r.version).collect();
    world.service.forget_calls();
    // Another program holds the database from the moment when the first renewal is under way.
    let path = world.path("renewd.db");
    let thief = Arc::new(std::sync::Mutex::new(None));
    let holder = thief.clone();
    world.service.fail(move |_| {
        holder.lock().unwrap().get_or_insert_with(|| {
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            connection
        });
        None
    });
    while thief.lock().unwrap().is_none() {
        world.pass(SECOND / 10).await;
    }
    world.pass(SECOND / 10).await;
    let at_stake = world.service.calls().len();
    assert!((1..=8).contains(&at_stake), "{at_stake}");
    assert!(world.view().blocked.is_some());
    let held = Arc::clone(&thief);
    world.service.fail(|_| None);
    held.lock().unwrap().take();
    assert_eq!(
        world.service.calls().len(),
        at_stake,
        "nothing more was obtained"
    );
    world.pass(HOUR).await;
    let after = world.records().await;
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(record, version)| record.version > *version)
    );
    assert_eq!(world.service.calls().len(), 300, "none was obtained twice");
    assert_eq!(world.news().await, ["store.unwritable", "store.writable"]);
    assert_eq!(world.store().counts().await.unwrap().orphans, 0);
    assert_eq!(world.view().blocked, None);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_store_chokes_on_stops_nobody_else() {
    let world = World::start(Setting::of(10)).await;
    world.pass(MINUTE).await;
    let connection = rusqlite::Connection::open(world.path("renewd.db")).unwrap();
    let trigger = "CREATE TRIGGER choke BEFORE UPDATE ON identity WHEN new.name = 'bot-0004' \
                   BEGIN SELECT RAISE(ABORT, 'on purpose'); END";
    connection.execute_batch(trigger).unwrap();
    world.service.forget_calls();
    world.pass(HOUR * 13).await;
    let calls = world.service.calls();
    let id = world.record("bot-0004").await.id.unwrap().to_string();
    let of_it = calls.iter().filter(|call| call.id == id).count();
    assert_eq!(of_it, 1, "what was obtained is kept, and noted later");
    assert_eq!(calls.len() - of_it, 9, "the others were renewed once each");
    connection.execute_batch("DROP TRIGGER choke").unwrap();
    world.pass(MINUTE * 6).await;
    assert_eq!(world.service.without_live_token(), 0);
    let now = world.clock.now();
    assert!(
        world
            .records()
            .await
            .iter()
            .all(|record| record.due.unwrap().at > now)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_stop_is_committed() {
    let mut world = World::start(Setting::of(3)).await;
    world.pass(MINUTE).await;
    // The first renewal is answered only after the stop.
    let (clock, service) = (world.clock.clone(), world.service.clone());
    service.delay(SECOND * 2);
    let before = world.service.calls().len();
    while service.calls().len() == before {
        world.pass(SECOND / 2).await;
    }
    let began = clock.now();
    world.down().await.unwrap();
    assert!(clock.now().duration_since(began) <= SignedDuration::from_secs(3));
    let calls = service.calls().len();
    world.up().await;
    let now = world.clock.now();
    let waiting = world.records().await;
    let waiting = waiting
        .iter()
        .filter(|record| record.due.unwrap().at <= now)
        .count();
    assert_eq!(waiting, 3usize.saturating_sub(calls - before).min(waiting));
    assert_eq!(world.store().counts().await.unwrap().orphans, 0);
    world.pass(HOUR).await;
    assert_eq!(service.calls().len() - before, 3, "none was renewed twice");
}

/// Six 429s lower the pace to a quarter, far below what the fleet needs. What is urgent has the whole
/// window all the same, so no token ends.
#[tokio::test(start_paused = true)]
async fn a_lowered_pace_lets_no_token_die() {
    let mut setting = Setting::of(80);
    setting.resource.limits.issue.calls = 100;
    setting.resource.limits.create_with_token.calls = 100;
    let world = World::start(setting).await;
    world.service.tokens_live(MINUTE);
    world.pass(MINUTE * 3).await;
    assert_eq!(world.service.without_live_token(), 0);
    let mut bursts = Vec::new();
    world.service.fail(move |call| {
        let again = bursts
            .last()
            .is_none_or(|last| call.at - *last >= SECOND * 2);
        if call.operation != "issue" || bursts.len() == 6 || !again {
            return None;
        }
        bursts.push(call.at);
        Some(Fault::Throttle(1))
    });
    let mut lowest = u32::MAX;
    for _ in 0..300 {
        world.pass(SECOND).await;
        lowest = lowest.min(world.view().pace["issue"].1);
        assert_eq!(world.service.without_live_token(), 0);
    }
    assert!(lowest < 40, "the pace was never lowered: {lowest}");
}

/// Tokens that died in an outage are back within seconds of its end.
#[tokio::test(start_paused = true)]
async fn what_died_in_an_outage_is_back_within_seconds_of_its_end() {
    let world = World::start(Setting::of(5)).await;
    world.service.tokens_live(SECOND * 20);
    world.pass(MINUTE * 2).await;
    for outage in [45, 52, 61, 300] {
        world.service.fail(|_| Some(Fault::Connect));
        world.pass(SECOND * outage).await;
        assert_eq!(world.service.without_live_token(), 5);
        world.service.mend();
        let mut waited = 0;
        while world.service.without_live_token() > 0 {
            world.pass(SECOND).await;
            waited += 1;
            assert!(waited <= 7, "after {outage} s: {waited} s without a token");
        }
        world.pass(MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_re_issue_that_failed_once_is_tried_again_within_seconds() {
    let world = World::start(Setting::of(20)).await;
    world.pass(MINUTE * 25).await;
    let failed = Mutex::new(BTreeSet::new());
    world.service.fail(move |call| {
        let first = call.operation == "issue" && failed.lock().unwrap().insert(call.id.clone());
        first.then_some(Fault::Status(500, "InternalError", "Sorry."))
    });
    revoke_all(&world).await;
    world.service.forget_calls();
    world.pass(SECOND / 2).await;
    let told = world.why("bot-0000").await;
    assert_eq!(told.standing, "dead", "{told:?}");
    assert_eq!(told.tier, Some(Tier::Emergency));
    assert!(told.about_token.unwrap().contains("revoked"), "why says so");
    world.pass(SECOND * 5).await;
    let behind: Vec<_> = world.records().await;
    let behind: Vec<_> = behind.iter().filter(|record| record.revoked).collect();
    assert!(behind.is_empty(), "{behind:?}");
    for record in world.records().await {
        let id = record.id.unwrap().to_string();
        let mut calls = world.service.calls();
        calls.retain(|call| call.id == id);
        assert!(gaps(&calls).iter().all(|gap| *gap >= SECOND), "{calls:?}");
    }
}

/// What is decided in an outage and at the end of a pace is what `why` tells.
#[tokio::test(start_paused = true)]
async fn why_tells_what_holds_a_due_row_back() {
    let mut setting = Setting::of(6);
    setting.resource.limits.issue = Limit {
        calls: 2,
        window: MINUTE,
    };
    let world = World::start(setting).await;
    world.pass(MINUTE * 25).await;
    let by = async |wanted: HeldBy| {
        for n in 0..6 {
            let told = world.why(&format!("bot-{n:04}")).await;
            if let Action::HeldBack { by, because, .. } = &told.action
                && *by == wanted
            {
                return Some((because.clone(), told.sentence));
            }
        }
        None
    };
    revoke_all(&world).await;
    world.pass(SECOND * 2).await;
    let (because, sentence) = by(HeldBy::Pace).await.unwrap();
    assert!(because.contains("is at its pace"), "{because}");
    assert!(
        sentence.starts_with("It is due, and has to wait"),
        "{sentence}"
    );
    world.service.fail(|_| Some(Fault::Connect));
    world.pass(MINUTE * 5).await;
    let (because, _) = by(HeldBy::Health).await.unwrap();
    assert!(because.contains("only probes go out"), "{because}");
    world.service.mend();
    world.pass(MINUTE * 15).await;
    assert_eq!(by(HeldBy::Health).await, None);
    assert_eq!(by(HeldBy::Pace).await, None);
}

/// Each answer of the store takes a while, and the harmless call that tells whom failures are about waits for it as well
/// as the renewer: neither waits for the other.
#[tokio::test(start_paused = true)]
async fn a_question_that_waits_for_a_slow_store_holds_up_nobody() {
    for seed in 0..30 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut setting = Setting::of(rng.random_range(1..4));
        setting.seed = seed;
        let world = World::start(setting).await;
        let (slowest, ways) = (rng.random_range(5..1500), Mutex::new(rng.clone()));
        let slow = Link::carried(world.clock.clone(), move || {
            Duration::from_millis(ways.lock().unwrap().random_range(0..slowest))
        });
        world.store().reached_by(slow);
        world.service.tokens_live(HOUR);
        world.pass(MINUTE * 20).await;
        let status = if rng.random() { 403 } else { 500 };
        world.service.fail(move |call| {
            let harmless = call.id.starts_with(NOBODY);
            (!harmless).then_some(Fault::Status(status, "Odd", "No."))
        });
        world.pass(HOUR * 2).await;
        let asked = world.service.calls();
        let asked = asked.iter().any(|call| call.id.starts_with(NOBODY));
        assert!(asked, "seed {seed}: nothing was in question");
        world.service.mend();
        world.pass(HOUR + MINUTE * 15).await;
        assert_eq!(world.service.without_live_token(), 0, "seed {seed}");
    }
}

/// Whenever a token is revoked while its renewal is under way, or is written and the answer is on its way: it is asked for
/// again, whatever the renewer hears first.
#[tokio::test(start_paused = true)]
async fn what_is_revoked_while_it_is_renewed_is_asked_for_again_at_once() {
    for after in (0..40).map(|n| Duration::from_millis(n * 100)) {
        let world = World::start(Setting::of(3)).await;
        world.pass(MINUTE).await;
        world.service.delay(SECOND / 2);
        let takes = Arc::new(Mutex::new(Duration::from_millis(1)));
        let ways = takes.clone();
        let link = Link::carried(world.clock.clone(), move || *ways.lock().unwrap());
        world.store().reached_by(link);
        revoke_all(&world).await;
        let begun = world.clock.steady();
        let until = async |at: Duration| {
            world
                .pass((begun + at).saturating_sub(world.clock.steady()))
                .await
        };
        // The answer to what is written then takes three seconds.
        until(SECOND / 4).await;
        *takes.lock().unwrap() = SECOND * 3;
        until(SECOND * 3 / 4).await;
        *takes.lock().unwrap() = Duration::from_millis(1);
        until(SECOND * 3 / 4 + after).await;
        revoke_all(&world).await;
        world.pass(SECOND * 10).await;
        let behind = world.records().await;
        let behind: Vec<_> = behind.iter().filter(|record| record.revoked).collect();
        assert!(behind.is_empty(), "{after:?}: {behind:?}");
    }
}

/// Notes that every token was revoked, and is to be issued again.
async fn revoke_all(world: &World) {
    let at = world.clock.now();
    let steps = world.records().await.into_iter().map(|record| StepOn {
        num: record.num,
        step: Step::Revoked {
            at,
            then: Then::Reissue,
        },
        request_id: None,
    });
    let cause = Cause::ours("a laptop was stolen");
    world
        .store()
        .step(steps.collect(), &cause, at)
        .await
        .unwrap();
}
