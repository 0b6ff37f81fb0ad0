//! Campaigns, reservations and cleaning up.

use super::*;
use crate::model::{AuditEntry, Operation};

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

#[tokio::test]
async fn a_campaign_is_worked_off_over_restarts_and_ends_with_its_last_item() {
    let (mut home, nums) = three().await;
    let new = NewCampaign {
        action: CampaignAction::Revoke,
        then: Some(Then::Reissue),
        nums: nums.clone(),
        actor: "uid 0 (root)".to_owned(),
        reason: Some("key leaked".to_owned()),
    };
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
    home.settle_items(id, outcomes, at(11)).await.unwrap();
    home.reopen();
    let open = home.open_campaigns().await.unwrap();
    assert_eq!((open[0].pending, open[0].done, open[0].failed), (2, 1, 0));
    let skip = [nums[2]].into();
    let items = home
        .campaign_items(id, &resource(), 10, &skip)
        .await
        .unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].attempts, items[0].next_at), (1, at(60)));

    let failed = ItemOutcome::Failed {
        error: "400".to_owned(),
        request_id: None,
    };
    let outcomes = vec![(nums[1], failed), (nums[2], done.clone()), (nums[0], done)];
    home.settle_items(id, outcomes, at(70)).await.unwrap();
    let ended = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((ended.pending, ended.done, ended.failed), (0, 2, 1));
    assert_eq!(ended.ended_at, Some(at(70)));
    assert!(home.open_campaigns().await.unwrap().is_empty());
    assert_eq!(home.campaign_report(id, 0, 10).await.unwrap().len(), 3);

    let day = 86_400;
    assert_eq!(home.prune(2, at(401 * day)).await.unwrap().items, 2);
    while home.prune(2, at(401 * day)).await.unwrap().items > 0 {}
    assert_eq!(home.campaign(id).await.unwrap(), None);
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
async fn reservations_hold_over_restarts_until_their_time_is_over() {
    let mut home = Home::new();
    let reserve = async |home: &Home, permits, until, now| {
        home.reserve(&resource(), Operation::Issue, permits, at(until), at(now))
            .await
            .unwrap();
    };
    reserve(&home, 10, 30, 0).await;
    reserve(&home, 5, 40, 10).await;
    home.reopen();
    let kept = home.reservations(&resource()).await.unwrap();
    assert_eq!(
        kept,
        [
            (Operation::Issue, 10, at(30)),
            (Operation::Issue, 5, at(40))
        ]
    );
    reserve(&home, 1, 65, 35).await;
    let kept = home.reservations(&resource()).await.unwrap();
    assert_eq!(kept.len(), 2);
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
