//! Programs that are run with each new version: the document on standard input, no shell, a deadline for the whole
//! process group, which is ended as a whole.
//!
//! A version is delivered when the program ends with status 0; everything else is told and tried again. The environment
//! is little, known, and without a secret. What a program said is made fit for a log: without any part of the token, on
//! one line, and short. The process itself has no place in simulated time.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, io,
    os::unix::process::ExitStatusExt,
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

use super::{DeliveryOutcome, SinkDelivery, SinkFailure};
use crate::{
    config::ExecSinkSettings,
    model::{Secret, TokenDocument, whole_seconds},
};

/// Why an exec sink cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// A process takes real time, whatever the clock says.
    #[error("programs run in real time only, and this clock is simulated")]
    Simulated,
    /// Its command is empty.
    #[error("the command names no program")]
    NoProgram,
}

/// A sink that runs a program.
#[derive(Clone)]
pub struct ExecSink(Arc<Inner>);

struct Inner {
    settings: ExecSinkSettings,
    program: String,
}

impl fmt::Debug for ExecSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ExecSink({} runs {})",
            self.settings().name,
            self.0.program
        )
    }
}

impl ExecSink {
    /// Makes the sink.
    ///
    /// # Errors
    /// When there is no program, or no real time to run it in.
    pub fn new(settings: &ExecSinkSettings, is_simulated: bool) -> Result<Self, ExecError> {
        if is_simulated {
            return Err(ExecError::Simulated);
        }
        let program = settings
            .command
            .first()
            .ok_or(ExecError::NoProgram)?
            .clone();
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            program,
        })))
    }

    /// What the configuration says of it.
    pub(super) fn settings(&self) -> &ExecSinkSettings {
        &self.0.settings
    }

    /// Runs the program with the document and waits until it has ended.
    ///
    /// # Errors
    /// When it could not be started, did not end in time, or ended with another status than 0.
    pub async fn deliver(&self, delivery: &SinkDelivery) -> Result<DeliveryOutcome, SinkFailure> {
        let Inner { settings, program } = &*self.0;
        let document = &delivery.document;
        let task = Task {
            program,
            arguments: &settings.command[1..],
            environment: environment(settings, document),
            input: document.to_json(),
            timeout: settings.timeout,
        };
        let run = run(task)
            .await
            .map_err(|error| not_started(program, &error))?;
        let token = document.token.as_ref().map(Secret::expose);
        let said = readable(&run.said, token);
        tracing::debug!(sink = %settings.name, identity = %document.name, said, "a program ended");
        judge(program, &run.end, &said)
    }
}

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

struct Task<'a> {
    program: &'a str,
    arguments: &'a [String],
    environment: BTreeMap<String, String>,
    input: Zeroizing<Vec<u8>>,
    timeout: Duration,
}

/// A run that is over.
struct Run {
    end: End,
    /// The end of what it printed, as it came from both channels. It may hold the token.
    said: Zeroizing<Vec<u8>>,
}

/// Runs it; at the end nothing of its process group is left. Dropping the future ends the group, too.
async fn run(task: Task<'_>) -> io::Result<Run> {
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

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exited(ExitStatus),
    /// It had not ended after so long and was ended, its whole group with it.
    TimedOut(Duration),
}

/// Whether the version is delivered. `said` is the masked end of what the program printed.
fn judge(program: &str, end: &End, said: &str) -> Result<DeliveryOutcome, SinkFailure> {
    let how = match end {
        End::Exited(status) if status.success() => return Ok(DeliveryOutcome::Ran),
        End::Exited(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        },
        End::TimedOut(timeout) => format!(
            "had not ended after {} s (`timeout`), so it and what it started were ended",
            timeout.as_secs()
        ),
    };
    let said = match said {
        "" => " and said nothing".to_owned(),
        said => format!("; it said: {said}"),
    };
    Err(SinkFailure::new(format!("{program} {how}{said}")))
}

