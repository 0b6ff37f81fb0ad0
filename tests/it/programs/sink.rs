//! The exec sink.

use std::{collections::BTreeMap, time::Duration};

use renewd::{
    config::ExecSinkSettings,
    sinks::{DeliveryOutcome, ExecSink},
};

use super::pipe::Pipe;
use crate::{
    samples::{delivery, document, held, token},
    stage::{Daemon, Emulator, RENEWD, Stage, identities, until},
};

/// A sink that gives this to a shell; it has to name the shell itself.
fn settings(script: &str, environment: &[(&str, &str)]) -> ExecSinkSettings {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    ExecSinkSettings {
        rate: None,
        name: "reload".parse().unwrap(),
        command: ["/bin/sh", "-c", script, "hook", "a b", "$HOME;*"]
            .map(str::to_owned)
            .to_vec(),
        timeout: Duration::from_secs(20),
        environment: environment.iter().map(owned).collect::<BTreeMap<_, _>>(),
        max_in_flight: 4,
        after: Vec::new(),
        nodes: Vec::new(),
    }
}

fn sink(script: &str) -> ExecSink {
    ExecSink::new(&settings(script, &[]), false).unwrap()
}

#[tokio::test]
async fn it_gets_the_document_on_its_input_and_the_token_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = Pipe::new(dir.path().join("said"));
    let script = r#"{ cat; echo; printf '[%s]' "$@"; echo; pwd; cat /proc/self/environ | tr '\0' '\n' | sort; } > "$SAID""#;
    let said = pipe.path().to_str().unwrap();
    let sink = ExecSink::new(&settings(script, &[("SAID", said)]), false).unwrap();
    let payload = delivery(document("bot", 7), &[]);
    let (outcome, heard) = tokio::join!(sink.deliver(&payload), pipe.heard());
    assert_eq!(outcome.unwrap(), DeliveryOutcome::Ran);
    let (input, rest) = heard.split_once('\n').unwrap();
    assert_eq!(input.as_bytes(), &**document("bot", 7).to_json());
    assert!(!rest.contains(&token(7)), "{rest}");
    assert!(rest.starts_with("[a b][$HOME;*]\n/\n"), "{rest}");
    let keys: Vec<&str> = rest
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once('=').map(|(key, _)| key))
        .collect();
    let ours = "LANG PATH PWD RENEWD_EVENT RENEWD_EXPIRES_AT RENEWD_NAME RENEWD_RESOURCE RENEWD_SINK \
        RENEWD_STATE RENEWD_VERSION SAID";
    assert_eq!(keys.join(" "), ours, "PWD is the shell's own");
}

#[tokio::test]
async fn only_status_0_delivers_and_what_it_said_is_told_without_the_token() {
    let loud =
        sink(r#"echo working; sed 's/.*"token":"//; s/".*//' >&2; echo it failed >&2; exit 3"#);
    let error = loud
        .deliver(&delivery(document("bot", 7), &[]))
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("/bin/sh ended with status 3; it said: "),
        "{message}"
    );
    assert!(
        message.contains("***") && message.contains("it failed"),
        "{message}"
    );
    assert!(!message.contains(&token(7)[..16]), "{message}");

    let absent = ExecSinkSettings {
        command: vec!["/nowhere/on-token".to_owned()],
        ..settings("", &[])
    };
    let absent = ExecSink::new(&absent, false).unwrap();
    let error = absent.deliver(&delivery(document("bot", 7), &[])).await;
    let message = error.unwrap_err().to_string();
    assert!(message.contains("is it installed"), "{message}");
}

#[tokio::test]
async fn input_that_is_not_read_and_output_without_end_hold_nothing_up() {
    let deaf = sink("exit 0");
    let outcome = deaf.deliver(&delivery(held("bot", 7), &[])).await;
    assert_eq!(outcome.unwrap(), DeliveryOutcome::Ran);
    let flood = sink("head -c 20000000 /dev/zero; echo; echo the end; exit 1");
    let error = flood.deliver(&delivery(document("bot", 7), &[])).await;
    let message = error.unwrap_err().to_string();
    assert!(
        message.ends_with("| the end") && message.len() < 4000,
        "{}",
        message.len()
    );
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_is_ended_however_deaf() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = Pipe::new(dir.path().join("alive"));
    // Both hold the pipe open as long as they live, and neither heeds SIGTERM.
    let script =
        r#"trap '' TERM; exec 9>"$ALIVE"; sleep 1000 & echo "$RENEWD_VERSION" >&9; sleep 1000"#;
    let alive = pipe.path().to_str().unwrap();
    let slow = ExecSinkSettings {
        timeout: Duration::from_secs(1),
        ..settings(script, &[("ALIVE", alive)])
    };
    let slow = ExecSink::new(&slow, false).unwrap();
    let payload = delivery(document("bot", 7), &[]);
    // The pipe ends when nobody is left who could write.
    let (ended, heard) = tokio::join!(slow.deliver(&payload), pipe.heard());
    let message = ended.unwrap_err().to_string();
    assert!(message.contains("had not ended after 1 s"), "{message}");
    assert_eq!(heard, "7\n");
}

