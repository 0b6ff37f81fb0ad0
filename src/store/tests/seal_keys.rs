//! The seal key is replaced, and the process ends at every moment of it: what is closed and opened again
//! has on the disk what a killed process leaves there.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::config::{LoadedSecret, SecretRef};

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

/// Goes on to the end, as the janitor does.
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
