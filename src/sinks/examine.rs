//! What stands between token files and their readers, as this process sees it now.
//!
//! [`super::check`] looks at a configuration and can be asked by anyone; this looks at the machine, and only what the
//! daemon's own process sees tells what the daemon can do: folders that it cannot write; files that are mounted
//! on their own, as containers do with `--volume FILE:FILE` (such a mount holds on to the file that it was made of,
//! while every new token is a new file of the same name; `/proc/PID/mountinfo`, proc_pid_mountinfo(5)); and
//! folders that a reader cannot pass through, by mode and by POSIX ACL (acl(5)).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use super::{check::Trusted, file::PathPattern};
use crate::{
    accounts,
    config::{FileSinkSettings, Finding, Settings, Severity, SinkSettings, WriteMode},
    model::{Reader, Spec},
    sandbox::{self, Unit},
};

/// Identities of one sink that are looked at; more of them say nothing new.
const MOST: usize = 1000;

/// Everything that keeps this process from writing token files, or their readers from reading them.
/// `settings.identities` are those that there are. Blocks on the file system.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mounts = Pins::look();
    let sinks = settings.sinks.iter().filter_map(|sink| match sink {
        SinkSettings::File(file) => Some(file),
        _ => None,
    });
    let trusted = Trusted::of(settings);
    let mut findings = Vec::new();
    for (number, sink) in sinks.enumerate() {
        let Ok(pattern) = sink.path.parse::<PathPattern>() else {
            // `check` tells of it.
            continue;
        };
        let path = format!("sink.file[{number}].path");
        findings.extend(not_writable(&pattern.root(), &path, settings));
        let places = places(sink, &pattern, &settings.identities);
        if sink.write == WriteMode::Replace {
            let targets: BTreeSet<&PathBuf> = places.iter().map(|place| &place.file).collect();
            findings.extend(targets.iter().flat_map(|target| mounts.of(target, &path)));
        }
        findings.extend(closed(&ways(&places), &path));
        let root = pattern.root();
        let folders = places.iter().filter_map(|place| place.file.parent());
        findings.extend(trusted.exposed(folders.chain([root.as_path()]), &path));
    }
    findings
}

/// A file and who is to read it.
struct Place<'a> {
    file: PathBuf,
    readers: &'a [Reader],
}

fn places<'a>(
    sink: &'a FileSinkSettings,
    pattern: &PathPattern,
    specs: &'a [Spec],
) -> Vec<Place<'a>> {
    let served = specs
        .iter()
        .filter(|spec| spec.declared.sinks.contains(&sink.name));
    served
        .take(MOST)
        .map(|spec| {
            let (folders, file) = pattern.place(&spec.name, &spec.resource);
            Place {
                file: Path::new("/").join(folders.join("/")).join(file),
                readers: sink.readers.as_deref().unwrap_or(&spec.declared.readers),
            }
        })
        .collect()
}

/// Each folder that a reader has to get to, once.
fn ways<'a>(places: &[Place<'a>]) -> BTreeSet<(PathBuf, &'a Reader)> {
    let mut ways = BTreeSet::new();
    for place in places {
        let folder = place.file.parent().unwrap_or(Path::new("/"));
        ways.extend(place.readers.iter().map(|one| (folder.to_owned(), one)));
    }
    ways
}

/// Whether this process can make files below a folder, or the nearest one that exists.
fn not_writable(root: &Path, path: &str, settings: &Settings) -> Option<Finding> {
    let existing = root.ancestors().find(|part| part.exists())?;
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let refusal = accessat(CWD, existing, wanted, AtFlags::EACCESS).err()?;
    let shown = root.display();
    let user = crate::accounts::user_of(crate::accounts::own_uid()).name;
    let mut fix = format!("install -d -o {user} -m 0711 {shown}");
    // Where both the mode and the mount refuse, the kernel tells of the mode alone.
    let is_read_only =
        statvfs(existing).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only && let Some(unit) = Unit::running(&settings.daemon.state_dir) {
        let lines = unit.missing_for_writing(root);
        // The unit may have been mended since this process was started.
        fix += &match lines.is_empty() {
            true => "; then run `systemctl restart renewd`".to_owned(),
            false => format!("; then {}", sandbox::remedy(&lines)),
        };
    }
    Some(Finding {
        path: path.to_owned(),
        severity: Severity::Error,
        message: format!(
            "the user {user} cannot write to {}: {refusal}",
            existing.display()
        ),
        hint: Some(fix),
    })
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// `major:minor` of its file system.
    device: String,
    /// What of the file system is mounted, as a path in it.
    root: PathBuf,
    point: PathBuf,
    /// Whether what is mounted has been removed, or replaced by another file of its name.
    gone: bool,
}

/// How the kernel marks a root that has no name any more.
const GONE: &str = "//deleted";

/// The mounts of a process. Lines of another form are left out.
fn read(text: &str) -> Vec<Mount> {
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
fn locate(path: &Path, mounts: &[Mount]) -> Option<(String, PathBuf)> {
    // Later lines lie over earlier ones.
    let mount = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    Some((mount.device.clone(), mount.root.join(rest)))
}

/// What this process and every other that it sees have mounted.
struct Pins {
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
    fn look() -> Self {
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
    fn of(&self, target: &Path, path: &str) -> Vec<Finding> {
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
fn closed(ways: &BTreeSet<(PathBuf, &Reader)>, path: &str) -> Vec<Finding> {
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
mod mounts_tests {
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

#[cfg(test)]
mod pins_tests {
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

#[cfg(test)]
mod passage_tests {
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
