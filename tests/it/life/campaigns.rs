//! Revoking, holding, releasing and deleting, beside the renewer that re-issues.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd::{
    model::{HealthView, Num, State, Then},
    store::{
        CampaignAction, CampaignId, CampaignState, Cause, ItemState, Link, NewCampaign, Settled,
        Target, Wanted,
    },
};

use super::{
    MINUTE, SECOND, busiest,
    service::Fault,
    world::{Setting, World},
};

async fn nums(world: &World) -> Vec<Num> {
    world
        .records()
        .await
        .iter()
        .map(|record| record.num)
        .collect()
}

async fn campaign(world: &World, action: CampaignAction, then: Option<Then>) -> CampaignId {
    campaign_over(world, nums(world).await, action, then).await
}

pub(super) async fn campaign_over(
    world: &World,
    rows: Vec<Num>,
    action: CampaignAction,
    then: Option<Then>,
) -> CampaignId {
    let cause = Cause {
        actor: "uid 1000 (anna)".to_owned(),
        reason: Some("laptop stolen".to_owned()),
    };
    let rows = rows.into_iter().map(Wanted::Row).collect();
    let new = NewCampaign::new(action, then, Target::Items(rows), cause);
    let now = world.clock.now();
    world.store().create_campaign(new, now).await.unwrap()
}

fn of(world: &World, operation: &str) -> usize {
    let calls = world.service.calls();
    calls
        .iter()
        .filter(|call| call.operation == operation)
        .count()
}

#[tokio::test(start_paused = true)]
async fn what_is_planned_for_later_is_not_looked_at_until_then() {
    let world = World::start(Setting::of(300)).await;
    world.pass(MINUTE).await;
    let rows = nums(&world).await.into_iter().map(Wanted::Row).collect();
    let (then, now) = (Some(Then::Reissue), world.clock.now());
    let new = NewCampaign {
        starts_at: Some(now + MINUTE * 90),
        ..NewCampaign::new(
            CampaignAction::Revoke,
            then,
            Target::Items(rows),
            Cause::ours("offboarding"),
        )
    };
    let id = world.store().create_campaign(new, now).await.unwrap();
    world.pass(MINUTE).await;
    let rounds = world.campaign_rounds(MINUTE * 80).await;
    assert!(rounds < 600, "{rounds} in eighty minutes");
    assert_eq!(of(&world, "revoke"), 0);
    world.pass(MINUTE * 10).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.pending, told.done), (0, 300));
}

