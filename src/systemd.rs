//! The service manager: what it is told, what it hands over, and what the process does to itself before it holds a
//! secret, so that nobody can read its memory. Without a service manager all of it is silent.
//!
//! It is told by the protocol of sd_notify(3), in plain safe code: datagrams of `KEY=VALUE` lines to the socket
//! that `NOTIFY_SOCKET` names, by path or, after `@`, in the abstract namespace. It hands over sockets
//! (sd_listen_fds(3)) that it holds open while the daemon starts or restarts. Its watchdog is fed while every loop
//! has made or reaffirmed its decision lately, which says nothing about success: an outage of ACS must not
//! restart the daemon.

use std::{
    env,
    ffi::OsStr,
    io,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use listenfd::ListenFd;
use rustix::{
    fs::Mode,
    process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
    },
};

use crate::model::decided_lately;

/// Why the service manager could not be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("the service manager's socket {address:?} could not be {what}")]
pub struct NotifyError {
    what: &'static str,
    address: String,
    source: io::Error,
}

/// Tells the service manager how the daemon is doing. A notifier without a socket is silent.
#[derive(Debug)]
pub struct Notifier(Option<Manager>);

#[derive(Debug)]
struct Manager {
    address: String,
    socket: UnixDatagram,
}

impl Notifier {
    /// Speaks to the manager that `NOTIFY_SOCKET` names; silent when it names none.
    pub fn from_env() -> Result<Self, NotifyError> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(address) if !address.is_empty() => Self::to(&address),
            _ => Ok(Self::silent()),
        }
    }

    pub fn silent() -> Self {
        Self(None)
    }

    /// Speaks to the socket at `address`: a path, or `@name` for an abstract one.
    pub fn to(address: &OsStr) -> Result<Self, NotifyError> {
        let shown = address.to_string_lossy().into_owned();
        let connect = || {
            let target = match address.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(address)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&target)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Ok(Self(Some(Manager {
                address: shown,
                socket,
            }))),
            Err(source) => Err(NotifyError {
                what: "reached",
                address: shown,
                source,
            }),
        }
    }

    /// Start-up is complete, or a reload is; with a word for `systemctl status`.
    pub fn ready(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&format!("READY=1\n{}", status_line(status)))
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&status_line(status))
    }

    /// A reload begins; [`Notifier::ready`] ends it. Carries the instant, so that it also serves
    /// `Type=notify-reload`.
    pub fn reloading(&self) -> Result<(), NotifyError> {
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}\n",
            monotonic_usec()
        ))
    }

    /// The daemon ends itself.
    pub fn stopping(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&format!("STOPPING=1\n{}", status_line(status)))
    }

    /// Every loop is alive.
    pub fn watchdog(&self) -> Result<(), NotifyError> {
        self.send("WATCHDOG=1\n")
    }

    /// Starting, reloading or stopping needs up to so long from now.
    pub fn extend_timeout(&self, by: Duration) -> Result<(), NotifyError> {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}\n", by.as_micros()))
    }

    fn send(&self, lines: &str) -> Result<(), NotifyError> {
        let Some(manager) = &self.0 else {
            return Ok(());
        };
        match manager.socket.send(lines.as_bytes()) {
            Ok(_) => Ok(()),
            Err(source) => Err(NotifyError {
                what: "written to",
                address: manager.address.clone(),
                source,
            }),
        }
    }
}

/// One line: a line end would start another variable.
fn status_line(status: &str) -> String {
    format!("STATUS={}\n", status.replace(['\n', '\r'], " "))
}

/// The manager compares this with its own `CLOCK_MONOTONIC`; it is no time of day, so the clock
/// room does not give it.
fn monotonic_usec() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// Why the sockets that were passed cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the service manager passed {name} (file descriptor {number}), which renewd cannot use: {why}; \
     correct the .socket unit"
)]
pub struct ActivationError {
    name: String,
    number: usize,
    why: String,
}

/// What was passed; nothing where the daemon was started without a .socket unit.
#[derive(Debug, Default)]
pub struct Passed {
    /// In place of `[daemon] socket`.
    pub socket: Option<UnixListener>,
    /// In place of `[daemon] listen`.
    pub listen: Option<TcpListener>,
}

