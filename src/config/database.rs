//! Where a database listens, as libpq writes it: a URL (`postgresql://…`) or pairs (`host=… user=…`).
//!
//! No error quotes what was read: a mistake in a password moves its end into what looks like a host or a key.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;

use super::{SecretRef, keys::nearest, secret};
use crate::model::Secret;

/// What a connection to a database takes.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseSettings {
    /// Where the address was read.
    pub from: SecretRef,
    /// In the order of the address; whichever takes writes first is used.
    pub hosts: Vec<DatabaseHost>,
    pub name: String,
    pub user: String,
    pub password: Option<Secret>,
    /// Trust these certificates; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key that prove who connects.
    pub client: Option<ClientFiles>,
    pub channel_binding: ChannelBinding,
    /// TLS from the first byte, which PostgreSQL 17 and newer understand.
    pub direct_tls: bool,
    /// How long a host may take until it takes statements.
    pub connect_timeout: Duration,
    /// How long a statement may take until its connection counts as dead.
    pub deadline: Duration,
}

/// One of several hosts that hold the same database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseHost {
    pub place: HostPlace,
    pub port: u16,
    /// With TLS, and only as the host that its certificate names.
    pub secure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPlace {
    /// A name or an address, and where to find it if the name is not to be asked for.
    Tcp(String, Option<IpAddr>),
    /// The folder of a Unix socket.
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Whether the login is bound to the TLS connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

impl fmt::Display for DatabaseHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            HostPlace::Tcp(name, _) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            HostPlace::Tcp(name, _) => write!(f, "{name}:{}", self.port),
            HostPlace::Unix(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
        }
    }
}

impl fmt::Display for DatabaseSettings {
    /// Hosts and name, no user and no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if at == 0 { "" } else { "," })?;
        }
        write!(f, "/{}", self.name)
    }
}

/// What is wrong with an address, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct AddressMistake {
    pub message: &'static str,
    pub hint: String,
}

impl AddressMistake {
    fn new(message: &'static str, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self { message, hint }
    }
}

type Read<T> = Result<T, AddressMistake>;

const FORM: &str =
    "one line such as postgresql://renewd:PASSWORD@db-1,db-2:5432/renewd?sslmode=verify-full";
const ESCAPED: &str = "in a URL write what a user or password holds of / ? # @ : % and spaces as %2F %3F %23 %40 %3A %25 %20";

/// What an address may say.
const KNOWN: [&str; 15] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslnegotiation",
    "channel_binding",
    "connect_timeout",
    "target_session_attrs",
    "application_name",
];
/// What renewd sees to by itself, whatever the address says of it.
const OURS: [&str; 13] = [
    "application_name",
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
];
/// A frozen host is left after so long; nothing that the store asks for takes as long.
const DEADLINE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: u64 = 60;
const PORT: u16 = 5432;

impl DatabaseSettings {
    /// Reads an address. `ca_file` is said beside it, and comes before what the address says.
    ///
    /// # Errors
    /// When it is none, or would send what is secret in plain text.
    pub fn read(
        from: &SecretRef,
        text: &Secret,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, AddressMistake> {
        said_in(text.expose().trim())?.settings(from, ca_file)
    }

    /// The same with the password that lies there now: one that was changed in both places needs no restart. What else
    /// was changed does.
    pub fn with_password_of_now(&self) -> Self {
        let text = self.from.file().and_then(|path| secret::read(path).ok());
        let now = text.and_then(|text| Self::read(&self.from, &text, None).ok());
        let same = now.filter(|now| (&now.user, &now.name) == (&self.user, &self.name));
        Self {
            password: same.map_or_else(|| self.password.clone(), |now| now.password),
            ..self.clone()
        }
    }
}

fn said_in(text: &str) -> Read<Said> {
    let url = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => of_url(rest),
        None if text.contains("://") => {
            let message = "what this refers to is the address of something else than PostgreSQL";
            Err(AddressMistake::new(message, FORM))
        }
        None => of_pairs(text),
    }
}

