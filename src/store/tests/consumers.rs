//! Who holds a live token is counted by what was delivered, not by what the store has.

use super::*;
use crate::model::{Consumers, Notice, NoticeKind};

async fn all(store: &Store, secs: i64) -> Consumers {
    store.served(at(secs)).await.unwrap().all()
}

/// Live, without, unknown.
async fn counts(store: &Store, secs: i64) -> (u64, u64, u64) {
    let all = all(store, secs).await;
    (all.live, all.without, all.unknown)
}

#[tokio::test]
async fn what_is_not_delivered_is_held_by_nobody() {
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    assert_eq!(counts(&home, 12).await, (0, 1, 0));
    deliver(&home, "file", num, first).await;
    assert_eq!(counts(&home, 12).await, (1, 0, 0));
    assert_eq!(all(&home, 12).await.next_end, Some(at(10 + 86_400)));
    let second = version(commit(&home, issued(num, 43_000, None), 43_001).await);
    assert_eq!(
        all(&home, 43_002).await.next_end,
        Some(at(10 + 86_400)),
        "the consumer still holds the first"
    );
    assert_eq!(
        counts(&home, 10 + 86_400).await,
        (0, 1, 0),
        "which ended, although the store has a newer one"
    );
    deliver(&home, "file", num, second).await;
    assert_eq!(counts(&home, 10 + 86_400).await, (1, 0, 0));
}

#[tokio::test]
async fn a_delivery_that_was_overtaken_counts_for_what_it_brought() {
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    commit(&home, issued(num, 20, None), 21).await;
    deliver(&home, "file", num, first).await;
    assert_eq!(all(&home, 22).await.next_end, Some(at(10 + 86_400)));
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    commit(&home, issued(num, 20, None), 21).await;
    commit(&home, issued(num, 30, None), 31).await;
    deliver(&home, "file", num, first).await;
    assert_eq!(counts(&home, 32).await, (0, 0, 1), "two behind: not known");
}

#[tokio::test]
async fn what_was_revoked_is_dead_and_what_is_held_is_not_missed() {
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    deliver(&home, "file", num, first).await;
    step(&home, num, revoked(20, Then::Reissue), 20).await;
    assert_eq!(counts(&home, 21).await, (0, 1, 0));
    let next = version(commit(&home, issued(num, 22, None), 23).await);
    deliver(&home, "file", num, next).await;
    assert_eq!(counts(&home, 24).await, (1, 0, 0));
    let held = step(&home, num, Step::Withhold, 30).await;
    assert_eq!(counts(&home, 31).await, (0, 0, 0), "nobody should hold one");
    deliver(&home, "file", num, held).await;
    assert_eq!(counts(&home, 32).await, (0, 0, 0));
    step(&home, num, Step::Release, 40).await;
    assert_eq!(counts(&home, 41).await, (0, 1, 0));
    let next = version(commit(&home, issued(num, 50, None), 51).await);
    deliver(&home, "file", num, next).await;
    assert_eq!(counts(&home, 52).await, (1, 0, 0));
}

#[tokio::test]
async fn the_socket_is_the_consumer_of_what_has_no_sink() {
    let home = Home::new();
    let alone = Spec {
        sinks: Vec::new(),
        ..with_id("bot", "8:acs:bot")
    };
    declare(&home, std::slice::from_ref(&alone), 0).await;
    let num = get(&home, "bot").await.num;
    assert_eq!(counts(&home, 1).await, (0, 1, 0));
    commit(&home, issued(num, 10, None), 11).await;
    assert_eq!(counts(&home, 12).await, (1, 0, 0));
    let served = home.served(at(12)).await.unwrap();
    assert_eq!((served.socket.live, served.sinks.len()), (1, 0));
    assert_eq!(counts(&home, 10 + 86_400).await, (0, 1, 0));
    let served = home.served(at(10 + 86_400)).await.unwrap();
    assert_eq!(served.without[&resource()], 1);
    declare(&home, &[with_id("bot", "8:acs:bot")], 20).await;
    let served = home.served(at(21)).await.unwrap();
    assert_eq!((served.socket.total(), served.all().without), (0, 1));
    declare(&home, &[], 30).await;
    assert_eq!(counts(&home, 31).await, (0, 0, 0), "held: nobody should");
}

#[tokio::test]
async fn what_begins_and_what_ends_is_told_once_each_under_its_key() {
    let mut home = Home::new();
    let notice = |kind| Notice {
        at: at(0),
        kind,
        resource: None,
        name: None,
        key: Some("sink crm".to_owned()),
        message: String::new(),
    };
    use NoticeKind::{SinkFailing, SinkRecovered};
    for (kind, news) in [
        (SinkRecovered, false),
        (SinkFailing, true),
        (SinkFailing, false),
        (SinkRecovered, true),
        (SinkRecovered, false),
        (SinkFailing, true),
    ] {
        let told = home.announce(notice(kind)).await.unwrap();
        assert_eq!(told, news, "{kind}");
        home.reopen();
    }
    let open = home.open_notice("sink crm".to_owned()).await.unwrap();
    assert_eq!(open, Some(SinkFailing));
}

#[tokio::test]
async fn a_sink_that_comes_takes_its_consumers_from_the_socket_and_one_that_goes_leaves_them_to_it()
{
    let home = Home::new();
    let nobody: [SinkName; 0] = [];
    let specs = [with_id("bot", "8:acs:bot")];
    home.reconcile(&specs, &nobody, at(0)).await.unwrap();
    let num = get(&home, "bot").await.num;
    commit(&home, issued(num, 10, None), 11).await;
    assert_eq!(counts(&home, 12).await, (1, 0, 0), "the socket serves it");
    declare(&home, &specs, 13).await;
    assert_eq!(counts(&home, 14).await, (0, 1, 0), "nothing was delivered");
    let version = version(commit(&home, issued(num, 20, None), 21).await);
    assert_eq!(pending(&home, "file", 22).await[0].wanted, version);
    deliver(&home, "file", num, version).await;
    home.reconcile(&specs, &[sink("hook")], at(23))
        .await
        .unwrap();
    assert_eq!(
        counts(&home, 24).await,
        (1, 0, 0),
        "the socket serves it again"
    );
}
