//! Rows of the store that cannot be read: each column of each table that a loop reads, overwritten behind
//! the daemon's back. What can be read is served as ever, the rest is set aside and named.

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use renewd::{
    model::Name,
    store::{CampaignAction, Cause, NewCampaign, Target},
};
use rusqlite::Connection;

use super::{
    HOUR, MINUTE,
    world::{Setting, World},
};

/// What is written over a column, in SQL: a word that is none, bytes, a number that is no instant.
const GARBAGE: [&str; 3] = ["'?!'", "x'00ff10'", "-9223372036854775808"];

fn open(world: &World) -> Connection {
    Connection::open(world.path("renewd.db")).unwrap()
}

fn columns(db: &Connection, table: &str) -> Vec<String> {
    let mut statement = db
        .prepare("SELECT name FROM pragma_table_info(?1)")
        .unwrap();
    let names = statement.query_map([table], |row| row.get(0)).unwrap();
    names.map(Result::unwrap).collect()
}

/// Overwrites a column of one identity; false where SQLite does not let it, as with the key of the row.
fn poison(db: &Connection, name: &str, column: &str, garbage: &str) -> bool {
    let sql = format!("UPDATE identity SET {column} = {garbage} WHERE name = ?1");
    db.execute(&sql, [name]).is_ok()
}

/// Looks everything in the store through, twice, as the daemon does from time to time.
async fn examine(world: &World) {
    for _ in 0..2 {
        let mut at = None;
        while let Some(next) = world
            .store()
            .examine(at.take(), world.clock.now())
            .await
            .unwrap()
        {
            at = Some(next);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_stops_nobody_and_is_named() {
    let world = World::start(Setting::of(6)).await;
    world.service.tokens_live(HOUR);
    world.pass(HOUR * 2).await;
    assert!(poison(&open(&world), "bot-0003", "state", "'actve'"));
    for _ in 0..6 {
        world.pass(MINUTE * 30).await;
        assert!(
            world.service.without_live_token() <= 1,
            "the others are renewed"
        );
    }
    assert_eq!(world.records().await.len(), 5);
    let found = world.store().counts().await.unwrap().set_aside;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].kind.as_str(), found[0].rows), ("identity", 1));
    let names: Vec<&str> = found[0].names.iter().map(Name::as_str).collect();
    assert_eq!(names, ["bot-0003"]);
    assert!(found[0].because.contains("state"), "{found:?}");
    // Mended by hand, it is renewed again without a restart, and nobody is needed any more.
    open(&world)
        .execute(
            "UPDATE identity SET state = 'active' WHERE name = 'bot-0003'",
            [],
        )
        .unwrap();
    examine(&world).await;
    world.pass(MINUTE).await;
    assert_eq!(world.service.without_live_token(), 0);
    assert_eq!(world.store().counts().await.unwrap().set_aside, []);
}

