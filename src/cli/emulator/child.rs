//! Runs a program with the emulator in its environment, and ends as it ended.

use std::{ffi::OsString, io::IsTerminal, os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    cli::exit::{Exit, Failed, Outcome},
    emulator::{Serving, child_environment},
};

/// What a shell ends with for a program that a signal ended is this plus the signal's number.
const SIGNALLED: i32 = 128;
/// What a shell ends with for a program that it cannot start.
const NOT_STARTED: u8 = 127;

/// Serves while the program runs. Signals to stop go on to it.
pub(super) async fn run(command: &[OsString], serving: Serving) -> Outcome {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failed::usage("there is no program after --"));
    };
    let mut signals = Signals::listen()?;
    let started = Command::new(program)
        .args(arguments)
        .envs(child_environment(&serving))
        .kill_on_drop(true)
        .spawn();
    let mut child = started.map_err(|error| {
        let program = program.to_string_lossy();
        Failed::new(
            Exit::As(NOT_STARTED),
            format!("cannot run {program}: {error}"),
        )
    })?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serving.run_until(async {
        stopped.await.ok();
    }));
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status?,
            signal = signals.next() => pass_on(child.id(), signal),
        }
    };
    // The server may have ended by itself only by a panic, which was logged.
    stop.send(()).ok();
    server.await.ok();
    Ok(Exit::As(code(status)))
}

fn code(status: ExitStatus) -> u8 {
    let signalled = || SIGNALLED + status.signal().unwrap_or_default();
    let code = status.code().unwrap_or_else(signalled);
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn pass_on(id: Option<u32>, signal: Signal) {
    let pid = id
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        kill_process(pid, signal).ok();
    }
}

/// The signals that the program should get.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// A terminal gives an interrupt to every process in front of it, the program included.
    shared: bool,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            shared: std::io::stdin().is_terminal(),
        })
    }

    async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Signal::TERM,
                _ = self.interrupt.recv() => {
                    if !self.shared {
                        return Signal::INT;
                    }
                }
                _ = self.hangup.recv() => return Signal::HUP,
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
    }
}
