//! `renewd store backup` saves everything that cannot be made again as one file; `restore` puts it in the place of
//! the store, and `open` goes on with a store whose key is lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, IsTerminal as _, Read, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    super::{
        Context,
        daemon::{Offline, daemon_of, settings},
        exit::{Exit, Failed, Outcome},
        output,
    },
    Owner, document, key_file, succeeded,
};
use crate::{
    api::client::{ClientError, wire::BackedUp},
    config::{Settings, Source},
    store::{
        BackupError, Contents, RestoreHow, Restored, open_without_key, restore_backup, seal_key_of,
        verify_backup,
    },
};

/// Save the database and the files beside it in one file, whether a daemon runs or not
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file has mode 0600, is whole or not there, and takes the place of an earlier backup. Its tokens are \
sealed; encrypt it as you like: renewd store backup - | age -r … > FILE.\nThe key that opens it is a file of its own: keep \
the two apart."
)]
pub(super) struct Backup {
    /// Where it goes; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also copy the seal key, to KEYFILE or else FILE.key, in a folder that nobody else may enter
    #[arg(long, value_name = "KEYFILE", num_args = 0..=1, require_equals = true)]
    with_key: Option<Option<PathBuf>>,
    /// Moving to another host: the store that is saved refuses to start from now on
    #[arg(long)]
    retire: bool,
    /// The configuration that names the store and its key
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(super) async fn run(self, context: Context) -> Outcome {
        if self.file.as_os_str() == "-" {
            return self.print(context).await;
        }
        refuse_foreign(&self.file)?;
        let key = match &self.with_key {
            Some(place) => {
                let place = place.clone().unwrap_or_else(|| beside(&self.file, ".key"));
                refuse_open_folder(&place)?;
                Some((place, self.key(&settings(self.config.clone())?)?))
            }
            None => None,
        };
        let new = New::beside(&self.file)?;
        let made = self.fill(&context, &new).await?;
        let contents = verify_backup(&new.path)?;
        if let Some((place, (text, id))) = &key {
            if *id != contents.seal_key {
                return Err(Failed::plain(format!(
                    "the seal key that the configuration gives is {id}, but the store is sealed with {}: nothing was \
                     saved",
                    contents.seal_key
                )));
            }
            let copy = New::beside(place)?;
            copy.file()?.write_all(text.as_bytes())?;
            copy.keep(place)?;
        }
        new.keep(&self.file)?;
        made.noted(&self.file, contents.made_at).await?;
        self.say(&contents, key.as_ref().map(|(place, _)| place.as_path()))?;
        Ok(Exit::Done)
    }

