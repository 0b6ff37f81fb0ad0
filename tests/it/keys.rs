//! Replacing an access key: no consumer is without a live token while it is rolled, and whoever stole
//! it is out. The word on every token is the emulator's, which kills what a regenerated key minted.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::stage::{Daemon, Emulator, RENEWD, Receiver, Stage, identities, until};

/// A resource with two keys, a fleet, a receiver.
struct Harness {
    stage: Stage,
    emulator: Emulator,
    receiver: Receiver,
    config: std::path::PathBuf,
    count: usize,
}

impl Harness {
    async fn new(count: usize) -> Self {
        Self::of(count, &["--limit", "all=off", "--token-alg", "filler"]).await
    }

    /// With these options of the emulator.
    async fn of(count: usize, options: &[&str]) -> Self {
        Self::paced(count, options, "60000/30s").await
    }

    /// With this limit of issuing as well.
    async fn paced(count: usize, options: &[&str], issue: &str) -> Self {
        let emulator = Emulator::start(options);
        let stage = Stage::new(&emulator);
        let receiver = Receiver::start().await;
        let keys = emulator.control("GET", "keys", None).await;
        let secondary = keys["secondary"]["key"].as_str().unwrap();
        stage.write_private("secondary.cs", &connection_string(&emulator, secondary));
        let dir = stage.path("");
        let dir = dir.display();
        let text = format!(
            "{}secondary_connection_string = {{ file = \"{dir}secondary.cs\" }}\n\
             limits = {{ issue = \"{issue}\", create_with_token = \"60000/30s\" }}\nmax_in_flight = 64\n{}{}",
            stage.base_config(),
            stage.sinks_config(Some(&receiver)),
            identities("bot", count, &["hook"])
        );
        let config = stage.configure(&text);
        Self {
            stage,
            emulator,
            receiver,
            config,
            count,
        }
    }

    /// Waits until every consumer holds a token.
    async fn all_delivered(&self) {
        until("a token at every consumer", || {
            self.tokens().len() >= self.count
        })
        .await;
    }

    /// The newest token that each consumer holds.
    fn tokens(&self) -> Vec<String> {
        tokens(&self.receiver)
    }

