//! The delivery table and the notices; files that nobody speaks of any more, whatever let go of them; and who holds
//! a live token, counted by what was delivered, not by what the store has.

use super::*;
use crate::{
    model::{Consumers, Notice, NoticeKind, Placed},
    store::{Disabled, Rows},
};

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
    home.settle(vec![failed(num, first, 100)], at(100))
        .await
        .unwrap();
    assert!(pending(&home, "file", 99).await.is_empty());
    let waiting = &pending(&home, "file", 100).await[0];
    assert_eq!(
        (waiting.attempts, waiting.last_error.as_deref()),
        (1, Some("no route"))
    );
    let early = home.pending(&sink("file"), at(99), 10, &none()).await;
    assert_eq!(early.unwrap().next_at, Some(at(100)));

    let second = version(commit(&home, issued(num, 20, None), 21).await);
    let now = &pending(&home, "file", 21).await[0];
    assert_eq!((now.wanted, now.attempts), (second, 0));
    assert_eq!(now.last_error, None);

    home.settle(vec![failed(num, first, 500)], at(500))
        .await
        .unwrap();
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
    assert_eq!((found.deliveries.len(), found.next_at), (1, None));
    home.settle(vec![failed(b, version, 600)], at(600))
        .await
        .unwrap();
    let later = home.pending(&sink("file"), at(2), 10, &skip).await.unwrap();
    assert_eq!(
        (later.deliveries, later.next_at),
        (Vec::new(), Some(at(600)))
    );
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
    assert_eq!(held.readers, spec("bot").declared.readers);
}

#[tokio::test]
async fn a_disabled_sink_stays_disabled_over_restarts() {
    let (mut home, _) = active().await;
    let (gone, paused) = (
        disabled("it answered 410", false),
        disabled("paused by ops", true),
    );
    home.disable_sink(&sink("file"), gone.clone(), at(1))
        .await
        .unwrap();
    home.reopen();
    let found = home.sink_disabled(&sink("file")).await.unwrap();
    assert_eq!(found, Some(gone.clone()));
    for one in [&paused, &gone] {
        home.disable_sink(&sink("file"), one.clone(), at(2))
            .await
            .unwrap();
    }
    let found = home.sink_disabled(&sink("file")).await.unwrap().unwrap();
    assert!(found.by_command, "a command outlasts an answer");
    home.enable_sink(&sink("file"), at(3)).await.unwrap();
    assert_eq!(home.sink_disabled(&sink("file")).await.unwrap(), None);
}

fn disabled(why: &str, by_command: bool) -> Disabled {
    Disabled {
        why: why.to_owned(),
        by_command,
    }
}

#[tokio::test]
async fn the_end_of_a_sink_is_told_once_and_to_every_other() {
    let (home, _) = active().await;
    let before = home.latest_notices(1).await.unwrap();
    let before = before.first().map_or(0, |(seq, _)| *seq);
    for _ in 0..2 {
        let gone = disabled("it answered 410", false);
        home.disable_sink(&sink("file"), gone, at(5)).await.unwrap();
    }
    let told = home.notices_for(&sink("hook"), before, 10).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].1.kind, told[0].1.message.as_str()),
        (
            NoticeKind::SinkDisabled,
            "The sink file is disabled: it answered 410. `renewd sink enable file` ends it."
        )
    );
    let itself = home.notices_for(&sink("file"), before, 10).await.unwrap();
    assert_eq!(itself, []);
    for _ in 0..2 {
        home.enable_sink(&sink("file"), at(6)).await.unwrap();
    }
    let told = home.notices_for(&sink("hook"), before, 10).await.unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(
        (told[1].1.kind, &told[1].1.key),
        (NoticeKind::SinkEnabled, &told[0].1.key)
    );
}

#[tokio::test]
async fn a_consumer_is_behind_since_the_first_version_that_it_missed() {
    let (home, num) = active().await;
    let row = async || home.deliveries_of(num).await.unwrap().remove(0);
    let behind = async || {
        let counts = home.counts().await.unwrap();
        counts.oldest_pending.get(&row().await.sink).copied()
    };
    let since = row().await.since;
    commit(&home, issued(num, 20, None), 21).await;
    let second = version(commit(&home, issued(num, 30, None), 31).await);
    assert_eq!(row().await.since, since, "a newer version keeps it");
    assert_eq!(behind().await, Some(since));
    deliver(&home, row().await.sink.as_str(), num, second).await;
    assert_eq!(behind().await, None);
    commit(&home, issued(num, 40, None), 41).await;
    assert_eq!((row().await.since, behind().await), (at(41), Some(at(41))));
}

