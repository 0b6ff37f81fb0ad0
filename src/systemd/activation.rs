//! Sockets that the service manager holds open for the daemon (sd_listen_fds(3)): it accepts callers
//! before the daemon runs and while it restarts, and starts it with the first one.

use std::{env, io, net::TcpListener, os::unix::net::UnixListener};

use listenfd::ListenFd;

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
