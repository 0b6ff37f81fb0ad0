//! A program under the demo: this very binary, with another verb.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child as Process, ChildStdout, Command},
};

use super::super::exit::Failed;

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
    ) -> Result<(Self, Lines<BufReader<ChildStdout>>), Failed> {
        let cannot = |error| Failed::plain(format!("cannot start the {what}: {error}"));
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
        let stdout = stdout.ok_or_else(|| Failed::plain(format!("the {what} has no output")))?;
        Ok((Self { process, what }, BufReader::new(stdout).lines()))
    }

    /// Fails when the program has ended already.
    pub(super) fn still_runs(&mut self) -> Result<(), Failed> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failed::plain(format!("the {} ended: {status}", self.what))),
            Err(error) => Err(Failed::plain(format!("the {} is lost: {error}", self.what))),
        }
    }

    /// Asks it to end, as the service manager would, and waits for it.
    pub(super) async fn end(mut self) -> Result<ExitStatus, Failed> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failed::plain(format!("the {} does not end: {error}", self.what))
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
pub(super) async fn say(args: &[&str]) -> Result<String, Failed> {
    let cannot = |error| Failed::plain(format!("cannot run renewd {}: {error}", args.join(" ")));
    let output = command(args)
        .map_err(cannot)?
        .output()
        .await
        .map_err(cannot)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failed::plain(format!(
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
