//! The key that seals: given by the configuration, or a key file made once in the state directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::{error::OpenError, seal::Seal};
use crate::config::{SecretRef, StoreSettings};

/// The name of the key file in the state directory.
const KEY_FILE: &str = "seal.key";
/// The key that takes over from it, until it has its place.
const NEXT_FILE: &str = "seal.key.next";

/// Finds the key, makes one for a new store, and compares it with the id of the key that sealed the
/// store before (`stored`).
pub(super) fn seal(
    settings: &StoreSettings,
    state_dir: &Path,
    (stored, successor): (Option<&str>, Option<&str>),
) -> Result<Seal, OpenError> {
    if let (Some(stored), None) = (stored, successor)
        && next(state_dir)?.is_some_and(|(_, id)| id == stored)
    {
        // A replacement came to its end, and the process with it.
        settle(settings, state_dir)?;
    }
    let seal = sealing(settings, state_dir, stored)?;
    let Some(successor) = successor else {
        return Ok(seal);
    };
    seal.succeed(&*self::successor(state_dir, successor)?);
    Ok(seal)
}

/// The key that takes over, by its id.
pub(super) fn successor(state_dir: &Path, id: &str) -> Result<SealKey, OpenError> {
    let found = next(state_dir)?.filter(|(_, found)| found == id);
    found
        .map(|(key, _)| key)
        .ok_or_else(|| OpenError::Successor {
            path: state_dir.join(NEXT_FILE),
            successor: id.to_owned(),
        })
}

/// The key that the configuration gives, or the key file; or its successor, where that has taken over and
/// the configuration still gives the old one.
fn sealing(
    settings: &StoreSettings,
    state_dir: &Path,
    stored: Option<&str>,
) -> Result<Seal, OpenError> {
    if let Some(stored) = stored
        && let Some(given) = &settings.seal_key
        && seal_key_id(given.secret.expose()).is_none_or(|id| id != stored)
        && let Some((key, id)) = next(state_dir)?
        && id == stored
    {
        tracing::warn!(
            "the configuration still gives the old seal key ({}): put the key of {} in its place",
            described(&given.from),
            state_dir.join(NEXT_FILE).display()
        );
        return Ok(Seal::new(&key));
    }
    let (text, from) = match (given(settings, state_dir)?, stored) {
        (Some(given), _) => given,
        (None, None) => {
            let key_file = state_dir.join(KEY_FILE);
            (make(&key_file)?, key_file.display().to_string())
        }
        (None, Some(stored)) => {
            return Err(OpenError::KeyMissing {
                path: settings.path.clone(),
                key_file: state_dir.join(KEY_FILE),
                stored: stored.to_owned(),
            });
        }
    };
    let key = decode(text.trim_start_matches('\u{feff}'))
        .ok_or_else(|| OpenError::BadKey { from: from.clone() })?;
    let seal = Seal::new(&key);
    match stored {
        Some(stored) if stored != seal.key_id() => Err(OpenError::WrongKey {
            path: settings.path.clone(),
            from,
            given: seal.key_id(),
            stored: stored.to_owned(),
        }),
        _ => Ok(seal),
    }
}

type SealKey = Zeroizing<[u8; 32]>;

/// The key that takes over, and its id.
fn next(state_dir: &Path) -> Result<Option<(SealKey, String)>, OpenError> {
    let path = state_dir.join(NEXT_FILE);
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    let key = decode(&text).ok_or_else(|| OpenError::BadKey {
        from: path.display().to_string(),
    })?;
    let id = Seal::new(&key).key_id();
    Ok(Some((key, id)))
}

/// The id of the key that is to take over: one that was made before, or a new one.
pub(super) fn next_or_new(state_dir: &Path) -> Result<String, OpenError> {
    if let Some((_, id)) = next(state_dir)? {
        return Ok(id);
    }
    let path = state_dir.join(NEXT_FILE);
    let text = make(&path)?;
    seal_key_id(&text).ok_or_else(|| OpenError::BadKey {
        from: path.display().to_string(),
    })
}