/// A fleet, some of whose rows are overwritten: the others never miss a renewal, over a restart too.
async fn garbage_in_a_fleet(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut setting = Setting::of(12);
    setting.seed = seed;
    let mut world = World::start(setting).await;
    world.service.tokens_live(HOUR);
    world.pass(MINUTE * rng.random_range(1..80)).await;
    let db = open(&world);
    let mut victims = std::collections::BTreeSet::new();
    for _ in 0..rng.random_range(1..=4) {
        let name = format!("bot-{:04}", rng.random_range(0..12));
        let column = columns(&db, "identity").choose(&mut rng).unwrap().clone();
        let garbage = GARBAGE.choose(&mut rng).unwrap();
        poison(&db, &name, &column, garbage);
        victims.insert(name);
    }
    // A campaign goes over all that can be read, and ends.
    let everybody = NewCampaign::new(
        CampaignAction::Renew,
        None,
        Target::All,
        Cause::ours("test"),
    );
    let now = world.clock.now();
    world.store().create_campaign(everybody, now).await.unwrap();
    for round in 0..12 {
        world.pass(MINUTE * 15).await;
        let dead = world.service.without_live_token();
        assert!(dead <= victims.len(), "seed {seed}: {dead} of {victims:?}");
        if round == 6 {
            // A token that the store refuses to its last breath is told, and nothing else.
            if let Err(error) = world.down().await {
                assert!(error.to_string().contains("cannot be read"), "{error}");
            }
            world.up().await;
        }
    }
    examine(&world).await;
    let open = world.store().open_campaigns().await.unwrap();
    assert_eq!(open, [], "seed {seed}: the campaign ended");
    let known: Vec<String> = world
        .records()
        .await
        .iter()
        .map(|record| record.spec.name.to_string())
        .collect();
    let aside = world.store().counts().await.unwrap().set_aside;
    let count: u64 = aside.iter().map(|found| found.rows).sum();
    for name in (0..12).map(|n| format!("bot-{n:04}")) {
        let missing = !known.contains(&name);
        assert!(
            !missing || victims.contains(&name),
            "seed {seed}: {name} is gone"
        );
        assert!(!missing || count > 0, "seed {seed}: {name} is not named");
    }
    world.down().await.ok();
}

#[tokio::test(start_paused = true)]
async fn garbage_in_any_column_of_an_identity_costs_no_other_a_renewal() {
    for seed in 0..60 {
        garbage_in_a_fleet(seed).await;
    }
}

/// Every column of every table in turn, in all of its rows: the renewer goes on, a restart too.
#[tokio::test(start_paused = true)]
async fn garbage_in_any_other_table_stops_no_loop_and_no_start() {
    let mut world = World::start(Setting::of(4)).await;
    world.service.tokens_live(HOUR);
    world.pass(MINUTE * 5).await;
    let tables: Vec<String> = {
        let db = open(&world);
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
                   AND name NOT IN ('identity', 'meta', 'resource')";
        let mut statement = db.prepare(sql).unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    for table in tables {
        let names = columns(&open(&world), &table);
        for column in names {
            for garbage in GARBAGE {
                let sql = format!("UPDATE OR IGNORE {table} SET {column} = {garbage}");
                open(&world).execute(&sql, []).ok();
            }
        }
        world.pass(MINUTE * 40).await;
        let told = format!("after garbage in {table}");
        assert_eq!(world.service.without_live_token(), 0, "{told}");
        world.store().counts().await.expect(&told);
        world.down().await.expect(&told);
        world.up().await;
        world.pass(MINUTE * 20).await;
        assert_eq!(world.service.without_live_token(), 0, "{told}");
        examine(&world).await;
    }
}

/// The store refuses one row's token, for a reason that time does not mend: its person is made once all
/// the same, and everybody else lives on.
#[tokio::test(start_paused = true)]
async fn a_token_that_the_store_refuses_makes_nobody_anew() {
    let mut world = World::start(Setting::of(0)).await;
    open(&world)
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE UPDATE OF token ON identity WHEN new.name = 'bot-0001' \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    world.down().await.unwrap();
    world.setting.specs = Setting::of(4).specs;
    world.service.tokens_live(HOUR);
    world.up().await;
    for _ in 0..8 {
        world.pass(MINUTE * 15).await;
    }
    let calls = world.service.calls();
    let made = calls.iter().filter(|call| call.operation == "create");
    assert_eq!(made.count(), 4, "each person is made once");
    assert!(
        world.record("bot-0001").await.id.is_some(),
        "its id is kept"
    );
    let issued = calls.iter().filter(|call| call.operation == "issue");
    assert!(
        issued.count() < 40,
        "what is refused is tried at a slow pace"
    );
    open(&world).execute_batch("DROP TRIGGER refuse").unwrap();
    world.pass(MINUTE * 10).await;
    assert_eq!(world.service.without_live_token(), 0);
    world.down().await.unwrap();
}
