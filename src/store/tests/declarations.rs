//! Declarations: what changes, what stays, and what happens to those that are no longer named.

use super::*;
use crate::model::SourceName;

#[tokio::test]
async fn what_no_token_depends_on_changes_without_a_new_one() {
    let (home, num) = active().await;
    let before = get(&home, "bot").await;
    let changed = Spec {
        declared: Declaration {
            readers: vec!["group:voip".to_owned().into()],
            labels: [("team".to_owned(), "other".to_owned())].into(),
            sinks: vec![sink_name("hook")],
            ..with_id("bot", "8:acs:bot").declared
        },
        ..with_id("bot", "8:acs:bot")
    };
    let told = declare(&home, std::slice::from_ref(&changed), 50).await;
    assert_eq!((told.update, told.reissue), (1, 0));
    let after = get(&home, "bot").await;
    assert_eq!(
        (after.due, after.version, after.spec),
        (before.due, before.version, changed)
    );
    let deliveries = home.deliveries_of(num).await.unwrap();
    assert_eq!(deliveries.len(), 1, "the old sink's row is dropped");
    assert_eq!(
        (deliveries[0].sink.clone(), deliveries[0].wanted),
        (sink("hook"), before.version)
    );
    assert_eq!(
        home.counts().await.unwrap().pending.get(&sink("file")),
        None
    );
}

#[tokio::test]
async fn a_plan_tells_what_would_be_done_and_does_nothing() {
    let (home, _) = active().await;
    let specs = [spec("new"), spec("newer")];
    let sinks = [sink("file"), sink("hook")];
    let plan = home.plan_reconcile(&specs, &sinks).await.unwrap();
    assert_eq!(plan.to_string(), "+2 create, -1 hold");
    assert_eq!(get(&home, "bot").await.state, State::Active);
    assert_eq!(declare(&home, &specs, 50).await, plan);
    assert_eq!(get(&home, "bot").await.state, State::Held);
}

#[tokio::test]
async fn removal_holds_and_naming_it_again_releases() {
    let (home, num) = active().await;
    let before = get(&home, "bot").await.version;
    assert_eq!(declare(&home, &[], 50).await.hold, 1);
    let held = get(&home, "bot").await;
    assert_eq!(
        (held.state, held.due, held.token),
        (State::Held, None, None)
    );
    assert!(held.version > before);
    assert_eq!(pending(&home, "file", 50).await[0].wanted, held.version);
    assert!(declare(&home, &[], 51).await.is_unchanged());

    let told = declare(&home, &[with_id("bot", "8:acs:bot")], 60).await;
    assert_eq!(told.release, 1);
    let due = home
        .due(&resource(), Work::Issue, at(61), 10, &none())
        .await
        .unwrap();
    assert_eq!(
        (due[0].num, due[0].due.unwrap().why),
        (num, DueReason::Released)
    );
}

#[tokio::test]
async fn a_hold_by_command_survives_being_removed_and_named_again() {
    let (home, num) = active().await;
    step(&home, num, Step::Withhold, 20).await;
    declare(&home, &[], 50).await;
    declare(&home, &[with_id("bot", "8:acs:bot")], 60).await;
    assert_eq!(get(&home, "bot").await.state, State::Held);
}

#[tokio::test]
async fn a_forgotten_one_drops_out_once_delivered_and_comes_back_with_its_id() {
    let home = Home::new();
    let forgetful = Spec {
        declared: Declaration {
            on_removal: OnRemoval::Forget,
            ..spec("bot").declared
        },
        ..spec("bot")
    };
    declare(&home, std::slice::from_ref(&forgetful), 0).await;
    let num = get(&home, "bot").await.num;
    commit(&home, issued(num, 1, Some("8:acs:x")), 2).await;
    assert_eq!(declare(&home, &[], 50).await.forget, 1);
    assert_eq!(home.prune(100, at(51)).await.unwrap().forgotten, 0);
    let wanted = pending(&home, "file", 51).await[0].wanted;
    assert_eq!(home.document(num).await.unwrap().unwrap().token, None);
    deliver(&home, "file", num, wanted).await;
    assert_eq!(home.prune(100, at(52)).await.unwrap().forgotten, 1);
    assert_eq!(home.record(&name("bot")).await.unwrap(), None);
    assert_eq!(
        home.known_id(&name("bot")).await.unwrap(),
        Some("8:acs:x".parse().unwrap())
    );

    declare(&home, &[forgetful], 60).await;
    let back = get(&home, "bot").await;
    assert_eq!(
        back.id,
        Some("8:acs:x".parse().unwrap()),
        "never silently a new person"
    );
    assert_ne!(back.num, num, "numbers are never used again");
}

