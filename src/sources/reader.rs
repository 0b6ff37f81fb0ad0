//! Reading a list: what is to be read, by whom, and the rows as they come.
//!
//! Lists are made by others, so they are read by a child of ours: the same program, told over its standard
//! output (a socket) what to read, with limits of its own for memory and time, an empty environment and no
//! descriptor of ours. Whatever it dies of is the end of one look. It keeps the list, in the order of names, and
//! hands it over as often as it is asked to: once to be compared, then to be written. Under simulated time
//! the same functions read in place.

use std::{
    io::{self, BufRead as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd, RawFd},
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream as Socket,
    process::{Child, Command},
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    SourceError,
    list::{self, Collector, Head, List, ListItem},
    sqlite,
};
use crate::{
    clock::Clock,
    config::{self, SourceSettings},
    model::{Name, RefusedRow, Spec},
};

/// The verb, left out of every help, that makes our program such a child.
pub const VERB: &str = "read-list";
/// Our own program, also after it was replaced by a newer one.
const OURSELVES: &str = "/proc/self/exe";
/// The memory that a child may map. A list takes at most 256 MiB of it.
pub const MEMORY: usize = 640 << 20;
/// Children at once, of all sources, by how long they take: those that began just now, those that take longer, and
/// those that take very long. A list waits for lists of its own kind alone, and one that hangs is of the last.
const TURNS: [usize; 3] = [2, 2, 1];
/// So many children read at once.
pub const AT_ONCE: usize = TURNS[0] + TURNS[1] + TURNS[2];
/// How long a child may take before it counts as one of the next kind.
const WITHIN: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(30)];
/// Processes and threads of a child.
pub const THREADS: usize = 2;
/// The turns of this process's children.
pub(super) static QUEUES: ReadQueues = ReadQueues::new();
/// Where memory is short, a child is the first to be killed, long before the daemon.
const FIRST_TO_GO: &str = "1000";
/// How much a child may compute, in seconds, for a list and all its hand-overs.
const COMPUTING: u64 = 240;
/// What a database may spill into temporary files while it sorts.
const SPILLED: u64 = 1 << 30;
const DESCRIPTORS: u64 = 32;
/// How long reading may take, and how long a child may think before its next row.
pub(super) const READING: Duration = Duration::from_secs(120);
const NEXT: Duration = Duration::from_secs(30);
/// No line between us is longer: a row of 1 MiB, escaped.
const LONGEST: u64 = 8 << 20;
/// How often a file that changes while it is read is tried at once.
const TRIES: u32 = 3;

/// What is to be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReadTask {
    /// The rows of a query.
    Query { path: PathBuf, query: String },
    /// The lines of a file.
    File { path: PathBuf },
    /// The lines that a program prints: standard input.
    Input { program: String },
}

/// What a child answers first.
type Answer = Result<Head, SourceError>;

impl ReadTask {
    fn what(&self) -> String {
        match self {
            Self::Query { path, .. } | Self::File { path } => path.display().to_string(),
            Self::Input { program } => program.clone(),
        }
    }

    /// Reads the list, here and now.
    pub(super) fn read(&self) -> Result<List, SourceError> {
        let list = match self {
            Self::Query { path, query } => sqlite::read(path, query)?,
            Self::File { path } => lines_of(path)?,
            Self::Input { program } => {
                let mut list = Collector::new(program.clone());
                list::rows(io::stdin().lock(), program, &mut list)?;
                list
            }
        };
        Ok(list.finish())
    }
}

fn lines_of(path: &std::path::Path) -> Result<Collector, SourceError> {
    let what = path.display().to_string();
    let cannot = |error: io::Error| SourceError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    for _ in 0..TRIES {
        let file = config::open_regular(path).map_err(cannot)?;
        let before = list::Stamp::of(&file.metadata().map_err(cannot)?);
        let mut list = Collector::new(what.clone());
        list::rows(&file, &what, &mut list)?;
        if list::Stamp::of(&file.metadata().map_err(cannot)?) == before {
            return Ok(list);
        }
    }
    Err(SourceError::Changing { what })
}

