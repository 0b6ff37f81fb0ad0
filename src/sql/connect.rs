//! A connection to PostgreSQL: all hosts are tried at once, each with a deadline over the whole of its handshake, and
//! the first that takes writes is used. A frozen host costs nothing, wherever it stands in the list.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_postgres::{
    Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow,
    config::{ChannelBinding as Binding, SslMode, SslNegotiation},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{
    ChannelBinding, ClientFiles, DatabaseHost, DatabaseSettings, HostPlace, read_regular,
};

/// The oldest PostgreSQL that is used.
const OLDEST: u32 = 15;
/// How long a transaction may do nothing, and how long a statement may wait for a lock.
const IDLE: Duration = Duration::from_secs(5);
const LOCK: Duration = Duration::from_secs(5);
/// What is sent and not confirmed for so long ends a connection.
const UNCONFIRMED: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVES: u32 = 3;
/// After so long a host is asked again that refused, while another one is silent.
const AGAIN: Duration = Duration::from_millis(250);
/// Where distributions keep the authorities that the system trusts.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// No file of certificates or of a key is larger.
const LARGEST_PEM: u64 = 4 << 20;

/// What a connection is made to, and how.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    settings: Arc<DatabaseSettings>,
    /// Who connects, as the server lists it.
    application: String,
    /// How often a server fell silent, to any of the sessions that are beside each other.
    silences: Arc<AtomicU64>,
    /// Whether one of them was seen to keep its session beside another one, and none to lose it since.
    direct: Arc<AtomicBool>,
}

impl Remote {
    pub(crate) fn new(settings: &DatabaseSettings, application: impl Into<String>) -> Self {
        Self {
            settings: Arc::new(settings.clone()),
            application: application.into(),
            silences: Arc::default(),
            direct: Arc::default(),
        }
    }

    /// The same for a session beside this one's: when a server falls silent to one, the other does not wait for it too.
    pub(super) fn beside(&self, application: String) -> Self {
        Self {
            application,
            ..self.clone()
        }
    }

    pub(super) fn silences(&self) -> u64 {
        self.silences.load(Ordering::SeqCst)
    }

    pub(super) fn fell_silent(&self) {
        self.silences.fetch_add(1, Ordering::SeqCst);
    }

    /// A transaction was on a session that is not its own: nothing is asked of those that are there any more, for what
    /// one prepared another one would carry out.
    pub(super) fn found_pooled(&self) -> Away {
        self.direct.store(false, Ordering::SeqCst);
        // Those beside it do not go on with what they have.
        self.fell_silent();
        let hosts = self.settings.hosts.iter();
        let refused = hosts.map(|host| (host.to_string(), Refusal::Pooled));
        Away(refused.collect())
    }

    pub(super) fn deadline(&self) -> Duration {
        self.settings.deadline
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

/// The server that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// As the address names it.
    pub(crate) host: String,
    /// Such as `15.14`.
    pub(crate) version: String,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, PostgreSQL {}", self.host, self.version)
    }
}

/// No host takes writes: what each of them says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Away(Vec<(String, Refusal)>);

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no host of the database takes writes")?;
        for (at, (host, refusal)) in self.0.iter().enumerate() {
            write!(f, "{} {host} {refusal}", if at == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Away {}

impl Away {
    /// Whether every host says what only a person can mend.
    pub(crate) fn is_configuration(&self) -> bool {
        self.0.iter().all(|(_, refusal)| refusal.is_lasting())
    }
}

/// Why a host is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// It gives no answer in time.
    Silent(Duration),
    Unreachable(String),
    Tls(String),
    /// Its certificates, or ours, cannot be read.
    Files(String),
    /// It does not let this user in, or has no such database.
    Login(String),
    Standby,
    ReadOnly,
    Old(String),
    Encoding(String),
    /// It is a pooler that gives each transaction another session.
    Pooled,
    Other(String),
}

impl Refusal {
    fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Files(_) | Self::Login(_) | Self::Old(_) | Self::Encoding(_) | Self::Pooled
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(deadline) => write!(f, "gives no answer within {} s", deadline.as_secs()),
            Self::Unreachable(why) => write!(f, "cannot be reached ({why})"),
            Self::Tls(why) => write!(f, "is not trusted, or does not speak TLS ({why})"),
            Self::Files(why) => f.write_str(why),
            Self::Login(why) => write!(f, "refuses the login ({why})"),
            Self::Standby => f.write_str("is a standby, which is read only"),
            Self::ReadOnly => f.write_str("is read only (default_transaction_read_only)"),
            Self::Old(version) => write!(
                f,
                "runs PostgreSQL {version}, and renewd needs {OLDEST} or later"
            ),
            Self::Encoding(encoding) => write!(
                f,
                "has this database in {encoding}; make one with ENCODING 'UTF8'"
            ),
            Self::Pooled => f.write_str(
                "is a pooler that gives each transaction another session; connect to PostgreSQL itself, or let it pool \
                 sessions",
            ),
            Self::Other(why) => write!(f, "says: {why}"),
        }
    }
}

