//! The database of a cluster does not answer: what this node's mirror holds is served, and everything else waits.

use super::*;
use wire::NeedKind;

impl Harness {
    /// The store is one that machines share, and its mirror is up to date.
    async fn mirrored() -> Self {
        let harness = Self::calm().await;
        harness.store.keep_mirror("production");
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

/// What is asked of each endpoint: by its path, with somebody or something in its places.
fn target_of(path: &str) -> String {
    let places = [
        ("{name}", ANNA),
        ("{resource}", "contoso"),
        ("{id}", "1"),
        ("{order}", "pause"),
    ];
    places.iter().fold(path.to_owned(), |path, (place, one)| {
        path.replace(place, one)
    })
}

/// Answers what only `app` can do.
fn answer_commands(harness: &mut Harness) {
    let mut commands = std::mem::replace(&mut harness.commands, mpsc::channel(1).1);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            if let Command::Examine { answer } = command {
                answer.send(Vec::new()).ok();
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn every_endpoint_says_how_old_its_answer_is_or_that_it_waits() {
    let mut harness = Harness::mirrored().await;
    answer_commands(&mut harness);
    harness.silence();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut served = Vec::new();
    let described = local::described().into_iter();
    let all = described.map(|one| (one.method.to_string(), one.path));
    let written_out = [
        ("GET".to_owned(), "/v1/tokens/{name}"),
        ("POST".to_owned(), store::BACKUP),
    ];
    for (method, path) in all.chain(written_out) {
        let began = harness.clock.steady();
        let answer = harness.send(&method, &target_of(path), "{}").await;
        let took = harness.clock.steady() - began;
        assert!(took < Duration::from_secs(1), "{method} {path}: {took:?}");
        match answer.status {
            200 => {
                assert_eq!(answer.header("x-renewd-age"), "7", "{method} {path}");
                served.push(format!("{method} {path}"));
            }
            // There is nothing of the kind here, such as a cluster.
            404 => {}
            503 => {
                assert_eq!(answer.json()["type"], "stale", "{method} {path}");
                assert_eq!(answer.header("retry-after"), "5", "{method} {path}");
            }
            other => panic!("{method} {path}: {other} {}", answer.text),
        }
    }
    for one in [
        "GET /v1/status",
        "GET /v1/identities",
        "GET /v1/identities/{name}",
        "GET /v1/tokens/{name}",
    ] {
        assert!(served.iter().any(|served| served == one), "{one}");
    }
}

/// Who was not answered in time tells how old it is what is served, before anybody knows that the database is away.
#[tokio::test(start_paused = true)]
async fn a_database_that_is_slow_is_served_from_the_mirror_with_its_age() {
    let harness = Harness::mirrored().await;
    harness.store.database_is_slow();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let target = format!("/v1/tokens/{ANNA}");
    let answer = harness.get(reader(), &target, &[]).await;
    assert_eq!((answer.status, answer.header("x-renewd-age")), (200, "3"));
    harness
        .store
        .heed_others(harness.clock.now())
        .await
        .unwrap();
    let answer = harness.get(reader(), &target, &[]).await;
    assert_eq!((answer.status, answer.header("x-renewd-age")), (200, ""));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_mirrored_is_told_and_told_to_be_over() {
    let harness = Harness::mirrored().await;
    let folder = harness._folder.path().to_owned();
    harness.is_silent_about(NeedKind::NoMirror).await;
    // A folder lies where the mirror is to be.
    let place = folder.join("mirror.db");
    for file in ["mirror.db", "mirror.db-wal", "mirror.db-shm"] {
        std::fs::remove_file(folder.join(file)).ok();
    }
    std::fs::create_dir(&place).unwrap();
    std::fs::create_dir(folder.join("mirror.db.aside")).unwrap();
    std::fs::write(place.join("in the way"), "").unwrap();
    std::fs::write(folder.join("mirror.db.aside/in the way"), "").unwrap();
    harness.store.keep_mirror("production");
    let heed = || harness.store.heed_others(harness.clock.now());
    heed().await.unwrap();
    harness.tells(NeedKind::NoMirror).await;
    assert!(harness.get(reader(), "/v1/tokens/anna", &[]).await.status == 200);
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::remove_dir_all(folder.join("mirror.db.aside")).unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    heed().await.unwrap();
    harness.is_silent_about(NeedKind::NoMirror).await;
    harness.silence();
    assert_eq!(
        harness.get(reader(), "/v1/tokens/anna", &[]).await.status,
        200
    );
}
