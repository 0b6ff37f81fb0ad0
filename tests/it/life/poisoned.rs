//! Random fleets in which some identities fail for ever, each in its own way, and fleets whose service
//! fails at random: no healthy identity pays for it, each that fails by itself is named, and where all
//! fail alike nobody is.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use renewd::model::{Record, State};

use super::{
    HOUR, MINUTE, SECOND,
    service::{Fault, NOBODY},
    world::{Setting, World},
};

/// Seeds of the property; each is a life of its own.
const SEEDS: u64 = 12;

fn faults() -> Vec<Fault> {
    let no = "No.";
    vec![
        Fault::Status(400, "ValidationError", no),
        Fault::Status(401, "SomethingElse", no),
        Fault::Status(403, "Forbidden", no),
        Fault::Status(404, "NotFound", no),
        Fault::Status(408, "RequestTimeout", no),
        Fault::Status(409, "Conflict", no),
        Fault::Status(500, "InternalError", "Sorry."),
        Fault::Status(502, "BadGateway", "Sorry."),
        Fault::Status(503, "Unavailable", "Later."),
        Fault::Malformed,
        Fault::Hang,
        Fault::Reset,
    ]
}

fn is_dead(record: &Record, world: &World) -> bool {
    let now = world.clock.now();
    let token = record.token.as_ref();
    token.is_none_or(|token| token.expires_at <= now)
}

/// A fleet whose tokens live for an hour, and a part of it that fails from then on.
async fn poisoned_fleet(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = rng.random_range(12..40);
    let mut setting = Setting::of(count);
    setting.seed = seed;
    setting
        .specs
        .iter_mut()
        .for_each(|spec| spec.lifetime = HOUR);
    let world = World::start(setting).await;
    world.pass(MINUTE * rng.random_range(2..20)).await;
    let mut ids: Vec<String> = world
        .records()
        .await
        .into_iter()
        .map(|record| record.id.unwrap().to_string())
        .collect();
    ids.shuffle(&mut rng);
    let poisoned: BTreeSet<String> = ids[..rng.random_range(1..=count / 6)]
        .iter()
        .cloned()
        .collect();
    let mut kinds = faults();
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(1..=3));
    let told = format!("seed {seed}: {} of {count} by {kinds:?}", poisoned.len());
    let sick = poisoned.clone();
    world.service.fail(move |call| {
        let at = sick.iter().position(|id| *id == call.id)?;
        Some(kinds[at % kinds.len()].clone())
    });
    let is_sick = |record: &Record| poisoned.contains(record.id.as_ref().unwrap().as_str());
    for _ in 0..12 * 5 {
        world.pass(MINUTE * 5).await;
        for record in world.records().await {
            let spared = is_sick(&record) || !is_dead(&record, &world);
            assert!(spared, "{told}: {} is dead", record.spec.name);
        }
    }
    for record in world.records().await {
        let named = record.failing_since.is_some() || record.state == State::Gone;
        let why = (&record.spec.name, &record.attempts);
        assert_eq!(named, is_sick(&record), "{told}: {why:?}");
    }
    is_well_again(&world, &told).await;
}

