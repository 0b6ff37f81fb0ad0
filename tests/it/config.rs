//! The configuration as an operator meets it: the samples that are shipped load, and what is wrong
//! is told in full, at its place, without a secret.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use renewd::config::{self, Environment, Loaded, Problems, Source};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CONNECTION: &str =
    "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=";
const WEBHOOK: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A temporary `/etc/renewd` with every secret that the samples refer to.
struct Etc {
    dir: tempfile::TempDir,
}

impl Etc {
    fn new() -> Self {
        let etc = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for name in ["contoso", "europe", "america"] {
            for end in ["", "-secondary", ".cs", "-secondary.cs"] {
                etc.secret(&format!("{name}{end}"), &format!("{CONNECTION}{end}\n"));
            }
        }
        etc.secret("crm-webhook", WEBHOOK);
        etc.secret("on-call-webhook", WEBHOOK);
        etc.secret("seal-key", "0123456789abcdef0123456789abcdef");
        etc.secret("ca.pem", "");
        etc
    }

    fn secret(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn environment(&self) -> Environment {
        let credentials = self.dir.path().to_str().unwrap();
        Environment::given(
            [
                ("CREDENTIALS_DIRECTORY", credentials),
                ("STATE_DIRECTORY", "/var/lib/renewd"),
                ("RUNTIME_DIRECTORY", "/run/renewd"),
                ("CONTOSO", CONNECTION),
            ],
            "web-1",
            true,
        )
    }

    /// Writes a file beside the secrets, with `/etc/renewd` standing for this directory.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let here = self.dir.path().to_str().unwrap();
        fs::write(&path, text.replace("/etc/renewd", here)).unwrap();
        path
    }

    fn load(&self, path: PathBuf) -> Result<Loaded, Problems> {
        config::load(&Source {
            path,
            environment: self.environment(),
        })
    }

    fn load_text(&self, text: &str) -> Result<Loaded, Problems> {
        self.load(self.write("renewd.toml", text))
    }

    /// What is wrong with a text, with `/etc/renewd` in place of this directory again.
    fn told(&self, text: &str) -> String {
        let problems = match self.load_text(text) {
            Ok(loaded) => Problems(loaded.warnings),
            Err(problems) => problems,
        };
        self.normal(&config::render(&problems, false))
    }

    fn normal(&self, text: &str) -> String {
        text.replace(self.dir.path().to_str().unwrap(), "/etc/renewd")
    }
}

fn samples() -> Vec<PathBuf> {
    let examples = fs::read_dir(Path::new(ROOT).join("config/examples")).unwrap();
    let mut paths: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    paths.push(Path::new(ROOT).join("config/renewd.toml"));
    paths.sort();
    paths
}

#[test]
fn every_sample_loads_without_a_warning() {
    assert!(samples().len() >= 5);
    for path in samples() {
        let etc = Etc::new();
        let told = etc.told(&fs::read_to_string(&path).unwrap());
        assert_eq!(told, "", "{}", path.display());
    }
}

/// Each wrong file under `fixtures/bad`, as an operator is told about it.
#[test]
fn wrong_files_are_explained() {
    let dir = Path::new(ROOT).join("tests/it/fixtures/bad");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 20);
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let etc = Etc::new();
        etc.secret("short", "whsec_c2hvcnQ=");
        etc.secret(
            "unpadded",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        );
        let open = etc.secret("open.cs", CONNECTION);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        etc.secret("contoso.cs", CONNECTION);
        let text = fs::read_to_string(&path).unwrap();
        let loaded = etc.load_text(&text);
        assert_eq!(loaded.is_ok(), name == "warnings", "{name}");
        let told = etc.told(&text);
        assert!(
            !told.contains("hunter2") && !told.contains("Q2Fu"),
            "{name}:\n{told}"
        );
        insta::assert_snapshot!(name, told);
    }
}
