//! `renewd store move` by the command line, beside a daemon: into PostgreSQL and back.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use renewd_database::Server;

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities, until};

/// A move under way, and what it says on standard error.
struct Mover {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Mover {
    fn start(stage: &Stage, to: &str, config: &str) -> Self {
        let mut command = Command::new(RENEWD);
        command.args(["store", "move", "--to", to, "--config", config]);
        command.current_dir(stage.path("")).stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, said) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                tell.send(line).ok();
            }
        });
        Self { child, said }
    }

    /// Waits until it says that everything is copied and the store is in use.
    async fn waits(&self) {
        let mut all = String::new();
        until("the move to wait for the daemon", || {
            all.extend(self.said.try_iter());
            all.contains("everything is copied")
        })
        .await;
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn ended(mut self) {
        let status = self.child.wait().unwrap();
        let said: Vec<String> = self.said.iter().collect();
        assert!(status.success(), "{status}: {said:?}");
    }
}

/// What a daemon says that does not start.
fn refused(stage: &Stage, config: &str) -> String {
    let ran = stage.renewd(&["run", "--config", config]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

#[tokio::test]
async fn the_store_goes_into_postgresql_and_back_over_a_kill() {
    let emulator = Emulator::start(&[]);
    let (stage, database) = (Stage::new(&emulator), Server::shared().database());
    let base = stage.base_config() + &stage.sinks_config(None) + &identities("bot", 3, &["files"]);
    stage.write_private("database", &database.url());
    let again = stage.path("again.db").display().to_string();
    let [first, served, _] = [
        ("renewd.toml", String::new()),
        ("served.toml", "url = { file = \"database\" }".to_owned()),
        ("again.toml", format!("path = \"{again}\"")),
    ]
    .map(|(name, place)| {
        stage.write_private(name, &format!("{base}\n[store]\n{place}\n"));
        stage.path(name).display().to_string()
    });
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    for name in ["bot-0", "bot-1", "bot-2"] {
        stage.there(name).await;
    }
    let held = stage.renewd(&["hold", "bot-2", "--reason", "test", "--yes"]);
    let tokens = ["bot-0", "bot-1"].map(|name| stage.token(name));

    let cut_off = Mover::start(&stage, "database", &first);
    cut_off.waits().await;
    cut_off.kill();
    daemon.stop();
    let said = refused(&stage, &served);
    assert!(said.contains("only a part"), "{said}");
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;

    let mover = Mover::start(&stage, "database", &first);
    mover.waits().await;
    daemon.stop();
    mover.ended();
    let said = refused(&stage, &first);
    assert!(said.contains("was moved to"), "{said}");
    let daemon = Daemon::start(&stage.path("served.toml")).await;
    assert_eq!(
        ["bot-0", "bot-1"].map(|name| stage.token(name)),
        tokens,
        "{held:?}"
    );
    let renewed = stage.renewd(&["renew", "bot-0"]);
    assert!(renewed.status.success(), "{renewed:?} {}", daemon.log());
    stage.reissued("bot-0", &tokens[0]).await;

    let mover = Mover::start(&stage, &again, &served);
    mover.waits().await;
    let tokens = ["bot-0", "bot-1"].map(|name| stage.token(name));
    daemon.stop();
    mover.ended();
    let _daemon = Daemon::start(&stage.path("again.toml")).await;
    assert_eq!(["bot-0", "bot-1"].map(|name| stage.token(name)), tokens);
    let said = refused(&stage, &served);
    assert!(
        said.contains(&format!("was moved to {again}")),
        "{said} {again}"
    );
}
