//! Notices of what needs a person and has no other teller: one when it begins, and one when it is seen to be over.

use super::*;
use crate::model::NoticeKind;
use wire::NeedKind;

/// What was told and is not over, as the self-check keeps it.
#[derive(Default)]
struct Heard(BTreeMap<String, NoticeKind>);

impl Heard {
    /// What is told now, by kind and key.
    async fn next(&mut self, harness: &Harness) -> Vec<(NoticeKind, String)> {
        let news = harness.api.news(&self.0).await;
        let news = news.into_iter().map(|notice| {
            let key = notice.key.unwrap();
            match notice.kind.ended_by() {
                [] => self.0.remove(&key),
                _ => self.0.insert(key.clone(), notice.kind),
            };
            (notice.kind, key)
        });
        news.collect()
    }

    /// This alone is told now, under this key, and nothing after it.
    async fn only(&mut self, harness: &Harness, kind: NoticeKind, key: &str) {
        assert_eq!(self.next(harness).await, [(kind, key.to_owned())]);
        assert_eq!(self.next(harness).await, [], "it is told once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_far_off_is_told_until_an_answer_says_that_it_is_right() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    let skew = |ms: Option<i64>| harness.renewer.send_modify(|renewer| renewer.skew_ms = ms);
    skew(Some(59_000));
    assert_eq!(heard.next(&harness).await, []);
    skew(Some(-61_000));
    heard
        .only(&harness, NoticeKind::ClockOff, "time of clock")
        .await;
    // Near the bound, and after a start without any answer, it is not called right.
    for ms in [Some(45_000), None, Some(61_000)] {
        skew(ms);
        assert_eq!(heard.next(&harness).await, [], "{ms:?}");
    }
    skew(Some(1_000));
    heard
        .only(&harness, NoticeKind::ClockRight, "time of clock")
        .await;

    let day = SignedDuration::from_hours(24);
    harness.clock.step_wall(day);
    harness.reaffirm();
    heard
        .only(&harness, NoticeKind::ClockOff, "time of clock")
        .await;
    harness.clock.step_wall(-day);
    harness.reaffirm();
    heard
        .only(&harness, NoticeKind::ClockRight, "time of clock")
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_taken_and_who_is_not_taken_over_are_told() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    let unbound = crate::api::handle::Unbound {
        address: "127.0.0.1:9847".parse().unwrap(),
        because: "address in use".to_owned(),
    };
    let key = "address 127.0.0.1:9847";
    harness.api.unbound.send_replace(Some(unbound));
    heard.only(&harness, NoticeKind::ListenRefused, key).await;
    harness.api.unbound.send_replace(None);
    heard.only(&harness, NoticeKind::ListenAccepted, key).await;

    let key = "declarations of configuration";
    let why = "the store refuses to write its row".to_owned();
    harness.share(|shared| shared.not_taken = vec![(name("carl"), why.clone())]);
    heard
        .only(&harness, NoticeKind::DeclarationRefused, key)
        .await;
    harness.share(|shared| shared.not_taken.clear());
    heard
        .only(&harness, NoticeKind::DeclarationAccepted, key)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_behind_or_does_not_know_of_a_withdrawal_is_told() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    harness.issue(ANNA, "canary-7").await;
    tokio::time::advance(Duration::from_mins(16)).await;
    harness.reaffirm();
    heard
        .only(&harness, NoticeKind::SinkBehind, "behind files")
        .await;
    // That it fails now does not mean that it has caught up.
    harness
        .dispatcher
        .send_modify(|one| one.failures_in_row = 3);
    assert_eq!(heard.next(&harness).await, []);
    harness
        .dispatcher
        .send_modify(|one| one.failures_in_row = 0);
    harness.deliver(ANNA).await;
    heard
        .only(&harness, NoticeKind::SinkCaughtUp, "behind files")
        .await;

    harness.step(ANNA, Step::Withhold).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    harness.reaffirm();
    harness.tells(NeedKind::WithdrawalWaits).await;
    assert_eq!(heard.next(&harness).await, [], "it may be on its way");
    tokio::time::advance(Duration::from_mins(5)).await;
    harness.reaffirm();
    let key = "withdrawals at files";
    heard
        .only(&harness, NoticeKind::WithdrawalWaiting, key)
        .await;
    harness.deliver(ANNA).await;
    heard
        .only(&harness, NoticeKind::WithdrawalDelivered, key)
        .await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_read_and_a_map_that_cannot_be_written_are_told() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    let other = rusqlite::Connection::open(harness.store.path()).unwrap();
    let state = |word: &str| {
        let sql = "UPDATE identity SET state = ?1 WHERE name = ?2";
        other.execute(sql, [word, BERT]).unwrap();
    };
    state("gibberish");
    harness.examine().await;
    heard
        .only(&harness, NoticeKind::RowsUnreadable, "rows of store")
        .await;
    state("active");
    harness.examine().await;
    heard
        .only(&harness, NoticeKind::RowsReadable, "rows of store")
        .await;

    let folder = harness._folder.path();
    let place = folder.join("identities.jsonl.new");
    std::fs::remove_file(folder.join("identities.jsonl")).unwrap();
    std::fs::create_dir(&place).unwrap();
    harness
        .store
        .mend_beside(harness.clock.now())
        .await
        .unwrap();
    let key = "writing of identities.jsonl";
    heard.only(&harness, NoticeKind::MapUnwritable, key).await;
    std::fs::remove_dir(&place).unwrap();
    harness
        .store
        .mend_beside(harness.clock.now())
        .await
        .unwrap();
    heard.only(&harness, NoticeKind::MapWritable, key).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_not_told_to_be_over() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    harness.issue(ANNA, "canary-7").await;
    tokio::time::advance(Duration::from_mins(16)).await;
    harness.reaffirm();
    heard
        .only(&harness, NoticeKind::SinkBehind, "behind files")
        .await;
    let other = rusqlite::Connection::open(harness.store.path()).unwrap();
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        other.execute_batch(&sql).unwrap();
    };
    rename("delivery", "elsewhere");
    harness.tells(NeedKind::StoreUnreadable).await;
    assert_eq!(heard.next(&harness).await, []);
    rename("elsewhere", "delivery");
    harness.is_silent_about(NeedKind::StoreUnreadable).await;
    assert_eq!(heard.next(&harness).await, []);
    harness.deliver(ANNA).await;
    heard
        .only(&harness, NoticeKind::SinkCaughtUp, "behind files")
        .await;
}
