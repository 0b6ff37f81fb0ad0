//! Puts a backup back: all of it or nothing, never over a store that is used, and what was there before
//! is set aside. Opens a store whose key is lost, and says whether it is known what was withdrawn, or takes
//! a person's word where it is not.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use zeroize::Zeroizing;

use super::{
    Cause, Store,
    backup::{self, Contents, INSTANCE, MACHINE, RESTORED},
    db::{self, Db, Txn, micros, spelled},
    error::{Answer, BackupError, Fault, OpenError, Outcome},
    open::{self, Lock},
    reseal, schema, seal,
    tables::{Counting, update_identities},
};
use crate::{
    config::{Owner, StorePlace, StoreSettings},
    model::{DueReason, StoreStanding, Timestamp},
    sql::{self, SqlError, params},
};

/// How a backup is to be put back.
#[derive(Debug, Default)]
pub struct RestoreHow {
    /// A store that is there is set aside, not refused.
    pub replace: bool,
    /// The text of the seal key, where it comes with the backup.
    pub key: Option<Zeroizing<String>>,
    /// The key is lost for ever: what it sealed is dropped.
    pub key_lost: bool,
}

/// What a restored backup left.
#[derive(Debug)]
pub struct Restored {
    /// What the backup held.
    pub contents: Contents,
    /// What was there before, where it is now.
    pub aside: Vec<PathBuf>,
    /// Files beside the database that stayed, because they know what came after the backup.
    pub kept: Vec<PathBuf>,
    /// Why it is not known what was withdrawn since; the daemon waits for a person then.
    pub doubt: Option<String>,
}

/// Why a backup was not put back, or a store not opened without its key. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The place where it would be put.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is a store.
    #[error("there is a store already: {}; `--replace` sets it aside", path.display())]
    There { path: PathBuf },
    /// The key does not fit.
    #[error(
        "the backup is sealed with the key {needed}, and {found}; give its copy with `--key FILE`, or, if it is lost \
         for ever, `--key-lost` drops what it sealed and renews every token"
    )]
    Key {
        /// The id of the key that would fit.
        needed: String,
        /// What there is instead.
        found: String,
    },
}

impl RestoreError {
    /// Whether the arguments or the surroundings have to be changed first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Backup(error) => error.is_configuration(),
            Self::Open(error) => error.is_configuration(),
            Self::There { .. } | Self::Key { .. } => true,
        }
    }
}

/// Puts the backup in the file `from` into the place of the store.
///
/// # Errors
/// When the backup is not whole, a daemon runs, a store is there, or the key does not fit; then nothing
/// was changed.
pub fn restore_backup(
    from: &Path,
    settings: &StoreSettings,
    state_dir: &Path,
    how: &RestoreHow,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    let contents = backup::verify_backup(from)?;
    let StorePlace::File(path) = &settings.place else {
        let place = settings.place.called();
        return Err(BackupError::InDatabase { place }.into());
    };
    for dir in [path.parent(), Some(state_dir)].into_iter().flatten() {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        made.map_err(BackupError::io("make the directory", dir))?;
    }
    let _lock = Lock::take(path)?;
    let there = [path.clone(), beside(path, "-wal")]
        .iter()
        .any(|file| fs::metadata(file).is_ok_and(|found| found.len() > 0));
    if there && !how.replace {
        return Err(RestoreError::There { path: path.clone() });
    }
    let key = Key::fitting(&contents, settings, state_dir, how)?;
    let new = beside(path, ".new");
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let beside_it = Places {
        state_dir,
        copy: settings.withdrawn_copy.as_deref(),
    };
    let prepared = prepare(
        from,
        &new,
        &beside_it,
        (&contents, &format!(".replaced-{stamp}")),
    );
    let Prepared {
        kept,
        mut aside,
        doubt,
    } = prepared.inspect_err(|_| {
        // The reason why it failed is the one to tell.
        fs::remove_file(&new).ok();
    })?;
    aside.extend(key.install(state_dir, &format!("replaced-{stamp}"))?);
    aside.extend(install(&new, path, &format!(".replaced-{stamp}"))?);
    if how.key_lost {
        drop_sealed(settings, state_dir, now)?;
    }
    Ok(Restored {
        contents,
        aside,
        kept,
        doubt,
    })
}

