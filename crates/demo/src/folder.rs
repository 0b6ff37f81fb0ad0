//! The demo's temporary folder: a configuration as an operator would write it, secrets, tokens.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::DemoError;

/// Who gets tokens in the demo.
pub(super) const NAMES: [&str; 5] = [
    "support-bot",
    "sales-bot",
    "front-desk",
    "night-shift",
    "on-call",
];

pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn new() -> Result<Self, DemoError> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let path = std::env::temp_dir().join(format!("renewd-demo-{}", &unique[..8]));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.and_then(|()| fs::create_dir(path.join("state")))
            .and_then(|()| fs::create_dir(path.join("tokens")))
            .map_err(|source| cannot_write(&path, source))?;
        Ok(Self { path, keep: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside, as the text that a configuration or an argument takes.
    pub(super) fn inside(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    pub(super) fn token_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("tokens/{name}.json"))
    }

    /// Leaves it there: somebody will want to read the logs.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// A file that nobody else may read.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), DemoError> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        file.and_then(|mut file| io::Write::write_all(&mut file, content.as_bytes()))
            .map_err(|source| cannot_write(&path, source))
    }

    /// The configuration of the demo's daemon.
    pub(super) fn configuration(&self, listen: &str, ca_file: &str, webhook: &str) -> String {
        let here = self.path.display();
        let mut text = format!(
            r#"[daemon]
state_dir = "{here}/state"
socket    = "{here}/renewd.sock"
listen    = "{listen}"
instance  = "demo"

[[resource]]
name = "contoso"
connection_string = {{ file = "{here}/contoso.cs" }}
ca_file = "{ca_file}"

[[sink.file]]
name = "files"
path = "{here}/tokens/{{name}}.json"

[[sink.webhook]]
name = "app"
url = "{webhook}"
secrets = [{{ file = "{here}/webhook.secret" }}]
"#
        );
        for name in NAMES {
            text.push_str(&format!(
                "\n[[identity]]\nname = \"{name}\"\nscopes = [\"chat\", \"voip\"]\nsinks = [\"files\", \"app\"]\n"
            ));
        }
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // A folder that stays behind in the temporary directory harms nobody.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn cannot_write(path: &Path, source: io::Error) -> DemoError {
    DemoError::Folder {
        path: path.to_owned(),
        source,
    }
}
