//! `renewd exec` and `renewd follow`: on the consumer's own side, over the local socket.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus},
};

use super::pipe::Pipe;
use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

struct World {
    _emulator: Emulator,
    stage: Stage,
    pipe: Pipe,
}

impl World {
    /// A configuration with the identity `bot-0`, and a pipe for what programs say.
    fn new() -> Self {
        let emulator = Emulator::start(&[]);
        let stage = Stage::new(&emulator);
        let config = stage.base_config() + &identities("bot", 1, &[]);
        stage.configure(&config);
        let pipe = Pipe::new(stage.path("said"));
        std::fs::create_dir(stage.path("run")).unwrap();
        Self {
            _emulator: emulator,
            stage,
            pipe,
        }
    }

    async fn daemon(&self) -> Daemon {
        let daemon = Daemon::start(&self.stage.path("renewd.toml")).await;
        self.renewd(&["wait", "bot-0"]);
        daemon
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RENEWD);
        command
            .args(arguments)
            .env("RENEWD_SOCKET", self.stage.path("renewd.sock"))
            .env("XDG_RUNTIME_DIR", self.stage.path("run"))
            .env("SAID", self.pipe.path())
            .env("STAGE", self.stage.path(""));
        command
    }

    /// Runs it to its end; gives what it printed.
    fn renewd(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn token(&self) -> String {
        self.renewd(&["token", "bot-0"])
    }

    /// Starts it beside the test.
    fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).spawn().unwrap())
    }

    /// Whether a private folder is left.
    fn leftovers(&self) -> usize {
        std::fs::read_dir(self.stage.path("run")).unwrap().count()
    }
}

struct Running(Child);

impl Running {
    /// It takes the program that it runs along.
    fn terminate(mut self) -> ExitStatus {
        self.end()
    }

    fn end(&mut self) -> ExitStatus {
        if let Some(status) = self.0.try_wait().unwrap() {
            return status;
        }
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A SIGKILL gives nobody time to tidy up; the next one does, and leaves those alone that live.
#[tokio::test]
async fn what_a_killed_exec_left_goes_with_the_next_one() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let living = r#"echo on >"$SAID"; exec sleep 1000"#;
    let lives = world.start(&["exec", "bot-0", "--", "/bin/sh", "-c", living]);
    world.pipe.heard().await;
    let killed = r#"echo $$ >"$SAID"; exec sleep 1000"#;
    let mut dies = world.start(&["exec", "bot-0", "--", "/bin/sh", "-c", killed]);
    let orphan: i32 = world.pipe.heard().await.trim().parse().unwrap();
    dies.0.kill().unwrap();
    dies.0.wait().unwrap();
    let orphan = rustix::process::Pid::from_raw(orphan).unwrap();
    rustix::process::kill_process(orphan, rustix::process::Signal::KILL).unwrap();
    assert_eq!(world.leftovers(), 2);
    world.renewd(&["exec", "bot-0", "--", "true"]);
    assert_eq!(world.leftovers(), 1, "the one that lives keeps its own");
    lives.terminate();
    assert_eq!(world.leftovers(), 0);
}

#[tokio::test]
async fn exec_starts_the_program_anew_with_each_new_token() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let script = r#"trap 'exit 7' TERM
        { cat "$RENEWD_TOKEN_FILE"; echo; stat -c %a "$RENEWD_TOKEN_FILE" "${RENEWD_TOKEN_FILE%/*}"; env; echo "$0 $*"; } >"$SAID"
        sleep 1000 & wait"#;
    let exec = world.start(&["exec", "bot-0", "--", "/bin/sh", "-c", script]);
    let first = world.token();
    let heard = world.pipe.heard().await;
    let (token, rest) = heard.split_once('\n').unwrap();
    assert_eq!(token, first);
    assert!(rest.starts_with("600\n700\n"), "{rest}");
    assert!(
        !rest.contains(&first),
        "neither in arguments nor in variables"
    );

    world.renewd(&["renew", "bot-0"]);
    let heard = world.pipe.heard().await;
    let second = world.token();
    assert_ne!(second, first);
    assert!(
        heard.starts_with(&second),
        "the new one is there after the restart"
    );
    assert_eq!(
        exec.terminate().code(),
        Some(7),
        "it ends as the program did"
    );
    assert_eq!(world.leftovers(), 0);
}

#[tokio::test]
async fn exec_hands_the_token_over_on_a_descriptor() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let script = r#"{ cat "/proc/self/fd/$RENEWD_TOKEN_FD"; ls "$STAGE/run" | wc -l; } >"$SAID"
        echo x 2>/dev/null >"/proc/self/fd/$RENEWD_TOKEN_FD" && exit 1; sleep 1000"#;
    let arguments = ["exec", "bot-0", "--token-fd", "--", "/bin/sh", "-c", script];
    let exec = world.start(&arguments);
    let heard = world.pipe.heard().await;
    assert_eq!(heard, format!("{}0\n", world.token()), "and no file");
    world.renewd(&["renew", "bot-0"]);
    let heard = world.pipe.heard().await;
    assert_eq!(heard, format!("{}0\n", world.token()));
    assert_eq!(exec.terminate().code(), Some(143), "as a shell tells it");

    let refused = world
        .command(&[
            "exec",
            "bot-0",
            "--token-fd",
            "--on-change",
            "none",
            "--",
            "true",
        ])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

