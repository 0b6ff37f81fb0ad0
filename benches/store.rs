//! What the store costs, and that it does not grow with what is due: `cargo bench --bench store [MANY [FEW]]`.
//! Two stores are filled, of few and of many identities that are all due, and each number of the second is told
//! beside that of the first. On a busy machine only the ratios say something: what is written is told as a multiple of
//! an UPDATE of one row of the same size, measured in the same rounds.
#![allow(missing_docs, clippy::print_stdout, reason = "a bench prints")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench measures and ends where anything fails"
)]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use renewd::{
    config::{Owner, StorePlace, StoreSettings},
    model::{
        Attempt, Change, Declaration, Due, DueReason, OnRemoval, Origin, ResourceName, Scope,
        Secret, Spec, Step, Token, TokenMeta,
    },
    store::{
        CampaignAction, Cause, Decided, ItemEnd, ItemNote, ItemOutcome, NewCampaign, Opened,
        Posting, StepOn, Store, Target, Work,
    },
};

/// Rows that a renewer takes into hand at once.
const HANDFUL: usize = 256;

fn settings(dir: &std::path::Path) -> StoreSettings {
    StoreSettings {
        place: StorePlace::File(dir.join("renewd.db")),
        seal_key: None,
        keep_renewals: Duration::from_hours(24),
        keep_other: Duration::from_hours(24),
        owner: Owner::default(),
        save_before_migration: false,
        node: None,
        withdrawn_copy: None,
    }
}

fn open(dir: &std::path::Path, now: Timestamp) -> (Store, Opened) {
    Store::open(&settings(dir), dir, now).unwrap()
}

fn start() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn after(secs: i64) -> Timestamp {
    start() + SignedDuration::from_secs(secs)
}

fn resource() -> ResourceName {
    "contoso".parse().unwrap()
}

fn spec(n: usize) -> Spec {
    Spec {
        name: format!("bot-{n:07}").parse().unwrap(),
        resource: resource(),
        origin: Origin::Cli,
        declared: Declaration {
            id: Some(format!("8:acs:bench_{n:07}").parse().unwrap()),
            scopes: vec![Scope::Chat],
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
            labels: [].into(),
            readers: Vec::new(),
            sinks: Vec::new(),
            on_removal: OnRemoval::Hold,
        },
    }
}

fn issued(num: i64, at: Timestamp, due: Timestamp) -> Change {
    Change::Issued {
        num,
        call_began: at,
        id: None,
        token: Token {
            secret: Secret::new("x".repeat(900)),
            meta: TokenMeta {
                issued_at: at,
                expires_at: at + SignedDuration::from_hours(24),
                minted_by: "key1".to_owned(),
            },
        },
        due: Due {
            at: due,
            why: DueReason::Renewal,
        },
        late_at: at + SignedDuration::from_hours(18),
        attempt: Attempt {
            at,
            result: "ok".to_owned(),
            request_id: Some("req".to_owned()),
        },
    }
}

/// Identities that have a token and are due again at once, in no order.
async fn fill(store: &Store, rows: usize) {
    for from in (0..rows).step_by(5000) {
        let specs = (from..rows.min(from + 5000))
            .map(|n| spec(n * 7919 % rows))
            .collect();
        store.declare(specs, start()).await.unwrap();
    }
    let (mut seconds, mut made) = (0, 0);
    while made < rows {
        let at = after(seconds);
        let due = store
            .due(&resource(), Work::Issue, at, 1000, &BTreeSet::new())
            .await
            .unwrap();
        let due: Vec<_> = due.into_iter().filter(|row| row.token.is_none()).collect();
        assert!(!due.is_empty(), "{made} of {rows} were made");
        let changes: Vec<_> = due
            .iter()
            .map(|row| issued(row.num, at, after(40_000)))
            .collect();
        made += changes.len();
        store.commit(changes, at).await.unwrap();
        seconds += 1;
    }
}

/// Microseconds of one of so many.
fn each(began: Instant, times: usize) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / times as f64
}

async fn measure(store: &Store, one_row: &mut OneRow) -> Vec<(&'static str, f64)> {
    let (mut reading, mut writing, mut done) = (0.0, 0.0, 0);
    let mut row = Vec::new();
    let (nobody, place) = (BTreeSet::new(), resource());
    for round in 0..20 {
        let now = after(50_000 + round);
        let began = Instant::now();
        let due = store
            .due(&place, Work::Issue, now, HANDFUL, &nobody)
            .await
            .unwrap();
        let failing = store.due_in(&place, (Work::Issue, true), now, HANDFUL, &nobody);
        assert!(failing.await.unwrap().is_empty());
        store.next_due(&place, Work::Issue, &nobody).await.unwrap();
        reading += began.elapsed().as_secs_f64() * 1e6;
        let changes: Vec<_> = due
            .iter()
            .map(|row| issued(row.num, now, after(200_000)))
            .collect();
        done += changes.len();
        let began = Instant::now();
        store.commit(changes, now).await.unwrap();
        writing += began.elapsed().as_secs_f64() * 1e6;
        row.push(one_row.update(due.len()));
    }
    let (plain, row) = (writing / done as f64, median(row));
    let mut told = vec![
        ("find what is due, µs a renewal", reading / done as f64),
        ("commit, µs a renewal", plain),
        ("commit, of an UPDATE of one row", plain / row),
    ];
    let began = Instant::now();
    for _ in 0..50 {
        store.earliest_expiry().await.unwrap();
    }
    told.push(("earliest expiry, µs", each(began, 50)));
    let began = Instant::now();
    for _ in 0..50 {
        store.ended_tokens(&place, after(50_000)).await.unwrap();
        store.next_end_by_socket(after(50_000)).await.unwrap();
        store.counts().await.unwrap();
    }
    told.push(("what /metrics asks besides, µs", each(began, 50)));
    let began = Instant::now();
    for _ in 0..10 {
        store.late(after(150_000)).await.unwrap();
        store.overdue_since(after(150_000)).await.unwrap();
    }
    told.push(("late and overdue, µs", each(began, 10)));
    let items = one_row.rows.min(5_000);
    let (item, row) = campaign(store, one_row, items).await;
    told.push(("item of renew --all, µs", item));
    told.push(("the same, of an UPDATE of one row", item / row));
    told
}