impl Passed {
    /// Takes over what this process was passed (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`).
    ///
    /// # Errors
    /// When it is no stream socket, or two are of a kind.
    pub fn from_env() -> Result<Self, ActivationError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut fds = ListenFd::from_env();
        let mut passed = Self::default();
        for at in 0..fds.len() {
            passed.take(&mut fds, at).map_err(|why| ActivationError {
                name: (names.get(at).copied().filter(|name| !name.is_empty()))
                    .unwrap_or("a socket")
                    .to_owned(),
                number: at + 3,
                why,
            })?;
        }
        Ok(passed)
    }

    fn take(&mut self, fds: &mut ListenFd, at: usize) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        // A descriptor of another kind is left in its place.
        if let Ok(Some(socket)) = fds.take_unix_listener(at) {
            socket.set_nonblocking(true).map_err(text)?;
            return match self.socket.replace(socket) {
                None => Ok(()),
                Some(_) => Err("there is one local socket already".to_owned()),
            };
        }
        let listen = fds.take_tcp_listener(at);
        let Ok(Some(listen)) = listen else {
            return Err("it is neither a local nor a TCP stream socket".to_owned());
        };
        listen.set_nonblocking(true).map_err(text)?;
        match self.listen.replace(listen) {
            None => Ok(()),
            Some(_) => Err("there is one TCP socket already".to_owned()),
        }
    }
}

/// A protection that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the process could not {what}, and does not read secrets without this protection")]
pub struct HardeningError {
    what: &'static str,
    source: io::Error,
}

/// Forbids core files and debuggers of the same user: both would show tokens. To be called before
/// a secret is read. Every protection is tried; the first that failed is returned.
pub fn harden() -> Result<(), HardeningError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let core = limit_core_files(none);
    let dumpable = keep_debuggers_out();
    core.map_err(|source| HardeningError {
        what: "forbid core files",
        source,
    })?;
    dumpable
}

/// Makes what the process and the programs that it starts create private, where nobody says otherwise.
pub fn make_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// What a process was given before it hardened itself, for programs that are not ours: their core files
/// and the modes of their files are their owner's matter.
#[derive(Debug)]
pub struct Given {
    core: Rlimit,
    mask: Mode,
}

impl Given {
    /// As [`harden`] and [`make_private`] together, such that a program can be given all of it back.
    ///
    /// # Errors
    /// As [`harden`].
    pub fn put_aside() -> Result<Self, HardeningError> {
        let core = getrlimit(Resource::Core);
        let mask = umask(Mode::RWXG | Mode::RWXO);
        let none = Rlimit {
            current: Some(0),
            ..core
        };
        limit_core_files(none).map_err(|source| HardeningError {
            what: "forbid core files",
            source,
        })?;
        keep_debuggers_out()?;
        Ok(Self { core, mask })
    }

    /// Starts a program by `start`, which inherits what was put aside.
    pub fn lend<T>(&self, start: impl FnOnce() -> T) -> T {
        let ours = getrlimit(Resource::Core);
        // Where the limit cannot be lifted again, the program just leaves no core file.
        limit_core_files(self.core).ok();
        let mask = umask(self.mask);
        let started = start();
        umask(mask);
        limit_core_files(ours).ok();
        started
    }
}

fn keep_debuggers_out() -> Result<(), HardeningError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|source| HardeningError {
        what: "keep debuggers of its own user out",
        source: source.into(),
    })
}

/// The unit has `LimitCORE=0` and its sandbox refuses `setrlimit`, so a limit of 0 is left alone.
fn limit_core_files(limit: Rlimit) -> io::Result<()> {
    if getrlimit(Resource::Core) == limit {
        return Ok(());
    }
    Ok(setrlimit(Resource::Core, limit)?)
}

/// Decides about the watchdog; it neither reads the time nor sends anything.
#[derive(Debug)]
pub struct Watchdog {
    period: Duration,
    since: Timestamp,
    ticked: Timestamp,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchdogVerdict {
    /// Send `WATCHDOG=1`.
    Feed,
    /// Send nothing: these loops have not decided in time.
    Starve(Vec<String>),
}

impl Watchdog {
    /// The watchdog that the service manager asks for, if it does.
    pub fn from_env(now: Timestamp) -> Option<Self> {
        let read = |name| std::env::var(name).ok();
        let period = asked_period(
            read("WATCHDOG_USEC").as_deref(),
            read("WATCHDOG_PID").as_deref(),
            std::process::id(),
        )?;
        Some(Self::new(period, now))
    }

    /// A watchdog that bites after `period`.
    pub fn new(period: Duration, now: Timestamp) -> Self {
        Self {
            period,
            since: now,
            ticked: now,
        }
    }

    /// How often to ask for a [`WatchdogVerdict`]: a third of the period, so that one late tick is no harm.
    pub fn interval(&self) -> Duration {
        self.period / 3
    }

