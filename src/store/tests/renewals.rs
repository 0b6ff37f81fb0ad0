//! From a declaration to a token in a consumer's hands, and on.

use super::*;
use crate::model::Kind;

#[tokio::test]
async fn a_declared_identity_becomes_due_and_its_token_is_handed_over() {
    let home = Home::new();
    let told = declare(&home, &[spec("bot")], 0).await;
    assert_eq!((told.create, told.sinks), (1, 2));
    let due = home
        .due(&resource(), Work::Create, at(0), 10, &none())
        .await
        .unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].spec, spec("bot"));
    assert_eq!(due[0].state, State::New);

    let num = due[0].num;
    let applied = commit(&home, issued(num, 1, Some("8:acs:x")), 2).await;
    assert_eq!(applied, Applied::Done(Version(0).next(at(2))));
    let document = home.document(num).await.unwrap().unwrap();
    assert_eq!(document.token, Some(Secret::new(format!("canary-{num}-1"))));
    assert_eq!(document.kind, Kind::Issued);
    assert_eq!(document.renews_at, Some(at(43_201)));

    let waiting = pending(&home, "file", 2).await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].wanted, document.version);
    let delivered = Settled::Delivered {
        sink: sink("file"),
        num,
        version: document.version,
    };
    home.settle(vec![delivered], at(3)).await.unwrap();
    assert!(pending(&home, "file", 99).await.is_empty());
    assert_eq!(
        home.next_due(&resource(), Work::Issue, &none())
            .await
            .unwrap(),
        Some(at(43_201))
    );
}

