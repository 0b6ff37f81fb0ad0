//! Tries a database as the daemon will use it, and changes nothing; and says which right a user lacks.

use crate::{
    config::DatabaseSettings,
    sql::{self, Connection, Remote, Session, SqlError},
};

/// Says which server was taken, after a write there that was taken back.
///
/// # Errors
/// Why no host takes writes, or what this user may not do, in words.
pub fn try_database(database: &DatabaseSettings) -> Result<String, String> {
    let session = Session::open(Remote::new(database, "renewd check"));
    let conn = Connection::from(session.map_err(|error| error.to_string())?);
    tried(&conn)
        .map_err(|error| lacking(&conn, database, &error).unwrap_or_else(|| error.to_string()))
}

fn tried(conn: &Connection) -> sql::Result<String> {
    conn.begin()?;
    let is_made = conn.first("SELECT to_regclass('meta') IS NOT NULL", [], |row| {
        row.get(0)
    })?;
    conn.batch(match is_made {
        Some(true) => "UPDATE meta SET value = value WHERE key = 'seal_key'",
        _ => "CREATE TABLE renewd_trial (num BIGINT); INSERT INTO renewd_trial (num) VALUES (1)",
    })?;
    conn.batch("ROLLBACK")?;
    Ok(conn.server().unwrap_or_default())
}

/// An error that is about a right which the user lacks, with what gives it.
pub(super) fn lacking(
    conn: &Connection,
    database: &DatabaseSettings,
    error: &SqlError,
) -> Option<String> {
    if !error.lacks_right() {
        return None;
    }
    // Where no transaction is open any more, there is nothing to take back.
    conn.batch("ROLLBACK").ok();
    let user = &database.user;
    let sql = "SELECT CAST(tableowner AS TEXT) FROM pg_tables WHERE tablename = 'meta' \
               AND schemaname = ANY (current_schemas(false))";
    let owner = conn.first(sql, [], |row| row.get::<_, String>(0));
    Some(match owner.ok().flatten().filter(|owner| owner != user) {
        Some(owner) => format!(
            "{error}; its tables belong to {owner}: connect as {owner}, or GRANT {owner} TO {user}"
        ),
        None => format!(
            "{error}; the user must be able to make tables: GRANT CREATE ON SCHEMA public TO {user}, or make it the owner \
             of the database"
        ),
    })
}
