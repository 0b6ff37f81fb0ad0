//! Jobs as an operator meets them: nonsense is explained at its place; list, run and history.

use std::process::{Command, Output};

use serde_json::Value;

use super::stage::{Daemon, Emulator, RENEWD, Stage, identities};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

const JOBS: &str = r#"
[[job]]
name = "nightly"
cron = "30 2 * * *"
timezone = "Europe/Prague"
action = "revoke"
select = "name ~ 'bot-*'"

[[job]]
name = "often"
cron = "* * * * * *"
action = "renew"
select = "name = 'bot-0'"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_run_by_hand_and_remembered() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let text = format!(
        "{}{}{}{JOBS}",
        stage.base_config(),
        stage.sinks_config(None),
        identities("bot", 2, &["files"])
    );
    let daemon = Daemon::start(&stage.configure(&text)).await;
    stage.there("bot-0").await;
    stage.there("bot-1").await;

    // By the clock of the machine, woken by the scheduler: a run for each second, never two at once.
    stage.renewed("bot-0").await;

    let listed = json(&stage.renewd(&["job", "list", "--json"]));
    let nightly = &listed["jobs"][0];
    assert_eq!(
        (&nightly["name"], &nightly["select"]),
        (&"nightly".into(), &"name ~ 'bot-*'".into())
    );
    assert_eq!(nightly["next"].as_array().unwrap().len(), 3);
    assert!(nightly["last"].is_null());
    assert_eq!(listed["jobs"][1]["last"]["job"], "often");

    let run = stage.renewd(&["job", "run", "nightly", "--json"]);
    assert!(run.status.success());
    assert_eq!(json(&run)["outcome"], "started");
    stage.renewed("bot-1").await;
    let history = json(&stage.renewd(&["job", "history", "nightly", "--json"]));
    assert_eq!(history["runs"].as_array().unwrap().len(), 1);
    let shown = stage.renewd(&["job", "list"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("30 2 * * * Europe/Prague"), "{shown}");
    assert_eq!(
        stage.renewd(&["job", "run", "weekly"]).status.code(),
        Some(1)
    );

    let history = json(&stage.renewd(&["job", "history", "often", "--json", "--limit", "500"]));
    let instants: Vec<_> = history["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["scheduled_at"])
        .collect();
    let mut once = instants.clone();
    once.dedup();
    assert_eq!(instants, once, "each instant at most once");
    assert!(daemon.stop().success());
}

#[test]
fn nonsense_is_explained_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("renewd.toml");
    let text = include_str!("fixtures/jobs.toml");
    std::fs::write(&path, text).unwrap();
    let told = Command::new(RENEWD)
        .args(["check", "--config"])
        .arg(&path)
        .env(
            "CONTOSO",
            "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=",
        )
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(2));
    let told = [told.stdout, told.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    insta::assert_snapshot!(told.replace(&path.display().to_string(), "/etc/renewd/renewd.toml"));
}