/// Whoever answers in the place of ACS may make two of one: the second has to wait, and is told, and nothing is taken
/// for an orphan that a record names.
#[tokio::test]
async fn an_identity_that_is_created_under_the_id_of_another_waits_and_is_told() {
    let home = Home::new();
    declare(&home, &[spec("anna"), spec("bert"), spec("carl")], 0).await;
    let num = async |name: &str| get(&home, name).await.num;
    let (anna, bert, carl) = (num("anna").await, num("bert").await, num("carl").await);
    commit(&home, issued(anna, 1, Some("8:acs:x")), 2).await;
    let named = Change::Adopted {
        num: carl,
        id: "8:acs:x".parse().unwrap(),
        attempt: attempt(2, "created"),
    };
    for change in [issued(bert, 1, Some("8:acs:x")), named] {
        assert_eq!(commit(&home, change, 2).await, Applied::Stale);
    }
    for name in ["bert", "carl"] {
        let record = get(&home, name).await;
        assert_eq!(record.due.unwrap().at, at(602), "{name}");
        assert_eq!((record.id, record.failures), (None, 1), "{name}");
        let last = record.attempts.iter().last().unwrap().result.clone();
        assert!(last.contains("id of another identity"), "{last}");
    }
    assert!(home.orphans(0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_token_whose_call_began_before_a_revocation_is_refused() {
    let (home, num) = active().await;
    let before = step(&home, num, revoked(20, Then::Reissue), 20).await;
    for began in [15, 20] {
        let applied = commit(&home, issued(num, began, None), 21).await;
        assert_eq!(applied, Applied::Stale);
    }
    let orphans = home.orphans(0, 10).await.unwrap();
    assert_eq!(orphans.len(), 2);
    assert_eq!(orphans[0].kind, "token");
    assert_eq!(orphans[0].expires_at, Some(at(15 + 86_400)));
    assert_eq!(home.counts().await.unwrap().orphans, 2);

    let record = get(&home, "bot").await;
    assert_eq!(record.due.unwrap().why, DueReason::Revoked);
    assert!(
        record.due.unwrap().at > at(20),
        "a call that begins when it is due is not too early"
    );
    let after = version(commit(&home, issued(num, 21, None), 22).await);
    assert!(after > before);
    let document = home.document(num).await.unwrap().unwrap();
    assert_eq!(document.kind, Kind::Reissued);
}

#[tokio::test]
async fn a_revocation_counts_although_the_result_began_to_be_written_before_it() {
    let (home, num) = active().await;
    // The second one began to be written before the first, and takes nothing back of it.
    step(&home, num, revoked(20, Then::Reissue), 20).await;
    step(&home, num, revoked(15, Then::Reissue), 16).await;
    for (began, now) in [(11, 12), (11, 19), (17, 18)] {
        let applied = commit(&home, issued(num, began, None), now).await;
        assert_eq!(applied, Applied::Stale, "{began} {now}");
    }
    let due = get(&home, "bot").await.due.unwrap();
    assert_eq!(due.why, DueReason::Revoked);
}

#[tokio::test]
async fn a_clock_set_back_after_a_revocation_refuses_nothing_for_long() {
    let (home, num) = active().await;
    step(&home, num, revoked(100_000, Then::Reissue), 100_000).await;
    assert!(matches!(
        commit(&home, issued(num, 20, None), 21).await,
        Applied::Done(_)
    ));
}

#[tokio::test]
async fn a_token_for_scopes_that_changed_meanwhile_is_refused_and_due_again() {
    let (home, num) = active().await;
    let changed = Spec {
        declared: Declaration {
            scopes: vec![Scope::Voip],
            ..with_id("bot", "8:acs:bot").declared
        },
        ..with_id("bot", "8:acs:bot")
    };
    assert_eq!(declare(&home, &[changed], 30).await.reissue, 1);
    assert_eq!(
        commit(&home, issued(num, 29, None), 31).await,
        Applied::Stale
    );
    let due = home
        .due(&resource(), Work::Issue, at(31), 10, &none())
        .await
        .unwrap();
    assert_eq!(due[0].due.unwrap().why, DueReason::Changed);
    version(commit(&home, issued(num, 31, None), 32).await);
    let document = home.document(num).await.unwrap().unwrap();
    assert_eq!(
        (document.kind, document.scopes),
        (Kind::Renewed, vec![Scope::Voip])
    );
}

#[tokio::test]
async fn an_identity_that_was_created_too_late_is_kept_without_its_token() {
    let home = Home::new();
    declare(&home, &[spec("bot")], 0).await;
    let num = get(&home, "bot").await.num;
    home.intend_creations(vec![num], at(1)).await.unwrap();
    let changed = Spec {
        declared: Declaration {
            scopes: vec![Scope::Voip],
            ..spec("bot").declared
        },
        ..spec("bot")
    };
    declare(&home, &[changed], 2).await;
    let applied = commit(&home, issued(num, 1, Some("8:acs:new")), 3).await;
    assert_eq!(applied, Applied::Stale);
    let record = get(&home, "bot").await;
    assert_eq!(
        record.id,
        Some("8:acs:new".parse().unwrap()),
        "no second person is made"
    );
    assert_eq!(record.token, None);
    assert_eq!(home.orphans(0, 9).await.unwrap()[0].kind, "token");
}

#[tokio::test]
async fn a_token_for_a_held_row_or_a_foreign_id_is_refused() {
    let (home, num) = active().await;
    let foreign = commit(&home, issued(num, 20, Some("8:acs:other")), 21).await;
    assert_eq!(foreign, Applied::Stale);
    step(&home, num, Step::Withhold, 30).await;
    assert_eq!(
        commit(&home, issued(num, 31, None), 32).await,
        Applied::Stale
    );
    let document = home.document(num).await.unwrap().unwrap();
    assert_eq!((document.state, document.token), (State::Held, None));
    let kinds: Vec<String> = home
        .orphans(0, 9)
        .await
        .unwrap()
        .into_iter()
        .map(|o| o.kind)
        .collect();
    assert_eq!(kinds, ["identity", "token"]);
}

#[tokio::test]
async fn the_kind_tells_the_history() {
    let (home, num) = active().await;
    let kind = async || home.document(num).await.unwrap().unwrap().kind;
    assert_eq!(kind().await, Kind::Issued);
    commit(&home, issued(num, 20, None), 21).await;
    assert_eq!(kind().await, Kind::Renewed);
    let mut rolled = issued(num, 30, None);
    if let Change::Issued { token, .. } = &mut rolled {
        token.meta.minted_by = "key2".to_owned();
    }
    commit(&home, rolled, 31).await;
    assert_eq!(kind().await, Kind::Reissued, "the key was rolled");
    step(&home, num, Step::Withhold, 40).await;
    assert_eq!(kind().await, Kind::Held);
    step(&home, num, Step::Release, 50).await;
    commit(&home, issued(num, 51, None), 52).await;
    assert_eq!(kind().await, Kind::Issued, "the first after a hold");
}

#[tokio::test]
async fn a_failure_moves_the_due_time_and_keeps_a_request_made_meanwhile() {
    let (home, num) = active().await;
    let failed = |began, due| Change::Failed {
        blame: crate::model::Blame::Row,
        num,
        attempt: attempt(began, "retry"),
        due: Due {
            at: at(due),
            why: DueReason::Retry,
        },
    };
    commit(&home, failed(100, 160), 101).await;
    let record = get(&home, "bot").await;
    assert_eq!((record.failures, record.due.unwrap().at), (1, at(160)));
    assert_eq!(record.attempts.last().unwrap().result, "retry");
    step(&home, num, Step::Due(DueReason::Requested), 165).await;
    commit(&home, failed(160, 300), 170).await;
    let due = get(&home, "bot").await.due.unwrap();
    assert_eq!((due.at, due.why), (at(165), DueReason::Requested));
}

#[tokio::test]
async fn a_due_time_that_is_mended_keeps_a_request_made_meanwhile() {
    let (home, num) = active().await;
    step(&home, num, revoked(20, Then::Reissue), 20).await;
    let due = Due {
        at: at(40),
        why: DueReason::Renewal,
    };
    let applied = commit(&home, Change::Due { num, due }, 21).await;
    assert_eq!(applied, Applied::Stale);
    let due = get(&home, "bot").await.due.unwrap();
    assert_eq!(due.why, DueReason::Revoked);
    assert!(due.at <= at(21), "{due:?}");
}

#[tokio::test]
async fn gone_is_kept_and_shown_and_never_due() {
    let (home, num) = active().await;
    commit(&home, said_gone(num, 17, "gone 404"), 18).await;
    let asked = get(&home, "bot").await;
    assert_eq!(
        (asked.state, asked.due.unwrap().at),
        (State::Active, at(20))
    );
    assert!(asked.token.is_some(), "it is asked for once more first");
    let gone = said_gone(num, 20, "gone 404");
    version(commit(&home, gone.clone(), 21).await);
    let record = get(&home, "bot").await;
    assert_eq!(
        (record.state, record.due, record.token),
        (State::Gone, None, None)
    );
    assert_eq!(commit(&home, gone, 22).await, Applied::Stale);
    assert_eq!(
        home.next_due(&resource(), Work::Issue, &none())
            .await
            .unwrap(),
        None
    );
    assert_eq!(pending(&home, "file", 21).await[0].wanted, record.version);
    step(&home, num, Step::Due(DueReason::Requested), 30).await;
    assert_eq!(
        get(&home, "bot").await.due,
        None,
        "it is not asked for again by itself"
    );
}

#[tokio::test]
async fn versions_never_go_back_even_when_the_clock_does() {
    let (home, num) = active().await;
    let first = get(&home, "bot").await.version;
    let second = version(commit(&home, issued(num, -5000, None), -4999).await);
    assert_eq!(second, Version(first.0 + 1));
    let third = version(commit(&home, issued(num, 5000, None), 5001).await);
    assert_eq!(third.0, u64::try_from(at(5001).as_second()).unwrap());
}

#[tokio::test]
async fn the_most_pressing_is_first_and_those_in_flight_are_left_out() {
    let home = Home::new();
    let specs = ["a", "b", "c", "d"].map(|n| with_id(n, &format!("8:acs:{n}")));
    declare(&home, &specs, 0).await;
    let mut nums = Vec::new();
    for n in ["a", "b", "c", "d"] {
        nums.push(get(&home, n).await.num);
    }
    for (at, num) in [(30, nums[0]), (10, nums[1]), (20, nums[2])] {
        commit(&home, issued(num, at, None), at).await;
    }
    let order = async |skip: &[Num]| -> Vec<Num> {
        let skip = skip.iter().copied().collect();
        let due = home
            .due(&resource(), Work::Issue, at(50_000), 3, &skip)
            .await
            .unwrap();
        due.into_iter().map(|record| record.num).collect()
    };
    assert_eq!(order(&[]).await, [nums[3], nums[1], nums[2]]);
    assert_eq!(order(&[nums[3], nums[2]]).await, [nums[1], nums[0]]);
    step(&home, nums[0], revoked(40, Then::Reissue), 40).await;
    assert_eq!(
        order(&[nums[3]]).await[0],
        nums[0],
        "a revoked token is as good as none"
    );
    let skip = [nums[3], nums[0]].into();
    assert_eq!(
        home.next_due(&resource(), Work::Issue, &skip)
            .await
            .unwrap(),
        Some(at(43_210))
    );
    let other = "other".parse().unwrap();
    assert_eq!(
        home.next_due(&other, Work::Issue, &none()).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn late_ones_are_counted_and_listed_without_a_scan() {
    let (home, num) = active().await;
    assert!(home.late(at(64_000)).await.unwrap().is_empty());
    let late = at(64_900);
    assert_eq!(home.late(late).await.unwrap()[&resource()], 1);
    let failed = Change::Failed {
        blame: crate::model::Blame::Row,
        num,
        attempt: attempt(64_800, "retry"),
        due: Due {
            at: at(65_000),
            why: DueReason::Retry,
        },
    };
    commit(&home, failed, 64_801).await;
    assert_eq!(
        home.late(late).await.unwrap()[&resource()],
        1,
        "also while it waits to retry"
    );
    let troubled = home.troubled(late, 10).await.unwrap();
    assert_eq!(troubled.len(), 1);
    assert_eq!(troubled[0].state_at(late), State::Late);
    commit(&home, Change::LateNotified { num }, 64_902).await;
    assert!(get(&home, "bot").await.late_notified);
    commit(&home, issued(num, 65_000, None), 65_001).await;
    assert!(!get(&home, "bot").await.late_notified, "once per lapse");
    assert!(home.late(late).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_stop_the_others() {
    let home = Home::new();
    declare(&home, &[spec("bad"), spec("good")], 0).await;
    sql(
        &home,
        "UPDATE identity SET wish = 'not json' WHERE name = 'bad'",
    )
    .await;
    let due = home
        .due(&resource(), Work::Create, at(1), 10, &none())
        .await
        .unwrap();
    assert_eq!(due.len(), 1);
    let due = home.due(&resource(), Work::Create, at(1), 1, &none()).await;
    assert_eq!(
        due.unwrap()[0].spec.name,
        name("good"),
        "a page of what cannot be read hides nobody"
    );
    let aside = home.counts().await.unwrap().set_aside;
    assert_eq!((aside[0].kind.as_str(), aside[0].rows), ("identity", 1));
    assert_eq!(aside[0].names, [name("bad")]);
}

/// More of them than are remembered one by one.
#[tokio::test]
async fn rows_that_cannot_be_read_are_passed_over_at_a_price_that_grows_with_their_number_alone() {
    const BAD: usize = 500;
    let home = Home::new();
    let specs: Vec<Spec> = (0..BAD).map(|n| spec(&format!("bad-{n}"))).collect();
    declare(&home, &specs, 0).await;
    sql(
        &home,
        "UPDATE identity SET wish = 'not json'; UPDATE delivery SET wanted = 1, delivered = -1, next_at = 0, since = 0",
    )
    .await;
    let rows = || home.read("test", |db| Ok(db.rows.take()));
    for look in [4 * BAD, 2 * BAD] {
        rows().await.unwrap();
        let due = home
            .due(&resource(), Work::Create, at(1), 10, &none())
            .await;
        assert!(due.unwrap().is_empty());
        let read = rows().await.unwrap();
        assert!(read <= look, "{read} rows were read");
    }
    let next = home.next_due(&resource(), Work::Create, &none()).await;
    assert_eq!(next.unwrap(), None, "nobody wakes up for one of them");

    rows().await.unwrap();
    let pending = home
        .pending(&sink("file"), at(1), 10, &none())
        .await
        .unwrap();
    assert!(pending.deliveries.is_empty());
    let read = rows().await.unwrap();
    assert!(read <= 5 * BAD, "{read} rows were read");
    let aside = home.counts().await.unwrap().set_aside;
    let told: Vec<_> = aside
        .iter()
        .map(|one| (one.kind.as_str(), one.rows))
        .collect();
    assert_eq!(told, [("identity", BAD as u64), ("delivery", BAD as u64)]);

    sql(
        &home,
        "UPDATE delivery SET delivered = 0 WHERE identity = (SELECT max(identity) FROM delivery)",
    )
    .await;
    let pending = home
        .pending(&sink("file"), at(1), 10, &none())
        .await
        .unwrap();
    assert_eq!(
        pending.deliveries.len(),
        1,
        "a page of what cannot be read hides nobody"
    );
}

#[tokio::test]
async fn every_issue_is_in_the_trail_with_its_request_id_and_reason() {
    let (home, num) = active().await;
    commit(&home, issued(num, 20, None), 21).await;
    step(&home, num, revoked(30, Then::Hold), 30).await;
    let query = AuditQuery {
        name: Some(name("bot")),
        limit: 10,
        ..AuditQuery::default()
    };
    let trail = home.audit_trail(query.clone()).await.unwrap();
    let told: Vec<_> = trail
        .iter()
        .map(|e| {
            (
                e.action.as_str(),
                e.request_id.as_deref(),
                e.reason.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("revoke", Some("req-step"), Some("because")),
            ("renew", Some("req-20"), Some("renewal")),
            ("issue", Some("req-10"), Some("first")),
        ]
    );
    let without = AuditQuery {
        without_renewals: true,
        since: Some(at(11)),
        before: Some(at(30)),
        ..query
    };
    let trail = home.audit_trail(without).await.unwrap();
    assert_eq!(trail.len(), 1);
    assert_eq!(trail[0].action, "issue");
}

#[tokio::test]
async fn watchers_resume_where_they_were_or_start_anew() {
    let (mut home, num) = active().await;
    let seen = home.seq();
    let version = version(commit(&home, issued(num, 20, None), 21).await);
    let changes = home.changes_after(seen).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].seq, changes[0].version), (seen + 1, version));
    home.reopen();
    assert_eq!(home.changes_after(seen + 1), Some(vec![]));
    assert_eq!(
        home.changes_after(seen),
        None,
        "what was before the restart is not known"
    );
}

on_postgres! {
    a_declared_identity_becomes_due_and_its_token_is_handed_over
    an_identity_that_is_created_under_the_id_of_another_waits_and_is_told
    a_token_whose_call_began_before_a_revocation_is_refused
    a_revocation_counts_although_the_result_began_to_be_written_before_it
    a_clock_set_back_after_a_revocation_refuses_nothing_for_long
    a_token_for_scopes_that_changed_meanwhile_is_refused_and_due_again
    an_identity_that_was_created_too_late_is_kept_without_its_token
    a_token_for_a_held_row_or_a_foreign_id_is_refused
    the_kind_tells_the_history
    a_failure_moves_the_due_time_and_keeps_a_request_made_meanwhile
    a_due_time_that_is_mended_keeps_a_request_made_meanwhile
    gone_is_kept_and_shown_and_never_due
    versions_never_go_back_even_when_the_clock_does
    the_most_pressing_is_first_and_those_in_flight_are_left_out
    late_ones_are_counted_and_listed_without_a_scan
    a_row_that_cannot_be_read_does_not_stop_the_others
    rows_that_cannot_be_read_are_passed_over_at_a_price_that_grows_with_their_number_alone
    every_issue_is_in_the_trail_with_its_request_id_and_reason
    watchers_resume_where_they_were_or_start_anew
}
