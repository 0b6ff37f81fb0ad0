//! What can be wrong at a start: one clear message each, a non-zero exit, and nothing lost.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::stage::{Daemon, Emulator, Person, RENEWD, Stage, identities};

/// Runs the daemon until it ends by itself; its exit code and what it said.
fn refused(stage: &Stage) -> (i32, String) {
    let output = Command::new(RENEWD)
        .args(["run", "--config"])
        .arg(stage.path("renewd.toml"))
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn stage(emulator: &Emulator) -> Stage {
    let stage = Stage::new(emulator);
    stage.configure(
        &(stage.base_config() + &stage.sinks_config(None) + &identities("bot", 2, &["files"])),
    );
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_and_an_unreadable_secret_are_shown_with_their_line() {
    let emulator = Emulator::start(&[]);
    let stage = stage(&emulator);
    let text = fs::read_to_string(stage.path("renewd.toml")).unwrap();
    fs::write(stage.path("renewd.toml"), text.replace("scopes", "scpoes")).unwrap();
    let (code, said) = refused(&stage);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("renewd.toml:") && said.contains("did you mean `scopes`"),
        "{said}"
    );
    fs::write(stage.path("renewd.toml"), text).unwrap();
    fs::remove_file(stage.path("contoso.cs")).unwrap();
    let (code, said) = refused(&stage);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("contoso.cs") && said.contains("renewd.toml:"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_stops_nothing_is_told_and_is_taken_once_it_is_free() {
    let emulator = Emulator::start(&[]);
    let stage = stage(&emulator);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = fs::read_to_string(stage.path("renewd.toml")).unwrap();
    let text = text.replace("listen = \"\"", &format!("listen = \"{address}\""));
    fs::write(stage.path("renewd.toml"), text).unwrap();
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    stage.there("bot-0").await;
    let told = || {
        let status = daemon.status(&stage.path("renewd.sock"));
        let needs = status["needs"].as_array().unwrap().clone();
        needs.into_iter().find(|need| need["kind"] == "unbound")
    };
    let need = told().unwrap_or_else(|| panic!("no need:\n{}", daemon.log()));
    assert_eq!(need["subject"], address);
    assert!(
        need["because"].as_str().unwrap().contains("in use"),
        "{need}"
    );
    drop(taken);
    let free = async {
        while told().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), free)
        .await
        .expect("the port is taken once it is free");
    let health = reqwest::Client::builder().no_proxy().build().unwrap();
    let health = health.get(format!("http://{address}/healthz"));
    assert!(health.send().await.unwrap().status().is_success());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_person_can_mend_ends_with_2_and_says_what_to_do() {
    let emulator = Emulator::start(&[]);
    let stage = stage(&emulator);
    let config = stage.path("renewd.toml");
    let text = fs::read_to_string(&config).unwrap();
    let socket = stage.path("renewd.sock").display().to_string();
    let state = stage.path("state").display().to_string();
    fs::write(stage.path("a-file"), "").unwrap();
    for (old, new, word) in [
        (&socket, stage.path("missing/deep/s"), "does not exist"),
        (&socket, stage.path("a-file/s"), "is not a folder"),
        (&socket, "/proc/s".into(), "/proc"),
        (&socket, stage.path("a-file"), "move it away"),
        (&socket, stage.path(&"x".repeat(120)), "too long"),
        (&state, stage.path("a-file"), "a-file"),
    ] {
        fs::write(&config, text.replace(old, new.to_str().unwrap())).unwrap();
        let (code, said) = refused(&stage);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(word), "{word}: {said}");
    }
    fs::write(&config, &text).unwrap();
    Daemon::start(&config).await.stop();
    let key = fs::read(stage.path("state/seal.key")).unwrap();
    for damage in [None, Some("hunter2"), Some(&"07".repeat(32)[..])] {
        match damage {
            None => fs::remove_file(stage.path("state/seal.key")).unwrap(),
            Some(text) => fs::write(stage.path("state/seal.key"), text).unwrap(),
        }
        let (code, said) = refused(&stage);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("seal.key") && !said.contains("hunter2"),
            "{said}"
        );
    }
    fs::write(stage.path("state/seal.key"), key).unwrap();
    Daemon::start(&config).await.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_a_newer_and_a_corrupt_database_are_refused_and_left_alone() {
    let emulator = Emulator::start(&[]);
    let stage = stage(&emulator);
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    stage.there("bot-0").await;
    let (code, said) = refused(&stage);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("lock") || said.contains("another"), "{said}");
    assert!(daemon.stop().success());

    let database = stage.path("state/renewd.db");
    let good = fs::read(&database).unwrap();
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&9999_u32.to_be_bytes());
    let mut corrupt = good.clone();
    corrupt[..4096].fill(0x5a);
    for (bytes, word) in [(newer, "newer"), (corrupt, "database")] {
        fs::write(&database, &bytes).unwrap();
        let (code, said) = refused(&stage);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(word) && said.contains("renewd.db"), "{said}");
        assert_eq!(
            fs::read(&database).unwrap(),
            bytes,
            "a refused database was touched"
        );
    }
    fs::write(&database, good).unwrap();
    assert!(
        Daemon::start(&stage.path("renewd.toml"))
            .await
            .stop()
            .success()
    );
}

