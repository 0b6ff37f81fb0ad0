//! A state and the notice of it are one commit: where the notice cannot be kept, neither is the state.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::model::{KeyRole, KeyStage, KeyWork, Notice, NoticeKind};

fn created(text: &str) -> Notice {
    Notice {
        at: at(1),
        kind: NoticeKind::IdentityCreated,
        resource: Some(resource()),
        name: Some(name(text)),
        key: None,
        message: format!("{text} was created."),
    }
}

impl Home {
    /// Lets no notice be kept, or lets them be kept again.
    fn notices_break(&self, broken: bool) {
        let rule = match broken {
            true => "ALTER TABLE notice ADD CONSTRAINT broken CHECK (seq < 0) NOT VALID",
            false => "ALTER TABLE notice DROP CONSTRAINT broken",
        };
        if with_database(self.dir.path(), |database| database.sql(rule)).is_some() {
            return;
        }
        let sql = if broken {
            "CREATE TRIGGER broken BEFORE INSERT ON notice BEGIN SELECT RAISE(ABORT, 'broken'); END"
        } else {
            "DROP TRIGGER broken"
        };
        let owner = rusqlite::Connection::open(self.dir.path().join("renewd.db")).unwrap();
        owner.execute_batch(sql).unwrap();
    }

    async fn kinds(&self) -> Vec<NoticeKind> {
        let notices = self.notices(0, 100).await.unwrap();
        notices.into_iter().map(|(_, notice)| notice.kind).collect()
    }

    async fn begin_roll(&self) -> Result<crate::model::KeyChange, StoreError> {
        let new = NewKeyChange {
            resource: resource(),
            work: KeyWork::Roll,
            role: KeyRole::Primary,
            old_key: "key1".to_owned(),
            actor: "anna".to_owned(),
            reason: None,
        };
        self.begin_key_change(new, at(2)).await
    }
}

#[tokio::test]
async fn a_token_and_its_notice_are_kept_together_or_not_at_all() {
    let mut home = Home::new();
    home.reconcile(&[spec("anna")], &[], at(0)).await.unwrap();
    let num = home.record(&name("anna")).await.unwrap().unwrap().num;
    let decided = || Decided {
        change: issued(num, 1, Some("8:acs:1_1")),
        notices: vec![created("anna")],
    };
    home.notices_break(true);
    let post = |decided| Arc::new(vec![Posting::Decided(decided)]);
    let failed = home.post(post(decided()), at(2)).await.unwrap();
    assert!(failed[0].is_err());
    assert_eq!(home.record(&name("anna")).await.unwrap().unwrap().id, None);
    home.notices_break(false);
    let applied = home.post(post(decided()), at(2)).await.unwrap();
    assert!(matches!(applied[..], [Ok(Some(Applied::Done(_)))]));
    // As `kill -9` right after the commit.
    home.reopen();
    assert_eq!(home.kinds().await, [NoticeKind::IdentityCreated]);
    // What comes too late is not told.
    let late = Decided {
        change: issued(num + 1, 1, None),
        notices: vec![created("bert")],
    };
    let applied = home.post(post(late), at(3)).await.unwrap();
    assert!(matches!(applied[..], [Ok(Some(Applied::Stale))]));
    assert_eq!(home.kinds().await.len(), 1);
}

#[tokio::test]
async fn stages_of_a_replaced_key_are_told_in_the_commit_that_notes_them() {
    let home = Home::new();
    home.reconcile(&[spec("anna")], &[], at(0)).await.unwrap();
    home.notices_break(true);
    assert!(home.begin_roll().await.is_err());
    assert_eq!(home.open_key_change(&resource()).await.unwrap(), None);
    home.notices_break(false);
    let mut change = home.begin_roll().await.unwrap();
    for (stage, trouble) in [
        (KeyStage::Reminting, None),
        (KeyStage::Reminting, Some("the other key is refused")),
        (KeyStage::Reminting, Some("it is refused again")),
        (KeyStage::Reminting, None),
        (KeyStage::Reminting, Some("and once more")),
        (KeyStage::Regenerate, None),
        (KeyStage::Replace, None),
        (KeyStage::Done, None),
    ] {
        change.stage = stage;
        change.trouble = trouble.map(str::to_owned);
        change.ended_at = stage.is_over().then(|| at(9));
        home.note_key_change(change.clone(), at(9)).await.unwrap();
    }
    use NoticeKind::{KeyReplaceable, KeyReplaced, KeyReplacing, KeyResumed, KeyStuck};
    assert_eq!(
        home.kinds().await,
        [
            KeyReplacing,
            KeyStuck,
            KeyResumed,
            KeyStuck,
            KeyResumed,
            KeyReplaceable,
            KeyReplaced
        ]
    );
    let keys = home.notices(0, 100).await.unwrap().into_iter();
    let keys: BTreeSet<_> = keys.map(|(_, notice)| notice.key).collect();
    assert_eq!(keys.len(), 1, "all under one key: {keys:?}");
}