#[tokio::test(start_paused = true)]
async fn revoked_tokens_are_issued_anew_after_their_revocation() {
    let world = World::start(Setting::of(50)).await;
    world.pass(MINUTE).await;
    world.service.forget_calls();
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
    world.pass(SECOND * 10).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.pending, told.done, told.failed), (0, 50, 0));
    assert!(told.ended_at.is_some());
    assert_eq!((of(&world, "revoke"), of(&world, "issue")), (50, 50));
    assert_eq!(world.service.without_live_token(), 0);
    let calls = world.service.calls();
    for record in world.records().await {
        let id = record.id.unwrap().to_string();
        let when = |operation: &str| {
            let found = calls
                .iter()
                .find(|call| call.id == id && call.operation == operation);
            found.unwrap().at
        };
        assert!(
            when("issue") > when("revoke"),
            "never before its own revocation"
        );
        assert_eq!(record.state, State::Active);
    }
    let news = world.news().await;
    assert_eq!(news, ["identity.revoked"], "one for all of them");
    let notices = world.notices().await;
    let message = &notices.last().unwrap().message;
    assert!(
        message.contains("anna") && message.contains("laptop stolen"),
        "{message}"
    );
    let items = world
        .store()
        .campaign_report(id, None, false, 100)
        .await
        .unwrap();
    assert!(
        items
            .iter()
            .all(|item| item.acknowledged_at.is_some() && item.gap_ms.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_withholds_before_it_revokes_and_waits_for_the_consumers() {
    let mut setting = Setting::of(1);
    setting.sinks = vec!["file".parse().unwrap(), "hook".parse().unwrap()];
    setting.specs[0].declared.sinks = vec!["file".parse().unwrap(), "hook".parse().unwrap()];
    let world = World::start(setting).await;
    world.pass(MINUTE).await;
    campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
    world.pass(SECOND).await;
    assert_eq!(world.record("bot-0000").await.state, State::Held);
    assert_eq!(of(&world, "revoke"), 0, "not before it is confirmed");
    let record = world.record("bot-0000").await;
    let delivered = Settled::Delivered {
        sink: "file".parse().unwrap(),
        num: record.num,
        version: record.version,
    };
    let now = world.clock.now();
    world.store().settle(vec![delivered], now).await.unwrap();
    world.pass(SECOND).await;
    assert_eq!(of(&world, "revoke"), 0, "the hook has not confirmed");
    world.pass(SECOND * 4).await;
    assert_eq!(of(&world, "revoke"), 1, "it is waited for 5 s at most");
    let notices = world.notices().await;
    let message = &notices.last().unwrap().message;
    assert!(
        message.contains("Not confirmed before the revocation: hook"),
        "{message}"
    );
    assert_eq!(of(&world, "issue"), 0);

    campaign(&world, CampaignAction::Release, None).await;
    world.pass(SECOND * 2).await;
    assert_eq!(world.record("bot-0000").await.state, State::Active);
    assert_eq!(of(&world, "issue"), 1);
}

#[tokio::test(start_paused = true)]
async fn six_failures_end_an_item_and_hurt_no_other() {
    let world = World::start(Setting::of(10)).await;
    world.pass(MINUTE).await;
    let poisoned = world.record("bot-0003").await.id.unwrap().to_string();
    let id = poisoned.clone();
    world.service.fail(move |call| {
        let hit = call.operation == "revoke" && call.id == id;
        hit.then_some(Fault::Status(400, "ValidationError", "No."))
    });
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
    world.pass(MINUTE * 2).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (9, 1));
    let calls = world.service.calls();
    let attempts = calls
        .iter()
        .filter(|c| c.operation == "revoke" && c.id == poisoned)
        .count();
    assert_eq!(attempts, 6);
    let items = world
        .store()
        .campaign_report(id, None, false, 100)
        .await
        .unwrap();
    let failed = items
        .iter()
        .find(|item| item.state == ItemState::Failed)
        .unwrap();
    assert!(failed.error.as_ref().unwrap().contains("ValidationError"));
    assert!(failed.request_id.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_no_item_and_sends_only_probes() {
    let world = World::start(Setting::of(40)).await;
    world.pass(MINUTE).await;
    world.service.forget_calls();
    world
        .service
        .fail(|call| (call.operation == "revoke").then_some(Fault::Connect));
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
    world.pass(MINUTE * 30).await;
    let calls = of(&world, "revoke");
    // What was in flight when it began, then probes 1 s to 30 s apart.
    assert!((50..=32 + 70).contains(&calls), "{calls}");
    world.service.mend();
    world.pass(MINUTE * 2).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (40, 0));
}

#[tokio::test(start_paused = true)]
async fn a_campaign_survives_kills_within_its_limit() {
    let mut setting = Setting::of(300);
    setting.resource.limits.revoke.calls = 100;
    let mut world = World::start(setting).await;
    world.pass(MINUTE).await;
    world.service.forget_calls();
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
    for _ in 0..4 {
        world.pass(SECOND * 7).await;
        world.kill().await;
        world.up().await;
    }
    world.pass(MINUTE * 4).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (300, 0));
    let most = busiest(&world.service.calls(), "revoke", SECOND * 30);
    assert!(most <= 97, "{most}");
    assert_eq!(world.service.without_live_token(), 0);
}

/// What was sent long before a kill counts as well, for as long as it is in the window.
#[tokio::test(start_paused = true)]
async fn calls_count_over_a_kill_until_they_have_left_the_window() {
    let mut setting = Setting::of(180);
    setting.resource.limits.revoke.calls = 100;
    let mut world = World::start(setting).await;
    world.pass(MINUTE).await;
    world.service.forget_calls();
    let all = nums(&world).await;
    for rows in all.chunks(60) {
        campaign_over(
            &world,
            rows.to_vec(),
            CampaignAction::Revoke,
            Some(Then::Hold),
        )
        .await;
        world.pass(SECOND * 8).await;
        world.kill().await;
        world.up().await;
    }
    world.pass(MINUTE * 3).await;
    assert_eq!(of(&world, "revoke"), 180);
    let most = busiest(&world.service.calls(), "revoke", SECOND * 30);
    assert!(most <= 97, "{most}");
}

#[tokio::test(start_paused = true)]
async fn deleting_ends_an_identity_for_ever() {
    let world = World::start(Setting::of(3)).await;
    world.pass(MINUTE).await;
    let id = campaign(&world, CampaignAction::Delete, None).await;
    world.pass(MINUTE).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (3, 0));
    assert_eq!(of(&world, "delete"), 3);
    world.pass(MINUTE * 60 * 30).await;
    assert_eq!(of(&world, "issue"), 0);
    let records = world.records().await;
    assert!(records.iter().all(|record| record.state == State::Deleted));
}