/// Drops what the lost key of a store sealed, and takes the key that there is now, or a new one; how many
/// tokens were dropped, each of which is renewed at once. Files that consumers have stay until then.
///
/// # Errors
/// When a daemon runs, there is no store, or its key is not lost.
pub fn open_without_key(
    settings: &StoreSettings,
    state_dir: &Path,
    now: Timestamp,
) -> Result<usize, RestoreError> {
    if let Some(path) = settings.place.file() {
        fs::metadata(path).map_err(BackupError::io("open the store", path))?;
    }
    let _lock = Lock::take(&settings.place.here(state_dir))?;
    drop_sealed(settings, state_dir, now)
}

/// Takes a store back that was retired; whether it was.
///
/// # Errors
/// When a daemon runs, or there is no store.
pub fn take_back(settings: &StoreSettings) -> Result<bool, RestoreError> {
    let (conn, _lock) = match &settings.place {
        StorePlace::File(path) => {
            fs::metadata(path).map_err(BackupError::io("open the store", path))?;
            let lock = Lock::take(path)?;
            (sql::Connection::to_file(path), Some(lock))
        }
        StorePlace::Database(_) => (open::session(settings, "adopt"), None),
    };
    let taken = conn.and_then(|conn| match schema::version(&conn)? {
        0 => Ok(false),
        _ => backup::unretire(&conn),
    });
    Ok(taken.map_err(|e| open::explained(&settings.place.called(), &e))?)
}

fn drop_sealed(
    settings: &StoreSettings,
    state_dir: &Path,
    now: Timestamp,
) -> Result<usize, RestoreError> {
    let path = &settings.place.called();
    let unreadable = |e: SqlError| match &settings.place {
        StorePlace::File(path) => OpenError::Corrupt {
            path: path.clone(),
            reason: e.to_string(),
        },
        StorePlace::Database(_) => open::explained(path, &e),
    };
    let conn = match settings.place.file() {
        Some(file) => sql::Connection::to_file(file),
        None => open::session(settings, "by hand"),
    }
    .map_err(unreadable)?;
    let stored = db::meta::<String>(&conn, "seal_key").map_err(unreadable)?;
    let seal = seal::seal(settings, state_dir, (None, None))?;
    let successor = db::meta::<String>(&conn, reseal::SUCCESSOR).map_err(unreadable)?;
    if successor.is_none() && stored == Some(seal.key_id()) {
        return Err(OpenError::Other {
            path: path.clone(),
            reason: "its key is not lost: the key that is there fits".to_owned(),
        }
        .into());
    }
    let dropped = || -> sql::Result<usize> {
        if conn.file().is_some() {
            conn.batch("PRAGMA secure_delete = on")?;
        }
        conn.begin()?;
        let dropped = conn.execute(
            &update_identities(
                "SET token = NULL, good_until = 0, expires_at = CASE WHEN expires_at < ?1 THEN expires_at ELSE ?1 END, \
                 due_at = ?1, due_why = ?2 WHERE token IS NOT NULL AND state = 'active'",
            ),
            (db::micros(now), spelled(&DueReason::Requested)),
        )?;
        conn.execute(
            &update_identities("SET token = NULL WHERE token IS NOT NULL"),
            [],
        )?;
        db::set_meta(&conn, "seal_key", seal.key_id())?;
        reseal::forget(&conn)?;
        conn.commit()?;
        Ok(dropped)
    };
    Ok(dropped().map_err(unreadable)?)
}

/// The key that the restored store will be opened with.
enum Key<'a> {
    /// It is where it has to be.
    There,
    /// It comes with the backup, and goes into the state directory.
    Brought(&'a str),
}

