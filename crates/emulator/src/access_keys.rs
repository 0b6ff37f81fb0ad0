//! The two access keys of the resource, and the ones that were regenerated.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use renewd_acs_wire::Secret;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Slot {
    Primary,
    Secondary,
}

impl Slot {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

/// One key at one time: the slot and how often it was regenerated before. A token carries the
/// stamp of the key that asked for it, and dies with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyStamp {
    pub(super) slot: Slot,
    pub(super) generation: u32,
}

/// One access key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) stamp: KeyStamp,
    text: Secret,
    bytes: Arc<Zeroizing<Vec<u8>>>,
}

impl Key {
    /// A key from its base64 text; `None` where it is not standard base64 or empty.
    pub(super) fn new(stamp: KeyStamp, text: Secret) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.expose()).ok()?;
        (!bytes.is_empty()).then(|| Self {
            stamp,
            text,
            bytes: Arc::new(Zeroizing::new(bytes)),
        })
    }

    /// The base64 text.
    pub(super) fn text(&self) -> &Secret {
        &self.text
    }

    /// What HMAC is keyed with.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// HMAC-SHA256 of a text under a key.
pub(super) fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// A new key: 64 random bytes in base64.
pub(super) fn draw(rng: &mut impl Rng) -> Secret {
    let bytes = Zeroizing::new(rng.random::<[u8; 32]>());
    let more = Zeroizing::new(rng.random::<[u8; 32]>());
    Secret::new(BASE64_STANDARD.encode([&bytes[..], &more[..]].concat()))
}

/// The keys that are valid, and the ones that were.
#[derive(Debug, Clone)]
pub(super) struct AccessKeys {
    primary: Key,
    secondary: Key,
    retired: Vec<Key>,
}

/// Regenerated keys that are remembered for the sake of a better explanation.
const REMEMBERED: usize = 16;

impl AccessKeys {
    pub(super) fn new(primary: Key, secondary: Key) -> Self {
        Self {
            primary,
            secondary,
            retired: Vec::new(),
        }
    }

    pub(super) fn get(&self, slot: Slot) -> &Key {
        match slot {
            Slot::Primary => &self.primary,
            Slot::Secondary => &self.secondary,
        }
    }

    /// Both valid keys.
    pub(super) fn valid(&self) -> [&Key; 2] {
        [&self.primary, &self.secondary]
    }

    /// Keys that are no longer valid, newest first.
    pub(super) fn retired(&self) -> impl Iterator<Item = &Key> {
        self.retired.iter().rev()
    }

    /// Whether the key of this stamp is still valid.
    pub(super) fn holds(&self, stamp: KeyStamp) -> bool {
        self.get(stamp.slot).stamp == stamp
    }

    /// Replaces one key by a new one.
    pub(super) fn regenerate(&mut self, slot: Slot, rng: &mut impl Rng) {
        let stamp = KeyStamp {
            slot,
            generation: self.get(slot).stamp.generation + 1,
        };
        let Some(new) = Key::new(stamp, draw(rng)) else {
            return;
        };
        let place = match slot {
            Slot::Primary => &mut self.primary,
            Slot::Secondary => &mut self.secondary,
        };
        self.retired.push(std::mem::replace(place, new));
        if self.retired.len() > REMEMBERED {
            self.retired.remove(0);
        }
    }
}
