//! A store goes to the other engine and back, is cut off anywhere, and nothing of it is lost or done twice.

use futures_util::FutureExt as _;

use super::*;
use crate::{sql::SqlError, store::open::session};

/// A store with something in every corner, and the folder that it is in.
async fn rich() -> Home {
    let mut home = Home::new();
    let specs: Vec<Spec> = (0..40)
        .map(|n| with_id(&format!("bot-{n:02}"), &format!("8:acs:{n}")))
        .collect();
    declare(&home, &specs, 0).await;
    for record in home.list(None, 1000).await.unwrap() {
        commit(&home, issued(record.num, 10, None), 11).await;
    }
    let nums: Vec<Num> = home
        .list(None, 1000)
        .await
        .unwrap()
        .iter()
        .map(|one| one.num)
        .collect();
    step(&home, nums[0], Step::Withhold, 20).await;
    step(&home, nums[1], revoked(21, Then::Hold), 21).await;
    let items = nums[5..9].iter().map(|num| Wanted::Row(*num)).collect();
    let new = NewCampaign::new(
        CampaignAction::Revoke,
        Some(Then::Reissue),
        Target::Items(items),
        Cause::ours("drill"),
    );
    home.create_campaign(new, at(22)).await.unwrap();
    let gone = home.remove(vec![name("bot-39")], Some(OnRemoval::Forget), at(23));
    gone.await.unwrap();
    deliver(&home, "file", nums[2], get(&home, "bot-02").await.version).await;
    home.reopen();
    home
}

/// What a store holds, as its verbs tell it.
async fn told(store: &Store) -> String {
    let mut text = String::new();
    for record in store.list(None, 1000).await.unwrap() {
        let document = store.document(record.num).await.unwrap();
        text += &format!("{record:?} {document:?}\n");
    }
    text += &format!("{:?}\n", store.open_campaigns().await.unwrap());
    for sink in ["file", "hook"] {
        text += &format!("{:?}\n", pending(store, sink, 1000).await);
    }
    text += &format!("{:?}\n", store.counts().await.unwrap());
    text
}

fn moved(
    from: &StoreSettings,
    to: &StorePlace,
    watch: &mut dyn FnMut(&Moving) -> bool,
) -> Result<Moved, MoveError> {
    move_store(from, to, &Cause::ours("test"), at(100), watch)
}

fn served(dir: &Path, database: &Database<'_>) -> StoreSettings {
    StoreSettings {
        place: in_database(&database.url()),
        ..settings(dir)
    }
}

fn opened(settings: &StoreSettings, dir: &Path) -> Result<Store, OpenError> {
    Store::open_inline(settings, dir, at(101)).map(|(store, _)| store)
}

#[tokio::test]
async fn it_goes_there_while_it_is_used_and_back_and_is_the_same() {
    let mut home = rich().await;
    let (dir, database) = (home.dir.path().to_owned(), Postgres::shared().database());
    let file = settings(&dir);
    let there = served(&dir, &database);
    let before = told(&home).await;
    // It is in use until everything is copied.
    let (mut waited, mut used) = (0, home.store.take());
    let result = moved(&file, &there.place, &mut |moving| {
        if matches!(moving, Moving::InUse { .. }) {
            waited += 1;
            used = None;
        }
        true
    });
    let result = result.unwrap();
    assert!(waited == 1 && used.is_none());
    assert!(
        result.tables.contains(&("identity".to_owned(), 40)),
        "{result:?}"
    );
    let refused = opened(&file, &dir).unwrap_err();
    assert!(
        matches!(&refused, OpenError::Moved { to, .. } if *to == result.to),
        "{refused}"
    );

    let store = opened(&there, &dir).unwrap();
    assert_eq!(told(&store).await, before);
    assert_eq!(store.miscounts().await.unwrap(), []);
    // Numbers that were used once are not used again.
    let newest = number(&store, "SELECT max(num) FROM identity").await;
    store
        .remove(vec![name("bot-38")], Some(OnRemoval::Forget), at(102))
        .await
        .unwrap();
    store
        .declare(vec![with_id("new", "8:acs:new")], at(103))
        .await
        .unwrap();
    assert_eq!(get(&store, "new").await.num, newest + 1);
    let before = told(&store).await;
    drop(store);

    let back = StoreSettings {
        place: StorePlace::File(dir.join("again.db")),
        ..settings(&dir)
    };
    moved(&there, &back.place, &mut |_| true).unwrap();
    assert!(matches!(opened(&there, &dir), Err(OpenError::Moved { .. })));
    let store = opened(&back, &dir).unwrap();
    assert_eq!(told(&store).await, before);
    assert_eq!(store.miscounts().await.unwrap(), []);
    store
        .declare(vec![with_id("newer", "8:acs:newer")], at(104))
        .await
        .unwrap();
    assert_eq!(get(&store, "newer").await.num, newest + 2);
    drop(store);
    assert!(
        take_back(&there).unwrap(),
        "a person may still take it back"
    );
    assert!(opened(&there, &dir).is_ok());
}