#[tokio::test]
async fn an_attempt_that_is_given_up_takes_its_processes_along() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = Pipe::new(dir.path().join("alive"));
    let started = Pipe::new(dir.path().join("started"));
    let script = r#"exec 9>"$ALIVE"; sleep 1000 & echo up > "$STARTED"; wait"#;
    let paths = [pipe.path(), started.path()].map(|path| path.to_str().unwrap());
    let environment = [("ALIVE", paths[0]), ("STARTED", paths[1])];
    let sink = ExecSink::new(&settings(script, &environment), false).unwrap();
    let running =
        tokio::spawn(async move { sink.deliver(&delivery(document("bot", 7), &[])).await });
    let (heard, ()) = tokio::join!(pipe.heard(), async {
        assert_eq!(started.heard().await, "up\n");
        running.abort();
    });
    assert_eq!(heard, "");
}

/// While the file sink is paused nothing is run, and the operator is told what it waits for.
#[tokio::test]
async fn what_it_waits_for_is_shown() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.base_config()
        + &stage.sinks_config(None)
        + "\n[[sink.exec]]\nname = \"hook\"\ncommand = [\"/bin/true\"]\nafter = [\"files\"]\n"
        + &identities("bot", 1, &["files", "hook"]);
    let config = stage.configure(&config);
    let _daemon = Daemon::start(&config).await;
    let renewd = |arguments: &[&str]| {
        let mut command = std::process::Command::new(RENEWD);
        command.args(arguments);
        let output = command
            .env("RENEWD_SOCKET", stage.path("renewd.sock"))
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    stage.there("bot-0").await;
    renewd(&["sink", "pause", "files"]);
    renewd(&["renew", "bot-0", "--detach"]);
    let shown = || renewd(&["delivery", "show", "bot-0"]);
    until("a delivery that waits for the files", || {
        shown().contains("after files")
    })
    .await;
    renewd(&["sink", "enable", "files"]);
    until("both deliveries", || {
        shown().contains("2 deliveries, 0 pending")
    })
    .await;
}

/// Through the real daemon: it waits for the file, fails, survives a kill, and succeeds for that version.
#[tokio::test]
async fn it_is_run_after_the_file_until_it_succeeds_even_over_a_kill() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let pipe = Pipe::new(stage.path("said"));
    let dir = stage.path("");
    let dir = dir.display();
    stage.write_private(
        "hook",
        "cat >/dev/null\ngrep -c \"$RENEWD_VERSION\" \"$STAGE/tokens/$RENEWD_NAME.json\" >\"$STAGE/found\"\n\
         { echo \"$RENEWD_EVENT $RENEWD_VERSION $(cat \"$STAGE/found\")\"; } >\"$STAGE/said\"\n\
         echo no flag yet >&2\ntest -e \"$STAGE/flag\"\n",
    );
    let config = stage.base_config()
        + &stage.sinks_config(None)
        + &format!(
            "\n[[sink.exec]]\nname = \"hook\"\ncommand = [\"/bin/sh\", \"{dir}/hook\"]\n\
             environment = {{ STAGE = \"{dir}\" }}\nafter = [\"files\"]\n"
        )
        + &identities("bot", 1, &["files", "hook"]);
    let config = stage.configure(&config);
    let socket = stage.path("renewd.sock");

    let daemon = Daemon::start(&config).await;
    let first = pipe.heard().await;
    let version = stage.document("bot-0").unwrap()["version"].to_string();
    assert_eq!(
        first,
        format!("token.issued {version} 1\n"),
        "after the file"
    );
    let again = pipe.heard().await;
    assert_eq!(again, first, "run again, for the same version");
    let status = daemon.status(&socket).to_string();
    assert!(status.contains("it said: no flag yet"), "{status}");
    daemon.kill();

    std::fs::write(stage.path("flag"), "").unwrap();
    let daemon = Daemon::start(&config).await;
    assert_eq!(pipe.heard().await, first, "and again after a kill");
    until("the delivery that was begun before the kill", || {
        daemon.status(&socket)["couriers"]["hook"]["delivered"] == 1
    })
    .await;
    assert!(daemon.stop().success());
}