/// How many identities were ever made.
async fn created(emulator: &Emulator) -> u64 {
    let stats = emulator.control("GET", "stats", None).await;
    stats["identities"]["created"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_beside_the_id_map_creates_nobody_anew() {
    let emulator = Emulator::start(&[]);
    let stage = stage(&emulator);
    let config = stage.path("renewd.toml");
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    stage.there("bot-1").await;
    assert!(daemon.stop().success());
    stage.lose_database();
    assert_eq!(created(&emulator).await, 2);
    let before = stage.document("bot-0").unwrap()["id"].clone();
    let token = stage.token("bot-0");
    let daemon = Daemon::start(&config).await;
    stage.reissued("bot-0", &token).await;
    assert_eq!(stage.document("bot-0").unwrap()["id"], before);
    assert_eq!(created(&emulator).await, 2);
    assert_eq!(stage.wait_to_be_created(&daemon), Vec::<String>::new());
    let said = stage.renewd(&["status"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("identities.jsonl was taken over: 2 ids"),
        "{said}"
    );
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_id_nobody_knows_after_a_loss_is_created_by_a_persons_word_alone() {
    let emulator = Emulator::start(&[]);
    let stage = stage(&emulator);
    let config = stage.path("renewd.toml");
    let daemon = Daemon::start(&config).await;
    let tokens = ["bot-0", "bot-1"];
    for name in tokens {
        stage.there(name).await;
    }
    assert!(daemon.stop().success());
    let tokens = tokens.map(|name| (name, stage.token(name)));
    stage.lose_database();
    fs::remove_file(stage.path("state/identities.jsonl")).unwrap();
    let renewd = |args: &[&str]| {
        let output = stage.renewd(args);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    for _ in 0..2 {
        let mut daemon = Daemon::launch(&config, &[]);
        daemon.ready().await;
        assert_eq!(stage.wait_to_be_created(&daemon), ["bot-0", "bot-1"]);
        let (_, why) = renewd(&["why", "bot-0"]);
        assert!(why.contains("renewd identity create bot-0"), "{why}");
        assert!(daemon.stop().success());
    }
    assert_eq!(
        created(&emulator).await,
        2,
        "nobody is made anew in silence"
    );
    let daemon = Daemon::start(&config).await;
    assert_eq!(renewd(&["identity", "create"]).0, Some(2));
    let (code, said) = renewd(&[
        "identity",
        "create",
        "bot-0",
        "bot-9",
        "--reason",
        "it is new",
    ]);
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("1 identity is created now") && said.contains("bot-9"),
        "{said}"
    );
    stage.reissued(tokens[0].0, &tokens[0].1).await;
    assert_eq!(created(&emulator).await, 3);
    assert_eq!(stage.wait_to_be_created(&daemon), ["bot-1"]);
    assert_eq!(renewd(&["identity", "create", "bot-0"]).0, Some(1));
    assert_eq!(renewd(&["identity", "create", "--all-missing"]).0, Some(0));
    stage.reissued(tokens[1].0, &tokens[1].1).await;
    assert_eq!(created(&emulator).await, 4);
    assert_eq!(stage.wait_to_be_created(&daemon), Vec::<String>::new());
    let (_, trail) = renewd(&["audit", "list", "--json"]);
    assert!(
        trail.contains("it is new") && trail.contains("may be created"),
        "{trail}"
    );
    assert!(daemon.stop().success());
}

/// Somebody with a configuration where an ordinary user's lies, begun by `daemon`.
fn configured(emulator: &Emulator, daemon: &str) -> Person {
    let person = Person::new();
    let tokens = person.path("tokens").display().to_string();
    let config = person.path(".config/renewd");
    fs::create_dir_all(&config).unwrap();
    fs::create_dir(person.path("run")).unwrap();
    let text = format!(
        "[daemon]\nlisten = \"\"\n{daemon}\n[[resource]]\nname = \"contoso\"\n\
         connection_string = {{ file = \"contoso.cs\" }}\n\
         [[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\nsinks = [\"files\"]\n\
         [[sink.file]]\nname = \"files\"\npath = \"{tokens}/{{name}}.json\"\n"
    );
    fs::write(config.join("renewd.toml"), text).unwrap();
    let secret = config.join("contoso.cs");
    fs::write(&secret, &emulator.connection_string).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for path in [
        "run",
        ".config",
        ".config/renewd",
        ".config/renewd/contoso.cs",
    ] {
        person.own(&person.path(path));
    }
    person
}

impl Person {
    /// Starts the daemon; its first line, once it answers.
    fn starts(&self, variables: &[(&str, &Path)]) -> (Running, String) {
        let mut command = self.command(&["run"], variables);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        // The pipe is read to its end, so that nothing blocks the daemon.
        std::thread::spawn(move || lines.for_each(drop));
        let running = Running(child);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let waited = self.renewd(&["wait", "bot", "--timeout", "30s"], variables);
            if waited.status.success() {
                return (running, first);
            }
            let said = String::from_utf8_lossy(&waited.stderr).into_owned();
            assert!(
                Instant::now() < until,
                "the daemon does not answer:\n{first}\n{said}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A daemon that ends with the test.
struct Running(Child);

impl Running {
    fn ends_well(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn who_has_no_systemd_names_no_socket_and_makes_no_folder() {
    let emulator = Emulator::start(&[]);
    let person = configured(&emulator, "");
    let (run, named) = (person.path("run"), person.path("named.sock"));
    for (variables, socket) in [
        (vec![], person.path(".local/state/renewd/renewd.sock")),
        (
            vec![("XDG_RUNTIME_DIR", &*run)],
            run.join("renewd/renewd.sock"),
        ),
        (vec![("RENEWD_SOCKET", &*named)], named.clone()),
    ] {
        let (running, first) = person.starts(&variables);
        for part in [
            "renewd starts".to_owned(),
            format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
            format!(
                "configuration={}",
                person.path(".config/renewd/renewd.toml").display()
            ),
            format!("socket={}", socket.display()),
            "listener=none".to_owned(),
        ] {
            assert!(first.contains(&part), "{part}: {first}");
        }
        assert!(socket.exists(), "{socket:?}");
        let status = person.renewd(&["status"], &variables);
        assert!(status.status.success(), "{status:?}");
        running.ends_well();
    }
    let made = fs::metadata(run.join("renewd")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o711);
    assert_eq!(made.uid(), person.id);
}

#[test]
fn commands_read_the_socket_from_the_configuration_that_they_would_run_with() {
    let emulator = Emulator::start(&[]);
    let person = configured(&emulator, "socket = \"../../run/made/s\"");
    let (running, first) = person.starts(&[]);
    assert!(first.contains("/run/made/s"), "{first}");
    // What is wrong in the file since then keeps nobody from asking the daemon that runs.
    let config = person.path(".config/renewd/renewd.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("scopes", "scpoes")).unwrap();
    let status = person.renewd(&["status"], &[]);
    assert!(status.status.success(), "{status:?}");
    running.ends_well();
}
