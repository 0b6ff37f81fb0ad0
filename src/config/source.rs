//! Where the configuration comes from: the main path, and the surroundings that it may refer to.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::model::hex;

/// Where a daemon that serves the system has its socket.
const SYSTEM_RUNTIME_DIR: &str = "/run/renewd";

#[derive(Debug, Clone)]
pub struct Source {
    /// The main file; `conf.d/*.toml` beside it follow, in the order of their names.
    pub path: PathBuf,
    pub environment: Environment,
}

impl Source {
    /// The file at `path`, or at the default path where there is none, for this process.
    pub fn of_process(path: Option<PathBuf>) -> Self {
        let environment = Environment::of_process();
        Self {
            path: path.unwrap_or_else(|| environment.default_path()),
            environment,
        }
    }

    /// The same with the socket that `--socket` or `RENEWD_SOCKET` names: it comes before what the files say.
    #[must_use]
    pub fn with_socket(mut self, named: Option<PathBuf>) -> Self {
        let named = named.filter(|path| !path.as_os_str().is_empty());
        self.environment.socket = named.map(|path| std::path::absolute(&path).unwrap_or(path));
        self
    }
}

/// What a process finds around it: its variables, its host's name, whether it serves the system.
#[derive(Clone)]
pub struct Environment {
    variables: Variables,
    host: String,
    machine: Option<String>,
    system: bool,
    /// What was named for this process alone.
    pub(super) socket: Option<PathBuf>,
}

#[derive(Clone)]
enum Variables {
    Process,
    Given(BTreeMap<String, String>),
}

impl fmt::Debug for Environment {
    /// Without the variables: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("host", &self.host)
            .field("system", &self.system)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// The surroundings of this process.
    pub fn of_process() -> Self {
        let root = rustix::process::geteuid().is_root();
        let mut environment = Self {
            variables: Variables::Process,
            host: host_name(),
            machine: machine(),
            system: root,
            socket: None,
        };
        // A system unit runs as its own user, with its state below /var/lib.
        environment.system |= environment
            .directory("STATE_DIRECTORY")
            .is_some_and(|dir| dir.starts_with("/var/lib"));
        environment
    }

