//! A campaign over thousands of identities, as processes: at the limit, with failures for good, killed
//! three times. Every identity is acknowledged at least once and reported exactly once, ACS never
//! says 429, renewals beside it miss nothing, and the quarantine holds exactly what failed.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities, soak};

/// The limits of ACS, scaled up 12 times and in windows of a third, so that the thousands of a test fill several.
const ACS: [&str; 8] = [
    "--token-alg",
    "filler",
    "--limit",
    "issue=4000/10s",
    "--limit",
    "create_with_token=20000/30s",
    "--limit",
    "revoke=2000/10s",
];
const LIMITS: &str =
    "limits = { issue = \"4000/10s\", create_with_token = \"20000/30s\", revoke = \"2000/10s\" }\n";
/// One of so many fails for good.
const POISONED: usize = 100;

fn renewd(stage: &Stage, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(RENEWD)
        .args(args)
        .arg("--socket")
        .arg(stage.path("renewd.sock"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn asked(stage: &Stage, args: &[&str]) -> Value {
    let (code, out, err) = renewd(stage, args);
    assert_eq!(code, Some(0), "{args:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
}

/// Waits until the store counts so many identities with a token.
async fn active(stage: &Stage, daemon: &Daemon, count: usize) {
    loop {
        let status = daemon.status(&stage.path("renewd.sock"));
        let active = status["counts"]["identities"]["contoso"]["active"].as_u64();
        if active == Some(count as u64) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn campaign(stage: &Stage, id: &str) -> Value {
    asked(stage, &["campaign", "show", id, "--json"])
}

/// Waits until less than this share of the items is pending.
async fn below(stage: &Stage, id: &str, share: f64) {
    loop {
        let told = campaign(stage, id);
        let number = |name: &str| told[name].as_f64().unwrap();
        if told["state"] != "freezing" && number("pending") <= share * number("total") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Names and ids of all identities.
fn ids(stage: &Stage) -> BTreeMap<String, String> {
    let listed = asked(stage, &["identity", "list", "--json"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = listed["identities"].as_array().unwrap().iter();
    all.map(|one| (text(&one["name"]), text(&one["id"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_revoked_at_the_limit_over_three_kills() {
    let count = if soak() { 50_000 } else { 5_000 };
    let emulator = Emulator::start(&ACS);
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config()
            + LIMITS
            + &stage.sinks_config(None)
            + &identities("guest", count, &[])),
    );
    let mut daemon = Daemon::start(&config).await;
    active(&stage, &daemon, count).await;
    let ids = ids(&stage);
    let poisoned: Vec<&String> = ids.values().step_by(POISONED).collect();
    for id in &poisoned {
        let fault = json!({"kind": "status", "status": 400, "operation": "revoke", "id": id});
        emulator.control("POST", "faults", Some(fault)).await;
    }
    emulator.control("DELETE", "stats", None).await;

    let select = ["--select", "name ~ 'guest-*'", "--reason", "drill"];
    let plan = asked(
        &stage,
        &[&["revoke", "--dry-run", "--json"][..], &select].concat(),
    );
    assert_eq!(plan["total"], count);
    let (code, _, err) = renewd(&stage, &[&["revoke"][..], &select].concat());
    assert_eq!(code, Some(2), "nobody is there to say yes: {err}");
    let args = [&["revoke", "--yes", "--detach", "--json"][..], &select].concat();
    let id = asked(&stage, &args)["id"].to_string();
    for share in [0.8, 0.5, 0.2] {
        below(&stage, &id, share).await;
        daemon.kill();
        daemon = Daemon::start(&config).await;
    }
    let (code, out, err) = renewd(&stage, &["campaign", "watch", &id]);
    assert_eq!(code, Some(4), "done with failures: {out}{err}");
    finished(&stage, &emulator, &id, count, &poisoned).await;
    drop(daemon);
}

/// What the report, ACS and the audit trail say in the end.
async fn finished(
    stage: &Stage,
    emulator: &Emulator,
    id: &str,
    count: usize,
    poisoned: &[&String],
) {
    let told = campaign(stage, id);
    assert_eq!(told["state"], "done with failures", "{told}");
    assert_eq!(told["failed"], poisoned.len(), "{told}");
    assert_eq!(told["done"], count - poisoned.len(), "{told}");

    let (_, lines, _) = renewd(stage, &["campaign", "report", id, "--format", "jsonl"]);
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["name"].as_str().unwrap().to_owned();
        assert!(
            seen.insert(name.clone(), line).is_none(),
            "{name} is there twice"
        );
    }
    assert_eq!(seen.len(), count);
    for (name, line) in &seen {
        let failed = poisoned.iter().any(|id| line["id"] == id.as_str());
        assert_eq!(
            line["state"],
            if failed { "failed" } else { "done" },
            "{line}"
        );
        assert_eq!(failed, line["acknowledged_at"].is_null(), "{name}: {line}");
        assert_eq!(failed, line["gap_ms"].is_null(), "{name}: {line}");
        assert!(line["request_id"].is_string(), "{name}: {line}");
    }
    let (_, quarantine, _) = renewd(
        stage,
        &["campaign", "report", id, "--failed", "--format", "jsonl"],
    );
    assert_eq!(quarantine.lines().count(), poisoned.len());

    let stats = emulator.control("GET", "stats", None).await;
    let revoke = &stats["operations"]["revoke"];
    assert_eq!(stats["operations"]["issue"]["throttled"], 0, "{stats}");
    assert_eq!(revoke["throttled"], 0, "{stats}");
    let sealed = sealed(stage, id).await;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(lines.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sealed, digest, "the hash is that of the report");
    let (_, trail, _) = renewd(stage, &["audit", "export", "--without-renewals"]);
    assert!(trail.contains(&digest), "and it stands in the trail");
}

/// Waits until the campaign's report is sealed, which follows its end; its hash.
async fn sealed(stage: &Stage, id: &str) -> String {
    loop {
        if let Some(sha256) = campaign(stage, id)["report_sha256"].as_str() {
            return sha256.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
