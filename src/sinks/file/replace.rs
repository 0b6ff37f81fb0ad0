//! The change of a file on the disk: replaced, written in place, taken back.
//!
//! It is replaced in one step: a temporary file beside it, complete and with its final access, renamed over it.
//!
//! It is changed in place where it must keep its inode, because something is mounted on it or from it. It keeps it as
//! long as nobody loses access to it. Whoever does may have it open, or a link to it, and would read on whatever
//! its mode says: then it is replaced once, and the old one emptied. A reader may see the beginning of the new
//! content and the end of the old. What can be done is done: the access is right first, room is set aside first,
//! so that a full disk leaves the old content, and the file is never empty in between.
//!
//! It is taken back only if it still is what we wrote.
//!
//! The way to a file goes folder by folder, by descriptor, following no symbolic link. `openat2` could refuse
//! links in one call, but the sandbox of the shipped unit hides it (`RestrictSUIDSGID=` answers ENOSYS), so each
//! step says `O_NOFOLLOW` itself.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{
        Advice, AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, Stat, fadvise, fallocate,
        fchmod, fstat, fsync, ftruncate, mkdirat, open, openat, renameat, statat, unlinkat,
    },
    io::Errno,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    DeliveryOutcome, FileError,
    access::{Access, AccessRefused, Granted},
    path::{Component, PathPattern},
};
use crate::model::Placed;

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
    Successor::write(folder, file, bytes, access)?.take_place()?;
    folder.flush(file)
}

/// What is to take a file's place: complete beside it, not flushed yet.
pub(super) struct Successor<'a> {
    temporary: Temporary<'a>,
    file: &'a str,
}

impl<'a> Successor<'a> {
    /// Writes it, and has the system begin to bring it to the disk: where several are written before the first is
    /// flushed, they share what that costs.
    pub(super) fn write(
        folder: &'a Folder,
        file: &'a str,
        bytes: &[u8],
        access: &Access,
    ) -> Result<Self, FileError> {
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
        // Advice that is not taken costs time alone.
        fadvise(&temporary.file, 0, None, Advice::DontNeed).ok();
        Ok(Self { temporary, file })
    }

    /// Flushes it and gives it the file's name, which is kept once the folder is flushed.
    pub(super) fn take_place(mut self) -> Result<(), FileError> {
        let Self { temporary, file } = &mut self;
        let folder = temporary.folder;
        let path = folder.path_of(file);
        fsync(&temporary.file).map_err(io("flush", &path))?;
        renameat(&folder.fd, &temporary.name, &folder.fd, *file).map_err(io("replace", &path))?;
        temporary.is_renamed = true;
        Ok(())
    }
}

