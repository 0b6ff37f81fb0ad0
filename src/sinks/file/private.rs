//! One file that its owner alone reads, kept by a consumer for itself.

use std::path::Path;

use super::{
    FileError, Outcome,
    access::{Access, Granted},
    folder::{Folder, Missing, io},
    replace,
};

/// Makes the file at this absolute path hold these bytes, mode 0600, in one step. Links on the way to
/// its folder are followed: they are its owner's.
///
/// # Errors
/// When it does not hold them now; it is as it was.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<Outcome, FileError> {
    let (folder, file) = place(path)?;
    let access = Access::new(0o600, Granted::default(), None, None);
    if replace::holds(&folder, &file, bytes, &access) {
        return Ok(Outcome::Unchanged);
    }
    replace::replace(&folder, &file, bytes, &access)?;
    Ok(Outcome::Written)
}

/// Removes it.
///
/// # Errors
/// When it is still there.
pub fn remove_private(path: &Path) -> Result<Outcome, FileError> {
    let (folder, file) = place(path)?;
    Ok(if replace::remove(&folder, &file)? {
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
