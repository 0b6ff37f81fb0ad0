//! Campaigns, reservations and cleaning up.

use super::*;
use crate::model::{AuditEntry, Operation, Selection};

async fn three() -> (Home, Vec<Num>) {
    let home = Home::new();
    let specs = ["a", "b", "c"].map(|n| with_id(n, &format!("8:acs:{n}")));
    declare(&home, &specs, 0).await;
    let due = home
        .due(&resource(), Work::Issue, at(0), 10, &none())
        .await
        .unwrap();
    (home, due.into_iter().map(|record| record.num).collect())
}

fn rows(nums: &[Num]) -> Vec<Wanted> {
    nums.iter().copied().map(Wanted::Row).collect()
}

fn revocation(target: Target) -> NewCampaign {
    let cause = Cause {
        actor: "uid 0 (root)".to_owned(),
        reason: Some("key leaked".to_owned()),
    };
    NewCampaign::new(CampaignAction::Revoke, Some(Then::Hold), target, cause)
}

/// Ends some of what was cancelled; true while there is more.
async fn sweep(home: &Home, id: CampaignId, now: i64) -> bool {
    home.sweep_cancelled(id, &resource(), &none(), 2, at(now))
        .await
        .unwrap()
}

async fn settle(home: &Home, id: CampaignId, outcomes: Vec<(Num, ItemOutcome)>, now: i64) {
    let cause = Cause::ours("test");
    home.settle_items(id, Vec::new(), &cause, outcomes, at(now))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_campaign_is_worked_off_over_restarts_and_ends_with_its_last_item() {
    let (mut home, nums) = three().await;
    let new = revocation(Target::Items(rows(&nums)));
    let id = home.create_campaign(new, at(10)).await.unwrap();
    let done = ItemOutcome::Done {
        at: at(11),
        request_id: Some("req".to_owned()),
    };
    let retry = ItemOutcome::Retry {
        next_at: at(60),
        error: "500".to_owned(),
        request_id: None,
    };
    let outcomes = vec![(nums[0], done.clone()), (nums[1], retry)];
    settle(&home, id, outcomes, 11).await;
    home.reopen();
    let open = home.open_campaigns().await.unwrap();
    let counted = (open[0].pending, open[0].delivering, open[0].failed);
    assert_eq!(counted, (2, 1, 0));
    let skip = [nums[2]].into();
    let items = home
        .campaign_items(id, &resource(), true, 10, &skip)
        .await
        .unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].attempts, items[0].next_at), (1, at(60)));

    let failed = ItemOutcome::Failed {
        error: "400".to_owned(),
        request_id: None,
    };
    let outcomes = vec![(nums[1], failed), (nums[2], done.clone()), (nums[0], done)];
    settle(&home, id, outcomes, 70).await;
    let followed = home
        .follow_items(id, None, 100, true, at(70))
        .await
        .unwrap();
    assert_eq!(followed.next, None);
    let ended = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((ended.pending, ended.done, ended.failed), (0, 2, 1));
    assert_eq!(ended.ended_at, Some(at(70)));
    assert!(home.open_campaigns().await.unwrap().is_empty());
    assert_eq!(
        home.campaign_report(id, None, false, 10)
            .await
            .unwrap()
            .len(),
        3
    );

    let day = 86_400;
    assert_eq!(home.prune(2, at(401 * day)).await.unwrap().items, 2);
    while home.prune(2, at(401 * day)).await.unwrap().items > 0 {}
    assert_eq!(home.campaign(id).await.unwrap(), None);
}

#[tokio::test]
async fn a_selection_is_frozen_in_chunks_that_a_restart_resumes() {
    let mut home = Home::new();
    let specs: Vec<Spec> = (0..25)
        .map(|n| with_id(&format!("g{n:02}"), &format!("8:acs:{n}")))
        .collect();
    declare(&home, &specs, 0).await;
    let some = Selection::parse("name ~ 'g1*' or name = 'g24'").unwrap();
    let new = revocation(Target::Select(some));
    let id = home.create_campaign(new, at(1)).await.unwrap();
    // What is declared afterwards is not meant.
    declare(&home, &[with_id("g19b", "8:acs:late")], 2).await;
    let mut chunks = 0;
    while home.expand(id, 4, at(2)).await.unwrap() == Frozen::More {
        let state = home.campaign(id).await.unwrap().unwrap().state;
        assert_eq!(state, CampaignState::Expanding);
        home.reopen();
        chunks += 1;
    }
    assert_eq!(chunks, 6);
    let frozen = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((frozen.state, frozen.pending), (CampaignState::Running, 11));
    assert_eq!(home.expand(id, 4, at(3)).await.unwrap(), Frozen::Whole);
}

