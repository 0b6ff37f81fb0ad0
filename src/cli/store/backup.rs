//! `renewd store backup`: everything that cannot be made again, as one file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    super::{
        Context,
        exit::{Exit, Failed, Outcome},
        offline::{Offline, daemon_of, settings},
        output,
    },
    owner::{Owner, succeeded},
};
use crate::{
    api::client::{ClientError, wire::BackedUp},
    config::{Settings, Source},
    store::{BackupError, Contents, seal_key_of, verify_backup},
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
            return Err(Failed::usage("--with-key needs a FILE to stand beside"));
        }
        if io::stdout().is_terminal() {
            return Err(Failed::usage("a backup is no text for a terminal"));
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
            return output::print_json(&super::verify::document(contents));
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
    ByDaemon(crate::api::client::Client),
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
        "{} is there and is no backup of renewd; it is not replaced",
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
        "others may enter {}, so the seal key is not put there; nothing was saved",
        folder.display()
    ))
    .hint(format!(
        "chmod 700 {0}, or --with-key=FILE in another folder",
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
