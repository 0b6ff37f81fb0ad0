//! Socket activation: the service manager holds the socket, the daemon takes it over.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::stage::{Emulator, RENEWD, Stage, identities};

/// Runs the daemon with this socket as descriptor 3, as systemd would.
fn activate(socket: &UnixListener, config: &Path, names: &str) -> Child {
    let fd = OwnedFd::from(socket.try_clone().unwrap());
    Command::new("sh")
        .args([
            "-c",
            "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run --config \"$1\"",
        ])
        .arg(RENEWD)
        .arg(config)
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(fd))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(mut daemon: Child) -> ExitStatus {
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    daemon.wait().unwrap()
}

fn wait(socket: &Path) -> Child {
    Command::new(RENEWD)
        .args(["wait", "bot-0", "--timeout", "60s", "--socket"])
        .arg(socket)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_from_before_the_start_are_served_and_the_socket_outlives_the_daemon() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.base_config() + &identities("bot", 1, &[]);
    let config = stage.configure(&config.replace("renewd.sock", "never-made.sock"));
    let path = stage.path("held.sock");
    let socket = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let mut early = wait(&path);
        let daemon = activate(&socket, &config, "socket");
        assert!(early.wait().unwrap().success());
        assert!(end(daemon).success());
        assert!(path.exists(), "the socket is not the daemon's to remove");
        assert!(!stage.path("never-made.sock").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stream_socket_is_named() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(&stage.base_config());
    let file = std::fs::File::open(&config).unwrap();
    let output = Command::new("sh")
        .args([
            "-c",
            "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run --config \"$1\"",
        ])
        .arg(RENEWD)
        .arg(&config)
        .env("LISTEN_FDNAMES", "oddity")
        .stdin(Stdio::from(file))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("oddity") && text.contains(".socket unit"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_the_service_manager_holds_and_that_is_gone_is_a_need() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.base_config() + &identities("bot", 1, &[]);
    let config = stage.configure(&config.replace("renewd.sock", "never-made.sock"));
    let (path, kept) = (stage.path("held.sock"), stage.path("kept.sock"));
    let socket = UnixListener::bind(&path).unwrap();
    std::fs::hard_link(&path, &kept).unwrap();
    let mut early = wait(&path);
    let daemon = activate(&socket, &config, "socket");
    assert!(early.wait().unwrap().success());
    std::fs::remove_file(&path).unwrap();
    let status = || {
        let mut command = Command::new(RENEWD);
        let shown = command.args(["status", "--socket"]).arg(&kept).output();
        String::from_utf8(shown.unwrap().stdout).unwrap()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let shown = status();
        if shown.contains("is gone, and the service manager holds it") {
            assert!(
                shown.contains("systemctl restart renewd.socket renewd"),
                "{shown}"
            );
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no need: {shown}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(!path.exists(), "it is not the daemon's to make again");
    std::fs::hard_link(&kept, &path).unwrap();
    while !status().contains("nothing needs you") {
        assert!(
            std::time::Instant::now() < deadline,
            "it does not go: {}",
            status()
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(end(daemon).success());
}
