//! Why a file is not as it should be, and what an operator can do about it.

use std::path::PathBuf;

use rustix::io::Errno;

use super::FormatError;
use crate::{model::Reader, sandbox};

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
    /// It cannot be given to its owner or group.
    #[error("cannot give {} to its owner and group: {source}; {}", path.display(), chown_advice())]
    Ownership {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// Somebody is to lose access to a file that cannot be replaced.
    #[error("{} may be read by somebody who is no reader any more and may have it open, and it cannot be replaced, since something is mounted on it; take the mount away, or, where nobody has it open, give it its new mode, ACL and owner yourself", .0.display())]
    Kept(PathBuf),
    /// Something else than a file lies there.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// It may be another file of ours.
    #[error("{} has another name (a hard link), and others may write to its folder, so what is written into it could change another file; remove it, and renewd makes it anew", .0.display())]
    Linked(PathBuf),
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
        Errno::BUSY => {
            "; something is mounted on it: mount its folder instead, or set write = \"in-place\" for this sink"
        }
        _ => "",
    }
}

fn chown_advice() -> String {
    format!(
        "the daemon needs CAP_CHOWN for `owner`, and for a `group` that it is not in; under the shipped unit {}",
        sandbox::remedy(&sandbox::CHOWN)
    )
}