/// The program starts before the daemon does, and outlives it.
#[tokio::test]
async fn exec_signals_the_program_and_survives_the_daemon() {
    let world = World::new();
    let script = r#"tell() { cat "$RENEWD_TOKEN_FILE" >"$SAID"; }
        trap tell HUP; tell
        while :; do sleep 1000 & wait; kill $! 2>/dev/null; done"#;
    let arguments = [
        "exec",
        "bot-0",
        "--on-change",
        "signal:HUP",
        "--",
        "/bin/sh",
        "-c",
        script,
    ];
    let _exec = world.start(&arguments);
    let daemon = world.daemon().await;
    let first = world.pipe.heard().await;
    assert_eq!(first, world.token());
    daemon.kill();
    let _daemon = world.daemon().await;
    world.renewd(&["renew", "bot-0"]);
    let second = world.pipe.heard().await;
    assert_eq!(second, world.token());
    assert_ne!(second, first);
}

#[tokio::test]
async fn exec_ends_as_the_program_ended_or_says_why_it_cannot_start() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let ends = |arguments: &[&str]| world.command(arguments).output().unwrap();
    let code = ends(&["exec", "bot-0", "--", "/bin/sh", "-c", "exit 9"]);
    assert_eq!(code.status.code(), Some(9));
    let signal = ends(&["exec", "bot-0", "--", "/bin/sh", "-c", "kill -USR1 $$"]);
    assert_eq!(signal.status.code(), Some(128 + 10));
    let absent = ends(&["exec", "bot-0", "--", "/nowhere/bot"]);
    assert_eq!(absent.status.code(), Some(127));
    let unknown = ends(&["exec", "nobody", "--", "true"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(world.leftovers(), 0);
}

#[tokio::test]
async fn follow_writes_the_file_and_runs_the_program_until_it_succeeds() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let file = world.stage.path("copy");
    let shown = file.to_str().unwrap();
    let script = r#"{ echo "$RENEWD_STATE"; cat "$RENEWD_TOKEN_FILE" 2>/dev/null; } >"$SAID"; test -e "$STAGE/flag""#;
    let arguments = [
        "follow", "bot-0", "--write", shown, "--run", "/bin/sh", "-c", script,
    ];
    let follow = world.start(&arguments);
    let active = |token: String| format!("active\n{token}");
    assert_eq!(world.pipe.heard().await, active(world.token()));
    assert_eq!(mode(&file), 0o600);
    assert_eq!(
        world.pipe.heard().await,
        active(world.token()),
        "it failed, so it is run again"
    );
    std::fs::write(world.stage.path("flag"), "").unwrap();
    assert_eq!(world.pipe.heard().await, active(world.token()));

    world.renewd(&["renew", "bot-0"]);
    let heard = world.pipe.heard().await;
    assert_eq!(heard, active(world.token()), "the next version");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), world.token());
    world.renewd(&["hold", "bot-0", "--yes"]);
    assert_eq!(world.pipe.heard().await, "withheld\n");
    assert!(!file.exists(), "what is taken back is put away");
    assert!(follow.terminate().success());
}

fn mode(file: &Path) -> u32 {
    let metadata = std::fs::metadata(file).unwrap();
    metadata.permissions().mode() & 0o7777
}

/// What a process does to itself comes before it asks for a token; the program that it runs is given back
/// what the process had.
#[tokio::test]
async fn whoever_holds_a_token_is_closed_to_others_before_it_has_one() {
    let world = World::new();
    let _daemon = world.daemon().await;
    let show = "umask; ulimit -c";
    let script = r#"{ umask; ulimit -S -c; } >"$SAID""#;
    let limited = || {
        let mut command = Command::new("prlimit");
        command.arg("--core=1048576:unlimited");
        command
    };
    let given = limited().args(["sh", "-c", show]).output().unwrap();
    let given = String::from_utf8(given.stdout).unwrap();
    for arguments in [
        &["token", "bot-0"][..],
        &["token", "bot-0", "--json"],
        &["wait", "bot-0"],
        &["exec", "bot-0", "--", "/bin/sh", "-c", script],
        &["follow", "bot-0", "--run", "/bin/sh", "-c", script],
    ] {
        let trace = world.stage.path("trace");
        let mut strace = limited();
        let calls = "trace=prctl,umask,prlimit64,connect";
        strace.args(["strace", "-D", "-e", calls, "-o"]).arg(&trace);
        let command = world.command(arguments);
        strace.arg(RENEWD).args(arguments);
        strace.envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        let mut running = Running(strace.stdout(std::process::Stdio::null()).spawn().unwrap());
        if arguments.last() == Some(&script) {
            assert_eq!(world.pipe.heard().await, given, "{arguments:?}");
        }
        if arguments[0] == "follow" {
            let status = running.end();
            assert!(status.success(), "{status}");
        } else {
            assert!(running.0.wait().unwrap().success());
        }
        let trace = end_of(&trace).await;
        let at = |call: &str| {
            let found = trace.lines().position(|line| line.contains(call));
            found.unwrap_or_else(|| panic!("{arguments:?} without {call}:\n{trace}"))
        };
        let asks = at("renewd.sock");
        for call in [
            "SUID_DUMP_DISABLE",
            "umask(077)",
            "RLIMIT_CORE, {rlim_cur=0",
        ] {
            assert!(at(call) < asks, "{arguments:?}: {call}\n{trace}");
        }
    }
}

/// What strace wrote. It is a process of its own, and ends a little later than what it traces.
async fn end_of(trace: &Path) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let told = std::fs::read_to_string(trace).unwrap_or_default();
        if told.contains("+++ exited") {
            return told;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "no end of the trace: {told}"
        );
        tokio::task::yield_now().await;
    }
}
