//! How a program is handed the token: in a private file, or on a file descriptor.

use std::{
    ffi::OsString,
    fs,
    io::{self, Seek, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::folder::PrivateFolder;
use crate::{
    cli::exit::Failed,
    model::{Name, Secret},
    sinks::file::{remove_private, write_private},
};

/// The way that was chosen, and what is handed over now.
#[derive(Debug)]
pub(super) enum Handover {
    /// A file in a private folder.
    File(PrivateFolder),
    /// A sealed file in memory, open under the same number in the program.
    Descriptor(Option<OwnedFd>),
}

impl Handover {
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