/// All tokens fall due in the same minute, and what ACS allows is just enough to renew them in time: a
/// campaign that begins then gets its tenth, and no token that it does not touch ever ends.
#[tokio::test(start_paused = true)]
async fn beside_a_campaign_no_renewal_misses_its_deadline() {
    const GUESTS: usize = 100;
    // Nine tenths of 97 % of the limit renew 540 tokens in 1,547 s, and half of their hour are 1,800.
    let mut setting = Setting::of(540);
    for (n, spec) in setting.specs.iter_mut().enumerate() {
        spec.declared.lifetime = MINUTE * 60;
        if n < GUESTS {
            spec.declared
                .labels
                .insert("team".to_owned(), "guest".to_owned());
        }
    }
    setting.resource.limits.issue.calls = 12;
    let world = World::start(setting).await;
    world.pass(MINUTE * 29).await;
    world.service.forget_calls();
    let records = world.records().await;
    let (guests, residents): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|record| record.spec.declared.labels.contains_key("team"));
    let rows = guests.iter().map(|record| record.num).collect();
    let id = campaign_over(&world, rows, CampaignAction::Revoke, Some(Then::Reissue)).await;
    for minute in 30..=75 {
        world.pass(MINUTE).await;
        let now = world.clock.now();
        let records = world.records().await;
        let dead = records.iter().filter(|record| {
            record.spec.declared.labels.is_empty()
                && record
                    .token
                    .as_ref()
                    .is_none_or(|token| token.expires_at <= now)
        });
        assert_eq!(dead.count(), 0, "after {minute} minutes");
        if minute == 50 {
            // 1,200 s of renewals that wait: a tenth of 0.388 a second.
            let revoked = of(&world, "revoke");
            assert!((40..=70).contains(&revoked), "{revoked}");
        }
    }
    assert_eq!(residents.len(), 540 - GUESTS);
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (GUESTS as u64, 0));
    let most = busiest(&world.service.calls(), "issue", SECOND * 30);
    assert!(most <= 12, "{most}");
}

/// What six of three hundred are refused with, whatever it is, the others are revoked all the same, and
/// these six fail by name.
async fn refused_alone(fault: Fault, count: usize, poisoned: usize) {
    let told = format!("{fault:?}");
    let world = World::start(Setting::of(count)).await;
    world.pass(MINUTE).await;
    let bad: BTreeSet<String> = some_ids(&world, poisoned).await;
    let victims = bad.clone();
    world.service.fail(move |call| {
        let hit = call.operation == "revoke" && victims.contains(&call.id);
        hit.then(|| fault.clone())
    });
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
    let window = count as u64 / 485 + 1;
    world
        .pass(SECOND * 30 * u32::try_from(window).unwrap())
        .await;
    let now = world.store().campaign(id).await.unwrap().unwrap();
    let healthy = (count - poisoned) as u64;
    assert_eq!(
        now.done, healthy,
        "{told}: the others wait for nobody: {now:?}"
    );
    world.pass(MINUTE * 2).await;
    let ended = world.store().campaign(id).await.unwrap().unwrap();
    assert!(ended.ended_at.is_some(), "{told}: {ended:?}");
    assert_eq!(failed_ids(&world, id).await, bad, "{told}");
    let calls = world.service.calls();
    let most = calls
        .iter()
        .filter(|call| call.operation == "revoke" && bad.contains(&call.id))
        .count();
    assert!(most <= poisoned * 10, "{told}: {most} calls");
}

/// Evenly chosen ids of the fleet.
async fn some_ids(world: &World, count: usize) -> BTreeSet<String> {
    let records = world.records().await;
    let every = records.len() / count;
    let chosen = records.iter().step_by(every).take(count);
    chosen
        .map(|record| record.id.as_ref().unwrap().to_string())
        .collect()
}

