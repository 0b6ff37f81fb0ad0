//! The renewing part of the daemon over days and months of simulated time: one renewer, its store and a service
//! that fails as it is told. Nothing here waits for the machine's clock.

mod campaigns;
mod cluster;
mod entra;
mod failures;
mod garbage;
mod jobs;
mod load;
mod outages;
mod poisoned;
mod service;
mod together;
mod world;

use std::time::Duration;

use jiff::SignedDuration;
use renewd::model::State;

use self::{
    service::{Call, Fault},
    world::{Setting, World},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The most calls in any window, counting each that arrived from its first on.
fn busiest(calls: &[Call], operation: &str, window: Duration) -> usize {
    let times: Vec<Duration> = calls
        .iter()
        .filter(|call| call.operation == operation)
        .map(|call| call.at)
        .collect();
    let mut first = 0;
    let mut most = 0;
    for (last, at) in times.iter().enumerate() {
        while times[first] + window <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

fn gaps(calls: &[Call]) -> Vec<Duration> {
    calls
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn one_identity_lives_for_a_month() {
    let mut world = World::start(Setting::of(1)).await;
    for _ in 0..30 * 24 {
        world.pass(HOUR).await;
        assert_eq!(world.service.without_live_token(), 0);
    }
    let calls = world.service.calls();
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.operation == "create")
            .count(),
        1
    );
    // Renewed at half of 24 h, up to 2 % of the life earlier.
    let renewals = calls.len() - 1;
    assert!((60..=63).contains(&renewals), "{renewals}");
    assert_eq!(world.news().await, Vec::<String>::new());
    world.down().await.unwrap();
}

/// The month of a fleet: an outage of six hours, a wall clock that jumps by a day both ways, a
/// restart and a kill.
async fn a_month_of_a_fleet(count: usize, seed: u64) -> String {
    let mut setting = Setting::of(count);
    setting.seed = seed;
    let mut world = World::start(setting).await;
    let mut dead_checks = 0;
    for hour in 0..30 * 24 {
        match hour {
            100 => world.service.fail(|_| Some(Fault::Connect)),
            106 => world.service.mend(),
            200 => world.clock.step_wall(SignedDuration::from_hours(24)),
            230 => world.clock.step_wall(SignedDuration::from_hours(-48)),
            260 => world.clock.step_wall(SignedDuration::from_hours(24)),
            300 => {
                world.down().await.unwrap();
                world.up().await;
            }
            400 => {
                world.kill().await;
                world.pass(MINUTE * 7).await;
                world.up().await;
            }
            _ => {}
        }
        world.pass(HOUR).await;
        dead_checks += world.service.without_live_token();
    }
    assert_eq!(dead_checks, 0, "no identity was ever without a live token");
    let calls = world.service.calls();
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.operation == "create")
            .count(),
        count
    );
    let renewals = calls
        .iter()
        .filter(|call| call.operation == "issue")
        .count();
    // A renewal each 12 h, up to half an hour early, the outage's probes, and none twice.
    assert!(
        (count * 59..=count * 64 + 1000).contains(&renewals),
        "{renewals}"
    );
    assert!(busiest(&calls, "issue", SECOND * 30) <= 970);
    assert!(busiest(&calls, "create", SECOND * 30) <= 970);
    assert_eq!(
        world.news().await,
        ["resource.unreachable", "resource.recovered"]
    );
    let log = world.log().await;
    world.down().await.unwrap();
    log
}

