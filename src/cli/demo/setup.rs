//! Who takes part: the emulator and the daemon as programs of their own, the receiver in this one.

use std::{process::ExitStatus, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    api::client::{Client, wire::Status},
    clock::Clock,
    model::State,
};

use super::{
    super::{
        exit::{Exit, Failed, Outcome},
        output::{self, DIM, GOOD, PLAIN, STRONG, paint},
    },
    child::Child,
    door::Door,
    folder::{Folder, NAMES},
    mailbox::Mailbox,
    story::Story,
};

/// How long every token of the demo lives.
const LIFE: &str = "20s";
/// How long the daemon may take to be ready with all tokens.
const START: Duration = Duration::from_secs(20);
/// Between two questions whether it is.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Setup {
    emulator: Child,
    daemon: Child,
    pub(super) mailbox: Mailbox,
    pub(super) door: Door,
    page: Option<String>,
}

impl Setup {
    /// Starts everything; returns when all identities have a token.
    pub(super) async fn set(
        folder: &Folder,
        story: &Story,
        clock: &Clock,
        keep: bool,
    ) -> Result<Self, Failed> {
        let (emulator, ca_file, connection) = emulator(folder).await?;
        let endpoint = endpoint(&connection)?;
        story.tell(
            PLAIN,
            "emulator",
            &format!("{endpoint}, every token lives {LIFE}"),
        )?;
        let mailbox = Mailbox::open(clock).await?;
        let words = format!("{}, checks every signature", mailbox.url());
        story.tell(PLAIN, "receiver", &words)?;
        let page = if keep {
            Some(free_address().await?)
        } else {
            None
        };
        folder.write("contoso.cs", &connection)?;
        folder.write("webhook.secret", mailbox.secret())?;
        let listen = page.as_deref().unwrap_or_default();
        let text = folder.configuration(listen, &ca_file, mailbox.url());
        folder.write("renewd.toml", &text)?;
        let config = folder.inside("renewd.toml");
        let (daemon, _) = Child::start("daemon", &["run", "--config", &config], folder.path())?;
        let mut setup = Self {
            emulator,
            daemon,
            mailbox,
            door: Door::new(&endpoint, ca_file.into())?,
            page,
        };
        setup.all_have_tokens(folder).await?;
        let words = format!("ready; {} created, each with a token", NAMES.join(", "));
        story.tell(GOOD, "daemon", &words)?;
        Ok(setup)
    }

    /// Fails when one of the programs has ended.
    pub(super) fn still_runs(&mut self) -> Result<(), Failed> {
        self.emulator.still_runs()?;
        self.daemon.still_runs()
    }

    /// Ends the daemon as the service manager would, then the emulator; whether the former ended well.
    pub(super) async fn end(self) -> Result<bool, Failed> {
        let well = self.daemon.end().await?.success();
        let _: ExitStatus = self.emulator.end().await?;
        Ok(well)
    }

    /// Says what to try, and goes on until Ctrl-C.
    pub(super) async fn keep(mut self, folder: &Folder) -> Outcome {
        output::print(&self.suggestions(folder))?;
        told_to_stop().await?;
        self.still_runs()?;
        let well = self.end().await?;
        Ok(if well { Exit::Done } else { Exit::Failed })
    }

    fn suggestions(&self, folder: &Folder) -> String {
        let socket = folder.inside("renewd.sock");
        let mut text = format!(
            "\n{} Try, in another terminal:\n\n  export RENEWD_SOCKET={socket}\n",
            paint(STRONG, "It goes on until Ctrl-C.")
        );
        for (command, what) in [
            ("renewd status --watch", "how everything is"),
            ("renewd identity list", "who there is"),
            ("renewd why on-call", "what is decided about one, and why"),
            ("renewd token on-call", "its current token"),
            (
                "renewd hold on-call",
                "withhold it; then renewd release on-call",
            ),
            ("renewd audit list", "who did what, when and why"),
        ] {
            text.push_str(&format!("  {command:<24} {}\n", paint(DIM, what)));
        }
        text.push_str(&format!(
            "\n  {:<24} {}\n",
            "configuration",
            folder.inside("renewd.toml")
        ));
        text.push_str(&format!("  {:<24} {}\n", "tokens", folder.inside("tokens")));
        if let Some(page) = &self.page {
            text.push_str(&format!("  {:<24} http://{page}/\n", "page and metrics"));
        }
        text
    }

    async fn all_have_tokens(&mut self, folder: &Folder) -> Result<(), Failed> {
        let client = Client::new(folder.path().join("renewd.sock"));
        let waiting = async {
            loop {
                self.still_runs()?;
                if client.status().await.is_ok_and(|status| has_all(&status))
                    && NAMES.iter().all(|name| folder.token_file(name).exists())
                {
                    return Ok(());
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let waited = tokio::time::timeout(START, waiting).await;
        waited.unwrap_or_else(|_| Err(Failed::plain("the daemon is not ready after 20 s")))
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

fn has_all(status: &Status) -> bool {
    let states = status
        .counts
        .iter()
        .flat_map(|counts| counts.identities.values());
    let active: u64 = states.filter_map(|states| states.get(&State::Active)).sum();
    status.ready && active == NAMES.len() as u64
}

/// Starts the emulator; its CA file and connection string.
async fn emulator(folder: &Folder) -> Result<(Child, String, String), Failed> {
    let args = ["emulator", "--listen", "127.0.0.1:0", "--token-ttl", LIFE];
    let (mut emulator, mut lines) = Child::start("emulator", &args, folder.path())?;
    let mut ca_file = None;
    while let Some(line) = lines.next_line().await? {
        if let Some(path) = line.strip_prefix("ca=") {
            ca_file = Some(path.to_owned());
        } else if line.starts_with("endpoint=") {
            let ca_file = ca_file.ok_or_else(|| Failed::plain("the emulator named no CA"))?;
            return Ok((emulator, ca_file, line));
        }
    }
    emulator.still_runs()?;
    Err(Failed::plain("the emulator did not say where it listens"))
}

fn endpoint(connection: &str) -> Result<String, Failed> {
    let rest = connection.strip_prefix("endpoint=");
    let endpoint = rest.and_then(|rest| rest.split(';').next());
    let endpoint = endpoint.ok_or_else(|| Failed::plain("the emulator named no endpoint"))?;
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// An address on loopback that nobody listens on.
async fn free_address() -> Result<String, Failed> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    Ok(listener.local_addr()?.to_string())
}
