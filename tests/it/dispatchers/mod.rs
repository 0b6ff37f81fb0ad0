//! Dispatchers: at least once, newest only, in order per identity, never hot, never all for one.

mod bundles;
pub(crate) mod harness;
mod notices;
mod operators;
mod restoring;
mod upkeep;

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use jiff::SignedDuration;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd::{
    config::SinkSettings,
    engine::restore,
    model::{Notice, NoticeKind, Step, Then, Timestamp},
    sinks::FileSink,
    store::{Cause, StepOn},
};

use harness::{Harness, Manner};

const S: Duration = Duration::from_secs(1);

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_only_the_newest_version_goes_out() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.receiver.behaves(|_| Manner::Answer(503));
    let mut newest = 0;
    for _ in 0..20 {
        newest = harness.issue("bot").await.0;
        harness.after(S * 60).await;
    }
    assert!(harness.receiver.taken("bot").is_empty());
    assert!(
        harness
            .delivery("bot")
            .await
            .last_error
            .unwrap()
            .contains("503")
    );
    harness.receiver.behaves(|_| Manner::Answer(200));
    harness.after(S * 31).await;
    assert_eq!(harness.receiver.taken("bot"), [newest]);
    let row = harness.delivery("bot").await;
    assert!(!row.is_pending() && row.attempts == 0 && row.last_error.is_none());
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_goes_out_at_once_and_once() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.after(S * 100).await;
    let committed = harness.clock.now();
    harness.issue("bot").await;
    harness.after(S * 3600).await;
    let seen = harness.receiver.seen();
    assert_eq!(seen.len(), 1);
    assert!(seconds(committed, seen[0].at) < 0.1, "{seen:?}");
    assert_eq!(seen[0].kind, "renewd.token.issued");
    assert_eq!(dispatcher.view.borrow().delivered, 1);
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retries_follow_the_schedule_until_the_token_expires() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.receiver.behaves(|_| Manner::Answer(500));
    harness.issue_for("bot", S * 1200).await;
    harness.after(S * 4000).await;
    let seen = harness.receiver.seen();
    let gaps: Vec<f64> = seen
        .windows(2)
        .map(|pair| seconds(pair[0].at, pair[1].at))
        .collect();
    for (gap, wanted) in gaps.iter().zip([1.0, 5.0, 30.0, 120.0, 600.0]) {
        assert!(
            (wanted * 0.8..=wanted * 1.2 + 0.1).contains(gap),
            "{gaps:?}"
        );
    }
    assert!(
        (5..=6).contains(&seen.len()),
        "then it had expired: {gaps:?}"
    );
    assert!(harness.delivery("bot").await.is_pending());
    harness.receiver.behaves(|_| Manner::Answer(200));
    let newest = harness.issue("bot").await.0;
    harness.after(S).await;
    assert_eq!(
        harness.receiver.taken("bot"),
        [newest],
        "the next version comes at once"
    );
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_expired_undelivered_is_never_sent_but_a_hold_is() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    harness.issue_for("bot", S * 10).await;
    harness.after(S * 20).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.after(S * 7200).await;
    assert!(harness.receiver.seen().is_empty());
    let cause = Cause::ours("lost laptop");
    let withhold = StepOn {
        num: harness.num("bot"),
        step: Step::Withhold,
        request_id: None,
    };
    harness
        .store
        .step(vec![withhold], &cause, harness.clock.now())
        .await
        .unwrap();
    harness.after(S).await;
    assert_eq!(harness.receiver.seen()[0].kind, "renewd.token.held");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_undelivered_is_never_sent_but_its_successor_is() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    harness.issue("bot").await;
    let revoked = StepOn {
        num: harness.num("bot"),
        step: Step::Revoked {
            at: harness.clock.now(),
            then: Then::Reissue,
        },
        request_id: None,
    };
    let cause = Cause::ours("lost laptop");
    let step = harness
        .store
        .step(vec![revoked], &cause, harness.clock.now());
    step.await.unwrap();
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.after(S * 60).await;
    assert!(harness.receiver.seen().is_empty());
    harness.issue("bot").await;
    harness.after(S).await;
    assert_eq!(harness.receiver.seen().len(), 1);
    dispatcher.stop().await;
}

