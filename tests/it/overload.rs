//! Whoever may connect, however many and as whomever: the daemon lives, takes little memory and no more
//! threads, and serves the readers that it knows meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::stage::{Daemon, Emulator, Stage};

/// The user that reads `bot`, one that reads `other`, and those that read nothing.
const READER: u32 = 20_001;
const OTHER: u32 = 20_002;
const STRANGERS: [u32; 4] = [20_011, 20_012, 20_013, 20_014];
/// How long each attack lasts in seconds, where it is not ended before.
const LASTS: &str = "60";
/// How long a reader asks in seconds, and how often at least, each time within ten seconds.
const ASKS: [&str; 2] = ["3", "6"];
/// More than a daemon takes that does little, in kB, whatever is asked of it.
const MEMORY: u64 = 200_000;

struct Harness {
    stage: Stage,
    daemon: Daemon,
    _emulator: Emulator,
}

async fn harness(listen: &str) -> Harness {
    assert_eq!(renewd::accounts::own_uid(), 0, "this test needs root");
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let base = stage.base_config();
    let base = base.replace("listen = \"\"", &format!("listen = \"{listen}\""));
    let identity = |name: &str, reader: u32| {
        format!(
            "\n[[identity]]\nname = \"{name}\"\nscopes = [\"chat\"]\nreaders = [\"{reader}\"]\nsinks = []\n"
        )
    };
    let config = format!(
        "{base}{}{}",
        identity("bot", READER),
        identity("other", OTHER)
    );
    let daemon = Daemon::start(&stage.configure(&config)).await;
    let harness = Harness {
        stage,
        daemon,
        _emulator: emulator,
    };
    let issued = async {
        while harness.stage.renewd(&["token", "bot"]).status.code() != Some(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let issued = tokio::time::timeout(Duration::from_secs(20), issued).await;
    issued.expect("bot has a token within 20 s");
    harness
}

fn python(script: &str, uid: u32, arguments: &[&str]) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fixtures")
        .join(script);
    // The folder of the sources need not be open to others.
    let text = fs::read_to_string(script).unwrap();
    Command::new("python3")
        .args(["-I", "-c", &text])
        .args(arguments)
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn told(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What an attacker was told until now, who goes on no longer.
fn ended(attacker: Child) -> Value {
    let pid = rustix::process::Pid::from_child(&attacker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    told(attacker)
}

impl Harness {
    fn attack(&self, uid: u32, connections: u32, kind: &str) -> Child {
        let socket = self.stage.path("renewd.sock");
        let connections = connections.to_string();
        python(
            "callers.py",
            uid,
            &[socket.to_str().unwrap(), &connections, LASTS, kind],
        )
    }

    /// The reader, and what the attackers were told; asserts what holds after every attack.
    fn withstands(&self, attackers: Vec<Child>) -> Vec<BTreeMap<String, u64>> {
        let threads = || {
            fs::read_dir(format!("/proc/{}/task", self.daemon.pid()))
                .unwrap()
                .count()
        };
        let before = threads();
        let socket = self.stage.path("renewd.sock");
        let arguments = [socket.to_str().unwrap(), "bot", ASKS[0], ASKS[1]];
        let reader = told(python("reader.py", READER, &arguments));
        let during = threads();
        let attackers: Vec<Value> = attackers.into_iter().map(ended).collect();
        let statuses = reader["statuses"].as_object().unwrap();
        assert!(
            statuses.len() == 1 && statuses.contains_key("200"),
            "the reader is served throughout: {reader}; {attackers:?}"
        );
        assert_eq!(
            (before, threads()),
            (during, during),
            "no thread is made later on"
        );
        assert!(during <= renewd::app::THREADS, "{during}");
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let peak: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        println!("{peak} kB at most, {during} threads; {reader}; {attackers:?}");
        assert!(peak < MEMORY, "{peak} kB");
        assert!(
            !self.daemon.log().contains("panic"),
            "{}",
            self.daemon.log()
        );
        attackers
            .into_iter()
            .map(|told| serde_json::from_value(told).unwrap())
            .collect()
    }
}

/// The 503s of an attacker, in words.
fn reasons(told: &BTreeMap<String, u64>) -> Vec<&str> {
    let words = told.keys().map(String::as_str);
    words
        .filter(|word| word.len() > 3 && !["cut", "connected", "not connected"].contains(word))
        .collect()
}

#[tokio::test]
async fn bodies_that_never_end_of_users_without_rights_cost_nothing_and_lock_nobody_out() {
    let harness = harness("").await;
    let attackers = STRANGERS.map(|uid| harness.attack(uid, 200, "bodies"));
    for told in harness.withstands(attackers.into()) {
        let reasons = reasons(&told);
        assert!(
            !reasons.is_empty(),
            "there are few seats for them: {told:?}"
        );
        assert!(
            reasons
                .iter()
                .all(|why| why.contains("may read no identity here")
                    || why.contains("asked who this user is")),
            "{reasons:?}"
        );
        assert!(!told.contains_key("200"), "{told:?}");
    }
}

#[tokio::test]
async fn refusals_of_nine_hundred_connections_delay_no_reader_and_make_no_thread() {
    let harness = harness("").await;
    let mut attackers: Vec<Child> = STRANGERS
        .map(|uid| harness.attack(uid, 150, "pipelined"))
        .into();
    attackers.push(harness.attack(OTHER, 300, "pipelined"));
    let told = harness.withstands(attackers);
    assert!(
        told[4]["403"] > 0,
        "a reader of another identity is answered, too: {:?}",
        told[4]
    );
}

#[tokio::test]
async fn a_reader_who_sends_and_takes_nothing_costs_little_and_locks_nobody_out() {
    let harness = harness("").await;
    // Whoever was served once is known for a while, however busy the machine is.
    let socket = harness.stage.path("renewd.sock");
    let arguments = [socket.to_str().unwrap(), "other", "0", "1"];
    let known = told(python("reader.py", OTHER, &arguments));
    assert!(known["statuses"]["200"].as_u64() > Some(0), "{known}");
    let attackers = vec![
        harness.attack(OTHER, 700, "deaf"),
        harness.attack(OTHER, 500, "bodies"),
    ];
    let told = harness.withstands(attackers);
    let reasons: Vec<&str> = told.iter().flat_map(reasons).collect();
    assert!(
        reasons
            .iter()
            .all(|why| *why == "this user has 1024 connections open, which is the most"),
        "{reasons:?}"
    );
}

/// A daemon on a port of its own, whose probes are to be answered while these come.
async fn probes_withstand(kinds: &[(&str, &str)]) -> (Harness, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let harness = harness(&address).await;
    let attackers: Vec<Child> = kinds
        .iter()
        .zip(STRANGERS)
        .map(|((kind, count), uid)| python("callers.py", uid, &[&address, count, LASTS, kind]))
        .collect();
    let (began, mut rounds) = (Instant::now(), 0);
    while rounds < 4 || began.elapsed() < Duration::from_secs(3) {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = get(&address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
        rounds += 1;
    }
    let attackers: Vec<Value> = attackers.into_iter().map(ended).collect();
    println!("{rounds} rounds; {attackers:?}");
    (harness, address)
}

#[tokio::test]
async fn slow_connections_over_tcp_do_not_blind_the_probes() {
    let (harness, address) = probes_withstand(&[("slow", "270")]).await;
    let garbage = get(&address, "/ no path").await;
    assert!(
        garbage.starts_with("HTTP/1.1 400") && garbage.contains("\"type\":\"invalid\""),
        "{garbage}"
    );
    drop(harness);
}

#[tokio::test]
async fn no_flood_over_tcp_blinds_the_probes() {
    let kinds = [("flood", "200"), ("scrape", "150"), ("deaf-page", "300")];
    drop(probes_withstand(&kinds).await);
}

/// A daemon in a network of its own, where every address of `198.18.0.0/15` leads to it.
async fn daemon_on_a_network() -> (Stage, Daemon, Emulator) {
    const SETUP: &str =
        "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && exec \"$@\"";
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let base = stage.base_config();
    let base = base.replace("listen = \"\"", "listen = \"0.0.0.0:9847\"");
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--", "sh", "-c", SETUP, "sh", crate::stage::RENEWD]);
    let mut daemon = Daemon::spawn(&stage.configure(&base), &mut inside);
    daemon.ready().await;
    (stage, daemon, emulator)
}

/// A script in the network of a daemon.
fn beside(daemon: &Daemon, script: &str, arguments: &[&str]) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fixtures")
        .join(script);
    Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", daemon.pid()))
        .args(["--", "python3", "-I"])
        .arg(script)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The probe of a cluster comes from another machine, and so does a flood, from more addresses than there is room.
#[tokio::test]
async fn a_flood_from_many_addresses_does_not_blind_the_probe_of_another_machine() {
    let (_stage, daemon, _emulator) = daemon_on_a_network().await;
    let anywhere = "198.18.0.1:9847@198.19.0.0/16";
    let attackers = [
        ("flood", "900"),
        ("slow", "900"),
        ("scrape", "300"),
        ("deaf-page", "600"),
    ]
    .map(|(kind, count)| beside(&daemon, "callers.py", &[anywhere, count, LASTS, kind]));
    let probe = told(beside(
        &daemon,
        "reader.py",
        &["198.18.0.1:9847@198.18.0.2", "-", ASKS[0], ASKS[1]],
    ));
    let attackers = attackers.map(ended);
    println!("{probe}; {attackers:?}");
    let statuses = probe["statuses"].as_object().unwrap();
    assert!(
        statuses.len() == 1 && statuses.contains_key("200"),
        "each is answered: {probe}; {attackers:?}"
    );
}

async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), asked).await;
    answer
        .expect("an answer within 10 s")
        .unwrap_or_else(|error| error.to_string())
}

/// Waits for something that a closure sees.
async fn until<T>(what: &str, daemon: &Daemon, seen: impl Fn() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(seen) = seen() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(60), looked).await;
    looked.unwrap_or_else(|_| panic!("no {what} within 60 s:\n{}", daemon.log()))
}

/// The user of the daemon that may have few processes and threads.
const OF_FEW: u32 = 20_021;

/// So many processes and threads may that user have from now on.
fn allow_tasks(daemon: &Daemon, most: &str) {
    let mut limit = Command::new("prlimit");
    limit.arg("--pid").arg(daemon.pid().to_string());
    limit
        .arg(format!("--nproc={most}:"))
        .uid(OF_FEW)
        .gid(OF_FEW);
    assert!(limit.status().unwrap().success());
}

/// A stage whose daemon runs a program, reads a list and is another user's, who may have few processes and threads.
fn stage_of_few(emulator: &Emulator, tasks: &str) -> (Stage, Daemon) {
    let stage = Stage::new(emulator);
    fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let list = stage.path("list.jsonl");
    fs::write(&list, "{\"name\":\"anna\"}\n").unwrap();
    let config = stage.configure(&format!(
        "{}{}\n[[sink.exec]]\nname = \"hook\"\ncommand = [\"/bin/true\"]\n\
         [[source.file]]\nname = \"list\"\npath = \"{}\"\nevery = \"1s\"\nscopes = [\"chat\"]\nsinks = [\"files\"]\n\
         [[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\nreaders = [\"{READER}\"]\nsinks = [\"files\", \"hook\"]\n",
        stage.base_config(),
        stage.sinks_config(None),
        list.display(),
    ));
    // The folder of the program need not be open to others.
    let program = stage.path("renewd");
    fs::hard_link(crate::stage::RENEWD, &program)
        .or_else(|_| fs::copy(crate::stage::RENEWD, &program).map(|_| ()))
        .unwrap();
    let owner = format!("{OF_FEW}:{OF_FEW}");
    for mine in [
        "",
        "state",
        "tokens",
        "contoso.cs",
        "renewd.toml",
        "list.jsonl",
    ] {
        let given = Command::new("chown")
            .arg(&owner)
            .arg(stage.path(mine))
            .status();
        assert!(given.unwrap().success());
    }
    let mut few = Command::new("prlimit");
    few.arg(format!("--nproc={tasks}:")).arg("--").arg(&program);
    few.uid(OF_FEW).gid(OF_FEW);
    let daemon = Daemon::spawn(&config, &mut few);
    (stage, daemon)
}

/// A daemon of a user who may have few processes and threads, and then none: what needs one fails by itself and
/// says so, all else goes on, and what failed is made up for.
#[tokio::test]
async fn where_no_thread_and_no_program_can_be_started_each_fails_by_itself() {
    let emulator = Emulator::start(&["--limit", "all=off"]);
    let (none, daemon) = stage_of_few(&emulator, "2");
    let log = none.path("daemon.log");
    assert_eq!(daemon.wait().code(), Some(1));
    let log = fs::read_to_string(log).unwrap();
    let is_told = log.contains("cannot start threads: the system gives no more");
    assert!(is_told && !log.contains("panic"), "{log}");

    let (stage, mut daemon) = stage_of_few(&emulator, "30");
    daemon.ready().await;
    stage.there("bot").await;
    stage.there("anna").await;
    let log = daemon.log();
    assert!(log.contains("of 40 threads could be made"), "{log}");

    allow_tasks(&daemon, "0");
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        tasks.count()
    };
    let before = threads();
    let list = "{\"name\":\"anna\"}\n{\"name\":\"bert\"}\n";
    fs::write(stage.path("list.jsonl"), list).unwrap();
    let old = stage.token("bot");
    let ordered = stage.renewd(&["renew", "bot", "--yes", "--detach"]);
    assert_eq!(ordered.status.code(), Some(0), "{ordered:?}");
    stage.reissued("bot", &old).await;
    let socket = stage.path("renewd.sock");
    let hook = || daemon.status(&socket)["couriers"]["hook"].clone();
    let failed = || hook()["last_error"].as_str().map(str::to_owned);
    let trouble = until("failure of the program", &daemon, failed).await;
    let is_told = trouble.contains("cannot run /bin/true") && trouble.contains("TasksMax=");
    assert!(is_told, "{trouble}");
    let lapse = || {
        let listed = stage.renewd(&["source", "list", "--json"]);
        let all: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let reason = &all["sources"][0]["lapse"]["reason"];
        reason.as_str().map(str::to_owned)
    };
    let reason = until("lapse of the list", &daemon, lapse).await;
    let told_of = "no program for that can be started";
    assert!(reason.contains(told_of), "{reason}");
    let arguments = [socket.to_str().unwrap(), "bot", "1", ASKS[1]];
    let reader = told(python("reader.py", READER, &arguments));
    assert_eq!(reader["statuses"].as_object().unwrap().len(), 1, "{reader}");
    assert!(reader["statuses"]["200"].as_u64() > Some(5), "{reader}");
    let doctor = stage.renewd(&["doctor"]);
    assert!(!doctor.stdout.is_empty(), "{doctor:?}");
    assert_eq!(threads(), before);

    allow_tasks(&daemon, "500");
    stage.there("bert").await;
    let ran = || (hook()["failures_in_row"] == 0).then_some(());
    until("run of the program", &daemon, ran).await;
    assert!(!daemon.log().contains("panic"), "{}", daemon.log());
    assert!(daemon.stop().success());
}
