//! `renewd exec`: runs a program with the current token, and lets it have every newer one: in a private file in
//! memory, or on a file descriptor. Folders whose owners were killed are removed by the next run.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Seek, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, MemfdFlags, SealFlags, fcntl_add_seals, flock, memfd_create},
    process::Signal,
};

use super::{
    Context,
    child::{Group, Program, Signals, asks_to_end, code, ended_by},
    daemon::daemon,
    duration,
    exit::{Exit, Failed, Outcome},
    output,
    token::{EventStream, Holding, News},
};
use crate::{
    model::{Name, Secret},
    sinks::file::{remove_private, write_private},
    systemd::Given,
};

/// Run a program with the current token; restart or signal it on each new one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The token is in a file of mode 0600 in a private folder in memory, named in RENEWD_TOKEN_FILE; it is
replaced in one step. With --token-fd it is on the file descriptor whose number is in RENEWD_TOKEN_FD.
It is never in an argument or a variable.

Waits for the first token. Signals go on to the program, and this ends as the program ended.

  renewd exec support-bot -- /usr/bin/bot --serve
  renewd exec support-bot --on-change signal:HUP -- /usr/bin/bot
  renewd exec support-bot -- sh -c 'exec /usr/bin/bot --token-file \"$RENEWD_TOKEN_FILE\"'")]
pub(crate) struct Exec {
    /// The identity
    name: Name,
    /// Handover the token over in a private file, named in RENEWD_TOKEN_FILE (this is the default)
    #[arg(long, conflicts_with = "token_fd")]
    token_file: bool,
    /// Handover the token over on a file descriptor, numbered in RENEWD_TOKEN_FD
    #[arg(long)]
    token_fd: bool,
    /// Handover over the whole token document instead of the bare token
    #[arg(long)]
    json: bool,
    /// What happens on a new token: restart, signal:NAME (such as signal:HUP), none
    #[arg(long, default_value = "restart", value_parser = on_change, value_name = "WHAT")]
    on_change: OnChange,
    /// On a restart, the time between SIGTERM and SIGKILL
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    stop_timeout: Duration,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What happens to the program on a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnChange {
    Restart,
    Signal(Signal),
    None,
}

fn on_change(text: &str) -> Result<OnChange, String> {
    match text {
        "restart" => return Ok(OnChange::Restart),
        "none" => return Ok(OnChange::None),
        _ => {}
    }
    let name = text.strip_prefix("signal:").unwrap_or_default();
    let signal = match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "TERM" => Signal::TERM,
        "WINCH" => Signal::WINCH,
        _ => {
            return Err(
                "it is restart, none, or signal: with one of HUP INT QUIT USR1 USR2 TERM WINCH"
                    .to_owned(),
            );
        }
    };
    Ok(OnChange::Signal(signal))
}

/// How one life of the program ended.
enum Life {
    /// It ended, or was asked to end by whoever runs us.
    Over(ExitStatus),
    /// It was ended for this newer token.
    Replaced(Holding),
}

impl Exec {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.token_fd && self.on_change != OnChange::Restart {
            return Err(Failed::usage(
                "a file descriptor holds one token for ever, so --token-fd goes with --on-change restart",
            )
            .hint("leave --token-fd out: the file in RENEWD_TOKEN_FILE is replaced on each new token"));
        }
        let given = Given::put_aside().map_err(Failed::plain)?;
        let group = Group::fitting();
        let mut signals = Signals::listen(group)?;
        let mut event_stream =
            EventStream::new(daemon(context.socket), self.name.clone(), "renewd-exec");
        let mut handover = Handover::new(self.token_fd)?;
        let mut holding = tokio::select! {
            biased;
            signal = signals.next() => return Ok(ended_by(signal)),
            first = event_stream.first() => first?,
        };
        loop {
            handover.put(holding.content(self.json))?;
            let environment = handover.environment(&self.name);
            let mut program = Program::start_with(&given, &self.command, environment, group)?;
            event_stream.acknowledge(holding.version).await;
            match self
                .live(&mut program, &mut event_stream, &mut signals, &mut handover)
                .await?
            {
                Life::Over(status) => return Ok(Exit::As(code(status))),
                Life::Replaced(newer) => holding = newer,
            }
        }
    }

    /// One life of the program.
    async fn live(
        &self,
        program: &mut Program,
        event_stream: &mut EventStream,
        signals: &mut Signals,
        handover: &mut Handover,
    ) -> Result<Life, Failed> {
        loop {
            tokio::select! {
                biased;
                status = program.wait() => return Ok(Life::Over(status?)),
                signal = signals.next() => program.signal(signal),
                news = event_stream.next() => match (news?, self.on_change) {
                    (News::Withheld(why), _) => {
                        output::aside(&format!("the token is taken back: {why}"));
                        handover.clear();
                    }
                    (News::Token(newer), OnChange::Restart) => {
                        return self.replace(program, signals, newer).await;
                    }
                    (News::Token(newer), on_change) => match handover.put(newer.content(self.json)) {
                        Ok(()) => if let OnChange::Signal(signal) = on_change {
                            program.signal(signal);
                            event_stream.acknowledge(newer.version).await;
                        },
                        Err(error) => {
                            output::error(&error.to_string(), Some("the program keeps the old token; trying again"));
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            event_stream.again();
                        }
                    },
                },
            }
        }
    }

    /// Ends the program for a newer token, unless it is to end for good.
    async fn replace(
        &self,
        program: &mut Program,
        signals: &mut Signals,
        newer: Holding,
    ) -> Result<Life, Failed> {
        let mut for_good = false;
        let status = {
            let mut ending = std::pin::pin!(program.end(self.stop_timeout));
            loop {
                tokio::select! {
                    biased;
                    status = &mut ending => break status?,
                    signal = signals.next() => for_good |= asks_to_end(signal),
                }
            }
        };
        Ok(if for_good {
            Life::Over(status)
        } else {
            Life::Replaced(newer)
        })
    }
}

