//! Who may call: the two access keys of the resource with those that were regenerated, and the Entra
//! tokens of Teams users.
//!
//! A test makes an Entra token by itself: three parts joined by dots, the middle one base64url (padded or
//! not) of a JSON object with `appid` (or `azp`), `oid` and `exp` (seconds). The first part and the
//! signature are not looked at, so `base64url({"alg":"none"}) . base64url(claims) . x` will do.

use std::sync::Arc;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use rand::{Rng, RngExt};
use renewd_acs_wire::Secret;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

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

/// What the emulator reads of an Entra token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntraToken {
    /// The application that it was issued to.
    pub(super) app_id: String,
    /// The user's object id.
    pub(super) user_id: String,
    pub(super) expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(alias = "azp")]
    appid: String,
    oid: String,
    exp: i64,
}

/// Reads a token; the error says why it is not a valid one.
pub(super) fn read(token: &str, now: Timestamp) -> Result<EntraToken, String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts[..] else {
        return Err("the Entra token does not have three parts joined by dots".to_owned());
    };
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(payload)
        .or_else(|_| BASE64_URL_SAFE.decode(payload))
        .map_err(|_| "the Entra token's middle part is not base64url".to_owned())?;
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|error| {
        // The text of the error could quote a claim; its kind and place say enough.
        format!(
            "the Entra token's claims need appid, oid and exp (JSON {:?} error at column {})",
            error.classify(),
            error.column()
        )
    })?;
    let expires_at = Timestamp::from_second(claims.exp)
        .map_err(|_| "the Entra token's exp is not a time".to_owned())?;
    if expires_at <= now {
        return Err(format!("the Entra token expired at {expires_at}"));
    }
    Ok(EntraToken {
        app_id: claims.appid,
        user_id: claims.oid,
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn it_needs_three_claims_and_a_future() {
        let now = Timestamp::from_second(1000).unwrap();
        let good = read(&token(r#"{"appid":"a","oid":"o","exp":1001}"#), now).unwrap();
        assert_eq!((good.app_id.as_str(), good.user_id.as_str()), ("a", "o"));
        for (bad, why) in [
            (token(r#"{"appid":"a","oid":"o","exp":1000}"#), "expired"),
            (token(r#"{"appid":"a","exp":1001}"#), "need appid, oid"),
            (String::new(), "three parts"),
            ("a.?.c".to_owned(), "base64url"),
        ] {
            let error = read(&bad, now).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
