//! The change of a file in one step: a temporary file beside it, complete and with its final access, renamed
//! over it.
//!
//! The way to a file goes folder by folder, by descriptor, following no symbolic link. `openat2` could refuse
//! links in one call, but the sandbox of the shipped unit hides it (`RestrictSUIDSGID=` answers ENOSYS), so each
//! step says `O_NOFOLLOW` itself.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, fsync, mkdirat, open, openat,
        renameat, statat, unlinkat,
    },
    io::Errno,
};
use zeroize::Zeroizing;

use super::{
    FileError, Outcome,
    access::{Access, Granted, Refused},
    path::{Component, PathPattern},
};

/// Between the file's own name and the number in the name of its temporary file.
const MARK: &str = ".renewd-";
/// So much of the file's own name is kept in it; names end at 255 bytes.
const KEPT_NAME: usize = 180;

/// Whether the file holds exactly these bytes under exactly this access, and is ours.
pub(super) fn holds(folder: &Folder, file: &str, bytes: &[u8], access: &Access) -> bool {
    // Without NONBLOCK a pipe in its place would hold us up.
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(found) = openat(&folder.fd, file, how, Mode::empty()) else {
        return false;
    };
    let Ok(stat) = fstat(&found) else {
        return false;
    };
    let may_be = FileType::from_raw_mode(stat.st_mode).is_file()
        && u64::try_from(stat.st_size).is_ok_and(|size| size == bytes.len() as u64);
    may_be && access.is_on(&found, &stat, folder.groups()) && reads(found, bytes)
}

fn reads(file: OwnedFd, bytes: &[u8]) -> bool {
    let mut found = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
    let limit = bytes.len() as u64 + 1;
    File::from(file).take(limit).read_to_end(&mut found).is_ok() && *found == bytes
}

/// Makes the file hold these bytes under this access. On failure it is as it was.
pub(super) fn replace(
    folder: &Folder,
    file: &str,
    bytes: &[u8],
    access: &Access,
) -> Result<(), FileError> {
    let path = folder.path_of(file);
    let mut temporary =
        Temporary::create(folder, file).map_err(io("make a temporary file for", &path))?;
    access
        .grant(&temporary.file)
        .map_err(|refused| not_granted(refused, folder, &path))?;
    temporary.file.write_all(bytes).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        io("write", &path)(errno)
    })?;
    fsync(&temporary.file).map_err(io("flush", &path))?;
    renameat(&folder.fd, &temporary.name, &folder.fd, file).map_err(io("replace", &path))?;
    temporary.is_renamed = true;
    fsync(&folder.fd).map_err(io("flush the folder of", &path))
}

/// What it means that a file cannot have its access.
pub(super) fn not_granted(refused: Refused, folder: &Folder, path: &Path) -> FileError {
    match refused {
        Refused::Access(Errno::OPNOTSUPP) => FileError::NoAcl(folder.path.clone()),
        Refused::Access(error) => io("set the access of", path)(error),
        Refused::Ownership(source) => FileError::Ownership {
            path: path.to_owned(),
            source,
        },
    }
}

/// Removes the file; whether there was one.
pub(super) fn remove(folder: &Folder, file: &str) -> Result<bool, FileError> {
    let path = folder.path_of(file);
    match unlinkat(&folder.fd, file, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(io("remove", &path)(error)),
        Ok(()) => {
            fsync(&folder.fd).map_err(io("flush the folder of", &path))?;
            Ok(true)
        }
    }
}

/// A file under a name that nobody reads, removed again unless it is renamed.
struct Temporary<'a> {
    folder: &'a Folder,
    name: String,
    file: File,
    is_renamed: bool,
}

impl<'a> Temporary<'a> {
    fn create(folder: &'a Folder, file: &str) -> Result<Self, Errno> {
        let how =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = temporary_name(file);
            match openat(&folder.fd, &name, how, Mode::from_raw_mode(0o600)) {
                // A process of the same number died here before: the next name is free.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
                Ok(fd) => {
                    return Ok(Self {
                        folder,
                        name,
                        file: File::from(fd),
                        is_renamed: false,
                    });
                }
            }
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_renamed {
            // If even this fails, the next start sweeps it up.
            unlinkat(&self.folder.fd, &self.name, AtFlags::empty()).ok();
        }
    }
}

/// `.name.renewd-PID-COUNT`: no two threads of a process and no two processes share one.
pub(super) fn temporary_name(file: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let kept = &file[..file.floor_char_boundary(KEPT_NAME)];
    format!(".{kept}{MARK}{}-{count}", std::process::id())
}

