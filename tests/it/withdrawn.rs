//! What was withdrawn stays withdrawn, whatever is restored beside it; through the programs.

use std::{fs, process::Output, time::Duration};

use crate::stage::{Daemon, Emulator, Stage, identities, until};

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
fn harness(emulator: &Emulator, count: usize) -> (Stage, std::path::PathBuf) {
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

async fn until_ready(config: &std::path::Path) {
    let ready = async {
        while readyz(config).await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ready = tokio::time::timeout(Duration::from_secs(60), ready).await;
    ready.expect("the daemon is ready once the store is accepted");
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
    let (stage, config) = harness(&emulator, 2);
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
    until_ready(&config).await;
    let again = stage.renewd(&["store", "accept"]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&config).await;
    ok(&stage.renewd(&["token", "bot-1"]));
    assert!(daemon.stop().success());
}

/// Copies the database as a snapshot of the machine would, or puts it back.
fn copy_database(stage: &Stage, from: &str, to: &str) {
    fs::create_dir_all(stage.path(to)).unwrap();
    for name in ["renewd.db", "renewd.db-wal", "renewd.db-shm"] {
        let (from, to) = (stage.path(from).join(name), stage.path(to).join(name));
        fs::remove_file(&to).ok();
        if from.exists() {
            fs::copy(from, to).unwrap();
        }
    }
}

fn version(stage: &Stage, name: &str) -> u64 {
    stage.document(name).unwrap()["version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_put_back_from_a_copy_is_brought_up_to_what_was_withdrawn_since() {
    let emulator = Emulator::start(&[]);
    let (stage, config) = harness(&emulator, 4);
    let daemon = Daemon::start(&config).await;
    for n in 0..4 {
        stage.there(&format!("bot-{n}")).await;
    }
    let old: Vec<String> = (0..4).map(|n| stage.token(&format!("bot-{n}"))).collect();
    // In the middle of its work, as a snapshot comes.
    copy_database(&stage, "state", "copy");
    ok(&stage.renewd(&["revoke", "bot-0", "--then", "hold", "--yes"]));
    ok(&stage.renewd(&["revoke", "bot-1", "--then", "reissue", "--yes"]));
    ok(&stage.renewd(&["identity", "delete", "bot-2", "--yes"]));
    stage.reissued("bot-1", &old[1]).await;
    ok(&stage.renewd(&["renew", "bot-3"]));
    stage.reissued("bot-3", &old[3]).await;
    let versions = [0, 1, 3].map(|n| version(&stage, &format!("bot-{n}")));
    assert!(daemon.stop().success());
    copy_database(&stage, "copy", "state");

    let daemon = Daemon::start(&config).await;
    let held = stage.renewd(&["token", "bot-0"]);
    assert_eq!(held.status.code(), Some(5), "{}", said(&held));
    assert!(said(&held).contains("held"), "{}", said(&held));
    stage.reissued("bot-1", &old[1]).await;
    for attempt in 0.. {
        let served = stage.renewd(&["token", "bot-1"]);
        assert!(
            !said(&served).contains(&old[1]),
            "a revoked token is served"
        );
        if served.status.success() {
            break;
        }
        assert!(attempt < 200, "{}", said(&served));
    }
    let deleted = stage.renewd(&["token", "bot-2"]);
    assert!(said(&deleted).contains("deleted"), "{}", said(&deleted));
    for (n, before) in [0, 1, 3].iter().zip(versions) {
        let name = format!("bot-{n}");
        until(
            "a version above the last before the copy was put back",
            || {
                let now = version(&stage, &name);
                assert!(now >= before, "{name} fell");
                now > before
            },
        )
        .await;
    }
    let status = ok(&stage.renewd(&["status"]));
    assert!(status.contains("brought up"), "{status}");
    assert_eq!(
        emulator.control("GET", "stats", None).await["identities"]["created"],
        4,
        "nobody is made anew"
    );
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&config).await;
    assert_eq!(stage.renewd(&["token", "bot-0"]).status.code(), Some(5));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_lost_its_end_waits_for_a_person_and_a_torn_line_does_not() {
    let emulator = Emulator::start(&[]);
    let (stage, config) = harness(&emulator, 3);
    let daemon = Daemon::start(&config).await;
    for n in 0..3 {
        stage.there(&format!("bot-{n}")).await;
    }
    for n in 0..3 {
        ok(&stage.renewd(&["hold", &format!("bot-{n}"), "--yes"]));
    }
    assert!(daemon.stop().success());
    let file = stage.path("state/withdrawn.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    assert!(!whole.contains("eyJ"), "no secret in it");

    fs::write(&file, &whole[..whole.len() - 7]).unwrap();
    let daemon = Daemon::start(&config).await;
    assert!(!ok(&stage.renewd(&["status"])).contains("store accept"));
    assert!(daemon.stop().success());

    let lines: Vec<&str> = whole.lines().collect();
    fs::write(&file, lines[..lines.len() / 2].join("\n") + "\n").unwrap();
    let daemon = Daemon::start(&config).await;
    let status = ok(&stage.renewd(&["status"]));
    assert!(
        status.contains("is cut off") && status.contains("renewd store accept"),
        "{status}"
    );
    ok(&stage.renewd(&["store", "accept"]));
    let held = stage.renewd(&["token", "bot-0"]);
    assert!(said(&held).contains("held"), "{}", said(&held));
    assert!(daemon.stop().success());

    // Missing beside a store that knows: written anew.
    fs::remove_file(&file).unwrap();
    let daemon = Daemon::start(&config).await;
    assert!(fs::read_to_string(&file).unwrap().contains("\"held\":true"));
    assert!(daemon.stop().success());
}