/// The program could not be started at all.
fn not_started(program: &str, error: &io::Error) -> SinkFailure {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; is it installed, and the interpreter that it names?",
        io::ErrorKind::PermissionDenied => {
            "; the sandbox of the shipped unit runs nothing that a drop-in with ExecPaths= does not \
             name: `renewd check` prints it"
        }
        io::ErrorKind::WouldBlock => {
            "; the system gives no more processes (TasksMax=, ulimit -u): it is tried again"
        }
        _ => "",
    };
    SinkFailure::new(format!("cannot run {program}: {error}{advice}"))
}

/// Where programs are looked for that are named without their place.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that a program finds in its environment; nothing of the daemon's own is passed on.
fn environment(settings: &ExecSinkSettings, document: &TokenDocument) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> =
        [("PATH", PATH.to_owned()), ("LANG", "C.UTF-8".to_owned())]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
    environment.extend(settings.environment.clone());
    let facts = [
        ("SINK", settings.name.to_string()),
        ("NAME", document.name.to_string()),
        ("RESOURCE", document.resource.to_string()),
        ("STATE", document.state.to_string()),
        ("EVENT", format!("token.{}", document.kind)),
        ("VERSION", document.version.to_string()),
    ];
    let ends = document
        .expires_at
        .map(|at| ("EXPIRES_AT", whole_seconds(at)));
    let facts = facts.into_iter().chain(ends);
    environment.extend(facts.map(|(key, value)| (format!("RENEWD_{key}"), value)));
    environment
}

/// So many bytes that a text shares with the token are no coincidence. A program that prints half of
/// it, or wraps it at some column, is caught as well as one that prints it whole.
const SHARED: usize = 12;
/// What stands for the masked part.
const MASK: &[u8] = b"***";
/// The end of what was said is what explains a failure.
const LONGEST: usize = 600;

/// The end of an output as one printable line, with every part of the token masked.
fn readable(said: &[u8], token: Option<&str>) -> String {
    let masked = match token {
        Some(token) if !token.is_empty() => mask(said, token.as_bytes()),
        _ => Zeroizing::new(said.to_vec()),
    };
    let text = String::from_utf8_lossy(&masked);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" | ");
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    match line.char_indices().rev().nth(LONGEST) {
        Some((at, cut)) => format!("…{}", &line[at + cut.len_utf8()..]),
        None => line,
    }
}

fn mask(said: &[u8], token: &[u8]) -> Zeroizing<Vec<u8>> {
    let width = SHARED.min(token.len());
    let parts: HashSet<&[u8]> = token.windows(width).collect();
    let mut masked = Zeroizing::new(Vec::with_capacity(said.len()));
    // Everything before this place belongs to a part of the token.
    let mut secret_until = 0;
    for at in 0..said.len() {
        let is_start = said
            .get(at..at + width)
            .is_some_and(|part| parts.contains(part));
        if is_start {
            if at >= secret_until && !masked.ends_with(MASK) {
                masked.extend_from_slice(MASK);
            }
            secret_until = at + width;
        }
        if at >= secret_until {
            masked.push(said[at]);
        }
    }
    masked
}

#[cfg(test)]
mod verdict_tests {
    use super::*;

    fn message(raw: i32, said: &str) -> String {
        let end = End::Exited(ExitStatus::from_raw(raw));
        judge("/bin/x", &end, said).unwrap_err().message
    }

    #[test]
    fn only_status_0_is_success() {
        let well = End::Exited(ExitStatus::from_raw(0));
        assert_eq!(judge("/bin/x", &well, "noise"), Ok(DeliveryOutcome::Ran));
        assert_eq!(
            message(3 << 8, ""),
            "/bin/x ended with status 3 and said nothing"
        );
        assert_eq!(
            message(9, "oh"),
            "/bin/x was ended by signal 9; it said: oh"
        );
        let late = End::TimedOut(Duration::from_secs(30));
        let late = judge("/bin/x", &late, "").unwrap_err().message;
        assert!(
            late.starts_with("/bin/x had not ended after 30 s"),
            "{late}"
        );
    }

