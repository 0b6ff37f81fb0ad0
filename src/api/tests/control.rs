use super::{guard::Listener, *};
use crate::store::AuditQuery;

const CONTROL: [(&str, &str); 10] = [
    ("GET", "/v1/status"),
    ("GET", "/v1/identities"),
    ("GET", "/v1/identities/anna"),
    ("POST", "/v1/identities"),
    ("DELETE", "/v1/identities/anna"),
    ("GET", "/v1/why/anna"),
    ("POST", "/v1/campaigns"),
    ("GET", "/v1/deliveries"),
    ("GET", "/v1/audit"),
    ("POST", "/v1/reload"),
];

#[tokio::test(start_paused = true)]
async fn control_is_for_admins_alone() {
    let harness = harness().await;
    for (method, target) in CONTROL {
        for peer in [reader(), stranger()] {
            let answer = ask(harness.socket(), peer, method, target, &[], "{}").await;
            assert_eq!(answer.status, 403, "{method} {target}");
            assert_eq!(answer.json()["type"], "forbidden");
        }
    }
    harness.shared_state.send_modify(|shared_state| {
        let mut shared_state_now = SharedState::clone(shared_state);
        shared_state_now.daemon.admins = vec![Reader::User(READER.into())];
        *shared_state = Arc::new(shared_state_now);
    });
    let answer = harness.get(reader(), "/v1/status", &[]).await;
    assert_eq!(answer.status, 200, "admins are read again for each request");
}

#[tokio::test(start_paused = true)]
async fn status_tells_what_needs_a_person() {
    let harness = harness().await;
    harness.issue(BERT, "canary-2").await;
    for who in [ANNA, BERT] {
        harness.deliver(who).await;
    }
    let calm: wire::Status =
        serde_json::from_value(harness.get(admin(), "/v1/status", &[]).await.json()).unwrap();
    assert!(calm.ready && calm.needs.is_empty(), "{calm:?}");
    assert_eq!(calm.earliest_expiry[&contoso()], at(&harness, 3600));
    tokio::time::advance(Duration::from_secs(50 * 60)).await;
    let fresh = Some(harness.clock.now());
    harness
        .renewer
        .send_modify(|renewer| renewer.decided_at = fresh);
    harness
        .dispatcher
        .send_modify(|dispatcher| dispatcher.decided_at = fresh);
    let status: wire::Status =
        serde_json::from_value(harness.get(admin(), "/v1/status", &[]).await.json()).unwrap();
    assert_eq!(status.needs.len(), 1, "{:?}", status.needs);
    assert_eq!(status.needs[0].kind, wire::NeedKind::Late);
    assert_eq!(status.needs[0].names, [name(ANNA), name(BERT)]);
}

#[tokio::test(start_paused = true)]
async fn no_listing_holds_a_token() {
    let harness = harness().await;
    for target in [
        "/v1/status",
        "/v1/identities",
        "/v1/identities/anna",
        "/v1/why/anna",
        "/v1/deliveries",
        "/v1/deliveries?name=anna",
        "/v1/notices",
        "/v1/audit",
    ] {
        let answer = harness.get(admin(), target, &[]).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text);
        assert!(!answer.text.contains("canary"), "{target}");
    }
    let page = harness.get(admin(), "/v1/identities", &[]).await.json();
    assert_eq!(page["items"][0]["name"], "anna");
    assert_eq!(page["items"][1]["state"], "new");
    assert_eq!(page["next"], serde_json::Value::Null);
    let delivery_table = harness.get(admin(), "/v1/deliveries", &[]).await.json();
    assert_eq!(delivery_table["items"][0]["pending"], true);
}

