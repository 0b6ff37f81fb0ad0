//! Sources at a running daemon: a program that lists identities, whatever becomes of it, and a source
//! that is taken out of the configuration.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::stage::{Daemon, Emulator, RENEWD, Stage, until};

/// A daemon's folder with a source `directory` that runs a script.
struct Harness {
    stage: Stage,
    emulator: Emulator,
    config: PathBuf,
}

impl Harness {
    fn new() -> Self {
        let emulator = Emulator::start(&["--limit", "all=off"]);
        let stage = Stage::new(&emulator);
        let source = format!(
            "\n[[source.exec]]\nname = \"directory\"\ncommand = [\"{}\", \"first\", \"$HOME *\"]\n\
             every = \"1s\"\ntimeout = \"1s\"\nscopes = [\"chat\"]\nsinks = [\"files\"]\n",
            stage.path("list").display()
        );
        let text = format!(
            "{}{}{source}",
            stage.base_config(),
            stage.sinks_config(None)
        );
        let config = stage.configure(&text);
        Self {
            stage,
            emulator,
            config,
        }
    }

    /// Puts the program in place, whole at every moment.
    fn program(&self, script: &str) {
        let beside = self.stage.path("list.new");
        fs::write(&beside, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, self.stage.path("list")).unwrap();
    }

    fn source(&self, args: &[&str]) -> Output {
        Command::new(RENEWD)
            .arg("source")
            .args(args)
            .arg("--socket")
            .arg(self.stage.path("renewd.sock"))
            .output()
            .unwrap()
    }

    /// `renewd source list`: the one source that there is.
    fn listed(&self) -> Value {
        let listed = self.source(&["list", "--json"]);
        let all: Value = serde_json::from_slice(&listed.stdout).unwrap();
        all["sources"][0].clone()
    }

    /// Waits until the daemon by itself has given a reason with this in it.
    async fn lapsed(&self, word: &str) -> Value {
        loop {
            let listed = self.listed();
            let reason = listed["lapse"]["reason"].as_str();
            if reason.is_some_and(|reason| reason.contains(word)) {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn good_again(&self) {
        until("a source that is good again", || {
            self.listed()["lapse"].is_null()
        })
        .await;
    }

    fn state(&self, name: &str) -> String {
        let shown = Command::new(RENEWD)
            .args(["identity", "show", name, "--json", "--socket"])
            .arg(self.stage.path("renewd.sock"))
            .output()
            .unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&shown.stderr)));
        shown["state"]
            .as_str()
            .unwrap_or_else(|| panic!("{shown}"))
            .to_owned()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const TWO: &str = r#"echo '{"name":"anna"}'; echo '{"name":"bert","scopes":["voip"]}'"#;

/// Whether a process is there and not only waits to be collected.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with('Z')
}

#[tokio::test]
async fn a_program_lists_identities_in_an_environment_of_its_own() {
    let harness = Harness::new();
    let dir = harness.stage.path("");
    let dir = dir.display();
    harness.program(&format!(
        r#"until [ "$(cat /proc/$$/oom_score_adj)" = 500 ]; do sleep 0.02; done; env > {dir}env; printf '%s\n' "$@" > {dir}argv; pwd > {dir}cwd
{TWO}
echo '{{"name":"../escape"}}'
echo '{{"name":"twin-a","id":"8:acs:1_2"}}'; echo '{{"name":"twin-b","id":"8:acs:1_2"}}'"#
    ));
    let mut daemon = Daemon::launch(&harness.config, &[("CANARY", "of-the-daemon")]);
    daemon.ready().await;
    harness.stage.there("anna").await;
    harness.stage.there("bert").await;

    let environment = fs::read_to_string(harness.stage.path("env")).unwrap();
    let mut names: Vec<&str> = environment
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        // What the shell sets for itself.
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["PATH"], "{environment}");
    let argv = fs::read_to_string(harness.stage.path("argv")).unwrap();
    assert_eq!(argv, "first\n$HOME *\n", "no shell reads them");
    assert_eq!(
        fs::read_to_string(harness.stage.path("cwd")).unwrap(),
        "/\n"
    );