impl<'a> Key<'a> {
    fn fitting(
        contents: &Contents,
        settings: &StoreSettings,
        state_dir: &Path,
        how: &'a RestoreHow,
    ) -> Result<Self, RestoreError> {
        let needed = Some(contents.seal_key.clone());
        let there = seal::given(settings, state_dir)?;
        let found = |found: String| RestoreError::Key {
            needed: contents.seal_key.clone(),
            found,
        };
        if there
            .as_ref()
            .is_some_and(|(text, _)| seal::seal_key_id(text) == needed)
            || how.key_lost
        {
            return Ok(Self::There);
        }
        if settings.seal_key.is_some() {
            let from = there.map_or(String::new(), |(_, from)| from);
            return Err(found(format!(
                "the configuration gives another one ({from})"
            )));
        }
        match (&how.key, there) {
            (Some(brought), _) if seal::seal_key_id(brought) == needed => {
                Ok(Self::Brought(brought))
            }
            (Some(_), _) => Err(found("the one that was given is another".to_owned())),
            (None, Some((_, from))) => Err(found(format!("{from} is another"))),
            (None, None) => Err(found("there is none here".to_owned())),
        }
    }

    /// Where another key lay is set aside, and said.
    fn install(&self, state_dir: &Path, aside: &str) -> Result<Vec<PathBuf>, RestoreError> {
        let Self::Brought(text) = self else {
            return Ok(Vec::new());
        };
        let moved = seal::set_aside(state_dir, aside)?;
        seal::put(state_dir, text)?;
        Ok(moved.into_iter().collect())
    }
}

/// What was done before the database is moved into place.
struct Prepared {
    kept: Vec<PathBuf>,
    aside: Vec<PathBuf>,
    doubt: Option<String>,
}

/// Where the files beside the store lie.
struct Places<'a> {
    state_dir: &'a Path,
    /// The second place of what was withdrawn.
    copy: Option<&'a Path>,
}

/// Writes the new database beside the place of the store, synced, and the files beside it that are
/// missing or of another store.
fn prepare(
    from: &Path,
    new: &Path,
    places: &Places<'_>,
    (contents, moved): (&Contents, &str),
) -> Result<Prepared, RestoreError> {
    copy(from, new)?;
    let reading = BackupError::reading(from);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(new, flags).map_err(&reading)?;
    let id = backup::meta_of::<String>(&conn, "store_id").map_err(&reading)?;
    let there = store_of(&places.state_dir.join(backup::WITHDRAWN));
    // The second place may know what came after the backup; the next start takes the one that goes further.
    let second = places
        .copy
        .filter(|second| id.is_some() && store_of(second) == id);
    let foreign = id.zip(there).is_some_and(|(ours, there)| ours != there);
    let (mut kept, mut aside) = (Vec::new(), Vec::new());
    let mut vouched = contents.last;
    for name in backup::BESIDE {
        let place = places.state_dir.join(name);
        if place.exists() && !foreign {
            vouched |= name == backup::WITHDRAWN;
            kept.push(place);
            continue;
        }
        if place.exists() {
            let old = beside(&place, moved);
            fs::rename(&place, &old).map_err(BackupError::io("set aside", &place))?;
            aside.push(old);
        }
        match second.filter(|_| name == backup::WITHDRAWN) {
            Some(second) => {
                vouched = true;
                kept.push(second.to_owned());
                let new = beside(&place, ".new");
                copy(second, &new)?;
                sync(&new)?;
                fs::rename(&new, &place).map_err(BackupError::io("write", &place))?;
            }
            None => write_beside(&conn, name, &place)?,
        }
    }
    let doubt = (!vouched).then(|| {
        format!(
            "a backup of {:.0} was put back, and no {} was there that knows what came after it",
            contents.made_at,
            backup::WITHDRAWN
        )
    });
    let stripped = backup::strip(&conn.into(), contents, doubt.as_deref());
    stripped.map_err(|error| BackupError::Damaged {
        path: new.to_owned(),
        why: error.to_string(),
    })?;
    sync(new)?;
    Ok(Prepared { kept, aside, doubt })
}

/// The store that the withdrawals in a file are of.
fn store_of(withdrawn: &Path) -> Option<String> {
    let mut first = String::new();
    let file = File::open(withdrawn).ok()?;
    io::BufReader::new(file).read_line(&mut first).ok()?;
    let line: serde_json::Value = serde_json::from_str(&first).ok()?;
    Some(line.get("store")?.as_str()?.to_owned())
}

