//! When each access key of a resource is proved, and what the proofs come to.
//!
//! | a key that is … | is proved |
//! |---|---|
//! | accepted, also by an ordinary call | a minute after it was last accepted |
//! | refused once | again 2 s later: only a second refusal counts |
//! | known to be refused | each minute, and its place is read again every 10 s |
//! | unknown, because nothing answers | every 10 s |

use std::{collections::BTreeMap, time::Duration};

use super::Steady;

/// Between two proofs of a key, where nothing says otherwise.
const EVERY: Duration = Duration::from_mins(1);
/// Between a refusal and the proof that confirms it.
const CONFIRM: Duration = Duration::from_secs(2);
/// After a proof that came to nothing.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two looks for the successor of a refused key.
const LOOK: Duration = Duration::from_secs(10);
/// A refused key that works is believed after a second proof as well: a service with several faces
/// tells them apart for a while.
const BELIEVE: u32 = 2;

/// What a proof said of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The service accepts it.
    Accepted,
    /// The service refuses it.
    Denied,
    /// The service did not say.
    Unknown,
}

/// What is now known that was not before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    None,
    /// It is refused: twice, some time apart.
    Refused,
    /// It was refused and is accepted again.
    Restored,
}

/// What is known of the keys of a resource.
#[derive(Debug, Clone, Default)]
pub struct KeyProbes {
    keys: BTreeMap<String, Watched>,
}

#[derive(Debug, Clone)]
struct Watched {
    refused: bool,
    /// Refused once: a second refusal from then on counts.
    suspected: Option<Steady>,
    /// Times in a row that a refused key was accepted.
    accepted: u32,
    prove_at: Steady,
    look_at: Steady,
    denials: u64,
}

impl KeyProbes {
    /// Watches over exactly these keys: fingerprint, whether it is known to be refused.
    pub fn watch<'a>(&mut self, keys: impl IntoIterator<Item = (&'a str, bool)>, now: Steady) {
        let mut before = std::mem::take(&mut self.keys);
        for (key, refused) in keys {
            let mut watched = before.remove(key).unwrap_or(Watched {
                refused,
                suspected: None,
                accepted: 0,
                prove_at: now,
                look_at: now,
                denials: 0,
            });
            watched.refused = refused;
            self.keys.insert(key.to_owned(), watched);
        }
    }

    /// Takes in what ordinary calls found: how often a key was refused, and when it was last accepted.
    pub fn heard(&mut self, key: &str, denials: u64, accepted_at: Option<Steady>, now: Steady) {
        let Some(watched) = self.keys.get_mut(key) else {
            return;
        };
        let denied = std::mem::replace(&mut watched.denials, denials) < denials;
        if watched.refused {
            return;
        }
        if denied && watched.suspected.is_none() {
            watched.suspected = Some(now + CONFIRM);
            watched.prove_at = now + CONFIRM;
        }
        if watched.suspected.is_none()
            && let Some(at) = accepted_at
        {
            watched.prove_at = watched.prove_at.max(at + EVERY);
        }
    }

    /// Whether it is time to prove this key.
    pub fn is_due(&self, key: &str, now: Steady) -> bool {
        self.keys
            .get(key)
            .is_some_and(|watched| watched.prove_at <= now)
    }

    /// Whether it is time to look for the successor of this refused key.
    pub fn looks(&mut self, key: &str, now: Steady) -> bool {
        match self.keys.get_mut(key) {
            Some(watched) if watched.refused && watched.look_at <= now => {
                watched.look_at = now + LOOK;
                true
            }
            _ => false,
        }
    }

    /// What a proof of this key came to.
    pub fn proved(&mut self, key: &str, word: Word, denials: u64, now: Steady) -> News {
        let Some(watched) = self.keys.get_mut(key) else {
            return News::None;
        };
        watched.denials = denials;
        match word {
            Word::Unknown => {
                watched.prove_at = now + AGAIN;
                News::None
            }
            Word::Accepted => watched.accepted(now),
            Word::Denied => watched.denied(now),
        }
    }

    /// When there is something to do at the latest.
    pub fn wakes_at(&self) -> Option<Steady> {
        let keys = self.keys.values();
        keys.map(|watched| match watched.refused {
            true => watched.prove_at.min(watched.look_at),
            false => watched.prove_at,
        })
        .min()
    }
}