    #[test]
    fn what_cannot_start_names_the_way_out() {
        let refused = not_started("/bin/x", &io::Error::from_raw_os_error(13));
        assert!(refused.message.contains("ExecPaths="), "{refused}");
        let many = not_started("/bin/x", &io::Error::from_raw_os_error(11));
        assert!(many.message.contains("TasksMax="), "{many}");
    }
}

#[cfg(test)]
mod surroundings_tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Kind, Secret, State, Version};

    #[test]
    fn it_tells_the_facts_but_never_the_token() {
        let settings = ExecSinkSettings {
            rate: None,
            name: "reload".parse().unwrap(),
            command: vec!["/bin/true".to_owned()],
            timeout: Duration::from_secs(30),
            environment: [("LANG", "cs_CZ.UTF-8"), ("APP_HOME", "/opt/app")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            max_in_flight: 4,
            after: Vec::new(),
            nodes: Vec::new(),
        };
        let document = TokenDocument {
            name: "bot".parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            id: Some("8:acs:a_b".parse().unwrap()),
            state: State::Active,
            token: Some(Secret::new("ey.canary".to_owned())),
            scopes: Vec::new(),
            issued_at: None,
            expires_at: Some("2026-11-23T17:00:00.7Z".parse().unwrap()),
            renews_at: None,
            version: Version(7),
            kind: Kind::Renewed,
        };
        let environment = environment(&settings, &document);
        let lines: Vec<String> = environment
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            lines,
            [
                "APP_HOME=/opt/app",
                "LANG=cs_CZ.UTF-8",
                &format!("PATH={PATH}"),
                "RENEWD_EVENT=token.renewed",
                "RENEWD_EXPIRES_AT=2026-11-23T17:00:00Z",
                "RENEWD_NAME=bot",
                "RENEWD_RESOURCE=contoso",
                "RENEWD_SINK=reload",
                "RENEWD_STATE=active",
                "RENEWD_VERSION=7",
            ]
        );
    }
}

#[cfg(test)]
mod masking_tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJza3lwZWlkIjoiYWNzIn0.c2lnbmF0dXJl";

    #[test]
    fn the_token_and_its_parts_are_masked_and_the_rest_is_not() {
        let said = |text: String| readable(text.as_bytes(), Some(TOKEN));
        assert_eq!(said(format!("got {TOKEN}, thanks")), "got ***, thanks");
        assert_eq!(said(format!("{TOKEN}{TOKEN}")), "***");
        assert_eq!(said(format!("cut {}", &TOKEN[20..])), "cut ***");
        assert_eq!(said(format!("a {} b", &TOKEN[3..30])), "a *** b");
        assert_eq!(said("curl: (7) Failed".to_owned()), "curl: (7) Failed");
        assert_eq!(readable(b"short abc", Some("abc")), "short ***");
    }

    #[test]
    fn it_is_one_short_printable_line() {
        assert_eq!(
            readable(b"one\n\n \x1b[31mtwo\r\n", None),
            "one | \u{fffd}[31mtwo"
        );
        let long = readable("ä".repeat(5000).as_bytes(), None);
        assert!(long.starts_with('…') && long.chars().count() == LONGEST + 1);
        assert_eq!(readable(b"\xff", None), "\u{fffd}");
        assert_eq!(readable(b"", Some(TOKEN)), "");
    }

    proptest! {
        #[test]
        fn no_part_of_the_token_is_ever_seen(before in ".{0,40}", from in 0..40usize, len in 12..60usize, after in ".{0,40}") {
            let end = (from + len).min(TOKEN.len());
            let said = format!("{before}{}{after}", &TOKEN[from..end]);
            let seen = readable(said.as_bytes(), Some(TOKEN));
            for part in TOKEN.as_bytes().windows(SHARED) {
                prop_assert!(!seen.contains(std::str::from_utf8(part).unwrap()), "{seen}");
            }
        }
    }
}
