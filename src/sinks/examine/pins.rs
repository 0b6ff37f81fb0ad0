//! Files that are mounted on their own, as containers do with `--volume FILE:FILE`: such a mount
//! holds on to the file that it was made of, while every new token is a new file of the same name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::mounts::{Mount, locate, read};
use crate::config::{Finding, Severity};

/// What this process and every other that it sees have mounted.
pub(super) struct Pins {
    own: Vec<Mount>,
    others: Vec<Neighbour>,
}

/// A process that sees other mounts than this one.
struct Neighbour {
    pid: u32,
    program: String,
    mounts: Vec<Mount>,
}

impl Pins {
    /// Looks at `/proc`. What cannot be read there (a sandbox hides it) is left out.
    pub(super) fn look() -> Self {
        let own_text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = read(&own_text);
        let mut known = BTreeSet::from([own_text]);
        let mut others = Vec::new();
        let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
        for folder in folders.map(|entry| entry.path()) {
            let name = folder.file_name().and_then(|name| name.to_str());
            let Some(pid) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(folder.join("mountinfo")).unwrap_or_default();
            if known.contains(&text) || text.is_empty() {
                continue;
            }
            let program = fs::read_to_string(folder.join("comm")).unwrap_or_default();
            others.push(Neighbour {
                pid,
                program: program.trim().to_owned(),
                mounts: read(&text),
            });
            known.insert(text);
        }
        Self { own, others }
    }

    /// Whoever holds on to this file.
    pub(super) fn of(&self, target: &Path, path: &str) -> Vec<Finding> {
        if self.own.iter().any(|mount| mount.point == target) {
            return vec![pinned_here(target, path)];
        }
        let Some(place) = locate(target, &self.own) else {
            return Vec::new();
        };
        let holders = self.others.iter().filter_map(|neighbour| {
            let gone = held(&neighbour.mounts, &place)?;
            Some(pinned_there(target, neighbour, gone, path))
        });
        holders.collect()
    }
}

/// Whether a process has exactly this file mounted, and if so, whether it is an old one by now.
fn held(mounts: &[Mount], (device, inside): &(String, PathBuf)) -> Option<bool> {
    let mut same = mounts
        .iter()
        .filter(|mount| mount.device == *device && mount.root == *inside);
    let first = same.next()?;
    Some(first.gone || same.any(|mount| mount.gone))
}

fn pinned_here(target: &Path, path: &str) -> Finding {
    let shown = target.display();
    Finding {
        path: path.to_owned(),
        severity: Severity::Error,
        message: format!("{shown} is a mount of a single file, so no new file can take its place"),
        hint: Some(format!(
            "mount the folder {} instead of the file, or say write = \"in-place\" for this sink",
            parent(target)
        )),
    }
}

fn pinned_there(target: &Path, neighbour: &Neighbour, gone: bool, path: &str) -> Finding {
    let (shown, folder) = (target.display(), parent(target));
    let Neighbour { pid, program, .. } = neighbour;
    let what = if gone {
        "and still reads the file of before the last new token"
    } else {
        "and will not see the next token"
    };
    Finding {
        path: path.to_owned(),
        severity: Severity::Error,
        message: format!("process {pid} ({program}) has the single file {shown} mounted, {what}"),
        hint: Some(format!(
            "give it the folder and start it again: --volume {folder}:{folder}:ro; or say write = \"in-place\" for this sink"
        )),
    }
}

fn parent(target: &Path) -> String {
    let folder = target.parent().unwrap_or(Path::new("/"));
    folder.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(own: &str, other: &str) -> Pins {
        Pins {
            own: read(own),
            others: vec![Neighbour {
                pid: 77,
                program: "app".to_owned(),
                mounts: read(other),
            }],
        }
    }

    const OWN: &str = "1 0 254:0 / / rw - ext4 a rw\n2 1 0:25 / /run rw - tmpfs t rw";

    #[test]
    fn whoever_holds_on_to_a_file_is_named() {
        let target = Path::new("/run/tokens/bot.json");
        let of = |other| pins(OWN, other).of(target, "sink.file[0].path");
        assert_eq!(of("9 8 0:25 /tokens /tokens rw - tmpfs t rw"), []);
        assert_eq!(of("9 8 254:0 /tokens/bot.json /b rw - ext4 t rw"), []);
        let soon = of("9 8 0:25 /tokens/bot.json /b.json rw - tmpfs t rw");
        assert!(soon[0].message.contains("process 77 (app)"), "{soon:?}");
        assert!(soon[0].message.contains("will not see"), "{soon:?}");
        let now = of("9 8 0:25 /tokens/bot.json//deleted /b.json rw - tmpfs t rw");
        assert!(now[0].message.contains("still reads"), "{now:?}");
        let fix = now[0].hint.as_deref().unwrap();
        assert!(fix.contains("--volume /run/tokens:/run/tokens"), "{fix}");
    }

    #[test]
    fn a_file_that_is_a_mount_here_cannot_be_replaced() {
        let own = format!("{OWN}\n3 2 0:25 /x /run/tokens/bot.json rw - tmpfs t rw");
        let found = pins(&own, "").of(Path::new("/run/tokens/bot.json"), "p");
        assert!(found[0].message.contains("a mount of a single file"));
    }
}