#[tokio::test]
async fn a_list_that_never_came_whole_is_never_begun() {
    let (mut home, nums) = three().await;
    let id = home
        .create_campaign(revocation(Target::Later), at(1))
        .await
        .unwrap();
    home.add_items(id, rows(&nums[..2]), at(1)).await.unwrap();
    home.reopen();
    home.end_unsealed(at(2)).await.unwrap();
    while sweep(&home, id, 3).await {}
    let ended = home.campaign(id).await.unwrap().unwrap();
    assert_eq!(ended.state, CampaignState::Cancelled);
    assert!(ended.ended_at.is_some());

    let id = home
        .create_campaign(revocation(Target::Later), at(3))
        .await
        .unwrap();
    home.add_items(id, rows(&nums), at(3)).await.unwrap();
    let stranger = Wanted::Id(resource(), "8:acs:stranger".parse().unwrap());
    let ours = Wanted::Id(resource(), "8:acs:a".parse().unwrap());
    home.add_items(id, vec![stranger.clone(), ours], at(3))
        .await
        .unwrap();
    home.seal_campaign(id, "5 named".to_owned(), at(4))
        .await
        .unwrap();
    let items = home
        .campaign_items(id, &resource(), false, 10, &none())
        .await
        .unwrap();
    assert_eq!(items.len(), 4, "an id of ours is its row");
    let strange = items.iter().find(|item| item.num < 0).unwrap();
    assert_eq!((strange.label(), strange.state), ("8:acs:stranger", None));
}

#[tokio::test]
async fn a_selection_that_cannot_be_read_any_more_selects_nobody() {
    let (home, nums) = three().await;
    let some = Selection::parse("name = 'a'").unwrap();
    let new = revocation(Target::Select(some));
    let id = home.create_campaign(new, at(1)).await.unwrap();
    let damage = home.write("test", move |txn| {
        txn.run(
            "UPDATE campaign SET selection = 'name =' WHERE num = ?1",
            [id],
        )?;
        Ok(())
    });
    damage.await.unwrap();
    assert_eq!(home.expand(id, 10, at(2)).await.unwrap(), Frozen::Whole);
    let ended = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.total()), (CampaignState::Cancelled, 0));
    assert!(ended.ended_at.is_some() && ended.target.contains("cannot be read"));
    assert_eq!(nums.len(), 3);
}

#[tokio::test]
async fn a_release_undoes_a_planned_deletion() {
    let (home, nums) = three().await;
    let cause = Cause::ours("leaves");
    let new = NewCampaign {
        starts_at: Some(at(1000)),
        ..NewCampaign::new(
            CampaignAction::Delete,
            None,
            Target::Items(rows(&nums[..2])),
            cause,
        )
    };
    let id = home.create_campaign(new, at(10)).await.unwrap();
    step(&home, nums[0], Step::Withhold, 11).await;
    step(&home, nums[0], Step::Release, 12).await;
    let items = home
        .campaign_items(id, &resource(), false, 10, &none())
        .await
        .unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].num, items[0].next_at), (nums[1], at(1000)));
    step(&home, nums[1], Step::Withhold, 13).await;
    step(&home, nums[1], Step::Release, 14).await;
    let undone = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((undone.cancelled, undone.ended_at), (2, Some(at(14))));
}

#[tokio::test]
async fn what_failed_can_be_tried_again_and_what_is_cancelled_never_begins() {
    let (home, nums) = three().await;
    let id = home
        .create_campaign(revocation(Target::Items(rows(&nums))), at(1))
        .await
        .unwrap();
    let failed = ItemOutcome::Failed {
        error: "400".to_owned(),
        request_id: Some("req".to_owned()),
    };
    settle(&home, id, vec![(nums[0], failed)], 2).await;
    let cause = Cause::ours("test");
    assert_eq!(home.retry_campaign(id, &cause, at(3)).await.unwrap(), 1);
    assert!(home.pause_campaign(id, true, &cause, at(3)).await.unwrap());
    assert!(!home.pause_campaign(id, true, &cause, at(3)).await.unwrap());
    assert!(home.pause_campaign(id, false, &cause, at(3)).await.unwrap());
    assert!(home.cancel_campaign(id, &cause, at(4)).await.unwrap());
    while sweep(&home, id, 5).await {}
    let over = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((over.state, over.cancelled), (CampaignState::Cancelled, 3));
    assert!(over.ended_at.is_some());
    assert!(!home.cancel_campaign(id, &cause, at(6)).await.unwrap());
}

