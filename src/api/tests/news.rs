//! Notices of what needs a person and has no other teller: one when it begins, and one when it is seen to be over.

use super::*;
use crate::{api::news::TOLD, model::NoticeKind};
use wire::NeedKind;

/// Those tell who notice it, in the commit that makes it true.
const BY_OTHERS: [NeedKind; 21] = [
    NeedKind::RevocationFailed,
    NeedKind::NoKey,
    NeedKind::EntraRefused,
    NeedKind::EntraUnreachable,
    NeedKind::NoLiveToken,
    NeedKind::Doubtful,
    NeedKind::GoneHeld,
    NeedKind::OrderFailed,
    NeedKind::Late,
    NeedKind::Failing,
    NeedKind::OrderWaits,
    NeedKind::Blocked,
    NeedKind::DiskFull,
    NeedKind::CreationRefused,
    NeedKind::Held,
    NeedKind::Outage,
    NeedKind::Gone,
    NeedKind::SinkDisabled,
    NeedKind::KeyChange,
    NeedKind::SourceLapsed,
    NeedKind::Orphans,
];
/// No notice can be noted, or sent: the heartbeat falls silent, the watchdog restarts renewd.
const UNTOLD: [NeedKind; 5] = [
    NeedKind::StoreUnusable,
    NeedKind::StoreUnreadable,
    NeedKind::DatabaseAway,
    NeedKind::NoLeader,
    NeedKind::Stuck,
];

#[test]
fn of_every_kind_it_is_known_who_tells_of_it() {
    let mut known: Vec<NeedKind> = TOLD.iter().map(|(kind, ..)| *kind).collect();
    known.extend(BY_OTHERS.iter().chain(&UNTOLD));
    known.sort();
    assert_eq!(known, NeedKind::ALL, "each of them once");
}

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

#[tokio::test(start_paused = true)]
async fn a_spare_key_that_is_refused_is_told_until_every_key_is_accepted() {
    use crate::model::{KeyRole, KeyStanding as Standing, KeyStatus, KeyView, KeysView};
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    let keys = watch::Sender::new(KeysView::default());
    harness.share(|shared| shared.keys = BTreeMap::from([(contoso(), keys.subscribe())]));
    let stand = |primary, secondary| {
        let roles = [(KeyRole::Primary, primary), (KeyRole::Secondary, secondary)];
        let views = roles.map(|(role, standing)| KeyView {
            role,
            fingerprint: format!("{role}"),
            standing,
        });
        keys.send_modify(|view| {
            view.status = KeyStatus {
                in_use: KeyRole::Primary,
                keys: views.to_vec(),
            };
        });
    };
    stand(Standing::Accepted, Standing::Denied);
    harness.tells(NeedKind::KeyRefused).await;
    heard
        .only(&harness, NoticeKind::KeyRefused, "key of contoso")
        .await;
    // Both refused is told by others; after a start neither is tried.
    for (primary, secondary) in [
        (Standing::Denied, Standing::Denied),
        (Standing::Untried, Standing::Untried),
        (Standing::Accepted, Standing::Untried),
    ] {
        stand(primary, secondary);
        harness.is_silent_about(NeedKind::KeyRefused).await;
        assert_eq!(heard.next(&harness).await, []);
    }
    stand(Standing::Accepted, Standing::Accepted);
    heard
        .only(&harness, NoticeKind::KeyAccepted, "key of contoso")
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_seal_key_that_is_gone_and_a_resource_that_is_not_configured_are_told() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    let key = harness._folder.path().join("seal.key");
    let aside = harness._folder.path().join("elsewhere");
    std::fs::rename(&key, &aside).unwrap();
    harness.tells(NeedKind::SealKeyGone).await;
    heard
        .only(&harness, NoticeKind::SealKeyGone, "key of store")
        .await;
    std::fs::rename(&aside, &key).unwrap();
    harness.is_silent_about(NeedKind::SealKeyGone).await;
    heard
        .only(&harness, NoticeKind::SealKeyFound, "key of store")
        .await;

    let renewers = harness.api.shared_state().renewers.clone();
    harness.share(|shared| shared.renewers.clear());
    harness.tells(NeedKind::Unconfigured).await;
    let key = "configuration of contoso";
    heard
        .only(&harness, NoticeKind::ResourceUnconfigured, key)
        .await;
    let why = harness.get(admin(), &format!("/v1/why/{ANNA}"), &[]).await;
    let sentence = why.json()["sentence"].to_string();
    assert!(
        sentence.contains("Nothing happens: its resource contoso is not configured"),
        "{sentence}"
    );
    harness.share(|shared| shared.renewers.clone_from(&renewers));
    harness.is_silent_about(NeedKind::Unconfigured).await;
    heard
        .only(&harness, NoticeKind::ResourceConfigured, key)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_comes_to_no_good_end_is_told_after_an_hour() {
    let harness = Harness::calm().await;
    let mut heard = Heard::default();
    let job = crate::config::JobSettings {
        name: "nightly".parse().unwrap(),
        cron: "* * * * *".to_owned(),
        timezone: "UTC".to_owned(),
        action: crate::model::JobAction::Renew,
        select: "name = 'anna'".parse().unwrap(),
        then: None,
        missed: crate::model::Missed::Skip,
    };
    harness.share(|shared| shared.jobs = vec![job.clone()]);
    let other = rusqlite::Connection::open(harness.store.path()).unwrap();
    let ran = |minute: i64, outcome: &str| {
        let at = at(&harness, 60 * minute).as_microsecond();
        let sql = "INSERT INTO job_run (job, scheduled_at, started_at, outcome) VALUES ('nightly', ?1, ?1, ?2)";
        other.execute(sql, rusqlite::params![at, outcome]).unwrap();
    };
    ran(0, "failed");
    harness.is_silent_about(NeedKind::JobFailed).await;
    tokio::time::advance(Duration::from_mins(61)).await;
    harness.reaffirm();
    ran(0, "skipped");
    harness.tells(NeedKind::JobFailed).await;
    let needs = harness.status().await.needs;
    let need = needs.iter().find(|need| need.kind == NeedKind::JobFailed);
    assert_eq!(need.unwrap().since, Some(at(&harness, -61 * 60)));
    let (kind, key) = (NoticeKind::JobFailed, "job nightly");
    assert!(heard.next(&harness).await.contains(&(kind, key.to_owned())));
    harness.share(|shared| shared.jobs.clear());
    harness.is_silent_about(NeedKind::JobFailed).await;
    let over = (NoticeKind::JobSucceeded, key.to_owned());
    assert!(heard.next(&harness).await.contains(&over));
}