fn is_temporary(name: &str) -> bool {
    let number = name
        .strip_prefix('.')
        .and_then(|rest| rest.rsplit_once(MARK));
    number.is_some_and(|(_, number)| {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        number
            .split_once('-')
            .is_some_and(|(pid, count)| is_digits(pid) && is_digits(count))
    })
}

/// Removes our temporary files from every folder that the pattern can lead to; tells how many.
pub(super) fn sweep(pattern: &PathPattern) -> Result<usize, FileError> {
    let folders = pattern.folders();
    let fixed: Vec<&str> = folders.iter().map_while(Component::fixed).collect();
    match Folder::open(&fixed, Missing::Leave)? {
        Some(root) => sweep_below(&root, &folders[fixed.len()..]),
        None => Ok(0),
    }
}

fn sweep_below(folder: &Folder, further: &[Component]) -> Result<usize, FileError> {
    let Some((next, further)) = further.split_first() else {
        let leftovers = entries(folder)?
            .into_iter()
            .filter(|name| is_temporary(name));
        return Ok(leftovers
            .filter(|name| remove_leftover(folder, name))
            .count());
    };
    let names = match next.fixed() {
        Some(name) => vec![name.to_owned()],
        None => entries(folder)?,
    };
    let mut removed = 0;
    for inside in names.iter().filter_map(|name| folder.inside(name)) {
        removed += sweep_below(&inside, further)?;
    }
    Ok(removed)
}

fn entries(folder: &Folder) -> Result<Vec<String>, FileError> {
    let failed = |error| io("list the folder", &folder.path)(error);
    let mut names = Vec::new();
    for entry in Dir::read_from(&folder.fd).map_err(failed)? {
        let name = entry
            .map_err(failed)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_leftover(folder: &Folder, name: &str) -> bool {
    let Ok(stat) = statat(folder.fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    FileType::from_raw_mode(stat.st_mode).is_file()
        && stat.st_uid == crate::accounts::own_uid()
        && unlinkat(&folder.fd, name, AtFlags::empty()).is_ok()
}

/// Makes the file at this absolute path hold these bytes, mode 0600, in one step. Links on the way to
/// its folder are followed: they are its owner's.
///
/// # Errors
/// When it does not hold them now; it is as it was.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<Outcome, FileError> {
    let (folder, file) = place(path)?;
    let access = Access::new(0o600, Granted::default(), None, None);
    if holds(&folder, &file, bytes, &access) {
        return Ok(Outcome::Unchanged);
    }
    replace(&folder, &file, bytes, &access)?;
    Ok(Outcome::Written)
}

/// Removes it.
///
/// # Errors
/// When it is still there.
pub fn remove_private(path: &Path) -> Result<Outcome, FileError> {
    let (folder, file) = place(path)?;
    Ok(if remove(&folder, &file)? {
        Outcome::Removed
    } else {
        Outcome::Unchanged
    })
}

/// The folder, links resolved, and the file's name.
fn place(path: &Path) -> Result<(Folder, String), FileError> {
    let not_named = || io("use the path", path)(rustix::io::Errno::INVAL);
    let parent = path.parent().ok_or_else(not_named)?;
    let file = path.file_name().and_then(|name| name.to_str());
    let file = file.ok_or_else(not_named)?.to_owned();
    let real = std::fs::canonicalize(parent).map_err(|error| {
        let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
        io("find the folder", parent)(errno)
    })?;
    let names: Option<Vec<&str>> = real.iter().skip(1).map(|name| name.to_str()).collect();
    let names = names.ok_or_else(not_named)?;
    let folder = Folder::open(&names, Missing::Leave)?;
    Ok((folder.ok_or_else(not_named)?, file))
}

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

    /// Whether somebody besides root and the daemon could put another file into it.
    pub(super) fn is_others(&self) -> bool {
        fstat(&self.fd).map_or(true, |stat| {
            let own = rustix::process::geteuid().as_raw();
            ![0, own].contains(&stat.st_uid) || stat.st_mode & 0o022 != 0
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_make_are_swept() {
        assert!(is_temporary(&temporary_name("bot.json")));
        assert!(is_temporary(&temporary_name(&"ä".repeat(127))));
        assert!(temporary_name(&"ä".repeat(127)).len() <= 255);
        for not_ours in [
            "bot.json",
            ".bot.json",
            ".renewd-",
            ".x.renewd-1",
            ".x.renewd-1-",
            "x.renewd-1-2",
            ".x.renewd-a-1",
        ] {
            assert!(!is_temporary(not_ours), "{not_ours}");
        }
    }
}