/// A token's times are the service's: by a clock that is hours off ours it is judged all the same.
#[tokio::test(start_paused = true)]
async fn whether_a_token_is_dead_is_judged_by_the_clock_that_it_was_minted_under() {
    for (hours, delivered) in [(-3, 1), (3, 0)] {
        let harness = Harness::new(&["bot"], &["crm"]).await;
        let _renewer = harness.skew(hours);
        harness.issue_for("bot", S * 3600 * 2).await;
        harness
            .after(if hours < 0 { S * 3600 * 4 } else { S })
            .await;
        let dispatcher = harness.webhook("crm", &["token.*"]);
        harness.after(S * 10).await;
        assert_eq!(harness.receiver.seen().len(), delivered, "{hours}");
        dispatcher.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_receiver_gets_probes_and_on_its_return_everything() {
    let names: Vec<String> = (0..200).map(|n| format!("bot{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::new(&names, &["crm"]).await;
    for name in &names {
        harness.issue(name).await;
    }
    harness.receiver.behaves(|_| Manner::Answer(500));
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.after(S * 5).await;
    assert!(dispatcher.view.borrow().failures_in_row >= 10);
    harness.after(S * 100).await;
    harness.receiver.forget();
    harness.after(S * 3600).await;
    let probes = harness.receiver.seen();
    assert!(
        (115..=125).contains(&probes.len()),
        "one in 30 s: {}",
        probes.len()
    );
    harness.receiver.behaves(|_| Manner::Answer(200));
    harness.after(S * 35).await;
    assert!(
        names
            .iter()
            .all(|name| harness.receiver.taken(name).len() == 1)
    );
    let view = dispatcher.view.borrow().clone();
    assert_eq!((view.failures_in_row, view.probe_at), (0, None));
    dispatcher.stop().await;
}

/// What waits expires while the receiver is away: nobody is served by it, so nothing goes out, and little is done.
#[tokio::test(start_paused = true)]
async fn a_dead_receiver_of_dead_tokens_costs_next_to_nothing_and_a_live_one_is_its_probe() {
    let names: Vec<String> = (0..200).map(|n| format!("bot{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::new(&names, &["crm"]).await;
    harness.receiver.behaves(|_| Manner::Answer(500));
    for name in &names {
        harness.issue_for(name, S * 1200).await;
    }
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.after(S * 1300).await;
    harness.receiver.forget();
    let before = harness.delivery("bot3").await.attempts;
    let rounds = dispatcher.rounds(S * 3600 * 5).await;
    assert!(rounds < 3000, "four in a minute at most, not {rounds}");
    let looked_at = harness.delivery("bot3").await.attempts - before;
    assert!(looked_at <= 6, "once an hour, not {looked_at} times");
    assert!(harness.receiver.seen().is_empty());
    harness.receiver.behaves(|_| Manner::Answer(200));
    harness.issue("bot150").await;
    harness.after(S * 31).await;
    assert_eq!(harness.receiver.taken("bot150").len(), 1);
    let view = dispatcher.view.borrow().clone();
    assert_eq!((view.failures_in_row, view.probe_at), (0, None));
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_returns_need_not_wait_for_the_schedule() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    harness.receiver.behaves(|_| Manner::Answer(500));
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.issue("bot").await;
    harness.after(S * 2 * 3600).await;
    let due = harness.delivery("bot").await.next_at;
    assert!(
        seconds(harness.clock.now(), due) > 60.0,
        "the schedule alone would wait"
    );
    harness.receiver.behaves(|_| Manner::Answer(200));
    harness.after(S * 31).await;
    assert_eq!(harness.receiver.taken("bot").len(), 1, "a probe carried it");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_has_one_attempt_in_flight_and_versions_never_fall() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    harness.receiver.behaves(|_| Manner::Slowly(S * 10));
    let dispatcher = harness.webhook("crm", &["token.*"]);
    let mut newest = 0;
    for _ in 0..12 {
        newest = harness.issue("bot").await.0;
        harness.after(S * 4).await;
    }
    harness.after(S * 40).await;
    let seen = harness.receiver.seen();
    assert!(
        seen.windows(2)
            .all(|pair| seconds(pair[0].at, pair[1].at) >= 10.0),
        "{seen:?}"
    );
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].version < pair[1].version),
        "{seen:?}"
    );
    assert_eq!(seen.last().unwrap().version, newest);
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_identity_delays_no_other_and_a_hanging_sink_no_other_sink() {
    let harness = Harness::new(&["bot", "stuck"], &["crm", "slow"]).await;
    harness
        .receiver
        .behaves(|arrival| match arrival.name.as_str() {
            "stuck" => Manner::Slowly(S * 60),
            _ => Manner::Answer(200),
        });
    let dispatchers = [
        harness.webhook("crm", &["token.*"]),
        harness.webhook("slow", &["token.*"]),
    ];
    let began = harness.clock.now();
    harness.issue("stuck").await;
    harness.issue("bot").await;
    harness.after(S * 2).await;
    let seen = harness.receiver.seen();
    let healthy: Vec<_> = seen.iter().filter(|a| a.name == "bot").collect();
    assert_eq!(healthy.len(), 2, "one by each sink");
    assert!(healthy.iter().all(|a| seconds(began, a.at) < 0.1));
    for dispatcher in dispatchers {
        dispatcher.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_sets_one_delivery_aside_and_no_other() {
    let harness = Harness::new(&["bad", "bot"], &["crm"]).await;
    harness
        .receiver
        .behaves(|arrival| match arrival.name.as_str() {
            "bad" => Manner::Panic,
            _ => Manner::Answer(200),
        });
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.issue("bad").await;
    harness.issue("bot").await;
    harness.after(S * 600).await;
    assert_eq!(harness.receiver.taken("bot").len(), 1);
    let seen = harness.receiver.seen();
    let attempts: Vec<_> = seen.iter().filter(|a| a.name == "bad").collect();
    assert!((2..=5).contains(&attempts.len()), "{attempts:?}");
    assert!(
        attempts
            .windows(2)
            .all(|pair| seconds(pair[0].at, pair[1].at) >= 59.0)
    );
    assert!(
        harness
            .delivery("bad")
            .await
            .last_error
            .unwrap()
            .contains("renewd itself")
    );
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_heeded_by_the_whole_sink() {
    let harness = Harness::new(&["bot", "bot2"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.receiver.behaves(|_| Manner::Wait(429, 120));
    let began = harness.clock.now();
    harness.issue("bot").await;
    harness.after(S).await;
    harness.receiver.behaves(|_| Manner::Answer(200));
    harness.issue("bot2").await;
    harness.after(S * 300).await;
    let seen = harness.receiver.seen();
    assert_eq!(seen.len(), 3);
    assert!(
        seen[1..].iter().all(|a| seconds(began, a.at) >= 120.0),
        "{seen:?}"
    );
    assert!(
        seen[1..].iter().all(|a| seconds(began, a.at) < 125.0),
        "{seen:?}"
    );
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_tokens_end_is_cut_so_that_it_is_tried_again_before() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.receiver.behaves(|_| Manner::Wait(503, 7 * 86_400));
    harness.issue("bot").await;
    harness.after(S * 86_400).await;
    let seen = harness.receiver.seen();
    assert!(seen.len() >= 2, "tried again while it lives: {seen:?}");
    let attempts = seen.len();
    harness.after(S * 3_600).await;
    assert_eq!(
        harness.receiver.seen().len(),
        attempts,
        "and not after its end"
    );
    dispatcher.stop().await;
}

/// Crashes, rotations, lost answers, slow receivers and clocks that are set, in random order: every history ends with the
/// newest version, and no receiver ever sees an older one after a newer.
#[tokio::test(start_paused = true)]
async fn random_histories_end_with_the_newest_version() {
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let names = ["a", "b", "c"];
        let harness = Harness::new(&names, &["crm"]).await;
        let mut chance = ChaCha8Rng::seed_from_u64(seed + 1000);
        harness
            .receiver
            .behaves(move |_| match chance.random_range(0..10) {
                0..4 => Manner::Answer(200),
                4..6 => Manner::Answer(503),
                6..8 => Manner::Silently,
                _ => Manner::Slowly(S * chance.random_range(0..20)),
            });
        let mut dispatcher = harness.webhook("crm", &["token.*"]);
        for _ in 0..rng.random_range(5..25) {
            match rng.random_range(0..10) {
                0..6 => {
                    harness.issue(names[rng.random_range(0..3)]).await;
                }
                6 => {
                    dispatcher.kill().await;
                    dispatcher = harness.webhook("crm", &["token.*"]);
                }
                7 => {
                    // The wall clock is set, an hour at most, and sometimes that is confirmed.
                    let by = SignedDuration::from_secs(rng.random_range(-3600..3600));
                    harness.clock.step_wall(by);
                    if rng.random_bool(0.5) {
                        harness.clock.confirm(harness.clock.now() + by);
                    }
                }
                _ => harness.after(S * rng.random_range(0..40)).await,
            }
        }
        harness.receiver.behaves(|_| Manner::Answer(200));
        harness.after(S * 1500).await;
        dispatcher.stop().await;
        for name in names {
            let row = harness.delivery(name).await;
            assert!(!row.is_pending(), "seed {seed}: {row:?}");
            let taken = harness.receiver.taken(name);
            assert!(taken.is_sorted(), "seed {seed}: {taken:?}");
            assert_eq!(
                taken.last().copied().unwrap_or(0),
                row.wanted.0,
                "seed {seed}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_deliveries() {
    let mut histories = BTreeSet::new();
    for _ in 0..2 {
        let harness = Harness::new(&["a", "b", "c"], &["crm"]).await;
        let mut count = 0;
        harness.receiver.behaves(move |_| {
            count += 1;
            Manner::Answer(if count % 3 == 0 { 200 } else { 500 })
        });
        let dispatcher = harness.webhook("crm", &["token.*"]);
        for name in ["a", "b", "c", "a"] {
            harness.issue(name).await;
            harness.after(S * 2).await;
        }
        harness.after(S * 3600).await;
        dispatcher.stop().await;
        histories.insert(format!("{:?}", harness.receiver.seen()));
    }
    assert_eq!(histories.len(), 1);
}
