//! The README keeps its word: its configurations load, its document is the document, its verbs exist
//! (see `cli`), its paths are there.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    time::{Duration, Instant},
};

use renewd::config::{self, Environment, Source};

use crate::{samples, stage::Person};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CONNECTION: &str =
    "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=";
const SECONDARY: &str =
    "endpoint=https://contoso.communication.azure.com/;accesskey=dGhlLW90aGVyLWtleQ==";
const WEBHOOK: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let readme = readme();
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_configuration_loads() {
    let blocks = blocks("toml");
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str().unwrap();
        for (name, secret) in [
            ("contoso.cs", CONNECTION),
            ("contoso", CONNECTION),
            ("contoso-secondary", SECONDARY),
            ("crm-webhook", WEBHOOK),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, secret).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let path = dir.path().join("renewd.toml");
        fs::write(&path, block.replace("/etc/renewd", here)).unwrap();
        let environment = Environment::given([("CREDENTIALS_DIRECTORY", here)], "web-1", true);
        let loaded = config::load(&Source { path, environment });
        if let Err(problems) = loaded {
            panic!("{block}\n{problems}");
        }
    }
}

#[test]
fn the_document_is_the_document() {
    let blocks = blocks("json");
    let shown: serde_json::Value = serde_json::from_str(&blocks[0]).unwrap();
    let real: serde_json::Value =
        serde_json::from_slice(&samples::document("support-bot", 1).to_json()).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&shown), keys(&real));
}

#[test]
fn every_path_that_it_names_in_this_folder_exists() {
    for path in [
        "config/renewd.toml",
        "config/examples",
        "systemd/renewd.service",
        "systemd/renewd.sysusers",
        "systemd/renewd.tmpfiles",
        "Makefile",
    ] {
        assert!(Path::new(ROOT).join(path).exists(), "{path}");
        assert!(
            path == "Makefile" || readme().contains(path),
            "README does not name {path}"
        );
    }
}

/// The block of commands of a section that begins with these words.
fn commands(section: &str, first: &str) -> String {
    let readme = readme();
    let section = readme.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let mut blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let found = blocks.find(|block| block.starts_with(first));
    found
        .unwrap_or_else(|| panic!("no block begins with {first}"))
        .to_owned()
}

/// Types exactly what the README says, as an ordinary user with an empty home, until the first token is in a file.
#[tokio::test]
async fn its_first_five_minutes_end_with_a_token_in_a_file() {
    let script = commands("The first five minutes", "renewd init --emulator");
    let person = Person::new();
    let began = Instant::now();
    let mut shell = person.runs(Path::new("/bin/sh"), &[]);
    let path = format!("{}:/usr/bin:/bin", person.path("").display());
    let out = File::create(person.path("out")).unwrap();
    let shell = shell
        .args(["-ec", &script])
        .env("PATH", path)
        .process_group(0);
    let err = File::create(person.path("err")).unwrap();
    let mut child = shell
        .stdin(std::process::Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    let group = rustix::process::Pid::from_child(&child);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > Duration::from_secs(300) {
            break None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // Daemon and emulator are left in the background.
    rustix::process::kill_process_group(group, rustix::process::Signal::TERM).unwrap();
    let read = |name| fs::read_to_string(person.path(name)).unwrap();
    let (out, err) = (read("out"), read("err"));
    let status = status.unwrap_or_else(|| panic!("five minutes were not enough:\n{out}{err}"));
    assert!(status.success(), "{status}:\n{out}{err}");
    let document: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(document["name"], "bot");
    assert!(document["token"].as_str().unwrap().len() > 100);
    println!(
        "the first token was in a file after {:.1} s",
        began.elapsed().as_secs_f64()
    );
}
