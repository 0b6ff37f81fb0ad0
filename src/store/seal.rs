//! Seals secrets at rest, and keeps the key that does.
//!
//! Seals secrets at rest: XChaCha20-Poly1305 with a random nonce. What is sealed is bound to its
//! place (table, column, name, version, key), so that a row moved to another name does not open.
//!
//! The key that seals: given by the configuration, or a key file made once in the state directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::OpenError;
use crate::{
    config::{SecretRef, StoreSettings},
    model::hex,
};

/// The first byte of everything sealed, so that the form can change one day.
const FORM: u8 = 1;
const NONCE: usize = 24;

/// Seals with one key. While it takes over from another, what that one sealed opens, too.
pub(super) struct Seal(RwLock<SealKeys>);

struct SealKeys {
    current: Arc<Key>,
    former: Option<Arc<Key>>,
}

/// One key, ready to be used, and its name.
struct Key {
    cipher: XChaCha20Poly1305,
    /// The key of [`Seal::mark`].
    marks: Zeroizing<[u8; 32]>,
    id: String,
}

/// Where a secret lies.
#[derive(Clone, Copy)]
pub(super) struct SealPlace<'a> {
    pub(super) table: &'a str,
    pub(super) column: &'a str,
    pub(super) name: &'a str,
    /// The row's version when it was sealed.
    pub(super) version: u64,
}

/// What was sealed does not open here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DoesNotOpen;

impl Seal {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(RwLock::new(SealKeys {
            current: Arc::new(Key::new(key)),
            former: None,
        }))
    }

    /// From now on another key seals, and what this one sealed opens still.
    pub(super) fn succeed(&self, key: &[u8; 32]) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let successor = Arc::new(Key::new(key));
        if successor.id != keys.current.id {
            let former = std::mem::replace(&mut keys.current, successor);
            keys.former = Some(former);
        }
    }

    /// Nothing is sealed with the former key any more.
    pub(super) fn forget_former(&self) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .former = None;
    }

    /// A short one-way name of the key that seals.
    pub(super) fn key_id(&self) -> String {
        self.keys().0.id.clone()
    }

    /// What compares secrets on machines that have the same key, and shows nothing of them to others.
    pub(super) fn mark(&self, secret: &[u8]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.keys().0.marks).expect("a key");
        mac.update(secret);
        mac.finalize().into_bytes().into()
    }

    pub(super) fn seal(&self, place: SealPlace<'_>, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        self.keys().0.seal(place, plain)
    }

    pub(super) fn open(
        &self,
        place: SealPlace<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        let (current, former) = self.keys();
        let opened = current.open(place, sealed);
        match former {
            Some(former) => opened.or_else(|_| former.open(place, sealed)),
            None => opened,
        }
    }

    fn keys(&self) -> (Arc<Key>, Option<Arc<Key>>) {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (keys.current.clone(), keys.former.clone())
    }
}

impl Key {
    fn new(key: &[u8; 32]) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"renewd seal key id\0");
        digest.update(key);
        let id = hex(&digest.finalize()[..8]);
        let for_marks = Sha256::new().chain_update(b"renewd marks of secrets\0");
        let for_marks = for_marks.chain_update(key).finalize();
        Self {
            marks: Zeroizing::new(for_marks.into()),
            cipher: XChaCha20Poly1305::new(&(*key).into()),
            id,
        }
    }

    fn seal(&self, place: SealPlace<'_>, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut nonce = [0_u8; NONCE];
        getrandom(&mut nonce, GetRandomFlags::empty())?;
        let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + 16));
        text.extend_from_slice(plain);
        self.cipher
            .encrypt_in_place(&XNonce::from(nonce), &self.bound_to(place), &mut *text)
            .map_err(|_| std::io::Error::other("the secret is too long to seal"))?;
        Ok([&[FORM][..], &nonce, &text].concat())
    }

    fn open(&self, place: SealPlace<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        let rest = sealed.strip_prefix(&[FORM]).ok_or(DoesNotOpen)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE>().ok_or(DoesNotOpen)?;
        let mut text = Zeroizing::new(text.to_vec());
        self.cipher
            .decrypt_in_place(&XNonce::from(*nonce), &self.bound_to(place), &mut *text)
            .map_err(|_| DoesNotOpen)?;
        Ok(text)
    }

    /// The place as bytes: no part can be mistaken for another, since none may hold a NUL.
    fn bound_to(&self, place: SealPlace<'_>) -> Vec<u8> {
        let version = place.version.to_string();
        [place.table, place.column, place.name, &version, &self.id]
            .join("\0")
            .into_bytes()
    }
}

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
                path: settings.place.called(),
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
            path: settings.place.called(),
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

/// The file of the seal key, where there should be one and is none.
pub(super) fn missing(settings: &StoreSettings, state_dir: &Path) -> Option<PathBuf> {
    let path = match settings.seal_key.as_ref().map(|given| &given.from) {
        None => state_dir.join(KEY_FILE),
        Some(SecretRef::File(path)) => path.clone(),
        Some(SecretRef::Credential(_) | SecretRef::Env(_)) => return None,
    };
    let found = fs::symlink_metadata(&path);
    let is_gone = found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    is_gone.then_some(path)
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
mod seal_tests {
    use super::*;

    const HOME: SealPlace<'_> = SealPlace {
        table: "identity",
        column: "token",
        name: "bot",
        version: 7,
    };

    #[test]
    fn opens_only_where_it_was_sealed_and_with_the_same_key() {
        let seal = Seal::new(&[1; 32]);
        let sealed = seal.seal(HOME, b"secret").unwrap();
        assert_eq!(&**seal.open(HOME, &sealed).unwrap(), b"secret");
        for elsewhere in [
            SealPlace {
                table: "other",
                ..HOME
            },
            SealPlace {
                column: "other",
                ..HOME
            },
            SealPlace {
                name: "other",
                ..HOME
            },
            SealPlace { version: 8, ..HOME },
        ] {
            assert_eq!(seal.open(elsewhere, &sealed), Err(DoesNotOpen));
        }
        assert_eq!(Seal::new(&[2; 32]).open(HOME, &sealed), Err(DoesNotOpen));
    }

    #[test]
    fn what_the_former_key_sealed_opens_until_it_is_forgotten() {
        let seal = Seal::new(&[1; 32]);
        let before = seal.seal(HOME, b"secret").unwrap();
        seal.succeed(&[2; 32]);
        seal.succeed(&[2; 32]);
        let after = seal.seal(HOME, b"secret").unwrap();
        assert_eq!(Seal::new(&[2; 32]).key_id(), seal.key_id());
        assert!(seal.open(HOME, &before).is_ok() && seal.open(HOME, &after).is_ok());
        seal.forget_former();
        assert_eq!(seal.open(HOME, &before), Err(DoesNotOpen));
        assert!(Seal::new(&[2; 32]).open(HOME, &after).is_ok());
    }

    #[test]
    fn a_single_changed_bit_or_a_cut_does_not_open() {
        let seal = Seal::new(&[1; 32]);
        let sealed = seal.seal(HOME, b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(seal.open(HOME, &bent).is_err(), "byte {at}");
            assert!(seal.open(HOME, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let seal = Seal::new(&[1; 32]);
        assert_ne!(
            seal.seal(HOME, b"x").unwrap(),
            seal.seal(HOME, b"x").unwrap()
        );
    }
}

#[cfg(test)]
mod key_tests {
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
