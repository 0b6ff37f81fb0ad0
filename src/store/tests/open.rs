//! Opening and closing: what is kept, what is refused and with which words, what a copy holds and how damage shows,
//! and a seal key that is replaced while the process ends at every moment of it: what is closed and opened
//! again has on the disk what a killed process leaves there.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::{super::schema::NEWEST, *};
use crate::config::{LoadedSecret, SecretRef};

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let (mut home, num) = active().await;
    let before = (
        get(&home, "bot").await,
        home.document(num).await.unwrap(),
        home.seq(),
    );
    home.reopen();
    let after = (
        get(&home, "bot").await,
        home.document(num).await.unwrap(),
        home.seq(),
    );
    assert_eq!(before, after);
    assert_eq!(home.opened.taken_over, None);
    assert_eq!(home.opened.id_map, 1);
}

#[tokio::test]
async fn an_unchanged_restart_writes_nothing() {
    let (mut home, _) = active().await;
    let specs = [with_id("bot", "8:acs:bot")];
    home.reopen();
    let before = fs::read(home.path()).unwrap();
    let told = declare(&home, &specs, 100).await;
    assert!(told.is_unchanged(), "{told}");
    home.store = None;
    assert_eq!(before, fs::read(home.dir.path().join("renewd.db")).unwrap());
}

#[test]
fn a_second_owner_is_refused_and_told_the_pid_of_the_first() {
    let home = Home::new();
    let error = open(home.dir.path()).unwrap_err();
    let pid = std::process::id();
    assert!(
        error.to_string().contains(&format!("(pid {pid})")),
        "{error}"
    );
}

