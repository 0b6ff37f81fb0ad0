//! The local socket as an app's script uses it, by curl; and what the operator sees of it.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

struct World {
    _emulator: Emulator,
    stage: Stage,
    config: PathBuf,
}

impl World {
    fn new() -> Self {
        let emulator = Emulator::start(&[]);
        let stage = Stage::new(&emulator);
        let config = stage.configure(&(stage.base_config() + &identities("bot", 2, &[])));
        Self {
            _emulator: emulator,
            stage,
            config,
        }
    }

    async fn daemon(&self) -> Daemon {
        let daemon = Daemon::start(&self.config).await;
        self.renewd(&["wait", "bot-0"]);
        self.renewd(&["wait", "bot-1"]);
        daemon
    }

    fn curl(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--no-buffer", "-H", "X-Renewd-Client: my-app"])
            .arg("--unix-socket")
            .arg(self.stage.path("renewd.sock"))
            .args(arguments)
            .arg(format!("http://localhost{path}"));
        command
    }

    fn fetched(&self, arguments: &[&str], path: &str) -> String {
        let output = self.curl(arguments, path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.fetched(&[], path)).unwrap()
    }

    /// What a verb printed; it must succeed.
    fn renewd(&self, arguments: &[&str]) -> String {
        let output = Command::new(RENEWD)
            .args(arguments)
            .env("RENEWD_SOCKET", self.stage.path("renewd.sock"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn printed(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.renewd(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The version that is current.
    fn version(&self) -> u64 {
        self.json("/v1/tokens/bot-0")["version"].as_u64().unwrap()
    }

    /// Says that `my-app` uses this version; the status code.
    fn acknowledge(&self, version: u64) -> String {
        let body = format!("{{\"version\": {version}}}");
        let json = "Content-Type: application/json";
        let put = ["-X", "PUT", "-H", json, "-d", &body];
        let code = ["-o", "/dev/null", "-w", "%{http_code}"];
        self.fetched(&[put.as_slice(), &code].concat(), "/v1/tokens/bot-0/ack")
    }
}

/// A stream of server-sent events.
struct Events {
    curl: Child,
    lines: BufReader<ChildStdout>,
}

impl Events {
    fn open(world: &World, last: Option<&str>) -> Self {
        let last = last.map(|id| format!("Last-Event-ID: {id}"));
        let header: Vec<&str> = last.iter().flat_map(|last| ["-H", last]).collect();
        let mut curl = world.curl(&header, "/v1/watch?name=bot-0");
        let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap());
        Self { curl, lines }
    }

    /// The next event's id and document.
    fn next(&mut self) -> (String, Value) {
        let mut id = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "the stream ended"
            );
            if let Some(found) = line.strip_prefix("id:") {
                id = found.trim().to_owned();
            }
            if let Some(data) = line.strip_prefix("data:") {
                return (id, serde_json::from_str(data).unwrap());
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.curl.kill().ok();
        self.curl.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_every_version_and_misses_none_over_a_restart() {
    let world = World::new();
    let daemon = world.daemon().await;
    let mut events = Events::open(&world, None);
    let (_, first) = events.next();
    assert_eq!(first, world.json("/v1/tokens/bot-0"));
    world.renewd(&["renew", "bot-0"]);
    let (last, second) = events.next();
    assert!(second["version"].as_u64() > first["version"].as_u64());
    assert_ne!(second["token"], first["token"]);
    drop(events);

    // Nobody listens while the third comes, and the daemon is another one afterwards.
    world.renewd(&["renew", "bot-0"]);
    assert!(daemon.stop().success());
    let _daemon = world.daemon().await;
    let (_, third) = Events::open(&world, Some(&last)).next();
    assert_eq!(third, world.json("/v1/tokens/bot-0"));
    assert!(third["version"].as_u64() > second["version"].as_u64());
    let bare = world.fetched(&["-H", "Accept: text/plain"], "/v1/tokens/bot-0");
    assert_eq!(bare.trim_end(), third["token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_with_the_next_version() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let known = world.version();
    let match_known = format!("If-None-Match: \"{known}\"");
    let mut poll = world.curl(&["-H", &match_known], "/v1/tokens/bot-0?wait=60s");
    let poll = poll.stdout(Stdio::piped()).spawn().unwrap();
    world.renewd(&["renew", "bot-0"]);
    let answer: Value = serde_json::from_slice(&poll.wait_with_output().unwrap().stdout).unwrap();
    assert!(answer["version"].as_u64() > Some(known));
    let code = ["-H", &match_known, "-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(world.fetched(&code, "/v1/tokens/bot-0"), "200");
    let newest = format!("If-None-Match: \"{}\"", world.version());
    let code = ["-H", &newest, "-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(world.fetched(&code, "/v1/tokens/bot-0"), "304");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_which_consumers_still_use_an_old_version() {
    let world = World::new();
    let daemon = world.daemon().await;
    let old = world.version();
    assert_eq!(world.acknowledge(old), "200");
    assert_eq!(world.printed(&["status"])["behind"], Value::Array(vec![]));
    world.renewd(&["renew", "bot-0"]);
    let behind = world.printed(&["status"])["behind"].clone();
    assert_eq!(behind[0]["client"], "my-app", "{behind}");
    assert_eq!(behind[0]["version"], old);
    assert!(world.renewd(&["status"]).contains("my-app"));
    assert!(
        world
            .renewd(&["delivery", "show", "bot-0"])
            .contains("my-app")
    );

    let newest = world.version();
    assert_eq!(world.acknowledge(newest), "200");
    assert_eq!(world.acknowledge(newest + 1_000_000), "400");
    assert!(daemon.stop().success());
    let _daemon = world.daemon().await;
    assert_eq!(world.printed(&["status"])["behind"], Value::Array(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_says_who_did_what_and_who_took_tokens() {
    let world = World::new();
    let daemon = world.daemon().await;
    for _ in 0..3 {
        world.json("/v1/tokens/bot-1");
    }
    world.renewd(&["hold", "bot-0", "--reason", "laptop, \"stolen\""]);
    assert!(daemon.stop().success());
    let _daemon = Daemon::start(&world.config).await;

    let reads = world.printed(&["audit", "reads"]);
    let bot = reads["reads"].as_array().unwrap().iter();
    let taken: u64 = bot
        .filter(|row| row["name"] == "bot-1")
        .map(|row| row["count"].as_u64().unwrap())
        .sum();
    assert_eq!(taken, 4, "three by curl, one by `renewd wait`: {reads}");

    let held = world.printed(&["audit", "list", "bot-0", "--action", "hold"]);
    assert_eq!(held["entries"].as_array().unwrap().len(), 1, "{held}");
    assert_eq!(held["entries"][0]["reason"], "laptop, \"stolen\"");
    let trail = world.renewd(&["audit", "export", "--format", "csv", "--action", "hold"]);
    let mut rows = csv::Reader::from_reader(trail.as_bytes());
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 1);
    assert!(
        rows[0].iter().any(|cell| cell == "laptop, \"stolen\""),
        "{trail}"
    );
}
