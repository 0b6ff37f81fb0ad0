//! The change of a file in one step: a temporary file beside it, complete and with its final access,
//! renamed over it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, fsync, openat, renameat, statat, unlinkat},
    io::Errno,
};
use zeroize::Zeroizing;

use super::{
    FileError,
    access::{Access, Refused},
    folder::{Folder, Missing, io},
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