    /// Surroundings made up for a test: `system` chooses the paths of a system service, not XDG's.
    pub fn given<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
        host: &str,
        system: bool,
    ) -> Self {
        let pairs = variables
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()));
        Self {
            variables: Variables::Given(pairs.collect()),
            host: host.to_owned(),
            machine: None,
            system,
            socket: None,
        }
    }

    /// The same with the paths of a daemon that serves the system, whoever asks.
    #[must_use]
    pub fn of_system(self) -> Self {
        Self {
            system: true,
            ..self
        }
    }

    /// Whether paths are those of a daemon that serves the system.
    pub fn serves_system(&self) -> bool {
        self.system
    }

    /// Where the main file is when nobody says: `/etc/renewd/renewd.toml`, or
    /// `$XDG_CONFIG_HOME/renewd/renewd.toml` for an ordinary user.
    pub fn default_path(&self) -> PathBuf {
        self.home("XDG_CONFIG_HOME", ".config", "/etc")
            .join("renewd.toml")
    }

    /// `$STATE_DIRECTORY`, else `/var/lib/renewd`, or `$XDG_STATE_HOME/renewd` for a user.
    pub fn state_dir(&self) -> PathBuf {
        self.directory("STATE_DIRECTORY")
            .unwrap_or_else(|| self.home("XDG_STATE_HOME", ".local/state", "/var/lib"))
    }

    /// The socket that was named for this process, whatever the files say.
    pub(super) fn named_socket(&self) -> Option<PathBuf> {
        self.socket.clone()
    }

    /// Where a daemon with these surroundings has its socket when nobody says.
    pub(super) fn default_socket(&self) -> PathBuf {
        self.sockets().swap_remove(0)
    }

    /// Where a socket may be, the first of them that of a daemon with these surroundings: below
    /// `$RUNTIME_DIRECTORY`; for an ordinary user below `$XDG_RUNTIME_DIR/renewd`, else in the state directory;
    /// in `/run/renewd`.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        let runtime = self.directory("RUNTIME_DIRECTORY");
        let user = self.directory("XDG_RUNTIME_DIR");
        let user = user.map(|dir| dir.join("renewd"));
        let own = user.into_iter().chain([self.state_dir()]);
        let own = own.filter(|_| !self.system);
        runtime
            .into_iter()
            .chain(own)
            .chain([PathBuf::from(SYSTEM_RUNTIME_DIR)])
            .map(|dir| dir.join("renewd.sock"))
            .collect()
    }

    /// The host's name, for `instance`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A digest of the machine's id, where it has one.
    pub(super) fn machine(&self) -> Option<String> {
        self.machine.clone()
    }

    /// A variable, unless it is unset, empty or not UTF-8.
    pub fn variable(&self, name: &str) -> Option<String> {
        let value = match &self.variables {
            Variables::Process => std::env::var(name).ok(),
            Variables::Given(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The first of the directories that a variable names, as systemd separates them.
    pub(super) fn directory(&self, variable: &str) -> Option<PathBuf> {
        let value = self.variable(variable)?;
        let first = value.split(':').next().unwrap_or_default();
        Path::new(first).is_absolute().then(|| first.into())
    }

    fn home(&self, variable: &str, below_home: &str, system: &str) -> PathBuf {
        let user = || {
            self.directory(variable).unwrap_or_else(|| {
                let home = self.directory("HOME").unwrap_or_else(|| "/".into());
                home.join(below_home)
            })
        };
        let base = if self.system { system.into() } else { user() };
        base.join("renewd")
    }
}

/// The host's name as the kernel has it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// A digest of the machine's id: machine-id(5) asks to keep the id itself to oneself. An image that many
/// machines start from has none, or says that it is still to be made.
fn machine() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let mut digest = Sha256::new();
    digest.update(b"renewd machine\0");
    digest.update(id);
    let digest = digest.finalize();
    is_id.then(|| hex(&digest[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_who_runs_it() {
        let none: [(&str, &str); 0] = [];
        let system = Environment::given(none, "web-1", true);
        assert_eq!(system.default_path(), Path::new("/etc/renewd/renewd.toml"));
        assert_eq!(system.state_dir(), Path::new("/var/lib/renewd"));
        assert_eq!(
            system.default_socket(),
            Path::new("/run/renewd/renewd.sock")
        );

        let user = Environment::given(
            [("HOME", "/home/anna"), ("XDG_RUNTIME_DIR", "/run/user/1")],
            "web-1",
            false,
        );
        assert_eq!(
            user.default_path(),
            Path::new("/home/anna/.config/renewd/renewd.toml")
        );
        assert_eq!(
            user.state_dir(),
            Path::new("/home/anna/.local/state/renewd")
        );
        assert_eq!(
            user.default_socket(),
            Path::new("/run/user/1/renewd/renewd.sock")
        );

        let unit = Environment::given(
            [
                ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
                ("RUNTIME_DIRECTORY", "/run/a"),
            ],
            "web-1",
            true,
        );
        assert_eq!(unit.state_dir(), Path::new("/var/lib/a"));
        assert_eq!(unit.default_socket(), Path::new("/run/a/renewd.sock"));
    }

    /// A source whose surroundings are all below one folder.
    fn source(folder: &Path, config: &str) -> Source {
        let path = folder.join("renewd.toml");
        if !config.is_empty() {
            std::fs::write(&path, config).unwrap();
        }
        let dir = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let variables = [
            ("XDG_RUNTIME_DIR", dir("run")),
            ("XDG_STATE_HOME", dir("state")),
        ];
        Source {
            path,
            environment: Environment::given(variables, "web-1", false),
        }
    }

    #[test]
    fn daemon_and_command_find_one_socket_by_one_rule() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let nothing = source(folder.path(), "");
        assert_eq!(
            nothing.socket_to_ask(),
            Path::new("/run/renewd/renewd.sock"),
            "who has no daemon of his own asks the system's"
        );
        let own = source(folder.path(), "[daemon]\nlisten = \"\"\n");
        assert_eq!(own.socket_to_ask(), at("run/renewd/renewd.sock"));
        assert_eq!(
            own.environment.default_socket(),
            at("run/renewd/renewd.sock")
        );
        std::fs::create_dir_all(at("state/renewd")).unwrap();
        std::fs::write(at("state/renewd/renewd.sock"), "").unwrap();
        assert_eq!(own.socket_to_ask(), at("state/renewd/renewd.sock"));
        // A mistake elsewhere in the files hides nothing.
        let said = "[daemon]\nsocket = \"here.sock\"\nlisten = 7\nbogus = [\n";
        let said = source(folder.path(), said);
        assert_eq!(said.socket_to_ask(), at("here.sock"));
        let named = said.with_socket(Some(at("named.sock")));
        assert_eq!(named.socket_to_ask(), at("named.sock"));
        let unnamed = named.with_socket(Some(PathBuf::new()));
        assert_eq!(unnamed.socket_to_ask(), at("here.sock"));
    }

    #[test]
    fn variables_are_not_debugged() {
        let environment = Environment::given([("KEY", "hunter2")], "web-1", true);
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}
