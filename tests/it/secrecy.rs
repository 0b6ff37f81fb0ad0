//! A canary key, a canary webhook secret and every token that was issued are searched for wherever a
//! secret could leak to: logs at trace level, error replies, the process's arguments and environment,
//! the database and its write-ahead log.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::json;

use crate::stage::{Daemon, Emulator, RENEWD, Receiver, Stage, WEBHOOK_SECRET, identities};

fn bytes_below(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes_below(&path));
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// What the command line answers, good and bad.
fn everything_said(socket: &Path) -> Vec<(String, Vec<u8>)> {
    let mut said = Vec::new();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["why", "bot-0"],
        &["identity", "show", "bot-0"],
        &["identity", "list", "--json"],
        &["renew", "--all", "--yes"],
        &["audit"],
        &["token", "nobody"],
        &["identity", "show", "nobody"],
        &["revoke", "bot-1", "--yes"],
    ] {
        let output = Command::new(RENEWD)
            .args(args)
            .env("RENEWD_SOCKET", socket)
            .output()
            .unwrap();
        said.push((args.join(" "), [output.stdout, output.stderr].concat()));
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_seen() {
    let emulator = Emulator::start(&["--token-ttl", "20s"]);
    let receiver = Receiver::start().await;
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config()
            + &stage.sinks_config(Some(&receiver))
            + &identities("bot", 3, &["files", "hook"])),
    );
    let mut daemon = Daemon::launch(&config, &[("RENEWD_LOG", "trace")]);
    daemon.ready().await;
    for name in ["bot-0", "bot-1", "bot-2"] {
        stage.there(name).await;
    }
    let mut secrets: BTreeSet<String> = ["bot-0", "bot-1", "bot-2"]
        .iter()
        .map(|name| stage.token(name))
        .collect();
    // Failures of every kind, so that error paths are walked as well.
    for kind in ["malformed", "truncated", "reset"] {
        let fault = json!({"kind": kind, "operation": "issue", "count": 2});
        emulator.control("POST", "faults", Some(fault)).await;
    }
    let mut said = everything_said(&stage.path("renewd.sock"));
    stage.renewed("bot-0").await;
    secrets.extend(
        ["bot-0", "bot-1", "bot-2"]
            .iter()
            .map(|name| stage.token(name)),
    );
    assert!(secrets.len() > 3, "nothing was renewed");
    secrets.insert(emulator.key().to_owned());
    secrets.insert(WEBHOOK_SECRET.to_owned());
    secrets.insert(WEBHOOK_SECRET.trim_start_matches("whsec_").to_owned());

    let proc = Path::new("/proc").join(daemon.pid().to_string());
    for name in ["cmdline", "environ"] {
        said.push((name.to_owned(), fs::read(proc.join(name)).unwrap()));
    }
    said.extend(bytes_below(&stage.path("state")));
    said.push(("log".to_owned(), daemon.log().into_bytes()));
    assert!(
        said.iter().any(|(place, _)| place.ends_with("-wal")),
        "no write-ahead log was searched"
    );
    for (place, bytes) in &said {
        for secret in &secrets {
            assert!(!holds(bytes, secret), "{place} holds {}…", &secret[..12]);
        }
    }
}
