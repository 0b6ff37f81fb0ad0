//! What tells that a list may have changed, without reading it: stamps of the files that it lies in.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};

use crate::pool;

/// Within so long of a change a file may change again without a new time: the clocks of file systems are
/// that coarse (vfat counts in steps of 2 s).
const COARSE: i64 = 2;
/// A look at a file takes no longer, unless its file system hangs.
const LOOK: Duration = Duration::from_secs(10);

/// What tells one content of a path from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Only what writing changes: SQLite, run by root, gives a `-wal` to its owner whenever it opens it.
    fn of_writing(self) -> Self {
        Self {
            changed: self.written,
            ..self
        }
    }
}

/// The stamps of a list: of the file, and of the database's `-wal` beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps {
    main: Stamp,
    wal: Option<Stamp>,
}

impl Stamps {
    /// Takes them.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let main = std::fs::metadata(path)?;
        if !main.is_file() {
            return Err(not_a_file());
        }
        let wal = std::fs::metadata(beside(path, "-wal"));
        Ok(Self {
            main: Stamp::of(&main),
            wal: wal.ok().map(|wal| Stamp::of(&wal).of_writing()),
        })
    }

    /// Which file it is, whatever it holds.
    pub(super) fn file(&self) -> String {
        format!("{}:{}", self.main.device, self.main.inode)
    }

    /// Whether the files may have changed since without the stamps showing it.
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        let youngest = [Some(&self.main), self.wal.as_ref()].into_iter().flatten();
        let youngest = youngest
            .map(|stamp| stamp.changed.0.max(stamp.written.0))
            .max();
        youngest.is_none_or(|changed| changed >= now.as_second() - COARSE)
    }
}

/// A file beside a database.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Takes stamps without ever being stuck: a look that hangs is left to itself, and no other begins before
/// it ended.
#[derive(Debug, Default)]
pub(super) struct Looker(Option<JoinHandle<Result<io::Result<Stamps>, JoinError>>>);

impl Looker {
    /// The stamps of a path, taken in place under simulated time.
    pub(super) async fn look(&mut self, path: &Path, inline: bool) -> io::Result<Stamps> {
        if inline {
            return Stamps::of(path);
        }
        let path = path.to_owned();
        let under_way = self
            .0
            .get_or_insert_with(|| tokio::spawn(pool::LISTS.run(move || Stamps::of(&path))));
        match timeout(LOOK, under_way).await {
            Ok(ended) => {
                self.0 = None;
                let ended = ended.and_then(|ended| ended);
                ended.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Err(_) => Err(io::Error::other(
                "the file system does not answer; it is tried again",
            )),
        }
    }
}
