//! `[[source.file]]`: a file of JSON lines. Whoever owns it writes another beside it and renames it, so
//! it is whole whenever it is read.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Look, SourceError, jsonl, listing::Row};

/// The largest file.
const LARGEST: u64 = 512 << 20;

/// What tells one content of a path from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at a path, links followed.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&std::fs::metadata(path)?))
    }

    /// Which file it is, whatever it holds.
    pub(super) fn file(&self) -> String {
        format!("{}:{}", self.device, self.inode)
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// A file and what it was when it was read.
#[derive(Debug)]
pub(super) struct Regular {
    path: PathBuf,
    inline: bool,
    read: Option<Stamp>,
}

impl Regular {
    pub(super) fn new(path: PathBuf, inline: bool) -> Self {
        Self {
            path,
            inline,
            read: None,
        }
    }

    pub(super) async fn look(&self) -> Result<Look, SourceError> {
        let path = self.path.clone();
        let stamp = off_thread(self.inline, move || {
            Stamp::of(&path).map_err(|error| cannot_read(&path, &error))
        })
        .await?;
        Ok(Look {
            changed: self.read.as_ref() != Some(&stamp),
            // Renaming another over it is how such a file is written.
            file: None,
        })
    }

    pub(super) async fn read(&mut self) -> Result<Vec<Row>, SourceError> {
        let path = self.path.clone();
        let (stamp, rows) = off_thread(self.inline, move || {
            let failed = |error: io::Error| cannot_read(&path, &error);
            let file = File::open(&path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if !metadata.is_file() {
                return Err(cannot_read(
                    &path,
                    &io::Error::other("it is not a regular file"),
                ));
            }
            let mut text = Vec::new();
            file.take(LARGEST + 1)
                .read_to_end(&mut text)
                .map_err(failed)?;
            let what = path.display().to_string();
            if text.len() as u64 > LARGEST {
                return Err(SourceError::Long {
                    what,
                    most: "512 MiB",
                });
            }
            Ok((Stamp::from(&metadata), jsonl::rows(&text, &what)?))
        })
        .await?;
        self.read = Some(stamp);
        Ok(rows)
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> SourceError {
    SourceError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// Runs what waits for a disk on a thread for that; in place under simulated time.
pub(super) async fn off_thread<T: Send + 'static>(
    inline: bool,
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    if inline {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(SourceError::Program {
            program: "reading".to_owned(),
            reason: "a fault in renewd; its log says where".to_owned(),
        })
    })
}
