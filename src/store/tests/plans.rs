//! How SQLite carries the queries out that run all day: by index, never by a scan of a table.

use super::*;
use crate::store::{campaigns, commit, consumers, deliveries, doubts, identities, reconcile};

async fn plan(store: &Store, query: &'static str) -> String {
    let plan = store.read("test", move |db| {
        let mut statement = db.conn.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
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
            identities::DUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=? AND due_at<?)",
        ),
        (
            identities::HOW_MANY_DUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=? AND due_at<?)",
        ),
        (
            identities::BY_MINUTE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=? AND due_at>? AND due_at<?)",
        ),
        (
            identities::NEXT_DUE,
            "COVERING INDEX identity_due (resource=? AND <expr>=? AND <expr>=?",
        ),
        (
            identities::LATE,
            "INDEX identity_failing (resource=? AND due_at>?)",
        ),
        (identities::LATE, "COVERING INDEX identity_due (resource=?"),
        (identities::TROUBLED, "INDEX identity_failing (resource=?"),
        (
            deliveries::PENDING,
            "INDEX delivery_pending (sink=? AND next_at<?)",
        ),
        (deliveries::NEXT_PENDING, "INDEX delivery_pending (sink=?)"),
        (deliveries::OLDEST, "INDEX delivery_oldest (sink=?)"),
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
        (
            doubts::MINTED_PAGE,
            "COVERING INDEX identity_minted (resource=? AND minted_by=? AND rowid>?)",
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

#[tokio::test]
async fn those_that_fail_by_themselves_are_found_by_index() {
    let home = Home::new();
    for query in [identities::FAILING_ALONE, identities::LONGEST_FAILING] {
        uses(&home, query, "COVERING INDEX identity_alone (resource=?").await;
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
            identities::EARLIEST_EXPIRY,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until>?)",
        ),
        (
            identities::EARLIEST_EXPIRY,
            "COVERING INDEX identity_ending (resource=? AND <expr>=? AND <expr>=? AND good_until<?)",
        ),
    ] {
        uses(&home, query, index).await;
    }
}

#[tokio::test]
async fn what_is_due_is_found_in_its_order_without_sorting_it() {
    let home = Home::new();
    for (query, range) in [
        (identities::DUE_WITHOUT_TOKEN, "good_until<?)"),
        (identities::DUE_WITH_TOKEN, "good_until>?)"),
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
    for query in [deliveries::NEXT_PENDING, identities::NEXT_DUE] {
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
        let mut statement = db.conn.prepare(&format!("EXPLAIN {}", commit::RENEWED))?;
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
