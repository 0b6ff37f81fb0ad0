//! Nothing is claimed that was not seen: what the daemon stands on is taken away under it, and it says so
//! in its interfaces until it is back.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::stage::{Daemon, Emulator, RENEWD, Receiver, Stage, identities};

/// How long anything may take that is looked after every few seconds.
const SOON: Duration = Duration::from_secs(40);

/// Asks again until it is so; what was awaited is named when it never is.
async fn until(what: &str, mut so: impl FnMut() -> Result<(), String>) {
    let asked = async {
        loop {
            match so() {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    if tokio::time::timeout(SOON, asked).await.is_err() {
        panic!(
            "waited in vain for {what}: {}",
            so().err().unwrap_or_default()
        );
    }
}

/// What `renewd status` prints.
fn status(stage: &Stage) -> String {
    let output = stage.renewd(&["status"]);
    let (out, err) = (output.stdout, output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&err)
    )
}

/// Waits until the status holds these words.
async fn says(stage: &Stage, words: &str) {
    until(words, || {
        let status = status(stage);
        if status.contains(words) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

/// Waits until the status holds them no more.
async fn says_no_more(stage: &Stage, words: &str) {
    until(&format!("the end of {words}"), || {
        let status = status(stage);
        if status.contains(words) {
            Err(status)
        } else {
            Ok(())
        }
    })
    .await;
}

/// Waits until the receiver heard of a notice.
async fn heard(receiver: &Receiver, kind: &str) {
    until(kind, || {
        let received = receiver.received.lock().unwrap();
        match received.types.get(kind) {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", received.types)),
        }
    })
    .await;
}

/// A webhook that hears these events.
fn hears(stage: &Stage, receiver: &Receiver, events: &str) -> String {
    let dir = stage.path("");
    let dir = dir.display();
    format!(
        "\n[[sink.webhook]]\nname = \"ops\"\nurl = \"{}\"\nsecrets = [{{ file = \"{dir}webhook.secret\" }}]\n\
         events = [{events}]\n",
        receiver.url
    )
}

async fn calm(stage: &Stage) {
    says(stage, "nothing needs you").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_file_that_is_gone_comes_first_and_renewing_goes_on() {
    let emulator = Emulator::start(&["--token-ttl", "8s", "--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let receiver = Receiver::start().await;
    let config = stage.configure(
        &(stage.base_config()
            + &stage.sinks_config(None)
            + &hears(&stage, &receiver, "\"store.*\"")
            + &identities("bot", 2, &["files"])),
    );
    let daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let (file, aside) = (stage.path("state/renewd.db"), stage.path("aside.db"));
    fs::rename(&file, &aside).unwrap();
    says(&stage, "is gone").await;
    let shown = status(&stage);
    let first = shown.lines().next().unwrap();
    assert!(
        first.contains("store:") && first.contains("is gone"),
        "{shown}"
    );
    assert!(!shown.contains("nothing needs you"), "{shown}");
    heard(&receiver, "renewd.store.moved").await;
    stage.renewed("bot-0").await;
    fs::rename(&aside, &file).unwrap();
    heard(&receiver, "renewd.store.found").await;
    says_no_more(&stage, "is gone").await;
    fs::copy(&file, &aside).unwrap();
    fs::rename(&aside, &file).unwrap();
    says(&stage, "another file lies at").await;
    assert_eq!(
        daemon.stop().code(),
        Some(1),
        "no stop goes without saying so"
    );
    let log = fs::read_to_string(stage.path("daemon.log")).unwrap();
    assert!(log.contains("what was renewed since is lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_file_that_is_gone_is_made_again_and_another_one_is_told() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let receiver = Receiver::start().await;
    let config = stage.configure(
        &(stage.base_config()
            + &stage.sinks_config(None)
            + &hears(&stage, &receiver, "\"socket.*\"")
            + &identities("bot", 1, &["files"])),
    );
    let _daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let socket = stage.path("renewd.sock");
    fs::remove_file(&socket).unwrap();
    calm(&stage).await;
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let own = stage.path("own.sock");
    fs::rename(&socket, &own).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    heard(&receiver, "renewd.socket.moved").await;
    let shown = Command::new(RENEWD)
        .args(["status", "--socket"])
        .arg(&own)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("another file lies at"), "{shown}");
    drop(other);
    fs::remove_file(&socket).unwrap();
    heard(&receiver, "renewd.socket.found").await;
    calm(&stage).await;
}

/// A CA certificate that the emulator made.
fn ca() -> String {
    use std::io::BufRead;
    let mut child = Command::new(RENEWD)
        .args(["emulator", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let text = fs::read_to_string(line.trim().strip_prefix("ca=").unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_is_a_need_until_one_succeeds_and_a_changed_ca_is_read() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let receiver = Receiver::start().await;
    let ca = ca();
    fs::write(stage.path("ca.pem"), &ca).unwrap();
    let good = format!(
        "{}ca_file = \"{}\"\n{}{}{}",
        stage.base_config(),
        stage.path("ca.pem").display(),
        stage.sinks_config(None),
        hears(&stage, &receiver, "\"reload.*\""),
        identities("bot", 1, &["files"])
    );
    let config = stage.configure(&good);
    let daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let reload = || daemon.signal(rustix::process::Signal::HUP);
    stage.configure(&format!("{good}\nnonsense = 1\n"));
    reload();
    says(&stage, "the last reload was refused").await;
    let line = format!("renewd.toml:{}:1", good.lines().count() + 2);
    let shown = status(&stage);
    assert!(shown.contains(&line), "the line is named: {shown}");
    heard(&receiver, "renewd.reload.refused").await;
    stage.configure(&good);
    fs::write(stage.path("ca.pem"), format!("{ca}\n{ca}")).unwrap();
    reload();
    heard(&receiver, "renewd.reload.accepted").await;
    let log = daemon.log();
    assert!(log.contains("1 resource restarted"), "{log}");
    calm(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_webhook_is_told_on_other_channels_and_its_end_too() {
    let emulator = Emulator::start(&["--token-ttl", "20s"]);
    let stage = Stage::new(&emulator);
    let (receiver, ops) = (Receiver::start().await, Receiver::start().await);
    receiver.received.lock().unwrap().refuse =
        Some((axum::http::StatusCode::INTERNAL_SERVER_ERROR, 10_000));
    let config = stage.configure(
        &(stage.base_config()
            + &stage.sinks_config(Some(&receiver))
            + &hears(&stage, &ops, "\"sink.*\"")
            + &identities("bot", 12, &["hook"])),
    );
    let _daemon = Daemon::start(&config).await;
    heard(&ops, "renewd.sink.failing").await;
    let shown = status(&stage);
    assert!(
        shown.contains("! hook:") && shown.contains("hold no live token"),
        "{shown}"
    );
    assert!(
        shown.contains("renewd delivery list --sink hook"),
        "{shown}"
    );
    receiver.received.lock().unwrap().refuse = None;
    heard(&ops, "renewd.sink.recovered").await;
    calm(&stage).await;
}

fn exit(output: &std::process::Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (
        output.status.code(),
        text + &String::from_utf8_lossy(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_proves_both_keys() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let check = |config: &Path| {
        let mut command = Command::new(RENEWD);
        exit(
            &command
                .args(["check", "--online", "--config"])
                .arg(config)
                .output()
                .unwrap(),
        )
    };
    let keys = emulator.control("GET", "keys", None).await;
    let other = keys["secondary"]["key"].as_str().unwrap();
    let string = |key: &str| format!("endpoint={}/;accesskey={key}", emulator.endpoint);
    stage.write_private("secondary.cs", &string(other));
    let config = stage.configure(&format!(
        "{}secondary_connection_string = {{ file = \"{}\" }}\n",
        stage.base_config(),
        stage.path("secondary.cs").display()
    ));
    let (code, text) = check(&config);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("takes the primary key") && text.contains("takes the secondary key"),
        "{text}"
    );
    emulator
        .control("PUT", "keys", Some(json!({"regenerate": "secondary"})))
        .await;
    let (code, text) = check(&config);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the secondary key is refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_in_an_outage_are_said_and_told_again() {
    let emulator = Emulator::start(&["--token-ttl", "6s", "--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let receiver = Receiver::start().await;
    let config = stage.configure(
        &(stage.base_config()
            + &stage.sinks_config(None)
            + &hears(&stage, &receiver, "\"resource.*\"")
            + &identities("bot", 3, &["files"])),
    );
    let _daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let fault = json!({"kind": "status", "status": 500, "operation": "issue"});
    emulator.control("POST", "faults", Some(fault)).await;
    says(&stage, "3 of 3 consumers hold no live token").await;
    let shown = status(&stage);
    assert!(
        shown.contains("3 consumers: 0 hold a live token, 3 do not"),
        "{shown}"
    );
    assert!(!shown.contains("stage ready"), "{shown}");
    let doctor = stage.renewd(&["doctor"]);
    let (code, text) = exit(&doctor);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("3 do not") && !text.contains("nothing is wrong"),
        "{text}"
    );
    until("a notice that tokens ended", || {
        let received = receiver.received.lock().unwrap();
        match received.types.get("renewd.resource.unreachable") {
            Some(2..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    emulator.control("DELETE", "faults", None).await;
    heard(&receiver, "renewd.resource.recovered").await;
    let all: Value = serde_json::from_slice(&stage.renewd(&["status", "--json"]).stdout).unwrap();
    assert!(all["consumers"].is_object(), "{all}");
    calm(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_campaign_waits_through_a_restart() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config() + &stage.sinks_config(None) + &identities("bot", 2, &["files"])),
    );
    let daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let fault = json!({"kind": "status", "status": 503, "operation": "revoke"});
    emulator.control("POST", "faults", Some(fault)).await;
    let mut command = tokio::process::Command::new(RENEWD);
    command.args([
        "revoke", "bot-0", "bot-1", "--then", "reissue", "--yes", "--socket",
    ]);
    let mut follower = command
        .arg(stage.path("renewd.sock"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("the revocation", || {
        let shown = exit(&stage.renewd(&["campaign", "list"])).1;
        if shown.contains("revoke") {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
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
    let waits = tokio::time::timeout(SOON, waits).await;
    assert_eq!(waits, Ok(true), "the follower says that it waits");
    emulator.control("DELETE", "faults", None).await;
    let _again = Daemon::start(&config).await;
    let ended = tokio::time::timeout(SOON, follower.wait_with_output()).await;
    let (code, text) = exit(&ended.expect("the follower ends").unwrap());
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_warns_of_backups_that_are_not_made_any_more() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config() + &stage.sinks_config(None) + &identities("bot", 1, &["files"])),
    );
    let daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let doctor = || exit(&stage.renewd(&["doctor"]));
    assert!(
        !doctor().1.contains("last backup"),
        "none was ever made: {}",
        doctor().1
    );
    let backup = stage.path("backup");
    let made = stage.renewd(&["store", "backup", backup.to_str().unwrap()]);
    assert!(made.status.success(), "{}", exit(&made).1);
    assert!(!doctor().1.contains("last backup"), "{}", doctor().1);
    assert!(daemon.stop().success());
    let db = rusqlite::Connection::open(stage.path("state/renewd.db")).unwrap();
    let nine_days = 9 * 86_400 * 1_000_000_i64;
    let moved = db.execute(
        "UPDATE meta SET value = value - ?1 WHERE key = 'backed_up_at'",
        [nine_days],
    );
    assert_eq!(moved.unwrap(), 1);
    drop(db);
    let _daemon = Daemon::start(&config).await;
    calm(&stage).await;
    let (code, text) = doctor();
    assert_eq!(code, Some(0), "odd, not wrong: {text}");
    assert!(text.contains("the last backup was made 9d ago"), "{text}");
    assert!(text.contains("renewd store backup FILE"), "{text}");
}

/// Another client of the same resource, a program of its own, uses up what ACS allows.
struct SecondClient {
    stop: Arc<AtomicBool>,
    calls: Vec<std::thread::JoinHandle<u32>>,
}

impl SecondClient {
    fn start(emulator: &Emulator) -> Self {
        let acs = |arguments: &[&str], string: &str| {
            Command::new(RENEWD)
                .arg("acs")
                .args(arguments)
                .env("COMMUNICATION_SERVICES_CONNECTION_STRING", string)
                .output()
                .unwrap()
        };
        let string = emulator.connection_string.clone();
        let created = acs(&["create-user", "--json"], &string);
        let created: Value = serde_json::from_slice(&created.stdout).unwrap();
        let id = created["id"].as_str().unwrap().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let call = || {
            let (stop, id, string) = (Arc::clone(&stop), id.clone(), string.clone());
            std::thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    done += u32::from(acs(&["issue-token", &id], &string).status.success());
                }
                done
            })
        };
        let calls = (0..2).map(|_| call()).collect();
        Self { stop, calls }
    }

    /// Ends it; how many of its calls were answered.
    fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.calls
            .into_iter()
            .map(|call| call.join().unwrap())
            .sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_that_uses_the_resource_up_is_told() {
    let emulator = Emulator::start(&["--limit", "issue=6/5s"]);
    let (stage, receiver) = (Stage::new(&emulator), Receiver::start().await);
    let config = stage.base_config()
        + &stage.sinks_config(None)
        + &hears(&stage, &receiver, "\"resource.*\"")
        + &identities("bot", 1, &["files"]);
    let daemon = Daemon::start(&stage.configure(&config)).await;
    stage.there("bot-0").await;
    let other = SecondClient::start(&emulator);
    until("contention", || {
        let ordered = stage.renewd(&["renew", "bot-0", "--yes", "--detach"]);
        let told = status(&stage);
        match told.contains("somebody else uses it") {
            true => Ok(()),
            false => Err(format!("{ordered:?}\n{told}\n{}", daemon.log())),
        }
    })
    .await;
    heard(&receiver, "renewd.resource.contended").await;
    assert!(other.end() > 0, "the other one was served");
    // It is not told to be over as soon as it is quiet, and the daemon goes on.
    let version = || stage.document("bot-0").unwrap()["version"].as_u64();
    let before = version();
    until("renewal", || match version() > before {
        true => Ok(()),
        false => Err(stage.explain("bot-0")),
    })
    .await;
    says(&stage, "somebody else uses it").await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_off_is_told_and_told_to_be_right_again() {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let (stage, receiver) = (Stage::new(&emulator), Receiver::start().await);
    let config = stage.base_config()
        + &stage.sinks_config(None)
        + &hears(&stage, &receiver, "\"clock.*\"")
        + &identities("bot", 1, &["files"]);
    let daemon = Daemon::start(&stage.configure(&config)).await;
    stage.there("bot-0").await;
    calm(&stage).await;
    // The difference is the median of several answers.
    let renewed = async |offset: i64| {
        let offset = json!({ "offset_seconds": offset });
        emulator.control("POST", "clock", Some(offset)).await;
        for _ in 0..9 {
            let output = stage.renewd(&["renew", "bot-0"]);
            assert!(output.status.success(), "{output:?}");
        }
    };
    renewed(90).await;
    says(&stage, "behind that of contoso").await;
    heard(&receiver, "renewd.clock.off").await;
    renewed(0).await;
    says_no_more(&stage, "behind that of contoso").await;
    heard(&receiver, "renewd.clock.right").await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_key_that_is_gone_is_a_need_until_a_new_one_is_made() {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let config =
        stage.base_config() + &stage.sinks_config(None) + &identities("bot", 2, &["files"]);
    let config = stage.configure(&config);
    let daemon = Daemon::start(&config).await;
    stage.there("bot-1").await;
    calm(&stage).await;
    let key = stage.path("state/seal.key");
    fs::remove_file(&key).unwrap();
    says(&stage, "seal.key is gone").await;
    let resealed = stage.renewd(&["key", "reseal"]);
    assert!(resealed.status.success(), "{resealed:?}");
    assert!(key.exists());
    calm(&stage).await;
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&config).await;
    calm(&stage).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_a_resource_or_a_sink_that_is_configured_no_more_is_a_need() {
    let emulator = Emulator::start(&["--token-alg", "filler"]);
    let stage = Stage::new(&emulator);
    let whole = stage.base_config() + &stage.sinks_config(None) + &identities("bot", 1, &["files"]);
    let config = stage.configure(&whole);
    let daemon = Daemon::start(&config).await;
    let added = stage.renewd(&[
        "identity", "add", "dora", "--scope", "chat", "--sink", "files",
    ]);
    assert!(added.status.success(), "{added:?}");
    stage.there("dora").await;
    calm(&stage).await;
    let reload = |text: &str| {
        stage.configure(text);
        daemon.signal(rustix::process::Signal::HUP);
    };
    reload(&stage.base_config());
    says(&stage, "dora: its sink files is not configured").await;
    reload(&whole.replace("name = \"contoso\"", "name = \"fabrikam\""));
    says(&stage, "bot-0: it belongs to the resource contoso").await;
    says(&stage, "nobody renews the tokens of 1 identity").await;
    let why = stage.renewd(&["why", "dora"]);
    let why = String::from_utf8_lossy(&why.stdout);
    assert!(
        why.contains("its resource contoso is not configured"),
        "{why}"
    );
    reload(&whole);
    stage.there("dora").await;
    calm(&stage).await;
    assert!(daemon.stop().success());
}
