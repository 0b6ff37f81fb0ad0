//! Lists that others own, made to hurt: whatever lies in a list's place, the daemon lives, says why nothing
//! is taken over, ends when it is told to, and keeps nobody's files in place.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::Value;

use crate::stage::{Daemon, Emulator, Stage};

/// A daemon with one source.
struct Harness {
    stage: Stage,
    daemon: Daemon,
    _emulator: Emulator,
}

impl Harness {
    /// Starts it on a `[[source.KIND]]` `list` with these lines.
    async fn start(stage: Stage, emulator: Emulator, kind: &str, lines: &str) -> Self {
        let config = stage.configure(&format!(
            "{}{}\n[[source.{kind}]]\nname = \"list\"\nevery = \"1s\"\n{lines}\n",
            stage.base_config(),
            stage.sinks_config(None)
        ));
        let daemon = Daemon::start(&config).await;
        Self {
            stage,
            daemon,
            _emulator: emulator,
        }
    }

    fn listed(&self) -> Value {
        self.listed_of("list")
    }

    fn listed_of(&self, name: &str) -> Value {
        let output = self.stage.renewd(&["source", "list", "--json"]);
        let all: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", self.daemon.log()));
        let sources = all["sources"].as_array().unwrap();
        let list = sources.iter().find(|source| source["name"] == name);
        list.unwrap_or_else(|| panic!("{all}")).clone()
    }

    /// Waits until what the source says of itself is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until_of("list", what, wanted).await
    }

    async fn until_of(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let listed = self.listed_of(name);
            if wanted(&listed) {
                return listed;
            }
            let waited = began.elapsed();
            assert!(
                waited < Duration::from_secs(180),
                "no {what}: {listed}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn lapsed(&self, word: &str) -> String {
        self.lapse_of("list", word).await
    }

    async fn lapse_of(&self, name: &str, word: &str) -> String {
        let reason = |listed: &Value| listed["lapse"]["reason"].as_str().map(str::to_owned);
        let is_said = |listed: &Value| reason(listed).is_some_and(|reason| reason.contains(word));
        reason(&self.until_of(name, word, is_said).await).unwrap()
    }

    async fn taken(&self, identities: u64) -> Value {
        let is_so =
            |listed: &Value| listed["identities"] == identities && listed["lapse"].is_null();
        self.until("list that was taken over", is_so).await
    }
}

fn stage() -> (Stage, Emulator) {
    let emulator = Emulator::start(&["--limit", "all=off"]);
    (Stage::new(&emulator), emulator)
}

/// Lines of a source on a database in this folder.
fn query(path: &Path, query: &str) -> String {
    format!(
        "path = \"{}\"\nquery = '''{query}'''\nscopes = [\"chat\"]\nsinks = [\"files\"]",
        path.display()
    )
}

fn database(path: &Path, journal: &str) -> Connection {
    let owner = Connection::open(path).unwrap();
    owner.pragma_update(None, "journal_mode", journal).unwrap();
    owner
        .execute_batch("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('anna')")
        .unwrap();
    owner
}

/// Never gives a row, and never ends.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT 'x' AS name FROM n WHERE i < 0";

/// What a reader may take, in kB.
const MEMORY_OF_READER: u64 = renewd::sources::MEMORY_OF_READER as u64 >> 10;

/// The children of a process.
fn children(of: u32) -> Vec<PathBuf> {
    let is_child = |folder: &Path| {
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let rest = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| rest)
            .to_owned();
        rest.split(' ').nth(1) == Some(&of.to_string())
    };
    let folders = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    folders.filter(|folder| is_child(folder)).collect()
}

/// What a reader of `app.db` has open besides that, its socket and nothing.
fn strange_descriptors(reader: &Path) -> Vec<String> {
    let open = fs::read_dir(reader.join("fd")).unwrap();
    let leads_to = open.filter_map(|descriptor| fs::read_link(descriptor.unwrap().path()).ok());
    let shown = leads_to.map(|path| path.to_string_lossy().into_owned());
    let is_known =
        |to: &String| to == "/dev/null" || to.starts_with("socket:") || to.ends_with("/app.db");
    shown.filter(|to| !is_known(to)).collect()
}

