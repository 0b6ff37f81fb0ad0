//! What happens when a write fails: alone, with its reason, and without a trace.

use super::*;

#[tokio::test]
async fn a_full_disk_is_told_apart_and_loses_nothing() {
    let (home, num) = active().await;
    let before = get(&home, "bot").await;
    let (pages, free) = (
        number(&home, "PRAGMA page_count").await,
        number(&home, "PRAGMA freelist_count").await,
    );
    assert_eq!(free, 0);
    let limit = home.read("test", move |db| {
        Ok(db.conn.pragma_update(None, "max_page_count", pages)?)
    });
    limit.await.unwrap();
    let error = home.probe().await.unwrap_err();
    assert_eq!(error, StoreError::Full { doing: "write" });
    assert!(error.is_unwritable());
    let many = vec![issued(num, 20, None); 400];
    let error = home.commit(many, at(21)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(get(&home, "bot").await, before);
    let limit = home.read("test", |db| {
        Ok(db.conn.pragma_update(None, "max_page_count", 1 << 20)?)
    });
    limit.await.unwrap();
    home.probe().await.unwrap();
    version(commit(&home, issued(num, 20, None), 22).await);
}

#[tokio::test]
async fn an_operation_that_fails_or_panics_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&settings(dir.path()), dir.path(), at(0)).unwrap();
    declare(&store, &[spec("bot")], 0).await;
    let bad = store.write::<(), _>("fail", |txn| {
        txn.conn.execute_batch("DELETE FROM identity")?;
        txn.conn.execute_batch("INSERT INTO nowhere VALUES (1)")?;
        Ok(())
    });
    let panics = store.write::<(), _>("panic", |txn| {
        txn.conn.execute_batch("DELETE FROM identity")?;
        panic!("a bug");
    });
    let good = store.declare(vec![spec("other")], at(1));
    let (bad, panics, good) = tokio::join!(bad, panics, good);
    assert!(matches!(
        bad.unwrap_err(),
        StoreError::Fault { doing: "fail", .. }
    ));
    assert!(matches!(
        panics.unwrap_err(),
        StoreError::Fault { doing: "panic", .. }
    ));
    assert_eq!(good.unwrap().create, 1);
    assert_eq!(store.list(None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn signals_rise_after_the_commit_and_only_with_a_reason() {
    let (home, num) = active().await;
    let (mut due, mut wanted) = (home.due_signal(), home.wanted_signal());
    home.settle(vec![]).await.unwrap();
    home.prune(9, at(20)).await.unwrap();
    assert!(!due.has_changed().unwrap() && !wanted.has_changed().unwrap());
    step(&home, num, Step::Due(DueReason::Requested), 30).await;
    assert!(due.has_changed().unwrap() && !wanted.has_changed().unwrap());
    due.mark_unchanged();
    commit(&home, issued(num, 31, None), 32).await;
    assert!(!due.has_changed().unwrap() && wanted.has_changed().unwrap());
    wanted.mark_unchanged();
}
