//! How both engines carry the queries out that run all day: by index, never by a scan of a table; and what is due
//! comes in the same order whether few are sorted or many are found by index.

use super::*;
use crate::store::{
    campaigns, commit, consumers, deliveries, doubts, key_changes, queues, reconcile, stock,
};

async fn plan(store: &Store, query: &'static str) -> String {
    let plan = store.read("test", move |db| {
        let mut statement = db.file()?.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
        let nulls = vec![rusqlite::types::Null; statement.parameter_count()];
        let params = rusqlite::params_from_iter(nulls);
        let lines = statement.query_map(params, |row| row.get::<_, String>(3))?;
        let lines: Result<Vec<_>, _> = lines.collect();
        Ok(lines?.join("; "))
    });
    plan.await.unwrap()
}

#[tokio::test]
async fn every_query_of_the_day_uses_its_index() {
    let home = Home::new();
    let by_name = "SELECT num FROM identity WHERE name = ?1";
    let raise = "UPDATE delivery SET wanted = ?2 WHERE identity = ?1";
    let list = "SELECT num FROM identity WHERE name > ?1 ORDER BY name LIMIT ?2";
    for (query, index) in [
        (
            queues::DUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=? AND due_at<?)",
        ),
        (
            queues::HOW_MANY_DUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=? AND due_at<?)",
        ),
        (
            queues::BY_MINUTE,
            "SEARCH life_count USING PRIMARY KEY (resource=? AND renews>? AND renews<?)",
        ),
        (
            queues::NEXT_DUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=?",
        ),
        (
            queues::LATE,
            "INDEX identity_failing (resource=? AND due_at>?)",
        ),
        (queues::LATE, "COVERING INDEX identity_due (resource=?"),
        (queues::TROUBLED, "INDEX identity_failing (resource=?"),
        (deliveries::PENDING, "INDEX delivery_pending (sink=?)"),
        (sinks::OLDEST, "INDEX delivery_oldest (sink=?)"),
        (
            campaigns::ITEMS,
            "INDEX campaign_pending (campaign=? AND resource=?)",
        ),
        (campaigns::FAILING, "INDEX campaign_failing (campaign=?)"),
        (reconcile::DECLARED, "COVERING INDEX identity_declared"),
        (reconcile::KNOWN, "INDEX identity_name (name=?)"),
        (reconcile::OWNER, "INDEX identity_id (id=?)"),
        (
            doubts::IN_DOUBT,
            "INDEX identity_minted (resource=? AND minted_by=?)",
        ),
        (
            doubts::MINTERS,
            "COVERING INDEX identity_minted (resource=?",
        ),
        (by_name, "INDEX identity_name (name=?)"),
        (list, "INDEX identity_name (name>?)"),
        (raise, "PRIMARY KEY (identity=?)"),
    ] {
        uses(&home, query, index).await;
    }
}

async fn uses(store: &Store, query: &'static str, index: &str) {
    let plan = plan(store, query).await;
    assert!(plan.contains(index), "{query}\n{plan}");
    for table in ["i", "identity", "d", "delivery", "t", "campaign_item"] {
        let scans = plan.split("; ").any(|line| line == format!("SCAN {table}"));
        assert!(!scans, "{query}\n{plan}");
    }
}

