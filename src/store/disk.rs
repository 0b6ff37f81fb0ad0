//! The disk of the store and the files that lie there: whether each is where it was, and can be written.
//!
//! Beside the database lies a reserve: a file that holds space and nothing else. When the disk runs
//! full it is given back, so that withdrawals and about a life of renewals still fit; meanwhile history is
//! pruned sooner, and a person is told.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};
use tokio::sync::watch;

use super::{Store, StoreError, idmap};

/// The name of the file.
const FILE: &str = "renewd.reserve";
const MIB: u64 = 1 << 20;
/// The journal between two checkpoints and the withdrawals, whatever the fleet's size.
const LEAST: u64 = 16 * MIB;
/// What one renewal leaves in the trail until it is pruned, with room to spare.
const PER_IDENTITY: u64 = 1024;
const MOST: u64 = 256 * MIB;
/// Of a small file system no more than one part in so many is held back.
const SHARE: u64 = 8;

/// How the disk of the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    /// There is room, and the reserve is held.
    #[default]
    Roomy,
    /// The disk is nearly full: the reserve was given back and is being used up.
    OnReserve,
    /// The reserve is used up as well: a write failed.
    Full,
}

/// What the store takes, and what is left beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes of the database and its journal.
    pub taken: u64,
    /// Bytes that are free where it lies; `None` where the file system does not say.
    pub free: Option<u64>,
}

impl DiskRoom {
    /// What the database at `path` takes now.
    pub(super) fn of(path: &Path) -> Self {
        let mut journal = path.as_os_str().to_owned();
        journal.push("-wal");
        let length = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let space = path.parent().and_then(|folder| statvfs(folder).ok());
        Self {
            taken: length(path) + length(Path::new(&journal)),
            free: space.and_then(|found| Some(Space::of(&found)?.free)),
        }
    }
}

/// Keeps the file, and says how the disk is.
pub(super) struct Reserve {
    path: PathBuf,
    /// False under simulated time, where nothing looks at the machine's disk.
    active: bool,
    size: u64,
    disk: watch::Sender<Disk>,
}

impl Reserve {
    /// The reserve of the database at `database`; nothing is held yet.
    pub(super) fn beside(database: &Path, active: bool) -> Self {
        Self {
            path: database.with_file_name(FILE),
            active,
            size: LEAST,
            disk: watch::Sender::default(),
        }
    }

    /// How the disk is, as it changes.
    pub(super) fn disk(&self) -> watch::Receiver<Disk> {
        self.disk.subscribe()
    }

    /// Before something is written: gives the reserve back when little else is left.
    pub(super) fn make_room(&mut self) {
        if !self.active || self.now() != Disk::Roomy {
            return;
        }
        let low = |space: Space| space.free < space.size(self.size) / 4;
        if self.space().is_some_and(low) {
            self.give_back();
        }
    }

    /// A write failed because the disk is full, by whatever measure (a quota shows in no free blocks).
    pub(super) fn was_full(&mut self) {
        if !self.active {
            return;
        }
        match self.now() {
            Disk::Roomy => self.give_back(),
            Disk::OnReserve | Disk::Full => self.tell(Disk::Full),
        }
    }

    /// Holds the reserve for a fleet of this size, again or for the first time, where there is room for
    /// it and as much again.
    pub(super) fn hold(&mut self, identities: u64) {
        if !self.active {
            return;
        }
        self.size = LEAST
            .saturating_add(identities.saturating_mul(PER_IDENTITY))
            .min(MOST);
        let Some(space) = self.space() else { return };
        let (size, held) = (space.size(self.size), self.held());
        let missing = size.saturating_sub(held);
        if missing == 0 || space.free >= missing + size {
            match self.allocate(size) {
                Ok(()) => return self.tell(Disk::Roomy),
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "the reserve of disk could not be made")
                }
            }
        }
        if held == 0 && self.now() == Disk::Roomy {
            self.tell(Disk::OnReserve);
        }
    }

    fn now(&self) -> Disk {
        *self.disk.borrow()
    }

    /// Says how the disk is, once per change.
    fn tell(&self, now: Disk) {
        self.disk
            .send_if_modified(|disk| std::mem::replace(disk, now) != now);
    }

    fn give_back(&self) {
        // Whatever the reason why it cannot be removed: the write that follows tells more.
        fs::remove_file(&self.path).ok();
        tracing::error!(
            path = %self.path.display(),
            "the disk of the store is full: the reserve is being used, and history is pruned sooner; free some space"
        );
        self.tell(Disk::OnReserve);
    }

    fn held(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if self.held() == size {
            return Ok(());
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, size) {
            Err(rustix::io::Errno::OPNOTSUPP) => filled(&file, size),
            other => other.map_err(io::Error::from),
        };
        made.inspect_err(|_| {
            // Half a reserve would count as one; without it the next look tries again.
            fs::remove_file(&self.path).ok();
        })
    }

    fn space(&self) -> Option<Space> {
        let found = statvfs(self.path.parent()?).ok()?;
        Space::of(&found)
    }
}