/// A connection that takes statements.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) server: Server,
    /// What the session calls itself.
    pub(super) mark: String,
    /// Whoever reads and writes for it.
    pub(super) driver: AbortHandle,
}

/// Tries all hosts at once; runs inside a runtime, which drives the connection from then on. As long as one of them has
/// not answered, the others are asked again: one may take writes by then.
pub(super) async fn race(remote: &Remote) -> Result<Connected, Away> {
    let settings = Arc::new(remote.settings.with_password_of_now());
    let remote = &Remote {
        settings,
        ..remote.clone()
    };
    let hosts = &remote.settings.hosts;
    let mut tries = JoinSet::new();
    for (at, host) in hosts.iter().enumerate() {
        tries.spawn(tried(remote.clone(), (at, host.clone()), Duration::ZERO));
    }
    let mut refused = BTreeMap::new();
    while let Some(ended) = tries.join_next().await {
        let (at, refusal) = match ended {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(refused)) => refused,
            // It was a fault of ours, of one host.
            Err(failed) => (usize::MAX, Refusal::Other(failed.to_string())),
        };
        refused.insert(at, refusal);
        if refused.len() >= hosts.len() {
            break;
        }
        if let Some(host) = hosts.get(at) {
            tries.spawn(tried(remote.clone(), (at, host.clone()), AGAIN));
        }
    }
    let name = |at: usize| {
        hosts
            .get(at)
            .map_or_else(|| "a host".to_owned(), ToString::to_string)
    };
    let said = refused.into_iter().map(|(at, why)| (name(at), why));
    Err(Away(said.collect()))
}

/// One host, after a rest, within its deadline.
async fn tried(
    remote: Remote,
    (at, host): (usize, DatabaseHost),
    rest: Duration,
) -> Result<Connected, (usize, Refusal)> {
    tokio::time::sleep(rest).await;
    let deadline = remote.settings.connect_timeout;
    let tried = timeout(deadline, meet(&remote, &host)).await;
    let met = tried.unwrap_or(Err(Refusal::Silent(deadline)));
    met.map_err(|refusal| (at, refusal))
}

/// One host, at each of its addresses at once.
async fn meet(remote: &Remote, host: &DatabaseHost) -> Result<Connected, Refusal> {
    let tls = match host.secure {
        true => Some(tls(&remote.settings)?),
        false => None,
    };
    let mut tries = JoinSet::new();
    for address in addresses(host).await? {
        let (remote, host, tls) = (remote.clone(), host.clone(), tls.clone());
        tries.spawn(async move { open_directly(&remote, (&host, address), tls).await });
    }
    let mut refused = Refusal::Unreachable("its name has no address".to_owned());
    while let Some(ended) = tries.join_next().await {
        match ended {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(refusal)) => refused = refusal,
            Err(failed) => refused = Refusal::Other(failed.to_string()),
        }
    }
    Err(refused)
}

/// Where a host is; nothing stands for its Unix socket.
async fn addresses(host: &DatabaseHost) -> Result<Vec<Option<IpAddr>>, Refusal> {
    let name = match &host.place {
        HostPlace::Unix(_) => return Ok(vec![None]),
        HostPlace::Tcp(_, Some(address)) => return Ok(vec![Some(*address)]),
        HostPlace::Tcp(name, None) => name,
    };
    let found = tokio::net::lookup_host((&**name, host.port)).await;
    let found = found.map_err(|error| Refusal::Unreachable(error.to_string()))?;
    // What is sent in plain text does not leave this machine, whatever a name is said to mean.
    let may_be = |address: &IpAddr| host.secure || address.is_loopback();
    let mut found: Vec<IpAddr> = found.map(|at: SocketAddr| at.ip()).filter(may_be).collect();
    found.dedup();
    Ok(found.into_iter().map(Some).collect())
}

