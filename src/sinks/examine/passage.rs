//! Whether a reader gets through every folder on the way to its file: search permission, by mode and
//! by POSIX ACL (acl(5)).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    accounts,
    config::{Finding, Severity},
    model::Reader,
};

const ATTRIBUTE: &str = "system.posix_acl_access";
/// The kernel allows no attribute to be larger.
const LARGEST: usize = 64 * 1024;
const SEARCH: u16 = 0o1;

/// Somebody who wants to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Who {
    /// No user of its own: any member of its group, judged by that group alone.
    uid: Option<u32>,
    gids: Vec<u32>,
}

/// A folder's access.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gate {
    uid: u32,
    gid: u32,
    mode: u32,
    acl: Vec<Entry>,
}

/// An entry of an ACL: tag, permissions, subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// One finding for each closed folder and reader.
pub(super) fn closed(ways: &BTreeSet<(PathBuf, &Reader)>, path: &str) -> Vec<Finding> {
    let mut gates: BTreeMap<PathBuf, Option<Gate>> = BTreeMap::new();
    let mut found: BTreeSet<(PathBuf, &Reader)> = BTreeSet::new();
    for (folder, reader) in ways {
        let Some(who) = who(reader) else {
            // `check` tells of readers that nobody knows.
            continue;
        };
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        for part in way {
            let gate = gates.entry(part.to_owned()).or_insert_with(|| gate(part));
            if gate.as_ref().is_some_and(|gate| !gate.lets(&who)) {
                found.insert((part.to_owned(), *reader));
                break;
            }
        }
    }
    let finding = |(folder, reader): (PathBuf, &Reader)| finding(&folder, reader, path);
    found.into_iter().map(finding).collect()
}

fn finding(folder: &Path, reader: &Reader, path: &str) -> Finding {
    let (who, entry) = match reader {
        Reader::User(name) => (format!("the reader {name}"), format!("u:{name}:x")),
        Reader::Group(name) => (
            format!("the readers of group {name}"),
            format!("g:{name}:x"),
        ),
    };
    let shown = folder.display();
    Finding {
        path: path.to_owned(),
        severity: Severity::Error,
        message: format!("{who} cannot pass through {shown}, so the files below are out of reach"),
        hint: Some(format!("setfacl -m {entry} {shown}")),
    }
}

fn who(reader: &Reader) -> Option<Who> {
    match reader {
        Reader::User(name) => accounts::user(name).map(|user| Who {
            uid: Some(user.uid),
            gids: accounts::groups_of(user.uid),
        }),
        Reader::Group(name) => accounts::group(name).map(|group| Who {
            uid: None,
            gids: vec![group.gid],
        }),
    }
}

/// What guards a folder, where there is one.
fn gate(folder: &Path) -> Option<Gate> {
    let metadata = fs::metadata(folder).ok()?;
    let mut bytes = vec![0; LARGEST];
    let length = rustix::fs::getxattr(folder, ATTRIBUTE, &mut bytes[..]).unwrap_or(0);
    Some(Gate {
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode(),
        acl: entries(&bytes[..length]),
    })
}

/// The entries after the header of 4 bytes, 8 bytes each, little-endian.
fn entries(acl: &[u8]) -> Vec<Entry> {
    let chunks = acl.get(4..).unwrap_or_default().chunks_exact(8);
    chunks
        .map(|e| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            permissions: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        })
        .collect()
}

impl Gate {
    /// Whether somebody may pass: the first class that fits decides, as the kernel does it.
    fn lets(&self, who: &Who) -> bool {
        if who.uid == Some(0) {
            return true;
        }
        if who.uid == Some(self.uid) {
            return self.mode & 0o100 != 0;
        }
        let mask = self.of_tag(MASK).next().map_or(0o7, |e| e.permissions);
        let passes = |permissions: u16| permissions & mask & SEARCH != 0;
        if let Some(entry) = self.of_tag(USER).find(|e| Some(e.id) == who.uid) {
            return passes(entry.permissions);
        }
        let owning = self.of_tag(OWNING_GROUP).next();
        let owning = owning.map_or(self.mode >> 3 & 0o7, |e| u32::from(e.permissions));
        let mut groups = self
            .of_tag(GROUP)
            .map(|e| (e.id, e.permissions))
            .chain([(self.gid, u16::try_from(owning).unwrap_or(0))])
            .filter(|(gid, _)| who.gids.contains(gid))
            .peekable();
        if groups.peek().is_some() {
            return groups.any(|(_, permissions)| passes(permissions));
        }
        self.mode & 0o001 != 0
    }

    fn of_tag(&self, tag: u16) -> impl Iterator<Item = Entry> {
        self.acl.iter().copied().filter(move |e| e.tag == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(mode: u32, acl: &[(u16, u16, u32)]) -> Gate {
        let acl = acl.iter().map(|&(tag, permissions, id)| Entry {
            tag,
            permissions,
            id,
        });
        Gate {
            uid: 10,
            gid: 20,
            mode,
            acl: acl.collect(),
        }
    }

    fn user(uid: u32, gids: &[u32]) -> Who {
        Who {
            uid: Some(uid),
            gids: gids.to_vec(),
        }
    }

    #[test]
    fn by_mode_the_first_class_that_fits_decides() {
        for (mode, who, lets) in [
            (0o700, user(10, &[]), true),
            (0o077, user(10, &[20]), false),
            (0o710, user(11, &[20]), true),
            (0o701, user(11, &[20]), false),
            (0o711, user(11, &[21]), true),
            (0o750, user(11, &[21]), false),
            (0o000, user(0, &[]), true),
        ] {
            assert_eq!(gate(mode, &[]).lets(&who), lets, "{mode:o} {who:?}");
        }
    }

    #[test]
    fn an_acl_lets_named_ones_pass_within_its_mask() {
        let acl = [
            (USER, 1, 11),
            (OWNING_GROUP, 0, u32::MAX),
            (GROUP, 1, 30),
            (MASK, 1, u32::MAX),
        ];
        let open = gate(0o710, &acl);
        assert!(open.lets(&user(11, &[])));
        assert!(open.lets(&user(12, &[30])));
        assert!(!open.lets(&user(12, &[20])), "the mask is no permission");
        assert!(!open.lets(&user(12, &[31])));
        let mut masked = acl;
        masked[3].1 = 0;
        assert!(!gate(0o700, &masked).lets(&user(11, &[])));
    }

    #[test]
    fn a_group_is_judged_by_itself_alone() {
        let voip = Who {
            uid: None,
            gids: vec![20],
        };
        assert!(gate(0o710, &[]).lets(&voip));
        assert!(!gate(0o701, &[]).lets(&voip));
    }

    #[test]
    fn the_attribute_is_read_as_the_kernel_writes_it() {
        let bytes = [
            2, 0, 0, 0, 2, 0, 1, 0, 11, 0, 0, 0, 0x10, 0, 7, 0, 255, 255, 255, 255,
        ];
        let wanted = gate(0, &[(USER, 1, 11), (MASK, 7, u32::MAX)]).acl;
        assert_eq!(entries(&bytes), wanted);
        assert_eq!(entries(&[]), []);
    }
}