/// Where space cannot be reserved without writing it: bytes that no file system folds away.
fn filled(mut file: &File, size: u64) -> io::Result<()> {
    let block: Vec<u8> = (0..MIB)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left.min(MIB)).unwrap_or(block.len());
        file.write_all(&block[..now])?;
        left -= now as u64;
    }
    file.sync_all()
}

impl Store {
    /// What it takes of its disk now.
    pub fn room(&self) -> DiskRoom {
        DiskRoom::of(self.path())
    }

    /// What is wrong where the files of the store lie, if anything is: what is open goes on to work, but
    /// nobody finds it when it is closed.
    pub fn moved(&self) -> Option<String> {
        let files = self.0.open.get().map(|open| &open.files);
        files?.iter().find_map(|(path, device, inode)| {
            let shown = path.display();
            match fs::metadata(path) {
                Ok(found) if (found.dev(), found.ino()) == (*device, *inode) => None,
                Ok(_) => Some(format!(
                    "another file lies at {shown} than the one that renewd has open"
                )),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Some(format!("the file {shown} is gone"))
                }
                Err(error) => Some(format!("the file {shown} cannot be looked at: {error}")),
            }
        })
    }

    /// How the disk of the store is.
    pub fn disk(&self) -> Disk {
        self.0
            .open
            .get()
            .map_or(Disk::Roomy, |open| *open.disk.borrow())
    }

    /// What is wrong with the second place of the withdrawals (`[store] withdrawn_copy`), if something is.
    pub fn copy_trouble(&self) -> Option<String> {
        self.0.open.get()?.copy.borrow().clone()
    }

    /// Why `identities.jsonl` cannot be written, if it cannot.
    pub fn map_trouble(&self) -> Option<String> {
        self.0.open.get()?.map.borrow().clone()
    }

    /// Why `withdrawn.jsonl` of this machine does not follow what the machines of a cluster write, if it does not.
    pub fn withdrawn_trouble(&self) -> Option<String> {
        self.0.open.get()?.unwritten.borrow().clone()
    }

    /// That what is withdrawn is in this machine's file, so that ACS may be called for it.
    ///
    /// # Errors
    /// Why it is not.
    pub fn has_written_withdrawals(&self) -> Result<(), StoreError> {
        let doing = "call ACS for what is withdrawn before it is written beside the store";
        let failed = |reason| Err(StoreError::NotWritable { doing, reason });
        self.withdrawn_trouble().map_or(Ok(()), failed)
    }

    /// Where a map is kept of which not all could be taken over, until somebody removes it.
    pub fn map_aside(&self) -> Option<PathBuf> {
        let aside = idmap::aside(&self.state_dir().join(idmap::FILE), 1);
        aside.exists().then_some(aside)
    }

    /// Tells when the disk of the store is otherwise.
    pub fn disk_signal(&self) -> watch::Receiver<Disk> {
        let open = self.0.open.get();
        open.map_or_else(
            || watch::Sender::default().subscribe(),
            |open| open.disk.clone(),
        )
    }
}

/// The database and what SQLite keeps beside it.
pub(super) fn open_files(database: &Path) -> Vec<(PathBuf, u64, u64)> {
    let beside = ["", "-wal", "-shm"].map(|ending| {
        let mut path = database.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    });
    let found = beside.into_iter().filter_map(|path| {
        let meta = fs::metadata(&path).ok()?;
        Some((path, meta.dev(), meta.ino()))
    });
    found.collect()
}

/// A file system's bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    free: u64,
}

impl Space {
    /// `None` where the file system does not count its blocks.
    fn of(found: &StatVfs) -> Option<Self> {
        let total = found.f_blocks.saturating_mul(found.f_frsize);
        (total > 0).then(|| Self {
            total,
            free: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// The size of the reserve on this file system, in whole pages.
    fn size(self, wanted: u64) -> u64 {
        wanted.min(self.total / SHARE) / 4096 * 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_given_back_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&dir.path().join("renewd.db"), true);
        let (file, disk) = (dir.path().join(FILE), reserve.disk());
        reserve.hold(0);
        assert_eq!(fs::metadata(&file).unwrap().len(), LEAST);
        reserve.make_room();
        assert!(file.exists(), "there is room");
        reserve.was_full();
        assert_eq!((file.exists(), *disk.borrow()), (false, Disk::OnReserve));
        reserve.was_full();
        assert_eq!(*disk.borrow(), Disk::Full);
        reserve.hold(100_000);
        assert_eq!(*disk.borrow(), Disk::Roomy);
        assert_eq!(
            fs::metadata(&file).unwrap().len(),
            LEAST + 100_000 * PER_IDENTITY
        );
    }

    #[test]
    fn under_simulated_time_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&dir.path().join("renewd.db"), false);
        reserve.hold(1);
        reserve.was_full();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(*reserve.disk().borrow(), Disk::Roomy);
    }

    #[test]
    fn it_never_takes_much_of_a_small_disk() {
        let space = Space {
            total: 64 * MIB,
            free: 0,
        };
        assert_eq!(space.size(LEAST), 8 * MIB);
        assert_eq!(
            Space {
                total: 4096,
                free: 0
            }
            .size(LEAST),
            0
        );
    }
}