#[tokio::test]
async fn it_is_cut_off_anywhere_and_goes_on() {
    let mut home = rich().await;
    let (dir, database) = (home.dir.path().to_owned(), Postgres::shared().database());
    let file = settings(&dir);
    let there = served(&dir, &database);
    let (mut most, mut cuts) = (1, 0);
    loop {
        home.store = None;
        let mut asked = 0;
        let ended = moved(&file, &there.place, &mut |_| {
            asked += 1;
            asked <= most
        });
        most += 9;
        match ended {
            Ok(_) => break,
            Err(MoveError::Ended) => cuts += 1,
            Err(error) => panic!("{error}"),
        }
        let refused = opened(&there, &dir).unwrap_err();
        assert!(matches!(&refused, OpenError::HalfMoved { .. }), "{refused}");
        // It is used again where it was, and changes: even what only one row may hold goes from one to another.
        home.reopen();
        let specs: Vec<Spec> = (0..4)
            .map(|n| with_id(&format!("late-{cuts}-{n}"), &format!("8:acs:l{cuts}-{n}")))
            .collect();
        home.declare(specs, at(200)).await.unwrap();
        let swap = "INSERT INTO source (num, name) VALUES (1, 'one'), (2, 'two') ON CONFLICT DO NOTHING; \
                    UPDATE source SET name = name || '?'; \
                    UPDATE source SET name = CASE name WHEN 'one?' THEN 'two' ELSE 'one' END";
        sql(&home, swap).await;
        commit(
            &home,
            issued(get(&home, "bot-04").await.num, 300 + cuts, None),
            301 + cuts,
        )
        .await;
    }
    assert!(cuts > 5, "{cuts}");
    take_back(&file).unwrap();
    home.reopen();
    let before = told(&home).await;
    home.store = None;
    let store = opened(&there, &dir).unwrap();
    assert_eq!(told(&store).await, before);
}

#[tokio::test]
async fn a_place_that_is_not_free_is_left_alone() {
    let mut home = rich().await;
    let (dir, database) = (home.dir.path().to_owned(), Postgres::shared().database());
    home.store = None;
    let file = settings(&dir);
    let place = in_database(&database.url());
    database.sql("CREATE TABLE theirs (num INT)");
    let refused = moved(&file, &place, &mut |_| true).unwrap_err();
    assert!(matches!(refused, MoveError::There { .. }), "{refused}");
    database.sql("DROP TABLE theirs");
    moved(&file, &place, &mut |moving| !matches!(moving, Moving::Last)).unwrap_err();
    // Another store does not go on with what this one began.
    let other = rich().await;
    let elsewhere = other.dir.path().to_owned();
    drop(other);
    let other = StoreSettings {
        place: StorePlace::File(elsewhere.join("gone.db")),
        ..settings(&elsewhere)
    };
    assert!(matches!(
        moved(&other, &place, &mut |_| true),
        Err(MoveError::Open(_))
    ));
    home.reopen();
    assert_eq!(
        home.list(None, 1000).await.unwrap().len(),
        40,
        "it is used where it was"
    );
}

