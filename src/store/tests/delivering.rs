//! The ledger and the notices.

use super::*;
use crate::model::{Notice, NoticeKind};

fn failed(num: Num, version: Version, next: i64) -> Settled {
    Settled::Failed {
        sink: sink("file"),
        num,
        version,
        next_at: at(next),
        error: "no route".to_owned(),
    }
}

#[tokio::test]
async fn a_failure_waits_and_a_newer_version_is_tried_at_once() {
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    home.settle(vec![failed(num, first, 100)]).await.unwrap();
    assert!(pending(&home, "file", 99).await.is_empty());
    let waiting = &pending(&home, "file", 100).await[0];
    assert_eq!(
        (waiting.attempts, waiting.last_error.as_deref()),
        (1, Some("no route"))
    );
    let next = home.next_pending(&sink("file"), &none()).await.unwrap();
    assert_eq!(next, Some(at(100)));

    let second = version(commit(&home, issued(num, 20, None), 21).await);
    let now = &pending(&home, "file", 21).await[0];
    assert_eq!((now.wanted, now.attempts), (second, 0));
    assert_eq!(now.last_error, None);

    home.settle(vec![failed(num, first, 500)]).await.unwrap();
    assert_eq!(
        pending(&home, "file", 21).await[0].attempts,
        0,
        "the old version's failure is over"
    );
    deliver(&home, "file", num, first).await;
    assert!(
        pending(&home, "file", 21).await[0].is_pending(),
        "the old version does not settle it"
    );
    deliver(&home, "file", num, second).await;
    assert!(pending(&home, "file", 9999).await.is_empty());
    deliver(&home, "file", num, first).await;
    assert!(
        pending(&home, "file", 9999).await.is_empty(),
        "delivered never goes back"
    );
}

#[tokio::test]
async fn those_in_flight_are_left_out_and_a_closed_breaker_hastens_the_rest() {
    let home = Home::new();
    let specs = ["a", "b"].map(|n| with_id(n, &format!("8:acs:{n}")));
    declare(&home, &specs, 0).await;
    let (a, b) = (get(&home, "a").await.num, get(&home, "b").await.num);
    commit(&home, issued(a, 1, None), 2).await;
    let version = version(commit(&home, issued(b, 1, None), 2).await);
    let skip = [a].into();
    let found = home.pending(&sink("file"), at(2), 10, &skip).await.unwrap();
    assert_eq!(found.len(), 1);
    home.settle(vec![failed(b, version, 600)]).await.unwrap();
    let next = home.next_pending(&sink("file"), &skip).await.unwrap();
    assert_eq!(next, Some(at(600)));
    home.hasten(&sink("file"), at(10)).await.unwrap();
    assert_eq!(pending(&home, "file", 10).await.len(), 2);
}

#[tokio::test]
async fn delivered_rows_can_be_paged_and_wanted_once_more() {
    let (home, num) = active().await;
    let version = get(&home, "bot").await.version;
    deliver(&home, "file", num, version).await;
    let page = home.delivered_page(&sink("file"), 0, 10).await.unwrap();
    assert_eq!((page.len(), page[0].delivered), (1, version));
    assert!(
        home.delivered_page(&sink("file"), num, 10)
            .await
            .unwrap()
            .is_empty()
    );
    home.redeliver(num, Some(sink("file")), at(50))
        .await
        .unwrap();
    assert_eq!(pending(&home, "file", 50).await[0].wanted, version);
    let held = home.consignment(num).await.unwrap().unwrap();
    assert_eq!(held.readers, spec("bot").readers);
}

#[tokio::test]
async fn a_disabled_sink_stays_disabled_over_restarts() {
    let (mut home, _) = active().await;
    home.set_sink_disabled(&sink("file"), Some("it answered 410".to_owned()))
        .await
        .unwrap();
    home.reopen();
    let why = home.sink_disabled(&sink("file")).await.unwrap();
    assert_eq!(why.as_deref(), Some("it answered 410"));
    home.set_sink_disabled(&sink("file"), None).await.unwrap();
    assert_eq!(home.sink_disabled(&sink("file")).await.unwrap(), None);
}

#[tokio::test]
async fn notices_keep_their_order_and_each_sink_its_place() {
    let home = Home::new();
    let notice = |n: i64| Notice {
        at: at(n),
        kind: NoticeKind::RenewalLate,
        resource: Some(resource()),
        name: Some(name("bot")),
        message: format!("notice {n}"),
    };
    home.raise(vec![notice(0)]).await.unwrap();
    declare(&home, &[], 1).await;
    let cursor = home.notice_cursor(&sink("hook")).await.unwrap();
    assert_eq!(cursor, 1, "a new sink hears from now on");
    home.raise(vec![notice(1), notice(2)]).await.unwrap();
    let found = home.notices(cursor, 10).await.unwrap();
    assert_eq!(found, [(2, notice(1)), (3, notice(2))]);
    home.advance_cursor(&sink("hook"), 3).await.unwrap();
    home.advance_cursor(&sink("hook"), 2).await.unwrap();
    assert_eq!(home.notice_cursor(&sink("hook")).await.unwrap(), 3);
    assert_eq!(home.latest_notices(1).await.unwrap()[0].0, 3);
}

#[tokio::test]
async fn a_sink_that_comes_after_others_waits_for_each_version() {
    let home = Home::new();
    let spec = Spec {
        sinks: vec![sink("file"), sink("hook")],
        ..with_id("a", "8:acs:a")
    };
    let alone = Spec {
        sinks: vec![sink("hook")],
        ..with_id("b", "8:acs:b")
    };
    declare(&home, &[spec, alone], 0).await;
    home.set_after(&sink("hook"), &[sink("file")])
        .await
        .unwrap();
    let (a, b) = (get(&home, "a").await.num, get(&home, "b").await.num);
    let of_a = version(commit(&home, issued(a, 10, None), 11).await);
    commit(&home, issued(b, 10, None), 11).await;
    let nums = async |at| {
        let found = pending(&home, "hook", at).await;
        found.iter().map(|d| d.num).collect::<Vec<_>>()
    };
    assert_eq!(nums(99).await, [b], "b has no file to wait for");
    let skip = [b].into();
    assert_eq!(home.next_pending(&sink("hook"), &skip).await.unwrap(), None);

    let mut told = home.wanted_signal();
    told.mark_unchanged();
    deliver(&home, "file", a, of_a).await;
    assert!(told.has_changed().unwrap(), "those that wait are told");
    assert_eq!(nums(99).await, [a, b]);

    commit(&home, issued(a, 20, None), 21).await;
    assert_eq!(nums(99).await, [b], "the next version waits again");
}
