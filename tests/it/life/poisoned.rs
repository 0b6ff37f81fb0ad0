//! Random fleets in which some identities fail for ever, each in its own way, and fleets whose service
//! fails at random: no healthy identity pays for it, each that fails by itself is named, and where all
//! fail alike nobody is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::SignedDuration;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use renewd::{
    model::{HealthView, Record, Scope, State, Then, Timestamp},
    store::{CampaignAction, CampaignId, Cause},
};

use super::{
    HOUR, MINUTE, SECOND,
    campaigns::campaign_over,
    service::{Fault, NOBODY},
    world::{Setting, World},
};

/// Seeds of the first property; each is a life of its own.
fn seeds() -> u64 {
    match std::env::var("RENEWD_TEST_SCALE").as_deref() {
        Ok("soak") => 2000,
        _ => 200,
    }
}

/// Seeds of the second.
const BROWN_OUTS: u64 = 12;
/// A token lives so long in the first …
const TOKEN: Duration = Duration::from_mins(6);
/// … and a fleet.
const LIFE: Duration = Duration::from_mins(40);
/// One fleet of so many is watched until all is well again.
const SOME: u64 = 4;
/// Between two looks at a fleet.
const LOOK: Duration = Duration::from_secs(30);
/// Who is healthy has a live token so long after an outage.
const BACK: Duration = Duration::from_mins(2);

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
        Fault::Throttle(20),
        Fault::Malformed,
        Fault::Hang,
        Fault::Reset,
    ]
}

fn is_dead(record: &Record, world: &World) -> bool {
    let token = record.token.as_ref();
    // By the service's clock, which nobody sets back.
    let began: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    token.is_none_or(|token| token.expires_at <= began + world.clock.steady())
}

/// What befalls a random fleet: parts of it fail for ever, whatever is asked for, from their creation or from
/// some time on; the service is down for a while; the daemon ends and starts; people revoke or delete a part; the wall clock is set
/// back.
#[derive(Debug)]
struct Fate {
    seed: u64,
    count: usize,
    /// Names whose creation fails, and how. They ask for another scope, by which the service knows them.
    unborn: Option<(BTreeSet<String>, Fault)>,
    /// Names whose tokens are refused, and how.
    sick: BTreeMap<String, Fault>,
    sick_from: Duration,
    outage: Option<(Duration, Duration, Fault)>,
    /// When the daemon ends, and whether by `kill -9`.
    ends: Vec<(Duration, bool)>,
    order: Option<Ordered>,
    /// When the wall clock is set back, and by how much.
    set_back: Option<(Duration, SignedDuration)>,
}

/// What people order.
#[derive(Debug)]
struct Ordered {
    at: Duration,
    action: CampaignAction,
    then: Option<Then>,
    names: BTreeSet<String>,
}

impl Ordered {
    fn of(count: usize, rng: &mut ChaCha8Rng) -> Self {
        let (action, then) = match rng.random_range(0..3) {
            0 => (CampaignAction::Delete, None),
            1 => (CampaignAction::Revoke, Some(Then::Hold)),
            _ => (CampaignAction::Revoke, Some(Then::Reissue)),
        };
        let all = (0..count).map(|n| format!("bot-{n:04}"));
        Self {
            at: SECOND * rng.random_range(180..900),
            action,
            then,
            names: all.filter(|_| rng.random_bool(0.4)).collect(),
        }
    }

    async fn begin(&self, world: &World) -> CampaignId {
        let records = world.records().await.into_iter();
        let named = records.filter(|record| self.names.contains(record.spec.name.as_str()));
        let rows = named.map(|record| record.num).collect();
        campaign_over(world, rows, self.action, self.then).await
    }

