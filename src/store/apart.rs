//! Many entries in one transaction, of which one that the store refuses hurts no other: what is refused
//! together is tried in halves, each under a savepoint of its own, until the one is found.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    StoreError,
    db::Txn,
    error::{Fault, Outcome},
};
use crate::model::Num;

/// What the store answers to each entry, in order.
pub type Each<T> = Vec<Result<T, StoreError>>;

/// What was written, part by part, and what was refused alone.
type Parts<T> = Vec<(Range<i64>, Result<T, StoreError>)>;

/// What was written of a range, and what is to become of the rest of it.
struct Halves<'a, T> {
    doing: &'static str,
    write: &'a mut dyn FnMut(&mut Txn<'_>, Range<i64>) -> Outcome<T>,
    /// What was written, and what was refused alone, in order.
    parts: Parts<T>,
}

impl Txn<'_> {
    /// Writes entries, which answer one by one. A refused one is answered with why.
    pub(super) fn each<E, T>(
        &mut self,
        doing: &'static str,
        entries: &[E],
        mut write: impl FnMut(&mut Txn<'_>, &[E]) -> Outcome<Vec<T>>,
    ) -> Outcome<Each<T>> {
        let parts = self.apart(doing, 0..entries.len() as i64, |txn, range| {
            let part = range.start as usize..range.end as usize;
            write(txn, entries.get(part).unwrap_or_default())
        })?;
        let mut each = Vec::with_capacity(entries.len());
        for (_, part) in parts {
            match part {
                Ok(answers) => each.extend(answers.into_iter().map(Ok)),
                Err(error) => each.push(Err(error)),
            }
        }
        Ok(each)
    }

    /// Writes whatever lies within a range of numbers; the parts that were written, and the numbers that
    /// were refused, in order.
    pub(super) fn apart<T>(
        &mut self,
        doing: &'static str,
        range: Range<i64>,
        mut write: impl FnMut(&mut Txn<'_>, Range<i64>) -> Outcome<T>,
    ) -> Outcome<Parts<T>> {
        let mut halves = Halves {
            doing,
            write: &mut write,
            parts: Vec::new(),
        };
        if !range.is_empty() {
            self.write_in_halves(range, &mut halves)?;
        }
        Ok(halves.parts)
    }

    /// Writes the rows after one number up to another; how many changed. Rows that are refused are named and
    /// left as they are.
    pub(super) fn rows_apart(
        &mut self,
        doing: &'static str,
        (after, upto): (Num, Num),
        mut write: impl FnMut(&mut Txn<'_>, Num, Num) -> Outcome<usize>,
    ) -> Outcome<u64> {
        let parts = self.apart(doing, after + 1..upto + 1, |txn, range| {
            write(txn, range.start - 1, range.end - 1)
        })?;
        let mut written = 0;
        for (rows, part) in parts {
            match part {
                Ok(changed) => written += changed as u64,
                Err(error) => {
                    tracing::error!(row = rows.start, %error, "a row is left as it is, because the store refuses to change it");
                }
            }
        }
        Ok(written)
    }

    fn write_in_halves<T>(&mut self, range: Range<i64>, halves: &mut Halves<'_, T>) -> Outcome<()> {
        let error = match self.write_part(range.clone(), halves) {
            Ok(written) => {
                halves.parts.push((range, Ok(written)));
                return Ok(());
            }
            Err(fault) => StoreError::new(halves.doing, fault),
        };
        // A full disk makes SQLite roll the whole transaction back.
        if error.is_unwritable() || self.conn.is_autocommit() {
            return Err(Fault::Told(error));
        }
        let length = range.end - range.start;
        if length == 1 {
            halves.parts.push((range, Err(error)));
            return Ok(());
        }
        let middle = range.start + length / 2;
        self.write_in_halves(range.start..middle, halves)?;
        self.write_in_halves(middle..range.end, halves)
    }

    /// Writes one part wholly or not at all.
    fn write_part<T>(&mut self, range: Range<i64>, halves: &mut Halves<'_, T>) -> Outcome<T> {
        self.run("SAVEPOINT part", [])?;
        let before = std::mem::take(&mut self.effects);
        let written = catch_unwind(AssertUnwindSafe(|| (halves.write)(self, range)))
            .unwrap_or_else(|_| Err(Fault::Refused("renewd itself failed at it".to_owned())));
        let effects = std::mem::replace(&mut self.effects, before);
        if written.is_ok() {
            self.effects.absorb(effects);
            self.run("RELEASE part", [])?;
        } else if !self.conn.is_autocommit() {
            self.run("ROLLBACK TO part", [])?;
            self.run("RELEASE part", [])?;
        }
        written
    }
}
