//! `docs/recovery.md`, typed: each recipe is read from the page and its commands are run in their order.
//! Only places differ: a stage's folders stand for the machine's, a child process for the unit.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::time::timeout;

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities, until};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recovery.md");
/// Verbs of the page that read the configuration, which on a real machine is at its usual place.
const CONFIGURED: [&str; 5] = ["backup", "restore", "open", "adopt", "distrust"];

/// A machine: a stage with its daemon, which commands stop and start.
struct Machine {
    stage: Stage,
    daemon: Option<Daemon>,
    emulator: Emulator,
    looks: Looks,
}

impl Machine {
    async fn start() -> Self {
        Self::start_with(&["files"]).await
    }

    /// With these of the sinks `files` and `all`, a bundle.
    async fn start_with(sinks: &[&str]) -> Self {
        let emulator = Emulator::start(&[]);
        let stage = Stage::new(&emulator);
        let bundle = format!(
            "\n[[sink.file]]\nname = \"all\"\npath = \"{}\"\nbundle = true\n",
            stage.path("all.json").display()
        );
        stage.configure(
            &(stage.base_config()
                + &stage.sinks_config(None)
                + &bundle
                + &identities("bot", 3, sinks)),
        );
        let daemon = Daemon::start(&stage.path("renewd.toml")).await;
        let files = ["bot-0", "bot-1", "bot-2"].map(|name| format!("tokens/{name}.json"));
        let bundle = sinks.contains(&"all").then(|| "all.json".to_owned());
        let files = files
            .into_iter()
            .chain(bundle)
            .map(|file| stage.path(&file));
        let files: Vec<PathBuf> = files.collect();
        until("every file", || files.iter().all(|file| file.exists())).await;
        Self {
            stage,
            looks: Looks::at(files, sinks.contains(&"all")),
            daemon: Some(daemon),
            emulator,
        }
    }

    /// Types every command of a section of the page.
    async fn follow(&mut self, section: &str) {
        for line in commands(section) {
            self.type_in(&line).await;
        }
    }

    async fn type_in(&mut self, line: &str) {
        match line {
            "systemctl stop renewd" => {
                self.daemon.take().expect("a daemon runs").stop();
            }
            "systemctl start renewd" => {
                let config = self.stage.path("renewd.toml");
                self.daemon = Some(Daemon::start(&config).await);
            }
            line => {
                let (code, said) = self.run(line);
                assert_eq!(code, 0, "{line}\n{said}");
            }
        }
    }

    /// Runs a command of the page in this machine's folders; its exit code and what it said.
    fn run(&self, line: &str) -> (i32, String) {
        let mut line = line.replace(" -o renewd -g renewd", "");
        for (there, here) in [
            ("/var/lib/renewd", "state"),
            ("/var/backups/renewd", "backups"),
            ("/root/renewd-key", "keys"),
        ] {
            line = line.replace(there, self.stage.path(here).to_str().unwrap());
        }
        let mut words = line.split_whitespace();
        let program = match words.next().unwrap() {
            "renewd" => RENEWD,
            other => other,
        };
        let words: Vec<&str> = words.collect();
        let mut command = Command::new(program);
        command
            .args(&words)
            .env("RENEWD_SOCKET", self.stage.path("renewd.sock"));
        if words[0] == "store" && CONFIGURED.contains(&words[1]) {
            command.arg("--config").arg(self.stage.path("renewd.toml"));
        }
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }

    /// As another machine would be: another instance, and nothing but the configuration.
    fn become_another(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
        let config = self.stage.path("renewd.toml");
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace("instance = \"stage\"", "instance = \"other\"");
        fs::write(&config, text).unwrap();
        fs::remove_dir_all(self.stage.path("state")).unwrap();
    }

    fn kinds(&self) -> Vec<String> {
        let daemon = self.daemon.as_ref().unwrap();
        let status = daemon.status(&self.stage.path("renewd.sock"));
        let needs = status["needs"].as_array().unwrap();
        needs
            .iter()
            .map(|need| need["kind"].as_str().unwrap().to_owned())
            .collect()
    }

    fn ids(&self) -> Vec<String> {
        ["bot-0", "bot-1", "bot-2"]
            .map(|name| self.stage.document(name).unwrap()["id"].to_string())
            .to_vec()
    }

