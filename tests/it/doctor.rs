//! `renewd doctor` in situations that were really made: it names each with a remedy, and the remedy
//! works.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, until};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What the daemon finds, and the exit code.
fn doctor(stage: &Stage) -> (Value, Option<i32>) {
    let output = Command::new(RENEWD)
        .args(["doctor", "--json", "--socket"])
        .arg(stage.path("renewd.sock"))
        .output()
        .unwrap();
    (json(&output), output.status.code())
}

/// The one finding whose message holds these words.
fn about<'a>(found: &'a Value, words: &str) -> &'a Value {
    let findings = found["findings"].as_array().unwrap();
    let mut fitting = findings
        .iter()
        .filter(|f| f["message"].as_str().unwrap().contains(words));
    let finding = fitting
        .next()
        .unwrap_or_else(|| panic!("nothing about {words}: {found:#}"));
    assert!(fitting.next().is_none(), "twice {words}: {found:#}");
    finding
}

fn shell(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Answers every request at this address, telling this time.
async fn receiver_at(date: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8192];
            if stream.read(&mut request).await.is_err() {
                continue;
            }
            let answer =
                format!("HTTP/1.1 204 No Content\r\ndate: {date}\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    url
}

/// A program in a mount namespace of its own that has one file mounted on another, until dropped.
struct Container(Child);

impl Container {
    fn holding(file: &Path, on: &Path) -> Self {
        let script = "mount --bind \"$0\" \"$1\" && echo mounted && cat";
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .args([file, on])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Self(child)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its `cat` ends with its input.
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

const IDENTITY: &str = "
[[identity]]
name = \"bot\"
scopes = [\"chat\"]
readers = [\"nobody\"]
sinks = [\"files\"]
";

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_names_what_stands_between_a_token_and_its_reader() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    shell(&format!("chmod o+x {}", stage.path("").display()));
    chmod(&stage.path("tokens"), 0o755);
    let config = stage.configure(&(stage.base_config() + &stage.sinks_config(None) + IDENTITY));
    let _daemon = Daemon::start(&config).await;
    stage.there("bot").await;
    let (found, code) = doctor(&stage);
    assert_eq!(found["findings"], serde_json::json!([]));
    assert_eq!(
        (found["by"].as_str(), found["user"].as_str(), code),
        (Some("daemon"), Some("root"), Some(0))
    );

    chmod(&stage.path("tokens"), 0o700);
    let (found, code) = doctor(&stage);
    let closed = about(&found, "the reader nobody cannot pass through");
    assert_eq!(
        (closed["at"].as_str(), code),
        (Some("sink.file[0].path"), Some(1))
    );
    shell(closed["fix"].as_str().unwrap());
    let (found, code) = doctor(&stage);
    assert_eq!(
        (&found["findings"], &found["needs"], code),
        (&serde_json::json!([]), &serde_json::json!([]), Some(0))
    );

    chmod(&stage.path("tokens"), 0o777);
    let (found, _) = doctor(&stage);
    let open = about(&found, "every user may write to");
    shell(open["fix"].as_str().unwrap().split(',').next().unwrap());
    assert_eq!(doctor(&stage).1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_holds_on_to_an_old_token_is_named() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let identity = IDENTITY.replace("readers = [\"nobody\"]\n", "");
    let config = stage.configure(&(stage.base_config() + &stage.sinks_config(None) + &identity));
    let _daemon = Daemon::start(&config).await;
    stage.there("bot").await;
    fs::write(stage.path("copy"), "").unwrap();
    let container = Container::holding(&stage.path("tokens/bot.json"), &stage.path("copy"));
    let held = format!("process {} (", container.0.id());
    let (found, code) = doctor(&stage);
    let pinned = about(&found, &held)["message"].as_str().unwrap();
    assert!(
        pinned.ends_with("and will not see the next token"),
        "{pinned}"
    );
    assert_eq!(code, Some(1));
    let before = stage.token("bot");
    let renew = Command::new(RENEWD)
        .args(["renew", "bot", "--socket"])
        .arg(stage.path("renewd.sock"))
        .output()
        .unwrap();
    assert!(renew.status.success());
    while stage.token("bot") == before {
        tokio::task::yield_now().await;
    }
    let (found, _) = doctor(&stage);
    let pinned = about(&found, &held)["message"].as_str().unwrap();
    assert!(
        pinned.contains("still reads the file of before"),
        "{pinned}"
    );
    drop(container);
    assert_eq!(doctor(&stage).1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_are_asked_for_their_time() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let past = receiver_at("Sun, 22 Nov 2020 17:00:00 GMT").await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/hook", gone.local_addr().unwrap());
    drop(gone);
    let hook = |name: &str, url: &str| {
        let secret = stage.path("webhook.secret");
        format!(
            "\n[[sink.webhook]]\nname = \"{name}\"\nurl = \"{url}\"\nsecrets = [{{ file = \"{}\" }}]\n",
            secret.display()
        )
    };
    let config =
        stage.configure(&(stage.base_config() + &hook("past", &past) + &hook("gone", &nobody)));
    let _daemon = Daemon::start(&config).await;
    let (found, code) = doctor(&stage);
    let clock = about(
        &found,
        "s behind ours, so it takes every signature for stale",
    );
    assert_eq!(clock["at"], "sink.webhook[0].url");
    let silent = about(&found, "cannot connect");
    assert_eq!(
        (silent["at"].as_str(), code),
        (Some("sink.webhook[1].url"), Some(1))
    );
    let online = Command::new(RENEWD)
        .args(["check", "--online", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8(online.stdout).unwrap();
    assert!(
        said.contains("(to OPTIONS with 204); its clock is -"),
        "{said}"
    );
    assert_eq!(online.status.code(), Some(1));
}

#[test]
fn without_a_daemon_the_command_looks_itself() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(&(stage.base_config() + &stage.sinks_config(None) + IDENTITY));
    let tokens = stage.path("tokens");
    let script = format!(
        "mount -t tmpfs -o size=256k,nr_inodes=8,mode=700 none {tokens}
         cd {tokens} && touch bot.json 2 3 4 5 && mount --bind 2 bot.json
         head -c 300k /dev/zero >3 2>/dev/null
         cd / && exec {RENEWD} doctor --json --config {config} --socket {socket}",
        tokens = tokens.display(),
        config = config.display(),
        socket = stage.path("renewd.sock").display(),
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    let found = json(&output);
    assert_eq!(
        (found["by"].as_str(), output.status.code()),
        (Some("command"), Some(1))
    );
    assert_eq!(about(&found, "no daemon answers")["at"], "daemon.socket");
    let full = about(&found, "is nearly full: 0 KiB are free");
    assert!(
        full["fix"]
            .as_str()
            .unwrap()
            .starts_with("mount -o remount,size=")
    );
    let inodes = about(&found, "more files (inodes)");
    assert!(inodes["fix"].as_str().unwrap().contains("nr_inodes="));
    about(&found, "bot.json is a mount of a single file");
    about(&found, "the reader nobody cannot pass through");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_disk_and_does_not_run_is_told_until_it_does() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let base = stage.base_config() + &stage.sinks_config(None) + IDENTITY;
    let config = stage.configure(&base);
    let daemon = Daemon::start(&config).await;
    let told = || {
        let (found, _) = doctor(&stage);
        let mut findings = found["findings"].as_array().unwrap().clone();
        findings.retain(|one| one["at"] == "configuration");
        assert!(findings.len() < 2, "{findings:#?}");
        findings
            .pop()
            .map_or(String::new(), |one| one["message"].to_string())
    };
    let says = |words: &str| {
        let told = told();
        assert!(told.contains(words) && !told.is_empty(), "{words}: {told}");
    };
    assert_eq!(told(), "");
    stage.configure(&(base.clone() + "\n[[identity]]\nname = \"new\"\nscopes = [\"chat\"]\n"));
    says("identities: +1 create");
    stage.configure(&(base.clone() + "\n[[identity]]\nname = "));
    says("is refused");
    stage.configure(&base.replace("instance = \"stage\"", "instance = \"other\""));
    says("needs a restart, because daemon.instance changed");
    let key = fs::read_to_string(stage.path("contoso.cs")).unwrap();
    let (endpoint, _) = key.split_once(";accesskey=").unwrap();
    stage.write_private("contoso.cs", &format!("{endpoint};accesskey=b3RoZXI="));
    stage.configure(&base);
    says("contoso has another access key");
    stage.write_private("contoso.cs", &key);
    stage.configure(&(base + "\n[renewal]\nspread = 0.05\n"));
    says("not taken over yet");
    daemon.signal(rustix::process::Signal::HUP);
    until("doctor to find what runs on the disk", || told().is_empty()).await;
}