/// Pairs of keys and values, the last of a key counts.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn set(&mut self, key: &str, value: String) -> Read<()> {
        let key = match key {
            "ssl_mode" => "sslmode",
            "database" => "dbname",
            key => key,
        };
        if KNOWN.contains(&key) || OURS.contains(&key) {
            self.0.retain(|(known, _)| known != key);
            self.0.push((key.to_owned(), value));
            return Ok(());
        }
        Err(match key {
            "options" => AddressMistake::new(
                "this address gives `options`, which poolers refuse",
                "set them for the user instead: ALTER ROLE renewd SET …",
            ),
            "service" | "passfile" => AddressMistake::new(
                "this address refers to another file (`service` or `passfile`)",
                "write all of it here, the password too: the file of the address is a secret",
            ),
            "sslpassword" => AddressMistake::new(
                "the key of the client certificate is locked with a password",
                "unlock it: openssl pkey -in LOCKED -out client.key, mode 0600",
            ),
            other => AddressMistake::new(
                "this address has a parameter that renewd does not know",
                match nearest(other, KNOWN) {
                    Some(meant) => format!("did you mean `{meant}`? {ESCAPED}"),
                    None => format!("it knows {}; {ESCAPED}", KNOWN.join(", ")),
                },
            ),
        })
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| &**value).filter(|v| !v.is_empty())
    }

    /// The entries of a list, of which an empty one says nothing.
    fn list(&self, key: &str) -> Vec<&str> {
        self.get(key)
            .map_or_else(Vec::new, |list| list.split(',').map(str::trim).collect())
    }

    fn settings(&self, from: &SecretRef, ca_file: Option<PathBuf>) -> Read<DatabaseSettings> {
        self.writes()?;
        let user = self.get("user").ok_or_else(|| {
            AddressMistake::new("this address names no user", format!("such as {FORM}"))
        })?;
        let name = self.get("dbname").ok_or_else(|| {
            AddressMistake::new(
                "this address names no database",
                "it stands behind the hosts: postgresql://USER@HOST/DATABASE, or dbname=DATABASE",
            )
        })?;
        let given = self.get("sslrootcert").filter(|file| *file != "system");
        Ok(DatabaseSettings {
            from: from.clone(),
            hosts: self.hosts()?,
            name: name.to_owned(),
            user: user.to_owned(),
            password: self
                .get("password")
                .map(|text| Secret::new(text.to_owned())),
            ca_file: ca_file.or(given
                .map(|file| absolute(file, "sslrootcert"))
                .transpose()?),
            client: self.client()?,
            channel_binding: self.channel_binding()?,
            direct_tls: self.direct_tls()?,
            connect_timeout: self.connect_timeout()?,
            deadline: DEADLINE,
        })
    }

    /// That nothing else is asked for than a host that takes writes.
    fn writes(&self) -> Read<()> {
        match self.get("target_session_attrs") {
            None | Some("any" | "read-write" | "primary") => Ok(()),
            Some(_) => Err(AddressMistake::new(
                "this address asks for a host that takes no writes",
                "leave target_session_attrs out: renewd takes the first host that takes writes",
            )),
        }
    }

    fn hosts(&self) -> Read<Vec<DatabaseHost>> {
        let mut names = self.list("host");
        let (addresses, ports) = (self.list("hostaddr"), self.list("port"));
        if names.is_empty() {
            names.clone_from(&addresses);
        }
        if names.is_empty() || names.iter().any(|name| name.is_empty()) {
            let hint = "names or addresses, with commas between them; or the folder of a Unix socket, \
                        host=/var/run/postgresql";
            return Err(AddressMistake::new("this address names no host", hint));
        }
        if !addresses.is_empty() && addresses.len() != names.len() {
            let hint = "one for each host, or none";
            return Err(AddressMistake::new(
                "this address has not as many `hostaddr` as hosts",
                hint,
            ));
        }
        if ports.len() > 1 && ports.len() != names.len() {
            return Err(AddressMistake::new(
                "this address has not as many ports as hosts",
                "one for each host, or one for all",
            ));
        }
        let each = names.iter().enumerate().map(|(at, name)| {
            let port = ports.get(at).or(ports.first());
            let place = place(name, addresses.get(at).copied().unwrap_or_default())?;
            Ok(DatabaseHost {
                secure: self.is_secure(&place)?,
                place,
                port: port.map_or(Ok(PORT), |port| port_of(port))?,
            })
        });
        each.collect()
    }

    /// What is not on this machine is reached with TLS, and only as the host that its certificate names.
    fn is_secure(&self, place: &HostPlace) -> Read<bool> {
        let mode = self.get("sslmode");
        let mode_is_known = |mode| {
            let modes = [
                "disable",
                "allow",
                "prefer",
                "require",
                "verify-ca",
                "verify-full",
            ];
            modes.contains(&mode)
        };
        if mode.is_some_and(|mode| !mode_is_known(mode)) {
            return Err(AddressMistake::new(
                "the `sslmode` of this address is not one that PostgreSQL knows",
                "write sslmode=verify-full",
            ));
        }
        let is_asked_for = matches!(mode, Some("require" | "verify-ca" | "verify-full"));
        let is_here = match place {
            HostPlace::Unix(_) => return Ok(false),
            HostPlace::Tcp(_, Some(address)) => address.is_loopback(),
            HostPlace::Tcp(name, None) => {
                name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        };
        match mode {
            Some("disable") if !is_here => Err(AddressMistake::new(
                "this address would send the password and every row over the network in plain text",
                "write sslmode=verify-full, and ca_file = \"…\" beside url for an authority of your own; plain text is \
                 for this machine alone (a Unix socket, 127.0.0.1, ::1, localhost)",
            )),
            _ => Ok(is_asked_for || !is_here),
        }
    }

    fn client(&self) -> Read<Option<ClientFiles>> {
        match (self.get("sslcert"), self.get("sslkey")) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(ClientFiles {
                certificate: absolute(certificate, "sslcert")?,
                key: absolute(key, "sslkey")?,
            })),
            _ => Err(AddressMistake::new(
                "this address gives one of `sslcert` and `sslkey`, and each needs the other",
                "the client certificate, and its key, each a file in PEM",
            )),
        }
    }

    fn channel_binding(&self) -> Read<ChannelBinding> {
        match self.get("channel_binding") {
            None | Some("prefer") => Ok(ChannelBinding::Prefer),
            Some("require") => Ok(ChannelBinding::Require),
            Some("disable") => Ok(ChannelBinding::Disable),
            Some(_) => Err(AddressMistake::new(
                "the `channel_binding` of this address is not one that PostgreSQL knows",
                "one of require, prefer and disable",
            )),
        }
    }

    fn direct_tls(&self) -> Read<bool> {
        match self.get("sslnegotiation") {
            None | Some("postgres") => Ok(false),
            Some("direct") => Ok(true),
            Some(_) => Err(AddressMistake::new(
                "the `sslnegotiation` of this address is not one that PostgreSQL knows",
                "postgres or direct",
            )),
        }
    }

    fn connect_timeout(&self) -> Read<Duration> {
        let Some(text) = self.get("connect_timeout") else {
            return Ok(TIMEOUT);
        };
        let secs = text.parse().ok();
        secs.filter(|secs| (1..=LONGEST_TIMEOUT).contains(secs))
            .map(Duration::from_secs)
            .ok_or_else(|| {
                AddressMistake::new(
                    "the `connect_timeout` of this address is out of range",
                    format!("1 to {LONGEST_TIMEOUT} seconds"),
                )
            })
    }
}

