//! Each kind of need appears with what causes it, and goes with that.

use super::*;
use crate::model::{Attempt, Change, Notice, NoticeKind};
use wire::NeedKind;

#[tokio::test(start_paused = true)]
async fn a_store_that_may_not_be_used_appears_and_goes() {
    let harness = Harness::calm().await;
    let why = "its end is cut off".to_owned();
    harness.share(|shared| shared.standing = StoreStanding::Restored { why: why.clone() });
    harness.tells(NeedKind::StoreUnusable).await;
    assert_eq!(
        harness.kinds().await,
        [NeedKind::StoreUnusable],
        "all else is so because of it"
    );
    let told = harness.get(admin(), &format!("/v1/why/{ANNA}"), &[]).await;
    let told = told.json();
    let sentence = told["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("Nothing happens") && sentence.contains(&why),
        "{told}"
    );
    assert!(told["next"].is_null(), "{told}");
    harness.share(|shared| shared.standing = StoreStanding::Own);
    harness.is_silent_about(NeedKind::StoreUnusable).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_keys_the_network_and_the_clock_lack_appears_and_goes() {
    let harness = Harness::calm().await;
    let none = crate::model::NoneWorks {
        since: harness.clock.now(),
        first_end: None,
    };
    let keys = watch::Sender::new(crate::model::KeysView {
        none_works: Some(none),
        ..crate::model::KeysView::default()
    });
    harness.share(|shared| shared.keys = BTreeMap::from([(contoso(), keys.subscribe())]));
    harness.tells(NeedKind::NoKey).await;
    keys.send_modify(|view| view.none_works = None);
    harness.is_silent_about(NeedKind::NoKey).await;

    let unbound = crate::api::handle::Unbound {
        address: "127.0.0.1:9847".parse().unwrap(),
        because: "address in use".to_owned(),
    };
    harness.api.unbound.send_replace(Some(unbound));
    harness.tells(NeedKind::Unbound).await;
    harness.api.unbound.send_replace(None);
    harness.is_silent_about(NeedKind::Unbound).await;

    let day = SignedDuration::from_hours(24);
    harness.clock.step_wall(day);
    harness.reaffirm();
    harness.tells(NeedKind::Clock).await;
    harness.clock.step_wall(-day);
    harness.reaffirm();
    harness.is_silent_about(NeedKind::Clock).await;

    // The clock was wrong before renewd began, as answers of the resource say.
    for (skew_ms, told) in [(7_200_000, "2h behind"), (-61_000, "1m 1s ahead of")] {
        harness
            .renewer
            .send_modify(|renewer| renewer.skew_ms = Some(skew_ms));
        harness.tells(NeedKind::Clock).await;
        let needs = harness.status().await.needs;
        assert!(
            needs.iter().any(|need| need.message.contains(told)),
            "{needs:?}"
        );
    }
    harness
        .renewer
        .send_modify(|renewer| renewer.skew_ms = Some(59_000));
    harness.is_silent_about(NeedKind::Clock).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_be_gone_or_may_exist_unseen_appears_and_goes() {
    let harness = Harness::calm().await;
    let (num, now) = (harness.num(ANNA).await, harness.clock.now());
    let gone = Change::Gone {
        num,
        attempt: Attempt {
            at: now,
            result: "gone 401".to_owned(),
            request_id: None,
        },
        because: "it is not ours".to_owned(),
    };
    harness.store.commit(vec![gone], now).await.unwrap();
    harness.tells(NeedKind::GoneHeld).await;
    let cause = Cause::ours("drill");
    harness
        .store
        .confirm_gone(&contoso(), &cause, now)
        .await
        .unwrap();
    harness.is_silent_about(NeedKind::GoneHeld).await;
    harness.tells(NeedKind::Gone).await;
    harness
        .store
        .revive(&name(ANNA), &cause, now)
        .await
        .unwrap();
    harness.is_silent_about(NeedKind::Gone).await;
    harness.issue(ANNA, "canary-6").await;
    harness.deliver(ANNA).await;
    assert_eq!(harness.kinds().await, []);

    let carl = Spec {
        declared: Declaration {
            id: None,
            ..spec("carl").declared
        },
        ..spec("carl")
    };
    harness.store.declare(vec![carl], now).await.unwrap();
    let carl = harness.num("carl").await;
    harness
        .store
        .intend_creations(vec![carl], now)
        .await
        .unwrap();
    harness
        .store
        .creation_failed(carl, true, None)
        .await
        .unwrap();
    harness.tells(NeedKind::Orphans).await;
    let orphans = harness.store.orphans(0, 10).await.unwrap();
    let nums = orphans.iter().map(|orphan| orphan.num).collect();
    harness.store.dismiss_orphans(nums).await.unwrap();
    harness.is_silent_about(NeedKind::Orphans).await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_still_or_is_behind_appears_and_goes() {
    let harness = Harness::calm().await;
    harness.issue(ANNA, "canary-7").await;
    tokio::time::advance(Duration::from_mins(14)).await;
    harness.reaffirm();
    harness.is_silent_about(NeedKind::SinkBehind).await;
    tokio::time::advance(Duration::from_mins(2)).await;
    // The renewer alone decides no more.
    let fresh = Some(harness.clock.now());
    harness.dispatcher.send_modify(|one| one.decided_at = fresh);
    harness.tells(NeedKind::Stuck).await;
    harness.reaffirm();
    harness.is_silent_about(NeedKind::Stuck).await;
    harness.tells(NeedKind::SinkBehind).await;
    harness.deliver(ANNA).await;
    harness.is_silent_about(NeedKind::SinkBehind).await;

    let new = crate::store::NewKeyChange {
        resource: contoso(),
        work: crate::model::KeyWork::Roll,
        role: crate::model::KeyRole::Primary,
        old_key: "key1".to_owned(),
        actor: "anna".to_owned(),
        reason: None,
    };
    let now = harness.clock.now();
    let mut change = harness.store.begin_key_change(new, now).await.unwrap();
    harness.tells(NeedKind::KeyChange).await;
    change.stage = crate::model::KeyStage::Done;
    change.ended_at = Some(now);
    harness.store.note_key_change(change, now).await.unwrap();
    harness.is_silent_about(NeedKind::KeyChange).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_copied_appears_and_goes() {
    let harness = harness_with(|settings, folder| {
        std::fs::create_dir(folder.join("second")).unwrap();
        settings.withdrawn_copy = Some(folder.join("second/withdrawn.jsonl"));
    })
    .await;
    let folder = harness._folder.path().to_owned();
    let second = folder.join("second");

    // A row that cannot be read.
    let other = rusqlite::Connection::open(harness.store.path()).unwrap();
    let set = |state: &str| {
        let sql = "UPDATE identity SET state = ?1 WHERE name = ?2";
        other.execute(sql, [state, BERT]).unwrap();
    };
    set("gibberish");
    harness.examine().await;
    harness.tells(NeedKind::Unreadable).await;
    set("new");
    harness.examine().await;
    harness.is_silent_about(NeedKind::Unreadable).await;

    // The second place of what is withdrawn.
    harness.is_silent_about(NeedKind::WithdrawnCopy).await;
    std::fs::remove_dir_all(&second).unwrap();
    std::fs::write(&second, "no folder").unwrap();
    harness.step(ANNA, Step::Withhold).await;
    harness.tells(NeedKind::WithdrawnCopy).await;
    let news = harness.api.news(&BTreeMap::new()).await;
    let told = news
        .iter()
        .find(|one| one.kind == NoticeKind::WithdrawalsUncopied);
    let open = BTreeMap::from([(told.unwrap().key.clone().unwrap(), told.unwrap().kind)]);
    std::fs::remove_file(&second).unwrap();
    std::fs::create_dir(&second).unwrap();
    harness.step(ANNA, Step::Release).await;
    harness.is_silent_about(NeedKind::WithdrawnCopy).await;
    let over = harness.api.news(&open).await;
    assert!(
        over.iter()
            .any(|one| one.kind == NoticeKind::WithdrawalsCopied)
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_taken_over_appears_and_goes() {
    let harness = Harness::calm().await;
    let source: crate::model::SourceName = "app".parse().unwrap();
    let view = crate::model::SourceView {
        name: source.clone(),
        kind: "file".to_owned(),
        reads: "/list".to_owned(),
        every_seconds: 60,
        looked_at: None,
        taken_at: None,
        identities: 3,
        refused: 0,
        lapse: Some(crate::model::Lapse {
            reason: "it lists nobody".to_owned(),
            since: harness.clock.now(),
        }),
        reading_since: None,
        advice: None,
    };
    let view = watch::Sender::new(view);
    harness.share(|shared| {
        shared.sources = BTreeMap::from([(source.clone(), view.subscribe())]);
    });
    harness.tells(NeedKind::SourceLapsed).await;
    view.send_modify(|view| view.lapse = None);
    harness.is_silent_about(NeedKind::SourceLapsed).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_failed_for_good_appears_and_goes() {
    let harness = Harness::calm().await;
    let (now, cause) = (harness.clock.now(), Cause::ours("drill"));
    let rows =
        crate::store::Target::Items(vec![crate::store::Wanted::Row(harness.num(ANNA).await)]);
    let action = crate::store::CampaignAction::Delete;
    let new = crate::store::NewCampaign::new(action, None, rows, cause.clone());
    let id = harness.store.create_campaign(new, now).await.unwrap();
    let num = harness.num(ANNA).await;
    let ends = async |outcome| {
        let (steps, outcomes) = (Vec::new(), vec![(num, outcome)]);
        let settled = harness.store.settle_items(id, steps, &cause, outcomes, now);
        settled.await.unwrap();
    };
    ends(ItemOutcome::Failed {
        error: "409".to_owned(),
        request_id: None,
    })
    .await;
    harness.tells(NeedKind::OrderFailed).await;
    harness.store.retry_campaign(id, &cause, now).await.unwrap();
    harness.is_silent_about(NeedKind::OrderFailed).await;
    ends(ItemOutcome::Done {
        at: now,
        request_id: None,
    })
    .await;
    harness.is_silent_about(NeedKind::OrderFailed).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_word_before_it_is_created_appears_and_goes() {
    let harness = Harness::calm().await;
    // The store had been lost, and half of the map beside it.
    let other = rusqlite::Connection::open(harness.store.path()).unwrap();
    let lost = "INSERT INTO meta VALUES ('awaits_word', 1)";
    other.execute(lost, []).unwrap();
    let carl = Spec {
        declared: Declaration {
            id: None,
            ..spec("carl").declared
        },
        ..spec("carl")
    };
    let (names, now) = (["files".parse().unwrap()], harness.clock.now());
    let declared = [spec(ANNA), spec(BERT), carl];
    let store = &harness.store;
    store.reconcile(&declared, &names, now).await.unwrap();
    harness.tells(NeedKind::CreationsWait).await;
    let news = harness.api.news(&BTreeMap::new()).await;
    let told = news
        .iter()
        .find(|one| one.kind == NoticeKind::CreateRefused);
    let open = BTreeMap::from([(told.unwrap().key.clone().unwrap(), told.unwrap().kind)]);
    let line = serde_json::json!({"name": "carl", "resource": "contoso", "id": "8:acs:carl"});
    let lines = vec![serde_json::from_value(line).unwrap()];
    store.import(lines, now).await.unwrap();
    harness.is_silent_about(NeedKind::CreationsWait).await;
    let over = harness.api.news(&open).await;
    assert!(over.iter().any(|one| one.kind == NoticeKind::CreateAllowed));
}

#[tokio::test(start_paused = true)]
async fn who_is_declared_and_not_taken_over_appears_and_goes() {
    let harness = Harness::calm().await;
    let why = "the store refuses to write its row".to_owned();
    harness.share(|shared| shared.not_taken = vec![(name("carl"), why.clone())]);
    harness.tells(NeedKind::NotTakenOver).await;
    let needs = harness.status().await.needs;
    assert_eq!(needs[0].names, [name("carl")]);
    let because = needs[0].because.as_deref();
    assert_eq!(because, Some("carl: the store refuses to write its row"));
    harness.share(|shared| shared.not_taken.clear());
    harness.is_silent_about(NeedKind::NotTakenOver).await;
}

#[tokio::test(start_paused = true)]
async fn a_bearer_that_is_not_to_be_had_or_not_taken_appears_and_goes() {
    use crate::model::{BearerCause, BearerKind, BearerTrouble, BearerView};
    let harness = Harness::calm().await;
    let ends = at(&harness, 1800);
    let trouble = |cause| BearerTrouble {
        since: harness.clock.now(),
        cause,
        told: "AADSTS canary".to_owned(),
    };
    let tell = |ends: Option<Timestamp>, cause: Option<BearerCause>| {
        let view = BearerView {
            kind: BearerKind::ClientSecret,
            client: Some("11111111-2222-3333-4444-555555555555".to_owned()),
            ends,
            trouble: cause.map(trouble),
            certificate_ends: None,
            requests: 7,
        };
        harness.renewer.send_modify(|one| one.bearer = Some(view));
    };
    tell(Some(ends), None);
    assert_eq!(harness.kinds().await, []);
    let (outage, refused) = (NeedKind::EntraUnreachable, NeedKind::EntraRefused);
    let [out, role] = [BearerCause::Unanswered, BearerCause::MissingRole];
    for (ends, cause, kind, part) in [
        (Some(ends), out, outage, "the bearer in hand lasts until"),
        (None, out, outage, "nothing is issued"),
        (Some(ends), role, refused, "ACS refuses whom Entra ID says"),
    ] {
        tell(ends, Some(cause));
        harness.tells(kind).await;
        let need = &harness.status().await.needs[0];
        assert!(need.message.contains(part), "{need:?}");
        assert_eq!(need.because.as_deref(), Some("AADSTS canary"));
        let page = harness.tcp("/").await.text;
        assert!(page.contains(part) && !page.contains("AADSTS"), "{page}");
    }
    let metrics = harness.tcp("/metrics").await.text;
    for line in [
        "renewd_bearer_trouble{resource=\"contoso\",cause=\"missing_role\"} 1",
        "renewd_bearer_trouble{resource=\"contoso\",cause=\"unanswered\"} 0",
        "renewd_bearer_requests_total{resource=\"contoso\"} 7",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    tell(Some(ends), None);
    harness.is_silent_about(refused).await;
    let page = harness.tcp("/").await.text;
    assert!(page.contains("Entra ID, its bearer lasts 30m"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_certificate_is_told_with_what_replaces_it() {
    let harness = Harness::calm().await;
    let view = |days: i64| crate::model::BearerView {
        kind: crate::model::BearerKind::ClientCertificate,
        client: None,
        ends: None,
        trouble: None,
        certificate_ends: Some(at(&harness, days * 86_400)),
        requests: 0,
    };
    let show = |days| {
        let bearer = Some(view(days));
        harness.renewer.send_modify(|one| one.bearer = bearer);
    };
    show(29);
    harness.tells(NeedKind::CertificateEnds).await;
    let need = &harness.status().await.needs[0];
    assert_eq!(need.subject, "client_certificate of contoso");
    let part = "renewd key set contoso --entra";
    assert!(need.message.contains(part), "{need:?}");
    show(6);
    harness.tells(NeedKind::CertificateEndsSoon).await;
    show(300);
    assert_eq!(harness.kinds().await, []);
}

/// A machine of a cluster that is as it should be.
fn node_row(name: &str) -> crate::model::NodeRow {
    let at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    crate::model::NodeRow {
        name: name.parse().unwrap(),
        leads: false,
        alive: true,
        drained_at: None,
        since: at,
        heartbeat_at: at,
        age_ms: 100,
        seen_seq: 7,
        version: "1.0.0".to_owned(),
        schema: 21,
        offset_ms: -3,
        digest: "aa11".to_owned(),
        socket: "/run/renewd/renewd.sock".to_owned(),
        lacks: 0,
    }
}

/// Where all are as far off as each other, it is the database's clock that is off.
async fn whose_clock_is_off(
    harness: &Harness,
    standing: &watch::Sender<crate::model::ClusterStanding>,
) {
    for (offset, subject, side) in [
        ([300_000, 301_000], "production", "5m behind those of all"),
        ([-300_000, 0], "web-1", "5m behind the database's"),
        ([-300_000, 300_000], "web-1", "5m behind the database's"),
    ] {
        standing.send_modify(|one| {
            let rows = one.nodes.iter_mut().zip(offset);
            rows.for_each(|(row, offset)| row.offset_ms = offset);
        });
        let told = harness.status().await.needs;
        let told = told.iter().find(|need| need.kind == NeedKind::NodeAmiss);
        let told = told.unwrap();
        assert!(
            told.subject == subject && told.message.contains(side),
            "{told:?}"
        );
    }
    standing.send_modify(|one| one.nodes.iter_mut().for_each(|row| row.offset_ms = 0));
    harness.is_silent_about(NeedKind::NodeAmiss).await;
}

/// A machine that follows makes no call, and says what those of the leader have met.
async fn what_the_leader_meets_is_told(harness: &Harness) {
    for (begins, ends, need) in [
        (
            NoticeKind::ResourceUnreachable,
            NoticeKind::ResourceRecovered,
            NeedKind::Outage,
        ),
        (
            NoticeKind::KeyRejected,
            NoticeKind::ResourceRecovered,
            NeedKind::NoKey,
        ),
        (
            NoticeKind::EntraUnreachable,
            NoticeKind::EntraRecovered,
            NeedKind::EntraUnreachable,
        ),
        (
            NoticeKind::EntraRefused,
            NoticeKind::EntraRecovered,
            NeedKind::EntraRefused,
        ),
    ] {
        harness.is_silent_about(need).await;
        for (kind, is_told) in [(begins, true), (ends, false)] {
            let mut notice = Notice::new(kind, harness.clock.now(), "from web-2".to_owned());
            notice.key = Some("outage contoso".to_owned());
            harness.store.raise(vec![notice]).await.unwrap();
            match is_told {
                true => harness.tells(need).await,
                false => harness.is_silent_about(need).await,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_lacks_appears_and_goes() {
    let harness = Harness::calm().await;
    let mut leader = node_row("web-1");
    leader.leads = true;
    let standing = watch::Sender::new(crate::model::ClusterStanding {
        cluster: "production".parse().unwrap(),
        node: "web-1".parse().unwrap(),
        role: crate::model::Role::Leads { epoch: 5 },
        heard_at: Some(harness.clock.now()),
        trouble: None,
        offset_ms: 0,
        calls_until: Duration::from_secs(10),
        lacks: 0,
        nodes: vec![leader, node_row("web-2")],
    });
    harness.share(|shared| shared.cluster = Some(standing.subscribe()));
    for kind in [NeedKind::NoLeader, NeedKind::NodeDead, NeedKind::NodeAmiss] {
        harness.is_silent_about(kind).await;
    }
    let status = harness.status().await;
    let cluster = status.cluster.unwrap();
    assert_eq!((cluster.epoch, cluster.nodes.len()), (Some(5), 2));

    standing.send_modify(|one| one.nodes[1].alive = false);
    harness.tells(NeedKind::NodeDead).await;
    standing.send_modify(|one| one.nodes[1].alive = true);
    harness.is_silent_about(NeedKind::NodeDead).await;

    whose_clock_is_off(&harness, &standing).await;

    let amiss: [fn(&mut crate::model::NodeRow); 3] = [
        |row| row.offset_ms = 2001,
        |row| row.lacks = 1,
        |row| row.digest = "bb22".to_owned(),
    ];
    for change in amiss {
        standing.send_modify(|one| change(&mut one.nodes[1]));
        harness.tells(NeedKind::NodeAmiss).await;
        standing.send_modify(|one| one.nodes[1] = node_row("web-2"));
        harness.is_silent_about(NeedKind::NodeAmiss).await;
    }

    standing.send_modify(|one| one.trouble = Some("no route to host".to_owned()));
    harness.tells(NeedKind::NoLeader).await;
    standing.send_modify(|one| one.trouble = None);
    harness.is_silent_about(NeedKind::NoLeader).await;

    // A machine that follows says who leads, and misses no renewer of its own.
    let leader = Some("web-2".parse().unwrap());
    standing.send_modify(|one| one.role = crate::model::Role::Follows { leader });
    harness.share(|shared| shared.renewers = BTreeMap::new());
    harness.is_silent_about(NeedKind::Unconfigured).await;
    let told = harness.get(admin(), &format!("/v1/why/{ANNA}"), &[]).await;
    let told = told.json();
    let sentence = told["sentence"].as_str().unwrap();
    assert!(sentence.contains("web-2 leads"), "{told}");
    harness.share(|shared| shared.keys = BTreeMap::new());
    let keys = harness.get(admin(), "/v1/keys/contoso", &[]).await;
    assert_eq!(keys.status, 409, "{}", keys.text);
    assert!(keys.text.contains("web-2, which leads"), "{}", keys.text);
    what_the_leader_meets_is_told(&harness).await;
    standing.send_modify(|one| one.role = crate::model::Role::Follows { leader: None });
    harness.tells(NeedKind::NoLeader).await;
}
