//! Acknowledgements, counts of reads, orphans.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    client::{ClientError, DaemonClient, DeliveryTable, TokenForm},
    *,
};

impl Harness {
    async fn ack(&self, peer: Peer, who: &str, version: u64, label: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        let body = json!({ "version": version }).to_string();
        let target = format!("/v1/tokens/{who}/ack");
        let mut request = Request::put(&target)
            .header("x-renewd-client", label)
            .extension(peer);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body)).unwrap();
        Answer::of(self.socket().oneshot(request).await.unwrap()).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_still_uses_an_old_version_is_shown() {
    let harness = harness().await;
    let first = harness.issue(ANNA, "canary-2").await;
    assert_eq!(
        harness.ack(reader(), ANNA, first.0, "app 1").await.status,
        200
    );
    assert_eq!(
        harness.ack(reader(), ANNA, first.0, "app 2").await.status,
        200
    );
    let second = harness.issue(ANNA, "canary-3").await;
    let acked = harness.ack(reader(), ANNA, second.0, "app 2").await;
    assert_eq!(
        acked.json(),
        json!({ "schema_version": 1, "version": second.0, "current": second.0 })
    );
    let old = harness
        .get(admin(), "/v1/holders?old=true", &[])
        .await
        .json();
    assert_eq!(old["items"].as_array().unwrap().len(), 1, "{old}");
    let one = &old["items"][0];
    assert_eq!(
        (
            one["name"].as_str(),
            one["client"].as_str(),
            one["user"].as_str()
        ),
        (Some("anna"), Some("app 1"), Some(READER))
    );
    assert_eq!(
        (one["version"].as_u64(), one["current"].as_u64()),
        (Some(first.0), Some(second.0))
    );
    let all = harness
        .get(admin(), "/v1/holders?name=anna", &[])
        .await
        .json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    assert_eq!(harness.get(reader(), "/v1/holders", &[]).await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn an_ack_is_for_readers_and_for_versions_that_there_are() {
    let harness = harness().await;
    let version = harness.issue(ANNA, "canary-2").await.0;
    assert_eq!(
        harness.ack(stranger(), ANNA, version, "x").await.status,
        403
    );
    assert_eq!(
        harness.ack(stranger(), "zoe", version, "x").await.status,
        403
    );
    assert_eq!(harness.ack(admin(), "zoe", version, "x").await.status, 404);
    assert_eq!(
        harness.ack(reader(), ANNA, version + 1, "x").await.status,
        400
    );
}

#[tokio::test(start_paused = true)]
async fn an_ack_of_a_version_that_never_was_is_refused() {
    let harness = harness().await;
    let mut versions = vec![harness.issue(ANNA, "canary-2").await.0];
    for n in 3..8 {
        tokio::time::advance(Duration::from_mins(5)).await;
        versions.push(harness.issue(ANNA, &format!("canary-{n}")).await.0);
    }
    for version in &versions {
        assert_eq!(
            harness.ack(reader(), ANNA, *version, "x").await.status,
            200,
            "{version}"
        );
        let never = harness.ack(reader(), ANNA, version - 100, "x").await;
        assert_eq!(never.status, 400, "{}", never.text);
        assert_eq!(never.json()["type"], "invalid");
    }
    let holders = harness.get(admin(), "/v1/holders", &[]).await.json();
    assert_eq!(holders["items"][0]["version"], *versions.last().unwrap());
}

#[tokio::test(start_paused = true)]
async fn nobody_pushes_the_acknowledgement_of_another_out() {
    let harness = harness().await;
    let version = harness.issue(ANNA, "canary-2").await.0;
    assert_eq!(
        harness.ack(reader(), ANNA, version, "quiet").await.status,
        200
    );
    for n in 0..200 {
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(
            harness
                .ack(admin(), ANNA, version, &format!("loud-{n}"))
                .await
                .status,
            200
        );
    }
    let holders = harness.get(admin(), "/v1/holders", &[]).await.json();
    let clients: Vec<&str> = holders["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["client"].as_str().unwrap())
        .collect();
    assert!(clients.contains(&"quiet"), "{clients:?}");
    assert_eq!(clients.len(), 65);
}

#[tokio::test(start_paused = true)]
async fn consumers_are_remembered_in_bounds_and_forgotten_when_silent() {
    let harness = harness().await;
    let version = harness.issue(ANNA, "canary-2").await.0;
    let holders = || async {
        let all = harness.get(admin(), "/v1/holders", &[]).await.json();
        all["items"].as_array().unwrap().len()
    };
    for n in 0..70 {
        let label = format!("{n}{}", "x".repeat(200));
        assert_eq!(
            harness.ack(reader(), ANNA, version, &label).await.status,
            200
        );
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(holders().await, 64);
    tokio::time::advance(Duration::from_hours(169)).await;
    harness.store.prune(500, harness.clock.now()).await.unwrap();
    assert_eq!(holders().await, 0);
}

#[tokio::test(start_paused = true)]
async fn handed_over_tokens_are_counted_and_nothing_else_is() {
    let harness = harness().await;
    for _ in 0..3 {
        assert_eq!(
            harness.get(reader(), "/v1/tokens/anna", &[]).await.status,
            200
        );
    }
    assert_eq!(
        harness.get(stranger(), "/v1/tokens/anna", &[]).await.status,
        403
    );
    assert_eq!(
        harness.get(reader(), "/v1/tokens/bert", &[]).await.status,
        503
    );
    tokio::time::advance(Duration::from_hours(1)).await;
    harness.issue(ANNA, "canary-2").await;
    harness.get(admin(), "/v1/tokens/anna", &[]).await;
    let counted = harness.get(admin(), "/v1/reads", &[]).await.json();
    let rows = counted["items"].as_array().unwrap();
    let row = |n: usize| {
        (
            rows[n]["hour"].as_str().unwrap(),
            rows[n]["count"].as_u64().unwrap(),
        )
    };
    assert_eq!(rows.len(), 2, "{counted}");
    assert_eq!(row(0), ("2026-11-22T13:00:00Z", 1));
    assert_eq!(row(1), ("2026-11-22T12:00:00Z", 3));
    assert_eq!(rows[1]["user"], READER);
    // Counted once, however often it is looked at.
    let since = harness
        .get(admin(), "/v1/reads?since=2026-11-22T13:00:00Z", &[])
        .await;
    assert_eq!(since.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(harness.get(reader(), "/v1/reads", &[]).await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn orphans_are_listed_and_dismissed() {
    let harness = harness().await;
    let num = harness.num(BERT).await;
    harness
        .store
        .intend_creations(vec![num], harness.clock.now())
        .await
        .unwrap();
    harness
        .store
        .creation_failed(num, true, None)
        .await
        .unwrap();
    let listed = harness.get(admin(), "/v1/orphans", &[]).await.json();
    assert_eq!(listed["items"][0]["kind"], "creation");
    assert_eq!(listed["items"][0]["name"], "bert");
    let number = &listed["items"][0]["num"];
    let body = json!({ "nums": [number, 999] }).to_string();
    let unknown = harness.send("POST", "/v1/orphans/dismiss", &body).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text.contains("999"), "{}", unknown.text);
    let body = json!({ "nums": [number], "reason": "looked at it" }).to_string();
    assert_eq!(
        harness
            .send("POST", "/v1/orphans/dismiss", &body)
            .await
            .status,
        200
    );
    let left = harness.get(admin(), "/v1/orphans", &[]).await.json();
    assert_eq!(left["items"], json!([]));
    let audited = harness
        .get(admin(), "/v1/audit?action=dismiss-orphan", &[])
        .await
        .json();
    assert_eq!(audited["items"][0]["reason"], "looked at it");
}

#[tokio::test(start_paused = true)]
async fn the_audit_trail_is_filtered() {
    let harness = harness().await;
    tokio::time::advance(Duration::from_secs(600)).await;
    harness.step(ANNA, Step::Withhold).await;
    let count = |query: &'static str| {
        let harness = &harness;
        async move {
            let answer = harness
                .get(admin(), &format!("/v1/audit{query}"), &[])
                .await;
            answer.json()["items"].as_array().unwrap().len()
        }
    };
    let all = count("").await;
    assert!(all >= 2, "{all}");
    assert_eq!(count("?action=hold").await, 1);
    assert_eq!(count("?action=nothing").await, 0);
    assert_eq!(
        count("?name=anna&actor=renewd&since=2026-11-22T12:05:00Z").await,
        1
    );
    assert_eq!(count("?until=2026-11-22T12:05:00Z").await, all - 1);
    assert_eq!(count("?actor=anna").await, 0);
    let wrong = harness.get(admin(), "/v1/audit?since=yesterday", &[]).await;
    assert_eq!(wrong.status, 400);
}

/// The daemon's listeners and a client of the command line, over real sockets.
#[tokio::test]
async fn the_client_and_the_listeners_understand_each_other() {
    let harness = harness().await;
    let mut daemon = harness.api.shared_state().daemon.clone();
    daemon.listen = Some("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners::bind(&daemon, (None, None)).await.unwrap();
    let address = listeners.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let served = listeners.serve(harness.api.clone(), stop.clone());
    let asked = async {
        ask_locally(&DaemonClient::new(&daemon.socket)).await;
        ask_over_tcp(address).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(served, asked);
    served.unwrap();
    let gone = DaemonClient::new(&daemon.socket)
        .status()
        .await
        .unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable { .. }), "{gone}");
}

async fn ask_locally(client: &DaemonClient) {
    let anna = name(ANNA);
    let bare = client
        .token(&anna, TokenForm::Bare, None, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bare.expose(), "canary-1");
    let document = client
        .token(&anna, TokenForm::Json, None, None)
        .await
        .unwrap()
        .unwrap();
    let document: serde_json::Value = serde_json::from_str(document.expose()).unwrap();
    let version = Version(document["version"].as_u64().unwrap());
    let wait = Some(Duration::from_secs(1));
    let same = client
        .token(&anna, TokenForm::Json, wait, Some(version))
        .await
        .unwrap();
    assert_eq!(same, None);
    assert!(client.status().await.unwrap().ready);
    assert_eq!(
        client.identities(Some("anna")).await.unwrap().items.len(),
        1
    );
    assert_eq!(client.why(&anna).await.unwrap().name, anna);
    let of_anna = DeliveryTable {
        name: Some(anna.clone()),
        ..DeliveryTable::default()
    };
    let page = client.deliveries(&of_anna, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let error = client.identity(&name("zoe")).await.unwrap_err();
    let ClientError::Problem(problem) = &error else {
        panic!("{error}")
    };
    assert_eq!(problem.kind, ProblemType::Unknown);
}

async fn ask_over_tcp(address: std::net::SocketAddr) {
    let get = |path: &str, host: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let metrics = over_tcp(address, &get("/metrics", "localhost")).await;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && !metrics.contains("# EOF"),
        "{metrics}"
    );
    let rebound = over_tcp(address, &get("/", "evil.example")).await;
    assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");
}

async fn over_tcp(address: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
