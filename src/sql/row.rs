//! A row of an answer, its columns, and the parameters of a statement.

use rusqlite::types::{FromSql, ToSql, ValueRef};

use super::{Result, SqlError};

/// A row while it is looked at; its values are the engine's own memory.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a>(pub(super) Native<'a>);

#[derive(Clone, Copy)]
pub(super) enum Native<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
}

impl Row<'_> {
    /// What a column holds, as what it should be.
    pub(crate) fn get<C: Column, T: FromSql>(&self, column: C) -> Result<T> {
        let place = column.place(self)?;
        match self.0 {
            Native::Sqlite(row) => Ok(row.get(place)?),
        }
    }

    /// What a column holds.
    pub(crate) fn get_ref(&self, column: impl Column) -> Result<ValueRef<'_>> {
        let place = column.place(self)?;
        match self.0 {
            Native::Sqlite(row) => Ok(row.get_ref(place)?),
        }
    }

    /// The name of a column.
    pub(crate) fn name_of(&self, place: usize) -> &str {
        match self.0 {
            Native::Sqlite(row) => row.as_ref().column_name(place).unwrap_or("?"),
        }
    }

    /// That a column holds what we did not write there.
    pub(crate) fn broken_at(&self, place: usize, why: impl std::fmt::Display) -> SqlError {
        SqlError::unreadable(self.name_of(place), why)
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
