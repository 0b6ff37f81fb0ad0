//! Reads identities that others own, read only: an application's SQLite database, the output of a
//! program, a file of JSON lines.
//!
//! A [`Source`] says cheaply whether its list may have changed, and reads the list when it is asked
//! to. It keeps nothing of the list and decides nothing: [`Difference`] compares two lists, and
//! whether a difference may be taken over is decided by [`Difference::blocked`], a plain function.

mod check;
mod difference;
mod error;
mod exec;
mod jsonl;
mod listing;
mod regular;
mod sqlite;

pub use check::check;
pub use difference::{Difference, digest};
pub use error::SourceError;
pub use listing::Listing;

use crate::{
    clock::Clock,
    config::{SourceKind, SourceSettings},
};

use self::{exec::Exec, regular::Regular, sqlite::Sqlite};

/// A source of identities.
#[derive(Debug)]
pub struct Source {
    settings: SourceSettings,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    Sqlite(Sqlite),
    Exec(Exec),
    File(Regular),
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Whether the list may differ from the one that was read last.
    pub changed: bool,
    /// Which file it is, for telling a replaced one; `None` where that means nothing.
    pub file: Option<String>,
}

impl Source {
    /// A source that has not been looked at yet.
    pub fn new(settings: SourceSettings, clock: &Clock) -> Self {
        let reader = match &settings.kind {
            SourceKind::Sqlite { path, query } => Reader::Sqlite(Sqlite::new(
                path.clone(),
                query.clone(),
                clock.is_simulated(),
            )),
            SourceKind::Exec { command, timeout } => {
                Reader::Exec(Exec::new(command.clone(), *timeout))
            }
            SourceKind::File { path } => {
                Reader::File(Regular::new(path.clone(), clock.is_simulated()))
            }
        };
        Self { settings, reader }
    }

    /// Its settings.
    pub fn settings(&self) -> &SourceSettings {
        &self.settings
    }

    /// Looks whether the list may have changed since it was last read; cheap.
    ///
    /// # Errors
    /// When it cannot be read at all; the sentence says what can be done.
    pub async fn look(&mut self) -> Result<Look, SourceError> {
        match &mut self.reader {
            Reader::Sqlite(reader) => reader.look().await,
            Reader::Exec(_) => Ok(Look {
                changed: true,
                file: None,
            }),
            Reader::File(reader) => reader.look().await,
        }
    }

    /// Reads the whole list.
    ///
    /// # Errors
    /// When it cannot be read, or is no list at all. A single row that is wrong is no error: it
    /// comes back among the refused.
    pub async fn read(&mut self) -> Result<Listing, SourceError> {
        let rows = match &mut self.reader {
            Reader::Sqlite(reader) => reader.read().await,
            Reader::Exec(reader) => reader.read().await,
            Reader::File(reader) => reader.read().await,
        }?;
        Ok(Listing::of(rows, &self.settings))
    }
}
