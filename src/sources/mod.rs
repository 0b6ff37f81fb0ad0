//! Reads identities that others own, read only: an application's SQLite database, the output of a
//! program, a file of JSON lines; and why a source cannot be read, in one sentence for the operator.
//!
//! A [`ListSource`] says cheaply whether its list may have changed, and reads the list when it is asked to, by a
//! child process with limits of its own. What comes is a [`Reading`]: rows in the order of their names, as often
//! as they are wanted. It keeps nothing of the list and decides nothing: [`Difference`] says in numbers what
//! differs, and whether that may be taken over, by plain functions.

mod exec;
mod list;
mod reader;
mod sqlite;

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::{Deserialize, Serialize};

use self::{
    exec::Exec,
    list::{Looker, Stamps},
    reader::{ListReader, QUEUES, ReadTask},
};
use crate::{
    accounts,
    clock::Clock,
    config::{Finding, Settings, Severity, SourceKind, SourceSettings},
    model::Reader,
    sandbox::{self, Unit},
};

pub use list::Head;
pub use list::{Difference, digest};
pub use reader::{
    AT_ONCE, ListRead, MEMORY as MEMORY_OF_READER, Reading, THREADS as THREADS_OF_READER, VERB,
    serve,
};

/// A source of identities.
#[derive(Debug)]
pub struct ListSource {
    settings: SourceSettings,
    clock: Clock,
    looker: Looker,
    /// Its files as they were before the last read, where they were old enough to tell a change.
    read: Option<Stamps>,
    /// Which kind of list it is by how long its last read took: see [`ReadQueues`].
    kind: usize,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Whether the list may differ from the one that was read last.
    pub changed: bool,
    /// Which file it is, for telling a replaced one; `None` where that means nothing.
    pub file: Option<String>,
    /// The files as they were, before anything was read.
    seen: Option<Stamps>,
}

impl ListSource {
    /// A source that has not been looked at yet.
    pub fn new(settings: SourceSettings, clock: &Clock) -> Self {
        Self {
            settings,
            clock: clock.clone(),
            looker: Looker::default(),
            read: None,
            kind: 0,
        }
    }

    pub fn settings(&self) -> &SourceSettings {
        &self.settings
    }

    fn path(&self) -> Option<&Path> {
        match &self.settings.kind {
            SourceKind::Sqlite { path, .. } | SourceKind::File { path } => Some(path),
            SourceKind::Exec { .. } => None,
        }
    }

    /// Looks whether the list may have changed since it was last read; cheap.
    ///
    /// # Errors
    /// When it cannot be read at all; the sentence says what can be done.
    pub async fn look(&mut self) -> Result<Look, SourceError> {
        let Some(path) = self.path().map(Path::to_owned) else {
            return Ok(Look {
                changed: true,
                file: None,
                seen: None,
            });
        };
        let inline = self.clock.is_simulated();
        let seen = self.looker.look(&path, inline).await;
        let seen = seen.map_err(|error| SourceError::File {
            path,
            reason: error.to_string(),
        })?;
        // Renaming another over it is how a file of lines is written.
        let is_database = matches!(self.settings.kind, SourceKind::Sqlite { .. });
        Ok(Look {
            changed: self.read.as_ref() != Some(&seen),
            file: is_database.then(|| seen.file()),
            seen: Some(seen),
        })
    }

    /// Reads the whole list, as of this look.
    ///
    /// # Errors
    /// When it cannot be read, or is no list at all. A single row that is wrong is no error: it
    /// comes back among the refused.
    pub async fn read(&mut self, look: &Look) -> Result<Reading, SourceError> {
        let now = self.clock.now();
        let wanted = match &self.settings.kind {
            SourceKind::Sqlite { path, query } => Wanted::Listed(ReadTask::Query {
                path: path.clone(),
                query: query.clone(),
            }),
            SourceKind::File { path } => Wanted::Listed(ReadTask::File { path: path.clone() }),
            SourceKind::Exec { command, timeout } => {
                Wanted::Printed(Exec::new(command.clone(), *timeout))
            }
        };
        let reading = match wanted {
            Wanted::Listed(task) if self.clock.is_simulated() => {
                Reading::here(task.read()?, self.settings.clone())
            }
            wanted => {
                let read = || wanted.read();
                let (read, turn) = QUEUES.read(&mut self.kind, &self.clock, read).await?;
                Reading::of_child(read?, turn, self.settings.clone())
            }
        };
        self.read = look.seen.clone().filter(|seen| !seen.is_young(now));
        Ok(reading)
    }
}

/// What a child is to read.
enum Wanted {
    Listed(ReadTask),
    Printed(Exec),
}

impl Wanted {
    async fn read(&self) -> Result<(Head, ListReader), SourceError> {
        match self {
            Self::Printed(program) => program.read().await,
            Self::Listed(task) => {
                let mut reader = ListReader::start(task, None).await?;
                let head = reader.head().await?;
                Ok((head, reader))
            }
        }
    }
}

