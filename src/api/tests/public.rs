use super::{guard::Door, *};

async fn tcp(harness: &Harness, target: &str) -> Answer {
    let router = crate::api::public::router(harness.api.clone(), Door::Loopback);
    let request = Request::get(target).header("host", "localhost:9847");
    Answer::of(
        router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap(),
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn readiness_is_every_loop_deciding_and_says_what_is_not() {
    let harness = harness().await;
    assert_eq!(tcp(&harness, "/healthz").await.status, 200);
    let ready = tcp(&harness, "/readyz").await;
    assert_eq!(
        (ready.status, ready.json()["ready"].as_bool()),
        (200, Some(true))
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    harness
        .renewer
        .send_modify(|renewer| renewer.decided_at = Some(harness.clock.now()));
    harness.runner.send_replace(Some(harness.clock.now()));
    tokio::time::advance(Duration::from_secs(60)).await;
    let stuck = tcp(&harness, "/readyz").await;
    assert_eq!(stuck.status, 503);
    let parts = stuck.json()["parts"].clone();
    let not: Vec<_> = parts
        .as_array()
        .unwrap()
        .iter()
        .filter(|part| part["ready"] == false)
        .collect();
    assert_eq!(not.len(), 1, "{parts}");
    assert_eq!(not[0]["part"], "sink files");
    assert_eq!(
        tcp(&harness, "/healthz").await.status,
        200,
        "it is alive all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_on_tcp_names_an_identity_or_quotes_an_error() {
    let harness = harness().await;
    tokio::time::advance(Duration::from_secs(50 * 60)).await;
    harness.dispatcher.send_modify(|dispatcher| {
        dispatcher.failures_in_row = 5;
        dispatcher.last_error = Some("anna: canary-e".into());
    });
    for target in ["/healthz", "/readyz", "/metrics", "/api/status", "/"] {
        let answer = tcp(&harness, target).await;
        assert!(
            !answer.text.contains("anna") && !answer.text.contains("canary"),
            "{target}: {}",
            answer.text
        );
    }
    let status: wire::PublicStatus =
        serde_json::from_value(tcp(&harness, "/api/status").await.json()).unwrap();
    let kinds: Vec<_> = status.needs.iter().map(|need| need.kind).collect();
    assert_eq!(
        kinds[..2],
        [wire::NeedKind::NoLiveToken, wire::NeedKind::Late]
    );
    assert_eq!(
        status.sinks[0].trouble.as_deref(),
        Some("5 failures in a row")
    );

    harness.shared_state.send_modify(|shared_state| {
        let mut shared_state_now = SharedState::clone(shared_state);
        shared_state_now.daemon.page_names = true;
        *shared_state = Arc::new(shared_state_now);
    });
    let status: wire::PublicStatus =
        serde_json::from_value(tcp(&harness, "/api/status").await.json()).unwrap();
    assert_eq!(
        status.needs[1].names,
        [name(ANNA)],
        "unless page_names allows it"
    );
}

#[tokio::test(start_paused = true)]
async fn metrics_are_computed_from_the_truth() {
    let harness = harness().await;
    let answer = tcp(&harness, "/metrics").await;
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    for line in [
        "renewd_identities{resource=\"contoso\",state=\"active\"} 1",
        "renewd_identities{resource=\"contoso\",state=\"new\"} 1",
        "renewd_deliveries_pending{sink=\"files\"} 1",
        "renewd_earliest_expiry_timestamp_seconds{resource=\"contoso\"} 1795352400",
    ] {
        assert!(
            answer.text.lines().any(|l| l == line),
            "{line} is not in\n{}",
            answer.text
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_and_control_are_not_on_tcp() {
    let harness = harness().await;
    for target in ["/v1/tokens/anna", "/v1/status", "/v1/reload"] {
        assert_eq!(tcp(&harness, target).await.status, 404, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_needs_nothing_from_elsewhere() {
    let harness = harness().await;
    let page = tcp(&harness, "/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    assert!(!page.text.contains("http://") && !page.text.contains("https://"));
    let router = crate::api::public::router(harness.api.clone(), Door::Loopback);
    let request = Request::get("/")
        .header("host", "evil.example")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        router.oneshot(request).await.unwrap().status(),
        403,
        "DNS rebinding"
    );
}
