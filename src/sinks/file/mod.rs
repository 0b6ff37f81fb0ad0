//! Token files: one per identity, complete at every instant, readable by exactly whom they are for.
//!
//! A file is never changed in place. Its successor is written beside it under a temporary name, with
//! its final access, flushed, and renamed over it; so a reader sees the old file or the new one, and
//! a full disk or a power cut leaves the old one. No symbolic link is followed on the way.

mod access;
mod content;
mod folder;
mod path;
mod readers;
mod replace;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use rustix::io::Errno;

pub use content::FormatError;
pub use path::{PathError, PathPattern};

use access::{Access, Granted};
use content::Content;
use folder::{Folder, Missing};
use readers::Readers;

use super::{Delivery, Outcome};
use crate::{
    config::{FileFormat, FileSinkSettings},
    model::{Name, Reader, ResourceName, State, TokenDocument},
};

/// Why a file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(*source))]
    Io {
        /// What was being done, as in "cannot … PATH".
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// A symbolic link stands in the way.
    #[error("{} is a symbolic link, and none is followed on the way to a token file; configure the path that it leads to", .0.display())]
    Symlink(PathBuf),
    /// Something else than a folder stands in the way.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Anyone could swap the file for another.
    #[error("every user may write to {}, so anyone could replace token files; run chmod o-w on it or choose another folder", .0.display())]
    WritableByOthers(PathBuf),
    /// A reader that the system does not know.
    #[error("the reader {0} is not known on this system; add it or correct `readers`")]
    UnknownReader(Reader),
    /// Readers cannot be granted there.
    #[error("the file system of {} keeps no POSIX ACLs, so no reader can be granted; choose one that does, such as tmpfs, ext4 or xfs", .0.display())]
    NoAcl(PathBuf),
    /// The format cannot hold the value.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What an operator can do about the errors that have one cause.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ROFS => "; under the shipped unit a drop-in with ReadWritePaths= opens the folder",
        Errno::NOSPC | Errno::DQUOT => "; the file is as it was, free some space",
        Errno::ACCESS | Errno::PERM => "; the daemon's user needs write access to the folder",
        _ => "",
    }
}

/// A sink that keeps one file per identity.
#[derive(Debug, Clone)]
pub struct FileSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathPattern,
    format: FileFormat,
    mode: u32,
    readers: Readers,
    /// Whether to work on the calling thread, as simulated time demands.
    inline: bool,
}

impl FileSink {
    /// Makes the sink; `inline` keeps its work on the calling thread.
    ///
    /// # Errors
    /// When the path cannot be used.
    pub fn new(settings: &FileSinkSettings, inline: bool) -> Result<Self, PathError> {
        Ok(Self(Arc::new(Inner {
            path: settings.path.parse()?,
            format: settings.format,
            mode: settings.mode,
            readers: Readers::default(),
            inline,
        })))
    }

    /// Makes the file hold what the document says, or removes it.
    ///
    /// # Errors
    /// When it does not hold that now; the old file is untouched.
    pub async fn deliver(&self, delivery: Delivery, now: Timestamp) -> Result<Outcome, FileError> {
        self.on_disk(move |sink| sink.put(&delivery, now)).await
    }

    /// Removes the file of an identity.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn withdraw(
        &self,
        name: &Name,
        resource: &ResourceName,
    ) -> Result<Outcome, FileError> {
        let (name, resource) = (name.clone(), resource.clone());
        self.on_disk(move |sink| sink.remove(&name, &resource))
            .await
    }

    /// Writes a file that is only a test, where the real ones lie and by the same recipe, and removes
    /// it again. It has a name that no reader knows and that a sweep removes.
    ///
    /// # Errors
    /// When a real file could not have been written either.
    pub async fn try_out(&self, document: Arc<TokenDocument>) -> Result<Outcome, FileError> {
        self.on_disk(move |sink| sink.try_out(&document)).await
    }

    /// The path with its placeholders.
    pub fn target(&self) -> String {
        self.0.path.to_string()
    }

    /// Removes the temporary files that a killed process left behind, and tells how many.
    ///
    /// # Errors
    /// When a folder cannot be searched.
    pub async fn sweep(&self) -> Result<usize, FileError> {
        self.on_disk(|sink| replace::sweep(&sink.path)).await
    }

    /// Files block, so in production they are written on threads made for that.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> T {
        if self.0.inline {
            return work(&self.0);
        }
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            // A panic goes on where it would have without the thread. Nothing else ends such work
            // early but the end of the runtime, and then nobody waits for this.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Inner {
    fn put(&self, delivery: &Delivery, now: Timestamp) -> Result<Outcome, FileError> {
        let document = &delivery.document;
        let bytes = match content::content(self.format, document)? {
            Content::Nothing => return self.remove(&document.name, &document.resource),
            Content::Bytes(bytes) => bytes,
        };
        let access = Access::new(self.mode, &self.readers.resolve(&delivery.readers, now)?);
        let (folders, file) = self.path.place(&document.name, &document.resource);
        let Some(folder) = Folder::open(&folders, Missing::Create)? else {
            return Ok(Outcome::Unchanged);
        };
        if replace::holds(&folder, &file, &bytes, &access) {
            return Ok(Outcome::Unchanged);
        }
        replace::replace(&folder, &file, &bytes, &access)?;
        Ok(Outcome::Written)
    }

    fn try_out(&self, document: &TokenDocument) -> Result<Outcome, FileError> {
        let Content::Bytes(bytes) = content::content(self.format, document)? else {
            return Ok(Outcome::Unchanged);
        };
        let folders = self.path.folders_before_name(&document.resource);
        let Some(folder) = Folder::open(&folders, Missing::Create)? else {
            return Ok(Outcome::Unchanged);
        };
        let file = replace::temporary_name(document.name.as_str());
        let access = Access::new(self.mode, &Granted::default());
        replace::replace(&folder, &file, &bytes, &access)?;
        replace::remove(&folder, &file)?;
        Ok(Outcome::Written)
    }

    fn remove(&self, name: &Name, resource: &ResourceName) -> Result<Outcome, FileError> {
        let (folders, file) = self.path.place(name, resource);
        let removed = match Folder::open(&folders, Missing::Leave)? {
            Some(folder) => replace::remove(&folder, &file)?,
            None => false,
        };
        Ok(if removed {
            Outcome::Removed
        } else {
            Outcome::Unchanged
        })
    }
}

/// Whether a file sink of this format keeps something on disk for an identity in this state.
pub(crate) fn keeps_file(format: FileFormat, state: State) -> bool {
    match state {
        State::Active | State::Late => true,
        State::Held => format == FileFormat::Json,
        State::New | State::Gone | State::Deleted => false,
    }
}