async fn failed_ids(world: &World, campaign: CampaignId) -> BTreeSet<String> {
    let lines = world
        .store()
        .campaign_report(campaign, None, true, 10_000)
        .await
        .unwrap();
    lines
        .iter()
        .map(|line| line.id.as_ref().unwrap().to_string())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_alone_holds_no_other_up_and_fails_by_name() {
    for fault in [
        Fault::Status(400, "ValidationError", "No."),
        Fault::Status(401, "Unauthorized", "Who?"),
        Fault::Status(403, "Forbidden", "No."),
        Fault::Status(404, "NotFound", "Not here."),
        Fault::Status(409, "Conflict", "No."),
        Fault::Status(500, "InternalError", "Sorry."),
        Fault::Status(502, "BadGateway", "Sorry."),
        Fault::Malformed,
        Fault::Panic,
    ] {
        refused_alone(fault, 300, 6).await;
    }
    refused_alone(Fault::Status(403, "Forbidden", "No."), 2000, 20).await;
}

/// One that alone is answered 429 holds the operation once, not for ever, and fails by name.
#[tokio::test(start_paused = true)]
async fn one_that_alone_is_answered_429_holds_no_campaign_up() {
    let world = World::start(Setting::of(300)).await;
    world.pass(MINUTE).await;
    let bad = some_ids(&world, 1).await;
    let victims = bad.clone();
    world.service.fail(move |call| {
        let hit = call.operation == "revoke" && victims.contains(&call.id);
        hit.then_some(Fault::Throttle(5))
    });
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
    world.pass(MINUTE).await;
    let now = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!(now.done, 299, "{now:?}");
    world.pass(MINUTE * 3).await;
    assert_eq!(failed_ids(&world, id).await, bad);
}

/// Nobody else waits who could say whether it is the service or this one, and nobody ever did.
#[tokio::test(start_paused = true)]
async fn one_that_is_refused_with_nobody_beside_it_fails_too() {
    let mut faults = POISONS.to_vec();
    faults.extend([
        Fault::Status(408, "RequestTimeout", "No."),
        Fault::Status(503, "Unavailable", "Later."),
        Fault::Throttle(5),
        Fault::Reset,
        Fault::Hang,
    ]);
    for fault in faults {
        for (fleet, action) in [
            (3, CampaignAction::Revoke),
            (1, CampaignAction::Revoke),
            (1, CampaignAction::Delete),
        ] {
            let told = format!("{action:?} of {fleet}: {fault:?}");
            let world = World::start(Setting::of(fleet)).await;
            world.pass(MINUTE).await;
            let row = world.record("bot-0000").await;
            let bad = row.id.unwrap().to_string();
            let fault = fault.clone();
            world.service.fail(move |call| {
                (call.operation != "issue" && call.id == bad).then(|| fault.clone())
            });
            let then = (action == CampaignAction::Revoke).then_some(Then::Hold);
            let id = campaign_over(&world, vec![row.num], action, then).await;
            // Calls that hang take thirty seconds each.
            world.pass(MINUTE * 12).await;
            let ended = world.store().campaign(id).await.unwrap().unwrap();
            let gone = told.contains("404") && action == CampaignAction::Delete;
            let failed = u64::from(!gone);
            assert_eq!(
                (ended.failed, ended.left()),
                (failed, 0),
                "{told}: {ended:?}"
            );
        }
    }
}

/// The last calls before the proof of an outage failed for it, too.
#[tokio::test(start_paused = true)]
async fn what_preceded_the_proof_of_an_outage_is_taken_back() {
    let world = World::start(Setting::of(40)).await;
    world.pass(MINUTE).await;
    let (clock, from) = (world.clock.clone(), world.clock.steady());
    let bad: Vec<String> = some_ids(&world, 2).await.into_iter().collect();
    // One outage after another, each a little longer than its proof; between them all is well but for two.
    world.service.fail(move |call| {
        if call.operation != "revoke" {
            return None;
        }
        let passed = (clock.steady() - from).as_secs();
        let down = passed < 600 && passed % 20 < 14;
        (down || bad.contains(&call.id)).then_some(Fault::Status(500, "InternalError", "Sorry."))
    });
    let mut setting_rows = nums(&world).await;
    setting_rows.truncate(40);
    let id = campaign_over(
        &world,
        setting_rows,
        CampaignAction::Revoke,
        Some(Then::Hold),
    )
    .await;
    world.pass(MINUTE * 20).await;
    let ended = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((ended.done, ended.failed), (38, 2), "{ended:?}");
}

/// Seven of ten calls fail, whoever they are for: nobody is to blame.
#[tokio::test(start_paused = true)]
async fn a_brown_out_quarantines_nobody() {
    for seed in 0..5 {
        let world = World::start(Setting::of(200)).await;
        world.pass(MINUTE).await;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (clock, until) = (world.clock.clone(), world.clock.steady() + MINUTE * 10);
        world.service.fail(move |call| {
            let hit = call.operation == "revoke" && clock.steady() < until && rng.random_bool(0.7);
            hit.then_some(Fault::Status(500, "InternalError", "Sorry."))
        });
        let id = campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
        world.pass(MINUTE * 15).await;
        let ended = world.store().campaign(id).await.unwrap().unwrap();
        assert_eq!((ended.done, ended.failed), (200, 0), "{seed}: {ended:?}");
    }
}

/// An outage of one operation is none of the other: deletions that wait hold no revocation up.
#[tokio::test(start_paused = true)]
async fn deletions_that_wait_hold_no_revocation_up() {
    let world = World::start(Setting::of(400)).await;
    world.pass(MINUTE).await;
    world
        .service
        .fail(|call| (call.operation == "delete").then_some(Fault::Connect));
    let all = nums(&world).await;
    let first = campaign_over(&world, all[..300].to_vec(), CampaignAction::Delete, None).await;
    world.pass(SECOND * 10).await;
    let then = Some(Then::Hold);
    let second = campaign_over(&world, all[300..].to_vec(), CampaignAction::Revoke, then).await;
    world.pass(SECOND * 20).await;
    let revoked = world.store().campaign(second).await.unwrap().unwrap();
    assert_eq!(revoked.done, 100, "{revoked:?}");
    world.service.mend();
    world.pass(MINUTE * 2).await;
    let deleted = world.store().campaign(first).await.unwrap().unwrap();
    assert_eq!((deleted.done, deleted.failed), (300, 0), "{deleted:?}");
}

/// A list of names that never came whole ends by itself and costs nothing meanwhile; a new runner, which a
/// reload starts, cancels none that is being brought.
#[tokio::test(start_paused = true)]
async fn a_list_that_broke_off_ends_by_itself_and_one_that_comes_is_left_alone() {
    let mut world = World::start(Setting::of(6)).await;
    world.pass(MINUTE).await;
    let rows: Vec<Wanted> = nums(&world).await.into_iter().map(Wanted::Row).collect();
    let cause = Cause::ours("drill");
    let new = NewCampaign::new(CampaignAction::Hold, None, Target::Later, cause);
    let now = || world.clock.now();
    let broken = world
        .store()
        .create_campaign(new.clone(), now())
        .await
        .unwrap();
    let coming = world.store().create_campaign(new, now()).await.unwrap();
    world
        .store()
        .add_items(broken, rows[..2].to_vec(), now())
        .await
        .unwrap();
    for row in &rows {
        world
            .store()
            .add_items(coming, vec![row.clone()], now())
            .await
            .unwrap();
        world.pass(SECOND * 15).await;
    }
    let ended = world.store().campaign(broken).await.unwrap().unwrap();
    assert_eq!(ended.state, CampaignState::Cancelled, "{ended:?}");
    assert!(ended.ended_at.is_some());
    let late = world.store().add_items(broken, rows.clone(), now()).await;
    assert!(late.unwrap_err().to_string().contains("ended"));
    let sealed = world
        .store()
        .seal_campaign(broken, "6 named".to_owned(), now())
        .await;
    assert!(sealed.is_err(), "nobody is told that it runs");
    world.down().await.unwrap();
    world.up().await;
    world.pass(SECOND * 5).await;
    let now = world.clock.now();
    world
        .store()
        .seal_campaign(coming, "6 named".to_owned(), now)
        .await
        .unwrap();
    world.pass(SECOND * 10).await;
    let done = world.store().campaign(coming).await.unwrap().unwrap();
    assert_eq!(
        (done.state, done.done),
        (CampaignState::Done, 6),
        "{done:?}"
    );
}

/// What was called and refused is neither pending nor under way when its campaign is cancelled.
#[tokio::test(start_paused = true)]
async fn a_campaign_that_is_cancelled_ends_whatever_its_items_wait_for() {
    let world = World::start(Setting::of(5)).await;
    world.pass(MINUTE).await;
    world
        .service
        .fail(|call| (call.operation == "revoke").then_some(Fault::Status(400, "Invalid", "No.")));
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
    world.pass(SECOND * 3).await;
    let cause = Cause::ours("drill");
    let now = world.clock.now();
    assert!(
        world
            .store()
            .cancel_campaign(id, &cause, now)
            .await
            .unwrap()
    );
    world.pass(SECOND * 10).await;
    let ended = world.store().campaign(id).await.unwrap().unwrap();
    assert!(ended.ended_at.is_some(), "{ended:?}");
    assert_eq!((ended.cancelled, ended.left()), (5, 0), "{ended:?}");
}

/// Revoked, and the token that is to follow does not come: the others go on, and it is told.
#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_follow_holds_no_campaign_up() {
    for fault in [
        Fault::Status(403, "Forbidden", "No."),
        Fault::Status(400, "ValidationError", "No."),
    ] {
        let told = format!("{fault:?}");
        let mut setting = Setting::of(60);
        setting.resource.limits.issue.calls = 20;
        let world = World::start(setting).await;
        world.pass(MINUTE * 5).await;
        let bad = some_ids(&world, 4).await;
        let victims = bad.clone();
        world.service.fail(move |call| {
            let hit = call.operation == "issue" && victims.contains(&call.id);
            hit.then(|| fault.clone())
        });
        let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
        world.pass(MINUTE * 40).await;
        let ended = world.store().campaign(id).await.unwrap().unwrap();
        assert!(ended.ended_at.is_some(), "{told}: {ended:?}");
        assert_eq!(
            (ended.done, ended.undelivered),
            (56, 4),
            "{told}: {ended:?}"
        );
    }
}