/// A table of one index, as large as the store's, of which single rows are changed: what a write costs at the least.
struct OneRow {
    conn: rusqlite::Connection,
    rows: usize,
    next: usize,
}

impl OneRow {
    fn new(dir: &std::path::Path, rows: usize) -> Self {
        let conn = rusqlite::Connection::open(dir.join("one-row.db")).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA cache_size = -16384; \
             CREATE TABLE one (num INTEGER PRIMARY KEY, at INTEGER, body BLOB); CREATE INDEX one_at ON one (at)",
        )
        .unwrap();
        conn.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
             INSERT INTO one SELECT i, i * 7919 % ?1, zeroblob(1400) FROM n",
            [rows as i64],
        )
        .unwrap();
        Self {
            conn,
            rows,
            next: 0,
        }
    }

    /// Microseconds of one, of so many in one transaction.
    fn update(&mut self, many: usize) -> f64 {
        let began = Instant::now();
        self.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..many {
            self.next = (self.next + 7919) % self.rows;
            let sql = "UPDATE one SET at = at + 1000000, body = zeroblob(1400) WHERE num = ?1";
            let mut statement = self.conn.prepare_cached(sql).unwrap();
            statement.execute([self.next as i64 + 1]).unwrap();
        }
        self.conn.execute_batch("COMMIT").unwrap();
        each(began, many)
    }
}

/// `renew --all` of some: microseconds of an item from its listing to its end, without the calls; and of one row.
async fn campaign(store: &Store, one_row: &mut OneRow, items: usize) -> (f64, f64) {
    let (place, nobody, at) = (resource(), BTreeSet::new(), after(300_000));
    let listed = (0..items).map(|n| renewd::store::Wanted::Row(n as i64 + 1));
    let new = NewCampaign::new(
        CampaignAction::Renew,
        None,
        Target::Items(listed.collect()),
        Cause::ours("a bench"),
    );
    let began = Instant::now();
    let id = store.create_campaign(new, at).await.unwrap();
    let campaign = Arc::new(store.campaign(id).await.unwrap().unwrap());
    let (mut spent, mut row) = (began.elapsed().as_secs_f64() * 1e6, Vec::new());
    loop {
        let began = Instant::now();
        let found = store.campaign_items(id, &place, false, HANDFUL, &nobody);
        let found = found.await.unwrap();
        if found.is_empty() {
            break;
        }
        let notes = found.iter().map(|item| {
            ItemNote::Ended(Box::new(ItemEnd {
                campaign: campaign.clone(),
                num: item.num,
                step: Some(StepOn {
                    num: item.num,
                    step: Step::Due(DueReason::Requested),
                    request_id: None,
                }),
                outcome: ItemOutcome::Done {
                    at,
                    request_id: None,
                },
                notice: None,
                again_at: None,
            }))
        });
        let notes = Arc::new(notes.collect());
        store.note_items(&place, notes, at).await.unwrap();
        let postings = found.iter().map(|item| {
            Posting::Decided(Decided {
                change: issued(item.num, at, after(400_000)),
                notices: Vec::new(),
            })
        });
        let postings = Arc::new(postings.collect());
        store.post(postings, at).await.unwrap();
        spent += began.elapsed().as_secs_f64() * 1e6;
        row.push(one_row.update(found.len()));
    }
    let ended = store.campaign(id).await.unwrap().unwrap();
    assert_eq!(ended.done as usize, items, "{ended:?}");
    (spent / items as f64, median(row))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn run(rows: usize) -> Vec<(&'static str, f64)> {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), start());
    fill(&store, rows).await;
    let mut one_row = OneRow::new(dir.path(), rows);
    let mut told = measure(&store, &mut one_row).await;
    store.prune(500, after(60_000)).await.unwrap();
    drop(store);
    let began = Instant::now();
    let (store, opened) = open(dir.path(), after(70_000));
    told.push(("open, ms", each(began, 1000)));
    assert_eq!(opened.broken_id_lines, 0);
    drop(store);
    told
}

#[tokio::main]
async fn main() {
    let mut sizes = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let many = sizes.next().unwrap_or(200_000);
    let few = sizes.next().unwrap_or(10_000);
    let (of_few, of_many) = (run(few).await, run(many).await);
    println!("{:32} {few:>12} {many:>12}  ratio", "due at once");
    for ((what, few), (_, many)) in of_few.into_iter().zip(of_many) {
        println!("{what:32} {few:12.1} {many:12.1} {:6.2}", many / few);
    }
}
