//! The schema of the database: what it is made of, step by step, in `sql/`.

use rusqlite::Connection;

/// Each step brings the schema from its place in this list to the next; steps are only ever added.
const STEPS: &[&str] = &[
    include_str!("sql/0001.sql"),
    include_str!("sql/0002-delivery.sql"),
    include_str!("sql/0003-campaigns.sql"),
    include_str!("sql/0004-jobs.sql"),
    include_str!("sql/0005-sources.sql"),
    include_str!("sql/0006-keys.sql"),
    include_str!("sql/0007-access.sql"),
    include_str!("sql/0008-orders.sql"),
    include_str!("sql/0009-consumers.sql"),
    include_str!("sql/0010-doubted-keys.sql"),
    include_str!("sql/0011-gone-claims.sql"),
    include_str!("sql/0012-adopting.sql"),
    include_str!("sql/0013-withdrawals.sql"),
    include_str!("sql/0014-failing.sql"),
    include_str!("sql/0015-map.sql"),
    include_str!("sql/0016-callers.sql"),
    include_str!("sql/0017-withheld.sql"),
    include_str!("sql/0018-order.sql"),
];

/// The newest schema that we know.
pub(super) const NEWEST: i64 = STEPS.len() as i64;

/// The schema of a database; 0 where there is none yet.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes all steps that are missing, in one transaction each.
pub(super) fn migrate(conn: &Connection, from: i64) -> rusqlite::Result<()> {
    migrate_to(conn, from, NEWEST)
}

/// Takes the steps from one schema to another.
pub(super) fn migrate_to(conn: &Connection, from: i64, to: i64) -> rusqlite::Result<()> {
    let numbered = (0_i64..).zip(STEPS);
    for (at, step) in numbered.filter(|(at, _)| (from..to).contains(at)) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {};\nCOMMIT;",
            at + 1
        ))
        .inspect_err(|_| {
            // The step's error is the one to tell; a failed roll-back ends with the connection.
            conn.execute_batch("ROLLBACK").ok();
        })?;
    }
    Ok(())
}
