//! The change of a file that must keep its inode, because something is mounted on it or from it.
//!
//! It keeps it as long as nobody loses access to it. Whoever does may have it open, or a link to it, and
//! would read on whatever its mode says: then it is replaced once, and the old one emptied.
//!
//! A reader may see the beginning of the new content and the end of the old. What can be done is done:
//! the access is right first, room is set aside first, so that a full disk leaves the old content,
//! and the file is never empty in between.

use std::{fs::File, io::Seek, io::Write, os::fd::OwnedFd};

use rustix::{
    fs::{FallocateFlags, FileType, Mode, OFlags, fallocate, fstat, fsync, ftruncate, openat},
    io::Errno,
};

use super::{
    FileError,
    access::Access,
    replace::{self, Folder, io, not_granted},
};

/// Makes the file hold these bytes under this access; one that is missing is made as usual.
pub(super) fn overwrite(
    folder: &Folder,
    file: &str,
    bytes: &[u8],
    access: &Access,
) -> Result<(), FileError> {
    let path = folder.path_of(file);
    let Some(fd) = open(folder, file)? else {
        return replace::replace(folder, file, bytes, access);
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
    match replace::replace(folder, file, bytes, access) {
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
    let Some(fd) = open(folder, file)? else {
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

fn open(folder: &Folder, file: &str) -> Result<Option<OwnedFd>, FileError> {
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
