//! `/v1/watch` through its router.

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::*;

/// A stream that is being read.
struct Stream {
    body: axum::body::BodyDataStream,
    text: String,
}

/// An event that was read.
#[derive(Debug)]
struct Seen {
    id: String,
    kind: String,
    data: serde_json::Value,
}

impl Seen {
    fn token(&self) -> &str {
        self.data["token"].as_str().unwrap_or("")
    }
}

impl Stream {
    /// The next event that says something; one that does not come within an hour fails the test.
    async fn next(&mut self) -> Option<Seen> {
        let hour = Duration::from_hours(1);
        let within = tokio::time::timeout(hour, self.following()).await;
        within.expect("an event comes")
    }

    async fn following(&mut self) -> Option<Seen> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or("").trim_start().to_owned()
                };
                if !field("data:").is_empty() {
                    return Some(Seen {
                        id: field("id:"),
                        kind: field("event:"),
                        data: serde_json::from_str(&field("data:")).unwrap(),
                    });
                }
            }
            let more = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }
}

impl Harness {
    /// Runs the loop that tells watchers, until the harness is dropped.
    fn open(&self) -> CancellationToken {
        let stop = CancellationToken::new();
        tokio::spawn(super::super::watch::run(self.api.clone(), stop.clone()));
        stop
    }

