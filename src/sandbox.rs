//! The only room that reads the service manager's unit: what its sandbox lets the daemon do on this
//! machine, and the lines of a drop-in that open what it closes.
//!
//! Anybody can ask, before the daemon runs: nothing is tried, the files are read as systemd reads
//! them (systemd.unit(5), systemd.exec(5)).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// The unit as it is shipped, for a machine on which it is not installed yet.
const SHIPPED: &str = include_str!("../systemd/renewd.service");
const NAME: &str = "renewd.service";
/// Where the unit and its drop-ins may lie, the least important place first.
const FOLDERS: [&str; 4] = [
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/system",
    "/etc/systemd/system",
];

/// What `ProtectHome=` and `PrivateTmp=` are about.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// With these lines the daemon may give files away: `owner`, and a `group` that it is not in.
pub const CHOWN: [&str; 3] = [
    "AmbientCapabilities=CAP_CHOWN",
    "CapabilityBoundingSet=CAP_CHOWN",
    "SystemCallFilter=@chown",
];

/// The daemon's unit with its drop-ins.
#[derive(Debug)]
pub struct Unit {
    /// Every assignment, in order.
    assignments: Vec<(String, String)>,
}

/// A folder that the daemon cannot see into.
#[derive(Debug, PartialEq, Eq)]
pub struct Hidden {
    pub folder: String,
    /// The line that shows it again.
    pub line: &'static str,
}

impl Unit {
    /// As whom it runs the daemon.
    pub fn user(&self) -> Option<&str> {
        Some(self.value("User")).filter(|user| !user.is_empty())
    }

    /// The unit that runs a daemon with this state folder; `None` where the folder lies elsewhere than
    /// the unit puts it, so that the daemon is run by something else.
    pub fn running(state_dir: &Path) -> Option<Self> {
        let folders = FOLDERS.iter().map(Path::new);
        state_dir
            .starts_with("/var/lib")
            .then(|| Self::of(texts(folders)))
    }

    fn of(texts: impl IntoIterator<Item = String>) -> Self {
        let mut assignments = Vec::new();
        for text in texts {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            assignments.extend(
                lines
                    .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                    .filter(|(key, _)| key.chars().all(char::is_alphanumeric)),
            );
        }
        Self { assignments }
    }

    /// A setting's value, the last one that was given.
    fn value(&self, key: &str) -> &str {
        let mut newest_first = self.assignments.iter().rev();
        newest_first
            .find(|(found, _)| found == key)
            .map_or("", |(_, value)| value)
    }

    fn is_on(&self, key: &str) -> bool {
        matches!(self.value(key), "yes" | "true" | "on" | "1")
    }

    /// The words of a setting that is a list: they add up, and an empty assignment starts anew.
    fn words(&self, key: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for (_, value) in self.assignments.iter().filter(|(found, _)| found == key) {
            if value.is_empty() {
                words.clear();
            }
            words.extend(value.split_whitespace());
        }
        words
    }

    /// A list of paths, without the marks that systemd allows before them.
    fn paths(&self, key: &str) -> Vec<&Path> {
        let words = self.words(key).into_iter();
        words
            .map(|word| Path::new(word.trim_start_matches(['-', '+'])))
            .collect()
    }

    fn names_above(&self, key: &str, path: &Path) -> Option<&Path> {
        self.paths(key)
            .into_iter()
            .find(|named| path.starts_with(named))
    }

