//! File systems that are nearly full: a token that cannot be stored or written is not delivered.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::{
    config::{Finding, Settings, Severity, SinkSettings},
    sinks::file::PathPattern,
};

const MIB: u64 = 1 << 20;
/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: u64 = 0x0102_1994;

/// How much a file system holds, and how much of it this user may still have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    bytes: u64,
    free_bytes: u64,
    /// None where the file system makes inodes as it needs them.
    files: u64,
    free_files: u64,
}

/// The file systems of the store and of every file sink, once each.
pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut places: Vec<(String, PathBuf)> =
        vec![("store.path".to_owned(), settings.store.path.clone())];
    let sinks = settings.sinks.iter().filter_map(|sink| match sink {
        SinkSettings::File(file) => Some(file.path.parse::<PathPattern>()),
        _ => None,
    });
    for (n, pattern) in sinks.enumerate() {
        if let Ok(pattern) = pattern {
            places.push((format!("sink.file[{n}].path"), pattern.root()));
        }
    }
    places
        .iter()
        .flat_map(|(path, folder)| of_folder(path, folder))
        .collect()
}

fn of_folder(path: &str, folder: &Path) -> Vec<Finding> {
    let existing = folder.ancestors().find(|part| part.is_dir());
    let Some((folder, found)) = existing.and_then(|part| Some((part, statfs(part).ok()?))) else {
        return Vec::new();
    };
    let size = u64::try_from(found.f_bsize).unwrap_or(0);
    let room = Room {
        bytes: found.f_blocks.saturating_mul(size),
        free_bytes: found.f_bavail.saturating_mul(size),
        files: found.f_files,
        free_files: found.f_ffree,
    };
    let is_tmpfs = u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS);
    let shown = folder.display();
    let bytes = lack_of_bytes(room).map(|severity| {
        let free = room.free_bytes / 1024;
        let message = format!("the file system of {shown} is nearly full: {free} KiB are free");
        let fix = if is_tmpfs {
            format!("mount -o remount,size={}M \"$(findmnt -no TARGET -T {shown})\"", (room.bytes / MIB).max(32) * 2)
        } else {
            format!("du -xh --max-depth=2 \"$(findmnt -no TARGET -T {shown})\" | sort -h | tail, then remove what nobody needs")
        };
        (severity, message, fix)
    });
    let files = lack_of_files(room).map(|severity| {
        let free = room.free_files;
        let message = format!("the file system of {shown} can take only {free} more files (inodes)");
        let fix = if is_tmpfs {
            format!("mount -o remount,nr_inodes={} \"$(findmnt -no TARGET -T {shown})\"", (room.files * 2).max(65_536))
        } else {
            format!("du -x --inodes --max-depth=2 \"$(findmnt -no TARGET -T {shown})\" | sort -n | tail, then remove what nobody needs")
        };
        (severity, message, fix)
    });
    let finding = |(severity, message, fix)| Finding {
        path: path.to_owned(),
        severity,
        message,
        hint: Some(fix),
    };
    bytes.into_iter().chain(files).map(finding).collect()
}

/// A few tokens need kilobytes; the store's journal, megabytes.
fn lack_of_bytes(room: Room) -> Option<Severity> {
    let below = |percent: u64| room.free_bytes < room.bytes / 100 * percent;
    if room.free_bytes < MIB / 16 || below(2) && room.free_bytes < 16 * MIB {
        Some(Severity::Error)
    } else {
        (below(10) && room.free_bytes < 1024 * MIB).then_some(Severity::Warning)
    }
}

/// Each write needs one inode more than there are files, for a moment.
fn lack_of_files(room: Room) -> Option<Severity> {
    if room.files == 0 {
        None
    } else if room.free_files < 8 {
        Some(Severity::Error)
    } else {
        let few = room.free_files < room.files / 20 && room.free_files < 10_000;
        few.then_some(Severity::Warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_what_is_left() {
        use Severity::{Error, Warning};
        let roomy = Room {
            bytes: 100_000 * MIB,
            free_bytes: 50_000 * MIB,
            files: 1_000_000,
            free_files: 900_000,
        };
        for (bytes, free_bytes, lack) in [
            (100_000 * MIB, 50_000 * MIB, None),
            (100_000 * MIB, 1500 * MIB, None),
            (100_000 * MIB, 900 * MIB, Some(Warning)),
            (100_000 * MIB, 15 * MIB, Some(Error)),
            (MIB, MIB / 2, None),
            (MIB, 0, Some(Error)),
        ] {
            let room = Room {
                bytes,
                free_bytes,
                ..roomy
            };
            assert_eq!(lack_of_bytes(room), lack, "{room:?}");
        }
        for (files, free_files, lack) in [
            (0, 0, None),
            (1_000_000, 900_000, None),
            (1_000_000, 9_999, Some(Warning)),
            (100, 50, None),
            (100, 7, Some(Error)),
        ] {
            let room = Room {
                files,
                free_files,
                ..roomy
            };
            assert_eq!(lack_of_files(room), lack, "{room:?}");
        }
    }
}