    /// The order has ended, and names whom it did not reach.
    async fn has_ended(&self, world: &World, id: CampaignId, fate: &Fate) {
        let ended = world.store().campaign(id).await.unwrap().unwrap();
        assert!(ended.ended_at.is_some(), "{fate:?}: {ended:?}");
        let lines = world.store().campaign_report(id, None, true, 100).await;
        let lines = lines.unwrap().into_iter();
        let failed: BTreeSet<String> = lines
            .filter_map(|line| Some(line.name?.to_string()))
            .collect();
        let reaches = |name: &&String| match (fate.sick.get(*name), self.action) {
            // Nobody is left to be deleted where ACS does not know it.
            (Some(Fault::Status(404, ..)), CampaignAction::Delete) => true,
            (Some(_), _) => false,
            // Without an id nothing can be deleted; and there is nothing that could be revoked.
            (None, action) => !fate.is_unborn(name) || action != CampaignAction::Delete,
        };
        let (_, missed): (Vec<&String>, Vec<&String>) = self.names.iter().partition(reaches);
        let missed: BTreeSet<String> = missed.into_iter().cloned().collect();
        assert_eq!(failed, missed, "{fate:?}: {ended:?}");
    }
}

impl Fate {
    fn of(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = rng.random_range(6..14);
        let mut names: Vec<String> = (0..count).map(|n| format!("bot-{n:04}")).collect();
        names.shuffle(&mut rng);
        let mut kinds = faults();
        kinds.shuffle(&mut rng);
        let mut kinds = kinds.into_iter();
        // A 429 never counts by itself, and nobody else is created later who could tell more.
        let mut creation = kinds
            .clone()
            .filter(|kind| !matches!(kind, Fault::Throttle(_)));
        let unborn = rng.random_bool(0.4).then(|| {
            let some = names.split_off(names.len() - rng.random_range(1..=2));
            (some.into_iter().collect(), creation.next().unwrap())
        });
        let some = names.len() - rng.random_range(1..=names.len() / 4);
        let sick = names.split_off(some);
        let fault = |name| (name, kinds.next().unwrap());
        let sick = sick.into_iter().map(fault).collect();
        let outage = rng.random_bool(0.4).then(|| {
            let from = SECOND * rng.random_range(180..600);
            let kinds = [
                Fault::Connect,
                Fault::Hang,
                Fault::Reset,
                Fault::Status(503, "Unavailable", "Later."),
            ];
            let kind = kinds[rng.random_range(0..kinds.len())].clone();
            (from, from + SECOND * rng.random_range(15..500), kind)
        });
        let ends = match rng.random_bool(0.5) {
            true => rng.random_range(1..3),
            false => 0,
        };
        let mut ends: Vec<(Duration, bool)> = (0..ends)
            .map(|_| (SECOND * rng.random_range(30..1200), rng.random_bool(0.5)))
            .collect();
        ends.sort();
        let order = rng.random_bool(0.7).then(|| Ordered::of(count, &mut rng));
        let set_back = rng.random_bool(0.3).then(|| {
            let by = SignedDuration::from_secs(rng.random_range(30..90_000));
            (SECOND * rng.random_range(60..1500), by)
        });
        Self {
            seed,
            count,
            unborn,
            sick,
            sick_from: SECOND * rng.random_range(15..150),
            outage,
            ends,
            order,
            set_back,
        }
    }

    fn setting(&self) -> Setting {
        let mut setting = Setting::of(self.count);
        setting.seed = self.seed;
        for spec in &mut setting.specs {
            spec.declared.lifetime = HOUR;
            if self.is_unborn(spec.name.as_str()) {
                spec.declared.scopes = vec![Scope::Voip];
            }
        }
        setting
    }

    fn is_unborn(&self, name: &str) -> bool {
        let unborn = self.unborn.as_ref();
        unborn.is_some_and(|(names, _)| names.contains(name))
    }

    fn is_poisoned(&self, record: &Record) -> bool {
        let name = record.spec.name.as_str();
        self.is_unborn(name) || self.sick.contains_key(name)
    }

    /// Whether somebody ordered that it has no token, so that nothing is asked for it any more.
    fn is_withdrawn(&self, record: &Record) -> bool {
        let ordered = |order: &Ordered| order.names.contains(record.spec.name.as_str());
        let withdrawn = matches!(record.state, State::Held | State::Deleted);
        withdrawn && self.order.as_ref().is_some_and(ordered)
    }

