//! Tests of the room: each verb on an inline store in a folder of its own; and again on a PostgreSQL, where `on_postgres!`
//! says so. What is left out there is about files, damage or SQLite's own notions, or about no store at all (`engines`
//! holds the list).

/// These tests of a module once more, with their stores in PostgreSQL.
macro_rules! on_postgres {
    ($($test:ident)+) => {
        mod on_postgres {
            $(
                #[test]
                fn $test() {
                    super::super::on_postgres(super::$test);
                }
            )+
        }
    };
}

mod campaigns;
mod counters;
mod database;
mod declarations;
mod deliveries;
mod engines;
mod gone;
mod histories;
mod id_map;
mod journal;
mod leases;
mod mirror;
mod moving;
mod nodes;
mod notices;
mod open;
mod plans;
mod refusals;
mod renewals;
mod restores;
mod standby;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use renewd_database::{Database, Server as Postgres};
use tempfile::TempDir;

use super::{error::Answer, sinks::read_placed, *};
use crate::{
    config::{DatabaseSettings, SecretRef, StorePlace, StoreSettings},
    model::{
        Applied, Attempt, Change, Declaration, Due, DueReason, IdentityId, Name, Num, OnRemoval,
        Origin, Placed, Record, ResourceName, Scope, Secret, SinkAt, SinkName, Spec, State, Step,
        Then, Timestamp, Token, TokenDocument, TokenMeta, Version,
    },
    sql,
};

/// A store in a folder of its own, which can be closed and opened again.
struct Home {
    dir: TempDir,
    store: Option<Store>,
    opened: Opened,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, opened) = open(dir.path()).unwrap();
        Self {
            dir,
            store: Some(store),
            opened,
        }
    }

    /// A store as the next release leaves it.
    fn expanded() -> Self {
        let mut home = Self::new();
        home.store = None;
        expand(home.dir.path(), super::schema::NEWEST);
        home.reopen();
        home
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, opened) = open(self.dir.path()).unwrap();
        self.store = Some(store);
        self.opened = opened;
    }
}

impl std::ops::Deref for Home {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store.as_ref().unwrap()
    }
}

thread_local! {
    /// The databases of this test by the folders of their stores, where they lie in PostgreSQL.
    static DATABASES: RefCell<Option<BTreeMap<PathBuf, Database<'static>>>> = const { RefCell::new(None) };
}

/// Runs a test with its stores in PostgreSQL.
fn on_postgres(test: impl FnOnce()) {
    DATABASES.set(Some(BTreeMap::new()));
    test();
    DATABASES.set(None);
}