#[tokio::test(start_paused = true)]
async fn an_added_identity_takes_the_defaults_and_is_audited() {
    let harness = harness().await;
    let body = r#"{"name":"carl","scopes":["voip","chat","chat"],"sinks":["files"]}"#;
    let added = harness.send("POST", "/v1/identities", body).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let carl: wire::Identity = serde_json::from_value(added.json()).unwrap();
    assert_eq!((carl.lifetime_seconds, carl.resource), (86_400, contoso()));
    assert_eq!(carl.scopes, [Scope::Chat, Scope::Voip]);
    assert_eq!(
        harness.send("POST", "/v1/identities", body).await.status,
        409,
        "it exists already"
    );

    let removed = harness
        .send("DELETE", "/v1/identities/carl?reason=left%20us", "")
        .await;
    assert_eq!(
        (removed.status, removed.json()["on_removal"].as_str()),
        (200, Some("hold"))
    );
    let declared = harness.send("DELETE", "/v1/identities/anna", "").await;
    assert_eq!(declared.status, 409, "a file declares it");

    let query = AuditQuery {
        name: Some(name("carl")),
        limit: 10,
        ..AuditQuery::default()
    };
    let trail = harness.store.audit_trail(query).await.unwrap();
    let who = format!("uid {} (", accounts::own_uid());
    assert!(
        trail
            .iter()
            .any(|e| e.action == "add" && e.actor.starts_with(&who)),
        "{trail:?}"
    );
    let removal = trail.iter().find(|e| e.action == "remove").unwrap();
    assert_eq!(removal.reason.as_deref(), Some("left us"));
}