#[tokio::test]
async fn operators_find_what_is_dead_retry_it_and_replay_the_rest() {
    let (home, num) = active().await;
    let version = get(&home, "bot").await.version;
    let file = |dead| Rows {
        sink: Some(sink("file")),
        dead,
        ..Rows::default()
    };
    let listed = async |rows: Rows| home.delivery_table(rows, 0, 10).await.unwrap().len();
    let waits = failed(num, version, 100);
    home.settle(vec![waits], at(0)).await.unwrap();
    assert_eq!(
        (listed(file(false)).await, listed(file(true)).await),
        (1, 0)
    );

    let given_up = failed(num, version, 9_999_999);
    home.settle(vec![given_up], at(0)).await.unwrap();
    assert_eq!(listed(file(true)).await, 1, "beyond the token's end");
    let retried = home.retry_deliveries(file(true), at(50)).await.unwrap();
    assert_eq!(retried, 1);
    assert_eq!(pending(&home, "file", 50).await.len(), 1);
    assert_eq!(listed(file(true)).await, 0);

    let paused = disabled("paused by ops", true);
    home.disable_sink(&sink("file"), paused, at(51))
        .await
        .unwrap();
    assert_eq!(listed(file(true)).await, 1, "its sink is disabled");

    deliver(&home, "file", num, version).await;
    let of = |num| Rows {
        nums: Some(vec![num]),
        sink: Some(sink("file")),
        ..Rows::default()
    };
    assert_eq!(home.retry_deliveries(of(num), at(60)).await.unwrap(), 0);
    assert_eq!(
        home.replay_deliveries(of(num + 1), at(60)).await.unwrap(),
        0
    );
    assert_eq!(home.replay_deliveries(of(num), at(60)).await.unwrap(), 1);
    let again = &pending(&home, "file", 60).await[0];
    assert_eq!((again.wanted, again.since), (version, at(60)));
}

#[tokio::test]
async fn notices_keep_their_order_and_each_sink_its_place() {
    let home = Home::new();
    let notice = |n: i64| Notice {
        at: at(n),
        kind: NoticeKind::RenewalLate,
        resource: Some(resource()),
        name: Some(name("bot")),
        key: None,
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
        declared: Declaration {
            sinks: vec![sink_name("file"), sink_name("hook")],
            ..with_id("a", "8:acs:a").declared
        },
        ..with_id("a", "8:acs:a")
    };
    let alone = Spec {
        declared: Declaration {
            sinks: vec![sink_name("hook")],
            ..with_id("b", "8:acs:b").declared
        },
        ..with_id("b", "8:acs:b")
    };
    declare(&home, &[spec, alone], 0).await;
    home.set_after(&sink("hook"), &[sink_name("file")])
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
    let others = home.pending(&sink("hook"), at(99), 10, &skip).await;
    assert_eq!(others.unwrap(), Pending::default());

    let mut told = home.wanted_signal();
    told.mark_unchanged();
    deliver(&home, "file", a, of_a).await;
    assert!(told.has_changed().unwrap(), "those that wait are told");
    assert_eq!(nums(99).await, [a, b]);

    commit(&home, issued(a, 20, None), 21).await;
    assert_eq!(nums(99).await, [b], "the next version waits again");
}

fn file(path: &str, content: u8) -> Placed {
    Placed {
        path: path.into(),
        digest: [content; 32],
    }
}

async fn place(store: &Store, num: Num, placed: Option<Placed>) {
    let sink = sink("file");
    store
        .settle(vec![Settled::Placed { sink, num, placed }], at(0))
        .await
        .unwrap();
}

async fn strays(store: &Store) -> Vec<(String, u8, Option<String>)> {
    let found = store.strays(at(9999), 100).await.unwrap();
    found
        .into_iter()
        .map(|stray| {
            let path = stray.placed.path.display().to_string();
            let name = stray.name.map(|name| name.to_string());
            (path, stray.placed.digest[0], name)
        })
        .collect()
}

