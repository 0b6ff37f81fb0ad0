//! The notification protocol of sd_notify(3), in plain safe code: datagrams of `KEY=VALUE` lines to
//! the socket that `NOTIFY_SOCKET` names, by path or, after `@`, in the abstract namespace.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

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

    /// Speaks to nobody.
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

#[cfg(test)]
mod tests {
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
