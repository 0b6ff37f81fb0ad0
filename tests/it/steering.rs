//! Campaigns steered by an operator: paused, resumed, cancelled, tried again, over restarts.

use std::process::Command;

use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities, until};

/// With this no more than three of them are revoked in ten minutes.
const NARROW: &str = "limits = { revoke = \"4/10m\" }\n";
const GUESTS: usize = 8;

struct World {
    emulator: Emulator,
    stage: Stage,
    daemon: Option<Daemon>,
}

impl World {
    async fn new(limits: &str) -> Self {
        let emulator = Emulator::start(&["--token-alg", "filler"]);
        let stage = Stage::new(&emulator);
        let guests = identities("guest", GUESTS, &[]);
        stage.configure(&(stage.base_config() + limits + &guests));
        let mut world = Self {
            emulator,
            stage,
            daemon: None,
        };
        world.restart().await;
        for n in 0..GUESTS {
            world.done(&["wait", &format!("guest-{n}")]);
        }
        world
    }

    async fn restart(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            assert!(daemon.stop().success());
        }
        self.daemon = Some(Daemon::start(&self.stage.path("renewd.toml")).await);
    }

    /// A verb's exit code and what it printed on standard output.
    fn renewd(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(RENEWD)
            .args(arguments)
            .env("RENEWD_SOCKET", self.stage.path("renewd.sock"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }

    /// What a verb printed that must succeed.
    fn done(&self, arguments: &[&str]) -> String {
        let (code, printed) = self.renewd(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {printed}");
        printed
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn state(&self, id: &str) -> Value {
        self.json(&["campaign", "show", id])["state"].clone()
    }

    /// Starts a campaign and leaves it to the daemon.
    fn start(&self, arguments: &[&str]) -> String {
        let asked = [arguments, &["--yes", "--detach"]].concat();
        self.json(&asked)["id"].to_string()
    }

    /// Waits until so many items are done.
    async fn until_done(&self, id: &str, count: u64) {
        until(&format!("{count} items of campaign {id}"), || {
            self.json(&["campaign", "show", id])["done"] == count
        })
        .await;
    }

    async fn revocations(&self) -> Value {
        let stats = self.emulator.control("GET", "stats", None).await;
        stats["operations"]["revoke"]["calls"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_paused_resumed_and_cancelled_over_restarts() {
    let mut world = World::new(NARROW).await;
    let id = world.start(&["revoke", "--all"]);
    world.until_done(&id, 3).await;
    world.done(&["campaign", "pause", &id, "--reason", "lunch"]);
    assert_eq!(world.state(&id), "paused");
    world.restart().await;
    assert_eq!(world.state(&id), "paused");
    assert!(world.done(&["campaign", "list"]).contains("paused"));
    world.done(&["campaign", "resume", &id]);
    assert_eq!(world.state(&id), "running");
    world.done(&["campaign", "cancel", &id, "--reason", "wrong tenant"]);

    let (code, _) = world.renewd(&["campaign", "watch", &id]);
    assert_eq!(code, Some(4), "some were not done");
    let told = world.json(&["campaign", "show", &id]);
    assert_eq!(told["state"], "cancelled");
    assert_eq!(
        (&told["done"], &told["cancelled"]),
        (&json!(3), &json!(GUESTS - 3))
    );
    assert_eq!(world.revocations().await, 3);
    let (code, _) = world.renewd(&["campaign", "resume", &id]);
    assert_eq!(code, Some(1), "it is over");
    let trail = world.done(&["audit", "export", "--without-renewals"]);
    for word in ["lunch", "wrong tenant"] {
        assert_eq!(trail.matches(word).count(), 1, "{trail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_listed_and_tried_again() {
    let world = World::new("").await;
    let id = world.json(&["identity", "show", "guest-3"])["id"].clone();
    let fault = json!({"kind": "status", "status": 400, "operation": "revoke", "id": id});
    world.emulator.control("POST", "faults", Some(fault)).await;
    let (code, _) = world.renewd(&["revoke", "--select", "name ~ 'guest-*'", "--yes"]);
    assert_eq!(code, Some(4));
    let report = |arguments: &[&str]| {
        let lines =
            world.done(&[&["campaign", "report", "1", "--format", "jsonl"], arguments].concat());
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines
    };
    let failed = report(&["--failed"]);
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (&failed[0]["name"], &failed[0]["state"]),
        (&json!("guest-3"), &json!("failed"))
    );
    assert!(
        failed[0]["error"].as_str().unwrap().contains("400"),
        "{failed:?}"
    );

    world.emulator.control("DELETE", "faults", None).await;
    world.done(&["campaign", "retry", "1"]);
    world.done(&["campaign", "watch", "1"]);
    assert_eq!(world.state("1"), "done");
    assert!(report(&["--failed"]).is_empty());
    let all = report(&[]);
    assert_eq!(all.len(), GUESTS);
    assert!(all.iter().all(|line| line["state"] == "done"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_every_identity_says_who_asked_and_why() {
    let world = World::new("").await;
    world.done(&["renew", "--all", "--yes", "--reason", "drill"]);
    for n in 0..GUESTS {
        let name = format!("guest-{n}");
        let entries = world.json(&[
            "audit", "list", &name, "--action", "renew", "--actor", "uid 0",
        ]);
        let entries = entries["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{entries:#?}");
        assert_eq!(entries[0]["reason"], "drill");
    }
}