/// Why a source cannot be read. What was taken over before stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// Another program holds the database.
    #[error(
        "{} is locked by another program; it is tried again, and what was read before stays", path.display()
    )]
    Locked { path: PathBuf },
    /// A database in WAL mode whose -shm file we can neither find nor make.
    #[error(
        "{path} is in WAL mode and {path}-shm cannot be opened ({reason}): it exists while the application has the \
         database open, so start the application, and give renewd's user read and write access to {path}-shm and \
         {path}-wal (setfacl -d -m u:renewd:rw on their folder grants it to new ones), or let the application use \
         `PRAGMA journal_mode = DELETE`",
        path = path.display()
    )]
    Wal {
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// The database does not answer the query.
    #[error("{}: {reason}", path.display())]
    Query { path: PathBuf, reason: String },
    /// A program failed, or said too much.
    #[error("{program}: {reason}")]
    Program { program: String, reason: String },
    /// It took too long.
    #[error("{what} took longer than {seconds} s")]
    Slow {
        what: String,
        /// What it was given.
        seconds: u64,
    },
    /// More than a source may list.
    #[error("{what} lists more than {most}; that is more than a source may")]
    Long {
        what: String,
        /// So many rows, or so many bytes.
        most: String,
    },
    /// It never stood still.
    #[error("{what} changes while it is read; it is tried again")]
    Changing { what: String },
    /// Whoever reads it for us ended.
    #[error("{what} {reason}")]
    Reader {
        what: String,
        /// How it ended, and what can be done.
        reason: String,
    },
}

/// Everything about sources that cannot work or looks odd. Paths count the sources of a kind in the
/// order of the files, as in `source.sqlite[0].path`.
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kind in ["sqlite", "exec", "file"] {
        let sources = settings
            .sources
            .iter()
            .filter(|source| source.kind.word() == kind);
        for (at, source) in sources.enumerate() {
            let path = format!("source.{kind}[{at}]");
            findings.extend(of_kind(source, &path, settings));
            findings.extend(unbounded(source, &path));
            let readers = source.rows.readers.iter().enumerate();
            findings.extend(
                readers.filter_map(|(n, reader)| unknown(reader, format!("{path}.readers[{n}]"))),
            );
        }
    }
    findings
}

fn of_kind(source: &SourceSettings, at: &str, settings: &Settings) -> Option<Finding> {
    match &source.kind {
        SourceKind::Sqlite { path, .. } | SourceKind::File { path } => {
            let at = format!("{at}.path");
            match Unit::running(&settings.daemon.state_dir) {
                Some(unit) => hidden(path, &at, &unit),
                None => unreadable(path, &at),
            }
        }
        SourceKind::Exec { command, .. } => {
            let program = command.first()?;
            let at = format!("{at}.command");
            not_executable(program, &at).or_else(|| closed(program, &at, settings))
        }
    }
}

/// What a list may grant without any bound.
fn unbounded(source: &SourceSettings, at: &str) -> Option<Finding> {
    let open: Vec<&str> = [
        ("max_scopes", source.max_scopes.is_none()),
        ("max_readers", source.max_readers.is_none()),
        ("max_lifetime", source.max_lifetime.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, is_open)| is_open.then_some(key))
    .collect();
    (!open.is_empty()).then(|| Finding {
        path: format!("{at}.name"),
        severity: Severity::Warning,
        message: format!(
            "whoever writes the list of {} grants what they like: {} {} left out",
            source.name,
            open.join(", "),
            if open.len() == 1 { "is" } else { "are" }
        ),
        hint: Some(
            "such as max_scopes = [\"chat\"], max_readers = [\"app\"] and max_lifetime = \"24h\"; \
             a row that asks for more is refused"
                .to_owned(),
        ),
    })
}

/// Whoever checks may be another user than the daemon's, so this is no more than a warning.
fn unreadable(path: &Path, at: &str) -> Option<Finding> {
    let refusal = accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).err()?;
    Some(Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("this user cannot read {}: {refusal}", path.display()),
        hint: Some(
            "the daemon's user needs the right to; `renewd source test NAME` tries it".to_owned(),
        ),
    })
}

fn not_executable(program: &str, at: &str) -> Option<Finding> {
    let refusal = accessat(CWD, program, Access::EXEC_OK, AtFlags::EACCESS).err()?;
    Some(Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("this user cannot run {program}: {refusal}"),
        hint: Some(
            "the daemon's user needs the right to; `renewd source test NAME` tries it".to_owned(),
        ),
    })
}

/// What the unit does not run.
fn closed(program: &str, at: &str, settings: &Settings) -> Option<Finding> {
    let unit = Unit::running(&settings.daemon.state_dir)?;
    let program = Path::new(program);
    let hidden = unit.hides(program).into_iter();
    let hidden = hidden.map(|hidden| hidden.line.to_owned());
    let lines: Vec<String> = hidden.chain(unit.missing_for_running(program)).collect();
    (!lines.is_empty()).then(|| Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("the sandbox of the unit does not run {}", program.display()),
        hint: Some(format!(
            "{}; whatever else the program runs has to be named there, too",
            sandbox::remedy(&lines)
        )),
    })
}

/// What the unit hides.
fn hidden(path: &Path, at: &str, unit: &Unit) -> Option<Finding> {
    let hidden = unit.hides(path);
    let lines: Vec<&str> = hidden.iter().map(|hidden| hidden.line).collect();
    (!lines.is_empty()).then(|| Finding {
        path: at.to_owned(),
        severity: Severity::Warning,
        message: format!("the sandbox of the unit hides {}", path.display()),
        hint: Some(sandbox::remedy(&lines)),
    })
}

fn unknown(reader: &Reader, path: String) -> Option<Finding> {
    let (kind, name) = match reader {
        Reader::User(name) if accounts::user(name).is_none() => ("user", name),
        Reader::Group(name) if accounts::group(name).is_none() => ("group", name),
        _ => return None,
    };
    Some(Finding {
        path,
        severity: Severity::Error,
        message: format!("this system knows no {kind} {name:?}"),
        hint: Some("create it, or correct the name; a group is written \"group:NAME\"".to_owned()),
    })
}