#[tokio::test(start_paused = true)]
async fn a_thousand_identities_live_for_a_month() {
    a_month_of_a_fleet(1000, 7).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_life() {
    let log = a_month_of_a_fleet(20, 1).await;
    assert!(log.lines().count() > 20 * 60);
    assert_eq!(log, a_month_of_a_fleet(20, 1).await, "to the byte");
    assert_ne!(
        log,
        a_month_of_a_fleet(20, 2).await,
        "chance decides something"
    );
}

#[tokio::test(start_paused = true)]
async fn three_hours_down_are_two_notices_and_only_probes() {
    let world = World::start(Setting::of(1000)).await;
    // The first are due after six hours: a burst is spread over half of the day.
    world.pass(HOUR * 6 - MINUTE * 10).await;
    assert_eq!(world.view().calls.get("ok"), Some(&1000));
    world.service.forget_calls();
    world.service.fail(|_| Some(Fault::Connect));
    world.pass(HOUR * 3).await;
    let probes = world.service.calls();
    assert!((300..=420).contains(&probes.len()), "{}", probes.len());
    for gap in gaps(&probes).iter().skip(10) {
        assert!(*gap >= SECOND && *gap <= SECOND * 31, "{gap:?}");
    }
    assert_eq!(world.news().await, ["resource.unreachable"]);
    world.service.mend();
    world.pass(MINUTE * 2).await;
    assert_eq!(
        world.news().await,
        ["resource.unreachable", "resource.recovered"]
    );
    let records = world.records().await;
    let now = world.clock.now();
    assert!(
        records.iter().all(|record| record.due.unwrap().at > now),
        "all are renewed"
    );
    let notices = world.notices().await;
    let begin = &notices[notices.len() - 2].message;
    assert!(begin.contains("Every token lives until"), "{begin}");
}

#[tokio::test(start_paused = true)]
async fn twenty_seconds_of_life_see_eight_attempts() {
    for fault in [Fault::Connect, Fault::Hang] {
        let world = World::start(Setting::of(1)).await;
        world.service.tokens_live(SECOND * 20);
        world.pass(SECOND * 65).await;
        world.service.mend();
        let hangs = matches!(fault, Fault::Hang);
        // Fails from just after an issue until its token is dead.
        let ends = loop {
            let before = world.service.calls().len();
            world.pass(Duration::from_millis(50)).await;
            let calls = world.service.calls();
            if calls.len() > before {
                break calls.last().unwrap().at + SECOND * 20;
            }
        };
        world.service.forget_calls();
        let planned = fault.clone();
        world.service.fail(move |_| Some(planned.clone()));
        world.pass(MINUTE * 2).await;
        let calls = world.service.calls();
        let in_time = calls.iter().filter(|call| call.at < ends).count();
        let least = if hangs { 6 } else { 8 };
        assert!(in_time >= least, "{in_time} attempts, {fault:?}");
        assert!(calls.len() > in_time, "they go on after expiry");
        let shortest = gaps(&calls).into_iter().min().unwrap();
        assert!(shortest >= SECOND, "{shortest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_limit_is_exceeded_over_restarts() {
    let mut setting = Setting::of(600);
    setting.resource.limits.issue.calls = 100;
    setting.resource.limits.create_with_token.calls = 100;
    let mut world = World::start(setting).await;
    for round in 0..40 {
        world.pass(Duration::from_millis(2300 + 170 * round)).await;
        if round % 3 == 0 {
            world.kill().await;
        } else {
            world.down().await.unwrap();
        }
        world.up().await;
    }
    world.pass(MINUTE * 5).await;
    let calls = world.service.calls();
    assert!(calls.len() >= 600);
    let most = busiest(&calls, "create", SECOND * 30);
    assert!(most <= 97, "{most}");
    // A call that a kill cut off may have made an identity; each is counted.
    let orphans = world.store().counts().await.unwrap().orphans;
    assert!(
        calls.len() as u64 <= 600 + orphans,
        "{} calls, {orphans} orphans",
        calls.len()
    );
}

/// The calls of a backlog in 90 s, with a kill each 15 s or without; no window holds more than the limit.
async fn calls_of_a_backlog(killed: bool) -> usize {
    let mut world = World::start(Setting::of(6000)).await;
    world.service.delay(Duration::from_millis(80));
    world.pass(SECOND * 35).await;
    let before = world.service.calls().len();
    for _ in 0..6 {
        world.pass(SECOND * 15).await;
        if killed {
            world.kill().await;
            world.up().await;
        }
    }
    let calls = world.service.calls();
    let busiest = busiest(&calls, "create", SECOND * 30);
    assert!(busiest <= 970, "{busiest} calls in a window");
    calls.len() - before
}

#[tokio::test(start_paused = true)]
async fn a_kill_forgets_little_of_what_the_limit_still_allows() {
    let undisturbed = calls_of_a_backlog(false).await;
    assert!(undisturbed >= 2900, "{undisturbed} of 2910 calls");
    let killed = calls_of_a_backlog(true).await;
    let share = killed as f64 / undisturbed as f64;
    assert!(share >= 0.93, "{killed} of {undisturbed} calls: {share:.3}");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_worked_off_by_expiry_within_the_limit() {
    let mut setting = Setting::of(2000);
    setting.resource.limits.issue.calls = 200;
    let world = World::start(setting).await;
    world.service.fail({
        let clock = world.clock.clone();
        let from = clock.steady() + HOUR * 11;
        move |_| {
            (clock.steady() > from && clock.steady() < from + HOUR * 2).then_some(Fault::Connect)
        }
    });
    world.pass(HOUR * 13 + MINUTE).await;
    world.service.forget_calls();
    world.pass(MINUTE * 10).await;
    let calls = world.service.calls();
    assert!(busiest(&calls, "issue", SECOND * 30) <= 194);
    let now = world.clock.now();
    let waiting = world
        .records()
        .await
        .iter()
        .filter(|r| r.due.unwrap().at <= now)
        .count();
    assert_eq!(
        waiting, 0,
        "2000 at 194 per 30 s take five minutes and a half"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_beside_a_filled_id_map() {
    let mut world = World::start(Setting::of(5)).await;
    world.pass(MINUTE).await;
    world.down().await.unwrap();
    for file in ["renewd.db", "renewd.db-wal", "renewd.db-shm"] {
        std::fs::remove_file(world.path(file)).ok();
    }
    let whole = std::fs::read_to_string(world.path("identities.jsonl")).unwrap();
    world.service.forget_calls();
    world.up().await;
    world.pass(MINUTE).await;
    // The same persons go on by themselves, without a single creation.
    let calls = world.service.calls();
    assert_eq!(calls.len(), 5);
    assert!(calls.iter().all(|call| call.operation == "issue"));
    assert_eq!(world.news().await, ["store.brought_up"]);
    assert_eq!(world.opened().id_map, 5);
    // With half a map the other half is not created, over restarts too.
    world.down().await.unwrap();
    for file in ["renewd.db", "renewd.db-wal", "renewd.db-shm"] {
        std::fs::remove_file(world.path(file)).ok();
    }
    let half: Vec<&str> = whole.lines().take(2).collect();
    std::fs::write(world.path("identities.jsonl"), half.join("\n") + "\n").unwrap();
    world.service.forget_calls();
    world.up().await;
    world.pass(HOUR).await;
    world.down().await.unwrap();
    world.up().await;
    world.pass(HOUR).await;
    let calls = world.service.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls.iter().all(|call| call.operation == "issue"));
    let waiting = world.store().creations_waiting().await.unwrap();
    assert_eq!((waiting[0].count, waiting[0].names.len()), (3, 3));
    // After an import of the rest they go on, without a creation and without a restart.
    let lines = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let now = world.clock.now();
    world.store().import(lines.collect(), now).await.unwrap();
    world.pass(MINUTE).await;
    let calls = world.service.calls();
    assert_eq!(calls.len(), 5);
    assert!(calls.iter().all(|call| call.operation == "issue"));
    assert_eq!(world.store().creations_waiting().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn create_never_creates_nothing() {
    let mut setting = Setting::of(1);
    setting.resource.create = renewd::config::CreatePolicy::Never;
    let mut with_id = world::spec("known");
    with_id.declared.id = Some("8:acs:known".parse().unwrap());
    setting.specs.push(with_id);
    let mut world = World::start(setting).await;
    world.pass(HOUR).await;
    let calls = world.service.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].operation, "issue");
    assert_eq!(world.news().await, ["create.refused"]);
    assert_eq!(world.record("bot-0000").await.state, State::New);
    // The next process knows what was told, and tells that it is over when the configuration allows it.
    world.down().await.unwrap();
    world.setting.resource.create = renewd::config::CreatePolicy::Auto;
    world.up().await;
    world.pass(MINUTE).await;
    assert_eq!(world.news().await, ["create.refused", "create.allowed"]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_clock_moves_what_waits() {
    // A server that starts a day ahead of the service, and whose clock is then set right.
    let world = World::start(Setting::abreast(50)).await;
    let day = SignedDuration::from_hours(24);
    world.service.is_ahead(-day);
    world.pass(HOUR).await;
    assert_eq!(world.service.without_live_token(), 0);
    let before = world.service.calls().len();
    // The wall clock is set right; an answer confirms it at the next renewal of anybody.
    world.clock.step_wall(-day);
    world.pass(HOUR * 10).await;
    assert_eq!(
        world.service.calls().len(),
        before,
        "a step alone causes no storm"
    );
    for _ in 0..72 {
        world.pass(HOUR).await;
        assert_eq!(
            world.service.without_live_token(),
            0,
            "at {}",
            world.clock.now()
        );
    }
}
