//! The page over its router: what it shows, to whom, at what weight, and how it is kept up.

use futures_util::StreamExt as _;

use super::*;
use crate::{
    api::{guard::Listener, public},
    model::{HealthView, SinkAt},
};

/// As much as the page may weigh, in bytes.
const LARGEST: usize = 60_000;

impl Harness {
    async fn page(&self, query: &str) -> Answer {
        let answer = self.tcp(&format!("/{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SharedState)) {
        self.shared_state.send_modify(|shared_state| {
            let mut changed = SharedState::clone(shared_state);
            change(&mut changed);
            *shared_state = Arc::new(changed);
        });
    }

    fn names_may_be_shown(&self) {
        self.change(|shared_state| shared_state.daemon.page_names = true);
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_is_one_document_that_runs_nothing_but_its_own_script() {
    let harness = harness().await;
    harness.change(|shared_state| shared_state.daemon.instance = "<b>&\"'".into());
    let answer = harness.page("").await;
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
    let nonce = policy.split_once("'nonce-").unwrap().1;
    let nonce = nonce.split_once('\'').unwrap().0;
    assert_eq!(nonce.len(), 32);
    assert_eq!(
        answer.text.matches(&format!(" nonce=\"{nonce}\">")).count(),
        2
    );
    assert!(policy.matches(nonce).count() == 2 && !harness.page("").await.text.contains(nonce));
    for word in ["<script", "<style"] {
        assert_eq!(answer.text.matches(word).count(), 1, "{word}");
    }
    for word in ["http:", "https:", "//", " style=", "onclick", "<b>&"] {
        let body = answer.text.split_once("</style>").unwrap().1;
        let body = body.split_once("<script").unwrap().0;
        assert!(!body.contains(word), "{word}: {body}");
    }
    assert!(answer.text.contains("&lt;b&gt;&amp;"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test(start_paused = true)]
async fn the_page_says_who_holds_a_token_and_what_needs_a_person() {
    let harness = harness().await;
    let first = harness.page("").await.text;
    assert!(
        first.contains("0 of 2 consumers hold a live token, 2 do not."),
        "{first}"
    );
    harness.deliver(ANNA).await;
    harness.issue(BERT, "canary-2").await;
    harness.deliver(BERT).await;
    let well = harness.page("").await.text;
    for words in [
        "All 2 consumers hold a live token.",
        "The next one ends <time datetime=\"2026-11-22T13:00:00Z\" title=\"2026-11-22T13:00:00Z\" data-away>in 1h</time>",
        "<p class=\"well\">Nothing.</p>",
        "<h1>test</h1>",
        ">12:00:00</time>",
        "has everything",
    ] {
        assert!(well.contains(words), "{words}: {well}");
    }
    harness.dispatcher.send_modify(|dispatcher| {
        dispatcher.failures_in_row = 5;
        dispatcher.failing_since = Some(harness.clock.now());
        dispatcher.last_error = Some("the receiver answered 503: canary of anna".into());
    });
    harness.renewer.send_modify(|renewer| {
        let because = "500 Oops from contoso: canary".into();
        let since = harness.clock.now();
        let silent = HealthView::Probing { since, because };
        renewer.health.insert("issue".into(), silent);
    });
    tokio::time::advance(Duration::from_secs(65)).await;
    let ill = harness.page("").await.text;
    for words in [
        "5 failures in a row",
        "<span class=\"kind\">answered 503</span>",
        "no answer to issue: answered 500",
        "<code>renewd delivery list --sink files</code>",
        "data-away>1m 5s ago</time>",
        "<title>! test · renewd</title>",
    ] {
        assert!(ill.contains(words), "{words}: {ill}");
    }
    assert!(!ill.contains("canary") && !ill.contains("anna"), "{ill}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_looked_up_only_where_names_may_be_shown() {
    let harness = harness().await;
    tokio::time::advance(Duration::from_secs(65 * 60)).await;
    for query in ["?name=anna", "?name=nobody-of-this-name"] {
        let hidden = harness.page(query).await.text;
        assert!(
            hidden.contains("<code>[daemon] page_names</code> is off"),
            "{hidden}"
        );
        assert!(
            !hidden.contains("anna") && !hidden.contains("nobody-of"),
            "{hidden}"
        );
        assert!(!hidden.contains("<form") && hidden.contains("<code>renewd status</code>"));
    }
    harness.names_may_be_shown();
    harness.renewer.send_modify(|renewer| {
        let because = "no connection to contoso: Connection refused: canary".into();
        let since = harness.clock.now();
        let silent = HealthView::Probing { since, because };
        renewer.health.insert("issue".into(), silent);
    });
    let shown = harness.page("?name=anna").await.text;
    for words in [
        "<form role=\"search\"",
        "<h2 id=\"found-title\">anna",
        "its token expired 5m ago",
        "connection refused",
        "<a href=\"./?name=anna\">anna</a>",
        "<code>renewd why anna</code>",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("canary"), "{shown}");
    let unknown = harness.page("?name=%3Cscript%3E").await.text;
    assert!(
        unknown.contains("There is no identity “&lt;script&gt;”."),
        "{unknown}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_gets_everything_once_and_then_what_changes() {
    let harness = harness().await;
    let router = public::router(harness.api.clone(), Listener::Loopback);
    let request = Request::get("/api/events").header("host", "localhost");
    let response = router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut frames = response.into_body().into_data_stream();
    let mut next = async || {
        let frame = frames.next().await?.unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        let data = text.split_once("data: ").unwrap().1;
        let update: serde_json::Value = serde_json::from_str(data.trim()).unwrap();
        let parts = update["parts"].as_object().unwrap();
        let parts: Vec<String> = parts.keys().cloned().collect();
        Some((update["at"].to_string(), parts))
    };
    let began = harness.clock.now();
    assert_eq!(next().await.unwrap().1.len(), 9);
    assert_eq!(
        next().await.unwrap().1,
        Vec::<String>::new(),
        "only time passed"
    );
    harness.deliver(ANNA).await;
    let (at, parts) = next().await.unwrap();
    assert!(at.contains("12:00:04"), "{at}");
    for part in ["sentence", "needs", "sinks"] {
        assert!(parts.iter().any(|one| one == part), "{part}: {parts:?}");
    }
    while next().await.is_some() {}
    let lasted = harness.clock.now().duration_since(began);
    assert!((SignedDuration::from_secs(20)..SignedDuration::from_secs(30)).contains(&lasted));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_daemon() {
    let harness = harness().await;
    let router = public::router(harness.api.clone(), Listener::Loopback);
    let request = Request::get("/api/events").header("host", "localhost");
    let response = router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let mut frames = response.into_body().into_data_stream();
    assert!(frames.next().await.is_some());
    harness.api.stop.cancel();
    assert!(frames.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_page_stays_small_whatever_there_is_to_tell() {
    let harness = harness().await;
    harness.names_may_be_shown();
    let long = |n: usize| format!("{n}-{}", "x".repeat(40));
    let silent = HealthView::Probing {
        since: harness.clock.now(),
        because: "timed out".into(),
    };
    let renewer = watch::Sender::new(RenewerView {
        decided_at: Some(harness.clock.now()),
        health: BTreeMap::from([("issue".to_owned(), silent)]),
        skew_ms: Some(-90_000),
        ..RenewerView::default()
    });
    let dispatcher = watch::Sender::new(DispatcherView {
        failures_in_row: 12,
        failing_since: Some(harness.clock.now()),
        last_error: Some("the receiver answered 503".into()),
        kind: "webhook".into(),
        ..DispatcherView::default()
    });
    harness.change(|shared_state| {
        for n in 0..100 {
            let resource: ResourceName = long(n).parse().unwrap();
            let declared = crate::schedule::Declared {
                room: crate::schedule::Room {
                    limits: crate::config::Limits::default(),
                    max_in_flight: 32,
                },
                cohorts: Vec::new(),
            };
            shared_state.declared.insert(resource.clone(), declared);
            shared_state.renewers.insert(resource, renewer.subscribe());
            let sink: SinkAt = long(n).parse().unwrap();
            shared_state
                .dispatchers
                .insert(sink, dispatcher.subscribe());
        }
    });
    let page = harness.page("?name=anna").await.text;
    assert!(page.len() < LARGEST, "{} bytes", page.len());
    assert!(page.contains("more: <code>renewd status</code>"), "{page}");
}
