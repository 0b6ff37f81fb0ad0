//! One run of a program: its own process group, fed, listened to, and ended as a whole.

use std::{
    collections::BTreeMap,
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use zeroize::Zeroizing;

use super::verdict::End;

/// Programs of all sinks that run at once.
pub const PROGRAMS: usize = 64;
static TURNS: Semaphore = Semaphore::const_new(PROGRAMS);
/// Where memory is short, programs go before the daemon.
const FIRST_TO_GO: &str = "500";
/// Between the request to end (SIGTERM) and the end (SIGKILL).
const GRACE: Duration = Duration::from_secs(5);
/// After a program has ended, what it said last is waited for so long; a process that it left behind
/// may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// So much of the end of what is said is kept, the rest is read and dropped. Twice this is held at
/// most.
const KEPT: usize = 32 * 1024;

/// What to run.
pub(super) struct Task<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: &'a [String],
    pub(super) environment: BTreeMap<String, String>,
    pub(super) input: Zeroizing<Vec<u8>>,
    pub(super) timeout: Duration,
}

/// A run that is over.
pub(super) struct Run {
    pub(super) end: End,
    /// The end of what it printed, as it came from both channels. It may hold the token.
    pub(super) said: Zeroizing<Vec<u8>>,
}

/// Runs it; at the end nothing of its process group is left. Dropping the future ends the group, too.
pub(super) async fn run(task: Task<'_>) -> io::Result<Run> {
    let _turn = TURNS.acquire().await.map_err(io::Error::other)?;
    let mut child = Command::new(task.program)
        .args(task.arguments)
        .env_clear()
        .envs(&task.environment)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let group = Group::of(&child);
    if let Some(id) = child.id() {
        // It may have ended already.
        std::fs::write(format!("/proc/{id}/oom_score_adj"), FIRST_TO_GO).ok();
    }
    let said = Said::default();
    let mut channels = JoinSet::new();
    if let Some(stdin) = child.stdin.take() {
        channels.spawn(feed(stdin, task.input));
    }
    if let Some(stdout) = child.stdout.take() {
        channels.spawn(listen(stdout, said.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        channels.spawn(listen(stderr, said.clone()));
    }
    let end = match timeout(task.timeout, child.wait()).await {
        Ok(status) => End::Exited(status?),
        Err(_) => {
            group.end(&mut child).await?;
            End::TimedOut(task.timeout)
        }
    };
    drop(group);
    let heard = async { while channels.join_next().await.is_some() {} };
    timeout(LAST_WORDS, heard).await.ok();
    Ok(Run {
        end,
        said: said.take(),
    })
}

/// A program need not read its input to the end.
async fn feed(mut stdin: ChildStdin, input: Zeroizing<Vec<u8>>) {
    stdin.write_all(&input).await.ok();
}

/// Reads to the end, so that the program is never held up by what it says.
async fn listen(mut channel: impl AsyncRead + Unpin, said: Said) {
    let mut buffer = Zeroizing::new(vec![0; 4096]);
    while let Ok(count @ 1..) = channel.read(&mut buffer).await {
        said.add(&buffer[..count]);
    }
}

/// The end of what both channels said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Zeroizing<Vec<u8>>>>);

impl Said {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + bytes.len() > 2 * KEPT {
            let start = kept.len().saturating_sub(KEPT);
            *kept = Zeroizing::new(kept[start..].to_vec());
        }
        kept.extend_from_slice(bytes);
    }

    fn take(&self) -> Zeroizing<Vec<u8>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *kept)
    }
}

/// The process group that a program leads. Whatever is left of it when this is dropped is killed.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // None of it may be left.
            kill_process_group(leader, signal).ok();
        }
    }

    /// Asks the group to end, then ends it.
    async fn end(&self, child: &mut Child) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        match timeout(GRACE, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                child.wait().await
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