/// Gives the key that has taken over its place. The old key file stays beside it under the id of its key,
/// for backups that were made before. A key that the configuration gives is its owner's to replace: the new
/// one stays where it is until it is given.
pub(super) fn settle(settings: &StoreSettings, state_dir: &Path) -> Result<(), OpenError> {
    let (path, next_path) = (state_dir.join(KEY_FILE), state_dir.join(NEXT_FILE));
    let Some((_, id)) = next(state_dir)? else {
        return Ok(());
    };
    let failed = |source| OpenError::Io {
        doing: "put the new seal key in the place of",
        path: path.clone(),
        source,
    };
    if let Some(given) = &settings.seal_key {
        if seal_key_id(given.secret.expose()).is_some_and(|given| given == id) {
            fs::remove_file(&next_path).map_err(failed)?;
        }
        return Ok(());
    }
    if let Some(old) = read(&path)?.and_then(|text| seal_key_id(&text)) {
        match fs::hard_link(&path, kept(state_dir, &old)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    fs::rename(&next_path, &path).map_err(failed)?;
    let folder = File::open(state_dir).map_err(failed)?;
    folder.sync_all().map_err(failed)
}

/// What is left to be done by hand: the store is sealed with a new key, and the configuration gives the old.
pub(super) fn by_hand(settings: &StoreSettings, state_dir: &Path, stored: &str) -> Option<String> {
    let given = settings.seal_key.as_ref()?;
    let (_, id) = next(state_dir).ok().flatten()?;
    (id == stored).then(|| {
        format!(
            "the store is sealed with a new key, and the configuration still gives the old one: put the key of {} in the \
             place of {}, keep the old one apart for backups made before, and restart the daemon, which then removes \
             that file",
            state_dir.join(NEXT_FILE).display(),
            described(&given.from)
        )
    })
}

/// Where the key file of the key with this id is kept, for backups made before it was replaced.
pub(super) fn kept(state_dir: &Path, id: &str) -> PathBuf {
    state_dir.join(format!("{KEY_FILE}.{id}"))
}

/// The text of the key that the configuration gives, or that the key file holds, and where it is from.
pub(super) fn given(
    settings: &StoreSettings,
    state_dir: &Path,
) -> Result<Option<(Zeroizing<String>, String)>, OpenError> {
    if let Some(given) = &settings.seal_key {
        let text = Zeroizing::new(given.secret.expose().to_owned());
        return Ok(Some((text, described(&given.from))));
    }
    let key_file = state_dir.join(KEY_FILE);
    let text = read(&key_file)?;
    Ok(text.map(|text| (text, key_file.display().to_string())))
}

/// The text of the seal key of a configuration's store, and its id.
///
/// # Errors
/// When there is none, it cannot be read, or it is no key.
pub fn seal_key_of(
    settings: &StoreSettings,
    state_dir: &Path,
) -> Result<(Zeroizing<String>, String), OpenError> {
    let Some((text, from)) = given(settings, state_dir)? else {
        return Err(OpenError::Io {
            doing: "read the key file",
            path: state_dir.join(KEY_FILE),
            source: io::ErrorKind::NotFound.into(),
        });
    };
    match seal_key_id(&text) {
        Some(id) => Ok((text, id)),
        None => Err(OpenError::BadKey { from }),
    }
}

/// The id of the key of this text, or `None` where it is no key.
pub fn seal_key_id(text: &str) -> Option<String> {
    decode(text.trim_start_matches('\u{feff}')).map(|key| Seal::new(&key).key_id())
}

/// Puts a key file into the state directory, in place of none.
pub(super) fn put(state_dir: &Path, text: &str) -> Result<(), OpenError> {
    let path = state_dir.join(KEY_FILE);
    write_new(&path, text.as_bytes()).map_err(|source| OpenError::Io {
        doing: "make the key file",
        path,
        source,
    })
}

/// Moves a key file that does not fit out of the way; where it is then.
pub(super) fn set_aside(state_dir: &Path, name: &str) -> Result<Option<PathBuf>, OpenError> {
    let path = state_dir.join(KEY_FILE);
    let aside = state_dir.join(format!("{KEY_FILE}.{name}"));
    match fs::rename(&path, &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io {
            doing: "move the key file away",
            path,
            source,
        }),
    }
}

fn described(from: &SecretRef) -> String {
    match from {
        SecretRef::File(path) => path.display().to_string(),
        SecretRef::Credential(name) => format!("the credential {name}"),
        SecretRef::Env(name) => format!("the variable {name}"),
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, OpenError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io {
            doing: "read the key file",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes a key and its file.
fn make(path: &Path) -> Result<Zeroizing<String>, OpenError> {
    let write = || -> io::Result<Zeroizing<String>> {
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom(&mut *key, GetRandomFlags::empty())?;
        let text = Zeroizing::new(BASE64_STANDARD.encode(*key) + "\n");
        write_new(path, text.as_bytes())?;
        Ok(text)
    };
    write().map_err(|source| OpenError::Io {
        doing: "make the key file",
        path: path.to_owned(),
        source,
    })
}

/// Writes a key file under another name and links it into place: it is never there half-written, and
/// never takes the place of another.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut unnamed = path.to_owned().into_os_string();
    unnamed.push(".new");
    let unnamed = PathBuf::from(unnamed);
    fs::remove_file(&unnamed).or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    })?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unnamed)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::hard_link(&unnamed, path)?;
    fs::remove_file(&unnamed)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// 32 bytes, in base64 or hex.
fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    let bytes = Zeroizing::new(if text.len() == 64 {
        (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?
    } else {
        BASE64_STANDARD.decode(text).ok()?
    });
    <[u8; 32]>::try_from(bytes.as_slice())
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_base64_and_hex() {
        let hex = "01".repeat(32);
        let base64 = BASE64_STANDARD.encode([1; 32]);
        assert_eq!(*decode(&hex).unwrap(), [1; 32]);
        assert_eq!(*decode(&format!("{base64}\n")).unwrap(), [1; 32]);
        for bad in [
            "",
            "secret",
            &"é".repeat(32),
            &BASE64_STANDARD.encode([1; 31]),
        ] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_existing_key_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::write(&path, "mine").unwrap();
        assert!(make(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
