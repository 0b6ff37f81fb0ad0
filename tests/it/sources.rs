//! Sources of identities, in simulated time: what is noticed, what it touches, and that nothing that
//! happens to a source ever removes anybody by itself.

use std::{path::PathBuf, time::Duration};

use renewd::{
    clock::Clock,
    config::{MaxRemoval, Renewal, SourceKind, SourceSettings, StorePlace, StoreSettings},
    engine::{Apply, SourceAsk, SourceSync, SourceSyncDeps},
    model::{Declaration, Name, NoticeKind, Record, Scope, SourceReport, SourceView, State},
    store::{AuditQuery, Store},
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::stage::soak;

const EVERY: Duration = Duration::from_secs(10);

/// A source, its source sync and the store that it fills.
struct Intaken {
    dir: tempfile::TempDir,
    clock: Clock,
    store: Store,
    asks: mpsc::Sender<SourceAsk>,
    view: watch::Receiver<SourceView>,
    stop: CancellationToken,
}

impl Intaken {
    /// Starts on whatever the folder holds.
    fn start(dir: tempfile::TempDir, clock: Clock, kind: SourceKind) -> Self {
        Self::start_as(dir, clock, source(kind))
    }

    fn start_as(dir: tempfile::TempDir, clock: Clock, of: SourceSettings) -> Self {
        let settings = StoreSettings {
            place: StorePlace::File(dir.path().join("renewd.db")),
            seal_key: None,
            keep_renewals: EVERY,
            keep_other: EVERY,
            owner: renewd::config::Owner::default(),
            save_before_migration: true,
            node: None,
            withdrawn_copy: None,
        };
        let (store, _) = Store::open_inline(&settings, dir.path(), clock.now()).unwrap();
        let deps = SourceSyncDeps {
            settings: of,
            store: store.clone(),
            clock: clock.clone(),
        };
        let (source_sync, asks) = SourceSync::new(deps);
        let (stop, view) = (CancellationToken::new(), source_sync.view());
        let run = source_sync.run(stop.clone());
        tokio::spawn(async move { run.await.unwrap() });
        Self {
            dir,
            clock,
            store,
            asks,
            view,
            stop,
        }
    }

    async fn pass(&self) {
        tokio::time::sleep(EVERY + Duration::from_secs(1)).await;
    }

    async fn record(&self, name: &str) -> Option<Record> {
        self.store.record(&name.parse().unwrap()).await.unwrap()
    }

    /// How many identities are in a state that wants a token, and how many are held.
    async fn wanted_and_held(&self) -> (usize, usize) {
        let (mut wanted, mut held, mut after): (_, _, Option<Name>) = (0, 0, None);
        loop {
            let page = self.store.list(after.as_ref(), 1000).await.unwrap();
            let Some(last) = page.last() else {
                return (wanted, held);
            };
            after = Some(last.spec.name.clone());
            held += page
                .iter()
                .filter(|record| record.state == State::Held)
                .count();
            wanted += page
                .iter()
                .filter(|record| record.state.wants_token())
                .count();
        }
    }

    /// What was taken over, newest first, as the audit trail has it.
    async fn trail(&self) -> Vec<String> {
        let query = AuditQuery {
            limit: 1000,
            ..AuditQuery::default()
        };
        let trail = self.store.audit_trail(query).await.unwrap();
        trail
            .into_iter()
            .filter(|entry| entry.action == "source")
            .map(|entry| entry.result)
            .collect()
    }

    async fn notices(&self) -> Vec<(NoticeKind, String)> {
        let notices = self.store.notices(0, 1000).await.unwrap();
        notices
            .into_iter()
            .map(|(_, notice)| (notice.kind, notice.message))
            .collect()
    }

    fn lapse(&self) -> Option<String> {
        self.view
            .borrow()
            .lapse
            .as_ref()
            .map(|lapse| lapse.reason.clone())
    }

    async fn ask(&self, apply: Option<bool>) -> Result<SourceReport, String> {
        let (answer, answered) = oneshot::channel();
        let apply = apply.map(|confirmed| Apply {
            actor: "a person".to_owned(),
            confirmed,
        });
        self.asks.send(SourceAsk { apply, answer }).await.unwrap();
        answered.await.unwrap()
    }

    /// Ends the source sync and the store.
    async fn stopped(self) -> (tempfile::TempDir, Clock) {
        self.stop.cancel();
        self.asks.closed().await;
        (self.dir, self.clock)
    }

    /// Ends the source sync and the store, and starts them again on the same folder.
    async fn restart(self, kind: SourceKind) -> Self {
        let (dir, clock) = self.stopped().await;
        Self::start(dir, clock, kind)
    }
}

fn source(kind: SourceKind) -> SourceSettings {
    SourceSettings {
        name: "app-users".parse().unwrap(),
        kind,
        every: EVERY,
        resource: "contoso".parse().unwrap(),
        rows: Declaration {
            scopes: vec![Scope::Chat],
            ..Renewal::default().declaration()
        },
        max_removal: MaxRemoval {
            share: 0.2,
            count: 10,
        },
        max_scopes: None,
        max_readers: None,
        max_lifetime: None,
        adopt_ids: Some(true),
        nodes: Vec::new(),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("renewd-sources-")
        .tempdir()
        .unwrap()
}

fn clock() -> Clock {
    Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap())
}

fn app(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("app.db")
}

fn query(dir: &tempfile::TempDir) -> SourceKind {
    SourceKind::Sqlite {
        path: app(dir),
        query: "SELECT name, team AS label_team FROM users".to_owned(),
    }
}

/// An application's database with so many users.
fn database(path: &PathBuf, users: usize, journal: &str) -> Connection {
    let owner = Connection::open(path).unwrap();
    owner.pragma_update(None, "journal_mode", journal).unwrap();
    owner
        .execute_batch(&format!(
            "CREATE TABLE users (name TEXT PRIMARY KEY, team TEXT); \
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {users}) \
             INSERT INTO users SELECT printf('user-%06d', i), 'blue' FROM n"
        ))
        .unwrap();
    owner
}

#[tokio::test(start_paused = true)]
async fn a_change_is_noticed_in_time_and_touches_only_what_differs() {
    let (users, touched) = if soak() {
        (100_000, 1_000)
    } else {
        (10_000, 100)
    };
    let dir = folder();
    let (kind, owner) = (query(&dir), database(&app(&dir), users, "wal"));
    let harness = Intaken::start(dir, clock(), kind);
    harness.pass().await;
    assert_eq!(harness.wanted_and_held().await, (users, 0));
    owner
        .execute(
            "UPDATE users SET team = 'red' WHERE name IN (SELECT name FROM users LIMIT ?1)",
            [touched],
        )
        .unwrap();
    harness.pass().await;
    assert_eq!(
        harness.trail().await,
        [
            format!("+0 ~{touched} -0, 0 refused"),
            format!("+{users} ~0 -0, 0 refused")
        ]
    );
    assert_eq!(
        harness
            .record("user-000000")
            .await
            .unwrap()
            .spec
            .declared
            .labels["team"],
        "red"
    );
    for _ in 0..5 {
        harness.pass().await;
    }
    assert_eq!(
        harness.trail().await.len(),
        2,
        "nothing happened, nothing was written"
    );
    assert_eq!(harness.notices().await, []);
}

/// Puts another file in the place of one.
fn put(path: &PathBuf, content: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// Lets something happen to a database; what holds it, where that is what happens.
fn befall(what: &str, path: &PathBuf) -> Option<Connection> {
    match what {
        "stopped" => std::fs::remove_file(path).unwrap(),
        "broken" => put(
            path,
            b"this is not a database, however long one looks at it",
        ),
        "emptied" => {
            let owner = Connection::open(path).unwrap();
            owner.execute("DELETE FROM users", []).unwrap();
        }
        "replaced" => {
            // Made while the old one is still there, so that it is another file for certain.
            let other = path.with_extension("other");
            drop(database(&other, 49, "delete"));
            std::fs::rename(&other, path).unwrap();
        }
        _ => {
            let holder = Connection::open(path).unwrap();
            holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
            return Some(holder);
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_a_source_removes_nobody_and_has_a_reason() {
    let dir = folder();
    let (kind, owner) = (query(&dir), database(&app(&dir), 50, "delete"));
    let harness = Intaken::start(dir, clock(), kind);
    harness.pass().await;
    drop(owner);
    let path = app(&harness.dir);
    let good = std::fs::read(&path).unwrap();
    let mut told = 0;
    for (what, word) in [
        ("stopped", "No such file"),
        ("broken", "no SQLite database"),
        ("emptied", "empty"),
        ("replaced", "replaced"),
        ("locked", "locked"),
    ] {
        let lock = befall(what, &path);
        harness.pass().await;
        harness.pass().await;
        let lapse = harness
            .lapse()
            .unwrap_or_else(|| panic!("{what}: nobody was told"));
        assert!(lapse.contains(word), "{what}: {lapse}");
        assert_eq!(harness.wanted_and_held().await, (50, 0), "{what}");
        drop(lock);
        put(&path, &good);
        harness.pass().await;
        assert_eq!(harness.lapse(), None, "{what}: it is good again");
        told += 2;
        let notices = harness.notices().await;
        assert_eq!(
            notices.len(),
            told,
            "{what}: one notice at the begin, one at the end: {notices:?}"
        );
        assert_eq!(notices[told - 2].0, NoticeKind::SourceLapsed);
        assert_eq!(notices[told - 1].0, NoticeKind::SourceRecovered);
    }
    assert_eq!(
        harness.trail().await.len(),
        1,
        "no list but the first was taken over"
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_removal_needs_a_persons_word_over_restarts_too() {
    let dir = folder();
    let (kind, owner) = (query(&dir), database(&app(&dir), 50, "wal"));
    let harness = Intaken::start(dir, clock(), kind.clone());
    harness.pass().await;
    owner
        .execute("DELETE FROM users WHERE name < 'user-000010'", [])
        .unwrap();
    harness.pass().await;
    assert_eq!(
        harness.wanted_and_held().await,
        (40, 10),
        "ten of fifty may go"
    );
    owner
        .execute("DELETE FROM users WHERE name < 'user-000021'", [])
        .unwrap();
    harness.pass().await;
    assert_eq!(
        harness.wanted_and_held().await,
        (40, 10),
        "eleven of forty may not"
    );
    assert!(
        harness
            .lapse()
            .unwrap()
            .contains("source apply app-users --yes")
    );
    let harness = harness.restart(kind).await;
    harness.pass().await;
    assert_eq!(harness.wanted_and_held().await, (40, 10));
    let report = harness.ask(None).await.unwrap();
    assert_eq!((report.removed.len(), report.applied), (11, false));
    assert!(report.blocked.is_some());
    assert!(!harness.ask(Some(false)).await.unwrap().applied);
    assert!(harness.ask(Some(true)).await.unwrap().applied);
    assert_eq!(harness.wanted_and_held().await, (29, 21));
    let kinds: Vec<_> = harness
        .notices()
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        kinds,
        [NoticeKind::SourceLapsed, NoticeKind::SourceRecovered],
        "one lapse, told once"
    );
    owner
        .execute("INSERT INTO users VALUES ('user-000000', 'blue')", [])
        .unwrap();
    harness.pass().await;
    assert_eq!(
        harness.record("user-000000").await.unwrap().state,
        State::New,
        "listed again, released"
    );
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_identities_are_refused_and_their_names_stay() {
    let dir = folder();
    let path = dir.path().join("users.jsonl");
    let kind = SourceKind::File { path: path.clone() };
    let lines = |lines: &[&str]| {
        let beside = path.with_extension("new");
        std::fs::write(&beside, lines.join("\n")).unwrap();
        std::fs::rename(&beside, &path).unwrap();
    };
    lines(&[r#"{"name":"anna","id":"8:acs:1_1"}"#, r#"{"name":"bert"}"#]);
    let harness = Intaken::start(dir, clock(), kind);
    harness.pass().await;
    assert_eq!(harness.wanted_and_held().await, (2, 0));
    lines(&[
        r#"{"name":"anna","id":"8:acs:1_1"}"#,
        r#"{"name":"bert","scopes":["calls"]}"#,
        r#"{"name":"../../etc/cron.d/x"}"#,
        r#"{"name":"carl","id":"8:acs:1_2"}"#,
        r#"{"name":"dora","id":"8:acs:1_2"}"#,
        "nonsense",
        r#"{"name":"emil","sinks":["files"]}"#,
        r#"{"name":"fred","id":"8:acs:1_1"}"#,
    ]);
    harness.pass().await;
    assert_eq!(
        harness.wanted_and_held().await,
        (2, 0),
        "nobody came, nobody went"
    );
    let report = harness.ask(None).await.unwrap();
    let numbers: Vec<u64> = report.refused.iter().map(|row| row.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8], "{:?}", report.refused);
    assert!(report.refused[4].reason.contains("carl, dora"));
    let lapse = harness
        .lapse()
        .expect("one row has no name that can be read");
    // Row 3 has a name that nobody can have: nobody stands there who would be missed.
    assert!(
        lapse.contains("row 6") && !lapse.contains("nor can"),
        "{lapse}"
    );
}

/// Puts these lines in a list's place.
fn put_lines(path: &PathBuf, lines: &[&str]) {
    put(path, lines.join("\n").as_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_may_not_be_whole_adds_and_changes_and_removes_nobody() {
    let dir = folder();
    let path = dir.path().join("users.jsonl");
    let kind = SourceKind::File { path: path.clone() };
    let anna = r#"{"name":"anna"}"#;
    put_lines(&path, &[anna, r#"{"name":"bert"}"#]);
    let harness = Intaken::start(dir, clock(), kind);
    harness.pass().await;
    for (damaged, line, word) in [
        (r#"{"name":"bert"},"#, "row 3", "a comma follows it"),
        (r#"{"name":"be"#, "row 3", "its end is missing"),
        (r#"{"name":null}"#, "row 3", "its name is not a text"),
        (r#"{"name":" bert"}"#, "row 3", "is not valid"),
    ] {
        put_lines(
            &path,
            &[
                r#"{"name":"anna","labels":{"a":"b"}}"#,
                r#"{"name":"carl"}"#,
                damaged,
            ],
        );
        harness.pass().await;
        assert_eq!(harness.wanted_and_held().await, (3, 0), "{damaged}");
        let lapse = harness
            .lapse()
            .unwrap_or_else(|| panic!("{damaged}: nobody was told"));
        assert!(lapse.contains(line) && lapse.contains(word), "{lapse}");
        assert!(lapse.contains("source apply app-users --yes"), "{lapse}");
    }
    let carl = harness.record("carl").await.unwrap();
    assert_eq!(carl.state, State::New, "who is new is taken over");
    assert_eq!(
        harness.record("anna").await.unwrap().spec.declared.labels["a"],
        "b"
    );
    assert_eq!(harness.notices().await.len(), 1, "told once");

    let report = harness.ask(Some(false)).await.unwrap();
    assert!(report.applied && report.doubt.is_some());
    assert_eq!(harness.wanted_and_held().await, (3, 0));
    assert!(harness.ask(Some(true)).await.unwrap().applied);
    assert_eq!(
        harness.wanted_and_held().await,
        (2, 1),
        "a person said that it is whole"
    );
    put_lines(
        &path,
        &[
            "\u{feff}{\"name\":\"anna\"}",
            r#"{"name":"bert"}"#,
            r#"{"name":"carl"}"#,
        ],
    );
    harness.pass().await;
    assert_eq!(
        (harness.wanted_and_held().await, harness.lapse()),
        ((3, 0), None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_that_asks_for_more_than_it_may_is_refused_by_name_and_keeps_what_it_had() {
    let dir = folder();
    let path = dir.path().join("users.jsonl");
    let kind = SourceKind::File { path: path.clone() };
    let bounded = SourceSettings {
        max_scopes: Some(vec![Scope::Chat]),
        max_readers: Some(vec!["app".to_owned().into()]),
        max_lifetime: Some(Duration::from_hours(2)),
        ..source(kind)
    };
    put_lines(
        &path,
        &[r#"{"name":"anna","readers":["app"],"lifetime":"2h"}"#],
    );
    let harness = Intaken::start_as(dir, clock(), bounded);
    harness.pass().await;
    let before = harness.record("anna").await.unwrap().spec;
    for (more, word) in [
        (r#""scopes":["chat","voip"]"#, "voip"),
        (r#""readers":["app","mallory"]"#, "mallory"),
        (r#""lifetime":"24h""#, "max_lifetime"),
    ] {
        let anna = format!("{{\"name\":\"anna\",{more}}}");
        put_lines(&path, &[&anna, &anna.replace("anna", "bert")]);
        harness.pass().await;
        assert_eq!(harness.record("anna").await.unwrap().spec, before, "{more}");
        assert!(harness.record("bert").await.is_none(), "{more}");
        let report = harness.ask(None).await.unwrap();
        let names: Vec<_> = report
            .refused
            .iter()
            .map(|row| row.name.clone().unwrap())
            .collect();
        assert_eq!(
            names.iter().map(Name::as_str).collect::<Vec<_>>(),
            ["anna", "bert"]
        );
        assert!(
            report.refused[0].reason.contains(word),
            "{:?}",
            report.refused
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_nobody_holds_is_adopted_only_where_the_configuration_says_so() {
    let dir = folder();
    let path = dir.path().join("users.jsonl");
    let kind = SourceKind::File { path: path.clone() };
    let silent = SourceSettings {
        adopt_ids: None,
        ..source(kind.clone())
    };
    put_lines(
        &path,
        &[r#"{"name":"anna","id":"8:acs:1_1"}"#, r#"{"name":"bert"}"#],
    );
    let harness = Intaken::start_as(dir, clock(), silent.clone());
    harness.pass().await;
    assert!(
        harness.record("anna").await.is_none(),
        "neither adopted nor created"
    );
    assert_eq!(harness.wanted_and_held().await, (1, 0));
    let report = harness.ask(None).await.unwrap();
    assert!(
        report.refused[0].reason.contains("adopt_ids = true"),
        "{:?}",
        report.refused
    );

    // Told so, it adopts; told nothing again, what is held stays and what is new is refused.
    let harness = harness.restart(kind.clone()).await;
    harness.pass().await;
    assert_eq!(harness.wanted_and_held().await, (2, 0));
    let (dir, clock) = harness.stopped().await;
    put_lines(
        &path,
        &[
            r#"{"name":"anna","id":"8:acs:1_1","labels":{"a":"b"}}"#,
            r#"{"name":"bert","id":"8:acs:1_2"}"#,
        ],
    );
    let harness = Intaken::start_as(dir, clock, silent);
    harness.pass().await;
    assert_eq!(
        harness.record("anna").await.unwrap().spec.declared.labels["a"],
        "b"
    );
    assert_eq!(harness.record("bert").await.unwrap().spec.declared.id, None);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_known_before_goes_on_adopting_and_says_what_to_write() {
    let dir = folder();
    let path = dir.path().join("users.jsonl");
    let silent = SourceSettings {
        adopt_ids: None,
        ..source(SourceKind::File { path: path.clone() })
    };
    put_lines(&path, &[r#"{"name":"anna"}"#]);
    let harness = Intaken::start_as(dir, clock(), silent.clone());
    harness.pass().await;
    let (dir, clock) = harness.stopped().await;
    put_lines(
        &path,
        &[r#"{"name":"anna"}"#, r#"{"name":"bert","id":"8:acs:1_2"}"#],
    );
    let old = Connection::open(dir.path().join("renewd.db")).unwrap();
    old.execute("UPDATE source SET adopts = 1", []).unwrap();
    drop(old);
    let harness = Intaken::start_as(dir, clock, silent);
    harness.pass().await;
    let id = harness
        .store
        .record(&"bert".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(id.spec.declared.id.unwrap().as_str(), "8:acs:1_2");
    let advice = harness.view.borrow().advice.clone().unwrap();
    assert!(advice.contains("`adopt_ids = true`"), "{advice}");
}