    /// Decides from each loop's name and its last decision.
    ///
    /// A loop that has not decided yet is measured from the start. When the ticks themselves come
    /// a whole period late, the machine was asleep: then every loop is measured from its waking.
    pub fn tick(
        &mut self,
        loops: &[(String, Option<Timestamp>)],
        now: Timestamp,
    ) -> WatchdogVerdict {
        let period = SignedDuration::try_from(self.period).unwrap_or(SignedDuration::MAX);
        if now.duration_since(self.ticked) > period {
            self.since = now;
        }
        self.ticked = now;
        let stuck: Vec<String> = loops
            .iter()
            .filter(|(_, decided_at)| !decided_lately(*decided_at, self.since, now))
            .map(|(name, _)| name.clone())
            .collect();
        if stuck.is_empty() {
            WatchdogVerdict::Feed
        } else {
            WatchdogVerdict::Starve(stuck)
        }
    }
}

/// `WATCHDOG_USEC` counts only for the process that `WATCHDOG_PID` names, or any where it is unset
/// (sd_watchdog_enabled(3)).
fn asked_period(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok()?;
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    (ours && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod notify_tests {
    use super::*;
    use std::ffi::OsString;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_both_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        Notifier::to(path.as_os_str())
            .unwrap()
            .ready("5 identities")
            .unwrap();
        assert_eq!(heard(&by_path), "READY=1\nSTATUS=5 identities\n");

        let name = format!("renewd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstractly = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::to(&OsString::from(format!("@{name}"))).unwrap();
        notifier.watchdog().unwrap();
        assert_eq!(heard(&abstractly), "WATCHDOG=1\n");
        notifier
            .extend_timeout(Duration::from_millis(1500))
            .unwrap();
        assert_eq!(heard(&abstractly), "EXTEND_TIMEOUT_USEC=1500000\n");
        notifier.stopping("draining").unwrap();
        assert_eq!(heard(&abstractly), "STOPPING=1\nSTATUS=draining\n");
    }

    #[test]
    fn a_reload_carries_the_monotonic_instant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let before = monotonic_usec();
        Notifier::to(path.as_os_str()).unwrap().reloading().unwrap();
        let text = heard(&manager);
        let usec: i64 = text
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.trim_end().parse().ok())
            .unwrap();
        assert!((before..=monotonic_usec()).contains(&usec));
    }

    #[test]
    fn a_status_cannot_smuggle_another_variable_in() {
        assert_eq!(status_line("a\nMAINPID=1"), "STATUS=a MAINPID=1\n");
    }

    #[test]
    fn without_a_manager_all_is_silent() {
        Notifier::silent().ready("").unwrap();
        assert!(Notifier::to(OsStr::new("/nonexistent/notify")).is_err());
    }
}

#[cfg(test)]
mod hardening_tests {
    use super::*;

    #[test]
    fn hardening_twice_is_fine() {
        harden().unwrap();
        harden().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}

#[cfg(test)]
mod watchdog_tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_period_is_ours_alone() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(asked_period(Some("1000000"), None, 7), second);
        assert_eq!(asked_period(Some("1000000"), Some("7"), 7), second);
        assert_eq!(asked_period(Some("1000000"), Some("8"), 7), None);
        assert_eq!(asked_period(Some("0"), None, 7), None);
        assert_eq!(asked_period(Some("soon"), None, 7), None);
        assert_eq!(asked_period(None, Some("7"), 7), None);
    }

    #[test]
    fn one_stuck_loop_starves_it_and_is_named() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30), at(0));
        let loops = |b| {
            vec![
                ("renewer a".to_owned(), Some(at(200))),
                ("renewer b".to_owned(), b),
            ]
        };
        for second in (10..=200).step_by(10) {
            watchdog.tick(&[], at(second));
        }
        assert_eq!(
            watchdog.tick(&loops(Some(at(150))), at(205)),
            WatchdogVerdict::Feed
        );
        let stuck = WatchdogVerdict::Starve(vec!["renewer b".to_owned()]);
        assert_eq!(watchdog.tick(&loops(Some(at(100))), at(205)), stuck);
        assert_eq!(
            watchdog.tick(&loops(None), at(205)),
            stuck,
            "it never began"
        );
    }

    #[test]
    fn a_loop_has_time_to_begin() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30), at(0));
        let loops = [("dispatcher".to_owned(), None)];
        assert_eq!(watchdog.tick(&loops, at(10)), WatchdogVerdict::Feed);
    }

    #[test]
    fn after_a_sleep_of_the_machine_every_loop_may_wake_first() {
        let mut watchdog = Watchdog::new(Duration::from_secs(30), at(0));
        let loops = [("renewer".to_owned(), Some(at(5)))];
        assert_eq!(watchdog.tick(&loops, at(10)), WatchdogVerdict::Feed);
        assert_eq!(watchdog.tick(&loops, at(36_000)), WatchdogVerdict::Feed);
        for second in (36_010..=36_090).step_by(10) {
            assert_eq!(watchdog.tick(&loops, at(second)), WatchdogVerdict::Feed);
        }
        let stuck = WatchdogVerdict::Starve(vec!["renewer".to_owned()]);
        assert_eq!(watchdog.tick(&loops, at(36_100)), stuck);
    }
}