    /// Those of these `Setting=word` lines that the unit does not say.
    pub fn missing<'a>(&self, lines: &[&'a str]) -> Vec<&'a str> {
        let is_missing = |line: &&&str| {
            let says = |(key, word): (&str, &str)| self.words(key).contains(&word);
            !line.split_once('=').is_some_and(says)
        };
        lines.iter().filter(is_missing).copied().collect()
    }

    /// The folders above `path`, or itself, that the daemon cannot see into.
    pub fn hides(&self, path: &Path) -> Vec<Hidden> {
        let below = |folders: &[&'static str]| {
            let mut folders = folders.iter();
            folders.find(|folder| path.starts_with(folder)).copied()
        };
        let is_home_hidden = self.is_on("ProtectHome") || self.value("ProtectHome") == "tmpfs";
        let home = below(&HOMES).filter(|_| is_home_hidden);
        let temporary = below(&TEMPORARY).filter(|_| self.is_on("PrivateTmp"));
        let inaccessible = self.names_above("InaccessiblePaths", path);
        let hidden = |folder: String, line| Hidden { folder, line };
        [
            home.map(|folder| hidden(folder.to_owned(), "ProtectHome=read-only")),
            inaccessible.map(|path| hidden(path.display().to_string(), "InaccessiblePaths=")),
            temporary.map(|folder| hidden(folder.to_owned(), "PrivateTmp=no")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The lines that the unit lacks so that the daemon may write into a folder.
    pub fn missing_for_writing(&self, folder: &Path) -> Vec<String> {
        let mut lines: Vec<String> = self
            .hides(folder)
            .into_iter()
            .map(|hidden| hidden.line.replace("read-only", "no"))
            .collect();
        let is_home = HOMES.iter().any(|home| folder.starts_with(home));
        if is_home && lines.is_empty() && self.value("ProtectHome") == "read-only" {
            lines.push("ProtectHome=no".to_owned());
        }
        let is_closed = self.value("ProtectSystem") == "strict";
        if is_closed && self.names_above("ReadWritePaths", folder).is_none() {
            lines.push(format!("ReadWritePaths={}", folder.display()));
        }
        lines
    }

    /// The lines that the unit lacks so that a program can be run: for itself, for the interpreter
    /// that its first line names, and for one that makes machine code while it runs.
    pub fn missing_for_running(&self, program: &Path) -> Vec<String> {
        let wanted = wanted(program);
        let closed: Vec<String> = wanted
            .iter()
            .filter(|path| !self.runs(path))
            .map(|path| path.display().to_string())
            .collect();
        let mut lines = Vec::new();
        if !closed.is_empty() {
            lines.push(format!("ExecPaths={}", closed.join(" ")));
        }
        let compiles = wanted.iter().any(|path| compiles(path));
        if compiles && self.is_on("MemoryDenyWriteExecute") {
            lines.push("MemoryDenyWriteExecute=no".to_owned());
        }
        lines
    }

    /// Whether a program at this place, links resolved, may be executed: the deepest path decides.
    fn runs(&self, program: &Path) -> bool {
        let deepest = |key| {
            let paths = self.paths(key).into_iter().map(real);
            let above = paths.filter(|path| program.starts_with(path));
            above.map(|path| path.components().count()).max()
        };
        deepest("NoExecPaths").is_none_or(|closed| deepest("ExecPaths") > Some(closed))
    }
}

/// How an operator adds lines to the unit: ends a sentence or stands alone.
pub fn remedy<T: AsRef<str>>(lines: &[T]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("`{}`", line.as_ref()))
        .collect();
    format!(
        "run `systemctl edit renewd`, add {} below [Service], then `systemctl restart renewd`",
        lines.join(" and ")
    )
}

/// The most important unit file and every drop-in by name; of two with one name the more important.
fn texts<'a>(folders: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let mut unit = SHIPPED.to_owned();
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in folders {
        if let Ok(text) = fs::read_to_string(folder.join(NAME)) {
            unit = text;
        }
        let entries = fs::read_dir(folder.join(format!("{NAME}.d")));
        let entries = entries.into_iter().flatten().flatten();
        let named = entries.filter(|entry| {
            let name = entry.file_name();
            Path::new(&name).extension() == Some("conf".as_ref())
        });
        drop_ins.extend(named.map(|entry| (entry.file_name(), entry.path())));
    }
    let drop_ins = drop_ins.into_values();
    let read = drop_ins.filter_map(|path| fs::read_to_string(path).ok());
    std::iter::once(unit).chain(read).collect()
}

/// Runtimes that make machine code while they run, which `MemoryDenyWriteExecute=` forbids.
const COMPILERS: [&str; 8] = [
    "node", "nodejs", "java", "dotnet", "pwsh", "luajit", "deno", "bun",
];

/// The path with its links resolved, where it exists.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The program, and the interpreter that its first line names.
fn wanted(program: &Path) -> Vec<PathBuf> {
    let mut wanted = vec![real(program)];
    let mut start = [0; 256];
    let read = File::open(program).and_then(|mut file| file.read(&mut start));
    let text = String::from_utf8_lossy(&start[..read.unwrap_or(0)]).into_owned();
    let Some(line) = text.strip_prefix("#!").and_then(|rest| rest.lines().next()) else {
        return wanted;
    };
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else {
        return wanted;
    };
    wanted.push(real(Path::new(interpreter)));
    if interpreter.ends_with("/env") {
        let name = words.find(|word| !word.starts_with('-') && !word.contains('='));
        wanted.extend(name.and_then(search).map(|found| real(&found)));
    }
    wanted
}

/// Where a program without a place is found.
fn search(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/bin", "/usr/bin", "/bin"];
    let mut places = folders
        .into_iter()
        .map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists())
}

/// Whether this is a runtime that compiles.
fn compiles(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| COMPILERS.contains(&name))
}

#[cfg(test)]
mod tests {
    //! The unit as systemd would read it.

    use super::*;

    fn with(drop_in: &str) -> Unit {
        Unit::of([SHIPPED.to_owned(), format!("[Service]\n{drop_in}\n")])
    }

