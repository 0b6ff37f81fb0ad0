//! Who takes part: the emulator and the daemon as programs of their own, the receiver in this one, and
//! their temporary folder with a configuration as an operator would write it, secrets and tokens.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use renewd_acs_wire::Secret;
use renewd_clock::Clock;
use renewd_emulator::receiver::Receiver;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child as Process, ChildStdout, Command},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use super::{DemoError, How, Kept, Teller, Tone, control::ControlClient, observations::Story};

/// How long every token of the demo lives.
const LIFE: &str = "20s";
/// How long the daemon may take to be ready with all tokens.
const START: Duration = Duration::from_secs(20);
/// Between two looks at what is waited for.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Setup {
    emulator: Child,
    daemon: Child,
    pub(super) mailbox: Mailbox,
    pub(super) control: ControlClient,
    page: Option<String>,
}

impl Setup {
    /// Starts everything; returns when all identities have a token.
    pub(super) async fn set(
        folder: &Folder,
        story: &Story<'_>,
        clock: &Clock,
        how: How,
    ) -> Result<Self, DemoError> {
        let (emulator, said) = emulator(folder, how.entra).await?;
        let endpoint = endpoint(&said.connection)?;
        story.tell(
            Tone::Plain,
            "emulator",
            &format!("{endpoint}, every token lives {LIFE}"),
        )?;
        let mailbox = Mailbox::open(clock).await?;
        let words = format!("{}, checks every signature", mailbox.url());
        story.tell(Tone::Plain, "receiver", &words)?;
        let page = if how.keep {
            Some(free_address().await?)
        } else {
            None
        };
        let caller = folder.caller(&said, &endpoint, how.entra)?;
        folder.write("webhook.secret", mailbox.secret())?;
        let listen = page.as_deref().unwrap_or_default();
        let text = folder.configuration(listen, &caller, mailbox.url());
        folder.write("renewd.toml", &text)?;
        let config = folder.inside("renewd.toml");
        let (daemon, _) = Child::start("daemon", &["run", "--config", &config], folder.path())?;
        let mut setup = Self {
            emulator,
            daemon,
            mailbox,
            control: ControlClient::new(&endpoint, Path::new(&said.ca_file))?,
            page,
        };
        setup.all_have_tokens(folder).await?;
        let words = format!("ready; {} created, each with a token", NAMES.join(", "));
        story.tell(Tone::Good, "daemon", &words)?;
        Ok(setup)
    }

    /// Fails when one of the programs has ended.
    pub(super) fn still_runs(&mut self) -> Result<(), DemoError> {
        self.emulator.still_runs()?;
        self.daemon.still_runs()
    }

    /// Ends the daemon as the service manager would, then the emulator; whether the former ended well.
    pub(super) async fn end(self) -> Result<bool, DemoError> {
        let well = self.daemon.end().await?.success();
        let _: ExitStatus = self.emulator.end().await?;
        Ok(well)
    }

    /// Goes on until Ctrl-C; whether the daemon then ended well.
    pub(super) async fn keep(
        mut self,
        folder: &Folder,
        teller: &dyn Teller,
    ) -> Result<bool, DemoError> {
        teller.goes_on(&Kept {
            socket: folder.inside("renewd.sock"),
            config: folder.inside("renewd.toml"),
            tokens: folder.inside("tokens"),
            page: self.page.clone().unwrap_or_default(),
        })?;
        told_to_stop().await?;
        self.still_runs()?;
        self.end().await
    }