    /// Whether a healthy identity may be without a live token now.
    fn excuses(&self, passed: Duration) -> bool {
        let outage = self.outage.as_ref();
        outage.is_some_and(|(from, until, _)| (*from..*until + BACK).contains(&passed))
    }

    /// Tells the service what to do from now on.
    async fn befall(&self, world: &World) {
        let ids = world.records().await.into_iter().filter_map(|record| {
            let fault = self.sick.get(record.spec.name.as_str())?;
            Some((record.id?.to_string(), fault.clone()))
        });
        let ids: BTreeMap<String, Fault> = ids.collect();
        let (clock, from) = (world.clock.clone(), self.sick_from);
        let (outage, unborn) = (self.outage.clone(), self.unborn.clone());
        world.service.fail(move |call| {
            let now = clock.steady();
            if let Some((from, until, kind)) = &outage
                && (*from..*until).contains(&now)
            {
                return Some(kind.clone());
            }
            if call.operation == "create" && call.body.contains("voip") {
                return unborn.as_ref().map(|(_, kind)| kind.clone());
            }
            ids.get(&call.id).filter(|_| now >= from).cloned()
        });
    }
}

/// What was called since an instant, for eyes.
fn calls_since(world: &World, since: Duration) -> String {
    let calls = world.service.calls().into_iter();
    let recent = calls.filter(|call| call.at >= since);
    let lines = recent.map(|call| format!("\n{:?} {} {}", call.at, call.operation, call.id));
    lines.collect()
}

async fn poisoned_fleet(seed: u64) {
    let fate = Fate::of(seed);
    let mut world = World::start(fate.setting()).await;
    world.service.tokens_live(TOKEN);
    fate.befall(&world).await;
    world.pass(SECOND * 10).await;
    fate.befall(&world).await;
    let mut ends = fate.ends.iter().peekable();
    let (mut order, mut set_back) = (None, fate.set_back);
    let mut passed = world.clock.steady();
    while passed < LIFE {
        world.pass(LOOK).await;
        passed = world.clock.steady();
        if let Some((_, kill)) = ends.next_if(|(at, _)| *at <= passed) {
            match kill {
                true => world.kill().await,
                false => world.down().await.unwrap(),
            }
            world.up().await;
        }
        if let Some((_, by)) = set_back.take_if(|(at, _)| *at <= passed) {
            world.clock.step_wall(-by);
        }
        if let Some(ordered) = &fate.order
            && order.is_none()
            && ordered.at <= passed
        {
            order = Some(ordered.begin(&world).await);
        }
        for record in world.records().await {
            let spared = fate.is_poisoned(&record) || fate.is_withdrawn(&record);
            let name = &record.spec.name;
            assert!(
                spared || !is_dead(&record, &world) || fate.excuses(passed),
                "{name} is dead after {passed:?}: {fate:?} {:?} {}",
                record.attempts,
                calls_since(&world, passed.saturating_sub(MINUTE * 4))
            );
        }
    }
    for record in world.records().await {
        let named = record.failing_since.is_some() || record.state == State::Gone;
        let why = (&record.spec.name, record.failures, &record.attempts);
        let poisoned = fate.is_poisoned(&record);
        if !fate.is_withdrawn(&record) {
            assert_eq!(named, poisoned, "{fate:?}: {why:?}");
            assert!(poisoned || !record.revoked, "{fate:?}: {why:?}");
        }
    }
    if let (Some(ordered), Some(id)) = (&fate.order, order) {
        ordered.has_ended(&world, id, &fate).await;
    }
    let news = world.news().await;
    let outages = news.iter().filter(|kind| *kind == "resource.unreachable");
    let most = usize::from(fate.outage.is_some()) * 4;
    assert!(outages.count() <= most, "{fate:?}: {news:?}");
    // Who was left alone for an hour takes that long to come back.
    if seed.is_multiple_of(SOME) {
        is_well_again(&world, &fate, order).await;
    }
}

