//! Seals secrets at rest: XChaCha20-Poly1305 with a random nonce. What is sealed is bound to its
//! place (table, column, name, version, key), so that a row moved to another name does not open.

use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The first byte of everything sealed, so that the form can change one day.
const FORM: u8 = 1;
const NONCE: usize = 24;

/// Seals with one key. While it takes over from another, what that one sealed opens, too.
pub(super) struct Seal(RwLock<Keys>);

struct Keys {
    current: Arc<Key>,
    former: Option<Arc<Key>>,
}

/// One key, ready to be used, and its name.
struct Key {
    cipher: XChaCha20Poly1305,
    id: String,
}

/// Where a secret lies.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The table.
    pub(super) table: &'a str,
    /// The column.
    pub(super) column: &'a str,
    /// Whose row.
    pub(super) name: &'a str,
    /// The row's version when it was sealed.
    pub(super) version: u64,
}

/// What was sealed does not open here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DoesNotOpen;

impl Seal {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(RwLock::new(Keys {
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

    pub(super) fn seal(&self, place: Place<'_>, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        self.keys().0.seal(place, plain)
    }

    pub(super) fn open(
        &self,
        place: Place<'_>,
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
        let id = digest.finalize()[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Self {
            cipher: XChaCha20Poly1305::new(&(*key).into()),
            id,
        }
    }

    fn seal(&self, place: Place<'_>, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut nonce = [0_u8; NONCE];
        getrandom(&mut nonce, GetRandomFlags::empty())?;
        let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + 16));
        text.extend_from_slice(plain);
        self.cipher
            .encrypt_in_place(&XNonce::from(nonce), &self.bound_to(place), &mut *text)
            .map_err(|_| std::io::Error::other("the secret is too long to seal"))?;
        Ok([&[FORM][..], &nonce, &text].concat())
    }

    fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        let rest = sealed.strip_prefix(&[FORM]).ok_or(DoesNotOpen)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE>().ok_or(DoesNotOpen)?;
        let mut text = Zeroizing::new(text.to_vec());
        self.cipher
            .decrypt_in_place(&XNonce::from(*nonce), &self.bound_to(place), &mut *text)
            .map_err(|_| DoesNotOpen)?;
        Ok(text)
    }

    /// The place as bytes: no part can be mistaken for another, since none may hold a NUL.
    fn bound_to(&self, place: Place<'_>) -> Vec<u8> {
        let version = place.version.to_string();
        [place.table, place.column, place.name, &version, &self.id]
            .join("\0")
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Place<'_> = Place {
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
            Place {
                table: "other",
                ..HOME
            },
            Place {
                column: "other",
                ..HOME
            },
            Place {
                name: "other",
                ..HOME
            },
            Place { version: 8, ..HOME },
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
