//! A private folder in memory for a token, and the removal of those whose owners were killed.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::cli::exit::Failed;

const PREFIX: &str = "renewd-exec-";

/// A folder that only this user can enter, removed with what is in it when this is dropped.
#[derive(Debug)]
pub(super) struct PrivateFolder {
    path: PathBuf,
    /// Locked for as long as this process lives, which tells a folder in use from one left behind.
    _lock: File,
}

impl PrivateFolder {
    pub(super) fn make() -> Result<Self, Failed> {
        let parent = memory();
        remove_left_behind(&parent);
        loop {
            let name = format!(
                "{PREFIX}{}-{:08x}",
                std::process::id(),
                rand::random::<u32>()
            );
            let path = parent.join(name);
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            let locked = made.and_then(|()| lock(&path)).map_err(|error| {
                let path = path.display();
                Failed::plain(format!("cannot make the folder {path}: {error}")).hint(
                    "set XDG_RUNTIME_DIR to a folder of this user in memory, or use --token-fd",
                )
            })?;
            // Another process may have taken it for one left behind before it was locked.
            if let Some(lock) = locked.filter(|_| path.exists()) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Where the token goes.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join("token")
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nothing can be done about it any more, and only this user can read it.
        fs::remove_dir_all(&self.path).ok();
    }
}

/// The lock of a folder; `None` where somebody else holds it.
fn lock(path: &Path) -> std::io::Result<Option<File>> {
    let folder = File::open(path)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// SIGKILL gives nobody time to tidy up. What cannot be removed is left: no program waits for it.
fn remove_left_behind(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|found| {
                found.is_dir() && found.uid() == rustix::process::geteuid().as_raw()
            });
        if is_ours && let Ok(Some(_lock)) = lock(&entry.path()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// A folder in memory: this user's own, the unit's own, or one for everybody.
fn memory() -> PathBuf {
    let own = ["XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"]
        .into_iter()
        .filter_map(env::var_os)
        .map(PathBuf::from)
        .find(|folder| folder.is_dir());
    let shared = || Some(Path::new("/dev/shm").to_owned()).filter(|folder| folder.is_dir());
    let folder = own.or_else(shared).unwrap_or_else(env::temp_dir);
    fs::canonicalize(&folder).unwrap_or(folder)
}
