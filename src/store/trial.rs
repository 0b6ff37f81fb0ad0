//! Tries a database as the daemon will use it, and changes nothing.

use crate::{
    config::DatabaseSettings,
    sql::{self, Connection, Remote, Session, SqlError},
};

/// Says which server was taken, after a write there that was taken back.
///
/// # Errors
/// Why no host takes writes, or what this user may not do, in words.
pub fn try_database(database: &DatabaseSettings) -> Result<String, String> {
    tried(database).map_err(|error| match &error {
        SqlError::Refused { code, .. } if code == "42501" => format!(
            "{error}; the user must be able to make tables: GRANT CREATE ON SCHEMA public TO {}, or make it the owner \
             of the database",
            database.user
        ),
        error => error.to_string(),
    })
}

fn tried(database: &DatabaseSettings) -> sql::Result<String> {
    let conn = Connection::from(Session::open(Remote::new(database, "renewd check"))?);
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
