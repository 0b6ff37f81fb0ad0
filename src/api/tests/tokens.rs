use super::*;
use crate::model::{BearerCause, BearerKind, BearerTrouble, BearerView, HealthView, Then};

const TOKEN: &str = "/v1/tokens/anna";

#[tokio::test(start_paused = true)]
async fn a_reader_gets_the_document_or_the_bare_token() {
    let harness = harness().await;
    let version = harness
        .store
        .record(&name(ANNA))
        .await
        .unwrap()
        .unwrap()
        .version;
    let answer = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("etag"), format!("\"{version}\""));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    assert_eq!(document["token"], "canary-1");
    assert_eq!(document["version"], version.0);
    assert_eq!(document["expires_at"], "2026-11-22T13:00:00Z");

    let bare = harness
        .get(reader(), TOKEN, &[("accept", "text/plain")])
        .await;
    assert_eq!((bare.status, bare.text.as_str()), (200, "canary-1"));

    let etag = format!("\"{version}\"");
    let same = harness
        .get(reader(), TOKEN, &[("if-none-match", etag.as_str())])
        .await;
    assert_eq!((same.status, same.text.as_str()), (304, ""));
    let other = harness
        .get(reader(), TOKEN, &[("if-none-match", "\"1\"")])
        .await;
    assert_eq!(other.status, 200);
}

