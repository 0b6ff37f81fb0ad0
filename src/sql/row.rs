//! A row of an answer, its columns, and the parameters of a statement.

use rusqlite::types::{FromSql, FromSqlError, ToSql, ValueRef};

use super::{Result, SqlError, wire::held};

/// A row while it is looked at; its values are the engine's own memory.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a>(pub(super) Native<'a>);

#[derive(Clone, Copy)]
pub(super) enum Native<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// What a column holds, as what it should be.
    pub(crate) fn get<C: Column, T: FromSql>(&self, column: C) -> Result<T> {
        let place = column.place(self)?;
        match self.0 {
            Native::Sqlite(row) => Ok(row.get(place)?),
            Native::Postgres(_) => {
                let value = T::column_result(self.get_ref(place)?);
                value
                    .map_err(|error| self.broken_at(place, unfit(self.get_ref(place).ok(), &error)))
            }
        }
    }

    /// What a column holds.
    pub(crate) fn get_ref(&self, column: impl Column) -> Result<ValueRef<'_>> {
        let place = column.place(self)?;
        match self.0 {
            Native::Sqlite(row) => Ok(row.get_ref(place)?),
            Native::Postgres(row) => held(row, place).map_err(|why| self.broken_at(place, why)),
        }
    }

    /// The name of a column.
    pub(crate) fn name_of(&self, place: usize) -> &str {
        match self.0 {
            Native::Sqlite(row) => row.as_ref().column_name(place).unwrap_or("?"),
            Native::Postgres(row) => row.columns().get(place).map_or("?", |column| column.name()),
        }
    }

    /// That a column holds what we did not write there.
    pub(crate) fn broken_at(&self, place: usize, why: impl std::fmt::Display) -> SqlError {
        SqlError::unreadable(self.name_of(place), why)
    }
}

/// What is wrong with a value, without the value.
fn unfit(found: Option<ValueRef<'_>>, error: &FromSqlError) -> String {
    match (error, found) {
        (FromSqlError::InvalidType, Some(found)) => {
            format!("it holds a value of the type {}", found.data_type())
        }
        (FromSqlError::OutOfRange(_), _) => "a number is out of range".to_owned(),
        (FromSqlError::Utf8Error(_), _) => "a text is not UTF-8".to_owned(),
        (error, _) => error.to_string(),
    }
}

/// A column, by its place or by its name. Of a row that is read often it is the place: a name is looked for among all
/// others.
pub(crate) trait Column: Copy {
    fn place(self, row: &Row<'_>) -> Result<usize>;
}

impl Column for usize {
    fn place(self, _: &Row<'_>) -> Result<usize> {
        Ok(self)
    }
}

impl Column for &str {
    fn place(self, row: &Row<'_>) -> Result<usize> {
        match row.0 {
            Native::Sqlite(row) => Ok(row.as_ref().column_index(self)?),
            Native::Postgres(row) => {
                let mut names = row.columns().iter().map(tokio_postgres::Column::name);
                let place = names.position(|name| name == self);
                Ok(place.ok_or_else(|| rusqlite::Error::InvalidColumnName(self.to_owned()))?)
            }
        }
    }
}

/// What stands for `?1`, `?2`, … of a statement.
pub(crate) trait Params {
    /// Lends the values, in order.
    fn lend<T>(self, to: impl FnOnce(&[&dyn ToSql]) -> T) -> T;
}

impl Params for &[&dyn ToSql] {
    fn lend<T>(self, to: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
        to(self)
    }
}

impl Params for [&dyn ToSql; 0] {
    fn lend<T>(self, to: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
        to(&[])
    }
}

macro_rules! arrays {
    ($($n:literal)+) => {$(
        impl<P: ToSql> Params for [P; $n] {
            fn lend<T>(self, to: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
                let lent: [&dyn ToSql; $n] = std::array::from_fn(|at| &self[at] as &dyn ToSql);
                to(&lent)
            }
        }

        impl<P: ToSql> Params for &[P; $n] {
            fn lend<T>(self, to: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
                let lent: [&dyn ToSql; $n] = std::array::from_fn(|at| &self[at] as &dyn ToSql);
                to(&lent)
            }
        }
    )+};
}

arrays!(1 2 3 4 5 6 7 8);

macro_rules! tuples {
    ($(($($p:ident)+))+) => {$(
        impl<$($p: ToSql),+> Params for ($($p,)+) {
            #[expect(non_snake_case, reason = "the type parameter names the value")]
            fn lend<T>(self, to: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
                let ($($p,)+) = self;
                to(&[$(&$p as &dyn ToSql),+])
            }
        }
    )+};
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) }
