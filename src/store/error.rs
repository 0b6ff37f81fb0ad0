//! How the store fails: typed, so that the engine can hold results while the disk is full.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    model::{Name, Timestamp, is_lasting},
    sql::{ErrorKind, SqlError},
};

/// Why a verb of the store failed. Nothing that the verb wanted to write has been written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("cannot {doing}: the disk of the store is full; free some space, nothing is lost")]
    Full {
        /// What was being done.
        doing: &'static str,
    },
    /// The disk or the permissions do not let us write or read.
    #[error("cannot {doing}: the store cannot be written or read: {reason}")]
    NotWritable {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        reason: String,
    },
    /// Another program held the database for more than five seconds.
    #[error("cannot {doing}: another program holds the store's database; close it")]
    Busy {
        /// What was being done.
        doing: &'static str,
    },
    /// The database is damaged.
    #[error(
        "cannot {doing}: the store's database is damaged ({reason}); restore a backup, or move it away and \
         run `renewd identity import` with identities.jsonl"
    )]
    Corrupt {
        /// What was being done.
        doing: &'static str,
        reason: String,
    },
    /// A sealed token does not open: its row was altered or moved, or it was sealed with another key.
    #[error(
        "the stored token of {name} does not open with this seal key; `renewd renew {name}` replaces it"
    )]
    Unseal { name: Name },
    /// A row that it is about holds what cannot be read.
    #[error(
        "cannot {doing}: a row of the store cannot be read ({reason}); `renewd status` names the rows that are set aside"
    )]
    Unreadable {
        /// What was being done.
        doing: &'static str,
        /// Which column, and what is wrong with it.
        reason: String,
    },
    /// What was asked for cannot be done, and why.
    #[error("cannot {doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        reason: String,
    },
    /// The database that machines share does not answer this one.
    #[error("cannot {doing}: the database is away ({reason})")]
    Away {
        /// What was being done.
        doing: &'static str,
        /// What was found out about it.
        reason: String,
    },
    /// Another machine leads by now: what this one wanted to write as the leader is not written.
    #[error("cannot {doing}: another node leads now")]
    NotLeader {
        /// What was being done.
        doing: &'static str,
    },
    /// The store has been closed.
    #[error("cannot {doing}: the store is closed")]
    Closed {
        /// What was being done.
        doing: &'static str,
    },
    /// A mistake of ours.
    #[error("cannot {doing}: a fault in renewd's store: {reason}")]
    Fault {
        /// What was being done.
        doing: &'static str,
        reason: String,
    },
}

impl StoreError {
    /// Whether the reason may pass by itself or with an operator's help, so that results should be
    /// held and committed later.
    pub fn is_unwritable(&self) -> bool {
        matches!(
            self,
            Self::Full { .. } | Self::NotWritable { .. } | Self::Busy { .. } | Self::Away { .. }
        )
    }

    /// Whether it is about what was to be written, so that other entries are not concerned.
    pub fn is_about_what_was_written(&self) -> bool {
        !self.is_unwritable() && !matches!(self, Self::Closed { .. } | Self::NotLeader { .. })
    }

    pub(super) fn new(doing: &'static str, fault: Fault) -> Self {
        let error = match fault {
            Fault::Unseal(name) => return Self::Unseal { name },
            Fault::Refused(reason) => return Self::Refused { doing, reason },
            Fault::Told(error) => return error,
            Fault::File(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
                return Self::Full { doing };
            }
            Fault::File(_, reason) => return Self::NotWritable { doing, reason },
            Fault::Sql(error) => error,
        };
        let reason = error.to_string();
        if error.is_away() {
            return Self::Away { doing, reason };
        }
        match error.kind() {
            ErrorKind::Unreadable => Self::Unreadable {
                doing,
                reason: error.plain(),
            },
            ErrorKind::Full => Self::Full { doing },
            ErrorKind::Busy => Self::Busy { doing },
            ErrorKind::Corrupt => Self::Corrupt { doing, reason },
            ErrorKind::NotWritable => Self::NotWritable { doing, reason },
            ErrorKind::Other => Self::Fault { doing, reason },
        }
    }
}