/// However many there are beside it, a page costs what is in it.
#[tokio::test]
async fn of_a_page_only_its_own_rows_are_looked_at() {
    let home = Home::new();
    for (query, index) in [
        (
            queues::WAITING_PAST,
            "INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        ),
        (
            key_changes::STILL_HELD,
            "SEARCH i USING INTEGER PRIMARY KEY (rowid=?)",
        ),
        (deliveries::CHOSEN, "PRIMARY KEY (identity=? AND sink=?)"),
        (
            doubts::MINTED_PAGE,
            "COVERING INDEX identity_minted (resource=? AND minted_by=? AND rowid>?)",
        ),
    ] {
        uses(&home, query, index).await;
    }
}

#[tokio::test]
async fn those_that_fail_by_themselves_are_found_by_index() {
    let home = Home::new();
    let items = "INDEX campaign_again (resource=?)";
    uses(&home, campaigns::FAILED_AMONG_OTHERS, items).await;
    for query in [queues::FAILING_ALONE, queues::LONGEST_FAILING] {
        uses(&home, query, "COVERING INDEX identity_alone (resource=?").await;
    }
    for query in [
        queues::FAILING_ALONE,
        queues::NEVER_SERVED,
        queues::FAILING_AMONG_OTHERS,
    ] {
        uses(&home, query, "INDEX identity_failing (resource=?").await;
    }
}

#[tokio::test]
async fn consumers_are_counted_by_index() {
    let home = Home::new();
    for (query, index) in [
        (
            consumers::LACKING,
            "COVERING INDEX delivery_live (sink=? AND live_until>? AND live_until<?)",
        ),
        (
            consumers::NEXT_END,
            "COVERING INDEX delivery_live (sink=? AND live_until>?)",
        ),
        (
            consumers::LACKING_OF,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until<?)",
        ),
        (
            consumers::OVERDUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=? AND due_at<?)",
        ),
        (
            consumers::OVERDUE,
            "INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until<?)",
        ),
        (
            consumers::ENDED,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until>? AND good_until<?)",
        ),
        (
            consumers::NEXT_END_OF,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until>?)",
        ),
        (
            consumers::LIFE_OF_END,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until=? AND due_at>?)",
        ),
        (
            consumers::LACKING_SINCE,
            "INDEX delivery_live (sink=? AND live_until>? AND live_until<?)",
        ),
        (
            consumers::LACKING_SINCE_OF,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until<?)",
        ),
        (
            queues::EARLIEST_EXPIRY,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until>?)",
        ),
        (
            queues::EARLIEST_EXPIRY,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until<?)",
        ),
    ] {
        uses(&home, query, index).await;
    }
}

/// What the page draws of a fleet is read from counters, and from as many rows as there is something to tell of.
#[tokio::test]
async fn the_page_looks_at_no_row_that_is_well() {
    let home = Home::new();
    let ending = "INDEX identity_ending (resource=? AND <expr>=? AND <expr>=?";
    for (query, index) in [
        (stock::LIVES, "PRIMARY KEY (resource=?)"),
        (stock::FIRST_LENGTHS, ending),
        (stock::LAST_LENGTHS, ending),
        (stock::UNMADE, ending),
    ] {
        uses(&home, query, index).await;
    }
    for query in [stock::FIRST_LENGTHS, stock::LAST_LENGTHS] {
        let plan = plan(&home, query).await;
        assert!(!plan.contains("ORDER BY"), "{query}\n{plan}");
    }
}

#[tokio::test]
async fn what_is_due_is_found_in_its_order_without_sorting_it() {
    let home = Home::new();
    for (query, range) in [
        (queues::DUE_WITHOUT_TOKEN, "good_until<?)"),
        (queues::DUE_WITH_TOKEN, "good_until>?)"),
    ] {
        let index = "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND ";
        let plan = plan(&home, query).await;
        assert!(plan.contains(&format!("{index}{range}")), "{query}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{query}\n{plan}");
    }
}

#[tokio::test]
async fn deliveries_are_taken_in_the_order_of_their_index() {
    let home = Home::new();
    for query in [deliveries::PENDING, queues::NEXT_DUE, queues::BY_MINUTE] {
        let plan = plan(&home, query).await;
        assert!(!plan.contains("TEMP B-TREE"), "{query}\n{plan}");
    }
}

#[tokio::test]
async fn a_renewal_touches_no_index_but_those_for_due() {
    let home = Home::new();
    let indexes = number(
        &home,
        "SELECT count(*) FROM pragma_index_list('identity') l, pragma_index_info(l.name) c \
         WHERE c.name IN ('version', 'due_at', 'good_until', 'late_at', 'expires_at', 'token', 'attempts', 'kind') \
         AND l.name NOT IN ('identity_due', 'identity_ending', 'identity_failing')",
    );
    assert_eq!(indexes.await, 0);
}