/// Does something with the database of a store, where it lies in PostgreSQL.
fn with_database<T>(dir: &Path, act: impl FnOnce(&Database<'_>) -> T) -> Option<T> {
    DATABASES.with_borrow_mut(|databases| {
        let databases = databases.as_mut()?;
        let database = databases
            .entry(dir.to_owned())
            .or_insert_with(|| Postgres::shared().database());
        Some(act(database))
    })
}

/// Loses the database of a store; whether it lay in PostgreSQL.
fn lose_served(dir: &Path) -> bool {
    DATABASES.with_borrow_mut(|databases| {
        let databases = databases.as_mut();
        databases.is_some_and(|databases| databases.remove(dir).is_some())
    })
}

fn place(dir: &Path) -> StorePlace {
    let url = with_database(dir, |database| database.url());
    url.map_or_else(
        || StorePlace::File(dir.join("renewd.db")),
        |url| in_database(&url),
    )
}

fn in_database(url: &str) -> StorePlace {
    let from = SecretRef::Env("DATABASE".to_owned());
    let read = DatabaseSettings::read(&from, &Secret::new(url.to_owned()), None);
    StorePlace::Database(Box::new(read.unwrap()))
}

fn settings(dir: &Path) -> StoreSettings {
    StoreSettings {
        place: place(dir),
        seal_key: None,
        keep_renewals: Duration::from_hours(7 * 24),
        keep_other: Duration::from_hours(400 * 24),
        owner: crate::config::Owner::default(),
        save_before_migration: true,
        node: None,
        withdrawn_copy: None,
    }
}

fn open(dir: &Path) -> Result<(Store, Opened), OpenError> {
    Store::open_inline(&settings(dir), dir, at(0))
}

/// Takes a step that expands, as the next release does: one more table and index, one more column everywhere, and a
/// word to older code.
fn expand(dir: &Path, usable_from: i64) {
    let conn = rusqlite::Connection::open(dir.join("renewd.db")).unwrap();
    let tables: Vec<String> = {
        let sql =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut listed = conn.prepare(sql).unwrap();
        let rows = listed.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables {
        let sql = format!("ALTER TABLE {table} ADD COLUMN later TEXT NOT NULL DEFAULT 'not known'");
        conn.execute_batch(&sql).unwrap();
    }
    conn.execute_batch("CREATE TABLE later (num INTEGER PRIMARY KEY); CREATE INDEX later_due ON identity (later, due_at)")
        .unwrap();
    let newer = super::schema::NEWEST + 1;
    conn.pragma_update(None, "user_version", newer).unwrap();
    let word = super::schema::usable(newer, usable_from);
    super::db::set_meta(&conn.into(), super::schema::USABLE_KEY, word).unwrap();
}

/// So many seconds after the start of all tests.
fn at(secs: i64) -> Timestamp {
    let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(secs)
}

fn resource() -> ResourceName {
    "contoso".parse().unwrap()
}

fn sink_name(name: &str) -> SinkName {
    name.parse().unwrap()
}

fn sink(name: &str) -> SinkAt {
    sink_name(name).into()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn none() -> BTreeSet<Num> {
    BTreeSet::new()
}

/// What only tests ask of a store.
impl Store {
    async fn document(&self, num: Num) -> Answer<Option<TokenDocument>> {
        Ok(self.consignment(num).await?.map(|found| found.document))
    }

    /// The id that a name has or had, by its row or by the id map; not of deleted ones.
    async fn known_id(&self, name: &Name) -> Answer<Option<IdentityId>> {
        let name = name.clone();
        self.read("test", move |db| {
            let sql = "SELECT id FROM identity WHERE name = ?1 AND id IS NOT NULL \
                       AND (state <> 'deleted' OR removed = 2) \
                       UNION ALL SELECT id FROM remembered WHERE name = ?1";
            Ok(db.first(sql, [name.as_str()], |row| db::parsed(row, "id"))?)
        })
        .await
    }

    /// Where a sink's bundle lies.
    async fn bundle_of(&self, sink: &SinkAt) -> Answer<Option<Placed>> {
        let sink = sink.clone();
        self.read("test", move |db| {
            let sql = "SELECT path, digest FROM sink WHERE num = ?1 AND digest IS NOT NULL";
            Ok(db.first(sql, [db.sink_num(&sink)?], read_placed)?)
        })
        .await
    }

    async fn miscounts(&self) -> Answer<Vec<Miscount>> {
        self.read("test", |db| db.miscounts()).await
    }

    /// Whether as much as a batch of results could be written.
    async fn probe(&self) -> Answer<()> {
        self.write("write", |txn| {
            db::set_meta(&txn.conn, "probe", vec![0xa5_u8; 64 * 1024])?;
            db::set_meta(&txn.conn, "probe", sql::Null)?;
            Ok(())
        })
        .await
    }

    /// Takes the steps of rows, and notes how attempts at their items ended; the campaign ends with its last item.
    pub(crate) async fn settle_items(
        &self,
        id: CampaignId,
        steps: Vec<StepOn>,
        cause: &Cause,
        outcomes: Vec<(Num, ItemOutcome)>,
        now: Timestamp,
    ) -> Answer<()> {
        let cause = cause.clone();
        self.withdraw("note a campaign's results", move |txn| {
            txn.step(&steps, &cause, now)?;
            if let Some(campaign) = txn.campaign(id)? {
                for (num, outcome) in &outcomes {
                    let stand = txn.standing(*num)?.map(|row| row.stand());
                    txn.settle_item(&campaign, (*num, stand), outcome, now)?;
                }
            }
            txn.end_if_settled(id, now)
        })
        .await
    }
}

fn spec(text: &str) -> Spec {
    Spec {
        name: name(text),
        resource: resource(),
        origin: Origin::File,
        declared: Declaration {
            id: None,
            scopes: vec![Scope::Chat],
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
            labels: [("team".to_owned(), "support".to_owned())].into(),
            readers: vec!["bot".to_owned().into()],
            sinks: vec![sink_name("file")],
            on_removal: OnRemoval::Hold,
        },
    }
}

fn with_id(text: &str, id: &str) -> Spec {
    Spec {
        declared: Declaration {
            id: Some(id.parse().unwrap()),
            ..spec(text).declared
        },
        ..spec(text)
    }
}

/// A token obtained by a call at `began`, good for a day.
fn issued(num: Num, began: i64, id: Option<&str>) -> Change {
    Change::Issued {
        num,
        call_began: at(began),
        id: id.map(|id| id.parse().unwrap()),
        token: Token {
            secret: Secret::new(format!("canary-{num}-{began}")),
            meta: TokenMeta {
                issued_at: at(began),
                expires_at: at(began + 86_400),
                minted_by: "key1".to_owned(),
            },
        },
        due: Due {
            at: at(began + 43_200),
            why: DueReason::Renewal,
        },
        late_at: at(began + 64_800),
        attempt: attempt(began, "ok"),
    }
}

fn attempt(began: i64, result: &str) -> Attempt {
    Attempt {
        at: at(began),
        result: result.to_owned(),
        request_id: Some(format!("req-{began}")),
    }
}

async fn declare(store: &Store, specs: &[Spec], secs: i64) -> Reconciled {
    let sinks = [sink("file"), sink("hook")];
    store.reconcile(specs, &sinks, at(secs)).await.unwrap()
}

async fn get(store: &Store, text: &str) -> Record {
    store.record(&name(text)).await.unwrap().unwrap()
}

async fn commit(store: &Store, change: Change, secs: i64) -> Applied {
    store.commit(vec![change], at(secs)).await.unwrap()[0]
}

/// A store with one identity that has a token since second 10.
async fn active() -> (Home, Num) {
    let home = Home::new();
    declare(&home, &[with_id("bot", "8:acs:bot")], 0).await;
    let num = get(&home, "bot").await.num;
    let applied = commit(&home, issued(num, 10, None), 11).await;
    assert!(matches!(applied, Applied::Done(_)));
    (home, num)
}

fn version(applied: Applied) -> Version {
    match applied {
        Applied::Done(version) => version,
        Applied::Stale => panic!("stale"),
    }
}

/// Runs SQL on the store's own connection, as no verb does.
async fn sql(store: &Store, text: &'static str) {
    let ran = store.write("test", move |txn| {
        let statements = text.split(';').filter(|one| !one.trim().is_empty());
        Ok(statements
            .map(|one| txn.run(one, []))
            .collect::<Result<Vec<_>, _>>()?)
    });
    ran.await.unwrap();
}

/// A number that SQL finds.
async fn number(store: &Store, text: &'static str) -> i64 {
    let found = store.read("test", move |db| Ok(db.first(text, [], |row| row.get(0))?));
    found.await.unwrap().unwrap()
}

async fn step(store: &Store, num: Num, step: Step, secs: i64) -> Version {
    let steps = vec![StepOn {
        num,
        step,
        request_id: Some("req-step".to_owned()),
    }];
    let cause = Cause::ours("because");
    store.step(steps, &cause, at(secs)).await.unwrap()[0]
}

async fn pending(store: &Store, to: &str, secs: i64) -> Vec<Delivery> {
    let (to, skip) = (sink(to), none());
    let found = store.pending(&to, at(secs), 100, &skip).await.unwrap();
    found.deliveries
}

async fn deliver(store: &Store, to: &str, num: Num, version: Version) {
    let settled = Settled::Delivered {
        sink: sink(to),
        num,
        version,
    };
    store.settle(vec![settled], at(0)).await.unwrap();
}

fn revoked(secs: i64, then: Then) -> Step {
    Step::Revoked { at: at(secs), then }
}

/// ACS says that a row is gone.
fn said_gone(num: Num, secs: i64, result: &str) -> Change {
    Change::Gone {
        num,
        attempt: attempt(secs, result),
        because: "404 IdentityNotFound".to_owned(),
    }
}
