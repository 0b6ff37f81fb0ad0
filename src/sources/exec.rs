//! `[[source.exec]]`: a program that prints JSON lines. No shell, a timeout, bounded output; what it
//! started ends with it.

use std::{io, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    SourceError,
    list::Head,
    reader::{ListReader, ReadTask},
};
use crate::model::one_line;

/// Where memory is short, it goes before the daemon.
const FIRST_TO_GO: &str = "500";
/// So much of what it complains about is kept.
const COMPLAINT: u64 = 4096;
/// What it finds in its environment; nothing of ours.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that lists identities.
#[derive(Debug)]
pub(super) struct Exec {
    command: Vec<String>,
    timeout: Duration,
}

/// A running program. Dropped, it ends with everything in its process group, whether it has ended itself
/// or not: a number of a group is given to nobody else while anybody is in it.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            child,
            group: id.and_then(Pid::from_raw),
        }
    }

    /// Waits for its end, and ends what it left behind before its number is free.
    async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        if let Some(leader) = self.group {
            let mut children = signal(SignalKind::child())?;
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(leader), look)?.is_none() {
                children.recv().await;
            }
            drop(self.group.take().map(Group));
        }
        self.child.wait().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.group.take().map(Group));
    }
}

/// Everybody in it is killed when this is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended just now.
        kill_process_group(self.0, Signal::KILL).ok();
    }
}

impl Exec {
    pub(super) fn new(command: Vec<String>, timeout: Duration) -> Self {
        Self { command, timeout }
    }

    pub(super) async fn read(&self) -> Result<(Head, ListReader), SourceError> {
        match timeout(self.timeout, self.run()).await {
            Ok(read) => read,
            Err(_) => Err(SourceError::Slow {
                what: self.program().to_owned(),
                seconds: self.timeout.as_secs(),
            }),
        }
    }

    /// The program prints, and a child of ours reads.
    async fn run(&self) -> Result<(Head, ListReader), SourceError> {
        let failed = |error: io::Error| self.failed(&error.to_string());
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(self.failed("there is no program"));
        };
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(id) = child.id() {
            // It may have ended already.
            std::fs::write(format!("/proc/{id}/oom_score_adj"), FIRST_TO_GO).ok();
        }
        let mut running = Running::of(child);
        let (out, complaints) = (running.child.stdout.take(), running.child.stderr.take());
        let out = out
            .map(|out| out.into_owned_fd())
            .transpose()
            .map_err(failed)?;
        let task = ReadTask::Input {
            program: self.program().to_owned(),
        };
        let mut reader = ListReader::start(&task, out).await?;
        // Whoever still prints is heard to the end; only then what is left of the program is ended.
        let heard = async {
            let head = reader.head().await?;
            Ok((head, running.ended().await.map_err(failed)?))
        };
        let complained = async { kept(complaints).await.map_err(failed) };
        let ((head, status), complaint) = tokio::try_join!(heard, complained)?;
        if status.success() {
            return Ok((head, reader));
        }
        let said = String::from_utf8_lossy(&complaint);
        let said: String = one_line(said.trim()).chars().take(300).collect();
        Err(self.failed(&format!(
            "it ended with {status}{}{said}",
            if said.is_empty() { "" } else { ": " }
        )))
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    fn failed(&self, reason: &str) -> SourceError {
        SourceError::Program {
            program: self.program().to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// What it complains about, kept up to so many bytes; the rest is read and dropped.
async fn kept(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(COMPLAINT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}