/// All is mended: nobody fails any more.
async fn is_well_again(world: &World, told: &str) {
    let news = world.news().await;
    assert!(
        !news.contains(&"key.rejected".to_owned()),
        "{told}: {news:?}"
    );
    world.service.mend();
    world.pass(HOUR * 2).await;
    for record in world.records().await {
        let gone = record.state == State::Gone;
        assert!(gone || !is_dead(&record, world), "{told}");
        assert_eq!(record.failing_since, None, "{told}");
    }
    let open = world.store().open_notices().await.unwrap();
    let open: Vec<_> = open
        .iter()
        .filter(|(_, kind)| kind.as_str() != "identity.gone")
        .collect();
    assert!(
        open.is_empty(),
        "{told}: told and not told to be over: {open:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_healthy_identity_pays_for_one_that_fails_and_each_of_those_is_named() {
    for seed in 0..SEEDS {
        poisoned_fleet(seed).await;
    }
}

/// A service that fails at random, for everybody alike.
async fn brown_out(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = rng.random_range(5..40);
    let mut setting = Setting::of(count);
    setting.seed = seed;
    setting
        .specs
        .iter_mut()
        .for_each(|spec| spec.lifetime = HOUR);
    let world = World::start(setting).await;
    world.pass(MINUTE * 10).await;
    let share = rng.random_range(0.2..0.7);
    let kinds = faults();
    let kind = kinds[rng.random_range(0..kinds.len())].clone();
    let told = format!("seed {seed}: {count} at {share:.2} by {kind:?}");
    world
        .service
        .fail(move |_| (rng.random::<f64>() < share).then(|| kind.clone()));
    for _ in 0..4 * 12 {
        world.pass(MINUTE * 5).await;
        for record in world.records().await {
            assert_eq!(record.failing_since, None, "{told}: {:?}", record.attempts);
            assert!(!is_dead(&record, &world), "{told}: {:?}", record.attempts);
        }
    }
    let news = world.news().await;
    assert!(news.len() <= 40, "{told}: {} notices {news:?}", news.len());
    world.service.mend();
    world.pass(HOUR).await;
    assert_eq!(world.service.without_live_token(), 0, "{told}");
}

#[tokio::test(start_paused = true)]
async fn where_all_fail_alike_nobody_is_to_blame() {
    for seed in 0..SEEDS {
        brown_out(seed).await;
    }
}

/// One in sixty is forbidden for ever, or three in three hundred answer 500: nothing is held for them.
#[tokio::test(start_paused = true)]
async fn a_few_that_fail_for_ever_shut_nothing() {
    let cases = [
        (60, 1, Fault::Status(403, "Forbidden", "No.")),
        (300, 3, Fault::Status(500, "InternalError", "Sorry.")),
    ];
    for (count, few, fault) in cases {
        let mut setting = Setting::of(count);
        setting
            .specs
            .iter_mut()
            .for_each(|spec| spec.lifetime = HOUR);
        let world = World::start(setting).await;
        world.service.tokens_live(MINUTE * 3);
        world.pass(MINUTE).await;
        let records = world.records().await;
        let sick: BTreeSet<String> = records[..few]
            .iter()
            .map(|record| record.id.as_ref().unwrap().to_string())
            .collect();
        let told = format!("{few} of {count}: {fault:?}");
        world
            .service
            .fail(move |call| sick.contains(&call.id).then(|| fault.clone()));
        for _ in 0..20 * 12 {
            world.pass(SECOND * 5).await;
            assert!(world.service.without_live_token() <= few, "{told}");
        }
        let news = world.news().await;
        let blamed =
            |kind: &&String| matches!(kind.as_str(), "key.rejected" | "resource.unreachable");
        assert_eq!(news.iter().filter(blamed).count(), 0, "{told}: {news:?}");
        let failing = news.iter().filter(|kind| *kind == "identity.failing");
        assert_eq!(failing.count(), few, "{told}: {news:?}");
    }
}

/// Where nobody else waits, the question is put by a call that makes nothing.
#[tokio::test(start_paused = true)]
async fn a_lone_identity_is_told_from_its_resource_by_a_harmless_call() {
    for forbidden in [true, false] {
        let world = World::start(Setting::of(1)).await;
        world.service.tokens_live(HOUR);
        world.pass(MINUTE * 20).await;
        let status = if forbidden { 403 } else { 500 };
        world.service.fail(move |call| {
            (!call.id.starts_with(NOBODY)).then_some(Fault::Status(status, "Odd", "No."))
        });
        world.pass(HOUR * 5).await;
        assert!(world.record("bot-0000").await.failing_since.is_some());
        let news = world.news().await;
        assert!(news.contains(&"identity.failing".to_owned()), "{news:?}");
        assert!(!news.contains(&"key.rejected".to_owned()), "{news:?}");
        assert!(
            !news.contains(&"resource.unreachable".to_owned()),
            "{news:?}"
        );
        let minted = world.service.calls();
        assert!(minted.iter().any(|call| call.id.starts_with(NOBODY)));
    }
}