    async fn all_have_tokens(&mut self, folder: &Folder) -> Result<(), DemoError> {
        let socket = folder.inside("renewd.sock");
        let waiting = async {
            loop {
                self.still_runs()?;
                let status = say(&["--socket", &socket, "status", "--json"]).await;
                if status.is_ok_and(|status| has_all(&status))
                    && NAMES.iter().all(|name| folder.token_file(name).exists())
                {
                    return Ok(());
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let waited = tokio::time::timeout(START, waiting).await;
        waited.unwrap_or_else(|_| {
            let late = "the daemon is not ready after 20 s";
            Err(DemoError::Program(late.to_owned()))
        })
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// Whether the daemon is ready, and everybody has a token.
fn has_all(status: &str) -> bool {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let resources = status["counts"]["identities"].as_object();
    let states = resources
        .into_iter()
        .flat_map(|resources| resources.values());
    let active = states.filter_map(|states| states["active"].as_u64());
    status["ready"] == true && active.sum::<u64>() == NAMES.len() as u64
}

/// What the emulator says of itself.
struct Said {
    ca_file: String,
    connection: String,
    /// By which a program finds who it is.
    variables: BTreeMap<String, String>,
}

async fn emulator(folder: &Folder, entra: bool) -> Result<(Child, Said), DemoError> {
    let mut args = vec!["emulator", "--listen", "127.0.0.1:0", "--token-ttl", LIFE];
    args.extend(entra.then_some("--entra=secret"));
    let (mut emulator, mut lines) = Child::start("emulator", &args, folder.path())?;
    let mut variables = BTreeMap::new();
    while let Some(line) = lines.next_line().await? {
        let (name, value) = line.split_once('=').unwrap_or_default();
        if name == "endpoint" {
            let ca_file = variables.remove("ca");
            let ca_file =
                ca_file.ok_or_else(|| DemoError::Program("the emulator named no CA".to_owned()))?;
            let said = Said {
                ca_file,
                connection: line,
                variables,
            };
            return Ok((emulator, said));
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    emulator.still_runs()?;
    Err(DemoError::Program(
        "the emulator did not say where it listens".to_owned(),
    ))
}

fn endpoint(connection: &str) -> Result<String, DemoError> {
    let rest = connection.strip_prefix("endpoint=");
    let endpoint = rest.and_then(|rest| rest.split(';').next());
    let endpoint =
        endpoint.ok_or_else(|| DemoError::Program("the emulator named no endpoint".to_owned()))?;
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// An address on loopback that nobody listens on.
async fn free_address() -> Result<String, DemoError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    Ok(listener.local_addr()?.to_string())
}

/// How long a program may take to end by itself.
const GRACE: Duration = Duration::from_secs(12);
/// What the service manager or an operator may have set for another daemon.
const NOT_OURS: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "RENEWD_SOCKET",
];

/// A running program; it does not outlive the demo.
pub(super) struct Child {
    process: Process,
    what: &'static str,
}

impl Child {
    /// Starts `renewd ARGS` with its log and temporary files in a folder; what it says on standard
    /// output comes as lines.
    pub(super) fn start(
        what: &'static str,
        args: &[&str],
        folder: &Path,
    ) -> Result<(Self, Lines<BufReader<ChildStdout>>), DemoError> {
        let cannot = |error| DemoError::Program(format!("cannot start the {what}: {error}"));
        let log = folder.join(format!("{what}.log"));
        let log = std::fs::File::create(log).map_err(cannot)?;
        let mut command = command(args).map_err(cannot)?;
        command
            .env("TMPDIR", folder)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut process = command.spawn().map_err(cannot)?;
        let stdout = process.stdout.take();
        let stdout =
            stdout.ok_or_else(|| DemoError::Program(format!("the {what} has no output")))?;
        Ok((Self { process, what }, BufReader::new(stdout).lines()))
    }

    /// Fails when the program has ended already.
    pub(super) fn still_runs(&mut self) -> Result<(), DemoError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(DemoError::Program(format!(
                "the {} ended: {status}",
                self.what
            ))),
            Err(error) => Err(DemoError::Program(format!(
                "the {} is lost: {error}",
                self.what
            ))),
        }
    }

    /// Asks it to end, as the service manager would, and waits for it.
    pub(super) async fn end(mut self) -> Result<ExitStatus, DemoError> {
        let cannot = |error: &dyn std::fmt::Display| {
            DemoError::Program(format!("the {} does not end: {error}", self.what))
        };
        let pid = self
            .process
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|error| cannot(&error))?;
        }
        let ended = tokio::time::timeout(GRACE, self.process.wait()).await;
        ended
            .map_err(|_| cannot(&"it was asked 12 s ago"))?
            .map_err(|error| cannot(&error))
    }
}

/// Runs `renewd ARGS` to its end; what it said, and whether it did what was asked.
pub(super) async fn say(args: &[&str]) -> Result<String, DemoError> {
    let cannot =
        |error| DemoError::Program(format!("cannot run renewd {}: {error}", args.join(" ")));
    let output = command(args)
        .map_err(cannot)?
        .output()
        .await
        .map_err(cannot)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(DemoError::Program(format!(
            "renewd {}: {}",
            args.join(" "),
            said.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn command(args: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).stdin(Stdio::null());
    for name in NOT_OURS {
        command.env_remove(name);
    }
    Ok(command)
}

pub(super) struct Mailbox {
    receiver: Arc<Receiver>,
    secret: Secret,
    url: String,
    /// Serves; ends with the mailbox.
    _serving: JoinSet<()>,
}

impl Mailbox {
    /// Opens a receiver on a free port, with a secret of its own.
    pub(super) async fn open(clock: &Clock) -> Result<Self, DemoError> {
        let bytes = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        let secret = Secret::new(format!("whsec_{}", BASE64_STANDARD.encode(bytes.concat())));
        let receiver = Receiver::new(std::slice::from_ref(&secret), clock.clone());
        let unusable =
            |error: &dyn std::fmt::Display| DemoError::Program(format!("no receiver: {error}"));
        let receiver = Arc::new(receiver.map_err(|error| unusable(&error))?);
        let bound = receiver.bind("127.0.0.1:0").await;
        let bound = bound.map_err(|error| unusable(&error))?;
        let url = bound.url().to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(bound.run_until(std::future::pending()));
        Ok(Self {
            receiver,
            secret,
            url,
            _serving: serving,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// Events whose signature was right; and those that were refused, or came after a newer one.
    pub(super) fn counts(&self) -> (u64, u64) {
        let received = self.receiver.received();
        let backwards: u64 = received.tokens.values().map(|told| told.backwards).sum();
        (received.accepted, received.refused.len() as u64 + backwards)
    }

    /// How many identities' newest event carries the version of their file; waits a little for the
    /// last ones to arrive.
    pub(super) async fn in_step(
        &self,
        files: &BTreeMap<&'static str, u64>,
        longest: Duration,
    ) -> u64 {
        let all = async {
            while self.agreeing(files) < files.len() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        // Whoever is not in step by then is counted as such.
        tokio::time::timeout(longest, all).await.ok();
        self.agreeing(files) as u64
    }

    fn agreeing(&self, files: &BTreeMap<&'static str, u64>) -> usize {
        let told = self.receiver.received().tokens;
        let same = |(name, version): &(&&str, &u64)| {
            told.get(**name)
                .is_some_and(|told| told.version.cast_unsigned() == **version)
        };
        files.iter().filter(same).count()
    }
}

/// Who gets tokens in the demo.
pub(super) const NAMES: [&str; 5] = [
    "support-bot",
    "sales-bot",
    "front-desk",
    "night-shift",
    "on-call",
];

pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    pub(super) fn new() -> Result<Self, DemoError> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let path = std::env::temp_dir().join(format!("renewd-demo-{}", &unique[..8]));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.and_then(|()| fs::create_dir(path.join("state")))
            .and_then(|()| fs::create_dir(path.join("tokens")))
            .map_err(|source| cannot_write(&path, source))?;
        Ok(Self { path, keep: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside, as the text that a configuration or an argument takes.
    pub(super) fn inside(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    pub(super) fn token_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("tokens/{name}.json"))
    }

    /// Leaves it there: somebody will want to read the logs.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// A file that nobody else may read.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), DemoError> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        file.and_then(|mut file| io::Write::write_all(&mut file, content.as_bytes()))
            .map_err(|source| cannot_write(&path, source))
    }

    /// The lines that say who calls, with their secret in a file.
    fn caller(&self, said: &Said, endpoint: &str, entra: bool) -> Result<String, DemoError> {
        let (here, ca_file) = (self.path.display(), &said.ca_file);
        if !entra {
            self.write("contoso.cs", &said.connection)?;
            return Ok(format!(
                "connection_string = {{ file = \"{here}/contoso.cs\" }}\nca_file = \"{ca_file}\"\n"
            ));
        }
        let of = |name: &str| {
            let value = said.variables.get(name);
            value.ok_or_else(|| DemoError::Program(format!("the emulator did not say {name}")))
        };
        self.write("contoso.secret", of("AZURE_CLIENT_SECRET")?)?;
        Ok(format!(
            r#"endpoint = "{endpoint}"
ca_file = "{ca_file}"
[resource.entra]
tenant = "{}"
client_id = "{}"
client_secret = {{ file = "{here}/contoso.secret" }}
authority = "{}"
"#,
            of("AZURE_TENANT_ID")?,
            of("AZURE_CLIENT_ID")?,
            of("AZURE_AUTHORITY_HOST")?
        ))
    }

    /// The configuration of the demo's daemon.
    pub(super) fn configuration(&self, listen: &str, caller: &str, webhook: &str) -> String {
        let here = self.path.display();
        let mut text = format!(
            r#"[daemon]
state_dir = "{here}/state"
socket    = "{here}/renewd.sock"
listen    = "{listen}"
instance  = "demo"

[[resource]]
name = "contoso"
{caller}
[[sink.file]]
name = "files"
path = "{here}/tokens/{{name}}.json"

[[sink.webhook]]
name = "app"
url = "{webhook}"
secrets = [{{ file = "{here}/webhook.secret" }}]
"#
        );
        for name in NAMES {
            text.push_str(&format!(
                "\n[[identity]]\nname = \"{name}\"\nscopes = [\"chat\", \"voip\"]\nsinks = [\"files\", \"app\"]\n"
            ));
        }
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // A folder that stays behind in the temporary directory harms nobody.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn cannot_write(path: &Path, source: io::Error) -> DemoError {
    DemoError::Folder {
        path: path.to_owned(),
        source,
    }
}