    /// Has the daemon write it, or does so while none runs; as the user whom the store belongs to.
    async fn fill(&self, context: &Context, new: &New) -> Result<Made, Failed> {
        let client = daemon_of(context, self.config.as_deref())?;
        if !self.retire {
            let mut file = new.file()?;
            match client.backup(|piece| file.write_all(piece)).await {
                Ok(written) => {
                    written.map_err(|error| new.cannot("write", &error))?;
                    return Ok(Made::ByDaemon(client));
                }
                Err(error @ ClientError::Unreachable { .. }) => {
                    if self.config.is_none() && !Source::of_process(None).path.exists() {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let settings = settings(self.config.clone())?;
        match Owner::to_become(&settings.daemon.state_dir)? {
            Some(owner) => {
                let mut child = owner.renewd(["store", "backup", "-"])?;
                child.args(self.retire.then_some("--retire"));
                child.arg("--config").arg(config_path(&self.config)?);
                child.stdout(new.file()?);
                succeeded(child.status())?;
            }
            None => offline(&self.config, self.retire, &mut new.file()?, context).await?,
        }
        Ok(Made::Offline)
    }

    async fn print(self, context: Context) -> Outcome {
        if self.with_key.is_some() {
            return Err(Failed::usage(
                "the key cannot be put beside standard output: name a FILE, or leave `--with-key` out",
            ));
        }
        if io::stdout().is_terminal() {
            return Err(Failed::usage(
                "a backup is not text, so it is not written to a terminal: name a FILE, or pipe it into a program",
            ));
        }
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        let mut out = File::from(out);
        if !self.retire {
            let client = daemon_of(&context, self.config.as_deref())?;
            match client.backup(|piece| out.write_all(piece)).await {
                Ok(made_at) => {
                    let made = Made::ByDaemon(client);
                    made.noted(Path::new("standard output"), made_at?).await?;
                    return Ok(Exit::Done);
                }
                Err(ClientError::Unreachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        offline(&self.config, self.retire, &mut out, &context).await?;
        Ok(Exit::Done)
    }

    fn key(&self, settings: &Settings) -> Result<(zeroize::Zeroizing<String>, String), Failed> {
        Ok(seal_key_of(&settings.store, &settings.daemon.state_dir)?)
    }

    fn say(&self, contents: &Contents, key: Option<&Path>) -> Result<(), Failed> {
        if self.json {
            return output::print_json(&document(contents));
        }
        let file = self.file.display();
        let mut text = format!(
            "{file}: {} identities, {} of them with a token, sealed with the key {}\n",
            contents.identities, contents.tokens, contents.seal_key
        );
        match key {
            Some(key) => {
                text += &format!(
                    "{}: that key; whoever has both files has every token, so keep them apart\n",
                    key.display()
                );
            }
            None => text += "the key is not in it: keep a copy of it elsewhere (--with-key)\n",
        }
        if self.retire {
            text += "the store here is retired: renewd does not start on it any more\n";
        }
        output::print(&text)
    }
}

/// Who made it, and so whom to tell that it reached its place.
enum Made {
    ByDaemon(crate::api::client::DaemonClient),
    /// The store noted it itself.
    Offline,
}

impl Made {
    async fn noted(self, place: &Path, made_at: Timestamp) -> Result<(), Failed> {
        let Self::ByDaemon(client) = self else {
            return Ok(());
        };
        let place = place.display().to_string();
        if let Err(error) = client.backed_up(&BackedUp { made_at, place }).await {
            output::aside(&format!(
                "the backup is made, but the daemon could not note its age: {error}"
            ));
        }
        Ok(())
    }
}

/// Makes the backup while no daemon runs, and notes it once it is synced.
async fn offline(
    config: &Option<PathBuf>,
    retire: bool,
    out: &mut File,
    context: &Context,
) -> Result<(), Failed> {
    let now = context.clock.now();
    let store = Offline::open_whatever(config.clone(), now)?.store;
    let mut file = store.backup(retire, now).await?;
    io::copy(&mut file, out).and_then(|_| match out.sync_all() {
        // A pipe keeps nothing itself.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    })?;
    Ok(store.backed_up(now, retire).await?)
}

/// A file that is being written beside its place; it goes with this unless it is kept.
struct New {
    path: PathBuf,
}

impl New {
    fn beside(place: &Path) -> Result<Self, Failed> {
        let new = Self {
            path: beside(place, &format!(".new-{}", std::process::id())),
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new.path)
            .map_err(|error| new.cannot("make", &error))?;
        Ok(new)
    }

    fn file(&self) -> Result<File, Failed> {
        let opened = OpenOptions::new().write(true).open(&self.path);
        opened.map_err(|error| self.cannot("write", &error))
    }

    /// Into its place, for good.
    fn keep(self, place: &Path) -> Result<(), Failed> {
        let folder = place.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.path, place))
            .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(|error| self.cannot("keep", &error))
    }

    fn cannot(&self, doing: &str, error: &io::Error) -> Failed {
        let exit = if crate::model::is_lasting(error) {
            Exit::Usage
        } else {
            Exit::Failed
        };
        let message = format!("cannot {doing} {}: {error}", self.path.display());
        Failed::new(exit, message)
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Once it is kept, there is nothing under this name.
        fs::remove_file(&self.path).ok();
    }
}

/// Only an earlier backup may be replaced.
fn refuse_foreign(file: &Path) -> Result<(), Failed> {
    let Ok(found) = fs::symlink_metadata(file) else {
        return Ok(());
    };
    let is_backup = found.is_file()
        && !matches!(
            verify_backup(file),
            Err(BackupError::Foreign { .. } | BackupError::Io { .. })
        );
    if is_backup {
        return Ok(());
    }
    Err(Failed::usage(format!(
        "{} is not a backup of renewd, so it is not replaced: name another file",
        file.display()
    )))
}

/// A key lies only where nobody else may enter.
fn refuse_open_folder(key: &Path) -> Result<(), Failed> {
    let folder = match key.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let found = fs::metadata(folder)
        .map_err(|error| Failed::usage(format!("cannot open {}: {error}", folder.display())))?;
    let mine = found.uid() == rustix::process::geteuid().as_raw();
    if mine && found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Failed::usage(format!(
        "others may enter {}, so the seal key is not put there, and nothing was saved",
        folder.display()
    ))
    .hint(format!(
        "`chmod 700 {0}` closes it, or `--with-key=FILE` names another folder",
        folder.display()
    )))
}

/// `PATHSUFFIX`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The configuration, wherever the process that reads it starts.
pub(super) fn config_path(config: &Option<PathBuf>) -> Result<PathBuf, Failed> {
    let path = config
        .clone()
        .unwrap_or_else(|| Source::of_process(None).path);
    Ok(std::path::absolute(path)?)
}

/// While no daemon runs: put a backup into the place of the store
#[derive(Debug, clap::Args)]
#[command(
    after_help = "All of it or nothing; a store that is there is refused, or with --replace set aside. Files beside the \
database that know what came after the backup stay as they are. docs/recovery.md says what to do in which case.\n\
Exit codes: 0 it is there, 1 it failed or a daemon runs, 2 the backup, the key or the place is the wrong one."
)]
pub(super) struct Restore {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Set a store that is there aside
    #[arg(long)]
    replace: bool,
    /// The copy of the seal key that came with it
    #[arg(long, value_name = "KEYFILE", conflicts_with = "key_lost")]
    key: Option<PathBuf>,
    /// The seal key is lost for ever: drop what it sealed and renew every token
    #[arg(long)]
    key_lost: bool,
    /// The key is the first line of standard input
    #[arg(long, hide = true)]
    key_on_stdin: bool,
    /// The configuration that names the store
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl Restore {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let settings = settings(self.config.clone())?;
        let key = self.key.as_ref().map(key_file).transpose()?;
        if let Some(owner) = Owner::to_become(&settings.daemon.state_dir)? {
            return self.as_owner(&owner, key.as_ref());
        }
        let mut stdin = io::stdin().lock();
        let key = if self.key_on_stdin {
            let mut line = Zeroizing::new(String::new());
            stdin.read_line(&mut line)?;
            Some(line)
        } else {
            key
        };
        let how = RestoreHow {
            replace: self.replace,
            key,
            key_lost: self.key_lost,
        };
        let now = context.clock.now();
        let (store, state_dir) = (&settings.store, &settings.daemon.state_dir);
        let restored = if self.file.as_os_str() == "-" {
            let copy = Copy::of(&mut stdin, state_dir)?;
            restore_backup(&copy.path, store, state_dir, &how, now)?
        } else {
            restore_backup(&self.file, store, state_dir, &how, now)?
        };
        say(&settings, &restored, self.key_lost)?;
        Ok(Exit::Done)
    }

    /// Root reads the backup, and its owner puts it back.
    fn as_owner(&self, owner: &Owner, key: Option<&Zeroizing<String>>) -> Outcome {
        let mut child = owner.renewd(["store", "restore", "-"])?;
        child
            .args(self.replace.then_some("--replace"))
            .args(self.key_lost.then_some("--key-lost"))
            .args(key.is_some().then_some("--key-on-stdin"))
            .arg("--config")
            .arg(config_path(&self.config)?)
            .stdin(Stdio::piped());
        let mut from: Box<dyn Read> = if self.file.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            // What is wrong with it is said by its name.
            verify_backup(&self.file)?;
            Box::new(File::open(&self.file).map_err(|error| {
                Failed::usage(format!("cannot open {}: {error}", self.file.display()))
            })?)
        };
        let started = child.spawn();
        let mut child = started.map_err(|error| {
            Failed::plain(format!("cannot become the owner of the store: {error}"))
        })?;
        let piped = child.stdin.take().map_or(Ok(()), |mut stdin| {
            if let Some(key) = key {
                stdin.write_all(key.trim().as_bytes())?;
                stdin.write_all(b"\n")?;
            }
            io::copy(&mut from, &mut stdin).map(drop)
        });
        match piped {
            // It has ended, and says itself why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                return Err(Failed::plain(format!("cannot read the backup: {error}")));
            }
            Ok(()) => {}
        }
        succeeded(child.wait())?;
        Ok(Exit::Done)
    }
}

fn say(settings: &Settings, restored: &Restored, key_lost: bool) -> Result<(), Failed> {
    let contents = &restored.contents;
    let mut text = format!(
        "{}: {} identities as they were {:.0}\n",
        settings.store.place.called().display(),
        contents.identities,
        contents.made_at
    );
    for aside in &restored.aside {
        text += &format!("what was there before is now {}\n", aside.display());
    }
    for kept in &restored.kept {
        text += &format!(
            "{} stays: it knows what came after the backup\n",
            kept.display()
        );
    }
    if key_lost {
        text += "what the lost key sealed is dropped; every token is renewed at the start\n";
    }
    if let Some(doubt) = &restored.doubt {
        text += &format!(
            "{doubt}: after its start the daemon issues, delivers and serves nothing until `renewd store accept`\n"
        );
    }
    output::print(&text)
}

/// A copy of standard input, which a backup is read from more than once.
struct Copy {
    path: PathBuf,
}

impl Copy {
    fn of(from: &mut impl Read, state_dir: &Path) -> Result<Self, Failed> {
        let copy = Self {
            path: state_dir.join("restore.new"),
        };
        let cannot = |error: io::Error| {
            Failed::plain(format!("cannot write {}: {error}", copy.path.display()))
        };
        fs::create_dir_all(state_dir).map_err(cannot)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&copy.path)
            .map_err(cannot)?;
        io::copy(from, &mut file).map_err(cannot)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It is only a copy.
        fs::remove_file(&self.path).ok();
    }
}

/// While no daemon runs: open a store whose seal key is lost for ever
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Identities, their ids and everything but the tokens stay. Files that consumers have stay until their \
successors come: each token is minted anew at the start. A new key is made, or the one that the configuration gives is \
taken.\nExit codes: 0 done, 1 the key fits, so that it is not lost, or a daemon runs."
)]
pub(super) struct Open {
    /// The person's word that it is lost
    #[arg(long, required = true)]
    key_lost: bool,
    /// The configuration that names the store
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl Open {
    pub(super) async fn run(self, context: Context) -> Outcome {
        let settings = settings(self.config.clone())?;
        if let Some(owner) = Owner::to_become(&settings.daemon.state_dir)? {
            let mut child = owner.renewd(["store", "open", "--key-lost", "--config"])?;
            child.arg(config_path(&self.config)?);
            succeeded(child.status())?;
            return Ok(Exit::Done);
        }
        let state_dir = &settings.daemon.state_dir;
        let dropped = open_without_key(&settings.store, state_dir, context.clock.now())?;
        output::print(&format!(
            "{dropped} tokens that the lost key sealed are dropped; each is renewed at the start\n"
        ))?;
        Ok(Exit::Done)
    }
}
