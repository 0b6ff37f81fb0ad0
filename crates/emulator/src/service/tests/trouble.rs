//! Limits, faults, outages, hangs.

use super::*;

#[tokio::test(start_paused = true)]
async fn too_many_calls_are_told_how_long_to_wait() {
    let mut limits = Limits::default();
    limits.set("create=2/30s").unwrap();
    let side = side(|options| options.limits = limits);
    side.create().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    side.create().await;
    let answer = side.post(&format!("/identities{V}"), "").await;
    assert_eq!(error_of(&answer).0, 429);
    assert_eq!(answer.headers()[RETRY_AFTER], "21");
    tokio::time::advance(Duration::from_secs(21)).await;
    side.create().await;
    let stats = side.control(Method::GET, "stats", Value::Null).await;
    assert_eq!(stats["operations"]["create"]["throttled"], json!(1));
    assert_eq!(stats["identities"]["created"], json!(3));
}

#[tokio::test(start_paused = true)]
async fn faults_before_and_after_the_operation_differ_in_what_took_place() {
    let side = side(|_| ());
    let created = async || {
        side.control(Method::GET, "stats", Value::Null).await["identities"]["created"].clone()
    };
    let create = format!("/identities{V}");
    for (fault, takes_place) in [
        (json!({"kind": "reset", "count": 1}), 0),
        (json!({"kind": "reset", "count": 1, "after": true}), 1),
        (json!({"kind": "status", "status": 500, "count": 1}), 1),
        (json!({"kind": "truncated", "count": 1}), 2),
        (json!({"kind": "malformed", "count": 1}), 3),
    ] {
        side.control(Method::POST, "faults", fault.clone()).await;
        let reply = side.call(Method::POST, &create, "").await;
        match (fault["kind"].as_str().unwrap(), reply) {
            ("reset", Reply::Reset) => {}
            ("status", Reply::Answer(answer)) => assert_eq!(answer.status(), 500),
            ("truncated", Reply::Truncated { answer, sent }) => assert!(sent < answer.body().len()),
            ("malformed", Reply::Answer(answer)) => {
                assert_eq!(answer.status(), 201);
                assert!(serde_json::from_slice::<Value>(answer.body()).is_err());
            }
            (kind, reply) => panic!("{kind}: {reply:?}"),
        }
        assert_eq!(created().await, json!(takes_place), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_breaks_every_call_and_leaves_the_door_open() {
    let side = side(|_| ());
    let id = side.create().await;
    side.control(Method::POST, "faults", json!({"kind": "outage"}))
        .await;
    let handler = side.emulator.as_handler(str::to_owned);
    let target = format!("/identities/{id}{V}");
    let request = side.signed(Method::DELETE, &target, "", &side.key(Slot::Primary));
    assert_eq!(handler(request).await.unwrap_err(), "connection reset");
    side.control(Method::DELETE, "faults", Value::Null).await;
    assert_eq!(side.issue(&id).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_hang_never_ends_and_a_delay_does() {
    let side = side(|_| ());
    side.control(
        Method::POST,
        "faults",
        json!({"kind": "delay", "delay_ms": 700, "count": 1}),
    )
    .await;
    let began = side.clock.steady();
    side.create().await;
    assert_eq!(side.clock.steady() - began, Duration::from_millis(700));
    side.control(Method::POST, "faults", json!({"kind": "hang", "count": 1}))
        .await;
    let handler = side.emulator.as_handler(str::to_owned);
    let target = format!("/identities{V}");
    let request = side.signed(Method::POST, &target, "", &side.key(Slot::Primary));
    let waited = tokio::time::timeout(Duration::from_secs(3600), handler(request)).await;
    assert!(waited.is_err());
}
