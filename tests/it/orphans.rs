//! What may exist at ACS without a record: an answer comes too late for its row, and an operator
//! revokes and deletes what it brought.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

/// Exit code, standard output and standard error of a command on the daemon.
fn renewd(stage: &Stage, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(RENEWD);
    command.args(args).arg("--socket");
    let output = command.arg(stage.path("renewd.sock")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn ok(stage: &Stage, args: &[&str]) -> String {
    let (code, out, err) = renewd(stage, args);
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out
}

fn listed(stage: &Stage) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&ok(stage, &["orphan", "list", "--json"])).unwrap();
    listed["orphans"].as_array().unwrap().clone()
}

/// Waits until the list holds so many.
async fn noticed(stage: &Stage, count: usize) -> Vec<Value> {
    loop {
        let orphans = listed(stage);
        if orphans.len() >= count {
            return orphans;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Makes the next answer of an operation late, and says which fault that is.
async fn late(emulator: &Emulator, operation: &str) -> Value {
    let fault = json!({"kind": "delay", "delay_ms": 5000, "operation": operation, "count": 1});
    emulator.control("POST", "faults", Some(fault)).await
}

/// Waits until a request has met a fault.
async fn met(emulator: &Emulator) {
    loop {
        let told = emulator.control("GET", "faults", None).await;
        let faults = told["faults"].as_array().unwrap();
        if faults.iter().all(|fault| fault["hits"] != 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often ACS was asked this for an id.
async fn asked(emulator: &Emulator, operation: &str, id: &str) -> usize {
    let path = format!("requests?operation={operation}");
    let told = emulator.control("GET", &path, None).await;
    let requests = told["requests"].as_array().unwrap().iter();
    requests.filter(|one| one.to_string().contains(id)).count()
}

/// A daemon with a token of `held-0` that came after its hold, and an identity made for `twin-0`
/// while an import gave it another one.
async fn orphaned() -> (Emulator, Stage, Daemon) {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let base = stage.base_config() + &stage.sinks_config(None);
    let config = stage.configure(&(base.clone() + &identities("held", 1, &[])));
    let daemon = Daemon::start(&config).await;
    ok(&stage, &["wait", "held-0"]);
    late(&emulator, "issue").await;
    late(&emulator, "create_with_token").await;
    ok(&stage, &["renew", "held-0", "--detach"]);
    ok(
        &stage,
        &["identity", "add", "twin-0", "--resource", "contoso"],
    );
    met(&emulator).await;
    ok(&stage, &["hold", "held-0"]);
    let line = json!({"name": "twin-0", "resource": "contoso", "id": "8:acs:elsewhere_twin"});
    std::fs::write(stage.path("twin.jsonl"), format!("{line}\n")).unwrap();
    let path = stage.path("twin.jsonl").display().to_string();
    ok(&stage, &["identity", "import", &path]);
    noticed(&stage, 2).await;
    (emulator, stage, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_without_a_record_is_revoked_and_deleted() {
    let (emulator, stage, daemon) = orphaned().await;
    let orphans = listed(&stage);
    assert_eq!(orphans.len(), 2, "{orphans:?}");
    let of = |kind: &str| {
        let found = orphans.iter().find(|orphan| orphan["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}: {orphans:?}"))
    };
    let number = |kind: &str| of(kind)["num"].to_string();
    let id = |kind: &str| of(kind)["id"].as_str().unwrap().to_owned();

    // What renewd manages is not deleted in passing, and nothing is deleted without a word.
    let (code, _, err) = renewd(&stage, &["orphan", "delete", &number("token"), "--yes"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("held-0, which renewd manages"), "{err}");
    let (code, _, err) = renewd(&stage, &["orphan", "delete", &number("identity")]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("1 id that renewd does not manage"), "{err}");
    let (code, _, err) = renewd(&stage, &["orphan", "revoke", "1", "7"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("there is no orphan 7"), "{err}");
    assert_eq!(
        asked(&emulator, "revoke", &id("identity")).await,
        0,
        "nothing was done"
    );

    let (code, _, err) = renewd(&stage, &["orphan", "revoke", "--all"]);
    assert_eq!(code, Some(2), "all are asked about: {err}");
    assert_eq!(asked(&emulator, "revoke", &id("identity")).await, 0);

    let said = ok(&stage, &["orphan", "revoke", "--all", "--yes"]);
    assert!(said.contains("2 revoked"), "{said}");
    for kind in ["token", "identity"] {
        assert_eq!(asked(&emulator, "revoke", &id(kind)).await, 1);
    }
    let left = listed(&stage);
    assert_eq!(left.len(), 1, "the token is dead: {left:?}");
    assert!(left[0]["revoked_at"].is_string(), "{left:?}");
    let table = ok(&stage, &["orphan", "list"]);
    assert!(table.contains("its tokens are revoked"), "{table}");

    let said = ok(&stage, &["orphan", "delete", "--all", "--yes"]);
    assert!(said.contains("1 deleted"), "{said}");
    assert_eq!(asked(&emulator, "delete", &id("identity")).await, 1);
    assert!(listed(&stage).is_empty());
    let said = ok(&stage, &["orphan", "delete", "--all", "--yes"]);
    assert_eq!(said, "there are no orphans that can be deleted\n");
    assert!(daemon.stop().success());
}