/// All is mended: nobody fails any more, and what was ordered is done when it is tried again.
async fn is_well_again(world: &World, fate: &Fate, order: Option<CampaignId>) {
    world.service.mend();
    world.service.tokens_live(HOUR * 24);
    world.pass(MINUTE * 75).await;
    if let Some(id) = order {
        let (cause, now) = (Cause::ours("drill"), world.clock.now());
        world.store().retry_campaign(id, &cause, now).await.unwrap();
        world.pass(MINUTE).await;
    }
    for record in world.records().await {
        let spared = record.state == State::Gone || fate.is_withdrawn(&record);
        assert!(spared || !is_dead(&record, world), "{fate:?}");
        assert_eq!(record.failing_since, None, "{fate:?}");
    }
    let open = world.store().open_notices().await.unwrap();
    let open: Vec<_> = open
        .iter()
        .filter(|(_, kind)| kind.as_str() != "identity.gone")
        .collect();
    assert!(
        open.is_empty(),
        "{fate:?}: told and not told to be over: {open:?}"
    );
}

#[test]
fn no_healthy_identity_pays_for_one_that_fails_and_each_of_those_is_named() {
    let halves = [0, 1].map(|half| {
        std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let paused = builder.enable_all().start_paused(true).build().unwrap();
            for seed in (half..seeds()).step_by(2) {
                paused.block_on(poisoned_fleet(seed));
            }
        })
    });
    for half in halves {
        half.join().unwrap();
    }
}

