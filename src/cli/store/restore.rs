//! `renewd store restore` and `renewd store open`: a backup into the place of the store, and a store
//! whose key is lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, Read, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use zeroize::Zeroizing;

use super::{
    super::{
        Context,
        exit::{Exit, Failed, Outcome},
        offline::settings,
        output,
    },
    backup::config_path,
    owner::{Owner, succeeded},
    verify::key_file,
};
use crate::{
    config::Settings,
    store::{RestoreHow, Restored, open_without_key, restore_backup, verify_backup},
};

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
        settings.store.path.display(),
        contents.identities,
        contents.made_at
    );
    for aside in &restored.aside {
        text += &format!("what was there before is {}\n", aside.display());
    }
    for kept in &restored.kept {
        text += &format!("{} stays, it knows what came after\n", kept.display());
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