/// ACS does not know it any more: its token is withdrawn as anywhere else.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_withdrawn_by_a_revocation_too() {
    let world = World::start(Setting::of(300)).await;
    world.pass(MINUTE).await;
    let row = world.record("bot-0042").await;
    let (gone, before) = (row.id.unwrap().to_string(), row.version);
    world.service.fail(move |call| {
        let message = "Provided identity doesn't exist.";
        (call.id == gone).then_some(Fault::Status(404, "IdentityNotFound", message))
    });
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
    world.pass(MINUTE).await;
    let row = world.record("bot-0042").await;
    assert_eq!(row.state, State::Gone);
    assert!(row.version > before && row.token.is_none());
    let ended = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((ended.done, ended.failed), (299, 1), "{ended:?}");
    let news = world.news().await;
    assert_eq!(
        news.iter().filter(|kind| *kind == "identity.gone").count(),
        1
    );
}

const POISONS: [Fault; 8] = [
    Fault::Status(400, "ValidationError", "No."),
    Fault::Status(401, "Unauthorized", "Who?"),
    Fault::Status(403, "Forbidden", "No."),
    Fault::Status(404, "NotFound", "Not here."),
    Fault::Status(409, "Conflict", "No."),
    Fault::Status(500, "InternalError", "Sorry."),
    Fault::Status(502, "BadGateway", "Sorry."),
    Fault::Malformed,
];