fn place(name: &str, address: &str) -> Read<HostPlace> {
    if name.starts_with('/') {
        return Ok(HostPlace::Unix(PathBuf::from(name)));
    }
    let is_odd = |c: char| !c.is_ascii_alphanumeric() && !".-_:".contains(c);
    if name.contains(is_odd) {
        return Err(AddressMistake::new(
            "a host of this address is neither a name nor an address",
            ESCAPED,
        ));
    }
    if address.is_empty() {
        return Ok(HostPlace::Tcp(name.to_owned(), None));
    }
    let address = address.parse().map_err(|_| {
        AddressMistake::new(
            "a `hostaddr` of this address is no address",
            "numbers, such as 10.0.0.7",
        )
    })?;
    Ok(HostPlace::Tcp(name.to_owned(), Some(address)))
}

fn port_of(text: &str) -> Read<u16> {
    match text {
        "" => Ok(PORT),
        text => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            AddressMistake::new(
                "a port of this address is not a number up to 65535",
                ESCAPED,
            )
        }),
    }
}

/// A relative path would depend on where the daemon was started.
fn absolute(path: &str, key: &'static str) -> Read<PathBuf> {
    match PathBuf::from(path) {
        path if path.is_absolute() => Ok(path),
        _ => Err(AddressMistake::new(
            "a file in this address is not an absolute path",
            format!("`{key}` must begin with /"),
        )),
    }
}