impl Watched {
    fn accepted(&mut self, now: Steady) -> News {
        self.suspected = None;
        if !self.refused {
            self.prove_at = now + EVERY;
            return News::None;
        }
        self.accepted += 1;
        if self.accepted < BELIEVE {
            self.prove_at = now + CONFIRM;
            return News::None;
        }
        self.refused = false;
        self.accepted = 0;
        self.prove_at = now + EVERY;
        News::Restored
    }

    fn denied(&mut self, now: Steady) -> News {
        self.accepted = 0;
        if self.refused {
            self.prove_at = now + EVERY;
            return News::None;
        }
        match self.suspected {
            Some(from) if now >= from => {
                self.suspected = None;
                self.refused = true;
                self.prove_at = now + EVERY;
                self.look_at = now;
                News::Refused
            }
            _ => {
                let from = *self.suspected.get_or_insert(now + CONFIRM);
                self.prove_at = from;
                News::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const KEY: &str = "one";

    fn key_probes(now: Steady) -> KeyProbes {
        let mut key_probes = KeyProbes::default();
        key_probes.watch([(KEY, false)], now);
        key_probes
    }

    #[test]
    fn a_key_that_is_used_is_not_proved_and_an_idle_one_is() {
        let mut key_probes = key_probes(S);
        assert!(key_probes.is_due(KEY, S), "once at the start");
        assert_eq!(key_probes.proved(KEY, Word::Accepted, 0, S), News::None);
        assert_eq!(key_probes.wakes_at(), Some(S * 61));
        key_probes.heard(KEY, 0, Some(S * 30), S * 30);
        assert_eq!(key_probes.wakes_at(), Some(S * 90));
        assert!(!key_probes.is_due(KEY, S * 89) && key_probes.is_due(KEY, S * 90));
    }

    #[test]
    fn only_a_second_refusal_two_seconds_later_counts() {
        let mut key_probes = key_probes(S);
        key_probes.proved(KEY, Word::Accepted, 0, S);
        key_probes.heard(KEY, 3, Some(S), S * 20);
        assert!(!key_probes.is_due(KEY, S * 21) && key_probes.is_due(KEY, S * 22));
        assert_eq!(
            key_probes.proved(KEY, Word::Denied, 4, S * 22),
            News::Refused
        );
        assert_eq!(key_probes.proved(KEY, Word::Denied, 5, S * 90), News::None);
    }

    #[test]
    fn a_refusal_that_is_not_confirmed_is_forgotten() {
        let mut key_probes = key_probes(S);
        assert_eq!(key_probes.proved(KEY, Word::Denied, 1, S), News::None);
        assert_eq!(key_probes.proved(KEY, Word::Accepted, 1, S * 3), News::None);
        assert_eq!(key_probes.proved(KEY, Word::Denied, 2, S * 63), News::None);
        assert_eq!(key_probes.wakes_at(), Some(S * 65));
    }

    #[test]
    fn an_outage_decides_nothing() {
        let mut key_probes = key_probes(S);
        assert_eq!(key_probes.proved(KEY, Word::Denied, 1, S), News::None);
        assert_eq!(key_probes.proved(KEY, Word::Unknown, 1, S * 3), News::None);
        assert_eq!(key_probes.wakes_at(), Some(S * 13));
        assert_eq!(
            key_probes.proved(KEY, Word::Denied, 2, S * 13),
            News::Refused
        );
    }

    #[test]
    fn a_refused_key_is_proved_each_minute_and_looked_for_every_ten_seconds() {
        let mut key_probes = key_probes(S);
        key_probes.watch([(KEY, true)], S);
        assert_eq!(key_probes.proved(KEY, Word::Denied, 1, S), News::None);
        assert!(key_probes.looks(KEY, S) && !key_probes.looks(KEY, S * 10));
        assert_eq!(key_probes.wakes_at(), Some(S * 11));
        assert!(key_probes.looks(KEY, S * 11));
        assert!(!key_probes.is_due(KEY, S * 60) && key_probes.is_due(KEY, S * 61));
        assert_eq!(
            key_probes.proved(KEY, Word::Accepted, 1, S * 61),
            News::None
        );
        assert_eq!(
            key_probes.proved(KEY, Word::Accepted, 1, S * 63),
            News::Restored
        );
    }

    #[test]
    fn what_is_no_longer_configured_is_no_longer_watched() {
        let mut key_probes = key_probes(S);
        key_probes.watch([("two", false)], S * 2);
        assert_eq!(key_probes.proved(KEY, Word::Denied, 1, S * 2), News::None);
        assert!(key_probes.is_due("two", S * 2) && !key_probes.is_due(KEY, S * 2));
    }
}