/// A session that is ours alone. As long as that was not seen, another one beside it tells: a pooler of transactions
/// gives both the same, which the first one then does not find as it left it.
async fn open_directly(
    remote: &Remote,
    place: (&DatabaseHost, Option<IpAddr>),
    tls: Option<MakeRustlsConnect>,
) -> Result<Connected, Refusal> {
    let connected = open(remote, place, tls.clone()).await?;
    if remote.direct.load(Ordering::SeqCst) {
        return Ok(connected);
    }
    // Where there is no room for another one, each transaction still looks for itself.
    let patience = remote.settings.connect_timeout / 4;
    let Ok(Ok(_beside)) = timeout(patience, open(remote, place, tls)).await else {
        return Ok(connected);
    };
    let answers = connected.client.simple_query(MARK).await;
    match is_marked(&answers.map_err(|e| refusal(&e))?, &connected.mark) {
        true => remote.direct.store(true, Ordering::SeqCst),
        false => return Err(Refusal::Pooled),
    }
    Ok(connected)
}

/// Asks a session what it calls itself.
pub(super) const MARK: &str = "SELECT current_setting('renewd.session', true)";

/// Whether that is what it answers.
pub(super) fn is_marked(answers: &[SimpleQueryMessage], mark: &str) -> bool {
    answers.iter().any(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0) == Some(mark),
        _ => false,
    })
}

async fn open(
    remote: &Remote,
    (host, address): (&DatabaseHost, Option<IpAddr>),
    tls: Option<MakeRustlsConnect>,
) -> Result<Connected, Refusal> {
    let config = config(remote, host, address);
    // A connection ends with its client, which tells why.
    let (client, driver) = match tls {
        Some(tls) => {
            let (client, connection) = config.connect(tls).await.map_err(|e| refusal(&e))?;
            (client, tokio::spawn(async move { connection.await.ok() }))
        }
        None => {
            let (client, connection) = config.connect(NoTls).await.map_err(|e| refusal(&e))?;
            (client, tokio::spawn(async move { connection.await.ok() }))
        }
    };
    let mark = uuid::Uuid::new_v4().to_string();
    let version = settled(&client, remote, &mark).await?;
    let host = host.to_string();
    let server = Server { host, version };
    Ok(Connected {
        client,
        server,
        mark,
        driver: driver.abort_handle(),
    })
}

fn config(remote: &Remote, host: &DatabaseHost, address: Option<IpAddr>) -> Config {
    let settings = &remote.settings;
    let mut config = Config::new();
    config
        .user(&*settings.user)
        .dbname(&*settings.name)
        .application_name(&*remote.application)
        .port(host.port)
        .connect_timeout(settings.connect_timeout)
        .tcp_user_timeout(UNCONFIRMED)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVES)
        .channel_binding(match settings.channel_binding {
            ChannelBinding::Disable => Binding::Disable,
            ChannelBinding::Prefer => Binding::Prefer,
            ChannelBinding::Require => Binding::Require,
        })
        .ssl_mode(match host.secure {
            true => SslMode::Require,
            false => SslMode::Disable,
        });
    if host.secure && settings.direct_tls {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    if let Some(password) = &settings.password {
        config.password(password.expose());
    }
    match &host.place {
        HostPlace::Unix(folder) => config.host_path(folder),
        HostPlace::Tcp(name, _) => config.host(&**name),
    };
    if let Some(address) = address {
        config.hostaddr(address);
    }
    config
}