/// The first call ever of a resource, or of an operation, is refused, and nobody else is heard of who could
/// say whether it is the service: harmless calls say so.
async fn refused_before_anybody_is_served(fault: &Fault, fleet: usize, operation: &'static str) {
    let told = format!("{operation} of {fleet}: {fault:?}");
    let mut setting = Setting::of(fleet);
    setting.specs[0].declared.scopes = vec![Scope::Voip];
    if operation == "issue" {
        setting.specs[0].declared.id = Some("8:acs:known".parse().unwrap());
    }
    let mut others = setting.specs.split_off(1);
    std::mem::swap(&mut others, &mut setting.specs);
    let mut world = World::start(setting).await;
    world.pass(MINUTE).await;
    let answer = fault.clone();
    world.service.fail(move |call| {
        let hit = call.operation == operation && call.body.contains("voip");
        hit.then(|| answer.clone())
    });
    // The others were served long ago, by a process that ended.
    world.down().await.unwrap();
    world.setting.specs.extend(others);
    world.up().await;
    world.service.forget_calls();
    world.pass(MINUTE * 20).await;
    let row = world.record("bot-0000").await;
    let named = row.failing_since.is_some() || row.state == State::Gone;
    assert!(named, "{told}: {} {:?}", row.failures, row.attempts);
    let news = world.news().await;
    let count = |kind: &str| news.iter().filter(|one| *one == kind).count();
    let told_of = count("identity.failing") + count("identity.gone");
    assert_eq!(told_of, 1, "{told}: {news:?}");
    assert_eq!(count("resource.unreachable"), 0, "{told}: {news:?}");
    if matches!(fault, Fault::Status(400 | 409, ..)) {
        let calls = world.service.calls();
        let few = (5..=8).contains(&calls.len());
        assert!(few, "{told}: {calls:?}");
    }
    world.service.mend();
    world.pass(MINUTE * 75).await;
    let row = world.record("bot-0000").await;
    assert_eq!(row.failing_since, None, "{told}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_before_anybody_is_served_is_named() {
    for fault in faults() {
        if matches!(fault, Fault::Throttle(_)) {
            continue;
        }
        for (fleet, operation) in [(1, "create"), (1, "issue"), (30, "create")] {
            refused_before_anybody_is_served(&fault, fleet, operation).await;
        }
    }
}

/// Where many are refused alike, and nobody is served, it is no fault of theirs, whatever harmless calls say;
/// and where the harmless calls are refused as well, it is nobody's.
#[tokio::test(start_paused = true)]
async fn many_that_are_refused_alike_are_not_named_one_by_one() {
    for (count, harmless) in [(4, false), (40, false), (1, true), (3, true)] {
        let world = World::start(Setting::of(count)).await;
        world.service.fail(move |call| {
            let spared = call.id.starts_with(NOBODY) && !harmless;
            (!spared).then_some(Fault::Status(409, "Conflict", "No."))
        });
        world.pass(HOUR * 3).await;
        let news = world.news().await;
        assert_eq!(news, Vec::<String>::new(), "{count}, {harmless}");
        // So many as are allowed for each, by the hour.
        let calls = world.service.calls().len();
        assert!(calls <= count * 20, "{count}, {harmless}: {calls}");
    }
}

/// A harmless call that is answered 400 proves the key, and not that anybody is served: a resource that answers so
/// to everything is not said to answer all but a few identities.
#[tokio::test(start_paused = true)]
async fn a_harmless_call_that_is_refused_as_well_vouches_for_nobody() {
    let invalid = || Fault::Status(400, "ValidationError", "No.");
    for (count, fault) in [
        (1, invalid()),
        (3, invalid()),
        (1, Fault::Status(500, "InternalError", "Sorry.")),
        (1, Fault::Status(403, "Forbidden", "No.")),
    ] {
        let told = format!("{count} by {fault:?}");
        let world = World::start(Setting::of(count)).await;
        world.service.fail(move |call| {
            Some(match call.id.starts_with(NOBODY) {
                true => invalid(),
                false => fault.clone(),
            })
        });
        world.pass(HOUR * 3).await;
        for record in world.records().await {
            assert_eq!(record.failing_since, None, "{told}: {:?}", record.attempts);
        }
        let news = world.news().await;
        let blamed = news.iter().any(|news| news.contains("identity.failing"));
        assert!(!blamed, "{told}: {news:?}");
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
        .for_each(|spec| spec.declared.lifetime = HOUR);
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
    for seed in 0..BROWN_OUTS {
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
            .for_each(|spec| spec.declared.lifetime = HOUR);
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

/// Nobody is left who could end a hold but those who led to it: a harmless call does, and names them.
#[tokio::test(start_paused = true)]
async fn a_hold_in_which_only_failing_ones_are_left_ends_by_a_proof() {
    for status in [403, 500] {
        let mut setting = Setting::of(3);
        setting
            .specs
            .iter_mut()
            .for_each(|spec| spec.declared.lifetime = HOUR);
        setting.specs[2].declared.lifetime = HOUR * 24;
        let world = World::start(setting).await;
        world.pass(MINUTE * 5).await;
        let healthy = world.record("bot-0002").await.id.unwrap().to_string();
        world.service.fail(move |call| {
            let spared = call.id == healthy || call.id.starts_with(NOBODY);
            (!spared).then_some(Fault::Status(status, "Odd", "No."))
        });
        world.pass(HOUR * 4).await;
        let health = world.view().health.remove("issue");
        assert_eq!(health, Some(HealthView::Open), "{status}");
        for name in ["bot-0000", "bot-0001"] {
            let row = world.record(name).await;
            assert!(row.failing_since.is_some(), "{status}: {:?}", row.attempts);
        }
        let news = world.news().await;
        let count = |kind: &str| news.iter().filter(|one| *one == kind).count();
        let begun = count("key.rejected") + count("resource.unreachable");
        assert_eq!(begun, count("resource.recovered"), "{status}: {news:?}");
    }
}

/// One is answered 429 for ever, whoever asks for it: the others go on.
#[tokio::test(start_paused = true)]
async fn one_that_alone_is_answered_429_holds_nobody_up() {
    let mut setting = Setting::of(60);
    setting
        .specs
        .iter_mut()
        .for_each(|spec| spec.declared.lifetime = HOUR);
    let world = World::start(setting).await;
    world.service.tokens_live(MINUTE * 3);
    world.pass(MINUTE).await;
    let sick = world.record("bot-0007").await.id.unwrap().to_string();
    world
        .service
        .fail(move |call| (call.id == sick).then_some(Fault::Throttle(30)));
    for _ in 0..20 * 12 {
        world.pass(SECOND * 5).await;
        assert!(world.service.without_live_token() <= 1);
    }
    let row = world.record("bot-0007").await;
    assert!(row.failing_since.is_some(), "{:?}", row.attempts);
}