#[tokio::test(start_paused = true)]
async fn names_cannot_be_guessed() {
    let harness = harness().await;
    let theirs = harness.get(stranger(), TOKEN, &[]).await;
    let nobodys = harness.get(stranger(), "/v1/tokens/nothere", &[]).await;
    let no_name = harness.get(stranger(), "/v1/tokens/..", &[]).await;
    assert_eq!(theirs.status, 403);
    assert_eq!(theirs.json()["type"], "forbidden");
    for same in [&nobodys, &no_name] {
        assert_eq!(
            (same.status, &same.text, &same.headers),
            (403, &theirs.text, &theirs.headers)
        );
    }
    let unknown = harness.get(admin(), "/v1/tokens/nothere", &[]).await;
    assert_eq!(
        (unknown.status, unknown.json()["type"].as_str()),
        (404, Some("unknown"))
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_known_peer_nothing_is_handed_over() {
    let harness = harness().await;
    let request = Request::get(TOKEN)
        .header("x-renewd-client", "t")
        .body(Body::empty())
        .unwrap();
    let response = harness.socket().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 403);
}

#[tokio::test(start_paused = true)]
async fn what_a_consumer_sees_without_a_token() {
    let harness = harness().await;
    let new = harness.get(reader(), "/v1/tokens/bert", &[]).await;
    assert_eq!(
        (new.status, new.json()["type"].as_str()),
        (503, Some("pending"))
    );
    assert!(!new.header("retry-after").is_empty());

    harness.step(ANNA, Step::Withhold).await;
    let held = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(
        (held.status, held.json()["type"].as_str()),
        (409, Some("held"))
    );
    assert!(!held.header("etag").is_empty());

    harness
        .step(
            ANNA,
            Step::Deleted {
                at: harness.clock.now(),
            },
        )
        .await;
    let deleted = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(
        (deleted.status, deleted.json()["type"].as_str()),
        (410, Some("deleted"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_handed_over() {
    let harness = harness().await;
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(harness.get(reader(), TOKEN, &[]).await.status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    harness.renewer.send_modify(|renewer| {
        let because = "connection refused".to_owned();
        renewer.health.insert(
            "issue".into(),
            HealthView::Probing {
                since: at(&harness, -60),
                because,
            },
        );
    });
    let dead = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(
        (dead.status, dead.json()["type"].as_str()),
        (503, Some("unreachable"))
    );
    assert_eq!(dead.header("retry-after"), "5");
    assert!(!dead.text.contains("canary"));

    harness.renewer.send_modify(|renewer| {
        let held = HealthView::Held {
            until: at(&harness, 17),
            because: "429".into(),
        };
        renewer.health.insert("issue".into(), held);
    });
    let throttled = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(
        (throttled.status, throttled.json()["type"].as_str()),
        (503, Some("throttled"))
    );
    assert_eq!(throttled.header("retry-after"), "17");

    // Nobody says of ACS what is about Entra ID.
    harness.renewer.send_modify(|renewer| {
        renewer.bearer = Some(BearerView {
            kind: BearerKind::ClientSecret,
            client: None,
            ends: None,
            trouble: Some(BearerTrouble {
                since: at(&harness, -60),
                cause: BearerCause::Unanswered,
                told: "no connection".to_owned(),
            }),
            certificate_ends: None,
            requests: 1,
        });
    });
    let without = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(without.header("retry-after"), "5");
    let (text, json) = (&without.text, without.json());
    assert_eq!(
        (without.status, json["type"].as_str()),
        (503, Some("unreachable"))
    );
    assert!(
        text.contains("Entra ID does not answer") && !text.contains("ACS"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_not_handed_over_while_its_successor_is_awaited() {
    let harness = harness().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    harness
        .step(
            ANNA,
            Step::Revoked {
                at: harness.clock.now(),
                then: Then::Reissue,
            },
        )
        .await;
    let gap = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(gap.status, 503, "{}", gap.text);
    tokio::time::advance(Duration::from_millis(10)).await;
    harness.issue(ANNA, "canary-2").await;
    let next = harness
        .get(reader(), TOKEN, &[("accept", "text/plain")])
        .await;
    assert_eq!((next.status, next.text.as_str()), (200, "canary-2"));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_stays_dead_after_a_re_issue_that_failed_whatever_the_clocks_say() {
    let harness = harness().await;
    let issued = harness.clock.now();
    // The service's clock is far ahead of ours, so the token seems to be issued after its revocation.
    harness
        .renewer
        .send_modify(|renewer| renewer.skew_ms = Some(-3_000_000));
    harness
        .step(
            ANNA,
            Step::Revoked {
                at: issued,
                then: Then::Reissue,
            },
        )
        .await;
    let failed = Change::Failed {
        blame: crate::model::Blame::Row,
        num: harness.num(ANNA).await,
        attempt: Attempt {
            at: harness.clock.now(),
            result: "retry 500".into(),
            request_id: None,
        },
        due: Due {
            at: harness.clock.now() + Duration::from_secs(2),
            why: DueReason::Retry,
        },
    };
    let now = harness.clock.now();
    harness.store.commit(vec![failed], now).await.unwrap();
    let gap = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(gap.status, 503, "{}", gap.text);
    assert!(gap.text.contains("revoked"), "{}", gap.text);
}

#[tokio::test(start_paused = true)]
async fn a_token_dies_by_the_clock_that_it_was_minted_under() {
    let harness = harness().await;
    harness
        .renewer
        .send_modify(|renewer| renewer.skew_ms = Some(600_000));
    tokio::time::advance(Duration::from_secs(49 * 60)).await;
    assert_eq!(harness.get(reader(), TOKEN, &[]).await.status, 200);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(harness.get(reader(), TOKEN, &[]).await.status, 503);
    harness
        .renewer
        .send_modify(|renewer| renewer.skew_ms = Some(-600_000));
    assert_eq!(harness.get(reader(), TOKEN, &[]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_token_is_served_and_said_to_be_doubtful() {
    let harness = harness().await;
    let good = harness.get(reader(), TOKEN, &[]).await;
    assert_eq!(good.header("x-renewd-standing"), "good");
    let doubt = harness.clock.now();
    harness
        .renewer
        .send_modify(|renewer| renewer.doubted = [("key".to_owned(), doubt)].into());
    let etag = good.header("etag").to_owned();
    for headers in [vec![], vec![("if-none-match", etag.as_str())]] {
        let answer = harness.get(reader(), TOKEN, &headers).await;
        assert!([200, 304].contains(&answer.status), "{}", answer.text);
        assert_eq!(answer.header("x-renewd-standing"), "doubtful");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_did_not_mean_to_come_here_are_refused() {
    let harness = harness().await;
    for (header, value) in [
        ("origin", "https://evil.example"),
        ("forwarded", "for=1"),
        ("x-forwarded-host", "x"),
    ] {
        let answer = harness.get(admin(), TOKEN, &[(header, value)]).await;
        assert_eq!(answer.status, 403, "{header}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    for host in [
        "unix",
        "renewd.example.com",
        "192.0.2.1:80",
        "/run/renewd/renewd.sock",
    ] {
        let answer = harness.get(admin(), TOKEN, &[("host", host)]).await;
        assert_eq!(answer.status, 200, "{host}: the kernel says who calls");
    }
    let request = Request::get(TOKEN)
        .extension(admin())
        .body(Body::empty())
        .unwrap();
    let bare = harness.socket().oneshot(request).await.unwrap();
    assert_eq!(bare.status(), 400, "without X-Renewd-Client");
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_as_delivered_once_every_sink_has_it() {
    let harness = harness().await;
    harness.issue(ANNA, "canary-2").await;
    let asked = format!("{TOKEN}?delivered=true");
    let answer = harness.get(reader(), &asked, &[]).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(
        answer.text.contains("is not delivered yet to files"),
        "{}",
        answer.text
    );
    assert_eq!(harness.get(reader(), TOKEN, &[]).await.status, 200);
    let waiting = format!("{asked}&wait=20s");
    let (answer, ()) = tokio::join!(harness.get(reader(), &waiting, &[]), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        harness.deliver(ANNA).await;
    });
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains("canary-2"), "{}", answer.text);
    let began = harness.clock.steady();
    assert_eq!(harness.get(reader(), &waiting, &[]).await.status, 200);
    assert_eq!(
        harness.clock.steady(),
        began,
        "there is nothing to wait for"
    );
}
