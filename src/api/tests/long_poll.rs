use super::*;

const SEEN: fn(Version) -> String = |version| format!("\"{version}\"");

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_next_version() {
    let house = house().await;
    let began = house.clock.now();
    let seen = SEEN(
        house
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let poll = house.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let renewal = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        house.issue(BERT, "not-for-anna").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        house.issue(ANNA, "canary-2").await
    };
    let (answer, version) = tokio::join!(poll, renewal);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["token"], "canary-2");
    assert_eq!(answer.header("etag"), SEEN(version));
    let took = house.clock.now().duration_since(began);
    assert_eq!(
        took.as_secs(),
        10,
        "somebody else's version must not end it, its own must at once"
    );
}

#[tokio::test(start_paused = true)]
async fn it_ends_without_news_when_its_time_is_over_and_is_bounded() {
    let house = house().await;
    let seen = SEEN(
        house
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    for (asked, granted) in [("7s", 7), ("7", 7), ("86400s", 60)] {
        let began = house.clock.now();
        let answer = house
            .get(reader(), &format!("/v1/tokens/anna?wait={asked}"), &headers)
            .await;
        assert_eq!(answer.status, 304);
        assert_eq!(
            house.clock.now().duration_since(began).as_secs(),
            granted,
            "{asked}"
        );
    }
    let nonsense = house
        .get(reader(), "/v1/tokens/anna?wait=soon", &headers)
        .await;
    assert_eq!(
        (nonsense.status, nonsense.json()["type"].as_str()),
        (400, Some("invalid"))
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_has_nothing_yet_waits_for_the_first_token() {
    let house = house().await;
    let poll = house.get(reader(), "/v1/tokens/bert?wait=55s", &[]);
    let first = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        house.issue(BERT, "canary-b").await
    };
    let (answer, _) = tokio::join!(poll, first);
    assert_eq!(
        (answer.status, answer.json()["token"].as_str()),
        (200, Some("canary-b"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_news() {
    let house = house().await;
    let seen = SEEN(
        house
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let poll = house.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let hold = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        house.step(ANNA, Step::Withhold).await;
    };
    let (answer, ()) = tokio::join!(poll, hold);
    assert_eq!(answer.status, 409);
    // Whoever knows of the hold waits for its end.
    let held = answer.header("etag").to_owned();
    let headers = [("if-none-match", held.as_str())];
    let began = house.clock.now();
    let still = house
        .get(reader(), "/v1/tokens/anna?wait=9s", &headers)
        .await;
    assert_eq!(still.status, 409);
    assert_eq!(house.clock.now().duration_since(began).as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_dies_meanwhile_ends_as_missing() {
    let house = house().await;
    tokio::time::advance(Duration::from_secs(3590)).await;
    let seen = SEEN(
        house
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let answer = house
        .get(reader(), "/v1/tokens/anna?wait=30s", &headers)
        .await;
    assert_eq!(answer.status, 503, "not 304: what the caller has is dead");
}

#[tokio::test(start_paused = true)]
async fn rights_that_were_taken_away_end_it_with_the_next_look() {
    let house = house().await;
    let seen = SEEN(
        house
            .store
            .record(&name(ANNA))
            .await
            .unwrap()
            .unwrap()
            .version,
    );
    let headers = [("if-none-match", seen.as_str())];
    let poll = house.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let closed = Spec {
            readers: Vec::new(),
            ..spec(ANNA)
        };
        let sinks = ["files".parse().unwrap()];
        house
            .store
            .reconcile(&[closed, spec(BERT)], &sinks, house.clock.now())
            .await
            .unwrap();
        house.issue(ANNA, "canary-2").await
    };
    let (answer, _) = tokio::join!(poll, change);
    assert_eq!(answer.status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_daemon_answers_at_once() {
    let house = house().await;
    let began = house.clock.now();
    house.api.stop.cancel();
    let answer = house.get(reader(), "/v1/tokens/bert?wait=55s", &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(house.clock.now(), began);
}
