//! `renewd run` as a process, watched over the service manager's protocol.

use std::{
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use tokio::net::UnixDatagram;

use super::{RENEWD, log_file};

pub struct Daemon {
    child: Child,
    log: PathBuf,
    notify: UnixDatagram,
}

impl Daemon {
    /// Starts the daemon and waits for READY=1.
    pub async fn start(config: &Path) -> Self {
        let mut daemon = Self::launch(config, &[]);
        daemon.ready().await;
        daemon
    }

    /// Starts the daemon with more environment, without waiting.
    pub fn launch(config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::spawn(
            config,
            Command::new(RENEWD).envs(environment.iter().copied()),
        )
    }

    /// Starts the daemon by this command, which ends with its program, without waiting.
    pub fn spawn(config: &Path, command: &mut Command) -> Self {
        let dir = config.parent().unwrap();
        let address = dir.join("notify.sock");
        std::fs::remove_file(&address).ok();
        let notify = UnixDatagram::bind(&address).unwrap();
        std::fs::set_permissions(&address, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (log, log_path) = log_file(dir, "daemon.log");
        let child = command
            .args(["run", "--config"])
            .arg(config)
            .env("NOTIFY_SOCKET", &address)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            log: log_path,
            notify,
        }
    }

    /// Waits for READY=1; fails with the log when the daemon ends first.
    pub async fn ready(&mut self) {
        self.told("READY=1").await;
    }

    /// Waits until the daemon tells the service manager a line that starts like this.
    pub async fn told(&mut self, start: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let received =
                tokio::time::timeout(Duration::from_millis(200), self.notify.recv(&mut buffer))
                    .await;
            if let Ok(n) = received {
                let text = String::from_utf8_lossy(&buffer[..n.unwrap()]).into_owned();
                if let Some(line) = text.lines().find(|line| line.starts_with(start)) {
                    return line.to_owned();
                }
            } else if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "the daemon ended with {status} before {start}:\n{}",
                    self.log()
                );
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `renewd status --json`.
    pub fn status(&self, socket: &Path) -> serde_json::Value {
        let mut command = Command::new(RENEWD);
        let output = command
            .args(["status", "--json", "--socket"])
            .arg(socket)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// As a power cut would end it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "it had ended before with {status}:\n{}",
            self.log()
        );
    }

    /// SIGTERM, then wait.
    pub fn stop(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