#[tokio::test]
async fn a_replacement_of_a_key_is_dropped_when_it_ended_long_ago() {
    let home = Home::new();
    let specs: Vec<Spec> = ["anna", "bert", "carl"].into_iter().map(spec).collect();
    home.reconcile(&specs, &[], at(0)).await.unwrap();
    for name in ["anna", "bert", "carl"] {
        let name = name.parse().unwrap();
        let num = home.record(&name).await.unwrap().unwrap().num;
        let id = format!("8:acs:1_{num}");
        home.commit(vec![issued(num, 1, Some(&id))], at(1))
            .await
            .unwrap();
    }
    let mut change = home.begin_roll().await.unwrap();
    let marked = home.mark_minted(&change, 0, 10, at(3)).await.unwrap();
    assert_eq!(marked.marked, 3);
    let day = 86_400;
    assert_eq!(
        home.prune(2, at(500 * day)).await.unwrap().key_items,
        0,
        "it is not over"
    );
    (change.stage, change.ended_at) = (KeyStage::Done, Some(at(10 * day)));
    home.note_key_change(change, at(10 * day)).await.unwrap();
    assert_eq!(
        home.prune(2, at(409 * day)).await.unwrap().key_items,
        0,
        "kept for 400 days"
    );
    for expected in [2, 1, 0] {
        let pruned = home.prune(2, at(411 * day)).await.unwrap();
        assert_eq!(pruned.key_items, expected);
        assert_eq!(pruned.is_full(2), expected == 2);
    }
    assert_eq!(home.last_key_change(&resource()).await.unwrap(), None);
}

#[tokio::test]
async fn the_end_of_an_outage_is_owed_until_it_is_told() {
    let home = Home::new();
    let of = |kind| Notice {
        name: None,
        kind,
        ..created("contoso")
    };
    assert_eq!(home.announced_trouble(&resource()).await.unwrap(), None);
    for (kind, owed) in [
        (
            NoticeKind::ResourceUnreachable,
            Some(NoticeKind::ResourceUnreachable),
        ),
        (
            NoticeKind::CreateRefused,
            Some(NoticeKind::ResourceUnreachable),
        ),
        (NoticeKind::ResourceRecovered, None),
        (NoticeKind::KeyRejected, Some(NoticeKind::KeyRejected)),
        (NoticeKind::ResourceRecovered, None),
    ] {
        home.raise(vec![of(kind)]).await.unwrap();
        assert_eq!(home.announced_trouble(&resource()).await.unwrap(), owed);
    }
    let elsewhere = "fabrikam".parse().unwrap();
    assert_eq!(home.announced_trouble(&elsewhere).await.unwrap(), None);
}

fn told(kind: NoticeKind, key: String) -> Notice {
    Notice {
        kind,
        key: Some(key),
        ..created("bot")
    }
}

/// A row of which everything was told that can be told of one.
async fn told_of() -> (Home, Num) {
    let (home, num) = active().await;
    let bot = name("bot");
    let fails = Change::Failed {
        num,
        attempt: attempt(70_000, "refused 403"),
        due: Due {
            at: at(70_010),
            why: DueReason::Retry,
        },
        blame: crate::model::Blame::RowAlone,
    };
    let (late, failing) = (Notice::late_key(&bot), Notice::failing_key(&bot));
    let decided = vec![
        Decided {
            change: fails,
            notices: vec![told(NoticeKind::IdentityFailing, failing)],
        },
        Decided {
            change: Change::LateNotified { num },
            notices: vec![told(NoticeKind::RenewalLate, late)],
        },
    ];
    let postings = decided.into_iter().map(Posting::Decided);
    let posted = home.post(Arc::new(postings.collect()), at(70_001)).await;
    assert!(posted.unwrap().iter().all(Result::is_ok));
    assert_eq!(home.open_notices().await.unwrap().len(), 2);
    (home, num)
}

#[tokio::test]
async fn what_was_told_of_a_row_is_told_to_be_over_under_the_same_key() {
    let (home, num) = told_of().await;
    commit(&home, issued(num, 70_020, None), 70_021).await;
    assert_eq!(home.open_notices().await.unwrap(), Default::default());
    let all = home.notices(0, 100).await.unwrap();
    assert_eq!(all.len(), 4, "{all:?}");
    let said: Vec<&str> = all.iter().map(|(_, told)| told.message.as_str()).collect();
    assert!(said.contains(&"The renewal of bot is not late any more: it has a new token."));

    let (home, num) = told_of().await;
    step(&home, num, Step::Withhold, 70_030).await;
    assert_eq!(home.open_notices().await.unwrap(), Default::default());
    let last = home.latest_notices(1).await.unwrap().remove(0).1;
    assert!(last.message.contains("to have no token"), "{last:?}");

    // Gone, which is told in its turn, and over when a person takes it out.
    let (home, num) = told_of().await;
    for secs in [70_040, 70_060] {
        commit(&home, said_gone(num, secs, "gone 404"), secs).await;
    }
    let open = home.open_notices().await.unwrap();
    assert_eq!(
        open.into_values().collect::<Vec<_>>(),
        [NoticeKind::IdentityGone]
    );
    let names = vec![name("bot")];
    home.remove(names, Some(OnRemoval::Forget), at(70_070))
        .await
        .unwrap();
    for version in pending(&home, "file", 80_000).await {
        deliver(&home, "file", num, version.wanted).await;
    }
    home.prune(100, at(80_000)).await.unwrap();
    assert_eq!(home.open_notices().await.unwrap(), Default::default());
}