/// The life of such a child: reads what it is told to, and hands the rows over as often as it is asked.
///
/// # Errors
/// When whoever started it is gone, or a limit cannot be set.
pub fn serve() -> io::Result<()> {
    close_what_was_inherited()?;
    // Where that cannot be said, the limits below still hold.
    std::fs::write("/proc/self/oom_score_adj", FIRST_TO_GO).ok();
    for (what, most) in [
        (Resource::As, MEMORY as u64),
        (Resource::Data, MEMORY as u64),
        (Resource::Cpu, COMPUTING),
        (Resource::Fsize, SPILLED),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(what, limit)?;
    }
    let socket = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut told = io::BufReader::new(socket.try_clone()?).lines();
    let task = told.next().transpose()?.unwrap_or_default();
    let task: ReadTask = serde_json::from_str(&task).map_err(io::Error::other)?;
    let (ask, asked) = mpsc::channel();
    // Whatever hangs in here: it ends with whoever wants to know.
    let listening = std::thread::Builder::new().spawn(move || {
        for _ in told.map_while(Result::ok) {
            if ask.send(()).is_err() {
                break;
            }
        }
        end()
    });
    listening?;
    let read = task.read();
    let mut out = io::BufWriter::with_capacity(1 << 16, socket);
    let answer: Answer = read
        .as_ref()
        .map(|list| list.head.clone())
        .map_err(Clone::clone);
    serde_json::to_writer(&mut out, &answer).map_err(io::Error::other)?;
    out.write_all(b"\n")?;
    out.flush()?;
    let Ok(list) = read else { return Ok(()) };
    while asked.recv().is_ok() {
        for line in (0..).map_while(|at| list.line(at)) {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        }
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// What we open closes by itself when a program is started; what somebody handed down to us need not.
fn close_what_was_inherited() -> io::Result<()> {
    let open = std::fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The one that listed them is closed already.
        nix::unistd::close(descriptor).ok();
    }
    Ok(())
}

#[expect(
    clippy::exit,
    reason = "a child that nobody waits for has nothing to tidy up, and its other thread may hang"
)]
fn end() {
    std::process::exit(0)
}

/// A row as it comes: an identity, or why it cannot be one.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRead {
    pub name: Name,
    /// Its place in the list.
    pub number: u64,
    /// What it asks for.
    pub spec: Result<Box<Spec>, RefusedRow>,
}

/// A list that has been read, and can be gone through as often as wanted.
#[derive(Debug)]
pub struct Reading {
    head: Head,
    settings: SourceSettings,
    rows: Rows,
    last: Option<Name>,
}

#[derive(Debug)]
enum Rows {
    Here {
        list: List,
        at: usize,
    },
    Child {
        reader: Box<ListReader>,
        /// The next one's when the child ends.
        _turn: Turn,
    },
}

impl Reading {
    pub(super) fn here(mut list: List, settings: SourceSettings) -> Self {
        Self {
            head: std::mem::take(&mut list.head),
            settings,
            rows: Rows::Here { list, at: 0 },
            last: None,
        }
    }

    pub(super) fn of_child(
        (head, reader): (Head, ListReader),
        turn: Turn,
        settings: SourceSettings,
    ) -> Self {
        Self {
            head,
            settings,
            rows: Rows::Child {
                reader: Box::new(reader),
                _turn: turn,
            },
            last: None,
        }
    }

    /// What is known of it before its rows.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Starts with its first row.
    ///
    /// # Errors
    /// When whoever holds it ended.
    pub async fn begin(&mut self) -> Result<(), SourceError> {
        self.last = None;
        match &mut self.rows {
            Rows::Here { at, .. } => *at = 0,
            Rows::Child { reader, .. } => reader.tell("again").await?,
        }
        Ok(())
    }

    /// The next row in the order of names; `None` after the last.
    ///
    /// # Errors
    /// When whoever holds it ended.
    pub async fn next(&mut self) -> Result<Option<ListRead>, SourceError> {
        let item = match &mut self.rows {
            Rows::Here { list, at } => {
                *at += 1;
                let line = list.line(*at - 1);
                line.map(|line| serde_json::from_slice(&line))
            }
            Rows::Child { reader, .. } => {
                let line = reader.line(NEXT).await?;
                (!line.is_empty()).then(|| serde_json::from_slice(&line))
            }
        };
        let Some(item) = item else { return Ok(None) };
        let item = item.map_err(|error| self.strange(&format!("a strange row ({error})")))?;
        let listed = self.listed(item)?;
        if self.last.as_ref().is_some_and(|last| *last > listed.name) {
            return Err(self.strange("its rows out of order"));
        }
        self.last = Some(listed.name.clone());
        Ok(Some(listed))
    }

