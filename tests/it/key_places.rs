//! Where the new key is awaited: a variable is read when the daemon starts, so it says that a restart is
//! needed; tokens survive that.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, Stage, identities};

/// Waits until the replacement is in this stage; what it waits for.
async fn reached(stage: &Stage, wanted: &str) -> String {
    loop {
        let shown = stage.renewd(&["key", "status", "contoso", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        let change = &shown["resources"][0]["change"];
        assert_ne!(change["stage"], "refused", "{change}");
        if change["stage"] == wanted {
            return change["trouble"].as_str().unwrap_or_default().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_key_from_the_environment_is_taken_up_by_a_restart_that_tokens_survive() {
    let emulator = Emulator::start(&["--limit", "all=off"]);
    let stage = Stage::new(&emulator);
    let of = |key: &str| format!("endpoint={}/;accesskey={key}", emulator.endpoint);
    let keys = emulator.control("GET", "keys", None).await;
    stage.write_private(
        "secondary.cs",
        &of(keys["secondary"]["key"].as_str().unwrap()),
    );
    let primary = format!("{{ file = \"{}\" }}", stage.path("contoso.cs").display());
    let base = stage
        .base_config()
        .replace(&primary, "{ env = \"CONTOSO_CS\" }");
    let config = stage.configure(&format!(
        "{base}secondary_connection_string = {{ file = \"{}\" }}\n{}{}",
        stage.path("secondary.cs").display(),
        stage.sinks_config(None),
        identities("bot", 2, &["files"])
    ));
    let mut daemon = Daemon::launch(&config, &[("CONTOSO_CS", &emulator.connection_string)]);
    daemon.ready().await;
    stage.there("bot-0").await;
    stage.there("bot-1").await;
    let rolled = stage.renewd(&["key", "roll", "contoso", "--yes"]);
    assert!(rolled.status.success());
    let regenerate = json!({"regenerate": "primary"});
    let keys = emulator.control("PUT", "keys", Some(regenerate)).await;
    let trouble = reached(&stage, "replace").await;
    assert!(
        trouble.contains("awaited in the variable CONTOSO_CS: set it and restart the daemon"),
        "{trouble}"
    );
    let token = stage.token("bot-0");
    assert!(daemon.stop().success());
    let new = of(keys["primary"]["key"].as_str().unwrap());
    let mut daemon = Daemon::launch(&config, &[("CONTOSO_CS", &new)]);
    daemon.ready().await;
    reached(&stage, "done").await;
    assert_eq!(stage.token("bot-0"), token, "it survived");
    let judged = emulator
        .control("POST", "tokens", Some(json!({ "token": token })))
        .await;
    assert_eq!(judged["live"], true, "{judged}");
    assert!(daemon.stop().success());
}

/// The seal key is replaced while the daemon is killed: nobody gets another token for it, the next process
/// goes on, and `status` and `key reseal` say how far it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_seal_key_is_replaced_over_a_kill_and_nobody_is_renewed_for_it() {
    let emulator = Emulator::start(&["--token-alg", "filler", "--limit", "all=off"]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(&(stage.base_config() + &identities("bot", 800, &[])));
    let daemon = Daemon::start(&config).await;
    for name in ["bot-0", "bot-400", "bot-799"] {
        assert!(stage.renewd(&["wait", name]).status.success());
    }
    let tokens = |stage: &Stage| {
        ["bot-0", "bot-400", "bot-799"].map(|name| {
            let token = stage.renewd(&["token", name]);
            assert!(token.status.success(), "{token:?}");
            token.stdout
        })
    };
    let state = stage.path("state");
    let before = (
        tokens(&stage),
        std::fs::read(state.join("seal.key")).unwrap(),
    );
    let mut reseal = std::process::Command::new(crate::stage::RENEWD)
        .args(["key", "reseal", "--reason", "it leaked", "--socket"])
        .arg(stage.path("renewd.sock"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // It has begun when its key lies there.
    let begun = tokio::time::timeout(Duration::from_secs(20), async {
        while !state.join("seal.key.next").exists() {
            tokio::task::yield_now().await;
        }
    });
    begun.await.expect("a key that takes over");
    daemon.kill();
    assert!(!reseal.wait().unwrap().success(), "its daemon was killed");

    let daemon = Daemon::start(&config).await;
    let followed = stage.renewd(&["key", "reseal"]);
    let said = String::from_utf8_lossy(&followed.stdout).into_owned();
    assert!(followed.status.success(), "{followed:?}");
    assert!(said.contains("the old key is kept as"), "{said}");
    assert_eq!(tokens(&stage), before.0);
    assert_ne!(std::fs::read(state.join("seal.key")).unwrap(), before.1);
    let shown = stage.renewd(&["key", "reseal", "--status", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["successor"], Value::Null, "{shown}");
    let trail = stage.renewd(&["audit", "list", "--json"]);
    assert!(String::from_utf8_lossy(&trail.stdout).contains("store.reseal"));
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&config).await;
    assert_eq!(tokens(&stage), before.0);
    assert!(daemon.stop().success());
}
