//! A store in PostgreSQL whose connections die, whose answers are lost, and which others are in the way of.

use std::sync::atomic::{AtomicBool, Ordering};

use renewd_database::{Database, Loses, Proxy, Server as Postgres};

use super::*;
use crate::{
    config::{DatabaseSettings, SecretRef},
    model::Beat,
    sql,
    store::try_database,
};

/// A store there, opened as the daemon opens it. Statements have so long as it takes to wait for one.
fn served(dir: &Path, url: &str) -> Result<(Store, Opened), OpenError> {
    let from = SecretRef::Env("DATABASE".to_owned());
    let url = Secret::new(url.to_owned());
    let mut database = DatabaseSettings::read(&from, &url, None).unwrap();
    database.deadline = Duration::from_secs(3);
    let settings = StoreSettings {
        place: StorePlace::Database(Box::new(database)),
        node: Some("web-1".parse().unwrap()),
        ..settings(dir)
    };
    Store::open(&settings, dir, at(0))
}

const ISSUES: &str =
    "SELECT (SELECT count(*) FROM renewal) + (SELECT count(*) FROM audit WHERE action = 'issue')";

/// How often a token was noted to be issued.
async fn issues(store: &Store) -> i64 {
    number(store, ISSUES).await
}

/// A store with one identity.
async fn with_bot(dir: &Path, url: &str) -> (Store, Num) {
    let (store, _) = served(dir, url).unwrap();
    declare(&store, &[with_id("bot", "8:acs:bot")], 0).await;
    let num = get(&store, "bot").await.num;
    (store, num)
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_counted_once_either_way() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Postgres::shared());
    let database = server.database();
    let proxy = Proxy::before(server.port());
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}",
        proxy.port(),
        database.name()
    );
    let (store, num) = with_bot(dir.path(), &url).await;
    commit(&store, issued(num, 10, None), 11).await;
    let mut last = get(&store, "bot").await.version;
    for (n, loses) in [Loses::Answer, Loses::Commit, Loses::Answer]
        .into_iter()
        .enumerate()
    {
        let began = 20 + n as i64;
        proxy.lose(loses);
        let noted = version(commit(&store, issued(num, began, None), began).await);
        assert!(proxy.has_lost());
        let now = get(&store, "bot").await;
        assert_eq!(now.version, noted, "{loses:?}");
        assert!(now.version > last);
        last = now.version;
        assert_eq!(issues(&store).await, 2 + n as i64, "{loses:?}");
    }
}

#[tokio::test]
async fn while_it_is_not_known_what_became_of_a_commit_nobody_else_waits() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Postgres::shared());
    let database = server.database();
    let proxy = Proxy::before(server.port());
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}",
        proxy.port(),
        database.name()
    );
    let (store, num) = with_bot(dir.path(), &url).await;
    proxy.lose(Loses::Answer);
    proxy.shut(true);
    let other = store.clone();
    let unsure = tokio::spawn(async move { commit(&other, issued(num, 10, None), 11).await });
    // It is on its way once its answer is lost.
    for _ in 0..600 {
        if proxy.has_lost() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = store.commit(vec![issued(num, 20, None)], at(21)).await;
    assert!(refused.is_err_and(|error| error.is_unwritable()));
    assert!(!unsure.is_finished());
    proxy.shut(false);
    version(unsure.await.unwrap());
    assert_eq!(issues(&store).await, 1);
}

/// Ends every connection of a store, whatever it does.
fn cut(database: &Database<'_>) {
    database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'renewd %' \
         AND datname = current_database()",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_cut_what_was_acknowledged_is_there_once_and_nothing_else() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (store, num) = with_bot(dir.path(), &database.url()).await;
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let acknowledged = std::thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            let mut cuts = 0;
            while !is_over.load(Ordering::SeqCst) || cuts < 10 {
                cut(&database);
                cuts += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut acknowledged = 0;
        for n in 0..300 {
            let change = vec![issued(num, 10 + n, None)];
            let noted = store.commit(change, at(11 + n));
            let noted =
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(noted));
            match noted {
                Ok(_) => acknowledged += 1,
                Err(error) => assert!(error.is_unwritable(), "{error}"),
            }
        }
        over.store(true, Ordering::SeqCst);
        cutter.join().unwrap();
        acknowledged
    });
    assert!(acknowledged > 100, "{acknowledged}");
    let there = database.sql(ISSUES);
    assert_eq!(there, acknowledged.to_string());
}