    fn listed(&self, item: ListItem) -> Result<ListRead, SourceError> {
        match item {
            ListItem::Row(number, entry) => {
                let name = entry.name.clone();
                let refused = |reason| RefusedRow {
                    number,
                    name: Some(name.clone()),
                    reason,
                };
                let spec = list::spec(*entry, &self.settings).map_err(refused);
                Ok(ListRead {
                    name,
                    number,
                    spec: spec.map(Box::new),
                })
            }
            ListItem::Refused(row) => match row.name.clone() {
                Some(name) => Ok(ListRead {
                    name,
                    number: row.number,
                    spec: Err(row),
                }),
                None => Err(self.strange("a row without a name")),
            },
        }
    }

    fn strange(&self, what: &str) -> SourceError {
        SourceError::Reader {
            what: format!("the list of {}", self.settings.name),
            reason: format!("cannot be read: its reader gave {what}"),
        }
    }
}

/// Our end of a child that reads. Dropped, the child ends.
#[derive(Debug)]
pub(super) struct ListReader {
    what: String,
    child: Child,
    socket: BufReader<Socket>,
}

/// Where lists wait for their turn, each kind by itself, in the order in which they came.
#[derive(Debug)]
pub(super) struct ReadQueues([Semaphore; TURNS.len()]);

/// The right to have a child.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: SemaphorePermit<'static>,
    queues: &'static ReadQueues,
    /// In which of them it came.
    queue: usize,
}

impl ReadQueues {
    const fn new() -> Self {
        Self([
            Semaphore::const_new(TURNS[0]),
            Semaphore::const_new(TURNS[1]),
            Semaphore::const_new(TURNS[2]),
        ])
    }

    /// Reads when its turn comes, in the queue of its kind, which is kept for the next time. A list that takes longer
    /// than its kind while all turns of the next are taken is given up, and read anew among those.
    pub(super) async fn read<T, F: Future<Output = T>>(
        &'static self,
        kind: &mut usize,
        clock: &Clock,
        read: impl Fn() -> F,
    ) -> Result<(T, Turn), SourceError> {
        loop {
            let mut turn = self.turn(*kind).await?;
            let began = clock.steady();
            let found = tokio::select! {
                biased;
                found = read() => found,
                () = turn.over() => {
                    *kind = turn.queue + 1;
                    continue;
                }
            };
            let took = clock.steady().saturating_sub(began);
            *kind = WITHIN.iter().filter(|within| took >= **within).count();
            return Ok((found, turn));
        }
    }

    async fn turn(&'static self, queue: usize) -> Result<Turn, SourceError> {
        let permit = self.0[queue].acquire().await;
        let permit = permit.map_err(|error| SourceError::Reader {
            what: "a list".to_owned(),
            reason: format!("cannot be read ({error})"),
        })?;
        Ok(Turn {
            _permit: permit,
            queues: self,
            queue,
        })
    }
}

impl Turn {
    /// Returns when it is over: when it took longer than its kind, and no turn of the next kind is free. Where one is,
    /// it goes on by that, so that the next list gets its own.
    async fn over(&mut self) {
        let mut waited = Duration::ZERO;
        while let Some(within) = WITHIN.get(self.queue) {
            tokio::time::sleep(within.saturating_sub(waited)).await;
            waited = *within;
            let Ok(permit) = self.queues.0[self.queue + 1].try_acquire() else {
                return;
            };
            self._permit = permit;
            self.queue += 1;
        }
        std::future::pending().await
    }
}

