//! Opening: what is kept, what is refused, and with which words.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
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
fn a_newer_schema_is_refused() {
    let mut home = Home::new();
    home.store = None;
    let path = home.dir.path().join("renewd.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = open(home.dir.path()).unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error}"
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