/// What stands behind the scheme.
fn of_url(rest: &str) -> Read<Said> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if rest.contains('@') || rest.contains(char::is_whitespace) {
        return Err(AddressMistake::new(
            "this address has an @ or a space behind its hosts",
            ESCAPED,
        ));
    }
    let mut said = Said::default();
    let hosts = match authority.rsplit_once('@') {
        Some((login, hosts)) => {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            said.set("user", decoded(user)?)?;
            if let Some(password) = password {
                said.set("password", decoded(password)?)?;
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let (names, ports) = hosts_of(hosts)?;
        said.set("host", names)?;
        said.set("port", ports)?;
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    said.set("dbname", decoded(path.trim_start_matches('/'))?)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            AddressMistake::new("a parameter of this address has no value", ESCAPED)
        })?;
        said.set(&decoded(key)?, decoded(value)?)?;
    }
    Ok(said)
}

/// Names and ports of `db-1:5432,db-2,[::1]:5433`, each as a list.
fn hosts_of(text: &str) -> Read<(String, String)> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in text.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']').ok_or_else(|| {
                    AddressMistake::new(
                        "a host in this address begins with [ and has no ]",
                        ESCAPED,
                    )
                })?;
                (name, port.strip_prefix(':').unwrap_or(port))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decoded(name)?);
        ports.push(port);
    }
    Ok((names.join(","), ports.join(",")))
}

fn decoded(text: &str) -> Read<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| AddressMistake::new("a %XX in this address is not UTF-8", ESCAPED))
}

/// `key=value key='a value'`.
fn of_pairs(text: &str) -> Read<Said> {
    let mistake = || {
        AddressMistake::new(
            "what this refers to is neither a URL nor pairs such as host=db-1",
            format!("{FORM}; in pairs a value with spaces stands between single quotes"),
        )
    };
    let mut said = Said::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').ok_or_else(mistake)?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(mistake());
        }
        let (value, after) = value_of(value.trim_start()).ok_or_else(mistake)?;
        said.set(key, value)?;
        rest = after.trim_start();
    }
    Ok(said)
}

