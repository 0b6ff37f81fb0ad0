//! A PostgreSQL of the tests' own: a server on a port and in folders of its own, and a database for each test.
//!
//! The server that `RENEWD_TEST_POSTGRES` names (`FOLDER-OF-ITS-SOCKET:PORT`) is used, as `make test` does; without it
//! each test program starts one, which ends with the program. Nothing is synced: what is in it is worth nothing.
//!
//! It panics where something fails, as tests do.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail where their surroundings do, and wait by the machine's clock"
)]

mod proxy;

use std::{
    env, fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

pub use proxy::{Loses, Proxy};

/// Names a server that runs already.
pub const VARIABLE: &str = "RENEWD_TEST_POSTGRES";
/// Where Debian keeps the programs, newest last.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// How folders of servers are named, before the process and a number.
const NAME: &str = "renewd-postgres-";
/// Who may do everything in it, without a password over its socket.
pub const OWNER: &str = "postgres";
/// A server that does not start in this time never will.
const START: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    /// Its socket is there; its data, where it is ours, below.
    folder: PathBuf,
    port: u16,
    /// Where it is ours.
    process: Mutex<Option<Child>>,
}

impl Server {
    /// The one that all tests of this program share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| match env::var(VARIABLE) {
            Ok(named) => Self::named(&named),
            Err(_) => Self::start(&[], |_| {}),
        })
    }

    fn named(text: &str) -> Self {
        let (folder, port) = text.rsplit_once(':').expect("FOLDER:PORT");
        Self {
            folder: folder.into(),
            port: port.parse().expect("a port"),
            process: Mutex::default(),
        }
    }

    /// One of a test's own, with such lines in its `postgresql.conf`; `prepare` sees its data folder first.
    pub fn start(lines: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        sweep();
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME}{}-{n}", std::process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder for PostgreSQL");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let server = Self {
            port: free_port(),
            folder,
            process: Mutex::default(),
        };
        hand_over(&server.folder);
        let data = server.data();
        let mut initdb = as_owner("initdb");
        initdb.arg("-D").arg(&data);
        initdb.args([
            "-U",
            OWNER,
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        succeed(initdb);
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        let socket = server.folder.display();
        writeln!(
            file,
            "port = {}\nunix_socket_directories = '{socket}'\nlisten_addresses = '127.0.0.1'\nfsync = off\n\
             full_page_writes = off\nshared_buffers = 32MB\nmax_connections = 200\nlog_destination = stderr\n{}",
            server.port,
            lines.join("\n")
        )
        .unwrap();
        prepare(&data);
        hand_over(&server.folder);
        server.run();
        server
    }

    /// Runs it, again where it was stopped.
    pub fn run(&self) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut postgres = as_owner("postgres");
        postgres.arg("-D").arg(self.data()).stderr(log);
        let child = lasting(postgres);
        *self.process.lock().unwrap() = Some(child);
        let began = Instant::now();
        while !self.answers() {
            assert!(
                began.elapsed() < START,
                "PostgreSQL does not start: {}",
                fs::read_to_string(self.folder.join("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it at once, as a crash does.
    pub fn crash(&self) {
        self.end("immediate");
    }

    /// Stops it in an orderly way, whoever is connected.
    pub fn stop(&self) {
        self.end("fast");
    }

    fn end(&self, mode: &str) {
        let mut stop = as_owner("pg_ctl");
        stop.args(["stop", "-m", mode, "-D"]).arg(self.data());
        succeed(stop);
        if let Some(mut child) = self.process.lock().unwrap().take() {
            child.wait().unwrap();
        }
    }

    fn answers(&self) -> bool {
        let mut ready = Command::new(program("pg_isready"));
        ready.arg("-h").arg(&self.folder);
        ready.args(["-p", &self.port.to_string(), "-q"]);
        ready.status().is_ok_and(|status| status.success())
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where its socket is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it listens on 127.0.0.1, and the number of its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new, empty database.
    pub fn database(&self) -> Database<'_> {
        self.database_like("template0")
    }

    /// A new database that holds what another one does, to which nobody may be connected.
    pub fn database_like(&self, template: &str) -> Database<'_> {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{n}", std::process::id());
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        );
        Database { server: self, name }
    }

    /// What a statement answers in a database, as psql prints it without frills.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(program("psql"));
        psql.arg("-h").arg(&self.folder);
        psql.args(["-p", &self.port.to_string(), "-U", OWNER, "-d", database]);
        psql.args(["-AtqX", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        succeed(psql)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap().take();
        if process.is_some() {
            *self.process.get_mut().unwrap() = process;
            self.end("immediate");
            fs::remove_dir_all(&self.folder).ok();
        }
    }
}

/// A database of one test, dropped with it.
#[derive(Debug)]
pub struct Database<'a> {
    server: &'a Server,
    name: String,
}

impl Database<'_> {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address by the server's socket, with everything allowed.
    pub fn url(&self) -> String {
        let folder = self.server.folder.display().to_string().replace('/', "%2F");
        let (port, name) = (self.server.port, &self.name);
        format!("postgresql://{OWNER}@{folder}:{port}/{name}")
    }

    /// Its address over TCP.
    pub fn url_over_tcp(&self) -> String {
        let (port, name) = (self.server.port, &self.name);
        format!("postgresql://{OWNER}@127.0.0.1:{port}/{name}")
    }

    /// What a statement answers, as psql prints it without frills.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            self.server.sql("postgres", &sql);
        }
    }
}

/// Removes what test programs left that are over: their shared server has nobody who does.
fn sweep() {
    for entry in fs::read_dir(env::temp_dir())
        .unwrap()
        .filter_map(Result::ok)
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(NAME)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().unwrap().port()
}

/// A program of the newest PostgreSQL here.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(PROGRAMS)
        .expect("PostgreSQL is installed (tests/prerequisites)")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("PostgreSQL is installed (tests/prerequisites)")
}

fn is_root() -> bool {
    let own = fs::metadata("/proc/self").unwrap();
    std::os::unix::fs::MetadataExt::uid(&own) == 0
}

/// A program of PostgreSQL as its own user, which root is not let be. It ends with the thread that starts it.
fn as_owner(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if is_root() {
        let ids = ["--reuid", OWNER, "--regid", OWNER, "--init-groups"];
        command.args(ids);
    }
    command.arg(program(name));
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Gives a folder to PostgreSQL's own user.
fn hand_over(folder: &Path) {
    if is_root() {
        let mut chown = Command::new("chown");
        chown.args(["-R", OWNER]).arg(folder);
        succeed(chown);
    }
}

/// Starts a program on a thread that lasts as long as this one does.
fn lasting(mut command: Command) -> Child {
    let (give, take) = mpsc::channel();
    let spawn = move || {
        give.send(command.spawn()).unwrap();
        loop {
            thread::park();
        }
    };
    thread::Builder::new()
        .name("postgres".to_owned())
        .spawn(spawn)
        .unwrap();
    take.recv().unwrap().expect("PostgreSQL starts")
}

/// What a program prints that ends well.
fn succeed(mut command: Command) -> String {
    let output = command.output().expect("it starts");
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        printed(&output.stderr)
    );
    printed(&output.stdout)
}