/// What a dispatcher notes of a file, in one statement as a rule, says the same as each part by itself.
#[tokio::test]
async fn what_was_delivered_and_where_it_lies_is_noted_together_as_apart() {
    let mut noted = Vec::new();
    for together in [true, false] {
        let (home, num) = active().await;
        let first = get(&home, "bot").await.version;
        let second = version(commit(&home, issued(num, 20, None), 21).await);
        let mut seen = Vec::new();
        for (version, placed) in [
            (second, Some(file("/run/a", 1))),
            (second, Some(file("/run/a", 2))),
            (first, Some(file("/run/a", 3))),
        ] {
            settle_file(&home, num, (version, placed), together).await;
            seen.push(home.deliveries_of(num).await.unwrap());
        }
        for (secs, placed) in [
            (30, Some(file("/run/b", 4))),
            (40, Some(file("/run/b", 5))),
            (50, None),
        ] {
            let next = version(commit(&home, issued(num, secs, None), secs + 1).await);
            settle_file(&home, num, (next, placed), together).await;
            seen.push(home.deliveries_of(num).await.unwrap());
        }
        assert!(seen.iter().flatten().all(|row| !row.is_pending()));
        let counts = home.counts().await.unwrap();
        noted.push((seen, strays(&home).await, counts));
        assert_eq!(home.miscounts().await.unwrap(), []);
    }
    assert_eq!(noted[0], noted[1]);
    assert_eq!(
        noted[0].1,
        [("/run/a".to_owned(), 3, Some("bot".to_owned()))]
    );
}

