//! What stands between token files and their readers, as this process sees it now: mounts that pin
//! an old file, folders that it cannot write, folders that a reader cannot pass through.
//!
//! [`super::check`] looks at a configuration and can be asked by anyone; this looks at the machine,
//! and only what the daemon's own process sees tells what the daemon can do.

mod mounts;
mod passage;
mod pins;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};

use super::{check::Trusted, file::PathPattern};
use crate::{
    config::{FileSinkSettings, Finding, Settings, Severity, SinkSettings, WriteMode},
    model::{Reader, Spec},
    sandbox::{self, Unit},
};

/// Identities of one sink that are looked at; more of them say nothing new.
const MOST: usize = 1000;

/// Everything that keeps this process from writing token files, or their readers from reading them.
/// `settings.identities` are those that there are. Blocks on the file system.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mounts = pins::Pins::look();
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
        findings.extend(passage::closed(&ways(&places), &path));
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
    let served = specs.iter().filter(|spec| spec.sinks.contains(&sink.name));
    served
        .take(MOST)
        .map(|spec| {
            let (folders, file) = pattern.place(&spec.name, &spec.resource);
            Place {
                file: Path::new("/").join(folders.join("/")).join(file),
                readers: sink.readers.as_deref().unwrap_or(&spec.readers),
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
