//! What the store costs, and that it does not grow with what is due: `cargo bench --bench store [MANY [FEW]]`.
//! Two stores are filled, of few and of many identities that are all due, and each number of the second is told
//! beside that of the first. On a busy machine only the ratios say something.
#![allow(missing_docs, clippy::print_stdout, reason = "a bench prints")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench measures and ends where anything fails"
)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use renewd::{
    config::{Owner, StoreSettings},
    model::{
        Attempt, Change, Due, DueReason, OnRemoval, Origin, ResourceName, Scope, Secret, Spec,
        Token, TokenMeta,
    },
    store::{Opened, Store, Work},
};

/// Rows that a renewer takes into hand at once.
const HANDFUL: usize = 256;

fn settings(dir: &std::path::Path) -> StoreSettings {
    StoreSettings {
        path: dir.join("renewd.db"),
        seal_key: None,
        keep_renewals: Duration::from_hours(24),
        keep_other: Duration::from_hours(24),
        owner: Owner::default(),
        save_before_migration: false,
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
        id: Some(format!("8:acs:bench_{n:07}").parse().unwrap()),
        scopes: vec![Scope::Chat],
        lifetime: Duration::from_hours(24),
        renew_at: 0.5,
        spread: 0.02,
        labels: [].into(),
        readers: Vec::new(),
        sinks: Vec::new(),
        on_removal: OnRemoval::Hold,
        origin: Origin::Cli,
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

async fn measure(store: &Store) -> Vec<(&'static str, f64)> {
    let (mut reading, mut writing, mut done) = (0.0, 0.0, 0);
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
    }
    let mut told = vec![
        ("find what is due, µs a renewal", reading / done as f64),
        ("commit, µs a renewal", writing / done as f64),
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
    told
}

async fn run(rows: usize) -> Vec<(&'static str, f64)> {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), start());
    fill(&store, rows).await;
    let mut told = measure(&store).await;
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