async fn settle_file(
    store: &Store,
    num: Num,
    (version, placed): (Version, Option<Placed>),
    together: bool,
) {
    let sink = sink("file");
    let mut settled = vec![
        Settled::Delivered {
            sink: sink.clone(),
            num,
            version,
        },
        Settled::Placed { sink, num, placed },
    ];
    let after = if together {
        Vec::new()
    } else {
        settled.split_off(1)
    };
    for settled in [settled, after] {
        store.settle(settled, at(0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_renewed_file_is_no_stray_and_a_moved_one_is() {
    let (home, num) = active().await;
    for (path, content) in [("/run/a", 1), ("/run/a", 2), ("/run/b", 3)] {
        place(&home, num, Some(file(path, content))).await;
    }
    let expected = [("/run/a".to_owned(), 2, Some("bot".to_owned()))];
    assert_eq!(strays(&home).await, expected);
    place(&home, num, None).await;
    assert_eq!(strays(&home).await, expected, "what we removed is gone");
}

#[tokio::test]
async fn whatever_lets_go_of_a_row_leaves_a_stray() {
    let (home, num) = active().await;
    place(&home, num, Some(file("/run/a", 1))).await;
    let mut signal = home.wanted_signal();
    signal.mark_unchanged();
    home.reconcile(&[], &[], at(50)).await.unwrap();
    assert!(signal.has_changed().unwrap(), "somebody is told");
    let found = home.strays(at(50), 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].resource.as_ref().unwrap().as_str(), "contoso");
    let claimed = |by: Vec<SinkAt>, name: &str| {
        home.is_claimed("/run/a".into(), by, Some(name.parse().unwrap()))
    };
    assert!(!claimed(vec![sink("file")], "bot").await.unwrap());
    let later = vec![(found[0].num, Some(at(500)))];
    home.settle_strays(later).await.unwrap();
    assert!(home.strays(at(499), 10).await.unwrap().is_empty());
    home.settle_strays(vec![(found[0].num, None)])
        .await
        .unwrap();
    assert!(strays(&home).await.is_empty());
}

#[tokio::test]
async fn a_file_that_is_served_again_is_claimed() {
    let (home, num) = active().await;
    let claimed = |path: &str, by: Vec<SinkAt>, name: Option<&str>| {
        home.is_claimed(path.into(), by, name.map(|name| name.parse().unwrap()))
    };
    let by = || vec![sink("file")];
    assert!(claimed("/run/a", by(), Some("bot")).await.unwrap());
    assert!(claimed("/run/a", by(), None).await.unwrap());
    assert!(!claimed("/run/a", by(), Some("other")).await.unwrap());
    assert!(!claimed("/run/a", Vec::new(), Some("bot")).await.unwrap());
    place(&home, num, Some(file("/run/a", 1))).await;
    assert!(claimed("/run/a", Vec::new(), None).await.unwrap());
}

#[tokio::test]
async fn a_bundle_and_single_files_replace_each_other() {
    let (home, num) = active().await;
    place(&home, num, Some(file("/run/a", 1))).await;
    let bundle = file("/run/all", 2);
    home.place_bundle(&sink("file"), Some(bundle.clone()))
        .await
        .unwrap();
    assert_eq!(home.bundle_of(&sink("file")).await.unwrap(), Some(bundle));
    assert_eq!(strays(&home).await.len(), 1, "the single file");
    home.leave_bundle(&sink("file")).await.unwrap();
    assert_eq!(strays(&home).await[1], ("/run/all".to_owned(), 2, None));
    home.place_bundle(&sink("file"), Some(file("/run/all", 3)))
        .await
        .unwrap();
    home.place_bundle(&sink("file"), None).await.unwrap();
    assert_eq!(
        strays(&home).await.len(),
        1,
        "taken up, and removed by ourselves"
    );
}

async fn all(store: &Store, secs: i64) -> Consumers {
    store.served(at(secs)).await.unwrap().all()
}

async fn counts(store: &Store, secs: i64) -> (u64, u64, u64) {
    let all = all(store, secs).await;
    (all.live, all.without, all.unknown)
}

#[tokio::test]
async fn what_is_not_delivered_is_held_by_nobody() {
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    assert_eq!(counts(&home, 12).await, (0, 1, 0));
    assert_eq!(all(&home, 12).await.without_since, Some(at(11)));
    deliver(&home, "file", num, first).await;
    assert_eq!(counts(&home, 12).await, (1, 0, 0));
    let held = all(&home, 12).await;
    assert_eq!(held.next_end, Some(at(10 + 86_400)));
    assert_eq!(
        (held.next_life_secs, held.without_since),
        (Some(86_400), None)
    );
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
    let ended = all(&home, 20 + 86_400).await.without_since;
    assert_eq!(ended, Some(at(10 + 86_400)));
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
    assert_eq!(all(&home, 25).await.without_since, Some(at(20)));
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
        declared: Declaration {
            sinks: Vec::new(),
            ..with_id("bot", "8:acs:bot").declared
        },
        ..with_id("bot", "8:acs:bot")
    };
    declare(&home, std::slice::from_ref(&alone), 0).await;
    let num = get(&home, "bot").await.num;
    assert_eq!(counts(&home, 1).await, (0, 1, 0));
    assert_eq!(all(&home, 1).await.without_since, Some(at(0)));
    assert_eq!(home.next_end_by_socket(at(1)).await.unwrap(), None);
    commit(&home, issued(num, 10, None), 11).await;
    assert_eq!(counts(&home, 12).await, (1, 0, 0));
    let next = home.next_end_by_socket(at(12)).await.unwrap();
    assert_eq!(next, Some((at(10 + 86_400), Some(86_400))));
    let served = home.served(at(12)).await.unwrap();
    assert_eq!((served.socket.live, served.sinks.len()), (1, 0));
    assert_eq!(counts(&home, 10 + 86_400).await, (0, 1, 0));
    let served = home.served(at(10 + 86_400)).await.unwrap();
    assert_eq!(served.without[&resource()], 1);
    assert_eq!(served.socket.without_since, Some(at(10 + 86_400)));
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
    let nobody: [SinkAt; 0] = [];
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

on_postgres! {
    a_failure_waits_and_a_newer_version_is_tried_at_once
    those_in_flight_are_left_out_and_a_closed_breaker_hastens_the_rest
    delivered_rows_can_be_paged_and_wanted_once_more
    a_disabled_sink_stays_disabled_over_restarts
    the_end_of_a_sink_is_told_once_and_to_every_other
    a_consumer_is_behind_since_the_first_version_that_it_missed
    operators_find_what_is_dead_retry_it_and_replay_the_rest
    notices_keep_their_order_and_each_sink_its_place
    a_sink_that_comes_after_others_waits_for_each_version
    what_was_delivered_and_where_it_lies_is_noted_together_as_apart
    a_renewed_file_is_no_stray_and_a_moved_one_is
    whatever_lets_go_of_a_row_leaves_a_stray
    a_file_that_is_served_again_is_claimed
    a_bundle_and_single_files_replace_each_other
    what_is_not_delivered_is_held_by_nobody
    a_delivery_that_was_overtaken_counts_for_what_it_brought
    what_was_revoked_is_dead_and_what_is_held_is_not_missed
    the_socket_is_the_consumer_of_what_has_no_sink
    what_begins_and_what_ends_is_told_once_each_under_its_key
    a_sink_that_comes_takes_its_consumers_from_the_socket_and_one_that_goes_leaves_them_to_it
}