impl ListReader {
    /// Starts a child on its task.
    pub(super) async fn start(
        task: &ReadTask,
        input: Option<OwnedFd>,
    ) -> Result<Self, SourceError> {
        let what = task.what();
        let failed = |error: io::Error| SourceError::Reader {
            what: what.clone(),
            reason: format!("cannot be read: no program for that can be started ({error})"),
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let child = Command::new(OURSELVES)
            .arg(VERB)
            .env_clear()
            .current_dir("/")
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let socket = BufReader::with_capacity(1 << 16, Socket::from_std(ours).map_err(failed)?);
        let mut reader = Self {
            what: what.clone(),
            child,
            socket,
        };
        let task = serde_json::to_string(task).map_err(|error| failed(error.into()))?;
        reader.tell(&task).await?;
        Ok(reader)
    }

    /// What the child says of its list, once it has read it.
    pub(super) async fn head(&mut self) -> Result<Head, SourceError> {
        let line = self.line(READING).await?;
        let answer: Result<Answer, _> = serde_json::from_slice(&line);
        answer.unwrap_or_else(|error| {
            Err(SourceError::Reader {
                what: self.what.clone(),
                reason: format!("cannot be read: its reader gave a strange answer ({error})"),
            })
        })
    }

    async fn tell(&mut self, line: &str) -> Result<(), SourceError> {
        let told = self.socket.write_all(format!("{line}\n").as_bytes()).await;
        match told {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    async fn line(&mut self, within: Duration) -> Result<Vec<u8>, SourceError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.socket).take(LONGEST);
        match timeout(within, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(_)) if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(line)
            }
            Ok(_) => Err(self.ended().await),
            Err(_) => Err(SourceError::Slow {
                what: format!("reading {}", self.what),
                seconds: within.as_secs(),
            }),
        }
    }

    /// Why the child ended.
    async fn ended(&mut self) -> SourceError {
        self.child.start_kill().ok();
        let what = self.what.clone();
        match self.child.wait().await {
            Ok(status) => explained(what, status),
            Err(error) => SourceError::Reader {
                what,
                reason: format!("cannot be read ({error})"),
            },
        }
    }
}

/// What a child died of, in terms of what an operator can do.
fn explained(what: String, status: ExitStatus) -> SourceError {
    use rustix::process::Signal;
    let signal = status.signal().and_then(Signal::from_named_raw);
    let reason = match signal {
        Some(Signal::BUS) => {
            "or a file beside it was cut short while it was read; it is tried again".to_owned()
        }
        Some(Signal::XCPU) => {
            return SourceError::Slow {
                what: format!("reading {what}"),
                seconds: COMPUTING,
            };
        }
        Some(Signal::ABORT) => format!(
            "takes more than the {} MiB of memory that reading a list may take",
            MEMORY >> 20
        ),
        _ => format!("cannot be read: the program that reads it ended ({status})"),
    };
    SourceError::Reader { what, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a list that takes so long again and again; how long each read waited for its turn.
    async fn waits(queues: &'static ReadQueues, takes: Duration, times: usize) -> Vec<Duration> {
        let clock = Clock::simulated(jiff::Timestamp::UNIX_EPOCH);
        let (mut kind, mut waits) = (0, Vec::new());
        for _ in 0..times {
            let asked = clock.steady();
            let read = || tokio::time::sleep(takes);
            let (_, turn) = queues.read(&mut kind, &clock, read).await.unwrap();
            waits.push(clock.steady() - asked - takes);
            drop(turn);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        waits
    }

    /// Lists that end only when they are given up, more than may be read at once: a list that takes long waits for
    /// them once, while it is not known of them, and a short one hardly ever.
    #[tokio::test(start_paused = true)]
    async fn lists_that_hang_hold_no_list_up_that_takes_long() {
        static QUEUES: ReadQueues = ReadQueues::new();
        for _ in 0..6 {
            tokio::spawn(waits(&QUEUES, READING, usize::MAX));
        }
        tokio::task::yield_now().await;
        let long = waits(&QUEUES, Duration::from_secs(20), 8);
        let short = waits(&QUEUES, Duration::from_millis(200), 100);
        let (long, short) = tokio::join!(long, short);
        println!("{long:?}; {:?}", short.iter().max());
        assert!(long[0] <= Duration::from_mins(3), "{long:?}");
        assert!(long[1..].iter().all(|wait| *wait <= WITHIN[1]), "{long:?}");
        assert!(short.iter().all(|wait| *wait <= 4 * WITHIN[0]), "{short:?}");
    }
}
