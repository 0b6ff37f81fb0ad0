//! Takes a file back that we once wrote, and only if it still is what we wrote.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, ftruncate, openat, unlinkat},
    io::Errno,
};
use sha2::{Digest, Sha256};

use super::{
    FileError,
    replace::{Folder, Missing, io},
};
use crate::model::Placed;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    /// It is removed.
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
    let found = match open(&folder, file) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(TakenBack::Gone),
        // A link, a socket: nothing of ours.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(TakenBack::NotOurs),
        Err(error) => return Err(io("open", path)(error)),
    };
    let stat = fstat(&found).map_err(io("examine", path))?;
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    let mut found = File::from(found);
    if !is_file || digest(&mut found).map_err(io("read", path))? != placed.digest {
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
    fsync(&folder.fd).map_err(io("flush the folder of", path))?;
    Ok(TakenBack::Removed)
}

fn open(folder: &Folder, file: &str) -> Result<OwnedFd, Errno> {
    let open = |how| {
        let how = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&folder.fd, file, how, Mode::empty())
    };
    match open(OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => open(OFlags::RDONLY),
        opened => opened,
    }
}

fn digest(file: &mut File) -> Result<[u8; 32], Errno> {
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
            Component::RootDir => {}
            Component::Normal(name) => names.push(name.to_str()?),
            _ => return None,
        }
    }
    let file = names.pop()?;
    Some((names, file))
}