#[tokio::test]
async fn what_is_renewed_meanwhile_is_not_called_late() {
    let (home, num) = active().await;
    let decided = Decided {
        change: Change::LateNotified { num },
        notices: vec![told(
            NoticeKind::RenewalLate,
            Notice::late_key(&name("bot")),
        )],
    };
    let postings = Arc::new(vec![Posting::Decided(decided)]);
    let applied = home.post(postings, at(64_000)).await.unwrap();
    assert!(matches!(applied[..], [Ok(Some(Applied::Stale))]));
    assert_eq!(home.kinds().await, []);
}

#[tokio::test]
async fn one_that_was_gone_and_comes_back_is_told() {
    let (home, num) = active().await;
    for secs in [100, 120] {
        commit(&home, said_gone(num, secs, "gone 404"), secs).await;
    }
    let cause = Cause::ours("it is back");
    home.revive(&name("bot"), &cause, at(200)).await.unwrap();
    commit(&home, issued(num, 210, None), 211).await;
    use NoticeKind::{IdentityGone, IdentityRevived};
    assert_eq!(home.kinds().await, [IdentityGone, IdentityRevived]);
    assert_eq!(home.open_notices().await.unwrap(), Default::default());
}

#[tokio::test]
async fn an_id_that_another_resource_made_is_named() {
    let home = Home::new();
    home.reconcile(&["anna", "bert", "carl"].map(spec), &[], at(0))
        .await
        .unwrap();
    for (who, id) in [
        ("anna", "8:acs:1_1"),
        ("bert", "8:acs:1_2"),
        ("carl", "8:acs:2_1"),
    ] {
        let num = get(&home, who).await.num;
        commit(&home, issued(num, 1, Some(id)), 2).await;
    }
    let told = home.notices(0, 100).await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    let told = &told[0].1.message;
    assert!(told.contains("carl was created as 8:acs:2_1"), "{told}");
}

#[tokio::test]
async fn what_was_told_of_a_resource_that_is_configured_no_more_is_over() {
    let home = Home::new();
    let told = |kind, key: &str, of: Option<Name>| Notice {
        at: at(1),
        kind,
        resource: Some(resource()),
        name: of,
        key: Some(key.to_owned()),
        message: "It is so.".to_owned(),
    };
    let notices = vec![
        told(NoticeKind::ResourceUnreachable, "outage contoso", None),
        told(NoticeKind::RenewalLate, "renewal anna", Some(name("anna"))),
        told(NoticeKind::IdentityFailing, "identities contoso", None),
        told(NoticeKind::GoneHeld, "gone contoso", None),
        told(NoticeKind::OrderFailed, "order anna", Some(name("anna"))),
    ];
    home.raise(notices).await.unwrap();
    let end = async |configured| home.end_notices_elsewhere(configured, at(9)).await.unwrap();
    end(vec![resource()]).await;
    assert_eq!(home.kinds().await.len(), 5);
    for _ in 0..2 {
        end(vec!["other".parse().unwrap()]).await;
        let open = home.open_notices().await.unwrap();
        let order = ("order anna".to_owned(), NoticeKind::OrderFailed);
        assert_eq!(open, BTreeMap::from([order]));
        assert_eq!(home.kinds().await.len(), 9, "once");
    }
    let last = home.notices(5, 1).await.unwrap().remove(0).1;
    let why = "contoso is no longer configured";
    assert!(last.message.contains(why), "{}", last.message);
}

on_postgres! {
    a_token_and_its_notice_are_kept_together_or_not_at_all
    stages_of_a_replaced_key_are_told_in_the_commit_that_notes_them
    a_replacement_of_a_key_is_dropped_when_it_ended_long_ago
    the_end_of_an_outage_is_owed_until_it_is_told
    what_was_told_of_a_row_is_told_to_be_over_under_the_same_key
    what_is_renewed_meanwhile_is_not_called_late
    one_that_was_gone_and_comes_back_is_told
    an_id_that_another_resource_made_is_named
    what_was_told_of_a_resource_that_is_configured_no_more_is_over
}