#[tokio::test]
async fn a_query_that_never_ends_is_seen_and_holds_nobody_up() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let _owner = database(&path, "delete");
    let harness = Harness::start(stage, emulator, "sqlite", &query(&path, ENDLESS)).await;
    harness
        .until("read under way", |listed| {
            !listed["reading_since"].is_null()
        })
        .await;

    // Who reads has nothing of ours.
    let readers = children(harness.daemon.pid());
    assert_eq!(readers.len(), 1, "{readers:?}");
    let reader = &readers[0];
    assert_eq!(
        fs::read(reader.join("environ")).unwrap(),
        b"",
        "its environment"
    );
    let argv = fs::read(reader.join("cmdline")).unwrap();
    assert_eq!(argv, b"/proc/self/exe\0read-list\0");
    // What it inherited it closes before anything else.
    let began = Instant::now();
    loop {
        let open = strange_descriptors(reader);
        if open.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{open:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let limits = fs::read_to_string(reader.join("limits")).unwrap();
    for limit in [
        "Max address space         671088640",
        "Max cpu time              240",
        "Max core file size        0",
    ] {
        assert!(limits.contains(limit), "{limit}\n{limits}");
    }

    let began = Instant::now();
    let Harness { daemon, .. } = harness;
    assert!(daemon.stop().success());
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    assert!(!reader.join("exe").exists(), "its reader ended with it");
}

#[tokio::test]
async fn what_is_no_list_is_explained_whatever_lies_there() {
    let (stage, emulator) = stage();
    let path = stage.path("users.jsonl");
    let lines = format!("path = \"{}\"\nscopes = [\"chat\"]", path.display());
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let harness = Harness::start(stage, emulator, "file", &lines).await;
    harness.lapsed("it is not a regular file").await;
    let put = |content: &[u8]| {
        let beside = path.with_extension("new");
        fs::write(&beside, content).unwrap();
        fs::rename(&beside, &path).unwrap();
    };
    put("\u{feff}{\"name\":\"anna\"}\n".as_bytes());
    harness.taken(1).await;
    put(b"\xff\xfe{\0\"\0n\0");
    harness.lapsed("it is UTF-16").await;
    put(&[b'x'; 3 << 20]);
    harness.lapsed("it is longer than 1 MiB").await;
    put(br#"{"name":"\u001b]0;owned\u0007\u202e"}"#);
    let reason = harness.lapsed("is not valid").await;
    assert!(
        !reason.contains(|c: char| c.is_control() || c == '\u{202e}'),
        "{reason:?}"
    );
    assert_eq!(harness.listed()["identities"], 1);
}

/// Whoever owns a list may put a link in its place, to a file that the daemon may read and they may not.
#[tokio::test]
async fn a_link_to_a_secret_in_a_lists_place_tells_nothing_of_it() {
    let (stage, emulator) = stage();
    let path = stage.path("users.jsonl");
    fs::write(&path, "{\"name\":\"anna\"}\n").unwrap();
    let lines = format!("path = \"{}\"\nscopes = [\"chat\"]", path.display());
    let harness = Harness::start(stage, emulator, "file", &lines).await;
    harness.taken(1).await;
    for secret in ["contoso.cs", "state/seal.key", "webhook.secret"] {
        let secret = harness.stage.path(secret);
        let text = fs::read_to_string(&secret).unwrap();
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        fs::rename(&link, &path).unwrap();
        let lapse = harness.lapsed("not a JSON object").await;
        let tried = harness.stage.renewd(&["source", "test", "list"]);
        let said = [lapse.into_bytes(), tried.stdout, tried.stderr].concat();
        let said = String::from_utf8(said).unwrap() + &harness.daemon.log();
        for word in text.trim().split([';', '=']).filter(|word| word.len() > 8) {
            assert!(!said.contains(word), "{secret:?}: {said}");
        }
        fs::write(path.with_extension("new"), "{\"name\":\"anna\"}\n").unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        harness.taken(1).await;
    }
}

#[tokio::test]
async fn a_database_made_to_hurt_ends_its_reader_alone() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let owner = database(&path, "wal");
    owner
        .execute_batch("CREATE VIEW list AS SELECT name FROM users")
        .unwrap();
    let harness = Harness::start(
        stage,
        emulator,
        "sqlite",
        &query(&path, "SELECT * FROM list"),
    )
    .await;
    harness.taken(1).await;
    for (view, word) in [
        (
            "SELECT 'x' AS name, zeroblob(600000000) AS id",
            "larger than 1 MiB",
        ),
        ("SELECT 1 AS \"\x1b[2J\u{202e}\"", "no column `name`"),
        ("SELECT name FROM nobody", "no such table"),
    ] {
        owner
            .execute_batch(&format!("DROP VIEW list; CREATE VIEW list AS {view}"))
            .unwrap();
        let reason = harness.lapsed(word).await;
        assert!(
            !reason.contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{reason:?}"
        );
    }
    // The index of the -wal is cut off under whoever has it mapped.
    let shm = fs::File::options()
        .write(true)
        .open(stage_shm(&path))
        .unwrap();
    shm.set_len(0).unwrap();
    harness.lapsed("").await;
    let version = harness.daemon.status(&harness.stage.path("renewd.sock"));
    assert!(version.is_object(), "it answers");
    std::mem::forget(owner);
}

fn stage_shm(path: &Path) -> PathBuf {
    path.with_extension("db-shm")
}

#[tokio::test]
async fn a_watched_database_is_let_go_of_so_that_a_backup_can_take_its_place() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let owner = database(&path, "wal");
    let backup = stage.path("backup.db");
    owner
        .execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    let harness = Harness::start(
        stage,
        emulator,
        "sqlite",
        &query(&path, "SELECT name FROM users"),
    )
    .await;
    harness.taken(1).await;
    owner
        .execute("INSERT INTO users VALUES ('bert')", [])
        .unwrap();
    harness.taken(2).await;
    drop(owner);
    for end in ["-wal", "-shm"] {
        let beside = PathBuf::from(format!("{}{end}", path.display()));
        assert!(
            !beside.exists(),
            "{end} is left after the application's last close"
        );
    }
    // Read while nobody has it open, it stays alone.
    fs::File::open(&path)
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let files = fs::read_dir(harness.stage.path("")).unwrap();
    let beside = files.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("app.db-")
    });
    assert_eq!(beside.count(), 0);
    fs::rename(&backup, &path).unwrap();
    harness.lapsed("the file was replaced by another one").await;
    let restored = Connection::open(&path).unwrap();
    let names: i64 = restored
        .query_row("SELECT count(*) FROM users", [], |row| row.get(0))
        .unwrap();
    assert_eq!(names, 1, "the backup is what was put there");
}