/// Pending, failing and failed for good of each order that is told.
async fn told(home: &Home, now: i64) -> Vec<(u64, u64, Vec<String>)> {
    let orders = home.orders(at(now)).await.unwrap().into_iter();
    let told = orders.map(|one| (one.campaign.pending, one.failing.count, one.failed.labels));
    told.collect()
}

async fn told_of(home: &Home, num: Num, now: i64) -> Vec<(ItemState, u32)> {
    let orders = home.orders_of(num, at(now)).await.unwrap();
    let told = orders.iter().map(|order| (order.state, order.attempts));
    told.collect()
}

fn refused_for_good() -> ItemOutcome {
    ItemOutcome::Failed {
        error: "403".to_owned(),
        request_id: None,
    }
}

#[tokio::test]
async fn an_order_is_told_until_it_is_carried_out() {
    let (home, nums) = three().await;
    let planned = NewCampaign {
        starts_at: Some(at(5)),
        ..revocation(Target::Items(rows(&nums[..2])))
    };
    let id = home.create_campaign(planned, at(1)).await.unwrap();
    // `why` tells of a plan; nobody waits for it yet.
    assert_eq!(told_of(&home, nums[0], 4).await, [(ItemState::Pending, 0)]);
    assert!(told(&home, 4).await.is_empty());
    assert_eq!(told(&home, 5).await, [(2, 0, vec![])]);
    assert_eq!(told_of(&home, nums[0], 5).await, [(ItemState::Pending, 0)]);
    assert_eq!(told_of(&home, nums[2], 5).await, []);
    let retry = ItemOutcome::Retry {
        next_at: at(60),
        error: "403".to_owned(),
        request_id: None,
    };
    settle(&home, id, vec![(nums[0], retry)], 6).await;
    assert_eq!(told(&home, 7).await, [(2, 1, vec![])]);
    assert_eq!(home.campaign(id).await.unwrap().unwrap().failing, 1);
    assert_eq!(told_of(&home, nums[0], 7).await, [(ItemState::Called, 1)]);
    let done = ItemOutcome::Done {
        at: at(8),
        request_id: None,
    };
    let outcomes = vec![(nums[0], refused_for_good()), (nums[1], done)];
    settle(&home, id, outcomes, 8).await;
    home.follow_items(id, None, 9, true, at(9)).await.unwrap();
    assert_eq!(told(&home, 9).await, [(0, 0, vec!["a".to_owned()])]);
    assert_eq!(told_of(&home, nums[0], 9).await, [(ItemState::Failed, 2)]);
    // Revoked by another order since: nothing is left to be done.
    step(&home, nums[0], revoked(10, Then::Hold), 10).await;
    assert!(told(&home, 11).await.is_empty() && told_of(&home, nums[0], 11).await.is_empty());
}

#[tokio::test]
async fn what_failed_for_good_is_given_up_by_cancelling_its_campaign() {
    let (home, nums) = three().await;
    let new = revocation(Target::Items(rows(&nums[..1])));
    let id = home.create_campaign(new, at(20)).await.unwrap();
    settle(&home, id, vec![(nums[0], refused_for_good())], 21).await;
    assert_eq!(told(&home, 22).await.len(), 1);
    let cause = Cause::ours("it cannot be done");
    assert!(home.cancel_campaign(id, &cause, at(22)).await.unwrap());
    assert!(!home.cancel_campaign(id, &cause, at(22)).await.unwrap());
    assert!(told(&home, 23).await.is_empty() && told_of(&home, nums[0], 23).await.is_empty());
    assert_eq!(home.retry_campaign(id, &cause, at(24)).await.unwrap(), 1);
    assert_eq!(told(&home, 25).await, [(1, 0, vec![])]);
}