/// Has the session be as every one of ours is, and sees whether it takes writes; the server's version.
async fn settled(client: &Client, remote: &Remote, mark: &str) -> Result<String, Refusal> {
    let (deadline, millis) = (remote.deadline(), |time: Duration| time.as_millis());
    let sql = format!(
        "SET idle_in_transaction_session_timeout = {}; SET lock_timeout = {}; SET statement_timeout = {}; \
         SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on; \
         SET client_min_messages = 'warning'; SET renewd.session = '{mark}'; \
         SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), current_setting('server_version_num'), \
         current_setting('server_version'), current_setting('server_encoding'), current_setting('synchronous_commit')",
        millis(IDLE),
        millis(LOCK.min(deadline / 2)),
        // The server gives a statement up before its connection counts as dead.
        millis(deadline - deadline / 10),
    );
    let answers = client.simple_query(&sql).await.map_err(|e| refusal(&e))?;
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| Refusal::Other("nothing about itself".to_owned()))?;
    let version = taken(row)?;
    // What is acknowledged is durable, whatever a role or database is set to.
    if row.get(5) == Some("off") {
        let durable = client.batch_execute("SET synchronous_commit = on").await;
        durable.map_err(|e| refusal(&e))?;
    }
    Ok(version)
}

/// The version of a server that can be used.
fn taken(row: &SimpleQueryRow) -> Result<String, Refusal> {
    let said = |at: usize| row.get(at).unwrap_or_default();
    let number: u32 = said(2).parse().unwrap_or_default();
    let version = said(3).split(' ').next().unwrap_or_default().to_owned();
    if number / 10_000 < OLDEST {
        return Err(Refusal::Old(version));
    }
    if said(0) == "t" {
        return Err(Refusal::Standby);
    }
    if said(1) == "on" {
        return Err(Refusal::ReadOnly);
    }
    if said(4) != "UTF8" {
        return Err(Refusal::Encoding(said(4).to_owned()));
    }
    Ok(version)
}

/// What an error of the handshake means.
fn refusal(error: &tokio_postgres::Error) -> Refusal {
    if let Some(said) = error.as_db_error() {
        let text = said.message().to_owned();
        let code = said.code();
        let is_login = code.code().starts_with("28") || *code == SqlState::INVALID_CATALOG_NAME;
        return match is_login {
            true => Refusal::Login(text),
            false => Refusal::Other(text),
        };
    }
    let Some(source) = error.source() else {
        return Refusal::Unreachable(error.to_string());
    };
    let words = source.to_string();
    let of_tls = |source: &(dyn std::error::Error + 'static)| {
        let inner = source
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<rustls::Error>())
    };
    match error.to_string().as_str() {
        "error performing TLS handshake" => Refusal::Tls(words),
        _ if of_tls(source) => Refusal::Tls(words),
        "authentication error" => Refusal::Login(words),
        _ => Refusal::Unreachable(words),
    }
}

/// TLS as the address wants it. The files are read each time: certificates are replaced where they lie.
fn tls(settings: &DatabaseSettings) -> Result<MakeRustlsConnect, Refusal> {
    let mut trusted = RootCertStore::empty();
    let (added, _) = trusted.add_parsable_certificates(authorities(settings.ca_file.as_deref())?);
    if added == 0 {
        return Err(Refusal::Files(match &settings.ca_file {
            Some(path) => format!("cannot be trusted: {} holds no certificate", path.display()),
            None => {
                "cannot be trusted: the system has no file of authorities; give one as `ca_file`"
                    .to_owned()
            }
        }));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Refusal::Tls(error.to_string()))?
        .with_root_certificates(trusted);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (chain, key) = proof(files)?;
            let made = builder.with_client_auth_cert(chain, key);
            made.map_err(|error| {
                let file = files.certificate.display();
                Refusal::Files(format!(
                    "needs the client certificate {file}, which cannot be used: {error}"
                ))
            })?
        }
    };
    if settings.direct_tls {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

/// Who is trusted: a file's certificates alone, or the system's.
fn authorities(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let path = match ca_file {
        Some(path) => path,
        None => match SYSTEM.map(Path::new).into_iter().find(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(Vec::new()),
        },
    };
    certificates(path)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let pem = pem(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    Ok(found.collect())
}

fn pem(path: &Path) -> Result<Vec<u8>, Refusal> {
    let shown = path.display();
    read_regular(path, LARGEST_PEM)
        .map_err(|error| Refusal::Files(format!("needs {shown}, which cannot be read: {error}")))
}

fn proof(
    files: &ClientFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Refusal> {
    let chain = certificates(&files.certificate)?;
    let key = zeroize::Zeroizing::new(pem(&files.key)?);
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        let file = files.key.display();
        Refusal::Files(format!("needs {file}, which holds no unlocked key in PEM"))
    })?;
    Ok((chain, key))
}