#[tokio::test]
async fn a_forgotten_one_that_is_named_before_it_dropped_out_goes_on() {
    let (home, num) = active().await;
    let names = vec![name("bot")];
    let told = home
        .remove(names, Some(OnRemoval::Forget), at(50))
        .await
        .unwrap();
    assert_eq!(told.forget, 1);
    assert_eq!(
        declare(&home, &[with_id("bot", "8:acs:bot")], 60)
            .await
            .release,
        1
    );
    assert_eq!(get(&home, "bot").await.num, num);
    assert_eq!(home.prune(100, at(61)).await.unwrap().forgotten, 0);
}

#[tokio::test]
async fn removal_with_revocation_withholds_and_makes_a_campaign() {
    let home = Home::new();
    let strict = Spec {
        declared: Declaration {
            on_removal: OnRemoval::Revoke,
            ..with_id("bot", "8:acs:bot").declared
        },
        ..with_id("bot", "8:acs:bot")
    };
    declare(&home, std::slice::from_ref(&strict), 0).await;
    let num = get(&home, "bot").await.num;
    commit(&home, issued(num, 1, None), 2).await;
    let mut signal = home.campaign_signal();
    assert_eq!(declare(&home, &[], 50).await.revoke, 1);
    assert!(signal.has_changed().unwrap());
    signal.mark_unchanged();
    let campaigns = home.open_campaigns().await.unwrap();
    assert_eq!(campaigns.len(), 1);
    assert_eq!(
        (campaigns[0].action, campaigns[0].pending),
        (CampaignAction::Revoke, 1)
    );
    assert_eq!(get(&home, "bot").await.state, State::Held);

    declare(&home, &[strict], 60).await;
    assert!(
        home.open_campaigns().await.unwrap().is_empty(),
        "it is spared when named again"
    );
}

#[tokio::test]
async fn an_id_belongs_to_one_name_only() {
    let (home, _) = active().await;
    let both = [with_id("bot", "8:acs:bot"), with_id("twin", "8:acs:bot")];
    let told = declare(&home, &both, 50).await;
    assert_eq!(told.refused.len(), 1);
    assert_eq!(home.record(&name("twin")).await.unwrap(), None);
    let twice = [with_id("bot", "8:acs:bot"), spec("x"), spec("x")];
    assert_eq!(declare(&home, &twice, 51).await.refused.len(), 1);

    let forgetful = Spec {
        declared: Declaration {
            on_removal: OnRemoval::Forget,
            ..with_id("bot", "8:acs:bot").declared
        },
        ..with_id("bot", "8:acs:bot")
    };
    declare(&home, &[forgetful], 52).await;
    let told = declare(&home, &[with_id("heir", "8:acs:bot")], 53).await;
    assert!(told.refused.is_empty(), "{told:?}");
    assert_eq!(
        get(&home, "heir").await.id,
        Some("8:acs:bot".parse().unwrap())
    );
}

#[tokio::test]
async fn an_identity_cannot_move_to_another_resource() {
    let (home, _) = active().await;
    let moved = Spec {
        resource: "other".parse().unwrap(),
        ..with_id("bot", "8:acs:bot")
    };
    let told = declare(&home, &[moved], 50).await;
    assert_eq!(told.refused.len(), 1);
    assert!(told.refused[0].reason.contains("contoso"));
    assert_eq!(
        get(&home, "bot").await.state,
        State::Active,
        "it stays as it was"
    );
}

#[tokio::test]
async fn a_new_id_revives_one_that_is_gone_or_deleted() {
    for gone in [true, false] {
        let (home, num) = active().await;
        if gone {
            commit(&home, said_gone(num, 18, "gone 404"), 18).await;
            commit(&home, said_gone(num, 20, "gone 404"), 21).await;
        } else {
            step(&home, num, Step::Deleted { at: at(21) }, 21).await;
        }
        assert!(
            declare(&home, &[with_id("bot", "8:acs:bot")], 30)
                .await
                .is_unchanged()
        );
        declare(&home, &[with_id("bot", "8:acs:new")], 40).await;
        let record = get(&home, "bot").await;
        assert_eq!(
            (record.state, record.id.unwrap().as_str()),
            (State::New, "8:acs:new")
        );
        assert!(record.due.is_some());
    }
}