/// One random campaign over a random fleet with random poisoned items, each with a status of its own, and
/// perhaps an outage in the middle.
async fn a_random_campaign(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = rng.random_range(1..40);
    let world = World::start(Setting::of(count)).await;
    world.pass(SECOND * 20).await;
    let share = rng.random_range(0.0..0.4);
    let ids = some_ids(&world, count).await;
    let bad: BTreeMap<String, Fault> = ids
        .into_iter()
        .filter_map(|id| {
            let fault = &POISONS[rng.random_range(0..POISONS.len())];
            rng.random_bool(share).then(|| (id, fault.clone()))
        })
        .collect();
    let (action, then) = match rng.random_range(0..3) {
        0 => (CampaignAction::Delete, None),
        1 => (CampaignAction::Revoke, Some(Then::Hold)),
        _ => (CampaignAction::Revoke, Some(Then::Reissue)),
    };
    // Nobody is left to be deleted where ACS does not know it.
    let is_poisoned = |fault: &Fault| {
        let unknown = matches!(fault, Fault::Status(404, ..));
        !unknown || action != CampaignAction::Delete
    };
    let bad: BTreeMap<String, Fault> = bad
        .into_iter()
        .filter(|(_, fault)| is_poisoned(fault))
        .collect();
    let (clock, from) = (world.clock.clone(), world.clock.steady());
    let outage = rng.random_bool(0.3).then(|| rng.random_range(0..20));
    let poisoned = bad.clone();
    world.service.fail(move |call| {
        let passed = (clock.steady() - from).as_secs();
        if outage.is_some_and(|begins| (begins..begins + 90).contains(&passed)) {
            return Some(Fault::Status(503, "Unavailable", "Later."));
        }
        let hit = call.operation != "issue";
        poisoned.get(&call.id).filter(|_| hit).cloned()
    });
    let id = campaign(&world, action, then).await;
    world.pass(MINUTE * 8).await;
    let ended = world.store().campaign(id).await.unwrap().unwrap();
    let told = format!("seed {seed}: {} poisoned, {ended:?}", bad.len());
    assert!(ended.ended_at.is_some(), "{told}");
    let healthy = (count - bad.len()) as u64;
    assert_eq!(ended.done, healthy, "{told}");
    let failed: BTreeSet<String> = bad.into_keys().collect();
    assert_eq!(failed_ids(&world, id).await, failed, "{told}");
}

