//! The log: its first line, its formats, and how much it says.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

use crate::stage::{Daemon, Emulator, RENEWD, SecureEmulator, Stage, identities};

/// The first line that the daemon logs.
fn first_line(stage: &Stage, args: &[&str], filter: &str) -> String {
    let mut child = Command::new(RENEWD)
        .args(["run", "--config"])
        .arg(stage.path("renewd.toml"))
        .args(args)
        .env("RENEWD_LOG", filter)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    lines.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}

#[test]
fn the_format_and_the_filter_are_chosen() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(&stage.base_config());
    let line = first_line(&stage, &["--log-format", "json"], "info");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let fields = &line["fields"];
    assert_eq!(fields["message"], "renewd starts");
    assert_eq!(fields["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(fields["configuration"], config.to_str().unwrap());
    assert_eq!(
        fields["socket"],
        stage.path("renewd.sock").to_str().unwrap()
    );
    assert_eq!(fields["listener"], "none");
    let line = first_line(&stage, &["--log-format", "human"], "renewd::app=info,warn");
    assert!(line.contains("renewd starts version="), "{line}");
    if !Path::new("/run/systemd/journal/socket").exists() {
        let line = first_line(&stage, &["--log-format", "journal"], "info");
        assert!(line.contains("the journal does not answer"), "{line}");
    }
    for (args, filter, told) in [
        (vec![], "renewd=loud", "RENEWD_LOG"),
        (vec!["--log-format", "xml"], "info", "xml"),
    ] {
        let line = first_line(&stage, &args, filter);
        assert!(line.starts_with("error:") && line.contains(told), "{line}");
    }
}

/// The lines of a day on which all goes well: a start, a renewal of everybody, a reload, an end.
async fn lines_of_a_healthy_day(count: usize) -> Vec<String> {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let all = identities("bot", count, &["files"]);
    let config = stage.configure(&(stage.base_config() + &stage.sinks_config(None) + &all));
    let mut daemon = Daemon::launch(&config, &[]);
    daemon.ready().await;
    for n in 0..count {
        stage.there(&format!("bot-{n}")).await;
    }
    let renewed = stage.renewd(&["renew", "--all", "--yes"]);
    assert!(renewed.status.success(), "{renewed:?}");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.told("RELOADING=1").await;
    daemon.ready().await;
    let log = stage.path("daemon.log");
    assert!(daemon.stop().success());
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_a_healthy_day_do_not_depend_on_the_size_of_the_fleet() {
    let few = lines_of_a_healthy_day(5).await;
    let many = lines_of_a_healthy_day(200).await;
    assert_eq!(few.len(), many.len(), "{few:#?}\n{many:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_is_one_line_with_its_resource_and_its_host() {
    let secure = SecureEmulator::start();
    let plain = Emulator::start(&[]);
    let stage = Stage::new(&plain);
    stage.write_private("contoso.cs", &secure.connection_string);
    let config = stage.configure(
        &(stage.base_config() + &stage.sinks_config(None) + &identities("bot", 4, &["files"])),
    );
    let daemon = Daemon::start(&config).await;
    let socket = stage.path("renewd.sock");
    let calls = || {
        let status = daemon.status(&socket);
        let calls = status["lanes"]["contoso"]["calls"].as_object().cloned();
        let calls = calls.unwrap_or_default();
        calls.values().filter_map(Value::as_u64).sum::<u64>()
    };
    let tried = async {
        while calls() < 7 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), tried)
        .await
        .expect("seven calls are tried");
    let log = daemon.log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("handshake"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    let host = secure.connection_string.split('/').nth(2).unwrap();
    for part in ["contoso", host, "invalid peer certificate", "ca_file"] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    assert!(!log.contains("rustls"), "{log}");
    // Who looks is told the reason first, with the host, and no id that nobody knows.
    let status = stage.renewd(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    let because = text
        .lines()
        .find(|line| line.contains("handshake"))
        .unwrap();
    assert!(
        because.trim_start().starts_with("TLS handshake with"),
        "{text}"
    );
    assert!(because.contains(host) && !text.contains("8:acs:"), "{text}");
}