    async fn watch(&self, peer: Peer, query: &str, last: Option<&str>) -> Stream {
        let mut request = Request::get(format!("/v1/watch{query}"))
            .header("x-renewd-client", "test")
            .extension(peer);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.socket().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Stream {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The readers of an identity become these.
    async fn readers(&self, who: &str, readers: &[&str]) {
        let mut changed = spec(who);
        changed.declared.readers = readers
            .iter()
            .map(|name| Reader::User((*name).into()))
            .collect();
        let other = spec(if who == ANNA { BERT } else { ANNA });
        self.store
            .reconcile(
                &[changed, other],
                &["files".parse().unwrap()],
                self.clock.now(),
            )
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_comes_at_once_and_every_new_version_after_it() {
    let harness = harness().await;
    harness.open();
    let mut stream = harness.watch(reader(), "?name=anna&name=bert", None).await;
    let mut first = [stream.next().await.unwrap(), stream.next().await.unwrap()];
    first.sort_by_key(|seen| seen.data["name"].to_string());
    assert_eq!(first[0].token(), "canary-1");
    assert_eq!(first[1].data["state"], "new");
    assert!(first[1].data["token"].is_null());
    let version = harness.issue(BERT, "canary-2").await;
    let next = stream.next().await.unwrap();
    assert_eq!((next.token(), next.kind.as_str()), ("canary-2", "token"));
    assert_eq!(next.data["version"], version.0);
    assert_eq!(next.id, harness.store.seq().to_string());
    harness.step(ANNA, Step::Withhold).await;
    let held = stream.next().await.unwrap();
    assert_eq!(held.data["state"], "held");
    assert!(held.data["token"].is_null());
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_connection_nothing_is_missed_and_nothing_told_twice() {
    let harness = harness().await;
    harness.open();
    let mut stream = harness.watch(reader(), "?name=anna&name=bert", None).await;
    let seen = [stream.next().await.unwrap(), stream.next().await.unwrap()];
    drop(stream);
    harness.issue(BERT, "canary-2").await;
    let mut stream = harness
        .watch(reader(), "?name=anna&name=bert", Some(&seen[1].id))
        .await;
    let missed = stream.next().await.unwrap();
    assert_eq!(missed.token(), "canary-2");
    harness.issue(ANNA, "canary-3").await;
    assert_eq!(stream.next().await.unwrap().token(), "canary-3");
    drop(stream);
    // Whoever was cut off between the first two has seen the first alone, and gets both again.
    let mut stream = harness
        .watch(reader(), "?name=anna&name=bert", Some(&seen[0].id))
        .await;
    let again = [stream.next().await.unwrap(), stream.next().await.unwrap()];
    assert!(again.iter().any(|seen| seen.token() == "canary-2"));
    assert!(again.iter().any(|seen| seen.token() == "canary-3"));
    // A number from before a restore, or from elsewhere, is no place to go on from.
    let mut stream = harness.watch(reader(), "?name=anna", Some("999999")).await;
    assert_eq!(stream.next().await.unwrap().token(), "canary-3");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest_alone() {
    let harness = harness().await;
    harness.open();
    let mut stream = harness.watch(reader(), "?name=anna", None).await;
    assert_eq!(stream.next().await.unwrap().token(), "canary-1");
    // What this reader asks for is told to another first, so the hub has looked at each of them.
    let mut quick = harness.watch(reader(), "?name=anna", None).await;
    quick.next().await.unwrap();
    for n in 2..200 {
        harness.issue(ANNA, &format!("canary-{n}")).await;
        assert_eq!(quick.next().await.unwrap().token(), format!("canary-{n}"));
    }
    assert_eq!(stream.next().await.unwrap().token(), "canary-199");
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_pushed() {
    let harness = harness().await;
    harness.open();
    let mut slow = harness.watch(reader(), "?name=anna", None).await;
    let mut quick = harness.watch(reader(), "?name=anna", None).await;
    slow.next().await.unwrap();
    quick.next().await.unwrap();
    harness.issue(ANNA, "canary-2").await;
    quick.next().await.unwrap();
    tokio::time::advance(Duration::from_secs(3601)).await;
    for stream in [
        &mut slow,
        &mut harness.watch(reader(), "?name=anna", None).await,
    ] {
        let seen = stream.next().await.unwrap();
        assert!(seen.data["token"].is_null(), "{seen:?}");
        assert_eq!(seen.data["state"], "late");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_read_is_refused_and_names_cannot_be_guessed() {
    let harness = harness().await;
    let ask = |peer, target| {
        let harness = &harness;
        async move { harness.get(peer, target, &[]).await }
    };
    let theirs = ask(stranger(), "/v1/watch?name=anna").await;
    let nobodys = ask(stranger(), "/v1/watch?name=zoe").await;
    assert_eq!((theirs.status, nobodys.status), (403, 403));
    assert_eq!(theirs.text, nobodys.text);
    assert_eq!(
        ask(reader(), "/v1/watch?name=anna&name=zoe").await.status,
        403
    );
    assert_eq!(ask(reader(), "/v1/watch").await.status, 403);
    let unknown = ask(admin(), "/v1/watch?name=anna&name=zoe").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text.contains("zoe"), "{}", unknown.text);
}

#[tokio::test(start_paused = true)]
async fn admins_watch_everything() {
    let harness = harness().await;
    harness.open();
    let mut stream = harness.watch(admin(), "", None).await;
    let first = [stream.next().await.unwrap(), stream.next().await.unwrap()];
    assert_eq!(first[0].data["name"], "anna");
    assert_eq!(first[1].data["name"], "bert");
    let mut changed = spec("zoe");
    changed.origin = Origin::Cli;
    harness
        .store
        .declare(vec![changed], harness.clock.now())
        .await
        .unwrap();
    harness.issue("zoe", "canary-9").await;
    assert_eq!(stream.next().await.unwrap().token(), "canary-9");
}

#[tokio::test(start_paused = true)]
async fn who_lost_access_gets_no_more() {
    let harness = harness().await;
    harness.open();
    let mut stream = harness.watch(reader(), "?name=anna&name=bert", None).await;
    stream.next().await.unwrap();
    stream.next().await.unwrap();
    harness.readers(ANNA, &["root"]).await;
    harness.issue(ANNA, "canary-2").await;
    let told = stream.next().await.unwrap();
    assert_eq!(told.kind, "forbidden");
    assert_eq!(told.data["name"], "anna");
    assert_eq!(told.data["type"], "forbidden");
    harness.issue(ANNA, "canary-3").await;
    harness.issue(BERT, "canary-4").await;
    assert_eq!(stream.next().await.unwrap().token(), "canary-4");
    let mut alone = harness.watch(reader(), "?name=bert", None).await;
    alone.next().await.unwrap();
    harness.readers(BERT, &[]).await;
    harness.issue(BERT, "canary-5").await;
    assert_eq!(alone.next().await.unwrap().kind, "forbidden");
    assert!(alone.next().await.is_none(), "nothing is left to watch");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_daemon() {
    let harness = harness().await;
    let mut stream = harness.watch(reader(), "?name=anna", None).await;
    stream.next().await.unwrap();
    harness.api.stop.cancel();
    assert!(stream.next().await.is_none());
}

fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// The tag of the version that Anna has: what a caller sends who saw it.
async fn seen_by(harness: &Harness) -> String {
    let record = harness.store.record(&name(ANNA)).await.unwrap();
    etag(record.unwrap().version)
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_next_version() {
    let harness = harness().await;
    let began = harness.clock.now();
    let seen = seen_by(&harness).await;
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
    assert_eq!(answer.header("etag"), etag(version));
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
    let seen = seen_by(&harness).await;
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
    let seen = seen_by(&harness).await;
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
    let seen = seen_by(&harness).await;
    let headers = [("if-none-match", seen.as_str())];
    let answer = harness
        .get(reader(), "/v1/tokens/anna?wait=30s", &headers)
        .await;
    assert_eq!(answer.status, 503, "not 304: what the caller has is dead");
}

#[tokio::test(start_paused = true)]
async fn rights_that_were_taken_away_end_it_with_the_next_look() {
    let harness = harness().await;
    let seen = seen_by(&harness).await;
    let headers = [("if-none-match", seen.as_str())];
    let poll = harness.get(reader(), "/v1/tokens/anna?wait=55s", &headers);
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let closed = Spec {
            declared: Declaration {
                readers: Vec::new(),
                ..spec(ANNA).declared
            },
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