#[tokio::test]
async fn a_renewal_fires_no_trigger() {
    let home = Home::new();
    let programs = home.read("test", |db| {
        let renewed = tables::update_identities(commit::RENEWED);
        let mut statement = db.file()?.prepare(&format!("EXPLAIN {renewed}"))?;
        let nulls = vec![rusqlite::types::Null; statement.parameter_count()];
        let params = rusqlite::params_from_iter(nulls);
        let opcodes = statement.query_map(params, |row| row.get::<_, String>(1))?;
        let opcodes: Result<Vec<_>, _> = opcodes.collect();
        Ok(opcodes?
            .iter()
            .filter(|opcode| *opcode == "Program")
            .count())
    });
    assert_eq!(programs.await.unwrap(), 0);
}

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
        let mut statement = db.file()?.prepare(sql)?;
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

/// 20,000 identities of one resource, with two sinks each and an item in a campaign: their renewals are spread over a
/// day, and a few are due, fail, are behind or wait.
const FILLED: &str = "INSERT INTO resource (num, name) VALUES (1, 'contoso'); \
    INSERT INTO sink (num, name, node) VALUES (1, 'files', 'web-1'), (2, 'hook', ''); \
    INSERT INTO identity (num, name, resource, origin, declared, state, id, created_at, version, due_at, due_why, good_until, \
    late_at, expires_at, issued_at, renews_at, minted_by, wish, failures, failing_since, by_socket) \
    SELECT n, 'person-' || n, 1, 'file', 1, 'active', '8:acs:' || n, t, 1, t + n * 4320000, 'renewal', \
    t + n * 4320000 + 43200000000, t + n * 4320000 + 21600000000, t + n * 4320000 + 43200000000, \
    t + n * 4320000 - 43200000000, t + n * 4320000, CASE WHEN n % 100 = 3 THEN 'ccdd' ELSE 'aabb' END, '{}', \
    (n % 1000 = 0)::int, CASE WHEN n % 2000 = 0 THEN t END, n % 2 \
    FROM generate_series(CAST(1 AS BIGINT), 20000) n, (SELECT 1795000000000000 AS t) base; \
    INSERT INTO delivery (identity, sink, wanted, delivered, next_at, since, live_until, live_key) \
    SELECT n, s, 1, CASE WHEN n % 500 = 0 THEN 0 ELSE 1 END, t, t, t + n * 4320000 + 43200000000, \
    CASE WHEN n % 100 = 3 THEN 'ccdd' ELSE 'aabb' END \
    FROM generate_series(CAST(1 AS BIGINT), 20000) n, generate_series(1, 2) s, (SELECT 1795000000000000 AS t) base; \
    INSERT INTO campaign (num, action, actor, created_at) VALUES (1, 'revoke', 'root', 1795000000000000); \
    INSERT INTO campaign_item (campaign, num, resource, state, attempts, next_at, chances) \
    SELECT 1, n, 1, CASE WHEN n % 200 = 0 THEN 'pending' WHEN n % 500 = 1 THEN 'called' ELSE 'done' END, \
    (n % 500 = 1)::int, 1795000000000000, (n % 2000 = 1)::int FROM generate_series(CAST(1 AS BIGINT), 20000) n";

