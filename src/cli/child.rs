//! A program that a verb runs: started, signalled, and its end turned into an exit code.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as Arriving, SignalKind, signal},
    time::timeout,
};

use super::exit::{Exit, Failed};
use crate::systemd::Given;

/// What a shell ends with for a program that a signal ended is this plus the signal's number.
const SIGNALLED: i32 = 128;
/// What a shell ends with for a program that it cannot start.
const NOT_STARTED: u8 = 127;

/// Who gets the signals that are sent to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// It alone; it belongs to our process group, so a terminal reaches it, too.
    Shared,
    /// It and all that it starts: a process group of its own.
    Own,
}

impl Group {
    /// In front of a terminal a program has to share our group to be able to read from it.
    pub(crate) fn fitting() -> Self {
        if io::stdin().is_terminal() {
            Self::Shared
        } else {
            Self::Own
        }
    }
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    group: Group,
}

impl Program {
    /// Starts a program with these additions to our environment, and the limits and the mask that we
    /// were given ourselves.
    pub(crate) fn start_with<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        given: &Given,
        command: &[OsString],
        environment: impl IntoIterator<Item = (K, V)>,
        group: Group,
    ) -> Result<Self, Failed> {
        given.lend(|| Self::start(command, environment, group))
    }

    /// Starts a program with these additions to our environment.
    pub(crate) fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        command: &[OsString],
        environment: impl IntoIterator<Item = (K, V)>,
        group: Group,
    ) -> Result<Self, Failed> {
        Self::start_without(command, &[], environment, group)
    }

    /// The same, with some of our environment taken away.
    pub(crate) fn start_without<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        command: &[OsString],
        removed: &[&str],
        environment: impl IntoIterator<Item = (K, V)>,
        group: Group,
    ) -> Result<Self, Failed> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(Failed::usage("there is no program after --"));
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment);
        for name in removed {
            command.env_remove(name);
        }
        if group == Group::Own {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|error| {
            let program = program.to_string_lossy();
            Failed::new(
                Exit::As(NOT_STARTED),
                format!("cannot run {program}: {error}"),
            )
        })?;
        Ok(Self { child, group })
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends it a signal; it may have ended just now.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(pid) = id.and_then(Pid::from_raw) else {
            return;
        };
        match self.group {
            Group::Shared => kill_process(pid, signal).ok(),
            Group::Own => kill_process_group(pid, signal).ok(),
        };
    }

    /// Asks it to end; after `grace` it is ended.
    pub(crate) async fn end(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        match timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.wait().await
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The exit code that tells how a program ended, as a shell does.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let signalled = || SIGNALLED + status.signal().unwrap_or_default();
    let code = status.code().unwrap_or_else(signalled);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The exit code of somebody whom a signal ended.
pub(crate) fn ended_by(signal: Signal) -> Exit {
    Exit::As(u8::try_from(SIGNALLED + signal.as_raw()).unwrap_or(u8::MAX))
}

/// Whether a signal asks for the end.
pub(crate) fn asks_to_end(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal)
}

/// The signals that are for the program and not for us.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Arriving,
    interrupt: Arriving,
    quit: Arriving,
    hangup: Arriving,
    user1: Arriving,
    user2: Arriving,
    group: Group,
}

impl Signals {
    /// Hears them from now on, for a program in this group.
    pub(crate) fn listen(group: Group) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            group,
        })
    }

    /// The next one to pass on.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            let signal = tokio::select! {
                biased;
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.quit.recv() => Signal::QUIT,
                _ = self.hangup.recv() => Signal::HUP,
                _ = self.user1.recv() => Signal::USR1,
                _ = self.user2.recv() => Signal::USR2,
            };
            // A terminal gives these to every process in front of it, the program included.
            let is_typed = [Signal::INT, Signal::QUIT].contains(&signal);
            let reaches_both = self.group == Group::Shared && io::stdin().is_terminal();
            if !(is_typed && reaches_both) {
                return signal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_as_the_program_did() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
        assert_eq!(ended_by(Signal::TERM), Exit::As(143));
    }
}