const PREFIX: &str = "renewd-exec-";

/// A folder that only this user can enter, removed with what is in it when this is dropped.
#[derive(Debug)]
struct PrivateFolder {
    path: PathBuf,
    /// Locked for as long as this process lives, which tells a folder in use from one left behind.
    _lock: File,
}

impl PrivateFolder {
    pub(super) fn make() -> Result<Self, Failed> {
        let parent = memory();
        remove_left_behind(&parent);
        loop {
            let name = format!(
                "{PREFIX}{}-{:08x}",
                std::process::id(),
                rand::random::<u32>()
            );
            let path = parent.join(name);
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            let locked = made.and_then(|()| lock(&path)).map_err(|error| {
                let path = path.display();
                Failed::plain(format!("cannot make the folder {path}: {error}")).hint(
                    "set XDG_RUNTIME_DIR to a folder of this user in memory, or use --token-fd",
                )
            })?;
            // Another process may have taken it for one left behind before it was locked.
            if let Some(lock) = locked.filter(|_| path.exists()) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Where the token goes.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join("token")
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nothing can be done about it any more, and only this user can read it.
        fs::remove_dir_all(&self.path).ok();
    }
}

/// The lock of a folder; `None` where somebody else holds it.
fn lock(path: &Path) -> std::io::Result<Option<File>> {
    let folder = File::open(path)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// SIGKILL gives nobody time to tidy up. What cannot be removed is left: no program waits for it.
fn remove_left_behind(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|found| {
                found.is_dir() && found.uid() == rustix::process::geteuid().as_raw()
            });
        if is_ours && let Ok(Some(_lock)) = lock(&entry.path()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// A folder in memory: this user's own, the unit's own, or one for everybody.
fn memory() -> PathBuf {
    let own = ["XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"]
        .into_iter()
        .filter_map(env::var_os)
        .map(PathBuf::from)
        .find(|folder| folder.is_dir());
    let shared = || Some(Path::new("/dev/shm").to_owned()).filter(|folder| folder.is_dir());
    let folder = own.or_else(shared).unwrap_or_else(env::temp_dir);
    fs::canonicalize(&folder).unwrap_or(folder)
}

/// The way that was chosen, and what is handed over now.
#[derive(Debug)]
enum Handover {
    /// A file in a private folder.
    File(PrivateFolder),
    /// A sealed file in memory, open under the same number in the program.
    Descriptor(Option<OwnedFd>),
}

impl Handover {
    pub(super) fn new(on_descriptor: bool) -> Result<Self, Failed> {
        Ok(if on_descriptor {
            Self::Descriptor(None)
        } else {
            Self::File(PrivateFolder::make()?)
        })
    }

    /// Puts a token into it. A program that runs sees the file change in one step; what is on a
    /// descriptor is for the next one.
    pub(super) fn put(&mut self, content: &Secret) -> Result<(), Failed> {
        match self {
            Self::File(folder) => {
                write_private(&folder.file(), content.expose().as_bytes())
                    .map_err(Failed::plain)?;
            }
            Self::Descriptor(fd) => {
                let sealed = sealed(content);
                *fd = Some(sealed.map_err(|error| {
                    Failed::plain(format!("cannot put the token into memory: {error}"))
                })?);
            }
        }
        Ok(())
    }

    /// Takes the token back, as far as that can be.
    pub(super) fn clear(&mut self) {
        if let Self::File(folder) = self {
            // It lies in a folder of ours; if it cannot be removed now, it is at the end.
            remove_private(&folder.file()).ok();
        }
    }

    /// How the program finds it.
    pub(super) fn environment(&self, name: &Name) -> Vec<(&'static str, OsString)> {
        let place = match self {
            Self::File(folder) => ("RENEWD_TOKEN_FILE", folder.file().into_os_string()),
            Self::Descriptor(fd) => {
                let number = fd.as_ref().map(AsRawFd::as_raw_fd).unwrap_or(-1);
                ("RENEWD_TOKEN_FD", number.to_string().into())
            }
        };
        vec![place, ("RENEWD_NAME", name.as_str().into())]
    }
}

/// A file in memory that nobody can change, to be read from its start. Programs that are started
/// inherit it.
fn sealed(content: &Secret) -> io::Result<OwnedFd> {
    let fd = memfd_create("renewd-token", MemfdFlags::ALLOW_SEALING)?;
    let mut file = fs::File::from(fd);
    file.write_all(content.expose().as_bytes())?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_with_or_without_sig() {
        assert_eq!(on_change("signal:HUP"), Ok(OnChange::Signal(Signal::HUP)));
        assert_eq!(
            on_change("signal:SIGUSR1"),
            Ok(OnChange::Signal(Signal::USR1))
        );
        assert_eq!(on_change("none"), Ok(OnChange::None));
        assert!(on_change("HUP").is_err() && on_change("signal:KILL").is_err());
    }
}