    #[test]
    fn the_unit_runs_nothing_but_what_a_drop_in_names() {
        let hook = Path::new("/usr/local/bin/on-token");
        assert!(!with("").runs(hook));
        assert!(with("").runs(Path::new("/usr/bin/renewd")));
        assert!(with("ExecPaths=/usr/local/bin/on-token /bin/x").runs(hook));
        assert!(with("ExecPaths=-/usr/local/bin").runs(hook));
        assert!(!with("ExecPaths=/usr/local/bin\nExecPaths=").runs(hook));
        assert!(with("NoExecPaths=").runs(hook));
        assert_eq!(
            with("").missing_for_running(hook),
            ["ExecPaths=/usr/local/bin/on-token"]
        );
    }

    #[test]
    fn run_time_compilers_need_more() {
        let node = Path::new("/opt/no/such/node");
        let both = ["ExecPaths=/opt/no/such/node", "MemoryDenyWriteExecute=no"];
        assert_eq!(with("").missing_for_running(node), both);
        let one = with("MemoryDenyWriteExecute=no").missing_for_running(node);
        assert_eq!(one, both[..1]);
    }

    #[test]
    fn exactly_the_missing_lines_are_named() {
        assert_eq!(with("").missing(&CHOWN), CHOWN);
        let partly =
            with("AmbientCapabilities=CAP_NET_ADMIN CAP_CHOWN\nCapabilityBoundingSet = CAP_CHOWN");
        assert_eq!(partly.missing(&CHOWN), ["SystemCallFilter=@chown"]);
        assert!(with(&CHOWN.join("\n")).missing(&CHOWN).is_empty());
        let reset = with(&(CHOWN.join("\n") + "\nAmbientCapabilities="));
        assert_eq!(reset.missing(&CHOWN), CHOWN[..1]);
        assert_eq!(
            with("#AmbientCapabilities=CAP_CHOWN").missing(&CHOWN),
            CHOWN
        );
    }

    #[test]
    fn what_is_hidden_is_named_with_the_line_that_shows_it() {
        let lines = |unit: &Unit, path: &str| -> Vec<&str> {
            let hidden = unit.hides(Path::new(path)).into_iter();
            hidden.map(|hidden| hidden.line).collect()
        };
        let shipped = with("");
        assert_eq!(lines(&shipped, "/home/app/db"), ["ProtectHome=read-only"]);
        assert_eq!(lines(&shipped, "/srv/app/db"), ["InaccessiblePaths="]);
        let both = ["ProtectHome=read-only", "InaccessiblePaths="];
        assert_eq!(lines(&shipped, "/root/db"), both);
        assert_eq!(lines(&shipped, "/var/tmp/db"), ["PrivateTmp=no"]);
        assert!(lines(&shipped, "/var/lib/app/db").is_empty());
        assert!(lines(&with("ProtectHome=read-only"), "/home/app/db").is_empty());
        assert!(lines(&with("InaccessiblePaths="), "/srv/app/db").is_empty());
    }

    #[test]
    fn a_folder_is_opened_by_what_is_missing_alone() {
        let lines = |drop_in, path| with(drop_in).missing_for_writing(Path::new(path));
        assert_eq!(lines("", "/opt/app"), ["ReadWritePaths=/opt/app"]);
        assert!(lines("ReadWritePaths=/opt", "/opt/app").is_empty());
        let home = ["ProtectHome=no", "ReadWritePaths=/home/app"];
        assert_eq!(lines("", "/home/app"), home);
        assert_eq!(lines("ProtectHome=read-only", "/home/app"), home);
        let open = "ProtectHome=no\nReadWritePaths=/home/app";
        assert!(lines(open, "/home/app").is_empty());
        assert!(lines("ProtectSystem=no", "/opt/app").is_empty());
    }

    #[test]
    fn drop_ins_count_by_name_and_the_operators_place_wins() {
        let folder = tempfile::tempdir().unwrap();
        let places = [folder.path().join("usr"), folder.path().join("etc")];
        let write = |place: &Path, name: &str, text: &str| {
            fs::create_dir_all(place.join("renewd.service.d")).unwrap();
            fs::write(place.join(name), text).unwrap();
        };
        write(&places[0], "renewd.service", "Place=usr");
        write(&places[0], "renewd.service.d/10-a.conf", "A=usr");
        write(&places[0], "renewd.service.d/20-b.conf", "B=usr");
        write(&places[1], "renewd.service", "Place=etc");
        write(&places[1], "renewd.service.d/20-b.conf", "B=etc");
        write(&places[1], "renewd.service.d/30-c.conf~", "C=etc");
        let texts = texts(places.iter().map(PathBuf::as_path));
        assert_eq!(texts, ["Place=etc", "A=usr", "B=etc"]);
    }

    #[test]
    fn a_daemon_with_its_state_elsewhere_is_run_by_something_else() {
        assert!(Unit::running(Path::new("/home/anna/.local/state/renewd")).is_none());
        assert!(Unit::running(Path::new("/var/lib/renewd")).is_some());
    }
}