#[test]
fn a_newer_schema_is_refused_where_it_does_not_let_us_use_it() {
    let mut home = Home::new();
    home.store = None;
    let newer = NEWEST + 1;
    for usable_from in [newer, newer + 1] {
        expand(home.dir.path(), usable_from);
        let error = open(home.dir.path()).unwrap_err();
        let is_newer = matches!(error, OpenError::Newer { found, .. } if found == newer);
        assert!(is_newer, "{error}");
        home = Home::new();
        home.store = None;
    }
    // What was said of an older schema says nothing of this one.
    let conn = rusqlite::Connection::open(home.dir.path().join("renewd.db")).unwrap();
    conn.pragma_update(None, "user_version", newer).unwrap();
    drop(conn);
    let error = open(home.dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
}

/// A step back over one version: the next release has expanded the schema, and its tokens go on.
#[tokio::test]
async fn a_newer_schema_that_lets_us_use_it_serves_and_is_left_as_it_is() {
    let (mut home, num) = active().await;
    let before = home.document(num).await.unwrap();
    home.store = None;
    expand(home.dir.path(), NEWEST);
    home.reopen();
    assert_eq!(home.document(num).await.unwrap(), before);
    version(commit(&home, issued(num, 50, None), 51).await);
    let kept = backup(&home).await;
    assert_eq!(verify_backup(&kept).unwrap().schema, NEWEST + 1);
    home.store = None;
    let stock = stock_at_rest(&settings(home.dir.path()), &resource(), at(60)).unwrap();
    assert!(stock.is_some(), "a plan is made from it");
    let dir = elsewhere(&home, true);
    put_back(&kept, dir.path(), &RestoreHow::default()).unwrap();
    open(dir.path()).unwrap();
    home.reopen();
    assert_eq!(number(&home, "PRAGMA user_version").await, NEWEST + 1);
}

#[tokio::test]
async fn after_an_older_version_everything_is_counted_anew() {
    let (mut home, _) = active().await;
    let left = "SELECT count(*) FROM meta WHERE key = 'used_by_older'";
    home.reopen();
    assert_eq!(number(&home, left).await, 0);
    sql(&home, "UPDATE life_count SET n = n + 4; INSERT INTO meta (key, value) VALUES ('used_by_older', 1)").await;
    home.reopen();
    assert_eq!(home.miscounts().await.unwrap(), []);
    assert_eq!(number(&home, left).await, 0);

    home.store = None;
    expand(home.dir.path(), NEWEST);
    home.reopen();
    home.reopen();
    assert_eq!(
        number(&home, left).await,
        1,
        "the next release learns of us"
    );
}

#[tokio::test]
async fn damage_is_said_clearly() {
    let (mut home, _) = active().await;
    home.store = None;
    let path = home.dir.path().join("renewd.db");
    let whole = fs::read(&path).unwrap();
    let mut bent = whole.clone();
    bent[4096 * 2..4096 * 8].fill(0xff);
    for damaged in [
        b"this is no database, far from it".to_vec(),
        bent,
        whole[..9000].to_vec(),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = open(home.dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("identities.jsonl"));
    }
}

#[test]
fn a_wrong_or_missing_or_malformed_key_is_said_clearly() {
    let mut home = Home::new();
    home.store = None;
    let dir = home.dir.path();
    let with_key = |key: &str| StoreSettings {
        seal_key: Some(LoadedSecret {
            from: SecretRef::Credential("seal-key".to_owned()),
            secret: Secret::new(key.to_owned()),
        }),
        ..settings(dir)
    };
    let wrong = Store::open_inline(&with_key(&"07".repeat(32)), dir, at(0)).unwrap_err();
    assert!(matches!(wrong, OpenError::WrongKey { .. }), "{wrong}");
    let bad = Store::open_inline(&with_key("hunter2"), dir, at(0)).unwrap_err();
    assert!(matches!(bad, OpenError::BadKey { .. }), "{bad}");
    assert!(!bad.to_string().contains("hunter2"));
    fs::remove_file(dir.join("seal.key")).unwrap();
    let missing = open(dir).unwrap_err();
    assert!(matches!(missing, OpenError::KeyMissing { .. }), "{missing}");
    assert!(
        !dir.join("seal.key").exists(),
        "no key is made for a sealed store"
    );
}

#[tokio::test]
async fn every_file_is_ours_alone_and_none_holds_a_token_in_the_clear() {
    let (home, num) = active().await;
    for entry in fs::read_dir(home.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        let bytes = fs::read(entry.path()).unwrap();
        let canary = format!("canary-{num}");
        assert!(
            !bytes.windows(canary.len()).any(|w| w == canary.as_bytes()),
            "{:?}",
            entry.path()
        );
    }
}

#[tokio::test]
async fn a_row_moved_to_another_name_does_not_open() {
    let (mut home, num) = active().await;
    home.store = None;
    let conn = rusqlite::Connection::open(home.dir.path().join("renewd.db")).unwrap();
    conn.execute("UPDATE identity SET name = 'thief'", [])
        .unwrap();
    drop(conn);
    home.reopen();
    let error = home.document(num).await.unwrap_err();
    assert_eq!(
        error,
        StoreError::Unseal {
            name: name("thief")
        }
    );
}

#[tokio::test]
async fn the_threaded_store_answers_as_the_inline_one_and_shares_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&settings(dir.path()), dir.path(), at(0)).unwrap();
    let specs: Vec<Spec> = (0..200).map(|n| spec(&format!("bot-{n}"))).collect();
    declare(&store, &specs, 0).await;
    let due = store
        .due(&resource(), Work::Create, at(0), 500, &none())
        .await
        .unwrap();
    assert_eq!(due.len(), 200);
    let commits = due.iter().map(|record| {
        let id = format!("8:acs:{}", record.num);
        store.commit(vec![issued(record.num, 1, Some(&id))], at(2))
    });
    for applied in futures_util::future::join_all(commits).await {
        version(applied.unwrap()[0]);
    }
    assert_eq!(store.counts().await.unwrap().pending[&sink("file")], 200);
    drop(store);
    let (store, opened) = Store::open(&settings(dir.path()), dir.path(), at(0)).unwrap();
    assert_eq!(opened.id_map, 200);
    assert_eq!(store.list(None, 500).await.unwrap().len(), 200);
}

