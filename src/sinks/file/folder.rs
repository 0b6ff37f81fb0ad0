//! The way to a file: folder by folder, by descriptor, following no symbolic link.
//!
//! `openat2` could refuse links in one call, but the sandbox of the shipped unit hides it
//! (`RestrictSUIDSGID=` answers ENOSYS), so each step says `O_NOFOLLOW` itself.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, fsync, mkdirat, open, openat, statat,
    },
    io::Errno,
};

use super::FileError;

/// Folders that we make: all may pass, none may list.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o711);
/// The right of every user to make, rename and remove entries.
const OTHERS_WRITE: u32 = 0o002;
/// That right, limited to one's own entries.
const STICKY: u32 = 0o1000;

/// What to do where a folder is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it.
    Create,
    /// Say so.
    Leave,
}

/// A folder that is safe to keep token files in.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Folder {
    /// Opens the folder at the end of `components`, which begin below `/`. `None` where it is missing
    /// and [`Missing::Leave`] was said.
    pub(super) fn open(
        components: &[impl AsRef<str>],
        missing: Missing,
    ) -> Result<Option<Self>, FileError> {
        let mut path = PathBuf::from("/");
        let mut fd = open(&path, flags(components.is_empty()), Mode::empty())
            .map_err(io("open the folder", &path))?;
        for (at, component) in components.iter().enumerate() {
            let is_last = at + 1 == components.len();
            path.push(component.as_ref());
            fd = match step(&fd, component.as_ref(), is_last) {
                Err(Errno::NOENT) if missing == Missing::Create => {
                    make(&fd, component.as_ref()).map_err(io("make the folder", &path))?
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(obstacle(&fd, component.as_ref(), path));
                }
                Err(error) => return Err(io("open the folder", &path)(error)),
                Ok(next) => next,
            };
            refuse_shared(&fd, &path, is_last)?;
        }
        Ok(Some(Self { fd, path }))
    }

    /// The folder `name` inside, if it is one and not a link.
    pub(super) fn inside(&self, name: &str) -> Option<Self> {
        let fd = step(&self.fd, name, true).ok()?;
        Some(Self {
            fd,
            path: self.path.join(name),
        })
    }

    /// The groups that a new file gets here: ours, or that of the folder.
    pub(super) fn groups(&self) -> [u32; 2] {
        let own = rustix::process::getegid().as_raw();
        [own, fstat(&self.fd).map_or(own, |stat| stat.st_gid)]
    }

    /// The path of an entry, for messages.
    pub(super) fn path_of(&self, entry: &str) -> PathBuf {
        self.path.join(entry)
    }
}

/// For `map_err`: what was being done, to what.
pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(Errno) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io {
        doing,
        path,
        source,
    }
}

/// On the way the right to pass is enough; the last folder is also listed and flushed.
fn flags(is_last: bool) -> OFlags {
    let how = if is_last {
        OFlags::RDONLY
    } else {
        OFlags::PATH
    };
    how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn step(folder: &OwnedFd, name: &str, is_last: bool) -> Result<OwnedFd, Errno> {
    openat(folder, name, flags(is_last), Mode::empty())
}

fn make(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(folder, name, FOLDER_MODE) {
        // Somebody was faster: then it is as they made it.
        Err(Errno::EXIST) => return step(folder, name, true),
        made => made?,
    }
    let made = step(folder, name, true)?;
    // Whatever the umask took away.
    fchmod(&made, FOLDER_MODE)?;
    fsync(&made)?;
    // Its name is kept by the folder that it is in, which may be open for passing alone.
    let parent = openat(folder, c".", flags(true), Mode::empty());
    match parent {
        // Where we may make folders and not list them, the system keeps the name in its own time.
        Err(Errno::ACCESS) => {}
        parent => fsync(parent?)?,
    }
    Ok(made)
}

/// What stands where a folder should be.
fn obstacle(folder: &OwnedFd, name: &str, path: PathBuf) -> FileError {
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Symlink) => FileError::Symlink(path),
        _ => FileError::NotAFolder(path),
    }
}

/// A folder in which anyone may replace entries is no place for tokens, nor on the way to them.
fn refuse_shared(folder: &OwnedFd, path: &Path, is_last: bool) -> Result<(), FileError> {
    let stat: Stat = fstat(folder).map_err(io("examine the folder", path))?;
    let is_shared = stat.st_mode & OTHERS_WRITE != 0;
    let is_sticky = stat.st_mode & STICKY != 0;
    let is_ours = stat.st_uid == crate::accounts::own_uid();
    if is_shared && !(is_sticky && (is_ours || !is_last)) {
        return Err(FileError::WritableByOthers(path.to_owned()));
    }
    Ok(())
}