/// Its connections were cut, so that nobody saw that the store was in use.
#[tokio::test]
async fn a_machine_that_was_away_while_it_went_writes_nothing_any_more() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let there = StoreSettings {
        node: Some("web-1".parse().unwrap()),
        ..served(dir.path(), &database)
    };
    let (store, _) = Store::open(&there, dir.path(), at(0)).unwrap();
    declare(&store, &[with_id("bot", "8:acs:bot")], 0).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name LIKE 'renewd %' AND application_name NOT LIKE '% move'";
    let gone = moved(
        &there,
        &StorePlace::File(dir.path().join("again.db")),
        &mut |moving| {
            if matches!(moving, Moving::InUse { .. }) {
                database.sql(cut);
            }
            true
        },
    );
    gone.unwrap();
    let other = || store.declare(vec![with_id("other", "8:acs:other")], at(102));
    let refused = other().await.unwrap_err().to_string();
    assert!(refused.contains("again.db"), "{refused}");

    assert!(take_back(&there).unwrap());
    other().await.unwrap();
}

#[tokio::test]
async fn it_is_cut_off_before_its_first_row_and_goes_on() {
    let mut home = rich().await;
    let (dir, database) = (home.dir.path().to_owned(), Postgres::shared().database());
    let there = served(&dir, &database);
    home.store = None;
    let conn = session(&there, "test").unwrap();
    let tables = || {
        let sql =
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()";
        conn.first(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    // What the place says of itself is there together with its first table.
    let cut = |_: &crate::sql::Connection| Err(SqlError::Lost("cut".to_owned()));
    assert!(schema::make(&conn, cut).is_err());
    assert_eq!(tables(), Some(0));
    let mark = backup::MovedPart {
        from: home.dir.path().display().to_string(),
        seal_key: rusqlite::Connection::open(dir.join("renewd.db"))
            .unwrap()
            .query_one("SELECT value FROM meta WHERE key = 'seal_key'", [], |row| {
                row.get(0)
            })
            .unwrap(),
        table: String::new(),
    };
    schema::migrate_to(&conn, 0, schema::NEWEST - 1).unwrap();
    let said = serde_json::to_string(&mark).unwrap();
    crate::store::db::set_meta(&conn, backup::MOVING, said).unwrap();
    drop(conn);
    moved(&settings(&dir), &there.place, &mut |_| true).unwrap();
    assert!(opened(&there, &dir).is_ok());
}

/// The second one waits for the same daemon to stop, and goes on when the first has ended.
#[tokio::test]
async fn of_two_moves_at_once_the_later_leaves_alone_what_the_first_has_made() {
    let mut home = rich().await;
    let (dir, database) = (home.dir.path().to_owned(), Postgres::shared().database());
    let (file, there) = (settings(&dir), served(&dir, &database));
    let mut used = home.store.take();
    let late = moved(&file, &there.place, &mut |moving| {
        if matches!(moving, Moving::InUse { .. }) && used.take().is_some() {
            moved(&file, &there.place, &mut |_| true).unwrap();
            let store = opened(&there, &dir).unwrap();
            let declared = store.declare(vec![with_id("new", "8:acs:new")], at(102));
            declared.now_or_never().unwrap().unwrap();
        }
        true
    });
    assert!(matches!(late, Err(MoveError::There { .. })), "{late:?}");
    let store = opened(&there, &dir).unwrap();
    assert_eq!(
        get(&store, "new").await.id,
        Some("8:acs:new".parse().unwrap())
    );
    drop(store);
    assert!(matches!(opened(&file, &dir), Err(OpenError::Moved { .. })));
}
