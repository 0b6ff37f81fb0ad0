//! The README keeps its word: its configurations load, its document is the document, its verbs exist
//! (see `cli`), its paths are there.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use renewd::config::{self, Environment, Source};

use crate::samples;

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
