//! Folders on the way to something that must not be swapped: who besides root and the daemon could put
//! another file, or another folder, in its place.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    accounts,
    config::{Finding, Settings, Severity},
    sandbox::Unit,
};

/// Whoever may write to a folder may rename and remove what is in it, unless it is theirs alone to remove.
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Those whose folders are as safe as the daemon itself.
#[derive(Debug, Clone)]
pub struct Trusted(BTreeSet<u32>);

impl Trusted {
    /// Root, the daemon's user, and whoever looks.
    pub fn of(settings: &Settings) -> Self {
        let state_dir = &settings.daemon.state_dir;
        let of_unit = Unit::running(state_dir)
            .and_then(|unit| accounts::user(unit.user()?))
            .map(|user| user.uid);
        let of_state = fs::metadata(state_dir).map(|found| found.uid()).ok();
        let both = [of_unit, of_state].into_iter().flatten();
        Self(both.chain([0, accounts::own_uid()]).collect())
    }

    /// Every folder at or above these in which somebody else could swap what is below: a warning each.
    pub fn exposed<'a>(
        &self,
        folders: impl IntoIterator<Item = &'a Path>,
        path: &str,
    ) -> Vec<Finding> {
        let mut found: BTreeSet<(PathBuf, String, String)> = BTreeSet::new();
        let mut looked_at: BTreeSet<&Path> = BTreeSet::new();
        for folder in folders {
            for part in folder.ancestors() {
                let is_last = part == folder;
                if !looked_at.insert(part) && !is_last {
                    continue;
                }
                found.extend(
                    self.exposure(part, is_last)
                        .map(|(who, remedy)| (part.to_owned(), who, remedy)),
                );
            }
        }
        let finding = |(folder, who, remedy): (PathBuf, String, String)| Finding {
            path: path.to_owned(),
            severity: Severity::Warning,
            message: format!(
                "{who} could put something else in the place of what lies below {}",
                folder.display()
            ),
            hint: Some(format!("{remedy}, or choose another folder")),
        };
        found.into_iter().map(finding).collect()
    }

    /// Whether somebody else could change what is in this file: a warning.
    pub fn writable(&self, file: &Path, path: &str) -> Option<Finding> {
        let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        let shown = file.display();
        let owner = || accounts::user_of(found.uid()).name;
        let (who, remedy) = match found.mode() {
            _ if !self.0.contains(&found.uid()) => (
                format!("its owner {}", owner()),
                format!("chown root {shown}"),
            ),
            mode if mode & OTHERS_WRITE != 0 => {
                ("everybody".to_owned(), format!("chmod o-w {shown}"))
            }
            mode if mode & GROUP_WRITES != 0 => {
                let group = accounts::group_of(found.gid()).name;
                (format!("the group {group}"), format!("chmod g-w {shown}"))
            }
            _ => return None,
        };
        Some(Finding {
            path: path.to_owned(),
            severity: Severity::Warning,
            message: format!("{who} could change {shown}"),
            hint: Some(remedy),
        })
    }

    /// Who could, and what ends it.
    fn exposure(&self, folder: &Path, is_last: bool) -> Option<(String, String)> {
        let found = fs::metadata(folder).ok()?;
        let (mode, shown) = (found.mode(), folder.display());
        if !self.0.contains(&found.uid()) {
            let owner = accounts::user_of(found.uid()).name;
            return Some((format!("its owner {owner}"), format!("chown root {shown}")));
        }
        let is_guarded = mode & STICKY != 0 && !(is_last && found.uid() != accounts::own_uid());
        if mode & OTHERS_WRITE != 0 && !is_guarded {
            return Some(("everybody".to_owned(), format!("chmod o-w {shown}")));
        }
        if mode & GROUP_WRITES != 0 && !is_guarded {
            let group = accounts::group_of(found.gid()).name;
            return Some((
                format!("the group {group}, or whom its ACL names,"),
                format!("chmod g-w {shown}"),
            ));
        }
        None
    }
}