#[tokio::test(start_paused = true)]
async fn every_campaign_ends_and_names_what_was_poisoned() {
    for seed in 0..200 {
        a_random_campaign(seed).await;
    }
}

/// Nobody else waits for a token who could say whether it is the service or these.
#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_follow_is_told_although_nobody_else_waits_for_one() {
    for (status, count) in [(500, 1), (500, 3), (403, 1), (403, 3)] {
        let told = format!("{count} of {status}");
        let world = World::start(Setting::of(20)).await;
        world.pass(MINUTE * 5).await;
        let bad = some_ids(&world, count).await;
        let victims = bad.clone();
        world.service.fail(move |call| {
            let hit = call.operation == "issue" && victims.contains(&call.id);
            hit.then_some(Fault::Status(status, "Odd", "No."))
        });
        let rows = world.records().await.into_iter();
        let rows = rows.filter(|row| bad.contains(row.id.as_ref().unwrap().as_str()));
        let rows = rows.map(|row| row.num).collect();
        let id = campaign_over(&world, rows, CampaignAction::Revoke, Some(Then::Reissue)).await;
        world.pass(MINUTE * 20).await;
        let ended = world.store().campaign(id).await.unwrap().unwrap();
        let (left, undelivered) = (ended.left(), ended.undelivered);
        assert_eq!((left, undelivered), (0, count as u64), "{told}: {ended:?}");
    }
}

/// More tokens that do not follow than may be awaited at once: the others are revoked all the same.
#[tokio::test(start_paused = true)]
async fn tokens_that_do_not_follow_leave_the_others_room() {
    let mut setting = Setting::of(80);
    setting.resource.limits.issue.calls = 20;
    let world = World::start(setting).await;
    world.pass(MINUTE * 5).await;
    let records = world.records().await;
    // These are taken first, and are twice as many as tokens may be awaited.
    let bad: BTreeSet<String> = records[..20]
        .iter()
        .map(|record| record.id.as_ref().unwrap().to_string())
        .collect();
    world.service.fail(move |call| {
        let hit = call.operation == "issue" && bad.contains(&call.id);
        hit.then_some(Fault::Status(403, "Forbidden", "No."))
    });
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
    world.pass(MINUTE * 15).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.pending), (60, 0), "{told:?}");
}

/// What is given up while most calls fail is tried again when they do no more, without anybody's word.
#[tokio::test(start_paused = true)]
async fn what_was_given_up_in_a_brown_out_is_tried_again_when_it_is_over() {
    for restarts in [false, true] {
        given_up_in_a_brown_out(restarts).await;
    }
}

async fn given_up_in_a_brown_out(restarts: bool) {
    let mut world = World::start(Setting::of(60)).await;
    world.pass(MINUTE).await;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (clock, until) = (world.clock.clone(), world.clock.steady() + MINUTE * 40);
    let bad: Vec<String> = some_ids(&world, 12).await.into_iter().collect();
    world.service.fail(move |call| {
        // A part of the fleet has it worse than the rest.
        let share = if bad.contains(&call.id) { 0.99 } else { 0.6 };
        let hit = call.operation == "revoke" && clock.steady() < until && rng.random_bool(share);
        hit.then_some(Fault::Status(409, "Conflict", "No."))
    });
    let id = campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
    let mut given_up = 0;
    for _ in 0..40 {
        world.pass(MINUTE).await;
        let told = world.store().campaign(id).await.unwrap().unwrap();
        given_up = given_up.max(told.failed);
    }
    assert!(given_up > 0, "or nothing is shown here");
    if restarts {
        world.kill().await;
        world.up().await;
    }
    world.pass(MINUTE * 60).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (60, 0), "{told:?}");
}

