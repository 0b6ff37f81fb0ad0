//! What the unit lets run: the shipped unit and this machine's drop-ins, read as systemd reads them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The unit as it is shipped.
const UNIT: &str = include_str!("../../../../systemd/renewd.service");
/// Where drop-ins for it lie, the least important place first (systemd.unit(5)).
const DROP_INS: [&str; 3] = [
    "/usr/lib/systemd/system/renewd.service.d",
    "/run/systemd/system/renewd.service.d",
    "/etc/systemd/system/renewd.service.d",
];

/// The settings that decide what may be executed.
#[derive(Debug, Default)]
pub(super) struct Permitted {
    /// `NoExecPaths=`; where it is empty, everything may be executed.
    closed: Vec<PathBuf>,
    /// `ExecPaths=`.
    open: Vec<PathBuf>,
    /// Whether `MemoryDenyWriteExecute=` is off.
    pub(super) may_compile: bool,
}

impl Permitted {
    /// What the unit and its drop-ins permit here.
    pub(super) fn of_this_machine() -> Self {
        let mut files: Vec<PathBuf> = DROP_INS
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "conf"))
            .collect();
        // By name, whatever folder they lie in.
        files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        let texts = files
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok());
        Self::of(texts)
    }

    fn of(drop_ins: impl Iterator<Item = String>) -> Self {
        let mut permitted = Self::default();
        permitted.read(UNIT);
        drop_ins.for_each(|text| permitted.read(&text));
        permitted
    }

    fn read(&mut self, text: &str) {
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let list = match key.trim() {
                "ExecPaths" => &mut self.open,
                "NoExecPaths" => &mut self.closed,
                "MemoryDenyWriteExecute" => {
                    self.may_compile = !matches!(value.trim(), "yes" | "true" | "on" | "1");
                    continue;
                }
                _ => continue,
            };
            // Lists add up; an empty one starts anew.
            if value.trim().is_empty() {
                list.clear();
            }
            let paths = value.split_whitespace();
            let paths = paths.map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
            list.extend(paths.map(|path| fs::canonicalize(&path).unwrap_or(path)));
        }
    }

    /// Whether a program at this place, links resolved, may be executed.
    pub(super) fn allows(&self, program: &Path) -> bool {
        let deepest = |list: &[PathBuf]| {
            let hits = list.iter().filter(|path| program.starts_with(path));
            hits.map(|path| path.components().count()).max()
        };
        deepest(&self.closed).is_none_or(|closed| deepest(&self.open) > Some(closed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(drop_in: &str) -> Permitted {
        Permitted::of(std::iter::once(drop_in.to_owned()))
    }

    #[test]
    fn the_unit_runs_nothing_but_what_a_drop_in_names() {
        let hook = Path::new("/usr/local/bin/on-token");
        assert!(!with("").allows(hook));
        assert!(with("").allows(Path::new("/usr/bin/renewd")));
        assert!(with("[Service]\nExecPaths=/usr/local/bin/on-token /bin/x\n").allows(hook));
        assert!(with("[Service]\nExecPaths=-/usr/local/bin\n").allows(hook));
        assert!(!with("[Service]\nExecPaths=/usr/local/bin\nExecPaths=\n").allows(hook));
        assert!(with("[Service]\nNoExecPaths=\n").allows(hook));
    }

    #[test]
    fn run_time_compilers_need_more() {
        assert!(!with("").may_compile);
        assert!(with("[Service]\nMemoryDenyWriteExecute=no\n").may_compile);
    }
}