#[tokio::test(start_paused = true)]
async fn mistakes_in_a_body_are_told() {
    let harness = harness().await;
    for (body, part) in [
        (r#"{"name":"../x","scopes":["chat"]}"#, "name"),
        (r#"{"name":"x","scopes":["video"]}"#, "video"),
        (r#"{"name":"x","scopes":[]}"#, "scopes"),
        (
            r#"{"name":"x","scopes":["chat"],"sinks":["nowhere"]}"#,
            "nowhere",
        ),
        (
            r#"{"name":"x","scopes":["chat"],"resource":"other"}"#,
            "contoso",
        ),
        (
            r#"{"name":"x","scopes":["chat"],"lifetime_seconds":60}"#,
            "3600",
        ),
        (r#"{"name":"x","scopes":["chat"],"colour":"red"}"#, "colour"),
        ("not json", "JSON"),
    ] {
        let answer = harness.send("POST", "/v1/identities", body).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (400, Some("invalid")),
            "{body}"
        );
        assert!(answer.text.contains(part), "{body}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_campaign_is_accepted_and_can_be_followed() {
    let harness = harness().await;
    let body = r#"{"action":"revoke","then":"reissue","names":["anna"],"reason":"stolen"}"#;
    let started = harness.send("POST", "/v1/campaigns", body).await;
    assert_eq!(started.status, 202, "{}", started.text);
    let campaign: client::wire::CampaignProgress = serde_json::from_value(started.json()).unwrap();
    assert_eq!(
        (
            campaign.campaign.pending,
            campaign.campaign.reason.as_deref()
        ),
        (1, Some("stolen"))
    );
    let found = harness
        .get(
            admin(),
            &format!("/v1/campaigns/{}", campaign.campaign.id),
            &[],
        )
        .await;
    assert_eq!(found.json()["pending"], 1);
    assert_eq!(
        harness.get(admin(), "/v1/campaigns/999", &[]).await.status,
        404
    );
    for wrong in [
        r#"{"action":"revoke","names":["anna"]}"#,
        r#"{"action":"hold","then":"hold","names":["anna"]}"#,
        r#"{"action":"release","names":[]}"#,
    ] {
        assert_eq!(
            harness.send("POST", "/v1/campaigns", wrong).await.status,
            400,
            "{wrong}"
        );
    }
}

/// An order that did not reach ACS yet is told by status and by why, and one that failed for good first of
/// all, until somebody tries again, gives it up, or does it otherwise.
#[tokio::test(start_paused = true)]
async fn what_was_ordered_is_told_until_it_is_done() {
    let harness = harness().await;
    let body = r#"{"action":"revoke","then":"reissue","names":["anna"]}"#;
    let started = harness.send("POST", "/v1/campaigns", body).await;
    let id = started.json()["id"].as_i64().unwrap();
    let needs = async || {
        let status = harness.get(admin(), "/v1/status", &[]).await.json();
        let status: wire::Status = serde_json::from_value(status).unwrap();
        status.needs
    };
    let why = async || harness.get(admin(), "/v1/why/anna", &[]).await.json();
    let told = needs().await;
    assert_eq!(told.last().unwrap().kind, wire::NeedKind::OrderWaits);
    let message = &told.last().unwrap().message;
    assert!(message.contains("has not reached ACS for 1"), "{message}");
    let orders = why().await["orders"].to_string();
    assert!(orders.contains("has not reached ACS yet"), "{orders}");

    let anna = harness.store.record(&ANNA.parse().unwrap()).await;
    let anna = anna.unwrap().unwrap();
    let failed = ItemOutcome::Failed {
        error: "403 Forbidden: No.".to_owned(),
        request_id: None,
    };
    let cause = Cause::ours("test");
    let outcomes = vec![(anna.num, failed)];
    let settled = harness
        .store
        .settle_items(id, vec![], &cause, outcomes, harness.clock.now());
    settled.await.unwrap();
    let told = needs().await;
    assert_eq!(told[0].kind, wire::NeedKind::RevocationFailed);
    assert_eq!(told[0].names, std::slice::from_ref(&anna.spec.name));
    assert_eq!(told[0].because.as_deref(), Some("403 Forbidden: No."));
    let message = &told[0].message;
    assert!(
        message.contains(&format!("renewd campaign retry {id}")),
        "{message}"
    );
    let orders = why().await["orders"].to_string();
    assert!(orders.contains("failed for good"), "{orders}");

    let path = format!("/v1/campaigns/{id}/cancel");
    assert_eq!(harness.send("POST", &path, "{}").await.status, 200);
    assert!(
        needs()
            .await
            .iter()
            .all(|need| need.subject != format!("campaign {id}"))
    );
    assert_eq!(why().await["orders"], serde_json::json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_reload_tells_its_effect_or_its_problems() {
    let mut harness = harness().await;
    let socket = harness.socket();
    for (told, status, part) in [
        (
            Ok(wire::Reloaded {
                effect: "+2 create".into(),
                warnings: vec![],
            }),
            200,
            "+2 create",
        ),
        (
            Err("renewd.toml:3:1: unknown key".to_owned()),
            422,
            "renewd.toml:3:1",
        ),
    ] {
        let app = async {
            let Some(Command::Reload { answer }) = harness.commands.recv().await else {
                panic!()
            };
            answer.send(told).unwrap();
        };
        let asked = ask(socket.clone(), admin(), "POST", "/v1/reload", &[], "");
        let (answer, ()) = tokio::join!(asked, app);
        assert_eq!(answer.status, status);
        assert!(answer.text.contains(part), "{}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_endpoint_is_a_problem_document() {
    let harness = harness().await;
    let answer = harness.get(admin(), "/v2/tokens/anna", &[]).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (404, "application/problem+json")
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_is_every_loop_deciding_and_says_what_is_not() {
    let harness = harness().await;
    assert_eq!(harness.tcp("/healthz").await.status, 200);
    let ready = harness.tcp("/readyz").await;
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
    let stuck = harness.tcp("/readyz").await;
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
        harness.tcp("/healthz").await.status,
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
        let answer = harness.tcp(target).await;
        assert!(
            !answer.text.contains("anna") && !answer.text.contains("canary"),
            "{target}: {}",
            answer.text
        );
    }
    for target in ["/readyz", "/api/status"] {
        let text = harness.tcp(target).await.text;
        assert!(
            text.starts_with("{\"schema_version\":1,"),
            "{target}: {text}"
        );
    }
    let status: wire::PublicStatus =
        serde_json::from_value(harness.tcp("/api/status").await.json()).unwrap();
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
        serde_json::from_value(harness.tcp("/api/status").await.json()).unwrap();
    assert_eq!(
        status.needs[1].names,
        [name(ANNA)],
        "unless page_names allows it"
    );
}

#[tokio::test(start_paused = true)]
async fn metrics_are_computed_from_the_truth() {
    let harness = harness().await;
    let answer = harness.tcp("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
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
        assert_eq!(harness.tcp(target).await.status, 404, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_needs_nothing_from_elsewhere() {
    let harness = harness().await;
    let page = harness.tcp("/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    assert!(!page.text.contains("http://") && !page.text.contains("https://"));
    let router = crate::api::public::router(harness.api.clone(), Listener::Loopback);
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