    fn renewd(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(RENEWD)
            .args(args)
            .arg("--socket")
            .arg(self.stage.path("renewd.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Runs a command that must end with 0; what it printed.
    fn done(&self, args: &[&str], input: &str) -> String {
        let output = self.renewd(args, input);
        assert!(
            output.status.success(),
            "{args:?}: {}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.stage.explain("bot-0")
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        let shown = self.done(&["key", "status", "contoso", "--json"], "");
        serde_json::from_str(&shown).unwrap()
    }

    /// Waits until the newest replacement is in a stage.
    async fn reached(&self, stage: &str) -> Value {
        loop {
            let status = self.status();
            let change = &status["resources"][0]["change"];
            if change["stage"] == stage {
                return status;
            }
            assert_ne!(change["stage"], "refused", "{change}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn regenerate(&self, role: &str) -> String {
        let keys = self
            .emulator
            .control("PUT", "keys", Some(json!({"regenerate": role})))
            .await;
        let key = keys[role]["key"].as_str().unwrap();
        connection_string(&self.emulator, key)
    }

    /// A token that somebody mints outside renewd with a key that they have.
    fn stolen(&self, connection_string: &str) -> String {
        let output = Command::new(RENEWD)
            .args(["acs", "create-user-with-token", "--json"])
            .env(
                "COMMUNICATION_SERVICES_CONNECTION_STRING",
                connection_string,
            )
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        answer["token"].as_str().unwrap().to_owned()
    }

    async fn dead(&self, tokens: Vec<String>) -> Vec<Value> {
        dead(&self.emulator, tokens).await
    }

    fn put_in_place(&self, role: &str, connection_string: &str) {
        let config = self.config.display().to_string();
        let set = ["key", "set", "contoso", "--key", role, "--config", &config];
        self.done(&set, connection_string);
    }
}

fn connection_string(emulator: &Emulator, key: &str) -> String {
    format!("endpoint={}/;accesskey={key}", emulator.endpoint)
}

fn tokens(receiver: &Receiver) -> Vec<String> {
    let received = receiver.received.lock().unwrap();
    assert!(received.wrong.is_empty(), "{:?}", received.wrong);
    let token = |event: &Value| event["data"]["token"].as_str().map(str::to_owned);
    received.newest.values().filter_map(token).collect()
}

async fn dead(emulator: &Emulator, tokens: Vec<String>) -> Vec<Value> {
    let judged = emulator
        .control("POST", "tokens", Some(json!({ "tokens": tokens })))
        .await;
    let results = judged["results"].as_array().unwrap();
    assert_eq!(results.len(), tokens.len());
    results
        .iter()
        .filter(|verdict| verdict["live"] != true)
        .cloned()
        .collect()
}

/// Between two looks at every token that a consumer holds. A token dies with a regeneration alone, and
/// there each drill looks by itself; so looking more often would find no more.
const LOOK: Duration = Duration::from_millis(400);

/// Polls every delivered token while `drill` runs; how often.
async fn while_checked<T>(harness: &Arc<Harness>, drill: impl Future<Output = T>) -> (T, u32) {
    let over = Arc::new(AtomicBool::new(false));
    let checker = tokio::spawn({
        let (harness, over) = (harness.clone(), over.clone());
        async move {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                let dead = harness.dead(harness.tokens()).await;
                assert!(
                    dead.is_empty(),
                    "round {rounds}: {} dead, {:?}",
                    dead.len(),
                    dead[0]
                );
                rounds += 1;
                tokio::time::sleep(LOOK).await;
            }
            rounds
        }
    });
    let done = drill.await;
    over.store(true, Ordering::Relaxed);
    (done, checker.await.unwrap())
}

/// A blocking command beside the checker.
async fn beside(harness: &Arc<Harness>, args: &'static [&'static str]) -> String {
    let harness = harness.clone();
    tokio::task::spawn_blocking(move || harness.done(args, ""))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_survives_a_kill_and_nobody_is_ever_without_a_live_token() {
    let harness = Arc::new(Harness::new(300).await);
    let daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;

    // Slow enough that the kill comes in the middle.
    let slow = json!({"kind": "delay", "operation": "issue", "delay_ms": 1000});
    harness.emulator.control("POST", "faults", Some(slow)).await;
    let (daemon, rounds) = while_checked(&harness, async {
        let asked = beside(&harness, &["key", "status", "contoso"]).await;
        assert!(asked.contains("300 tokens"), "{asked}");
        let mut rolling = Command::new(RENEWD)
            .args(["key", "roll", "contoso", "--yes", "--socket"])
            .arg(harness.stage.path("renewd.sock"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        harness.reached("reminting").await;
        daemon.kill();
        rolling.kill().unwrap();
        rolling.wait().unwrap();
        harness.emulator.control("DELETE", "faults", None).await;
        let daemon = Daemon::start(&harness.config).await;
        let ready = harness.reached("regenerate").await;
        let change = &ready["resources"][0]["change"];
        assert_eq!(change["delivered"], 300, "{change}");

        let new = harness.regenerate("primary").await;
        assert!(
            harness.dead(harness.tokens()).await.is_empty(),
            "the old key held nobody"
        );
        harness.reached("replace").await;
        let refused = harness.renewd(
            &[
                "key",
                "set",
                "contoso",
                "--config",
                harness.config.to_str().unwrap(),
            ],
            &connection_string(&harness.emulator, "bm90LWEta2V5"),
        );
        assert_eq!(refused.status.code(), Some(1));
        harness.put_in_place("primary", &new);
        harness.reached("done").await;
        daemon
    })
    .await;
    assert!(rounds > 2, "{rounds}");
    let keys = &harness.status()["resources"][0]["keys"];
    assert_eq!(keys[1]["tokens"], 300, "{keys}");
    let trail = harness.done(&["audit", "list", "--json", "--limit", "1000"], "");
    assert!(
        trail.contains("key.roll") && trail.contains("regenerate"),
        "{trail}"
    );
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_of_five_thousand_is_closed_gracefully_and_at_once() {
    let harness = Arc::new(Harness::new(5000).await);
    let primary = harness.emulator.connection_string.clone();
    let _daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;

    // Gracefully: nobody notices, and at the end the thief is out.
    let stolen = harness.stolen(&primary);
    let (_, rounds) = while_checked(&harness, async {
        let told = beside(&harness, &["key", "leak", "contoso", "--yes", "--reason", "laptop"]).await;
        assert!(told.contains("5000 live tokens were minted by the primary key"), "{told}");
        assert!(told.contains("5000 tokens replaced and delivered"), "{told}");
        assert!(
            told.contains("az communication regenerate-key --name contoso --resource-group GROUP --key-type primary"),
            "{told}"
        );
        assert!(harness.dead(vec![stolen.clone()]).await.is_empty(), "it is not regenerated yet");
        let new = harness.regenerate("primary").await;
        assert!(harness.dead(harness.tokens()).await.is_empty(), "the old key held nobody");
        harness.put_in_place("primary", &new);
        harness.reached("done").await;
    })
    .await;
    assert!(rounds > 2, "{rounds}");
    assert_eq!(harness.dead(vec![stolen]).await.len(), 1);

    // At once: everything dies, and the report says for how long each was without.
    let secondary = std::fs::read_to_string(harness.stage.path("secondary.cs")).unwrap();
    let stolen = harness.stolen(&secondary);
    let before = harness.tokens();
    harness.regenerate("secondary").await;
    assert_eq!(harness.dead(vec![stolen]).await.len(), 1);
    assert_eq!(harness.dead(before).await.len(), 5000);
    let told = beside(
        &harness,
        &[
            "key",
            "leak",
            "contoso",
            "--now",
            "--key",
            "secondary",
            "--yes",
            "--json",
        ],
    )
    .await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["gaps"]["identities"], 5000, "{told}");
    assert_eq!(told["gaps"]["with_a_gap"], 5000, "{told}");
    let longest = told["gaps"]["longest_ms"].as_u64().unwrap();
    assert!(longest >= told["gaps"]["median_ms"].as_u64().unwrap() && longest > 0);
    assert!(harness.dead(harness.tokens()).await.is_empty());
    let listed = harness.done(&["key", "status", "contoso", "--identities", "--json"], "");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let items = listed["identities"].as_array().unwrap();
    assert_eq!(items.len(), 5000);
    assert!(
        items
            .iter()
            .all(|item| item["gap_ms"].as_u64().is_some_and(|gap| gap <= longest))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replaced_is_refused_and_changes_nothing() {
    let harness = Harness::new(3).await;
    let _daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    let unconfirmed = harness.renewd(&["key", "roll", "contoso"], "");
    assert_eq!(unconfirmed.status.code(), Some(2));
    let unknown = harness.renewd(&["key", "roll", "fabrikam", "--yes"], "");
    assert_eq!(unknown.status.code(), Some(1));

    // The other key does not work: nothing is begun with it.
    harness.regenerate("secondary").await;
    let refused = harness.renewd(&["key", "roll", "contoso", "--yes"], "");
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        told.contains("the secondary key is refused, so nothing was changed"),
        "{told}"
    );
    let status = harness.status();
    assert_eq!(status["resources"][0]["in_use"], "primary");
    assert_eq!(status["resources"][0]["keys"][0]["tokens"], 3);
    assert!(harness.dead(harness.tokens()).await.is_empty());
}

/// The tokens that the socket hands out now, of those that it has.
fn served(harness: &Harness) -> Vec<String> {
    (0..harness.count)
        .filter_map(|n| {
            let output = harness.renewd(&["token", &format!("bot-{n}")], "");
            let text = String::from_utf8(output.stdout).unwrap();
            output.status.success().then(|| text.trim().to_owned())
        })
        .collect()
}

/// Waits until something is so, at most so long.
async fn eventually(within: Duration, what: &str, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < within, "waited {within:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

/// Whether the socket says of any of the first identities that its token is doubtful.
async fn is_any_doubtful(harness: &Harness, count: usize) -> bool {
    for number in 0..count {
        let said = head(harness, &format!("bot-{number}")).await;
        if said.contains("x-renewd-standing: doubtful") {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_regenerated_by_hand_leaves_nobody_dead_for_long() {
    let options = [
        "--limit",
        "all=off",
        "--token-alg",
        "filler",
        "--token-ttl",
        "200s",
    ];
    let harness = Harness::of(60, &options).await;
    let _daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    // Slow enough that what is going on can be seen on a busy machine.
    let slow = json!({"kind": "delay", "operation": "issue", "delay_ms": 4000});
    harness.emulator.control("POST", "faults", Some(slow)).await;
    harness.regenerate("primary").await;
    assert_eq!(harness.dead(harness.tokens()).await.len(), 60);

    // The first refusal: an ordinary call.
    harness.done(&["renew", "bot-0", "--detach"], "");
    eventually(Duration::from_secs(20), "status says so", async || {
        harness.done(&["status"], "").contains("may be dead")
    })
    .await;
    assert!(
        is_any_doubtful(&harness, 60).await,
        "not all are minted anew by now"
    );
    let shown = harness.done(&["key", "status", "contoso"], "");
    assert!(shown.contains("may be dead"), "{shown}");
    let doctor = harness.renewd(&["doctor"], "");
    let doctor_says = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1), "{doctor_says}");
    assert!(doctor_says.contains("may be dead"), "{doctor_says}");
    harness.emulator.control("DELETE", "faults", None).await;
    eventually(Duration::from_secs(10), "all consumers live", async || {
        harness.dead(harness.tokens()).await.is_empty()
    })
    .await;
    let served = served(&harness);
    assert_eq!(served.len(), 60);
    assert!(harness.dead(served).await.is_empty());
    eventually(
        Duration::from_secs(10),
        "nothing needs anybody",
        async || !harness.done(&["status"], "").contains("may be dead"),
    )
    .await;
    let told = harness.done(&["audit", "list", "--json", "--limit", "5"], "");
    assert!(told.contains("bot-"), "{told}");

    // The new key is put into its place without a word, as a symlink is turned.
    let new = harness.emulator.control("GET", "keys", None).await;
    let new = connection_string(&harness.emulator, new["primary"]["key"].as_str().unwrap());
    harness.stage.write_private("next.cs", &new);
    let place = harness.stage.path("contoso.cs");
    std::os::unix::fs::symlink(harness.stage.path("next.cs"), harness.stage.path("turned"))
        .unwrap();
    std::fs::rename(harness.stage.path("turned"), &place).unwrap();
    eventually(
        Duration::from_secs(20),
        "the new key is taken up",
        async || harness.status()["resources"][0]["keys"][0]["standing"] == "accepted",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_key_that_is_no_longer_configured_are_minted_anew_by_a_start_and_a_reload() {
    let harness = Harness::new(20).await;
    let daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    assert!(daemon.stop().success());
    let new = harness.regenerate("primary").await;
    harness.stage.write_private("contoso.cs", &new);
    let daemon = Daemon::start(&harness.config).await;
    eventually(Duration::from_secs(10), "all consumers live", async || {
        harness.dead(harness.tokens()).await.is_empty()
    })
    .await;
    let log = std::fs::read_to_string(harness.stage.path("daemon.log")).unwrap();
    assert!(
        log.contains("no longer configured") && log.contains("20"),
        "{log}"
    );

    // While it runs, by the command that puts a key in its place.
    eventually(
        Duration::from_secs(10),
        "all is said to be well",
        async || harness.status()["resources"][0]["doubts"] == json!([]),
    )
    .await;
    let new = harness.regenerate("primary").await;
    let config = harness.config.display().to_string();
    let told = harness.done(&["key", "set", "contoso", "--config", &config], &new);
    assert!(
        told.contains("20 tokens of contoso minted by an access key"),
        "{told}"
    );
    eventually(Duration::from_secs(10), "all consumers live", async || {
        harness.dead(harness.tokens()).await.is_empty()
    })
    .await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_key_works_that_is_said_first_and_a_key_in_its_place_mends_all() {
    let harness = Harness::new(10).await;
    let daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    harness.regenerate("secondary").await;
    let new = harness.regenerate("primary").await;
    harness.done(&["renew", "bot-0", "--detach"], "");
    let said_first = async || {
        let status = harness.done(&["status"], "");
        let mut wrong = status.lines().filter(|line| line.contains('!'));
        wrong
            .next()
            .is_some_and(|line| line.contains("no access key works"))
    };
    let soon = Duration::from_secs(20);
    eventually(soon, "it is said first", said_first).await;
    // The next process finds it out as well.
    assert!(daemon.stop().success());
    let _daemon = Daemon::start(&harness.config).await;
    eventually(soon, "it is said first after a restart", said_first).await;
    harness.stage.write_private("contoso.cs", &new);
    eventually(Duration::from_secs(25), "all consumers live", async || {
        harness.dead(harness.tokens()).await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_closed_at_once_at_full_pace_draws_no_429() {
    let options = [
        "--limit",
        "all=off",
        "--limit",
        "issue=60/2s",
        "--token-alg",
        "filler",
    ];
    let harness = Harness::paced(240, &options, "60/2s").await;
    let _daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    harness.emulator.control("DELETE", "stats", None).await;
    let began = Instant::now();
    let told = beside_regenerating(&harness).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["gaps"]["identities"], 240, "{told}");
    assert!(harness.dead(harness.tokens()).await.is_empty());
    let stats = harness.emulator.control("GET", "stats", None).await;
    let issues = &stats["operations"]["issue"];
    assert_eq!(issues["throttled"], 0, "{stats}");
    assert!(issues["calls"].as_u64().unwrap() >= 240, "{stats}");
    // Proofs are calls like others: together they keep to the pace, and use it.
    assert!(began.elapsed() >= Duration::from_secs(5), "{stats}");
}

/// Closes a leak of the primary key at once, which is regenerated as it is asked for.
async fn beside_regenerating(harness: &Harness) -> String {
    harness.regenerate("primary").await;
    harness.done(&["key", "leak", "contoso", "--now", "--yes", "--json"], "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_regenerated_in_the_middle_of_a_roll_is_not_called_a_roll_without_gaps() {
    let harness = Arc::new(Harness::new(60).await);
    let _daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    // The new tokens come one second later, so that some are still old when the key dies.
    let slow = json!({"kind": "delay", "operation": "issue", "delay_ms": 3000});
    harness.emulator.control("POST", "faults", Some(slow)).await;
    let rolling = tokio::spawn({
        let harness = harness.clone();
        async move { beside(&harness, &["key", "roll", "contoso", "--yes"]).await }
    });
    harness.reached("reminting").await;
    harness.regenerate("primary").await;
    let dead = harness.dead(harness.tokens()).await;
    assert!(
        !dead.is_empty(),
        "nobody held a token of the old key any more"
    );
    let told = rolling.await.unwrap();
    assert!(
        !told.contains("No consumer was without a live token"),
        "{told}"
    );
    let gaps = &harness.status()["gaps"];
    let (with, unknown) = (gaps["with_a_gap"].as_u64(), gaps["unknown"].as_u64());
    assert!(
        with >= Some(dead.len() as u64),
        "{with:?} of {}: {gaps}",
        dead.len()
    );
    assert!(
        told.contains("were without a live token") || unknown > Some(0),
        "{told}{gaps}"
    );
}

/// What the socket answers to whoever asks for a token, without the token.
async fn head(harness: &Harness, name: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = harness.stage.path("renewd.sock");
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "GET /v1/tokens/{name} HTTP/1.1\r\nHost: renewd\r\nX-Renewd-Client: test\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_roll_or_a_leak_waits_through_a_restart() {
    for work in ["roll", "leak"] {
        let harness = Harness::new(20).await;
        let daemon = Daemon::start(&harness.config).await;
        harness.all_delivered().await;
        let slow = json!({"kind": "delay", "operation": "issue", "delay_ms": 1000});
        harness.emulator.control("POST", "faults", Some(slow)).await;
        let mut follower = tokio::process::Command::new(RENEWD)
            .args(["key", work, "contoso", "--yes", "--socket"])
            .arg(harness.stage.path("renewd.sock"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        harness.reached("reminting").await;
        daemon.kill();
        let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
        let waits = async {
            while let Some(line) = said.next_line().await.unwrap() {
                if line.contains("waiting until it is back") {
                    return true;
                }
            }
            false
        };
        let waits = tokio::time::timeout(Duration::from_secs(30), waits).await;
        assert_eq!(waits, Ok(true), "{work}: the follower says that it waits");
        harness.emulator.control("DELETE", "faults", None).await;
        let _daemon = Daemon::start(&harness.config).await;
        let ended = tokio::time::timeout(Duration::from_secs(60), follower.wait_with_output());
        let ended = ended.await.expect("the follower ends").unwrap();
        let told = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{work}: {told}");
        let over = told.contains("20 tokens replaced and delivered");
        assert!(over, "{work}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_does_not_move_is_left_to_the_daemon_with_6() {
    let harness = Harness::new(1).await;
    let daemon = Daemon::start(&harness.config).await;
    harness.all_delivered().await;
    let outage = json!({"kind": "outage"});
    harness
        .emulator
        .control("POST", "faults", Some(outage))
        .await;
    let roll = ["key", "roll", "contoso", "--yes", "--timeout", "1s"];
    let output = harness.renewd(&roll, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    let goes_on = "it is not done after 1s: the replacement goes on in the daemon";
    assert!(said.contains(goes_on), "{said}");
    assert!(daemon.stop().success());
}