/// What can go wrong inside a verb; the handle adds what was being done.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(SqlError),
    /// A token does not open.
    Unseal(Name),
    /// What was asked for cannot be done.
    Refused(String),
    /// A file beside the database.
    File(io::ErrorKind, String),
    /// It was put in words already.
    Told(StoreError),
}

impl Fault {
    /// A file beside the database could not be written.
    pub(super) fn file(error: &io::Error) -> Self {
        Self::File(error.kind(), error.to_string())
    }
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.into())
    }
}

impl Fault {
    /// Whether it is about what one row holds.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Sql(error) if error.is_unreadable())
    }
}

/// What an operation comes to inside its transaction.
pub(super) type Outcome<T> = Result<T, Fault>;

/// What it answers whoever asked.
pub(super) type Answer<T> = Result<T, StoreError>;

/// What the store answers to each entry, in order.
pub type Each<T> = Vec<Result<T, StoreError>>;

/// Why the store does not open. Each is one message for the operator; nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon owns it.
    #[error("the store {path} is in use by another renewd{}; there can be only one", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        path: PathBuf,
        /// The owner, where known.
        pid: Option<u32>,
    },
    /// A newer renewd wrote it.
    #[error(
        "the store {path} has schema {found}, this renewd knows up to {known}: it was written by a newer renewd; \
         install that version again, or restore the backup made before the upgrade"
    )]
    Newer {
        path: PathBuf,
        found: i64,
        /// The newest schema that we know.
        known: i64,
    },
    /// The file is damaged or no database at all.
    #[error(
        "the store {path} is damaged or not a database ({reason}); restore a backup with `renewd store restore \
         --replace`, or move it away: identities are listed in identities.jsonl beside it"
    )]
    Corrupt { path: PathBuf, reason: String },
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}: {source}{}", advice(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The disk is full.
    #[error("cannot open the store {path}: the disk is full; free some space, nothing is lost")]
    Full { path: PathBuf },
    /// The seal key is not the one that the store was sealed with.
    #[error(
        "the seal key from {from} is {given}, but the store {path} is sealed with {stored}: give the key that it was \
         made with; if that is lost for ever, `renewd store open --key-lost` drops what it sealed and renews every token"
    )]
    WrongKey {
        path: PathBuf,
        /// Where the key came from.
        from: String,
        /// The id of the key that was given.
        given: String,
        /// The id of the key that sealed the store.
        stored: String,
    },
    /// The key file is gone although the store is sealed.
    #[error(
        "the key file {key_file} is missing, but the store {path} is sealed with {stored}: put the key file back, or copy it \
         from another machine that shares the store; if it \
         is lost for ever, `renewd store open --key-lost` drops what it sealed and renews every token"
    )]
    KeyMissing {
        path: PathBuf,
        /// Where the key file should be.
        key_file: PathBuf,
        /// The id of the key that sealed the store.
        stored: String,
    },
    /// The seal key was being replaced, and its successor is gone.
    #[error(
        "the seal key of this store is being replaced, and its successor {successor} does not lie in {path}: put it \
         back; if it is lost for ever, `renewd store open --key-lost` drops what it sealed and renews every token"
    )]
    Successor {
        /// Where it should lie.
        path: PathBuf,
        successor: String,
    },
    /// The seal key is not 32 bytes.
    #[error(
        "the seal key from {from} is not 32 bytes in base64 or hex; make one with `openssl rand -base64 32`"
    )]
    BadKey {
        /// Where the key came from.
        from: String,
    },
    /// The backup that is made before the schema is changed could not be made.
    #[error(
        "the store {path} is of an older renewd and is brought up to date only once it is saved, and {source}; or run \
         renewd once with `renewd run --no-backup`"
    )]
    NotSaved { path: PathBuf, source: BackupError },
    /// It was given up for another place.
    #[error(
        "the store {path} was retired at {at:.0} by `renewd store backup --retire` and goes on elsewhere; to take it \
         back, stop renewd there and run `renewd store adopt` here"
    )]
    Retired { path: PathBuf, at: Timestamp },
    /// It was moved to another engine.
    #[error(
        "the store {path} was moved to {to} at {at:.0} and goes on there: name that in the configuration; to take it back, \
         stop renewd there and run `renewd store adopt` here"
    )]
    Moved {
        path: PathBuf,
        at: Timestamp,
        /// Where it is now.
        to: String,
    },
    /// A move to here was cut off.
    #[error(
        "the store {path} is only a part of the one that is being moved there from {from}: run the same `renewd store \
         move` again where that one is configured"
    )]
    HalfMoved { path: PathBuf, from: String },
    /// The database, or its folder, is closed to us.
    #[error(
        "the store {path} cannot be opened for writing ({reason}); it and its folder must belong to the user of renewd \
         (uid {})", rustix::process::geteuid().as_raw()
    )]
    Closed { path: PathBuf, reason: String },
    /// It lies in PostgreSQL, which is not there, or does not let us.
    #[error("cannot open the store: {reason}")]
    Away {
        reason: String,
        /// Only a person can mend it.
        lasting: bool,
    },
    /// Anything else that the engine or the system says.
    #[error("cannot open the store {path}: {reason}")]
    Other { path: PathBuf, reason: String },
}