/// What it means that a file cannot have its access.
pub(super) fn not_granted(refused: AccessRefused, folder: &Folder, path: &Path) -> FileError {
    match refused {
        AccessRefused::Access(Errno::OPNOTSUPP) => FileError::NoAcl(folder.path.clone()),
        AccessRefused::Access(error) => io("set the access of", path)(error),
        AccessRefused::Ownership(source) => FileError::Ownership {
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
            folder.flush(file)?;
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
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<DeliveryOutcome, FileError> {
    let (folder, file) = place(path)?;
    let access = Access::new(0o600, Granted::default(), None, None);
    if holds(&folder, &file, bytes, &access) {
        return Ok(DeliveryOutcome::Unchanged);
    }
    replace(&folder, &file, bytes, &access)?;
    Ok(DeliveryOutcome::Written)
}

/// Removes it.
///
/// # Errors
/// When it is still there.
pub fn remove_private(path: &Path) -> Result<DeliveryOutcome, FileError> {
    let (folder, file) = place(path)?;
    Ok(if remove(&folder, &file)? {
        DeliveryOutcome::Removed
    } else {
        DeliveryOutcome::Unchanged
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
    Create,
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

    /// Has the disk keep which names it holds; `file` is one that came or went.
    pub(super) fn flush(&self, file: &str) -> Result<(), FileError> {
        fsync(&self.fd).map_err(io("flush the folder of", &self.path_of(file)))
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

/// Makes the file hold these bytes under this access; one that is missing is made as usual.
pub(super) fn overwrite(
    folder: &Folder,
    file: &str,
    bytes: &[u8],
    access: &Access,
) -> Result<(), FileError> {
    let path = folder.path_of(file);
    let Some(fd) = open_in_place(folder, file)? else {
        return replace(folder, file, bytes, access);
    };
    let stat = fstat(&fd).map_err(io("examine", &path))?;
    if access.takes_from(&fd, &stat, folder.groups())
        && part(&fd, stat.st_size == 0, folder, file, (bytes, access))?
    {
        return Ok(());
    }
    access
        .grant(&fd)
        .map_err(|refused| not_granted(refused, folder, &path))?;
    let length = bytes.len() as u64;
    match fallocate(&fd, FallocateFlags::KEEP_SIZE, 0, length) {
        // Some file systems cannot; then the writing itself shows whether there is room.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(error) => return Err(io("write", &path)(error)),
    }
    let mut target = File::from(fd);
    let written = target.rewind().and_then(|()| target.write_all(bytes));
    written.map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        io("write", &path)(errno)
    })?;
    ftruncate(&target, length).map_err(io("shorten", &path))?;
    fsync(&target).map_err(io("flush", &path))
}

/// Puts a new file in the place of one that somebody has to lose; whether it could. An empty one that
/// something is mounted on is what an operator made for the mount: it may stay.
fn part(
    old: &OwnedFd,
    is_empty: bool,
    folder: &Folder,
    file: &str,
    (bytes, access): (&[u8], &Access),
) -> Result<bool, FileError> {
    let path = folder.path_of(file);
    match replace(folder, file, bytes, access) {
        Err(FileError::Io {
            source: Errno::BUSY,
            ..
        }) if is_empty => return Ok(false),
        Err(FileError::Io {
            source: Errno::BUSY,
            ..
        }) => return Err(FileError::Kept(path)),
        replaced => replaced?,
    }
    // The new one is there: what the old one still shows, and to whom, is the lesser matter.
    if let Err(error) = ftruncate(old, 0).and_then(|()| fsync(old)) {
        tracing::warn!(file = %path.display(), %error, "a token file was replaced, but the old one could not be emptied");
    }
    Ok(true)
}

/// Makes the file empty, and leaves it for the next token: whoever has it mounted would not see its
/// successor. Tells whether it held anything.
pub(super) fn empty(folder: &Folder, file: &str) -> Result<bool, FileError> {
    let path = folder.path_of(file);
    let Some(fd) = open_in_place(folder, file)? else {
        return Ok(false);
    };
    let stat = fstat(&fd).map_err(io("examine", &path))?;
    if stat.st_size == 0 {
        return Ok(false);
    }
    ftruncate(&fd, 0).map_err(io("empty", &path))?;
    fsync(&fd).map_err(io("flush", &path))?;
    Ok(true)
}

fn open_in_place(folder: &Folder, file: &str) -> Result<Option<OwnedFd>, FileError> {
    let path = folder.path_of(file);
    // Without NONBLOCK a pipe in its place would hold us up.
    let how = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(&folder.fd, file, how, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(FileError::Symlink(path)),
        Err(error) => return Err(io("open", &path)(error)),
        Ok(fd) => fd,
    };
    let stat = fstat(&fd).map_err(io("examine", &path))?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(FileError::NotAFile(path));
    }
    // Whose folder it is may have put another name of any file of ours there.
    if stat.st_nlink > 1 && folder.is_others() {
        return Err(FileError::Linked(path));
    }
    Ok(Some(fd))
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    Removed,
    /// It was not there any more.
    Gone,
    /// Something else lies there now; it was left alone.
    NotOurs,
}

/// Removes the file if it holds what we wrote.
pub(super) fn take_back(placed: &Placed) -> Result<TakenBack, FileError> {
    let path = &placed.path;
    let Some((folders, file)) = components(path) else {
        return Ok(TakenBack::NotOurs);
    };
    let Some(folder) = Folder::open(&folders, Missing::Leave)? else {
        return Ok(TakenBack::Gone);
    };
    let found = match open_written(&folder, file) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(TakenBack::Gone),
        // A link, a socket: nothing of ours.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(TakenBack::NotOurs),
        Err(error) => return Err(io("open", path)(error)),
    };
    let stat = fstat(&found).map_err(io("examine", path))?;
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    let mut found = File::from(found);
    if !is_file || digest_of(&mut found).map_err(io("read", path))? != placed.digest {
        return Ok(TakenBack::NotOurs);
    }
    match unlinkat(&folder.fd, file, AtFlags::empty()) {
        // Something is mounted on it; empty is the most that it can be.
        Ok(()) | Err(Errno::BUSY) => {}
        Err(error) => return Err(io("remove", path)(error)),
    }
    // Whoever has this very file mounted or linked loses the token too. Where we may only read it,
    // the name is gone all the same.
    ftruncate(&found, 0).ok();
    folder.flush(file)?;
    Ok(TakenBack::Removed)
}

fn open_written(folder: &Folder, file: &str) -> Result<OwnedFd, Errno> {
    let open = |how| {
        let how = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&folder.fd, file, how, Mode::empty())
    };
    match open(OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => open(OFlags::RDONLY),
        opened => opened,
    }
}

fn digest_of(file: &mut File) -> Result<[u8; 32], Errno> {
    let (mut hash, mut buffer) = (Sha256::new(), zeroize::Zeroizing::new([0; 16 << 10]));
    loop {
        match file.read(&mut buffer[..]) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

/// The folders from `/` on, and the file's name.
fn components(path: &Path) -> Option<(Vec<&str>, &str)> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::RootDir => {}
            std::path::Component::Normal(name) => names.push(name.to_str()?),
            _ => return None,
        }
    }
    let file = names.pop()?;
    Some((names, file))
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
