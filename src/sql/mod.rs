//! Speaks to a database engine: SQLite in a file of ours, or PostgreSQL. One connection, one row, one kind of
//! parameter and one error for both, so that whoever writes SQL does it once.
//!
//! Texts are in the dialect that both engines read; parameters are written `?1`. Values are those that SQLite knows
//! (nothing, an integer, a text, bytes; truth is 0 or 1), and so are the conversions, `FromSql` and `ToSql`.

mod connect;
mod connection;
mod dialect;
mod error;
mod pipeline;
mod postgres;
mod row;
mod sqlite;
#[cfg(test)]
mod tests;
mod text;
mod wire;

/// A text as PostgreSQL takes it, for whoever looks how it is carried out there.
#[cfg(test)]
pub(crate) fn as_in_postgres(sql: &str) -> String {
    text::translated(sql, text::Extent::All).sql
}

pub(crate) use connect::Remote;
pub(crate) use connection::Connection;
pub(crate) use error::{ErrorKind, Result, SqlError};
pub(crate) use postgres::Session;
pub(crate) use row::{Column, Params, Row};
pub(crate) use rusqlite::{
    params,
    types::{FromSql, Null, ToSql, Value, ValueRef},
};
