//! What ACS says is gone: one identity is withdrawn everywhere; of another resource's connection string
//! nobody loses anything, and a person is asked.

use std::time::Duration;

use serde_json::Value;

use crate::stage::{Daemon, Emulator, Stage, identities, until};

/// A fleet with files, all of them there.
async fn fleet(emulator: &Emulator, count: usize) -> (Stage, Daemon) {
    let stage = Stage::new(emulator);
    let config = stage.configure(&format!(
        "{}{}{}",
        stage.base_config(),
        stage.sinks_config(None),
        identities("bot", count, &["files"])
    ));
    let daemon = Daemon::start(&config).await;
    for n in 0..count {
        stage.there(&format!("bot-{n}")).await;
    }
    (stage, daemon)
}

fn done(stage: &Stage, args: &[&str]) -> String {
    let output = stage.renewd(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn state(stage: &Stage, name: &str) -> String {
    let shown = done(stage, &["identity", "show", name, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

/// Deletes an identity at ACS behind the daemon's back.
fn delete(emulator: &Emulator, stage: &Stage, name: &str) {
    let id = stage.document(name).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let output = std::process::Command::new(crate::stage::RENEWD)
        .args(["acs", "delete-user", &id])
        .env(
            "COMMUNICATION_SERVICES_CONNECTION_STRING",
            &emulator.connection_string,
        )
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn one_that_is_gone_is_withdrawn_everywhere_and_many_are_not() {
    let emulator = Emulator::start(&["--limit", "all=off"]);
    let (stage, _daemon) = fleet(&emulator, 12).await;
    delete(&emulator, &stage, "bot-0");
    // A revocation finds it out.
    stage.renewd(&["revoke", "bot-0", "--then", "reissue", "--yes"]);
    until("its file is withdrawn", || {
        stage.document("bot-0").is_none_or(|d| d["token"].is_null())
    })
    .await;
    assert_eq!(state(&stage, "bot-0"), "gone");
    assert!(!stage.renewd(&["token", "bot-0"]).status.success());
    let revived = done(
        &stage,
        &["identity", "revive", "bot-0", "--reason", "it is there"],
    );
    assert!(revived.contains("asked for again"), "{revived}");
    until("ACS says so again", || state(&stage, "bot-0") == "gone").await;
    let active = stage.renewd(&["identity", "revive", "bot-1"]);
    assert_eq!(active.status.code(), Some(1));

    for n in 1..9 {
        delete(&emulator, &stage, &format!("bot-{n}"));
    }
    done(&stage, &["renew", "--all", "--yes", "--detach"]);
    until("a person is asked", || {
        done(&stage, &["status"]).contains("confirm-gone")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for n in 1..9 {
        let name = format!("bot-{n}");
        assert_ne!(state(&stage, &name), "gone");
        assert!(stage.document(&name).unwrap()["token"].is_string());
    }
    let told = done(&stage, &["identity", "confirm-gone", "contoso"]);
    assert!(told.contains("8 identities"), "{told}");
    until("they are withdrawn", || {
        (1..9).all(|n| state(&stage, &format!("bot-{n}")) == "gone")
    })
    .await;
    assert!(!done(&stage, &["status"]).contains("confirm-gone"));
    assert!(stage.document("bot-9").unwrap()["token"].is_string());
}

#[tokio::test]
async fn the_connection_string_of_another_resource_costs_nobody_a_token() {
    let (emulator, other) = (
        Emulator::start(&["--limit", "all=off"]),
        Emulator::start(&["--limit", "all=off"]),
    );
    let (stage, daemon) = fleet(&emulator, 2).await;
    stage.write_private("contoso.cs", &other.connection_string);
    daemon.signal(rustix::process::Signal::HUP);
    until("a person is asked", || {
        done(&stage, &["status"]).contains("confirm-gone")
    })
    .await;
    for name in ["bot-0", "bot-1"] {
        assert_ne!(state(&stage, name), "gone");
        assert!(!stage.token(name).is_empty());
        assert!(stage.renewd(&["token", name]).status.success());
    }
    stage.write_private("contoso.cs", &emulator.connection_string);
    daemon.signal(rustix::process::Signal::HUP);
    until("all is well again", || {
        !done(&stage, &["status"]).contains("confirm-gone")
    })
    .await;
}