#[tokio::test]
async fn identities_kept_in_the_store_alone_are_not_touched_by_files() {
    let home = Home::new();
    let own = Spec {
        origin: Origin::Cli,
        ..spec("own")
    };
    home.declare(vec![own.clone()], at(0)).await.unwrap();
    assert!(declare(&home, &[], 1).await.hold == 0);
    assert_eq!(get(&home, "own").await.spec, own);
    let missing = home
        .remove(vec![name("nobody")], None, at(2))
        .await
        .unwrap();
    assert_eq!(missing.refused.len(), 1);
    assert_eq!(
        home.remove(vec![name("own")], None, at(3))
            .await
            .unwrap()
            .hold,
        1
    );
}

#[tokio::test]
async fn a_sink_that_goes_takes_its_deliveries_and_one_that_comes_back_gets_the_newest() {
    let (home, num) = active().await;
    let version = get(&home, "bot").await.version;
    let specs = [with_id("bot", "8:acs:bot")];
    let told = home
        .reconcile(&specs, &[sink("hook")], at(20))
        .await
        .unwrap();
    assert_eq!(told.sinks, 1);
    assert!(home.deliveries_of(num).await.unwrap().is_empty());
    assert!(home.counts().await.unwrap().pending.is_empty());
    declare(&home, &specs, 30).await;
    assert_eq!(pending(&home, "file", 30).await[0].wanted, version);
}

#[tokio::test]
async fn pages_go_through_all_names_in_order() {
    let home = Home::new();
    let specs: Vec<Spec> = (0..25).map(|n| spec(&format!("bot-{n:02}"))).collect();
    declare(&home, &specs, 0).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = home.list(after.as_ref(), 10).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.spec.name.clone());
        seen.extend(page.into_iter().map(|record| record.spec.name));
    }
    let all: Vec<Name> = specs.into_iter().map(|spec| spec.name).collect();
    assert_eq!(seen, all);
    let some = home
        .records(&[name("bot-03"), name("nobody")])
        .await
        .unwrap();
    assert_eq!(some.len(), 1);
}

/// An older version took digests of other bytes: then every row looks changed once.
#[tokio::test]
async fn a_row_whose_digest_alone_differs_is_noted_and_nothing_else_changes() {
    let home = Home::new();
    let source: SourceName = "app".parse().unwrap();
    let take = async |digest: Digest, secs| {
        let listed = Spec {
            origin: Origin::Source(source.clone()),
            ..spec("bot")
        };
        let change = SourceChange {
            specs: vec![(listed, digest)],
            ..SourceChange::default()
        };
        home.take_source(&source, change, at(secs)).await.unwrap()
    };
    assert_eq!(take([1; 16], 0).await.create, 1);
    let num = get(&home, "bot").await.num;
    commit(&home, issued(num, 10, Some("8:acs:bot")), 11).await;
    let before = get(&home, "bot").await;
    let told = take([2; 16], 50).await;
    assert!(told.is_unchanged(), "{told:?}");
    assert_eq!(get(&home, "bot").await, before);
    let rows = home.source_rows(&source, None, 10).await.unwrap();
    assert_eq!(rows, [(name("bot"), [2; 16])]);
}

on_postgres! {
    what_no_token_depends_on_changes_without_a_new_one
    a_plan_tells_what_would_be_done_and_does_nothing
    removal_holds_and_naming_it_again_releases
    a_hold_by_command_survives_being_removed_and_named_again
    a_forgotten_one_drops_out_once_delivered_and_comes_back_with_its_id
    a_forgotten_one_that_is_named_before_it_dropped_out_goes_on
    removal_with_revocation_withholds_and_makes_a_campaign
    an_id_belongs_to_one_name_only
    an_identity_cannot_move_to_another_resource
    a_new_id_revives_one_that_is_gone_or_deleted
    identities_kept_in_the_store_alone_are_not_touched_by_files
    a_sink_that_goes_takes_its_deliveries_and_one_that_comes_back_gets_the_newest
    pages_go_through_all_names_in_order
    a_row_whose_digest_alone_differs_is_noted_and_nothing_else_changes
}