/// What runs all day, with values as they are then and how many rows are wanted.
const OF_THE_DAY: [(&str, &str, &str); 44] = [
    (queues::DUE, "1, 0, 0, 1795000060000000, 200", ""),
    (queues::HOW_MANY_DUE, "1, 0, 0, 1795000060000000, 4097", ""),
    (
        queues::DUE_WITHOUT_TOKEN,
        "1, 0, 0, 1795000060000000, 200",
        "",
    ),
    (queues::DUE_WITH_TOKEN, "1, 0, 0, 1795000060000000, 200", ""),
    (queues::NEXT_DUE, "1, 0, 0", " LIMIT 17"),
    (queues::LATE, "1795000060000000, 1", ""),
    (queues::TROUBLED, "1795000060000000, 20", ""),
    (queues::FAILING_ALONE, "", ""),
    (queues::LONGEST_FAILING, "1, 20", ""),
    (queues::FAILING_AMONG_OTHERS, "1, 5", ""),
    (queues::NEVER_SERVED, "1, 20", ""),
    (
        queues::WAITING_PAST,
        "1, 1795000060000000, 0, 2000, 0, 100",
        "",
    ),
    (queues::PAGE_END, "0, 2000", ""),
    (queues::EARLIEST_EXPIRY, "", ""),
    (identities::RECORDS_OF, "'[1,2,3]'", ""),
    (deliveries::PENDING, "1", " LIMIT 128"),
    (deliveries::CHOSEN, "1, 'files', '[1,2,3]', 'web-1'", ""),
    (sinks::OLDEST, "1", " LIMIT 1"),
    (campaigns::ITEMS, "1, 1", " LIMIT 128"),
    (campaigns::FAILING, "1", ""),
    (campaigns::FAILED_AMONG_OTHERS, "1", ""),
    (reconcile::KNOWN, "'person-7'", ""),
    (reconcile::OWNER, "'8:acs:7'", ""),
    (doubts::IN_DOUBT, "1, 'ccdd', 1795000060000000", ""),
    (doubts::MINTERS, "1", ""),
    (doubts::MINTED_PAGE, "1, 'ccdd', 0, 2000", ""),
    (consumers::LACKING, "1, 1795000060000000", ""),
    (consumers::NEXT_END, "1, 1795000060000000", ""),
    (consumers::LACKING_SINCE, "1, 1795000060000000", ""),
    (consumers::LACKING_NAMES, "1, 1795000060000000, 20", ""),
    (consumers::LACKING_OF, "1, 1795000060000000", ""),
    (consumers::LACKING_SINCE_OF, "1, 1795000060000000", ""),
    (consumers::NEXT_END_OF, "1, 1795000060000000", ""),
    (consumers::LIFE_OF_END, "1, 1795043204320000", ""),
    (consumers::ENDED, "1, 1795000060000000", ""),
    (consumers::DOUBTFUL_BY_SOCKET, "1, 1795000060000000", ""),
    (consumers::DOUBTFUL_HELD, "1, 1795000060000000", ""),
    (consumers::DOUBTFUL_BEHIND, "1, 1795000060000000", ""),
    (consumers::OVERDUE, "1795000060000000, 1", ""),
    (consumers::WITHHELD, "1, 1795000060000000, 20", ""),
    (stock::FIRST_LENGTHS, "1", ""),
    (stock::UNMADE, "1", ""),
    (
        key_changes::STILL_HELD,
        "1, 0, 2000, 'ccdd', 1795000060000000, 'contoso'",
        "",
    ),
    (
        "UPDATE delivery SET wanted = ?2 WHERE identity = ?1",
        "7, 2",
        "",
    ),
];

#[tokio::test]
async fn in_postgresql_no_query_of_the_day_scans_a_table() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let made = StoreSettings {
        place: in_database(&database.url()),
        ..settings(dir.path())
    };
    drop(Store::open_inline(&made, dir.path(), at(0)).unwrap());
    database.sql(FILLED);
    database.sql("ANALYZE");
    let renewed = tables::update_identities(commit::RENEWED);
    let token = "7, 2, 'renewed', 1, '', 2, 1, 'aabb', 1, '[]', NULL";
    let scanning = ("SELECT num FROM identity WHERE past = ?1", "'x'", "");
    let mut scans = Vec::new();
    for (sql, values, limit) in OF_THE_DAY
        .into_iter()
        .chain([(&*renewed, token, ""), scanning])
    {
        let text = crate::sql::as_in_postgres(sql);
        let call = match values {
            "" => String::new(),
            values => format!("({values})"),
        };
        // With the values, and where the server does without them after a while.
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let plan = database.sql(&format!(
                "SET plan_cache_mode = {mode}; PREPARE looked AS {text}{limit}; EXPLAIN EXECUTE looked{call}"
            ));
            let scan = |table: &&str| plan.contains(&format!("Seq Scan on {table}"));
            if ["identity", "delivery", "campaign_item"].iter().any(scan) {
                scans.push(format!("{sql}\n{plan}"));
            }
        }
    }
    let seen = scans.iter().position(|scan| scan.starts_with(scanning.0));
    scans.truncate(seen.expect("a scan is seen"));
    assert!(scans.is_empty(), "{}", scans.join("\n\n"));
}
