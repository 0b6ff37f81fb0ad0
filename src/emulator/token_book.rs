//! Every token that was issued, by its hash: the emulator knows which are live without a signature.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::access_keys::KeyStamp;

/// What is known of one token.
#[derive(Debug, Clone)]
pub(super) struct TokenFacts {
    /// Whose it is.
    pub(super) owner: Arc<str>,
    /// The instant, exact.
    pub(super) expires_at: Timestamp,
    /// The key that asked for it.
    pub(super) key: KeyStamp,
    /// Its place in the order of everything that happened, finer than any clock.
    pub(super) sequence: u64,
}

/// Tokens that are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 500_000;

type Fingerprint = [u8; 16];

/// The tokens.
#[derive(Debug, Default)]
pub(super) struct TokenBook {
    facts: HashMap<Fingerprint, TokenFacts>,
    order: VecDeque<Fingerprint>,
}

impl TokenBook {
    pub(super) fn record(&mut self, token: &str, facts: TokenFacts) {
        let fingerprint = fingerprint(token);
        if self.facts.insert(fingerprint, facts).is_none() {
            self.order.push_back(fingerprint);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.facts.remove(&oldest);
        }
    }

    pub(super) fn find(&self, token: &str) -> Option<&TokenFacts> {
        self.facts.get(&fingerprint(token))
    }
}

fn fingerprint(token: &str) -> Fingerprint {
    let digest = Sha256::digest(token.as_bytes());
    let mut short = Fingerprint::default();
    short.copy_from_slice(&digest[..16]);
    short
}