/// A backup of this store beside its folder's files.
async fn backup(home: &Home) -> PathBuf {
    let mut bytes = Vec::new();
    let mut file = home.backup(false, at(100)).await.unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let path = home.dir.path().join("kept.backup");
    fs::write(&path, bytes).unwrap();
    path
}

/// Another machine: an empty folder, with the key of `home` or without.
fn elsewhere(home: &Home, key: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    if key {
        fs::copy(
            home.dir.path().join("seal.key"),
            dir.path().join("seal.key"),
        )
        .unwrap();
    }
    dir
}

fn put_back(backup: &Path, dir: &Path, how: &RestoreHow) -> Result<Restored, RestoreError> {
    restore_backup(backup, &settings(dir), dir, how, at(200))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_put_back_is_what_was_there() {
    let (home, num) = active().await;
    let before = (
        get(&home, "bot").await,
        home.document(num).await.unwrap(),
        home.seq(),
    );
    let backup = backup(&home).await;
    let contents = verify_backup(&backup).unwrap();
    assert_eq!((contents.identities, contents.tokens), (1, 1));
    assert_eq!(contents.files[0], ("identities.jsonl".to_owned(), 1));
    assert_eq!((contents.made_at, contents.last), (at(100), false));

    let dir = elsewhere(&home, true);
    let restored = put_back(&backup, dir.path(), &RestoreHow::default()).unwrap();
    assert!(restored.doubt.is_some(), "nobody knows what came after it");
    for file in names(dir.path()) {
        let mode = fs::metadata(dir.path().join(&file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let (store, _) = open(dir.path()).unwrap();
    let after = (
        get(&store, "bot").await,
        store.document(num).await.unwrap(),
        store.seq(),
    );
    assert_eq!(before, after);
    assert_eq!(store.last_backup().await.unwrap(), Some(at(100)));
}

#[tokio::test]
async fn every_cut_and_every_bent_byte_shows() {
    let (home, _) = active().await;
    let backup = backup(&home).await;
    let whole = fs::read(&backup).unwrap();
    let dir = elsewhere(&home, true);
    let mut bent_ones = 0;
    for at in (0..whole.len()).step_by(997) {
        let mut bent = whole.clone();
        bent[at] ^= 0x20;
        fs::write(&backup, &bent).unwrap();
        // A byte that nothing is stored in says nothing; whatever is read says what was written.
        if let Ok(contents) = verify_backup(&backup) {
            assert_eq!(contents.identities, 1, "byte {at}");
        } else {
            bent_ones += 1;
        }
        fs::write(&backup, &whole[..at]).unwrap();
        put_back(&backup, dir.path(), &RestoreHow::default()).unwrap_err();
        assert_eq!(names(dir.path()), ["seal.key"], "cut at {at}");
    }
    assert!(bent_ones > 0);
    let canary = b"\"8:acs:bot\"";
    let found = whole.windows(canary.len()).position(|w| w == canary);
    let mut bent = whole.clone();
    bent[found.expect("the id is in the map") + 3] ^= 1;
    fs::write(&backup, &bent).unwrap();
    let error = verify_backup(&backup).unwrap_err();
    assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_backup_is_told_apart() {
    let (mut home, _) = active().await;
    home.store = None;
    let dir = home.dir.path();
    fs::write(dir.join("text"), "hello").unwrap();
    fs::write(dir.join("nothing"), "").unwrap();
    for (file, word) in [
        ("text", "not an SQLite database"),
        ("nothing", "or nothing"),
        ("renewd.db", "bare database"),
    ] {
        let error = verify_backup(&dir.join(file)).unwrap_err();
        assert!(matches!(error, BackupError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let missing = verify_backup(&dir.join("missing")).unwrap_err();
    assert!(missing.is_configuration(), "{missing}");
}

#[tokio::test]
async fn a_store_that_is_used_or_there_is_never_restored_over() {
    let (mut home, num) = active().await;
    let backup = backup(&home).await;
    let error = put_back(&backup, home.dir.path(), &RestoreHow::default()).unwrap_err();
    assert!(
        matches!(error, RestoreError::Open(OpenError::Locked { .. })),
        "{error}"
    );
    let replace = RestoreHow {
        replace: true,
        ..RestoreHow::default()
    };
    put_back(&backup, home.dir.path(), &replace).unwrap_err();
    declare(&home, &[spec("later")], 150).await;
    home.store = None;
    let before = fs::read(home.dir.path().join("renewd.db")).unwrap();
    let error = put_back(&backup, home.dir.path(), &RestoreHow::default()).unwrap_err();
    assert!(matches!(error, RestoreError::There { .. }), "{error}");
    assert_eq!(fs::read(home.dir.path().join("renewd.db")).unwrap(), before);

    let restored = put_back(&backup, home.dir.path(), &replace).unwrap();
    assert_eq!(fs::read(&restored.aside[0]).unwrap(), before);
    home.reopen();
    assert!(home.record(&name("later")).await.unwrap().is_none());
    assert!(home.document(num).await.unwrap().is_some());
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_named_and_one_that_is_lost_costs_the_tokens() {
    let (home, num) = active().await;
    let backup = backup(&home).await;
    let dir = elsewhere(&home, false);
    let error = put_back(&backup, dir.path(), &RestoreHow::default()).unwrap_err();
    assert!(error.to_string().contains("--key-lost"), "{error}");
    fs::write(dir.path().join("seal.key"), "07".repeat(32)).unwrap();
    let error = put_back(&backup, dir.path(), &RestoreHow::default()).unwrap_err();
    assert!(error.to_string().contains("seal.key"), "{error}");
    assert_eq!(names(dir.path()), ["renewd.lock", "seal.key"]);

    let key = fs::read_to_string(home.dir.path().join("seal.key")).unwrap();
    let brought = RestoreHow {
        key: Some(key.into()),
        ..RestoreHow::default()
    };
    let restored = put_back(&backup, dir.path(), &brought).unwrap();
    assert!(restored.aside[0].ends_with("seal.key.replaced-20261122T120320Z"));
    let (store, _) = open(dir.path()).unwrap();
    assert!(store.document(num).await.unwrap().is_some());
    drop(store);

    fs::remove_file(dir.path().join("seal.key")).unwrap();
    assert_eq!(
        open_without_key(&settings(dir.path()), dir.path(), at(300)).unwrap(),
        1
    );
    let (store, _) = open(dir.path()).unwrap();
    let record = get(&store, "bot").await;
    assert_eq!(record.id, get(&home, "bot").await.id);
    let due = store
        .due(&resource(), Work::Issue, at(300), 9, &none())
        .await
        .unwrap();
    assert_eq!(due.len(), 1, "renewed at once: {record:?}");
    drop(store);
    let error = open_without_key(&settings(dir.path()), dir.path(), at(300)).unwrap_err();
    assert!(error.to_string().contains("not lost"), "{error}");
}

#[tokio::test]
async fn a_database_that_was_deleted_under_the_daemon_is_rescued() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&settings(dir.path()), dir.path(), at(0)).unwrap();
    declare(&store, &[spec("bot")], 0).await;
    for file in names(dir.path()) {
        if file != "seal.key" {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
    }
    declare(&store, &[spec("bot"), spec("later")], 1).await;
    let mut file = store.backup(false, at(100)).await.unwrap();
    let kept = dir.path().join("kept.backup");
    std::io::copy(&mut file, &mut fs::File::create(&kept).unwrap()).unwrap();
    assert_eq!(verify_backup(&kept).unwrap().identities, 2);
    drop(store);
}

#[tokio::test]
async fn before_the_schema_changes_the_store_is_saved() {
    let mut home = Home::new();
    let seal_key = fs::read_to_string(home.dir.path().join("seal.key")).unwrap();
    home.store = None;
    let path = home.dir.path().join("renewd.db");
    fs::remove_file(&path).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap().into();
    super::super::schema::migrate_to(&conn, 0, 5).unwrap();
    let key = super::super::seal::seal_key_id(&seal_key).unwrap();
    super::super::db::set_meta(&conn, "seal_key", key).unwrap();
    drop(conn);
    let older = fs::read(&path).unwrap();

    let kept = home.dir.path().join("before-upgrade.backup");
    fs::create_dir(home.dir.path().join("before-upgrade.backup.new")).unwrap();
    let error = open(home.dir.path()).unwrap_err();
    assert!(error.is_configuration(), "{error}");
    assert!(error.to_string().contains("--no-backup"), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), older.len());
    fs::remove_dir(home.dir.path().join("before-upgrade.backup.new")).unwrap();

    home.reopen();
    assert_eq!(verify_backup(&kept).unwrap().schema, 5);
    assert!(!names(home.dir.path()).contains(&"before-upgrade.backup.new".to_owned()));
    fs::remove_file(&kept).unwrap();
    home.reopen();
    assert!(!kept.exists(), "without a change nothing is saved");
}

#[tokio::test]
async fn a_retired_store_is_not_opened_and_its_last_backup_leaves_no_doubt() {
    let (mut home, _) = active().await;
    let mut file = home.backup(true, at(100)).await.unwrap();
    let kept = home.dir.path().join("kept.backup");
    std::io::copy(&mut file, &mut fs::File::create(&kept).unwrap()).unwrap();
    home.backed_up(at(100), true).await.unwrap();
    home.store = None;
    let error = open(home.dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Retired { .. }), "{error}");
    assert!(error.is_configuration());

    let dir = elsewhere(&home, true);
    let restored = put_back(&kept, dir.path(), &RestoreHow::default()).unwrap();
    assert_eq!(restored.doubt, None);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn withdrawals_of_the_same_store_stay_and_those_of_another_are_set_aside() {
    let (mut home, _) = active().await;
    home.store = None;
    let database = rusqlite::Connection::open(home.dir.path().join("renewd.db")).unwrap();
    super::super::db::set_meta(&database.into(), "store_id", "ours").unwrap();
    home.reopen();
    let backup = backup(&home).await;
    for (of, stays) in [("ours", true), ("another", false)] {
        let dir = elsewhere(&home, true);
        let file = dir.path().join("withdrawn.jsonl");
        let line = format!("{{\"store\":\"{of}\",\"n\":1,\"left\":0}}\n");
        fs::write(&file, &line).unwrap();
        let restored = put_back(&backup, dir.path(), &RestoreHow::default()).unwrap();
        assert_eq!(restored.doubt.is_none(), stays, "{of}");
        let place = if stays { &file } else { &restored.aside[0] };
        assert_eq!(fs::read_to_string(place).unwrap(), line);
    }
}

const TOKENS: i64 = 25;

fn cause() -> Cause {
    Cause {
        actor: "uid 0 (root)".to_owned(),
        reason: Some("it leaked".to_owned()),
    }
}

/// A store with many tokens.
async fn filled() -> Home {
    let home = Home::new();
    let specs: Vec<Spec> = (0..TOKENS)
        .map(|n| with_id(&format!("bot-{n}"), &format!("8:acs:{n}")))
        .collect();
    declare(&home, &specs, 0).await;
    for spec in &specs {
        let num = get(&home, spec.name.as_str()).await.num;
        commit(&home, issued(num, 10, None), 11).await;
    }
    home
}

/// Every token opens and is what was issued.
async fn judge(home: &Home, when: &str) {
    for n in 0..TOKENS {
        let num = get(home, &format!("bot-{n}")).await.num;
        let document = home.document(num).await.unwrap().unwrap();
        let token = document.token.unwrap();
        assert!(token.expose().starts_with("canary-"), "{when}: bot-{n}");
    }
}

async fn audited(home: &Home) -> Vec<(String, String)> {
    let query = AuditQuery {
        action: Some("store.reseal".to_owned()),
        limit: 10,
        ..AuditQuery::default()
    };
    let trail = home.audit_trail(query).await.unwrap();
    trail
        .into_iter()
        .map(|entry| (entry.actor, entry.result))
        .collect()
}

/// Goes on to the end, as the daemon does.
async fn finish(home: &Home) -> Option<String> {
    let before = home.take_successor().await.unwrap()?;
    while !home.reseal(4, at(60)).await.unwrap() {}
    let told = home.settle_reseal(&before).await.unwrap();
    home.forget_former_key().await.unwrap();
    Some(told)
}

#[tokio::test]
async fn wherever_the_process_ends_the_next_one_goes_on() {
    // After so many pieces of work; the last ones are the end of the work and of the files.
    for pieces in 0..=9 {
        let mut home = filled().await;
        let dir = home.dir.path().to_owned();
        let old = fs::read(dir.join("seal.key")).unwrap();
        let old_id = home.resealing().await.unwrap().key;
        home.begin_reseal(&cause(), at(50)).await.unwrap();
        if pieces > 0 {
            home.take_successor().await.unwrap();
        }
        for _ in 1..pieces {
            home.reseal(4, at(60)).await.unwrap();
        }
        let when = format!("after {pieces}");
        judge(&home, &when).await;
        assert_eq!(
            fs::read(dir.join("seal.key")).unwrap(),
            old,
            "{when}: only at the end"
        );
        home.reopen();
        judge(&home, &when).await;
        // New tokens come meanwhile.
        let num = get(&home, "bot-0").await.num;
        commit(&home, issued(num, 70, None), 71).await;
        finish(&home).await;
        judge(&home, &when).await;

        let after = home.resealing().await.unwrap();
        assert_eq!((after.successor, after.by_hand), (None, None), "{when}");
        assert_ne!(after.key, old_id, "{when}");
        let key = fs::read(dir.join("seal.key")).unwrap();
        assert_ne!(key, old, "{when}");
        let kept = dir.join(format!("seal.key.{old_id}"));
        assert_eq!(fs::read(&kept).unwrap(), old, "{when}: for earlier backups");
        for file in [&kept, &dir.join("seal.key")] {
            assert_eq!(
                fs::metadata(file).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(!dir.join("seal.key.next").exists(), "{when}");
        home.reopen();
        judge(&home, &when).await;
        let trail = audited(&home).await;
        assert_eq!(trail.len(), 2, "{when}: {trail:?}");
        assert_eq!(trail[1].0, "uid 0 (root)");
        assert!(trail[1].1.starts_with("begun"), "{trail:?}");
        assert!(trail[0].1.starts_with("done"), "{trail:?}");
    }
}

/// The old key, put back, opens nothing.
#[tokio::test]
async fn nothing_is_sealed_with_the_old_key_afterwards() {
    let mut home = filled().await;
    let dir = home.dir.path().to_owned();
    let old = fs::read(dir.join("seal.key")).unwrap();
    home.begin_reseal(&cause(), at(50)).await.unwrap();
    let told = finish(&home).await.unwrap();
    assert!(told.contains("the old key is kept as"), "{told}");
    home.store = None;
    fs::write(dir.join("seal.key"), old).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::WrongKey { .. }), "{error}");
}

#[tokio::test]
async fn a_key_that_the_configuration_gives_is_its_owners_to_replace() {
    let mut home = filled().await;
    let dir = home.dir.path().to_owned();
    let given = |text: String| StoreSettings {
        seal_key: Some(LoadedSecret {
            from: SecretRef::Credential("seal-key".to_owned()),
            secret: Secret::new(text),
        }),
        ..settings(&dir)
    };
    let old = given(fs::read_to_string(dir.join("seal.key")).unwrap());
    fs::remove_file(dir.join("seal.key")).unwrap();
    let reopen = |home: &mut Home, settings: &StoreSettings| {
        home.store = None;
        home.store = Some(Store::open_inline(settings, &dir, at(0)).unwrap().0);
    };
    reopen(&mut home, &old);
    home.begin_reseal(&cause(), at(50)).await.unwrap();
    home.take_successor().await.unwrap();
    home.reseal(4, at(60)).await.unwrap();
    reopen(&mut home, &old);
    judge(&home, "in the middle").await;
    let told = finish(&home).await.unwrap();
    for words in [
        "seal.key.next",
        "the credential seal-key",
        "restart the daemon",
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(home.resealing().await.unwrap().by_hand, Some(told));
    let refused = home.begin_reseal(&cause(), at(70)).await.unwrap_err();
    assert!(refused.to_string().contains("is not over"), "{refused}");
    // A start that is still given the old one works, and goes on to say so.
    reopen(&mut home, &old);
    judge(&home, "before it is given").await;
    assert!(home.resealing().await.unwrap().by_hand.is_some());
    let new = given(fs::read_to_string(dir.join("seal.key.next")).unwrap());
    reopen(&mut home, &new);
    judge(&home, "given").await;
    assert!(!dir.join("seal.key.next").exists() && !dir.join("seal.key").exists());
    assert_eq!(home.resealing().await.unwrap().by_hand, None);
}

#[tokio::test]
async fn a_successor_that_is_gone_is_told_and_can_be_given_up() {
    let mut home = filled().await;
    let dir = home.dir.path().to_owned();
    home.begin_reseal(&cause(), at(50)).await.unwrap();
    home.take_successor().await.unwrap();
    home.reseal(4, at(60)).await.unwrap();
    home.store = None;
    fs::rename(dir.join("seal.key.next"), dir.join("mislaid")).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, OpenError::Successor { .. }), "{error}");
    fs::rename(dir.join("mislaid"), dir.join("seal.key.next")).unwrap();
    home.reopen();
    judge(&home, "put back").await;
    home.store = None;
    fs::remove_file(dir.join("seal.key.next")).unwrap();
    let dropped = open_without_key(&settings(&dir), &dir, at(80)).unwrap();
    assert_eq!(dropped, usize::try_from(TOKENS).unwrap());
    home.reopen();
    assert_eq!(home.resealing().await.unwrap().successor, None);
}

#[tokio::test]
async fn a_backup_holds_tokens_of_one_key() {
    let home = filled().await;
    home.begin_reseal(&cause(), at(50)).await.unwrap();
    let error = home.backup(false, at(60)).await.unwrap_err();
    assert!(error.to_string().contains("renewd key reseal"), "{error}");
    finish(&home).await;
    home.backup(false, at(70)).await.unwrap();
}

/// The machine is lost, and with it everything but the second place of what was withdrawn.
#[tokio::test]
async fn a_backup_that_is_put_back_beside_the_second_place_knows_what_was_withdrawn_since() {
    let second = tempfile::tempdir().unwrap();
    let copied = |dir: &Path| StoreSettings {
        withdrawn_copy: Some(second.path().join("withdrawn.jsonl")),
        ..settings(dir)
    };
    let (mut home, num) = active().await;
    home.store = None;
    let (store, opened) =
        Store::open_inline(&copied(home.dir.path()), home.dir.path(), at(90)).unwrap();
    (home.store, home.opened) = (Some(store), opened);
    let backup = backup(&home).await;
    step(&home, num, Step::Withhold, 110).await;
    let held = get(&home, "bot").await;

    let dir = elsewhere(&home, true);
    let to = copied(dir.path());
    let restored = restore_backup(&backup, &to, dir.path(), &RestoreHow::default(), at(200));
    assert_eq!(restored.unwrap().doubt, None, "the second place knows");
    let (store, opened) = Store::open_inline(&to, dir.path(), at(201)).unwrap();
    assert_eq!(opened.standing, crate::model::StoreStanding::Own);
    let after = get(&store, "bot").await;
    assert_eq!(after.state, State::Held);
    assert!(after.version > held.version, "no version falls");
    assert_eq!(store.document(num).await.unwrap().unwrap().token, None);
}
