//! What was withdrawn stays withdrawn, whatever is restored beside it; through the programs.

use std::{fs, process::Output};

use crate::stage::{Daemon, Emulator, Stage, identities};

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

/// A stage with some identities in files, and the path of its configuration.
fn house(emulator: &Emulator, count: usize) -> (Stage, std::path::PathBuf) {
    let stage = Stage::new(emulator);
    let text =
        stage.base_config() + &stage.sinks_config(None) + &identities("bot", count, &["files"]);
    let config = stage.configure(&text.replace(
        "listen = \"\"",
        &format!("listen = \"127.0.0.1:{}\"", free_port()),
    ));
    (stage, config)
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The status of `/readyz`.
async fn readyz(config: &std::path::Path) -> u16 {
    let text = fs::read_to_string(config).unwrap();
    let (_, rest) = text.split_once("listen = \"").unwrap();
    let (address, _) = rest.split_once('"').unwrap();
    let answer = reqwest::get(format!("http://{address}/readyz")).await;
    answer.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distrusted_store_does_nothing_until_it_is_accepted() {
    let emulator = Emulator::start(&[]);
    let (stage, config) = house(&emulator, 2);
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    stage.there("bot-1").await;
    let before = stage.token("bot-0");
    let at = config.display().to_string();
    let running = stage.renewd(&["store", "distrust", "--since", "1h", "--config", &at]);
    assert_eq!(running.status.code(), Some(1), "{}", said(&running));
    assert!(daemon.stop().success());
    ok(&stage.renewd(&["store", "distrust", "--since", "1h", "--config", &at]));
    let calls = emulator.control("GET", "stats", None).await;

    let daemon = Daemon::start(&config).await;
    let refused = stage.renewd(&["token", "bot-0"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(
        said(&refused).contains("renewd store accept"),
        "{}",
        said(&refused)
    );
    let status = ok(&stage.renewd(&["status"]));
    let first = status.lines().find(|line| line.contains('!')).unwrap();
    assert!(
        first.contains("nothing is issued, delivered or served"),
        "{status}"
    );
    assert_eq!(readyz(&config).await, 503);
    for verb in [
        ["revoke", "bot-0", "--yes"].as_slice(),
        &["renew", "bot-0"],
        &["identity", "remove", "bot-0"],
    ] {
        let refused = stage.renewd(verb);
        assert!(
            said(&refused).contains("store accept"),
            "{}",
            said(&refused)
        );
    }
    daemon.signal(rustix::process::Signal::HUP);
    assert_eq!(stage.token("bot-0"), before, "its file is left alone");
    assert_eq!(
        emulator.control("GET", "stats", None).await["identities"],
        calls["identities"]
    );

    ok(&stage.renewd(&["store", "accept", "--reason", "nothing was revoked"]));
    stage.reissued("bot-0", &before).await;
    ok(&stage.renewd(&["token", "bot-1"]));
    while readyz(&config).await != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let again = stage.renewd(&["store", "accept"]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&config).await;
    ok(&stage.renewd(&["token", "bot-1"]));
    assert!(daemon.stop().success());
}
