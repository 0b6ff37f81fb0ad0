//! The stage for tests that run the real programs: emulator and daemon as processes of their own, a
//! webhook receiver that verifies with an independent library, and a folder for all they write.

mod daemon;
mod emulator;
mod person;
mod receiver;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use daemon::Daemon;
pub use emulator::{Emulator, SecureEmulator};
pub use person::Person;
pub use receiver::Receiver;

/// The program under test.
pub const RENEWD: &str = env!("CARGO_BIN_EXE_renewd");

/// A webhook secret for tests: `whsec_` and the base64 of the bytes 00 to 1f.
pub const WEBHOOK_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A folder with a configuration in it.
pub struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    /// A new folder with the emulator's connection string and a webhook secret in files.
    pub fn new(emulator: &Emulator) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("renewd-stage-")
            .tempdir()
            .unwrap();
        let stage = Self { dir };
        stage.write_private("contoso.cs", &emulator.connection_string);
        stage.write_private("webhook.secret", WEBHOOK_SECRET);
        std::fs::create_dir(stage.path("tokens")).unwrap();
        stage
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub fn write_private(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), content).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs a verb against this stage's daemon.
    pub fn renewd(&self, args: &[&str]) -> std::process::Output {
        std::process::Command::new(RENEWD)
            .args(args)
            .arg("--socket")
            .arg(self.path("renewd.sock"))
            .output()
            .unwrap()
    }

    /// The sections that every configuration here starts with.
    pub fn base_config(&self) -> String {
        format!(
            r#"
[daemon]
state_dir = "{dir}/state"
listen = ""
socket = "{dir}/renewd.sock"
instance = "stage"

[[resource]]
name = "contoso"
connection_string = {{ file = "{dir}/contoso.cs" }}
"#,
            dir = self.dir.path().display()
        )
    }

    /// A file sink `files` and, with a receiver, a webhook sink `hook`.
    pub fn sinks_config(&self, receiver: Option<&Receiver>) -> String {
        let dir = self.dir.path().display();
        let mut text =
            format!("\n[[sink.file]]\nname = \"files\"\npath = \"{dir}/tokens/{{name}}.json\"\n");
        if let Some(receiver) = receiver {
            text += &format!(
                "\n[[sink.webhook]]\nname = \"hook\"\nurl = \"{}\"\nsecrets = [{{ file = \"{dir}/webhook.secret\" }}]\n",
                receiver.url
            );
        }
        text
    }

    /// Writes the configuration and returns its path.
    pub fn configure(&self, text: &str) -> PathBuf {
        let path = self.path("renewd.toml");
        std::fs::create_dir_all(self.path("state")).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The token in an identity's file.
    pub fn token(&self, name: &str) -> String {
        let document = self
            .document(name)
            .unwrap_or_else(|| panic!("{name} has no file"));
        document["token"]
            .as_str()
            .unwrap_or_else(|| panic!("{document}"))
            .to_owned()
    }

    /// What the daemon says of an identity, and the end of its log: for a failure's message.
    pub fn explain(&self, name: &str) -> String {
        let socket = self.path("renewd.sock");
        let why = std::process::Command::new(RENEWD)
            .args(["why", name, "--socket"])
            .arg(socket)
            .output()
            .unwrap();
        let log = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "{}\n{}",
            String::from_utf8_lossy(&why.stdout),
            tail.join("\n")
        )
    }

    /// Waits until an identity has a file.
    pub async fn there(&self, name: &str) {
        until(&format!("a file of {name}"), || {
            self.document(name).is_some()
        })
        .await;
    }

    /// Waits until an identity's file holds a newer version.
    pub async fn renewed(&self, name: &str) {
        self.there(name).await;
        let version = || self.document(name).unwrap()["version"].as_u64();
        let before = version();
        until(&format!("a newer version of {name}"), || version() > before).await;
    }

    /// Waits until an identity's file holds another token than this one.
    pub async fn reissued(&self, name: &str, before: &str) {
        until(&format!("another token of {name}"), || {
            self.token(name) != before
        })
        .await;
    }

    /// Loses the database, as a broken disk does.
    pub fn lose_database(&self) {
        for name in ["renewd.db", "renewd.db-wal", "renewd.db-shm"] {
            std::fs::remove_file(self.path("state").join(name)).ok();
        }
    }

    /// Whom `status` names as waiting for a word before they are created.
    pub fn wait_to_be_created(&self, daemon: &Daemon) -> Vec<String> {
        let status = daemon.status(&self.path("renewd.sock"));
        let needs = status["needs"].as_array().unwrap();
        let waits = |need: &&serde_json::Value| need["kind"] == "creations_wait";
        let names = needs
            .iter()
            .filter(waits)
            .flat_map(|need| need["names"].as_array().unwrap());
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// The token document in an identity's file, if there is a file. A torn one panics.
    pub fn document(&self, name: &str) -> Option<serde_json::Value> {
        let path = self.path(&format!("tokens/{name}.json"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        Some(
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|e| panic!("torn file {}: {e}", path.display())),
        )
    }
}

/// Longer than anything takes that a test waits for, on a busy machine too.
const LONGEST: Duration = Duration::from_secs(120);

/// Waits until it is so; what was awaited is named when it never is.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LONGEST, "waited {LONGEST:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `[[identity]]` sections `prefix-0` … with these sinks.
pub fn identities(prefix: &str, count: usize, sinks: &[&str]) -> String {
    (0..count)
        .map(|n| format!("\n[[identity]]\nname = \"{prefix}-{n}\"\nscopes = [\"chat\", \"voip\"]\nsinks = {sinks:?}\n"))
        .collect()
}

/// Whether the long sizes were asked for (`make soak`).
pub fn soak() -> bool {
    std::env::var("RENEWD_TEST_SCALE").is_ok_and(|scale| scale == "soak")
}

/// Keeps what a process prints, for a failure's message.
fn log_file(dir: &Path, name: &str) -> (std::fs::File, PathBuf) {
    let path = dir.join(name);
    (
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap(),
        path,
    )
}