/// A value, plain or between quotes, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted.is_some() => return Some((value, &text[at + 1..])),
            c if quoted.is_none() && c.is_whitespace() => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    quoted.is_none().then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Read<DatabaseSettings> {
        let from = SecretRef::Env("DATABASE".to_owned());
        DatabaseSettings::read(&from, &Secret::new(text.to_owned()), None)
    }

    fn hosts(text: &str) -> Vec<(String, bool)> {
        let read = address(text).unwrap();
        let shown = |host: &DatabaseHost| (host.to_string(), host.secure);
        read.hosts.iter().map(shown).collect()
    }

    #[test]
    fn both_forms_are_read() {
        let url = address(
            "postgresql://re%6Eewd:p%40ss%2Fword@db-1,db-2:5433,[::1]:5434/tokens?sslmode=verify-full&connect_timeout=3",
        )
        .unwrap();
        let pairs = address(
            r"host=db-1,db-2,::1 port=,5433,5434 user = renewd password='p@ss/word' dbname=tokens sslmode=verify-full
              connect_timeout=3",
        )
        .unwrap();
        assert_eq!(url, pairs);
        assert_eq!(url.password.as_ref().unwrap().expose(), "p@ss/word");
        assert_eq!(url.to_string(), "db-1:5432,db-2:5433,[::1]:5434/tokens");
        assert_eq!(url.connect_timeout, Duration::from_secs(3));
        let quoted = address(r"host=h user=u dbname=d password='it\'s \\ me'").unwrap();
        assert_eq!(quoted.password.unwrap().expose(), r"it's \ me");
        let given = address("postgres://u@db/d?hostaddr=10.0.0.7&application_name=x").unwrap();
        let seven = "10.0.0.7".parse().unwrap();
        assert_eq!(
            given.hosts[0].place,
            HostPlace::Tcp("db".to_owned(), Some(seven))
        );
        let socket = address("postgresql://u@%2Fvar%2Frun%2Fpostgresql:5433/d").unwrap();
        assert_eq!(socket.to_string(), "/var/run/postgresql/.s.PGSQL.5433/d");
    }

    #[test]
    fn plain_text_stays_on_this_machine() {
        for (text, secure) in [
            ("postgresql://u@localhost/d", false),
            ("postgresql://u@127.0.0.2/d?sslmode=disable", false),
            ("postgresql://u@[::1]/d?sslmode=prefer", false),
            ("postgresql://u@localhost/d?sslmode=require", true),
            ("postgresql://u@db/d", true),
            ("postgresql://u@db/d?sslmode=prefer", true),
            ("postgresql://u@10.0.0.7/d?sslmode=require", true),
            ("postgresql://u@localhost/d?hostaddr=10.0.0.7", true),
            ("postgresql://u@db/d?hostaddr=127.0.0.1", false),
            (
                "host=/run/postgresql user=u dbname=d sslmode=verify-full",
                false,
            ),
        ] {
            assert_eq!(hosts(text)[0].1, secure, "{text}");
        }
        for text in [
            "postgresql://u@db/d?sslmode=disable",
            "postgresql://u@localhost,db/d?sslmode=disable",
            "host=10.0.0.7 user=u dbname=d sslmode=disable",
            "host=localhost hostaddr=10.0.0.7 user=u dbname=d sslmode=disable",
        ] {
            let mistake = address(text).unwrap_err();
            assert!(
                mistake.message.contains("plain text"),
                "{text}: {mistake:?}"
            );
        }
    }

    #[test]
    fn mistakes_are_explained_and_nothing_of_them_is_quoted() {
        for (text, why) in [
            ("", "no user"),
            ("hunter2", "neither a URL"),
            ("mysql://u:hunter2@db/d", "something else"),
            ("postgresql://:hunter2@db/d", "no user"),
            ("postgresql://u:hunter2@db", "no database"),
            ("postgresql://u:hunter2@/d", "no host"),
            ("postgresql://u:a@b/hunter2@db/d", "an @"),
            ("postgresql://u:hunter2?x@db/d", "an @"),
            ("postgresql://u@hunter2 x/d", "neither a name"),
            ("postgresql://u@db:hunter2/d", "a port"),
            ("postgresql://u@db/d?hunter2=1", "does not know"),
            ("postgresql://u@db/d?hunter2", "no value"),
            ("postgresql://u@db/d?sslmode=hunter2", "`sslmode`"),
            (
                "postgresql://u@db/d?connect_timeout=hunter2",
                "`connect_timeout`",
            ),
            (
                "postgresql://u@db/d?target_session_attrs=standby",
                "no writes",
            ),
            ("postgresql://u@db/d?options=-chunter2", "`options`"),
            (
                "postgresql://u@db/d?sslcert=/hunter2",
                "each needs the other",
            ),
            (
                "postgresql://u@db/d?sslrootcert=hunter2",
                "not an absolute path",
            ),
            ("host=db user=u dbname=d password='hunter2", "neither a URL"),
            (
                "host=db user=u dbname=d password=my hunter2",
                "neither a URL",
            ),
            (
                "host=db user=u dbname=d password=my hunter2=x",
                "does not know",
            ),
            (
                "host=a,b port=1,2,3 user=u dbname=hunter2",
                "not as many ports",
            ),
        ] {
            let mistake = address(text).expect_err(text);
            let told = format!("{}: {}", mistake.message, mistake.hint);
            assert!(told.contains(why), "{text}: {told}");
            assert!(!told.contains("hunter2"), "{text}: {told}");
        }
        let near = address("postgresql://u@db/d?sslmodus=require").unwrap_err();
        assert!(near.hint.contains("`sslmode`"), "{near:?}");
    }

    #[test]
    fn a_password_is_never_shown() {
        let read = address("postgresql://u:hunter2@db/d").unwrap();
        assert!(!format!("{read:?} {read}").contains("hunter2"));
    }
}