impl OpenError {
    /// Whether only a person can mend it: exit 2, which the unit does not restart. Another owner may
    /// end, and a disk be freed, by themselves.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::Full { .. } | Self::Other { .. } => false,
            Self::Io { source, .. } => is_lasting(source),
            Self::Away { lasting, .. } => *lasting,
            Self::Newer { .. }
            | Self::NotSaved { .. }
            | Self::Retired { .. }
            | Self::Moved { .. }
            | Self::HalfMoved { .. }
            | Self::Closed { .. }
            | Self::Corrupt { .. }
            | Self::WrongKey { .. }
            | Self::Successor { .. }
            | Self::KeyMissing { .. }
            | Self::BadKey { .. } => true,
        }
    }
}

/// What can be done about a file or folder that is closed to us.
fn advice(error: &io::Error) -> String {
    let user = rustix::process::geteuid().as_raw();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("; give it to the user of renewd (uid {user})")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; under systemd the unit opens only /var/lib/renewd and /run/renewd, a drop-in with ReadWritePaths= more"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// What is done instead where the store lies in PostgreSQL.
pub(super) const INSTEAD_OF_BACKUPS: &str = "what backs that database up (pg_dump, base backups, the provider's snapshots) \
    backs the store up; keep the seal key, identities.jsonl and withdrawn.jsonl with it";

/// Why a backup could not be made, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is not enough room for it.
    #[error("there is no room for a backup of {} MiB in {}; free some space there", needed.div_ceil(1 << 20), folder.display())]
    NoRoom {
        /// Where it was to be.
        folder: PathBuf,
        /// How much it takes, in bytes.
        needed: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a backup of renewd: {why}", path.display())]
    Foreign {
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The file was a backup.
    #[error("the backup {} is cut short or damaged ({why}); take another one", path.display())]
    Damaged { path: PathBuf, why: String },
    /// It was made by a newer renewd.
    #[error("the backup {} was made by a newer renewd (schema {found}, this one knows up to {known}); install that version", path.display())]
    Newer {
        path: PathBuf,
        found: i64,
        /// The newest schema that we know.
        known: i64,
    },
    /// It is of a store that lies in PostgreSQL.
    #[error("the store lies in PostgreSQL ({}): {INSTEAD_OF_BACKUPS}", place.display())]
    InDatabase { place: PathBuf },
    /// The database that is to be saved cannot be read.
    #[error("the database cannot be saved: {0}")]
    Unreadable(String),
}

impl BackupError {
    /// Whether the arguments or the surroundings have to be changed first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_lasting(source),
            Self::NoRoom { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::InDatabase { .. } => true,
            Self::Damaged { .. } | Self::Unreadable(_) => false,
        }
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// What SQLite says while a backup is read.
    pub(super) fn reading(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::Foreign {
                path: path.to_owned(),
                why: "it is not an SQLite database".to_owned(),
            },
            Some(rusqlite::ErrorCode::CannotOpen) => Self::Io {
                doing: "open",
                path: path.to_owned(),
                source: io::Error::other(error),
            },
            _ => Self::Damaged {
                path: path.to_owned(),
                why: error.to_string(),
            },
        }
    }
}