/// So many are read at once as long as none of them has taken very long.
const AT_FIRST: usize = renewd::sources::AT_ONCE - 1;

/// Lists that take for ever to read, more than may be read at once: never more readers than that, each ready
/// to be killed before the daemon, and every list gets its turn.
#[tokio::test]
async fn readers_take_turns_and_are_the_first_to_go() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let _owner = database(&path, "delete");
    let mut text = format!("{}{}", stage.base_config(), stage.sinks_config(None));
    for n in 0..6 {
        text += &format!(
            "\n[[source.sqlite]]\nname = \"list-{n}\"\nevery = \"1s\"\n{}\n",
            query(&path, ENDLESS)
        );
    }
    let daemon = Daemon::start(&stage.configure(&text)).await;
    let adjusted = |reader: &PathBuf| {
        let said = fs::read_to_string(reader.join("oom_score_adj")).unwrap_or_default();
        said.trim() == "1000"
    };
    let mut most = 0;
    let both = async {
        while most < AT_FIRST {
            let readers = children(daemon.pid());
            if readers.iter().all(adjusted) {
                most = most.max(readers.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), both).await;
    seen.expect("as many readers as may be at once, within 20 s");
    for _ in 0..50 {
        let readers = children(daemon.pid()).len();
        assert!(readers <= renewd::sources::AT_ONCE, "{readers} at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(daemon.stop().success());
    drop(emulator);
}

/// Lists that never end, as many as may take long and more: another one is taken over and followed all the same.
#[tokio::test]
async fn a_list_that_hangs_makes_no_other_wait() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let owner = database(&path, "delete");
    let good = "SELECT name FROM users";
    let mut text = format!("{}{}", stage.base_config(), stage.sinks_config(None));
    for (name, query_text) in [
        ("hangs-1", ENDLESS),
        ("hangs-2", ENDLESS),
        ("hangs-3", ENDLESS),
        ("hangs-4", ENDLESS),
        ("hangs-5", ENDLESS),
        ("list", good),
    ] {
        text += &format!(
            "\n[[source.sqlite]]\nname = \"{name}\"\nevery = \"1s\"\n{}\n",
            query(&path, query_text)
        );
    }
    let config = stage.configure(&text);
    let harness = Harness {
        daemon: Daemon::start(&config).await,
        stage,
        _emulator: emulator,
    };
    harness.taken(1).await;
    owner
        .execute("INSERT INTO users VALUES ('bert')", [])
        .unwrap();
    harness.taken(2).await;
    let Harness { daemon, .. } = harness;
    assert!(daemon.stop().success());
}

/// The most memory that a process had, in kB; `None` where it has ended.
fn peak(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Watches the memory of a daemon and of whoever reads for it.
struct Watched {
    daemon: PathBuf,
    before: u64,
    ended: Arc<AtomicBool>,
    readers: std::thread::JoinHandle<u64>,
}

impl Watched {
    fn new(daemon: &Daemon) -> Self {
        let (pid, ended) = (daemon.pid(), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&ended);
        let readers = std::thread::spawn(move || {
            let mut most = 0;
            while !over.load(Ordering::SeqCst) {
                let of_readers = children(pid).into_iter().filter_map(|child| peak(&child));
                most = of_readers.fold(most, u64::max);
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let daemon = PathBuf::from(format!("/proc/{pid}"));
        Self {
            before: peak(&daemon).unwrap(),
            daemon,
            ended,
            readers,
        }
    }

    /// The daemon took little more since, and no reader more than it may.
    fn took_little(self, what: &str) {
        self.ended.store(true, Ordering::SeqCst);
        let more = peak(&self.daemon).unwrap().saturating_sub(self.before);
        let reader = self.readers.join().unwrap();
        println!("{what}: {more} kB more in the daemon, {reader} kB in its reader");
        assert!(
            more < LITTLE && (1..MEMORY_OF_READER).contains(&reader),
            "{what}: {more} kB, {reader} kB"
        );
    }
}

/// More than the daemon takes for any list, in kB.
const LITTLE: u64 = 40_000;

/// As many rows as a list may have, and one more.
#[tokio::test]
async fn a_list_of_a_million_rows_costs_the_daemon_no_memory() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let owner = database(&path, "delete");
    let select = |count: u32| {
        let view = format!(
            "DROP VIEW IF EXISTS list; CREATE VIEW list AS {}",
            rows(count)
        );
        owner.execute_batch(&view).unwrap();
    };
    select(1_000_000);
    let lines = format!(
        "{}\nmax_scopes = [\"chat\"]",
        query(&path, "SELECT * FROM list")
    );
    let harness = Harness::start(stage, emulator, "sqlite", &lines).await;
    let watched = Watched::new(&harness.daemon);
    harness
        .until("long list", |listed| listed["refused"] == 1_000_000)
        .await;
    watched.took_little("1,000,000 rows");
    let watched = Watched::new(&harness.daemon);
    select(1_000_001);
    let reason = harness.lapsed("1,000,000 rows").await;
    watched.took_little(&reason);
}

/// Rows of which each asks for more than it may, so that nothing is written but all is read and compared.
fn rows(count: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         SELECT printf('user-%07d', i * 7919 % 1000003) AS name, 'chat voip' AS scopes, \
         printf('%0080d', i) AS label_a FROM n"
    )
}

/// Values of 600 MB, and lines without an end: each ends its own reader.
#[tokio::test]
async fn values_of_600_megabytes_cost_the_daemon_no_memory() {
    let (stage, emulator) = stage();
    let path = stage.path("app.db");
    let _owner = database(&path, "delete");
    let mut config = stage.base_config() + &stage.sinks_config(None);
    let many = format!(
        "SELECT group_concat(label_a) AS name FROM ({})",
        rows(100_000)
    );
    let values = [
        "SELECT 'x' AS name, zeroblob(600000000) AS id",
        "SELECT 'x' AS name, hex(zeroblob(300000000)) AS id",
        "SELECT 'x' AS name, printf('%600000000s', 'x') AS id",
        "SELECT replace(hex(zeroblob(20000)), '0', hex(zeroblob(15000))) AS name",
        &many,
    ];
    for (number, value) in values.iter().enumerate() {
        config += &format!(
            "\n[[source.sqlite]]\nname = \"value-{number}\"\nevery = \"1s\"\n{}\n",
            query(&path, value)
        );
    }
    config += "\n[[source.exec]]\nname = \"line\"\nevery = \"1s\"\nscopes = [\"chat\"]\n\
               command = [\"/usr/bin/head\", \"-c\", \"600000000\", \"/dev/zero\"]\n";
    let harness = Harness {
        daemon: Daemon::start(&stage.configure(&config)).await,
        stage,
        _emulator: emulator,
    };
    let watched = Watched::new(&harness.daemon);
    for number in 0..values.len() {
        let name = format!("value-{number}");
        println!("{}", harness.lapse_of(&name, "larger than 1 MiB").await);
    }
    println!("{}", harness.lapse_of("line", "").await);
    watched.took_little("values of 600 MB");
}
