//! `renewd delivery` and `renewd sink` as an operator uses them, against a daemon that runs.

use std::{path::Path, process::Command, time::Duration};

use axum::http::StatusCode;
use serde_json::Value;

use crate::stage::{Daemon, Emulator, RENEWD, Receiver, Stage, identities};

/// A verb's exit code and what it printed.
async fn renewd(socket: &Path, args: &[&str]) -> (i32, String) {
    let (socket, args) = (socket.to_owned(), args.join(" "));
    // The receiver of this process has to answer meanwhile.
    let run = move || {
        let output = Command::new(RENEWD)
            .args(args.split(' '))
            .env("RENEWD_SOCKET", socket)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn json(socket: &Path, args: &[&str]) -> Value {
    let (code, text) = renewd(socket, &[args, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{code}: {error}\n{text}"))
}

/// Waits until the sinks are as wanted.
async fn sinks(socket: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let found = json(socket, &["sink", "list"]).await;
        if wanted(&found["sinks"]) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn of<'a>(sinks: &'a Value, name: &str) -> &'a Value {
    let rows = sinks.as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap()
}

fn is_idle(sinks: &Value) -> bool {
    ["files", "hook"].iter().all(|name| {
        let row = of(sinks, name);
        row["pending"] == 0 && row["delivered"] != 0
    })
}

async fn stage(emulator: &Emulator, receiver: &Receiver) -> Stage {
    let stage = Stage::new(emulator);
    stage.configure(
        &[
            stage.base_config(),
            stage.sinks_config(Some(receiver)),
            "rate = \"200/s\"\n".to_owned(),
            identities("bot", 3, &["files", "hook"]),
        ]
        .concat(),
    );
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_takes_the_real_path_and_is_not_taken_for_a_token() {
    let (emulator, receiver) = (Emulator::start(&[]), Receiver::start().await);
    let stage = stage(&emulator, &receiver).await;
    let (config, socket) = (stage.path("renewd.toml"), stage.path("renewd.sock"));
    let daemon = Daemon::start(&config).await;
    let found = sinks(&socket, is_idle).await;
    assert_eq!(of(&found["sinks"], "hook")["rate"], "200/1s");
    assert_eq!(of(&found["sinks"], "files")["state"], "open");

    let tested = json(&socket, &["sink", "test", "hook"]).await;
    assert_eq!(
        (&tested["arrived"], &tested["kind"]),
        (&true.into(), &"webhook".into())
    );
    let (code, text) = renewd(&socket, &["sink", "test", "files"]).await;
    assert!(
        code == 0 && text.contains("written, and removed again"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(stage.path("tokens")).unwrap().count(), 3);
    assert_eq!(
        receiver.received.lock().unwrap().types["renewd.sink.test"],
        1
    );
    let (code, text) = renewd(&socket, &["sink", "test", "nobody"]).await;
    assert!(code == 1 && text.contains("files, hook"), "{text}");

    assert_eq!(
        receiver.received.lock().unwrap().wrong,
        Vec::<String>::new()
    );
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_over_a_restart_and_what_waits_is_listed_as_dead() {
    let (emulator, receiver) = (Emulator::start(&[]), Receiver::start().await);
    let stage = stage(&emulator, &receiver).await;
    let (config, socket) = (stage.path("renewd.toml"), stage.path("renewd.sock"));
    let daemon = Daemon::start(&config).await;
    sinks(&socket, is_idle).await;
    let (code, text) = renewd(&socket, &["sink", "pause", "hook", "--reason", "moving"]).await;
    assert!(code == 0 && text.contains("paused"), "{text}");
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&config).await;
    assert_eq!(renewd(&socket, &["renew", "--all", "--yes"]).await.0, 0);
    let found = sinks(&socket, |sinks| of(sinks, "hook")["pending"] == 3).await;
    let hook = of(&found["sinks"], "hook");
    assert_eq!(
        (&hook["state"], &hook["paused"]),
        (&"paused".into(), &true.into())
    );
    assert!(
        hook["disabled"].as_str().unwrap().contains("moving"),
        "{hook}"
    );
    assert!(hook["lag_seconds"].as_f64().unwrap() > 0.0, "{hook}");
    let dead = json(&socket, &["delivery", "list", "--dead"]).await;
    assert_eq!(dead["deliveries"].as_array().unwrap().len(), 3);
    let (_, status) = renewd(&socket, &["status"]).await;
    assert!(
        status.contains("LAG") && status.contains("paused"),
        "{status}"
    );
    let (code, text) = renewd(&socket, &["delivery", "retry", "--all", "--dead"]).await;
    assert!(code == 0 && text.contains("sink enable hook"), "{text}");
    let (code, _) = renewd(&socket, &["sink", "enable", "hook"]).await;
    assert_eq!(code, 0);
    sinks(&socket, is_idle).await;

    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_brings_the_same_version_once_more() {
    let (emulator, receiver) = (Emulator::start(&[]), Receiver::start().await);
    let stage = stage(&emulator, &receiver).await;
    let socket = stage.path("renewd.sock");
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    sinks(&socket, is_idle).await;
    let shown = json(&socket, &["delivery", "show", "bot-1"]).await;
    let rows = shown["deliveries"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row["wanted"] == row["delivered"]),
        "{shown}"
    );
    let before = of(&sinks(&socket, is_idle).await["sinks"], "hook")["delivered"].clone();
    let replayed = json(&socket, &["delivery", "replay", "bot-1", "--sink", "hook"]).await;
    assert_eq!(replayed["due"], 1);
    sinks(&socket, |sinks| {
        of(sinks, "hook")["delivered"].as_u64() == before.as_u64().map(|n| n + 1)
    })
    .await;
    let (code, text) = renewd(&socket, &["delivery", "replay", "--all"]).await;
    assert!(code == 2 && text.contains("name the sink"), "{text}");
    let wrong = receiver.received.lock().unwrap().wrong.clone();
    assert_eq!(wrong, Vec::<String>::new());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_receiver_is_gone_is_dead_until_somebody_enables_it() {
    let (emulator, receiver) = (Emulator::start(&[]), Receiver::start().await);
    let stage = stage(&emulator, &receiver).await;
    let socket = stage.path("renewd.sock");
    receiver.received.lock().unwrap().refuse = Some((StatusCode::GONE, 3));
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    let found = sinks(&socket, |sinks| of(sinks, "hook")["state"] == "disabled").await;
    assert_eq!(of(&found["sinks"], "hook")["paused"], false);
    let (_, text) = renewd(&socket, &["sink", "test", "hook"]).await;
    assert!(text.contains("410") || text.contains("took it"), "{text}");
    receiver.received.lock().unwrap().refuse = None;
    let (code, _) = renewd(&socket, &["sink", "enable", "hook"]).await;
    assert_eq!(code, 0);
    sinks(&socket, is_idle).await;
    let newest = receiver.received.lock().unwrap().newest.clone();
    let bots = newest.keys().filter(|name| name.starts_with("bot-"));
    assert_eq!(bots.count(), 3);
    assert!(daemon.stop().success());
}