    /// Everybody has the same id as before, a token that ACS takes for live, and nobody was made anew.
    async fn all_is_well(&self, ids: &[String], created: u64) {
        let served = async {
            for name in ["bot-0", "bot-1", "bot-2"] {
                while self.run(&format!("renewd token {name}")).0 != 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        timeout(Duration::from_secs(30), served)
            .await
            .unwrap_or_else(|_| panic!("not everybody is served: {}", self.run("renewd status").1));
        assert_eq!(self.ids(), ids);
        let stats = self.emulator.control("GET", "stats", None).await;
        assert_eq!(stats["identities"]["created"], created, "{stats}");
        // Whoever read a token from a file meanwhile found one.
        let without = self.looks.without.lock().unwrap();
        assert!(without.is_empty(), "{}", without[0]);
    }
}

/// Looks at files over and over, as who reads tokens from them.
struct Looks {
    stop: Arc<AtomicBool>,
    /// What held no token.
    without: Arc<Mutex<Vec<String>>>,
}

impl Looks {
    /// One that is not there holds none, either, where nobody may remove it.
    fn at(files: Vec<PathBuf>, all_stay: bool) -> Self {
        let looks = Self {
            stop: Arc::default(),
            without: Arc::default(),
        };
        let (stop, without) = (looks.stop.clone(), looks.without.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                for file in &files {
                    let text = match fs::read_to_string(file) {
                        Ok(text) => text,
                        Err(_) if all_stay => String::new(),
                        Err(_) => continue,
                    };
                    let wanted = if file.ends_with("all.json") { 3 } else { 1 };
                    if text.matches("\"token\":\"").count() < wanted {
                        let told = format!("{}: {text}", file.display());
                        without.lock().unwrap().push(told);
                    }
                }
            }
        });
        looks
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// The commands of a section, without `sudo`.
fn commands(section: &str) -> Vec<String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let heading = format!("\n## {section}\n");
    let text = page
        .split_once(&heading)
        .unwrap_or_else(|| panic!("the page has no section {section:?}"))
        .1;
    let text = text.split("\n## ").next().unwrap();
    let blocks = text.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let lines: Vec<String> = lines
        .map(|line| line.trim_start_matches("sudo ").to_owned())
        .collect();
    assert!(!lines.is_empty(), "{section:?} has no commands");
    lines
}

fn is_private(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o777 == 0o600
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_and_their_age_is_told() {
    let mut machine = Machine::start().await;
    machine.follow("Make backups").await;
    assert!(is_private(&machine.stage.path("backups/renewd.backup")));
    assert!(is_private(&machine.stage.path("keys/seal.key")));
    let (_, said) = machine.run("renewd status");
    assert!(said.contains("last backup"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_was_restored() {
    let mut machine = Machine::start().await;
    let (ids, before) = (machine.ids(), machine.stage.token("bot-0"));
    let mut lines = commands("A snapshot was restored");
    let last = lines.pop().unwrap();
    for line in lines {
        machine.type_in(&line).await;
    }
    assert_eq!(machine.kinds()[0], "store_unusable");
    assert_ne!(machine.run("renewd token bot-0").0, 0);
    machine.type_in(&last).await;
    timeout(
        Duration::from_secs(30),
        machine.stage.reissued("bot-0", &before),
    )
    .await
    .expect("what is of unknown standing is minted anew");
    machine.all_is_well(&ids, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_are_wrong_are_mended() {
    let mut machine = Machine::start().await;
    machine.type_in("systemctl stop renewd").await;
    let config = machine.stage.path("renewd.toml");
    let verify = format!("renewd store verify --config {}", config.display());
    let (code, said) = machine.run(&verify);
    assert_eq!(
        (code, said.trim()),
        (0, "every counter of the store is right")
    );
    let database =
        rusqlite::Connection::open(machine.stage.path("state").join("renewd.db")).unwrap();
    database
        .execute_batch("UPDATE identity_count SET n = 7; DELETE FROM consumer_count")
        .unwrap();
    drop(database);
    let (code, said) = machine.run(&verify);
    assert!(code == 0 && said.contains("identities by state"), "{said}");
    assert!(said.contains("consumers"), "{said}");
    let (code, said) = machine.run(&format!("{verify} --json"));
    let said: String = said.split_whitespace().collect();
    assert_eq!(
        (code, said.as_str()),
        (0, r#"{"schema_version":1,"mended":[]}"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_database_is_lost() {
    let mut machine = Machine::start().await;
    for line in [
        "renewd identity add extra --scope voip --sink files --label team=night",
        "renewd identity add held --scope chat --sink files",
    ] {
        machine.type_in(line).await;
    }
    for name in ["extra", "held"] {
        machine.stage.there(name).await;
    }
    machine
        .type_in("renewd revoke held --then hold --yes")
        .await;
    let (ids, before) = (machine.ids(), machine.stage.token("extra"));
    machine.stage.lose_database();
    machine.follow("Only the database is lost").await;
    timeout(
        Duration::from_secs(30),
        machine.stage.reissued("extra", &before),
    )
    .await
    .expect("what the database alone kept goes on");
    let (_, shown) = machine.run("renewd identity show extra --json");
    assert!(shown.contains("voip") && shown.contains("night"), "{shown}");
    let (code, said) = machine.run("renewd token held");
    assert!(code != 0 && said.contains("held"), "{said}");
    assert!(machine.kinds().is_empty(), "{:?}", machine.kinds());
    machine.all_is_well(&ids, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_lost_and_there_is_a_backup() {
    let mut machine = Machine::start().await;
    machine.follow("Make backups").await;
    let ids = machine.ids();
    machine.stage.lose_database();
    machine
        .follow("The database is lost and there is a backup")
        .await;
    if machine.kinds().contains(&"store_unusable".to_owned()) {
        // Nothing had been withdrawn, so that no file was there that knows what came after.
        machine.type_in("renewd store accept").await;
    }
    machine.all_is_well(&ids, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_lost_but_the_configuration() {
    let mut machine = Machine::start().await;
    machine.follow("Make backups").await;
    let (ids, before) = (machine.ids(), machine.stage.token("bot-0"));
    machine.become_another();
    machine
        .follow("Everything is lost but the configuration")
        .await;
    timeout(
        Duration::from_secs(30),
        machine.stage.reissued("bot-0", &before),
    )
    .await
    .expect("what is of unknown standing is minted anew");
    machine.all_is_well(&ids, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_a_new_host() {
    let mut machine = Machine::start().await;
    machine.type_in("install -d -m 700 /root/renewd-key").await;
    let ids = machine.ids();
    let lines = commands("Moving to a new host");
    let (here, there) = lines.split_at(2);
    for line in here {
        machine.type_in(line).await;
    }
    let refused = Command::new(RENEWD)
        .args(["run", "--config"])
        .arg(machine.stage.path("renewd.toml"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "the old store goes on");
    machine.become_another();
    for line in there {
        machine.type_in(line).await;
    }
    assert!(machine.kinds().is_empty(), "{:?}", machine.kinds());
    machine.all_is_well(&ids, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seal_key_is_lost_for_ever() {
    let mut machine = Machine::start().await;
    let (ids, before) = (machine.ids(), machine.stage.token("bot-0"));
    machine.type_in("systemctl stop renewd").await;
    fs::remove_file(machine.stage.path("state/seal.key")).unwrap();
    machine.follow("The seal key is lost for ever").await;
    timeout(
        Duration::from_secs(30),
        machine.stage.reissued("bot-0", &before),
    )
    .await
    .expect("every token is minted anew");
    machine.all_is_well(&ids, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_another_machine_does_nothing_until_it_is_adopted() {
    let mut machine = Machine::start().await;
    let ids = machine.ids();
    machine.type_in("systemctl stop renewd").await;
    let config = machine.stage.path("renewd.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("instance = \"stage\"", "instance = \"staging\""),
    )
    .unwrap();
    machine.type_in("systemctl start renewd").await;
    assert_eq!(machine.kinds()[0], "store_unusable");
    let (_, said) = machine.run("renewd status");
    assert!(said.contains("renewd store adopt"), "{said}");
    for refused in ["renewd token bot-0", "renewd revoke bot-0 --yes"] {
        let (code, said) = machine.run(refused);
        assert_ne!(code, 0, "{refused}: {said}");
    }
    let (code, said) = machine.run("renewd store accept");
    assert_eq!(code, 1, "{said}");
    machine.type_in("renewd store adopt").await;
    machine.all_is_well(&ids, 3).await;
    let (code, said) = machine.run("renewd store adopt");
    assert_eq!(code, 1, "{said}");
}

/// Whatever is lost, and although ACS cannot be asked meanwhile: whoever reads the file of one or the bundle of all finds
/// every token there, the old one until the new one comes.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_keep_what_they_hold_until_its_successor_comes() {
    for lost in ["seal key", "database", "database with a backup", "snapshot"] {
        let mut machine = Machine::start_with(&["files", "all"]).await;
        let ids = machine.ids();
        machine.follow("Make backups").await;
        let outage = json!({"kind": "outage"});
        let emulator = &machine.emulator;
        emulator.control("POST", "faults", Some(outage)).await;
        match lost {
            "seal key" => {
                machine.type_in("systemctl stop renewd").await;
                fs::remove_file(machine.stage.path("state/seal.key")).unwrap();
                machine.follow("The seal key is lost for ever").await;
            }
            "database" => {
                machine.stage.lose_database();
                machine.follow("Only the database is lost").await;
            }
            "database with a backup" => {
                machine.stage.lose_database();
                let recipe = "The database is lost and there is a backup";
                machine.follow(recipe).await;
                if machine.kinds().contains(&"store_unusable".to_owned()) {
                    machine.type_in("renewd store accept").await;
                }
            }
            _ => machine.follow("A snapshot was restored").await,
        }
        let why = machine.run("renewd why bot-0").1;
        assert!(!why.contains("revoked"), "{lost}: {why}");
        machine.emulator.control("DELETE", "faults", None).await;
        machine.all_is_well(&ids, 3).await;
        let bundle = machine.stage.path("all.json");
        let newest = || machine.stage.token("bot-0");
        let holds_it = || fs::read_to_string(&bundle).unwrap().contains(&newest());
        until("the bundle to hold what is newest", holds_it).await;
        machine.all_is_well(&ids, 3).await;
    }
}
