//! Backups: what they hold, how damage shows, and what a restored store knows.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::*;

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
        ("text", "no SQLite database"),
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
    let conn = rusqlite::Connection::open(&path).unwrap();
    super::super::schema::migrate_to(&conn, 0, 5).unwrap();
    let key = super::super::seal::seal_key_id(&seal_key).unwrap();
    super::super::columns::set_meta(&conn, "seal_key", key).unwrap();
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
    super::super::columns::set_meta(&database, "store_id", "ours").unwrap();
    drop(database);
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