#[tokio::test]
async fn the_steps_are_idempotent() {
    let (home, num) = active().await;
    let held = step(&home, num, Step::Withhold, 20).await;
    assert_eq!(step(&home, num, Step::Withhold, 30).await, held);
    assert_eq!(step(&home, num, revoked(31, Then::Hold), 31).await, held);
    assert_eq!(get(&home, "bot").await.revoked_at, Some(at(31)));
    assert_eq!(step(&home, num, revoked(25, Then::Hold), 32).await, held);
    assert_eq!(
        get(&home, "bot").await.revoked_at,
        Some(at(31)),
        "it never goes back"
    );
    let deleted = step(&home, num, Step::Deleted { at: at(40) }, 40).await;
    assert!(deleted > held);
    assert_eq!(
        step(&home, num, Step::Deleted { at: at(41) }, 41).await,
        deleted
    );
    assert_eq!(step(&home, num, Step::Release, 42).await, deleted);
    assert_eq!(get(&home, "bot").await.state, State::Deleted);
    assert_eq!(step(&home, 999, Step::Withhold, 43).await, Version(0));
}

#[tokio::test]
async fn what_was_noted_last_of_each_operation_holds_over_restarts() {
    let mut home = Home::new();
    let reserve = async |home: &Home, operation, window: &[(u32, i64)]| {
        let window = window.iter().map(|(calls, until)| (*calls, at(*until)));
        home.reserve(&resource(), operation, window.collect())
            .await
            .unwrap();
    };
    reserve(&home, Operation::Issue, &[(10, 30)]).await;
    reserve(&home, Operation::Issue, &[(9, 10), (5, 40)]).await;
    home.reopen();
    let (first, second) = ((Operation::Issue, 9, at(10)), (Operation::Issue, 5, at(40)));
    let kept = home.reservations(&resource()).await.unwrap();
    assert_eq!(kept, [first, second]);
    reserve(&home, Operation::Revoke, &[(1, 90)]).await;
    let kept = home.reservations(&resource()).await.unwrap();
    assert_eq!(kept.len(), 3, "each operation has a window of its own");
}

#[tokio::test]
async fn trails_are_dropped_by_their_age_in_small_batches() {
    let (home, num) = active().await;
    let day = 86_400;
    for n in 1..=5 {
        commit(&home, issued(num, n * 60, None), n * 60 + 1).await;
    }
    let entry = AuditEntry {
        at: at(0),
        actor: "renewd".to_owned(),
        action: "test".to_owned(),
        name: None,
        reason: None,
        request_id: None,
        result: "ok".to_owned(),
    };
    home.audit(vec![entry]).await.unwrap();
    let first = home.prune(3, at(8 * day)).await.unwrap();
    assert_eq!((first.renewals, first.audit), (3, 0));
    assert!(first.is_full(3));
    let second = home.prune(3, at(8 * day)).await.unwrap();
    assert_eq!(second.renewals, 2);
    assert!(!second.is_full(3));
    assert_eq!(home.prune(9, at(401 * day)).await.unwrap().audit, 2);
}

#[tokio::test]
async fn an_orphaned_token_is_listed_until_it_expires() {
    let (home, num) = active().await;
    step(&home, num, Step::Withhold, 20).await;
    commit(&home, issued(num, 21, None), 22).await;
    assert_eq!(home.prune(9, at(86_000)).await.unwrap().orphans, 0);
    assert_eq!(home.prune(9, at(86_500)).await.unwrap().orphans, 1);
    assert_eq!(home.counts().await.unwrap().orphans, 0);
}

on_postgres! {
    a_campaign_is_worked_off_over_restarts_and_ends_with_its_last_item
    a_selection_is_frozen_in_chunks_that_a_restart_resumes
    a_list_that_never_came_whole_is_never_begun
    a_selection_that_cannot_be_read_any_more_selects_nobody
    a_release_undoes_a_planned_deletion
    what_failed_can_be_tried_again_and_what_is_cancelled_never_begins
    an_order_is_told_until_it_is_carried_out
    what_failed_for_good_is_given_up_by_cancelling_its_campaign
    the_steps_are_idempotent
    what_was_noted_last_of_each_operation_holds_over_restarts
    trails_are_dropped_by_their_age_in_small_batches
    an_orphaned_token_is_listed_until_it_expires
}
