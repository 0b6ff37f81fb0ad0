//! What needs a person is one function of facts: status, readiness, metrics and notices say the same, and
//! each kind appears and goes.

use super::*;
use crate::model::{Attempt, Blame, Change, Due, DueReason, HealthView, NoticeKind};
use wire::NeedKind;

impl Harness {
    /// Two identities whose consumers hold live tokens, and every loop decides.
    pub(super) async fn calm() -> Self {
        let harness = harness().await;
        harness.issue(BERT, "canary-2").await;
        for who in [ANNA, BERT] {
            harness.deliver(who).await;
        }
        harness
    }

    pub(super) fn reaffirm(&self) {
        let fresh = Some(self.clock.now());
        self.renewer
            .send_modify(|renewer| renewer.decided_at = fresh);
        self.dispatcher.send_modify(|one| one.decided_at = fresh);
        self.runner.send_replace(fresh);
    }

    pub(super) async fn status(&self) -> wire::Status {
        let answer = self.get(admin(), "/v1/status", &[]).await;
        serde_json::from_value(answer.json()).unwrap()
    }

    pub(super) async fn kinds(&self) -> Vec<NeedKind> {
        let status = self.status().await;
        status.needs.iter().map(|need| need.kind).collect()
    }

    /// Status, metrics, readiness and the service manager's line tell of this kind alone.
    pub(super) async fn tells(&self, kind: NeedKind) {
        let status = self.status().await;
        let kinds: Vec<_> = status.needs.iter().map(|need| need.kind).collect();
        assert!(kinds.contains(&kind), "{kind:?} is not in {kinds:?}");
        let metrics = self.tcp("/metrics").await.text;
        let line = format!("renewd_needs{{kind=\"{}\"}} 1", kind.as_word());
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
        let ready = self.tcp("/readyz").await.text;
        let told = ready.contains(&kind.as_word()) && ready.contains("renewd status");
        assert_eq!(told, kind.is_grave(), "{ready}");
        let line = self.api.headline().await;
        assert!(line.contains(&status.needs[0].subject), "{line}");
    }

