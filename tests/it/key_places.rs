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
