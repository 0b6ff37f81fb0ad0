//! Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of its file system.
    pub(super) device: String,
    /// What of the file system is mounted, as a path in it.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// Whether what is mounted has been removed, or replaced by another file of its name.
    pub(super) gone: bool,
}

/// How the kernel marks a root that has no name any more.
const GONE: &str = "//deleted";

/// The mounts of a process. Lines of another form are left out.
pub(super) fn read(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let device = fields.nth(2)?.to_owned();
    let (root, point) = (plain(fields.next()?), plain(fields.next()?));
    let (root, gone) = match root.strip_suffix(GONE) {
        Some(root) => (root.to_owned(), true),
        None => (root, false),
    };
    Some(Mount {
        device,
        root: root.into(),
        point: point.into(),
        gone,
    })
}

/// Without the kernel's octal escapes for spaces and the like.
fn plain(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path as `(device, path in that file system)`, by the mount that it lies on.
pub(super) fn locate(path: &Path, mounts: &[Mount]) -> Option<(String, PathBuf)> {
    // Later lines lie over earlier ones.
    let mount = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    Some((mount.device.clone(), mount.root.join(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /run rw,nosuid - tmpfs tmpfs rw
41 22 254:0 /srv/tokens /srv/my\\040app rw - ext4 /dev/vda rw
42 30 0:25 /renewd/bot.json//deleted /etc/bot.json rw - tmpfs tmpfs rw
nonsense
";

    #[test]
    fn lines_are_read_with_their_escapes_and_marks() {
        let mounts = read(TEXT);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[2].point, Path::new("/srv/my app"));
        assert_eq!(mounts[3].root, Path::new("/renewd/bot.json"));
        assert!(mounts[3].gone && !mounts[2].gone);
    }

    #[test]
    fn a_path_is_found_on_the_nearest_mount() {
        let mounts = read(TEXT);
        for (path, device, inside) in [
            ("/run/renewd/bot.json", "0:25", "/renewd/bot.json"),
            ("/srv/my app/bot", "254:0", "/srv/tokens/bot"),
            ("/srv/other", "254:0", "/srv/other"),
        ] {
            let found = locate(Path::new(path), &mounts);
            assert_eq!(found, Some((device.to_owned(), inside.into())), "{path}");
        }
    }
}
