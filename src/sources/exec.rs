//! `[[source.exec]]`: a program that prints JSON lines. No shell, a timeout, bounded output; what it
//! started ends with it.

use std::{io, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};

use super::{SourceError, jsonl, listing::Row};

/// The most that it may print.
const LARGEST: u64 = 512 << 20;
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

/// A running program. Dropped, it ends with everything in its process group.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = self
            .0
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(group) = group {
            // It may have ended just now.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Exec {
    pub(super) fn new(command: Vec<String>, timeout: Duration) -> Self {
        Self { command, timeout }
    }

    pub(super) async fn read(&self) -> Result<Vec<Row>, SourceError> {
        let output = match timeout(self.timeout, self.run()).await {
            Ok(output) => output?,
            Err(_) => {
                return Err(SourceError::Slow {
                    what: self.program().to_owned(),
                    seconds: self.timeout.as_secs(),
                });
            }
        };
        jsonl::rows(&output, self.program())
    }

    async fn run(&self) -> Result<Vec<u8>, SourceError> {
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
        let mut running = Running(child);
        let (out, complaints) = (running.0.stdout.take(), running.0.stderr.take());
        let (text, complaint) =
            tokio::try_join!(upto(out, LARGEST + 1), upto(complaints, COMPLAINT))
                .map_err(failed)?;
        if text.len() as u64 > LARGEST {
            return Err(SourceError::Long {
                what: self.program().to_owned(),
                most: "512 MiB",
            });
        }
        let status = running.0.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&complaint);
        let said: String = said
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
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

/// What comes, kept up to so many bytes; the rest of a complaint is read and dropped.
async fn upto(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(most).read_to_end(&mut kept).await?;
        if most == COMPLAINT {
            tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
        }
    }
    Ok(kept)
}
