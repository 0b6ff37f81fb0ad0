//! Rows that cannot be read: found wherever they are, and taken up again once they are mended.

use super::*;

/// One look at everything.
async fn look(home: &Home, secs: i64) {
    let mut from = None;
    loop {
        from = home.examine(from, at(secs)).await.unwrap();
        if from.is_none() {
            return;
        }
    }
}

async fn kinds(home: &Home) -> Vec<(String, u64)> {
    let found = home.counts().await.unwrap().set_aside;
    found.into_iter().map(|one| (one.kind, one.rows)).collect()
}

#[tokio::test]
async fn garbage_that_no_loop_meets_is_found_and_let_go_once_it_is_mended() {
    let (home, _) = active().await;
    look(&home, 0).await;
    assert_eq!(kinds(&home).await, []);
    // A text is later than every number: the row is never due, and the delivery never pending.
    sql(&home, "UPDATE identity SET due_at = 'soon'").await;
    sql(&home, "UPDATE delivery SET since = x'00'").await;
    look(&home, 1).await;
    let found = [("identity".to_owned(), 1), ("delivery".to_owned(), 1)];
    assert_eq!(kinds(&home).await, found);
    let due = home.due_signal();
    sql(&home, "UPDATE identity SET due_at = 0").await;
    sql(&home, "UPDATE delivery SET since = 0").await;
    look(&home, 2).await;
    assert_eq!(kinds(&home).await, []);
    assert!(due.has_changed().unwrap(), "the renewer looks again");
}

#[tokio::test]
async fn a_row_that_waits_for_nothing_or_whose_token_does_not_open_is_planned_anew() {
    let (home, num) = active().await;
    sql(&home, "UPDATE identity SET due_at = NULL").await;
    look(&home, 100).await;
    assert_eq!(get(&home, "bot").await.due.unwrap().at, at(100));
    commit(&home, issued(num, 200, None), 201).await;
    sql(&home, "UPDATE identity SET token = x'00'").await;
    look(&home, 300).await;
    assert_eq!(kinds(&home).await, [("token".to_owned(), 1)]);
    assert_eq!(get(&home, "bot").await.due.unwrap().at, at(300));
    commit(&home, issued(num, 400, None), 401).await;
    look(&home, 500).await;
    assert_eq!(kinds(&home).await, []);
    assert!(home.document(num).await.unwrap().unwrap().token.is_some());
}

#[tokio::test]
async fn what_cannot_be_read_can_be_dropped_and_comes_back_with_its_id() {
    let (home, _) = active().await;
    let id = get(&home, "bot").await.id;
    sql(&home, "UPDATE identity SET state = '?'").await;
    let again = home
        .reconcile(&[spec("bot")], &[sink("file")], at(10))
        .await;
    assert_eq!(again.unwrap().refused.len(), 1, "it is left as it is");
    sql(&home, "UPDATE identity SET wish = '?'").await;
    let sinks = [sink("file"), sink("new")];
    let again = home.reconcile(&[spec("bot")], &sinks, at(10)).await;
    assert_eq!(again.unwrap().sinks, 1, "a new sink is bound all the same");
    let dropped = home.remove(vec![name("bot")], Some(OnRemoval::Forget), at(11));
    assert_eq!(dropped.await.unwrap().forget, 1);
    declare(&home, &[spec("bot")], 12).await;
    assert_eq!(get(&home, "bot").await.id, id);
}
