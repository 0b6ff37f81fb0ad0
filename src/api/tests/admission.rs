//! What callers cost before anything is known of them, and that every refusal is a problem document.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream;
use serde_json::json;

use super::*;

/// An identity that is not READER's.
const CARL: &str = "carl";

async fn with_carl() -> Harness {
    let harness = harness().await;
    let carl = json!({ "name": CARL, "scopes": ["chat"], "readers": ["daemon"] });
    let added = harness
        .send("POST", "/v1/identities", &carl.to_string())
        .await;
    assert_eq!(added.status, 201, "{}", added.text);
    harness
}

/// A body that tells whether anybody looked at it, and never ends.
fn endless(looked: &Arc<AtomicBool>) -> Body {
    let looked = Arc::clone(looked);
    Body::from_stream(stream::poll_fn(move |_| {
        looked.store(true, Ordering::SeqCst);
        std::task::Poll::<Option<Result<bytes::Bytes, std::io::Error>>>::Pending
    }))
}

async fn send(harness: &Harness, peer: Peer, method: &str, target: &str, body: Body) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("x-renewd-client", "test")
        .header("content-type", "application/json")
        .extension(peer)
        .body(body)
        .unwrap();
    Answer::of(harness.socket().oneshot(request).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn unknown_and_forbidden_are_the_same_work() {
    let harness = with_carl().await;
    for peer in [reader(), stranger()] {
        let mut costs = Vec::new();
        for (method, target) in [
            ("GET", "/v1/tokens/carl"),
            ("GET", "/v1/tokens/aaron"),
            ("GET", "/v1/tokens/zzz"),
            ("GET", "/v1/tokens/not%20a%20name"),
            ("GET", "/v1/watch?name=carl"),
            ("GET", "/v1/watch?name=nosuch"),
            ("PUT", "/v1/tokens/carl/ack"),
            ("PUT", "/v1/tokens/nosuch/ack"),
        ] {
            // Remembered answers end; the first ask of a fresh start counts.
            tokio::time::advance(Duration::from_mins(11)).await;
            let before = (harness.store.reads_made(), harness.api.rights.asked());
            let body = Body::from("{\"version\":1}");
            let answer = send(&harness, peer, method, target, body).await;
            assert_eq!(answer.status, 403, "{target}: {}", answer.text);
            costs.push((
                harness.store.reads_made() - before.0,
                harness.api.rights.asked() - before.1,
            ));
        }
        assert!(costs.iter().all(|cost| *cost == (1, 2)), "{costs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_system_is_asked_once_for_all_routes() {
    let harness = harness().await;
    let before = harness.api.rights.asked();
    for _ in 0..20 {
        harness.get(reader(), "/v1/tokens/anna", &[]).await;
        harness.get(reader(), "/v1/watch?name=nosuch", &[]).await;
        harness.get(reader(), "/v1/status", &[]).await;
        send(
            &harness,
            reader(),
            "PUT",
            "/v1/tokens/anna/ack",
            Body::from("{}"),
        )
        .await;
    }
    let asked = harness.api.rights.asked() - before;
    assert_eq!(asked, 2, "who the caller is, and whom `readers` means");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_body_is_read_before_a_right_is_known() {
    let harness = with_carl().await;
    for (peer, method, target) in [
        (stranger(), "PUT", "/v1/tokens/anna/ack"),
        (stranger(), "PUT", "/v1/tokens/nosuch/ack"),
        (reader(), "PUT", "/v1/tokens/carl/ack"),
        (stranger(), "POST", "/v1/campaigns"),
        (reader(), "POST", "/v1/import"),
        (reader(), "POST", "/v1/reload"),
    ] {
        let looked = Arc::default();
        let answer = send(&harness, peer, method, target, endless(&looked)).await;
        assert_eq!(answer.status, 403, "{target}: {}", answer.text);
        assert!(!looked.load(Ordering::SeqCst), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_in_size_in_time_and_together() {
    let harness = harness().await;
    let large = Body::from(format!("{{\"version\":1,\"x\":\"{}\"}}", "x".repeat(1024)));
    let answer = send(&harness, reader(), "PUT", "/v1/tokens/anna/ack", large).await;
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (413, Some("too-large"))
    );
    let chunks = stream::iter((0..5).map(|_| Ok::<_, std::io::Error>("x".repeat(400))));
    let chunked = Body::from_stream(chunks);
    let answer = send(&harness, reader(), "PUT", "/v1/tokens/anna/ack", chunked).await;
    assert_eq!(answer.status, 413, "{}", answer.text);

    let looked = Arc::default();
    let began = harness.clock.now();
    let answer = send(
        &harness,
        reader(),
        "PUT",
        "/v1/tokens/anna/ack",
        endless(&looked),
    )
    .await;
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (408, Some("timeout"))
    );
    assert_eq!(harness.clock.now().duration_since(began).as_secs(), 10);

    // Two lists of unknown length may be read at once; the third is told that there is no room.
    let lists =
        [(); 3].map(|()| send(&harness, admin(), "POST", "/v1/campaigns", endless(&looked)));
    let [first, second, third] = lists;
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!((first.status, second.status), (408, 408));
    assert_eq!(
        (third.status, third.json()["type"].as_str()),
        (503, Some("busy"))
    );
    assert!(third.text.contains("128 MiB"), "{}", third.text);
    let again = harness.send("POST", "/v1/campaigns/plan", "{}").await;
    assert_eq!(again.status, 400, "the room is free again: {}", again.text);
}

#[tokio::test(start_paused = true)]
async fn every_refusal_is_a_problem_document() {
    let harness = harness().await;
    for (method, target, content, body, status, kind) in [
        ("GET", "/nowhere", "", "", 404, "unknown"),
        ("POST", "/v1/tokens/anna", "", "", 405, "method-not-allowed"),
        ("DELETE", "/v1/status", "", "", 405, "method-not-allowed"),
        ("GET", "/v1/tokens/%ff", "", "", 400, "invalid"),
        (
            "GET",
            "/v1/tokens/anna?wait=1&wait=2",
            "",
            "",
            400,
            "invalid",
        ),
        ("GET", "/v1/holders?old=maybe", "", "", 400, "invalid"),
        ("GET", "/v1/campaigns/x", "", "", 400, "invalid"),
        (
            "PUT",
            "/v1/tokens/anna/ack",
            "text/plain",
            "7",
            415,
            "unsupported-media",
        ),
        (
            "PUT",
            "/v1/tokens/anna/ack",
            "application/json",
            "{",
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/import",
            "application/json",
            "[]",
            400,
            "invalid",
        ),
    ] {
        let headers = [("content-type", content)];
        let answer = ask(harness.socket(), admin(), method, target, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text);
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{target}"
        );
        let problem = answer.json();
        assert_eq!(problem["type"], kind, "{target}: {problem}");
        assert_eq!(problem["status"], status, "{target}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{target}");
        assert_eq!(answer.header("allow").is_empty(), status != 405, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_for_a_header_have_a_type_of_their_own() {
    let harness = harness().await;
    for header in ["origin", "forwarded", "x-forwarded-for"] {
        let answer = harness.get(admin(), "/v1/status", &[(header, "x")]).await;
        assert_eq!(answer.json()["type"], "header-refused", "{header}");
    }
}

/// Who asks for a thousand names that are not theirs makes the store look for no more than for a few.
#[tokio::test(start_paused = true)]
async fn many_names_in_vain_cost_no_more_than_one() {
    let harness = with_carl().await;
    let many: Vec<String> = (0..1000).map(|n| format!("name=n{n:03}")).collect();
    let mut costs = Vec::new();
    for target in [
        "/v1/watch?name=carl",
        &format!("/v1/watch?{}", many.join("&")),
    ] {
        let before = harness.store.reads_made();
        let answer = harness.get(stranger(), target, &[]).await;
        assert_eq!(answer.status, 403, "{}", answer.text);
        costs.push(harness.store.reads_made() - before);
    }
    assert_eq!(costs, [1, 1]);
}

/// Each of these begun once: those that wait, and how many ended at once, as a thread of its own may have answered.
async fn begun<T, E: std::fmt::Debug>(
    all: impl Iterator<Item = impl Future<Output = Result<T, E>>>,
) -> (
    Vec<std::pin::Pin<Box<impl Future<Output = Result<T, E>>>>>,
    usize,
) {
    let (mut waiting, mut ended) = (Vec::new(), 0);
    for one in all {
        let mut one = Box::pin(one);
        match futures_util::poll!(one.as_mut()) {
            std::task::Poll::Pending => waiting.push(one),
            std::task::Poll::Ready(answer) => {
                answer.unwrap();
                ended += 1;
            }
        }
    }
    (waiting, ended)
}

/// A user may have thousands of uids: what has to be asked about each of them keeps no reader waiting.
#[tokio::test(start_paused = true)]
async fn questions_about_callers_of_whom_nothing_is_known_leave_room_to_readers() {
    let harness = harness().await;
    let rights = &harness.api.rights;
    let before = rights.asked();
    let blocks = (1..50).map(|block| block << 16);
    let many = blocks.map(|uid| rights.standing(Peer { uid, gid: uid }));
    let (many, ended) = begun(many).await;
    assert_eq!(rights.asked() - before - ended, 2, "the others wait");
    let served = harness.get(reader(), "/v1/tokens/anna", &[]).await;
    assert_eq!(served.status, 200, "{}", served.text);
    let answers = futures_util::future::join_all(many).await;
    assert!(answers.iter().all(Result::is_ok));
}

/// Who is given thousands of uids has them in blocks, and those of a block wait for one another alone.
#[tokio::test(start_paused = true)]
async fn who_comes_as_thousands_of_users_keeps_no_first_time_reader_waiting() {
    use crate::api::peer::CallerStanding;
    let harness = harness().await;
    let rights = &harness.api.rights;
    let before = rights.asked();
    let many = (100_000..101_000).map(|uid| rights.standing(Peer { uid, gid: uid }));
    let (many, ended) = begun(many).await;
    assert_eq!(rights.asked() - before - ended, 1, "the others wait");
    // The thousand are not looked after meanwhile: what they hold they keep.
    let standing = rights.standing(reader()).await.unwrap();
    assert_eq!(standing, CallerStanding::Reader);
    let answers = futures_util::future::join_all(many).await;
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn who_asks_in_vain_on_many_connections_asks_seldom() {
    use crate::api::peer::{CallerStanding, Turns};
    let harness = with_carl().await;
    for (peer, standing, slow) in [
        (stranger(), CallerStanding::Stranger, true),
        (reader(), CallerStanding::Reader, true),
        (admin(), CallerStanding::Trusted, false),
    ] {
        let turns = Turns::of(16);
        let ask = |target: &'static str| {
            let request = Request::get(target)
                .header("x-renewd-client", "test")
                .extension(peer)
                .extension(standing)
                .extension(turns.clone())
                .body(Body::empty())
                .unwrap();
            harness.socket().oneshot(request)
        };
        let began = harness.clock.now();
        let refused = (0..100).map(|_| ask("/v1/tokens/nosuch"));
        futures_util::future::join_all(refused).await;
        let took = harness.clock.now().duration_since(began).as_millis();
        assert_eq!(
            took,
            if slow { 500 } else { 0 },
            "{standing:?}: 200 refusals a second"
        );
        let served = ask("/v1/tokens/anna").await.unwrap();
        assert_eq!(served.status() == 200, standing != CallerStanding::Stranger);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_anything_is_told_from_strangers() {
    use crate::api::peer::CallerStanding;
    let harness = with_carl().await;
    let rights = &harness.api.rights;
    let daemon = accounts::user("daemon").unwrap();
    let carls = Peer {
        uid: daemon.uid,
        gid: daemon.gid.unwrap(),
    };
    for (peer, standing) in [
        (admin(), CallerStanding::Trusted),
        (reader(), CallerStanding::Reader),
        (carls, CallerStanding::Reader),
        (stranger(), CallerStanding::Stranger),
    ] {
        assert_eq!(rights.standing(peer).await.unwrap(), standing, "{peer:?}");
    }
    let removed = harness.send("DELETE", "/v1/identities/carl", "").await;
    assert_eq!(removed.status, 200, "{}", removed.text);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_watched_is_bounded_for_each_user_and_together() {
    let harness = harness().await;
    let mut streams = Vec::new();
    let refused = loop {
        let request = Request::get("/v1/watch")
            .header("x-renewd-client", "test")
            .extension(admin())
            .body(Body::empty())
            .unwrap();
        let response = harness.socket().oneshot(request).await.unwrap();
        if response.status() != 200 {
            break Answer::of(response).await;
        }
        streams.push(response);
        assert!(streams.len() < 1000, "it is bounded");
    };
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (503, Some("busy"))
    );
    drop(streams);
    assert_eq!(
        harness.get(reader(), "/v1/tokens/anna", &[]).await.status,
        200
    );
}
