//! What is due comes in the same order however many are: few are sorted, many are found by index.

use super::*;

/// Beside the first row so many others with an id, whose tokens last equally long, from all along their lives; some
/// of them without a good token.
async fn fleet(home: &Home, rows: i64, seed: i64) {
    declare(home, &[with_id("bot", "8:acs:bot")], 0).await;
    let num = get(home, "bot").await.num;
    commit(home, issued(num, 10, None), 11).await;
    let day = 86_400_000_000_i64;
    let now = at(0).as_microsecond();
    let added = home.write("test", move |txn| {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1), \
             h(i, h) AS (SELECT i, (i * 2654435761 + ?2 * 40503) % 1000003 FROM n), \
             f(i, h, born) AS (SELECT i, h, ?3 - h % 1000 * ?4 / 1000 - i FROM h) \
             INSERT INTO identity (name, resource, origin, declared, state, id, created_at, version, due_at, due_why, \
             good_until, late_at, expires_at, issued_at, minted_by, wish, failures, failing_since) \
             SELECT 'n' || f.i, b.resource, b.origin, 1, 'active', '8:acs:n' || f.i, b.created_at, 1, born + ?4 / 2, b.due_why, \
             iif(f.h % 11 = 0, 0, born + ?4), born + ?4 * 3 / 4, born + ?4, born, b.minted_by, b.wish, \
             f.h % 7 = 0, iif(f.h % 7 = 0, ?3, NULL) FROM f, identity b WHERE b.num = ?5";
        Ok(txn.run(sql, [rows, seed, now, day, num])?)
    });
    added.await.unwrap();
}

/// The rows of a line in the order that the words promise.
async fn in_order(home: &Home, alone: bool) -> Vec<Num> {
    let now = at(0).as_microsecond();
    let rows = home.read("test", move |db| {
        let sql = "SELECT num, good_until, due_at, late_at FROM identity WHERE due_at <= ?1 AND (failing_since IS NOT NULL) = ?2";
        let mut statement = db.conn.prepare(sql)?;
        let rows = statement.query_map(rusqlite::params![now, alone], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        Ok(rows.collect::<Result<Vec<(Num, i64, i64, i64)>, _>>()?)
    });
    let mut rows = rows.await.unwrap();
    rows.sort_by_key(|(num, good, due, late)| {
        let is_late = *good > 0 && *late <= now;
        (!is_late, *good, *due, *num)
    });
    rows.into_iter().map(|(num, ..)| num).collect()
}

#[tokio::test]
async fn few_and_many_come_in_the_same_order() {
    for (rows, seed) in [(40, 1), (700, 2), (9_000, 3), (14_000, 4)] {
        let home = Home::new();
        fleet(&home, rows, seed).await;
        for alone in [false, true] {
            let expected = in_order(&home, alone).await;
            let line = (Work::Issue, alone);
            let skip: BTreeSet<Num> = expected.iter().copied().step_by(3).take(40).collect();
            for skip in [none(), skip] {
                let found = home.due_in(&resource(), line, at(0), 200, &skip).await;
                let found: Vec<Num> = found.unwrap().iter().map(|record| record.num).collect();
                let wanted = expected.iter().filter(|num| !skip.contains(num));
                let wanted: Vec<Num> = wanted.copied().take(200).collect();
                assert_eq!(found, wanted, "{rows} rows, failing alone: {alone}");
            }
            let next = home.next_due_in(&resource(), line, &none()).await.unwrap();
            assert_eq!(next.is_some(), !expected.is_empty());
        }
    }
}

#[tokio::test]
async fn the_earliest_end_is_that_of_all_lines() {
    let home = Home::new();
    fleet(&home, 300, 5).await;
    let ends = home.earliest_expiry().await.unwrap();
    let least = "SELECT min(good_until) FROM identity WHERE good_until > 0 AND due_at IS NOT NULL";
    let least = number(&home, least).await;
    assert_eq!(ends[&resource()].as_microsecond(), least);
    sql(
        &home,
        "UPDATE identity SET good_until = 1000000 - (1 << 60) WHERE name = 'n7'",
    )
    .await;
    let ends = home.earliest_expiry().await.unwrap();
    assert_eq!(ends[&resource()].as_microsecond(), 1_000_000);
}