    let tried = harness.source(&["test", "directory"]);
    assert_eq!(tried.status.code(), Some(4));
    let told = text(&tried);
    for line in [
        "5 rows; 0 new, 0 changed, 0 no longer listed, 2 as before, 3 refused",
        "name \"../escape\" is not valid",
        "the id 8:acs:1_2 stands under more than one name: twin-a, twin-b",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    assert_eq!(harness.listed()["refused"], 3);
    assert!(!harness.stage.path("escape.json").exists());
    let files = fs::read_dir(harness.stage.path("tokens")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["anna.json", "bert.json"]);
}

#[tokio::test]
async fn a_program_that_fails_keeps_its_last_good_list_and_has_a_reason() {
    let harness = Harness::new();
    harness.program(TWO);
    let _daemon = Daemon::start(&harness.config).await;
    harness.stage.there("bert").await;
    let pids = harness.stage.path("pids");
    let hangs = format!(
        "sleep 600 & echo $! > {0}.new; echo $$ >> {0}.new; mv {0}.new {0}; sleep 600",
        pids.display()
    );
    for (script, word) in [
        ("echo no database >&2; exit 3", "no database"),
        ("echo '{\"name\":\"anna\"}'; exit 1", "exit status: 1"),
        (
            "echo this is no JSON",
            "not one of its 1 rows can be an identity",
        ),
        ("exit 0", "empty"),
        (&*hangs, "took longer than 1 s"),
    ] {
        harness.program(script);
        let lapsed = harness.lapsed(word).await;
        assert_eq!(lapsed["identities"], 2, "{script}");
        for name in ["anna", "bert"] {
            assert_eq!(harness.state(name), "active", "{script}");
        }
    }
    // What the program had started ended with it.
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        harness.program(TWO);
        until("the end of what the program started", || !is_alive(pid)).await;
    }
    harness.good_again().await;
    let calls = harness.emulator.control("GET", "stats", None).await;
    assert!(!calls.to_string().contains("\"delete\":1"), "{calls}");
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let harness = Harness::new();
    let pids = harness.stage.path("pids");
    harness.program(&format!(
        "(exec >/dev/null 2>&1; sleep 600 & echo $! > {0}.new; mv {0}.new {0}); {TWO}",
        pids.display()
    ));
    let _daemon = Daemon::start(&harness.config).await;
    harness.stage.there("bert").await;
    let pid = fs::read_to_string(&pids).unwrap();
    harness.program(TWO);
    until("the end of what outlived the program", || !is_alive(&pid)).await;
}

#[tokio::test]
async fn a_source_that_is_no_longer_configured_keeps_its_identities_until_a_person_lets_them_go() {
    let harness = Harness::new();
    harness.program(TWO);
    let daemon = Daemon::start(&harness.config).await;
    harness.stage.there("anna").await;
    harness.stage.there("bert").await;
    assert!(daemon.stop().success());
    let config = fs::read_to_string(&harness.config).unwrap();
    let without = config.split("\n[[source.exec]]").next().unwrap();
    fs::write(&harness.config, without).unwrap();
    let _daemon = Daemon::start(&harness.config).await;

    let lapsed = harness.lapsed("no longer configured").await;
    assert_eq!(
        (&lapsed["name"], &lapsed["identities"]),
        (&"directory".into(), &2.into())
    );
    let refused = harness.source(&["apply", "directory"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(
        text(&refused).contains("it is no longer configured"),
        "{}",
        text(&refused)
    );
    assert_eq!(harness.state("anna"), "active");

    let applied = harness.source(&["apply", "directory", "--yes"]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied));
    assert!(
        text(&applied).contains("2 no longer listed"),
        "{}",
        text(&applied)
    );
    for name in ["anna", "bert"] {
        assert_eq!(harness.state(name), "held", "withheld, not deleted");
    }
    let listed = harness.source(&["list"]);
    assert!(!text(&listed).contains("directory"), "{}", text(&listed));
}
