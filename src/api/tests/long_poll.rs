use super::*;

const SEEN: fn(Version) -> String = |version| format!("\"{version}\"");

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_next_version() {
    let harness = harness().await;
    let began = harness.clock.now();
    let seen = SEEN(
        harness
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let poll = harness.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let renewal = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        harness.issue(BERT, "not-for-anna").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        harness.issue(ANNA, "canary-2").await
    };
    let (answer, version) = tokio::join!(poll, renewal);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["token"], "canary-2");
    assert_eq!(answer.header("etag"), SEEN(version));
    let took = harness.clock.now().duration_since(began);
    assert_eq!(
        took.as_secs(),
        10,
        "somebody else's version must not end it, its own must at once"
    );
}

#[tokio::test(start_paused = true)]
async fn it_ends_without_news_when_its_time_is_over_and_is_bounded() {
    let harness = harness().await;
    let seen = SEEN(
        harness
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    for (asked, granted) in [("7s", 7), ("7", 7), ("86400s", 60)] {
        let began = harness.clock.now();
        let answer = harness
            .get(reader(), &format!("/v1/tokens/anna?wait={asked}"), &headers)
            .await;
        assert_eq!(answer.status, 304);
        assert_eq!(
            harness.clock.now().duration_since(began).as_secs(),
            granted,
            "{asked}"
        );
    }
    let nonsense = harness
        .get(reader(), "/v1/tokens/anna?wait=soon", &headers)
        .await;
    assert_eq!(
        (nonsense.status, nonsense.json()["type"].as_str()),
        (400, Some("invalid"))
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_has_nothing_yet_waits_for_the_first_token() {
    let harness = harness().await;
    let poll = harness.get(reader(), "/v1/tokens/bert?wait=55s", &[]);
    let first = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        harness.issue(BERT, "canary-b").await
    };
    let (answer, _) = tokio::join!(poll, first);
    assert_eq!(
        (answer.status, answer.json()["token"].as_str()),
        (200, Some("canary-b"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_news() {
    let harness = harness().await;
    let seen = SEEN(
        harness
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let poll = harness.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let hold = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        harness.step(ANNA, Step::Withhold).await;
    };
    let (answer, ()) = tokio::join!(poll, hold);
    assert_eq!(answer.status, 409);
    // Whoever knows of the hold waits for its end.
    let held = answer.header("etag").to_owned();
    let headers = [("if-none-match", held.as_str())];
    let began = harness.clock.now();
    let still = harness
        .get(reader(), "/v1/tokens/anna?wait=9s", &headers)
        .await;
    assert_eq!(still.status, 409);
    assert_eq!(harness.clock.now().duration_since(began).as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_dies_meanwhile_ends_as_missing() {
    let harness = harness().await;
    tokio::time::advance(Duration::from_secs(3590)).await;
    let seen = SEEN(
        harness
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let answer = harness
        .get(reader(), "/v1/tokens/anna?wait=30s", &headers)
        .await;
    assert_eq!(answer.status, 503, "not 304: what the caller has is dead");
}

#[tokio::test(start_paused = true)]
async fn rights_that_were_taken_away_end_it_with_the_next_look() {
    let harness = harness().await;
    let seen = SEEN(
        harness
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let poll = harness.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let closed = Spec {
            readers: Vec::new(),
            ..spec(ANNA)
        };
        let sinks = ["files".parse().unwrap()];
        harness
            .store
            .reconcile(&[closed, spec(BERT)], &sinks, harness.clock.now())
            .await
            .unwrap();
        harness.issue(ANNA, "canary-2").await
    };
    let (answer, _) = tokio::join!(poll, change);
    assert_eq!(answer.status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_daemon_answers_at_once() {
    let harness = harness().await;
    let began = harness.clock.now();
    harness.api.stop.cancel();
    let answer = harness.get(reader(), "/v1/tokens/bert?wait=55s", &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(harness.clock.now(), began);
}