/// A copy for our eyes only.
fn copy(from: &Path, new: &Path) -> Result<(), BackupError> {
    let mut source = File::open(from).map_err(BackupError::io("open", from))?;
    let mut target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)
        .map_err(BackupError::io("make", new))?;
    io::copy(&mut source, &mut target)
        .map(drop)
        .map_err(BackupError::io("write", new))
}

/// Writes a file beside the database as the backup holds it, if it does, under another name first.
fn write_beside(backup: &Connection, name: &str, place: &Path) -> Result<(), RestoreError> {
    let new = beside(place, ".new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(BackupError::io("make", &new))?;
    let mut written = Ok(());
    let pieces = backup::each_piece(backup, name, |piece| {
        if written.is_ok() {
            written = file.write_all(piece);
        }
    })
    .map_err(BackupError::reading(&new))?;
    written
        .and_then(|()| file.sync_all())
        .and_then(|()| match pieces {
            0 => fs::remove_file(&new),
            _ => fs::rename(&new, place),
        })
        .map_err(BackupError::io("write", place))?;
    Ok(())
}

/// Moves the new database into place. The old one goes aside whole, with what its log still holds.
fn install(new: &Path, path: &Path, aside: &str) -> Result<Vec<PathBuf>, RestoreError> {
    let wal = beside(path, "-wal");
    fold_in(path);
    let mut moved = Vec::new();
    let kept = beside(path, aside);
    if fs::metadata(&wal).is_ok_and(|log| log.len() > 0) {
        // It is damaged, so that its log could not be folded in: they stay together.
        for (old, kept) in [(path, &kept), (&wal, &beside(&kept, "-wal"))] {
            fs::rename(old, kept).map_err(BackupError::io("set aside", old))?;
            moved.push(kept.clone());
        }
    } else if path.exists() {
        // From here on there is one or the other at any instant.
        fs::hard_link(path, &kept).map_err(BackupError::io("set aside", path))?;
        moved.push(kept);
    }
    for left in ["-wal", "-shm"] {
        fs::remove_file(beside(path, left)).ok();
    }
    fs::rename(new, path).map_err(BackupError::io("put into place", path))?;
    sync(path.parent().unwrap_or(Path::new(".")))?;
    Ok(moved)
}

/// Folds the log of a database into it, where it can be read.
fn fold_in(path: &Path) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let folded = Connection::open_with_flags(path, flags)
        .and_then(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(error) = folded {
        tracing::debug!(%error, "the log of the store that is set aside stays beside it");
    }
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(BackupError::io("sync", path))
}

/// `PATHSUFFIX`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Why a store that belongs to one machine may not be used on another; `None` where nothing says that
/// they differ.
fn elsewhere(store: &Owner, here: &Owner) -> Option<String> {
    match (&store.instance, &here.instance) {
        (Some(store), Some(here)) if store != here => {
            return Some(format!(
                "it is that of the instance {store}, and [daemon] instance is {here}"
            ));
        }
        _ => {}
    }
    match (&store.machine, &here.machine) {
        (Some(store), Some(here)) if store != here => Some(format!(
            "it was last used on another machine ({store}; this one is {here}, by a digest of /etc/machine-id)"
        )),
        _ => None,
    }
}

impl Store {
    /// Goes on with a store of which it is not known what was withdrawn; how many tokens of unknown
    /// standing are renewed now.
    pub async fn accept(&self, cause: &Cause, now: Timestamp) -> Answer<u64> {
        let cause = cause.clone();
        self.withdraw("accept the store", move |txn| {
            if txn.restored()?.is_none() {
                return Err(Fault::Refused(
                    "there is nothing to accept: it is known what was withdrawn".to_owned(),
                ));
            }
            txn.raise_versions(now)?;
            let renewing = txn.write_identities(
                "SET good_until = 0, due_at = ?1, due_why = ?2 WHERE state = 'active'",
                params![micros(now), spelled(&DueReason::Requested)],
                Counting::Anew,
            )?;
            txn.run("DELETE FROM meta WHERE key = ?1", [RESTORED])?;
            txn.effects.due = true;
            txn.effects.accepted = true;
            let said = format!("{renewing} tokens of unknown standing are renewed");
            txn.note_word("store.accept", said, &cause, now)?;
            Ok(u64::try_from(renewing).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Takes a store over that belonged to another machine; whether it may be used then.
    pub async fn adopt(&self, cause: &Cause, now: Timestamp) -> Answer<StoreStanding> {
        let (here, cause) = (self.here().clone(), cause.clone());
        self.write("adopt the store", move |txn| {
            let StoreStanding::Passive { why } = txn.usable(&here)? else {
                return Err(Fault::Refused(
                    "there is nothing to adopt: the store belongs here".to_owned(),
                ));
            };
            txn.belong(&here)?;
            txn.note_word("store.adopt", why, &cause, now)?;
            txn.usable(&here)
        })
        .await
    }

    /// Notes a person's word that the store knows nothing of what was withdrawn since an instant.
    pub async fn distrust(&self, since: Timestamp, cause: &Cause, now: Timestamp) -> Answer<()> {
        let cause = cause.clone();
        self.write("distrust the store", move |txn| {
            let said = format!(
                "it was said that the store knows nothing of what was withdrawn since {since:.0}"
            );
            txn.doubt(&said)?;
            txn.note_word("store.distrust", said, &cause, now)
        })
        .await
    }
}

impl Db {
    /// Whether the store may be used here. What it did not know of its machine so far, it knows then.
    pub(super) fn usable(&self, here: &Owner) -> Outcome<StoreStanding> {
        let store = Owner {
            instance: db::meta(&self.conn, INSTANCE)?,
            machine: db::meta(&self.conn, MACHINE)?,
        };
        if let Some(why) = elsewhere(&store, here) {
            return Ok(StoreStanding::Passive { why });
        }
        if store.machine.is_some() && here.machine.is_none() {
            tracing::warn!(
                "this machine has no id (/etc/machine-id), so that it is not known whether the store is its own"
            );
        }
        self.belong(&Owner {
            instance: store.instance.or_else(|| here.instance.clone()),
            machine: store.machine.or_else(|| here.machine.clone()),
        })?;
        let restored = self.restored()?;
        Ok(restored.map_or(StoreStanding::Own, |why| StoreStanding::Restored { why }))
    }

    fn belong(&self, owner: &Owner) -> Outcome<()> {
        for (key, value) in [(INSTANCE, &owner.instance), (MACHINE, &owner.machine)] {
            match value {
                Some(value) if db::meta(&self.conn, key)?.as_ref() != Some(value) => {
                    db::set_meta(&self.conn, key, value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Why it is not known what was withdrawn, where it is not.
    pub(super) fn restored(&self) -> Outcome<Option<String>> {
        Ok(db::meta::<String>(&self.conn, RESTORED)?)
    }
}

impl Txn<'_> {
    /// From now on, over restarts, it is not known what was withdrawn.
    pub(super) fn doubt(&self, why: &str) -> Outcome<()> {
        Ok(db::set_meta(&self.conn, RESTORED, why)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_of_both_and_differs_makes_a_store_another_machines() {
        let owner = |instance: &str, machine: &str| {
            let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Owner {
                instance: known(instance),
                machine: known(machine),
            }
        };
        for (store, here, differs) in [
            (owner("", ""), owner("web-1", "a"), false),
            (owner("web-1", "a"), owner("", ""), false),
            (owner("web-1", "a"), owner("web-1", "a"), false),
            (owner("web-1", "a"), owner("", "a"), false),
            (owner("web-1", "a"), owner("web-2", "a"), true),
            (owner("web-1", "a"), owner("web-1", "b"), true),
            (owner("", "a"), owner("web-1", "b"), true),
            (owner("web-1", ""), owner("web-1", "b"), false),
        ] {
            assert_eq!(
                elsewhere(&store, &here).is_some(),
                differs,
                "{store:?} {here:?}"
            );
        }
    }
}