/// The answers to deletions are lost, and ACS does not know whom it deleted: that is no sign of another resource.
#[tokio::test(start_paused = true)]
async fn what_was_deleted_although_the_answer_was_lost_is_held_for_nobody() {
    let world = World::start(Setting::of(12)).await;
    world.service.tokens_live(MINUTE * 4);
    world.pass(MINUTE).await;
    world
        .service
        .fail(|call| (call.operation == "delete").then_some(Fault::Reset));
    let all = nums(&world).await;
    let id = campaign_over(&world, all[..8].to_vec(), CampaignAction::Delete, None).await;
    world.pass(MINUTE * 10).await;
    world.service.mend();
    world.pass(MINUTE * 3).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (8, 0), "{told:?}");
    let news = world.news().await;
    assert!(!news.contains(&"gone.held".to_owned()), "{news:?}");
    assert_eq!(world.store().held_gone().await.unwrap(), []);
}

/// An outage of what campaigns call is seen by everybody.
#[tokio::test(start_paused = true)]
async fn an_outage_of_revocations_is_published() {
    let world = World::start(Setting::of(10)).await;
    world.pass(MINUTE).await;
    world
        .service
        .fail(|call| (call.operation == "revoke").then_some(Fault::Connect));
    campaign(&world, CampaignAction::Revoke, Some(Then::Hold)).await;
    world.pass(MINUTE).await;
    let view = world.view();
    let probing = |name: &str| matches!(view.health.get(name), Some(HealthView::Probing { .. }));
    assert!(probing("revoke") && !probing("issue"), "{:?}", view.health);
    world.service.mend();
    world.pass(MINUTE).await;
    assert_eq!(world.view().health.get("revoke"), Some(&HealthView::Open));
}

/// Many that fail for good are told in few notices; a deletion that failed is told, and told to be done when
/// it is after all.
#[tokio::test(start_paused = true)]
async fn orders_that_failed_are_told_in_few_notices_and_told_to_be_done() {
    let world = World::start(Setting::of(200)).await;
    world.pass(MINUTE).await;
    let bad = some_ids(&world, 40).await;
    let victims = bad.clone();
    world.service.fail(move |call| {
        let hit = call.operation == "delete" && victims.contains(&call.id);
        hit.then_some(Fault::Status(409, "Conflict", "No."))
    });
    let id = campaign(&world, CampaignAction::Delete, None).await;
    world.pass(MINUTE * 5).await;
    let told = world.store().campaign(id).await.unwrap().unwrap();
    assert_eq!((told.done, told.failed), (160, 40), "{told:?}");
    let news = world.news().await;
    let count = |kind: &str| news.iter().filter(|one| *one == kind).count();
    assert!((11..=14).contains(&count("order.failed")), "{news:?}");
    assert_eq!(count("order.done"), 0, "what never failed is not told");
    world.service.mend();
    let (cause, now) = (Cause::ours("drill"), world.clock.now());
    world.store().retry_campaign(id, &cause, now).await.unwrap();
    world.pass(MINUTE).await;
    let open = world.store().open_notices().await.unwrap();
    assert!(
        !open.keys().any(|key| key.starts_with("order ")),
        "{open:?}"
    );
}

/// The store does not answer for a moment, just when items are looked for or followed: that is done again, although nobody
/// says anything more.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_looked_for_is_looked_for_again() {
    for after in (0..40).map(|n| Duration::from_millis(n * 25)) {
        let world = World::start(Setting::of(5)).await;
        world.pass(MINUTE).await;
        let link = Link::carried(world.clock.clone(), || Duration::from_millis(10));
        world.store().reached_by(link.clone());
        let id = campaign(&world, CampaignAction::Revoke, Some(Then::Reissue)).await;
        world.pass(after).await;
        link.cut(true);
        world.pass(SECOND * 5).await;
        link.cut(false);
        world.pass(MINUTE * 3).await;
        let told = world.store().campaign(id).await.unwrap().unwrap();
        assert!(told.ended_at.is_some(), "{after:?}: {told:?}");
    }
}