    /// None of them tells of this kind.
    pub(super) async fn is_silent_about(&self, kind: NeedKind) {
        assert!(!self.kinds().await.contains(&kind), "{kind:?} does not go");
        let metrics = self.tcp("/metrics").await.text;
        let line = format!("renewd_needs{{kind=\"{}\"}} 0", kind.as_word());
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_needs_a_person_while_every_consumer_holds_a_live_token() {
    let harness = Harness::calm().await;
    assert_eq!(harness.kinds().await, []);
    let all = harness.status().await.consumers.unwrap().all();
    assert_eq!((all.live, all.without, all.unknown), (2, 0, 0));
    assert_eq!(all.next_end, Some(at(&harness, 3600)));
    let line = harness.api.headline().await;
    assert!(
        line.starts_with("2 of 2 consumers hold a live token"),
        "{line}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_by_itself_is_told_until_it_does_no_more() {
    let harness = Harness::calm().await;
    let name: crate::model::Name = ANNA.parse().unwrap();
    let record = harness.api.store.record(&name).await.unwrap().unwrap();
    let due = Due {
        at: at(&harness, 90),
        why: DueReason::Retry,
    };
    let failed = Change::Failed {
        num: record.num,
        attempt: Attempt {
            at: harness.clock.now(),
            result: "credentials 403".to_owned(),
            request_id: None,
        },
        due,
        blame: Blame::RowAlone,
    };
    let now = harness.clock.now();
    harness.api.store.commit(vec![failed], now).await.unwrap();
    harness.tells(NeedKind::Failing).await;
    let status = harness.status().await;
    let need = status
        .needs
        .iter()
        .find(|need| need.kind == NeedKind::Failing);
    let need = need.unwrap();
    assert_eq!((need.since, &need.names[..]), (Some(now), &[name][..]));
    let because = need.because.as_ref().unwrap();
    assert!(
        because.contains("credentials 403")
            && because.contains(&due.at.strftime("%H:%M:%S").to_string()),
        "{because}"
    );
    assert_eq!(
        need.command.as_deref(),
        Some(&*format!("renewd why {ANNA}"))
    );
    harness.issue(ANNA, "canary-4").await;
    harness.deliver(ANNA).await;
    harness.is_silent_about(NeedKind::Failing).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_ended_in_an_outage_are_said_everywhere() {
    let harness = Harness::calm().await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    harness.reaffirm();
    harness.tells(NeedKind::NoLiveToken).await;
    let ready = harness.tcp("/readyz").await;
    assert_eq!(ready.status, 200, "every loop decides: {}", ready.text);
    let metrics = harness.tcp("/metrics").await.text;
    for line in [
        "renewd_identities{resource=\"contoso\",state=\"active\"} 0",
        "renewd_identities{resource=\"contoso\",state=\"dead\"} 2",
        "renewd_consumers{by=\"files\",holds=\"live\"} 0",
        "renewd_consumers{by=\"files\",holds=\"none\"} 2",
        // Due at half of an hour's life, whatever was tried since.
        "renewd_overdue_seconds{resource=\"contoso\"} 1800.0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    for who in [ANNA, BERT] {
        harness.issue(who, "canary-3").await;
        harness.deliver(who).await;
    }
    harness.is_silent_about(NeedKind::NoLiveToken).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_is_told_once_and_its_end_when_something_arrived() {
    let harness = Harness::calm().await;
    let now = harness.clock.now();
    let mut open = BTreeMap::new();
    harness.dispatcher.send_modify(|dispatcher| {
        dispatcher.failures_in_row = 3;
        dispatcher.failing_since = Some(now);
        dispatcher.last_error = Some("500".into());
    });
    harness.tells(NeedKind::SinkFailing).await;
    assert_eq!(harness.api.news(&open).await, [], "it may be an accident");
    harness
        .dispatcher
        .send_modify(|one| one.failures_in_row = 10);
    let news = harness.api.news(&open).await;
    assert_eq!(news[0].kind, NoticeKind::SinkFailing);
    assert!(news[0].message.contains("500"), "{}", news[0].message);
    open.insert(news[0].key.clone().unwrap(), news[0].kind);
    assert_eq!(harness.api.news(&open).await, [], "it is told");
    // A restart: nothing was tried yet.
    harness.dispatcher.send_modify(|dispatcher| {
        dispatcher.failures_in_row = 0;
        dispatcher.failing_since = None;
    });
    assert_eq!(
        harness.api.news(&open).await,
        [],
        "nothing was seen to work"
    );
    harness
        .dispatcher
        .send_modify(|dispatcher| dispatcher.delivered = 1);
    let over = harness.api.news(&open).await;
    assert_eq!(
        (over[0].kind, over[0].key.as_deref()),
        (NoticeKind::SinkRecovered, Some("failing files"))
    );
    harness.is_silent_about(NeedKind::SinkFailing).await;
    harness.dispatcher.send_modify(|dispatcher| {
        dispatcher.failures_in_row = 1;
        dispatcher.failing_since = Some(now);
    });
    assert_eq!(harness.kinds().await, [], "one failure");
    tokio::time::advance(Duration::from_secs(300)).await;
    harness.reaffirm();
    harness.tells(NeedKind::SinkFailing).await;
    let long = harness.api.news(&BTreeMap::new()).await;
    assert_eq!(long[0].kind, NoticeKind::SinkFailing, "five minutes");
}

#[tokio::test(start_paused = true)]
async fn what_the_daemon_stands_on_is_said_and_told() {
    let harness = Harness::calm().await;
    let amiss = Some(Amiss {
        what: "the file /x is gone".into(),
        since: harness.clock.now(),
    });
    let mut open = BTreeMap::new();
    for (kind, begins, ends) in [
        (
            NeedKind::StoreMoved,
            NoticeKind::StoreMoved,
            NoticeKind::StoreFound,
        ),
        (
            NeedKind::SocketMoved,
            NoticeKind::SocketMoved,
            NoticeKind::SocketFound,
        ),
        (
            NeedKind::ReloadRefused,
            NoticeKind::ReloadRefused,
            NoticeKind::ReloadAccepted,
        ),
    ] {
        let set = |amiss: Option<Amiss>| match kind {
            NeedKind::StoreMoved => drop(harness.moved.send_replace(amiss)),
            NeedKind::SocketMoved => drop(harness.api.socket.send_replace(amiss)),
            _ => harness.shared_state.send_modify(|shared_state| {
                let mut now = SharedState::clone(shared_state);
                now.reload_refused = amiss.clone();
                *shared_state = Arc::new(now);
            }),
        };
        set(amiss.clone());
        harness.tells(kind).await;
        let news = harness.api.news(&open).await;
        assert_eq!((news.len(), news[0].kind), (1, begins));
        let key = news[0].key.clone().unwrap();
        open.insert(key.clone(), begins);
        assert_eq!(harness.api.news(&open).await, []);
        set(None);
        harness.is_silent_about(kind).await;
        let over = harness.api.news(&open).await;
        assert_eq!((over.len(), over[0].kind), (1, ends));
        assert_eq!(over[0].key, Some(key.clone()), "the same key");
        open.remove(&key);
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_else_on_a_resource_is_told_and_told_to_be_gone_when_that_was_seen() {
    let harness = Harness::calm().await;
    let mut open = BTreeMap::new();
    let contention = crate::model::Contention {
        since: harness.clock.now(),
        operation: "issue".to_owned(),
        sent: 12,
        allowed: 970,
        window_secs: 30,
    };
    let set = |contention: Option<crate::model::Contention>| {
        harness
            .renewer
            .send_modify(|renewer| renewer.contention = contention);
    };
    set(Some(contention.clone()));
    harness.tells(NeedKind::Contention).await;
    let news = harness.api.news(&open).await;
    assert_eq!(news[0].kind, NoticeKind::ResourceContended);
    let (key, message) = (news[0].key.clone().unwrap(), &news[0].message);
    assert_eq!(key, "use of contoso");
    assert!(
        message.starts_with("contoso: somebody else uses it: ACS answers 429 to issue although renewd had sent only 12 of its 970 calls in 30 s"),
        "{message}"
    );
    open.insert(key.clone(), NoticeKind::ResourceContended);
    set(None);
    harness.is_silent_about(NeedKind::Contention).await;
    // An earlier process may have told it: what this one has not looked at for long it does not call over.
    assert_eq!(harness.api.news(&open).await, []);
    tokio::time::advance(std::time::Duration::from_mins(10)).await;
    harness.reaffirm();
    let over = harness.api.news(&open).await;
    let over = over.iter().find(|news| news.key.as_deref() == Some(&*key));
    assert_eq!(over.unwrap().kind, NoticeKind::ResourceUncontended);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_trouble_appears_and_goes() {
    let harness = Harness::calm().await;
    let later = at(&harness, 600);
    type Set = Box<dyn Fn(&mut RenewerView)>;
    let health = |health: HealthView| -> Set {
        Box::new(move |renewer: &mut RenewerView| {
            renewer.health.insert("issue".into(), health.clone());
        })
    };
    let cases: [(NeedKind, Set); 4] = [
        (
            NeedKind::Outage,
            health(HealthView::Probing {
                since: harness.clock.now(),
                because: "refused".into(),
            }),
        ),
        (
            NeedKind::Held,
            health(HealthView::Held {
                until: later,
                because: "403".into(),
            }),
        ),
        (
            NeedKind::Blocked,
            Box::new(|renewer| renewer.blocked = Some("the disk is full".into())),
        ),
        (
            NeedKind::CreationRefused,
            Box::new(|renewer| renewer.creation_refused = Some("import first".into())),
        ),
    ];
    for (kind, set) in cases {
        harness.renewer.send_modify(|renewer| set(renewer));
        harness.tells(kind).await;
        harness.renewer.send_modify(|renewer| {
            renewer.health.clear();
            renewer.blocked = None;
            renewer.creation_refused = None;
        });
        harness.is_silent_about(kind).await;
    }
    let disabled = |why: Option<&str>| {
        let why = why.map(str::to_owned);
        harness
            .dispatcher
            .send_modify(|one| one.disabled = why.clone());
    };
    disabled(Some("410"));
    harness.tells(NeedKind::SinkDisabled).await;
    disabled(None);
    harness.is_silent_about(NeedKind::SinkDisabled).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_not_ready() {
    let harness = Harness::calm().await;
    harness
        .renewer
        .send_modify(|renewer| renewer.blocked = Some("the disk is full".into()));
    let ready = harness.tcp("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text.contains("it cannot be written"),
        "{}",
        ready.text
    );
    harness
        .renewer
        .send_modify(|renewer| renewer.blocked = None);
    assert_eq!(harness.tcp("/readyz").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_unknown_and_the_rest_is_shown() {
    let harness = Harness::calm().await;
    let other = rusqlite::Connection::open(harness.store.path()).unwrap();
    other
        .execute_batch("ALTER TABLE consumer_count RENAME TO elsewhere")
        .unwrap();
    let status = harness.status().await;
    assert_eq!(status.consumers, None);
    assert!(status.counts.is_some() && !status.ready);
    assert_eq!(status.needs[0].kind, NeedKind::StoreUnreadable);
    let metrics = harness.tcp("/metrics").await.text;
    assert!(!metrics.contains("renewd_consumers{"), "{metrics}");
    assert!(metrics.contains("renewd_store_readable 0"), "{metrics}");
    let page = harness.tcp("/api/status").await;
    assert_eq!(
        (page.status, &page.json()["consumers"]),
        (200, &serde_json::Value::Null)
    );
    let line = harness.api.headline().await;
    assert!(
        line.contains("it is not known who holds a live token"),
        "{line}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_whose_first_token_is_refused_again_and_again_is_named() {
    let harness = Harness::calm().await;
    let (new, now) = (spec("carl"), harness.clock.now());
    harness.api.store.declare(vec![new], now).await.unwrap();
    let num = harness.num("carl").await;
    for n in 1..=3 {
        harness.is_silent_about(NeedKind::Failing).await;
        let failed = Change::Failed {
            num,
            attempt: Attempt {
                at: now,
                result: "refuse 400".to_owned(),
                request_id: None,
            },
            due: Due {
                at: at(&harness, 60 * n),
                why: DueReason::Retry,
            },
            blame: Blame::Row,
        };
        harness.api.store.commit(vec![failed], now).await.unwrap();
    }
    // Before it is certain whose fault that is.
    harness.tells(NeedKind::Failing).await;
    let status = harness.status().await;
    let mut needs = status.needs.iter();
    let need = needs.find(|need| need.kind == NeedKind::Failing).unwrap();
    assert_eq!((need.since, &need.names[..]), (None, &[name("carl")][..]));
    let because = need.because.as_ref().unwrap();
    assert!(because.contains("refuse 400"), "{need:?}");
    harness.issue("carl", "canary-5").await;
    harness.is_silent_about(NeedKind::Failing).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_withheld_and_has_not_reached_a_sink_is_said_until_it_has() {
    let harness = Harness::calm().await;
    harness.step(ANNA, Step::Withhold).await;
    assert_eq!(harness.kinds().await, [], "it is on its way");
    tokio::time::advance(Duration::from_secs(6)).await;
    harness.reaffirm();
    harness.tells(NeedKind::WithdrawalWaits).await;
    let status = harness.status().await;
    let need = &status.needs[0];
    assert_eq!(
        (need.subject.as_str(), &need.names[..]),
        ("files", &[name(ANNA)][..])
    );
    assert!(need.message.contains("may still hold a token"), "{need:?}");
    let why = async || {
        harness
            .get(admin(), &format!("/v1/why/{ANNA}"), &[])
            .await
            .json()
    };
    let told = why().await;
    let deliveries = told["deliveries"].to_string();
    assert!(
        deliveries.contains("that it is held has not reached the sink files since 6s"),
        "{told}"
    );
    assert!(
        !told["sentence"]
            .as_str()
            .unwrap()
            .contains("Nothing happens"),
        "{told}"
    );
    harness.deliver(ANNA).await;
    harness.is_silent_about(NeedKind::WithdrawalWaits).await;
    let told = why().await;
    assert_eq!(told["deliveries"], serde_json::json!([]));
    assert!(
        told["sentence"]
            .as_str()
            .unwrap()
            .contains("Nothing happens"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_behind_before_waits_for_a_withdrawal_since_that_was() {
    let harness = Harness::calm().await;
    harness.issue(ANNA, "canary-4").await;
    tokio::time::advance(Duration::from_secs(600)).await;
    let withdrawn = harness.clock.now();
    harness.step(ANNA, Step::Withhold).await;
    harness.reaffirm();
    let kinds = harness.kinds().await;
    let waits = kinds.contains(&NeedKind::WithdrawalWaits);
    assert!(!waits, "it is on its way");
    tokio::time::advance(Duration::from_secs(7)).await;
    harness.reaffirm();
    harness.tells(NeedKind::WithdrawalWaits).await;
    let status = harness.status().await;
    let mut needs = status.needs.iter();
    let need = needs.find(|need| need.kind == NeedKind::WithdrawalWaits);
    assert_eq!(need.unwrap().since, Some(withdrawn));
    let why = harness.get(admin(), &format!("/v1/why/{ANNA}"), &[]).await;
    let told = why.json()["deliveries"].to_string();
    assert!(told.contains("files since 7s"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn why_tells_which_sink_waits_since_when_and_when_it_is_tried_again() {
    let harness = Harness::calm().await;
    let version = harness.issue(ANNA, "canary-4").await;
    let failed = crate::store::Settled::Failed {
        sink: "files".parse().unwrap(),
        num: harness.num(ANNA).await,
        version,
        next_at: at(&harness, 30),
        error: "it answered 500".to_owned(),
    };
    harness
        .store
        .settle(vec![failed], at(&harness, 0))
        .await
        .unwrap();
    let told = harness.get(admin(), &format!("/v1/why/{ANNA}"), &[]).await;
    let told = told.json()["deliveries"].to_string();
    for words in [
        "sink files since 0s",
        "1 failed attempts",
        "it answered 500",
        "again in 30s",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    harness
        .dispatcher
        .send_modify(|one| one.disabled = Some("paused by anna".to_owned()));
    let told = harness
        .get(admin(), &format!("/v1/why/{ANNA}"), &[])
        .await
        .text;
    assert!(
        told.contains("the sink is disabled (paused by anna)"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn doubtful_tokens_are_told_apart_from_live_and_dead_ones() {
    let harness = Harness::calm().await;
    let now = harness.clock.now();
    let doubt = crate::model::KeyDoubt {
        fingerprint: "key".to_owned(),
        role: None,
        why: crate::model::DoubtReason::Refused,
        since: now,
        told: false,
        tokens: 0,
        first_end: None,
    };
    harness
        .store
        .note_doubt(&contoso(), doubt.clone(), None)
        .await
        .unwrap();
    let marked = harness
        .store
        .hasten_doubtful(&contoso(), "key", 0, 100, now)
        .await;
    assert_eq!(marked.unwrap().marked, 2);
    let keys = watch::Sender::new(crate::model::KeysView {
        doubts: vec![crate::model::KeyDoubt { tokens: 2, ..doubt }],
        ..crate::model::KeysView::default()
    });
    harness.shared_state.send_modify(|shared_state| {
        let mut with = SharedState::clone(shared_state);
        with.keys = BTreeMap::from([(contoso(), keys.subscribe())]);
        *shared_state = Arc::new(with);
    });
    harness.tells(NeedKind::Doubtful).await;
    let status = harness.status().await;
    let all = status.consumers.unwrap().all();
    assert_eq!((all.live, all.doubtful, all.without), (2, 2, 0));
    let tokens = status.tokens[&contoso()];
    assert_eq!((tokens.good, tokens.doubtful, tokens.dead), (0, 2, 0));
    let metrics = harness.tcp("/metrics").await.text;
    for line in [
        "renewd_tokens{resource=\"contoso\",standing=\"doubtful\"} 2",
        "renewd_tokens{resource=\"contoso\",standing=\"dead\"} 0",
        "renewd_identities{resource=\"contoso\",state=\"dead\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

impl Harness {
    /// Looks at every row of the store.
    pub(super) async fn examine(&self) {
        let mut mark = None;
        loop {
            mark = self.store.examine(mark, self.clock.now()).await.unwrap();
            if mark.is_none() {
                return;
            }
        }
    }

    /// Changes what the daemon publishes of itself.
    pub(super) fn share(&self, change: impl Fn(&mut SharedState)) {
        self.shared_state.send_modify(|shared_state| {
            let mut with = SharedState::clone(shared_state);
            change(&mut with);
            *shared_state = Arc::new(with);
        });
    }
}

#[test]
fn every_kind_is_listed_once_in_its_order() {
    let places = NeedKind::ALL.map(|kind| kind as usize);
    let last = NeedKind::Orphans as usize;
    assert_eq!(places.to_vec(), (0..=last).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_ends_is_told_twice_and_its_end_when_another_is_seen() {
    let harness = Harness::calm().await;
    let ends = |days: Option<i64>| {
        let now = harness.clock.now();
        let ends = days.map(|days| now + SignedDuration::from_hours(24 * days));
        harness.renewer.send_modify(|view| view.peer_ends = ends);
    };
    let mut open = BTreeMap::new();
    let mut told = async || {
        let news = harness.api.news(&open).await;
        for notice in &news {
            let key = notice.key.clone().unwrap();
            match notice.kind.ended_by() {
                [] => open.remove(&key),
                _ => open.insert(key, notice.kind),
            };
        }
        news.into_iter()
            .map(|notice| notice.key.unwrap())
            .collect::<Vec<_>>()
    };
    let (month, week) = (
        "certificate of contoso",
        "last week of the certificate of contoso",
    );
    ends(Some(29));
    assert_eq!(told().await, [month]);
    ends(Some(6));
    assert_eq!(told().await, [week], "what was told first goes on");
    ends(None);
    assert_eq!(told().await, [""; 0], "after a start nothing was seen yet");
    ends(Some(20));
    assert_eq!(told().await, [week], "it is over, and the month is not");
    ends(Some(90));
    assert_eq!(told().await, [month]);
    assert_eq!(told().await, [""; 0]);
}
