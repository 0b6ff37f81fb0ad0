//! How a program is handed the token: in a private file, or on a file descriptor.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Seek, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create, mkdir};

use crate::{
    cli::exit::Failed,
    model::{Name, Secret},
    sinks::file::{remove_private, write_private},
};

/// The way that was chosen, and what is handed over now.
#[derive(Debug)]
pub(super) enum Hand {
    /// A file in a private folder.
    File(PrivateFolder),
    /// A sealed file in memory, open under the same number in the program.
    Descriptor(Option<OwnedFd>),
}

impl Hand {
    pub(super) fn new(on_descriptor: bool) -> Result<Self, Failed> {
        Ok(if on_descriptor {
            Self::Descriptor(None)
        } else {
            Self::File(PrivateFolder::make()?)
        })
    }

    /// Puts a token into it. A program that runs sees the file change in one step; what is on a
    /// descriptor is for the next one.
    pub(super) fn put(&mut self, content: &Secret) -> Result<(), Failed> {
        match self {
            Self::File(folder) => {
                write_private(&folder.file(), content.expose().as_bytes())
                    .map_err(Failed::plain)?;
            }
            Self::Descriptor(fd) => {
                let sealed = sealed(content);
                *fd = Some(sealed.map_err(|error| {
                    Failed::plain(format!("cannot put the token into memory: {error}"))
                })?);
            }
        }
        Ok(())
    }

    /// Takes the token back, as far as that can be.
    pub(super) fn clear(&mut self) {
        if let Self::File(folder) = self {
            // It lies in a folder of ours; if it cannot be removed now, it is at the end.
            remove_private(&folder.file()).ok();
        }
    }

    /// How the program finds it.
    pub(super) fn environment(&self, name: &Name) -> Vec<(&'static str, OsString)> {
        let place = match self {
            Self::File(folder) => ("RENEWD_TOKEN_FILE", folder.file().into_os_string()),
            Self::Descriptor(fd) => {
                let number = fd.as_ref().map(AsRawFd::as_raw_fd).unwrap_or(-1);
                ("RENEWD_TOKEN_FD", number.to_string().into())
            }
        };
        vec![place, ("RENEWD_NAME", name.as_str().into())]
    }
}

/// A file in memory that nobody can change, to be read from its start. Programs that are started
/// inherit it.
fn sealed(content: &Secret) -> io::Result<OwnedFd> {
    let fd = memfd_create("renewd-token", MemfdFlags::ALLOW_SEALING)?;
    let mut file = fs::File::from(fd);
    file.write_all(content.expose().as_bytes())?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// A folder that only this user can enter, removed with what is in it when this is dropped.
#[derive(Debug)]
pub(super) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn make() -> Result<Self, Failed> {
        let parent = memory();
        let name = format!(
            "renewd-exec-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let path = parent.join(name);
        mkdir(&path, Mode::RWXU).map_err(|error| {
            Failed::plain(format!(
                "cannot make the folder {}: {error}",
                path.display()
            ))
            .hint("set XDG_RUNTIME_DIR to a folder of this user in memory, or use --token-fd")
        })?;
        Ok(Self(path))
    }

    fn file(&self) -> PathBuf {
        self.0.join("token")
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nothing can be done about it any more, and only this user can read it.
        fs::remove_dir_all(&self.0).ok();
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