#[tokio::test]
async fn a_database_that_is_away_is_told_and_found_again() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Postgres::start(&[], |_| {}));
    let database = server.database();
    let (store, num) = with_bot(dir.path(), &database.url()).await;
    server.stop();
    for _ in 0..3 {
        let refused = store.commit(vec![issued(num, 10, None)], at(11)).await;
        let refused = refused.unwrap_err();
        assert!(refused.is_unwritable(), "{refused}");
        assert!(
            refused
                .to_string()
                .contains("no host of the database takes writes"),
            "{refused}"
        );
        assert!(store.record(&name("bot")).await.is_err());
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let closed = served(elsewhere.path(), &database.url()).unwrap_err();
    assert!(!closed.is_configuration(), "{closed}");
    server.run();
    for _ in 0..600 {
        if store
            .commit(vec![issued(num, 10, None)], at(11))
            .await
            .is_ok()
        {
            assert_eq!(issues(&store).await, 1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("half a minute later the database is not found again");
}

#[tokio::test]
async fn several_machines_may_make_it_at_once() {
    let database = Postgres::shared().database();
    let url = database.url();
    let opened: Vec<_> = std::thread::scope(|scope| {
        let open = || {
            let dir = tempfile::tempdir().unwrap();
            let store = served(dir.path(), &url).map(|(store, _)| store);
            (dir, store)
        };
        let each: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        each.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // Each has a seal key of its own: only one of them may go on.
    let good = opened.iter().filter(|(_, store)| store.is_ok()).count();
    assert_eq!(good, 1);
    for (_, store) in &opened {
        if let Err(error) = store {
            assert!(error.to_string().contains("seal"), "{error}");
        }
    }
}

/// A user of its own, who may log in and nothing else.
fn guest(database: &Database<'_>) -> (String, String) {
    let guest = format!("guest_of_{}", database.name());
    database.sql(&format!("CREATE ROLE {guest} LOGIN"));
    let (port, name) = (Postgres::shared().port(), database.name());
    let url = format!("postgresql://{guest}@127.0.0.1:{port}/{name}");
    (guest, url)
}

#[tokio::test]
async fn a_user_who_lacks_a_right_is_told_what_gives_it() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (guest, url) = guest(&database);
    let refused = |remedy: &str| {
        let error = served(dir.path(), &url).unwrap_err();
        assert!(error.is_configuration(), "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
        let from = SecretRef::Env("DATABASE".to_owned());
        let settings = DatabaseSettings::read(&from, &Secret::new(url.clone()), None).unwrap();
        let told = try_database(&settings).unwrap_err();
        assert!(told.contains(remedy), "{told}");
    };
    refused(&format!("GRANT CREATE ON SCHEMA public TO {guest}"));
    // Another user has made the tables.
    drop(served(dir.path(), &database.url()).unwrap());
    refused(&format!("GRANT postgres TO {guest}"));
    // It may read, and not write.
    database.sql(&format!(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {guest}"
    ));
    refused(&format!("GRANT postgres TO {guest}"));
    database.sql(&format!("DROP OWNED BY {guest}; DROP ROLE {guest}"));
}

/// A machine that stops between BEGIN and COMMIT, with the row of the duty locked.
#[tokio::test]
async fn a_takeover_ends_the_transaction_that_the_leader_left_open() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (store, _) = with_bot(dir.path(), &database.url()).await;
    let beat = |name: &str| Beat {
        node: name.parse().unwrap(),
        since: at(0),
        epoch: None,
        offset_ms: 0,
        digest: String::new(),
        socket: String::new(),
        lacks: 0,
    };
    for name in ["web-1", "web-2"] {
        store.beat(beat(name)).await.unwrap();
    }
    let (first, second) = (beat("web-2").node, beat("web-1").node);
    assert!(store.take_duty(&first, None, at(0)).await.unwrap().renewed);
    let StorePlace::Database(settings) = in_database(&database.url()) else {
        unreachable!("it is a database");
    };
    let session = |name: &str| sql::Session::open(sql::Remote::new(&settings, name)).unwrap();
    let stopped = sql::Connection::from(session("renewd web-2 write"));
    stopped.begin().unwrap();
    let locked = "SELECT epoch FROM duty WHERE name = 'leader' FOR UPDATE";
    stopped.first(locked, [], |_| Ok(())).unwrap();
    let early = store.take_duty(&second, None, at(0)).await;
    assert!(early.is_err(), "while its lease lasts, it is left alone");
    stopped.first("SELECT 1", [], |_| Ok(())).unwrap();
    database.sql("UPDATE node SET lease_until = 0 WHERE name = 'web-2'");
    let taken = store.take_duty(&second, None, at(0)).await.unwrap();
    assert_eq!((taken.holder, taken.renewed), (Some(second), true));
    assert!(stopped.commit().is_err());
}
