//! The database of a cluster does not answer: what this node's mirror holds is served, and everything else waits.

use super::*;
use wire::NeedKind;

impl Harness {
    /// The store is one that machines share, and its mirror is up to date.
    async fn mirrored() -> Self {
        let harness = Self::calm().await;
        harness.store.keep_mirror("production").await.unwrap();
        let now = harness.clock.now();
        harness.store.heed_others(now).await.unwrap();
        harness
    }

    fn silence(&self) {
        let now = self.clock.now();
        self.store.database_is_silent("no host answers", now);
    }

    async fn refused(&self, method: &str, target: &str, body: &str) {
        let answer = self.send(method, target, body).await;
        assert_eq!(answer.status, 503, "{method} {target}: {answer:?}");
        let problem = answer.json();
        assert_eq!(problem["type"], "stale", "{method} {target}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("no host answers"), "{detail}");
        assert_eq!(answer.header("retry-after"), "5");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_the_mirror_is_served_with_its_age() {
    let harness = Harness::mirrored().await;
    let target = format!("/v1/tokens/{ANNA}");
    let before = harness.get(reader(), &target, &[]).await;
    assert_eq!(before.header("x-renewd-age"), "");
    harness.silence();
    tokio::time::sleep(Duration::from_secs(90)).await;
    harness.silence();
    for peer in [reader(), admin()] {
        let answer = harness.get(peer, &target, &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text, before.text);
        assert_eq!(answer.header("x-renewd-age"), "90");
        assert_eq!(answer.header("x-renewd-standing"), "good");
    }
    assert_eq!(harness.get(stranger(), &target, &[]).await.status, 403);
    let seen = [("if-none-match", before.header("etag"))];
    let same = harness.get(reader(), &target, &seen).await;
    assert_eq!((same.status, same.header("x-renewd-age")), (304, "90"));
    let listed = harness.get(admin(), "/v1/identities", &[]).await;
    assert_eq!(listed.status, 200);
    assert!(listed.text.contains(BERT), "{}", listed.text);
    let one = harness
        .get(admin(), &format!("/v1/identities/{ANNA}"), &[])
        .await;
    assert_eq!((one.status, one.header("x-renewd-age")), (200, "90"));

    // Once it has ended nobody gets it, and why is said.
    tokio::time::sleep(Duration::from_hours(1)).await;
    let ended = harness.get(reader(), &target, &[]).await;
    assert_eq!(ended.status, 503);
    assert_eq!(ended.json()["type"], "stale");
    assert!(
        ended.text.contains("its token has expired"),
        "{}",
        ended.text
    );

    harness.store.database_answers();
    let after = harness.get(reader(), &target, &[]).await;
    assert_eq!(after.header("x-renewd-age"), "");
    assert_eq!(after.json()["type"], "pending");
}

#[tokio::test(start_paused = true)]
async fn what_the_mirror_does_not_hold_and_what_changes_something_waits_for_the_database() {
    let harness = Harness::mirrored().await;
    harness.silence();
    for target in [
        "/v1/campaigns",
        "/v1/notices",
        "/v1/audit",
        "/v1/deliveries",
        &format!("/v1/tokens/{ANNA}?delivered=true"),
    ] {
        harness.refused("GET", target, "").await;
    }
    let body = "{\"action\":\"hold\",\"select\":\"name = 'anna'\"}";
    for (method, target, body) in [
        ("POST", "/v1/campaigns".to_owned(), body),
        ("POST", "/v1/reload".to_owned(), "{}"),
        ("DELETE", format!("/v1/identities/{ANNA}"), ""),
        ("PUT", format!("/v1/tokens/{ANNA}/ack"), "{\"version\":1}"),
    ] {
        harness.refused(method, &target, body).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_over_this_node_is_not_served_although_the_database_went_at_that_moment()
{
    let harness = Harness::mirrored().await;
    harness.step(ANNA, Step::Withhold).await;
    harness.silence();
    let answer = harness
        .get(reader(), &format!("/v1/tokens/{ANNA}"), &[])
        .await;
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (409, Some("held"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_told_by_everybody_until_it_is_back() {
    let harness = Harness::mirrored().await;
    assert!(!harness.tcp("/readyz").await.text.contains("degraded"));
    harness.silence();
    tokio::time::sleep(Duration::from_secs(60)).await;
    harness.reaffirm();
    harness.tells(NeedKind::DatabaseAway).await;
    assert_eq!(harness.kinds().await, [NeedKind::DatabaseAway]);
    let status = harness.status().await;
    assert!(status.ready);
    let away = status.database.unwrap();
    assert_eq!(away.since, at(&harness, -60));
    assert_eq!(away.mirror_of, Some(at(&harness, -60)));
    let need = &status.needs[0];
    assert!(
        need.message
            .contains("what this node knew 1m ago is served"),
        "{need:?}"
    );
    assert_eq!(need.because.as_deref(), Some("no host answers"));
    let ready = harness.tcp("/readyz").await;
    assert_eq!(ready.status, 200);
    let ready = ready.json();
    assert_eq!(
        (&ready["ready"], &ready["degraded"]),
        (&true.into(), &true.into())
    );
    let metrics = harness.tcp("/metrics").await.text;
    let since = away.since.as_second();
    for line in [
        "renewd_store_up 0".to_owned(),
        format!("renewd_database_away_timestamp_seconds {since}"),
        format!("renewd_mirror_timestamp_seconds {since}"),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(
        harness
            .api
            .headline()
            .await
            .starts_with("store: the database is away")
    );

    harness.store.database_answers();
    harness.is_silent_about(NeedKind::DatabaseAway).await;
    assert_eq!(harness.status().await.database, None);
    assert!(!harness.tcp("/readyz").await.text.contains("degraded"));
    let metrics = harness.tcp("/metrics").await.text;
    assert!(
        metrics.contains("renewd_database_away_timestamp_seconds 0"),
        "{metrics}"
    );
}

/// Without a mirror nothing can be served, and a probe is told so.
#[tokio::test(start_paused = true)]
async fn a_node_without_a_mirror_is_not_ready() {
    let harness = Harness::calm().await;
    harness.silence();
    harness
        .refused("GET", &format!("/v1/tokens/{ANNA}"), "")
        .await;
    assert_eq!(harness.tcp("/readyz").await.status, 503);
}
