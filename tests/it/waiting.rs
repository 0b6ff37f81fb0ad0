//! A campaign that cannot move says why, and goes on without the one who watched it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

fn renewd(stage: &Stage, args: &[&str]) -> Output {
    let mut command = Command::new(RENEWD);
    command.args(args).arg("--socket");
    command.arg(stage.path("renewd.sock")).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_acs_does_not_answer_says_why_it_waits() {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(&(stage.base_config() + &identities("guest", 1, &[])));
    let daemon = Daemon::start(&config).await;
    assert!(renewd(&stage, &["wait", "guest-0"]).status.success());
    let outage = json!({"kind": "outage"});
    emulator.control("POST", "faults", Some(outage)).await;

    let mut renew = Command::new(RENEWD)
        .args(["renew", "guest-0", "--socket"])
        .arg(stage.path("renewd.sock"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(renew.stderr.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    assert!(said.starts_with("waiting: "), "{said}");
    let told = renewd(&stage, &["campaign", "show", "1", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["state"], "running", "{told}");
    assert_ne!(told["waits"], json!([]), "{told}");

    let pid = rustix::process::Pid::from_child(&renew);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(renew.wait().unwrap().success());
    let last = rest.last().unwrap();
    assert!(last.contains("renewd campaign watch 1"), "{rest:?}");

    emulator.control("DELETE", "faults", None).await;
    // The next attempt of a token that lives on is minutes away: asking again hastens it.
    let again = renewd(&stage, &["renew", "guest-0"]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    let watched = renewd(&stage, &["campaign", "watch", "1"]);
    assert_eq!(watched.status.code(), Some(0), "{watched:?}");
    assert_eq!(watched.stdout, b"1 renewed\n");
    assert!(daemon.stop().success());
}

/// What a command says on standard error, and how it ends.
fn said(output: &Output) -> (String, Option<i32>) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said, output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_do_is_left_to_the_daemon_in_time_with_6() {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(&(stage.base_config() + &identities("guest", 1, &[])));
    let daemon = Daemon::start(&config).await;
    assert!(renewd(&stage, &["wait", "guest-0"]).status.success());
    let regenerate = json!({"regenerate": "primary"});
    emulator.control("POST", "keys", Some(regenerate)).await;

    let (first, code) = said(&renewd(&stage, &["renew", "guest-0", "--timeout", "5s"]));
    assert_eq!(code, Some(6), "{first}");
    assert!(
        first.contains("waiting: issue at resource contoso waits until "),
        "{first}"
    );
    assert!(first.contains("; the next try is at "), "{first}");
    let goes_on =
        "it is not done after 5s: campaign 1 goes on in the daemon, 0 of 1 renewed so far";
    assert!(first.contains(goes_on), "{first}");

    // Now it is known beforehand, and said before anything is waited for.
    for command in [
        &["renew", "guest-0", "--timeout", "1s"][..],
        &["revoke", "guest-0", "--yes", "--timeout", "1s"],
        &["campaign", "watch", "1", "--timeout", "1s"],
    ] {
        let (told, code) = said(&renewd(&stage, command));
        assert_eq!(code, Some(6), "{command:?}: {told}");
        assert!(told.starts_with("waiting: "), "{command:?}: {told}");
    }
    let (out, code) = {
        let output = renewd(
            &stage,
            &["campaign", "watch", "1", "--timeout", "1s", "--json"],
        );
        (output.stdout, output.status.code())
    };
    let of: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((code, of["left"].as_u64()), (Some(6), Some(1)), "{of}");
    assert!(daemon.stop().success());
}
