//! The daemon under fire, as processes: faults of every kind at ACS and an outage, and `kill -9` at
//! random moments. At every sampled instant every file holds a token that ACS says is live; versions
//! never go backwards; at the end every sink holds the newest.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, Receiver, Stage, identities, soak};

/// Tokens of 20 s. 200 of them need 20 renewals a second and some more under faults, so the limit is
/// a raised one, at ACS and in the configuration.
const ACS: [&str; 6] = [
    "--token-ttl",
    "20s",
    "--token-alg",
    "es256",
    "--limit",
    "issue=2000/30s",
];
const LIMITS: &str = "limits = { issue = \"2000/30s\" }\n";

struct Watch<'a> {
    stage: &'a Stage,
    emulator: &'a Emulator,
    names: Vec<String>,
    versions: BTreeMap<String, u64>,
    samples: usize,
}

impl<'a> Watch<'a> {
    fn new(stage: &'a Stage, emulator: &'a Emulator, prefix: &str, count: usize) -> Self {
        let names = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        Self {
            stage,
            emulator,
            names,
            versions: BTreeMap::new(),
            samples: 0,
        }
    }

    /// Every file is whole, its version did not go back, and its token is live by ACS's word.
    async fn sample(&mut self) {
        let documents: Vec<Value> = self
            .names
            .iter()
            .map(|name| {
                self.stage
                    .document(name)
                    .unwrap_or_else(|| panic!("{name} has no file"))
            })
            .collect();
        for (name, document) in self.names.iter().zip(&documents) {
            let version = document["version"].as_u64().unwrap();
            let before = self.versions.insert(name.clone(), version).unwrap_or(0);
            assert!(
                version >= before,
                "{name}: version {version} after {before}"
            );
        }
        let tokens: Vec<&Value> = documents
            .iter()
            .map(|document| &document["token"])
            .collect();
        let judged = self
            .emulator
            .control("POST", "tokens", Some(json!({ "tokens": tokens })))
            .await;
        for (name, verdict) in self.names.iter().zip(judged["results"].as_array().unwrap()) {
            assert_eq!(
                verdict["live"],
                true,
                "sample {}: {name}: {verdict}\n{}",
                self.samples,
                self.stage.explain(name)
            );
        }
        self.samples += 1;
    }

    async fn sample_for(&mut self, length: Duration) {
        let end = std::time::Instant::now() + length;
        while std::time::Instant::now() < end {
            self.sample().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every identity has a file.
    async fn all_there(&self) {
        for name in &self.names {
            self.stage.there(name).await;
        }
    }
}

async fn faults(emulator: &Emulator) {
    for (n, fault) in [
        json!({"kind": "status", "status": 429, "retry_after": 1, "count": 3}),
        json!({"kind": "status", "status": 500, "probability": 0.05}),
        json!({"kind": "reset", "probability": 0.05}),
        json!({"kind": "hang", "probability": 0.02}),
        json!({"kind": "malformed", "operation": "issue", "probability": 0.04}),
        json!({"kind": "truncated", "operation": "issue", "probability": 0.04}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut fault = fault;
        fault["seed"] = json!(n + 1);
        emulator.control("POST", "faults", Some(fault)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_holds_a_live_token_under_faults_and_an_outage() {
    let (count, rounds) = if soak() { (200, 3) } else { (200, 1) };
    let emulator = Emulator::start(&ACS);
    let receiver = Receiver::start().await;
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config()
            + LIMITS
            + &stage.sinks_config(Some(&receiver))
            + &identities("bot", count, &["files", "hook"])),
    );
    let daemon = Daemon::start(&config).await;
    let mut watch = Watch::new(&stage, &emulator, "bot", count);
    watch.all_there().await;
    for _ in 0..rounds {
        faults(&emulator).await;
        watch.sample_for(Duration::from_secs(20)).await;
        // Half a life is 10 s, so an outage of 5 s is survived from a fleet in good health.
        emulator.control("DELETE", "faults", None).await;
        watch.sample_for(Duration::from_secs(5)).await;
        let outage = json!({"kind": "outage"});
        emulator.control("POST", "faults", Some(outage)).await;
        watch.sample_for(Duration::from_secs(5)).await;
        emulator.control("DELETE", "faults", None).await;
        watch.sample_for(Duration::from_secs(5)).await;
        faults(&emulator).await;
        watch.sample_for(Duration::from_secs(25)).await;
        emulator.control("DELETE", "faults", None).await;
    }
    assert!(watch.samples > 100, "only {} samples", watch.samples);
    assert!(daemon.stop().success());
    let received = receiver.received.lock().unwrap();
    assert_eq!(received.wrong, Vec::<String>::new());
    assert!(
        received.types["renewd.token.renewed"] >= count as u64,
        "{:?}",
        received.types
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_loses_nothing() {
    kills(if soak() { 50 } else { 10 }).await;
}

async fn kills(kills: usize) {
    let count = 100;
    let emulator = Emulator::start(&ACS);
    let receiver = Receiver::start().await;
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config()
            + LIMITS
            + &stage.sinks_config(Some(&receiver))
            + &identities("bot", count, &["files", "hook"])),
    );
    let mut watch = Watch::new(&stage, &emulator, "bot", count);
    let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    // The first kills fall into the creation of the identities.
    for _ in 0..kills.min(4) {
        let daemon = Daemon::launch(&config, &[]);
        tokio::time::sleep(Duration::from_millis(chance.random_range(30..400))).await;
        daemon.kill();
    }
    let daemon = Daemon::start(&config).await;
    watch.all_there().await;
    daemon.kill();
    faults(&emulator).await;
    for _ in 0..kills.saturating_sub(5) {
        let daemon = Daemon::start(&config).await;
        watch
            .sample_for(Duration::from_millis(chance.random_range(0..3000)))
            .await;
        daemon.kill();
        watch.sample().await;
    }
    emulator.control("DELETE", "faults", None).await;
    let mut daemon = Daemon::start(&config).await;
    settled(&stage, &receiver, &watch.names).await;
    watch.sample().await;
    account_for_every_identity(&emulator, &stage, &mut daemon, count).await;
    assert!(daemon.stop().success());
    assert_eq!(
        receiver.received.lock().unwrap().wrong,
        Vec::<String>::new()
    );
}

/// Waits until every sink holds the same version as the store's newest file.
async fn settled(stage: &Stage, receiver: &Receiver, names: &[String]) {
    for name in names {
        loop {
            let file = stage
                .document(name)
                .map(|document| document["version"].clone());
            let hook = receiver
                .received
                .lock()
                .unwrap()
                .newest
                .get(name)
                .map(|e| e["data"]["version"].clone());
            if file.is_some() && file == hook {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// No identity was created in silence: what ACS created and no row holds is listed as an orphan.
async fn account_for_every_identity(
    emulator: &Emulator,
    stage: &Stage,
    daemon: &mut Daemon,
    count: usize,
) {
    let created = emulator.control("GET", "stats", None).await["identities"]["created"]
        .as_u64()
        .unwrap();
    let status = daemon.status(&stage.path("renewd.sock"));
    let orphans = status["counts"]["orphans"].as_u64().unwrap();
    let unknown = created - count as u64;
    assert!(
        unknown <= orphans,
        "{unknown} identities nobody knows, but only {orphans} possible orphans are listed"
    );
}
