//! What an operator may ask of a dispatcher: a rate, a pause, a test, another try.

use std::{collections::BTreeSet, time::Duration};

use renewd::{
    config::{Limit, SinkSettings},
    engine::Ask,
    model::Tested,
    store::{Disabled, Rows},
};
use tokio::sync::oneshot;

use super::{
    S,
    harness::{Harness, Manner, Running},
    seconds,
};

async fn pause(harness: &Harness, sink: &str) {
    let disabled = Disabled {
        why: "paused by ops".to_owned(),
        by_command: true,
    };
    let (sink, now) = (sink.parse().unwrap(), harness.clock.now());
    harness
        .store
        .disable_sink(&sink, disabled, now)
        .await
        .unwrap();
}

async fn enable(harness: &Harness, sink: &str) {
    let (sink, now) = (sink.parse().unwrap(), harness.clock.now());
    harness.store.enable_sink(&sink, now).await.unwrap();
}

async fn test(dispatcher: &Running) -> Tested {
    let (answer, answered) = oneshot::channel();
    let resource = "contoso".parse().unwrap();
    dispatcher
        .commands
        .send(Ask::Test { resource, answer })
        .await
        .unwrap();
    answered.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_in_every_window_and_used_up() {
    let names: Vec<String> = (0..23).map(|n| format!("bot{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::new(&names, &["crm"]).await;
    let mut settings = harness.webhook_settings("crm", &["token.*"]);
    settings.rate = Some(Limit {
        calls: 5,
        window: Duration::from_secs(2),
    });
    let dispatcher = harness.start(&SinkSettings::Webhook(settings));
    for name in &names {
        harness.issue(name).await;
    }
    let began = harness.clock.now();
    harness.after(S * 30).await;
    let at: Vec<f64> = harness
        .receiver
        .seen()
        .iter()
        .map(|arrival| seconds(began, arrival.at))
        .collect();
    assert_eq!(at.len(), names.len());
    for (first, sixth) in at.iter().zip(&at[5..]) {
        assert!(sixth - first >= 2.0, "{at:?}");
    }
    assert!(at.last().unwrap() < &8.5, "{at:?}");
    dispatcher.stop().await;
}

/// One identity with a token, whose file a dispatcher is to write.
async fn with_a_file() -> (Harness, SinkSettings, std::path::PathBuf) {
    let harness = Harness::new(&["bot"], &["files"]).await;
    let settings = SinkSettings::File(harness.file_settings("files"));
    let file = harness.dir.path().join("tokens/bot");
    harness.issue("bot").await;
    (harness, settings, file)
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlasts_a_restart_and_what_waited_goes_out_after_it() {
    let (harness, settings, file) = with_a_file().await;
    let dispatcher = harness.start(&settings);
    harness.after(S).await;
    pause(&harness, "files").await;
    harness.issue("bot").await;
    harness.after(S * 600).await;
    dispatcher.stop().await;
    std::fs::remove_file(&file).unwrap();

    let dispatcher = harness.start(&settings);
    harness.after(S * 600).await;
    {
        let view = dispatcher.view.borrow();
        assert!(view.paused && view.disabled.is_some());
        assert!(view.restored, "nobody waits for the files of a paused sink");
    }
    assert!(!file.exists(), "they stay as they lie");
    enable(&harness, "files").await;
    harness.after(S).await;
    assert!(file.is_file());
    assert!(!harness.delivery("bot").await.is_pending());
    assert!(!dispatcher.view.borrow().paused);
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn files_that_vanished_during_a_pause_come_back_after_it() {
    let (harness, settings, file) = with_a_file().await;
    let dispatcher = harness.start(&settings);
    harness.after(S).await;
    dispatcher.stop().await;
    pause(&harness, "files").await;
    std::fs::remove_file(&file).unwrap();
    let dispatcher = harness.start(&settings);
    harness.after(S).await;
    enable(&harness, "files").await;
    harness.after(S).await;
    assert!(file.is_file(), "though nothing was pending");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_test_takes_the_real_path_and_leaves_no_trace() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["identity.gone"]);
    pause(&harness, "crm").await;
    harness.after(S).await;
    harness
        .receiver
        .behaves(|_| Manner::Slowly(Duration::from_millis(250)));
    let tested = test(&dispatcher).await;
    let taken = "the receiver took it with status 200";
    assert_eq!(tested.result.as_deref(), Ok(taken));
    assert_eq!(tested.took, Duration::from_millis(250));
    harness.receiver.behaves(|_| Manner::Answer(410));
    let refused = test(&dispatcher).await.result.unwrap_err();
    assert!(refused.contains("410"), "{refused}");

    let seen = harness.receiver.seen();
    assert!(
        seen.iter().all(|a| a.kind == "renewd.sink.test"),
        "{seen:?}"
    );
    assert!(seen.iter().all(|a| a.name.starts_with("renewd-test-")));
    let subjects: BTreeSet<&str> = seen.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(subjects.len(), 2, "no two tests are the same");
    let view = dispatcher.view.borrow().clone();
    assert_eq!(
        (view.delivered, view.failed, view.failures_in_row),
        (0, 0, 0)
    );
    assert_eq!(view.disabled.as_deref(), Some("paused by ops"));
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_test_of_a_file_sink_writes_and_removes_again() {
    let harness = Harness::new(&["bot"], &["files"]).await;
    let dispatcher = harness.start(&SinkSettings::File(harness.file_settings("files")));
    let folder = harness.dir.path().join("tokens");
    let tested = test(&dispatcher).await;
    assert!(
        tested
            .result
            .unwrap()
            .contains("written, and removed again")
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    let refused = test(&dispatcher).await.result.unwrap_err();
    assert!(refused.contains("is not a folder"), "{refused}");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_need_not_wait_for_breaker_receiver_or_schedule() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness.receiver.behaves(|_| Manner::Wait(503, 3600));
    harness.issue("bot").await;
    harness.after(S * 2).await;
    harness.receiver.behaves(|_| Manner::Answer(200));
    let asked = harness.clock.now();
    let retried = harness.store.retry_deliveries(Rows::default(), asked).await;
    assert_eq!(retried.unwrap(), 1);
    dispatcher.commands.send(Ask::GoOn).await.unwrap();
    harness.after(S).await;
    let seen = harness.receiver.seen();
    assert_eq!(seen.len(), 2);
    assert!(seconds(asked, seen[1].at) < 0.1, "{seen:?}");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_the_same_event_once_more() {
    let harness = Harness::new(&["bot"], &["crm"]).await;
    let dispatcher = harness.webhook("crm", &["token.*"]);
    let version = harness.issue("bot").await.0;
    harness.after(S * 60).await;
    let now = harness.clock.now();
    let replayed = harness.store.replay_deliveries(Rows::default(), now).await;
    assert_eq!(replayed.unwrap(), 1);
    harness.after(S * 60).await;
    assert_eq!(harness.receiver.taken("bot"), [version, version]);
    dispatcher.stop().await;
}

/// Ten receivers that never answer beside ten that do: over many versions no healthy one waits for
/// another's sake, not even for an instant of the clock.
#[tokio::test(start_paused = true)]
async fn ten_hanging_receivers_delay_none_of_ten_healthy_ones() {
    let sinks: Vec<String> = (0..10)
        .flat_map(|n| [format!("hung{n}"), format!("well{n}")])
        .collect();
    let sinks: Vec<&str> = sinks.iter().map(String::as_str).collect();
    let names: Vec<String> = (0..40).map(|n| format!("bot{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::new(&names, &sinks).await;
    harness
        .receiver
        .behaves(|arrival| match arrival.sink.starts_with("hung") {
            true => Manner::Slowly(S * 7200),
            false => Manner::Answer(200),
        });
    let dispatchers: Vec<Running> = sinks
        .iter()
        .map(|sink| harness.webhook(sink, &["token.*"]))
        .collect();
    for _ in 0..6 {
        harness.receiver.forget();
        let committed = harness.clock.now();
        for name in &names {
            harness.issue(name).await;
        }
        harness.after(S * 90).await;
        let seen = harness.receiver.seen();
        let well: Vec<_> = seen.iter().filter(|a| a.sink.starts_with("well")).collect();
        assert_eq!(well.len(), 10 * names.len());
        for arrival in &well {
            assert!(seconds(committed, arrival.at) < 0.1, "{arrival:?}");
        }
        // The hanging ones go on being tried, and every one of those tries comes after all of the
        // healthy deliveries but those that began with them.
        let retried = seen.iter().position(|a| seconds(committed, a.at) >= 0.1);
        let last_well = seen.iter().rposition(|a| a.sink.starts_with("well"));
        assert!(retried.is_some_and(|at| at > last_well.unwrap()));
    }
    for dispatcher in &dispatchers {
        let view = dispatcher.view.borrow();
        assert!(view.failures_in_row == 0 || view.failures_in_row >= 10);
    }
    for dispatcher in dispatchers {
        dispatcher.kill().await;
    }
}
