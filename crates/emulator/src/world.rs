//! What exists at the resource: keys, identities, tokens, and the order in which all came to be.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use renewd_acs_wire::Secret;

use super::{
    access_keys::{AccessKeys, Key, KeyStamp, Slot, draw},
    call::{self, RequestLog},
    faults::{Faults, Limiter},
    mint::{Claims, TokenBook, TokenFacts},
    options::{EmulatorOptions, UnlikeAKey},
};

/// The state behind the lock.
#[derive(Debug)]
pub(super) struct World {
    pub(super) resource_id: Arc<str>,
    pub(super) keys: Arc<AccessKeys>,
    pub(super) tokens: TokenBook,
    pub(super) faults: Faults,
    pub(super) limiter: Limiter,
    pub(super) request_log: RequestLog,
    /// How far this place's clock is from the one it was given.
    pub(super) offset: SignedDuration,
    identities: BTreeMap<Arc<str>, Identity>,
    /// Counts everything that happens to tokens: finer than any clock.
    sequence: u64,
    /// The leading number of the next user id; it grows slowly, as the service's does.
    serial: u32,
    adopt: bool,
    rng: ChaCha8Rng,
}

/// An identity of this resource.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub(super) created_at: Option<Timestamp>,
    pub(super) deleted: bool,
    /// Tokens with a smaller number are revoked.
    revoked_before: u64,
    /// Tokens of earlier seconds that another emulator made are revoked.
    revoked_at: Option<Timestamp>,
    pub(super) tokens_issued: u64,
    /// The second of the last issue, and how many tokens it had.
    last_issue: (i64, u64),
}

/// Where an id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Exists,
    Deleted,
    Unknown,
    /// Of another resource.
    Foreign,
}

/// A token that was granted and is still to be signed.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) claims: Claims,
    pub(super) facts: TokenFacts,
    /// What a filler is made of.
    pub(super) nonce: [u8; 32],
}

impl World {
    pub(super) fn new(options: &EmulatorOptions) -> Result<Self, UnlikeAKey> {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let drawn = (draw(&mut rng), draw(&mut rng));
        let keys = AccessKeys::new(
            key(
                Slot::Primary,
                options.primary_key.clone().unwrap_or(drawn.0),
            )?,
            key(
                Slot::Secondary,
                options.secondary_key.clone().unwrap_or(drawn.1),
            )?,
        );
        let drawn = guid(&mut rng, None);
        let resource_id = options.resource_id.clone().unwrap_or(drawn);
        Ok(Self {
            resource_id: resource_id.to_lowercase().into(),
            keys: Arc::new(keys),
            tokens: TokenBook::default(),
            faults: Faults::new(rng.random()),
            limiter: Limiter::new(options.limits.clone()),
            request_log: RequestLog::default(),
            offset: SignedDuration::ZERO,
            identities: BTreeMap::new(),
            sequence: 0,
            serial: 7,
            adopt: options.adopt,
            rng,
        })
    }

    /// What every id of this resource begins with.
    pub(super) fn prefix(&self) -> String {
        format!("8:acs:{}_", self.resource_id)
    }

    /// Random bytes for headers and fillers.
    pub(super) fn nonce(&mut self) -> [u8; 32] {
        self.rng.random()
    }

    pub(super) fn regenerate(&mut self, slot: Slot) {
        Arc::make_mut(&mut self.keys).regenerate(slot, &mut self.rng);
    }

    pub(super) fn create(&mut self, now: Timestamp) -> Arc<str> {
        let user = guid(&mut self.rng, Some(self.serial));
        self.serial = self.serial.wrapping_add(1);
        let id: Arc<str> = format!("{}{user}", self.prefix()).into();
        let identity = Identity {
            created_at: Some(now),
            ..Identity::default()
        };
        self.identities.insert(Arc::clone(&id), identity);
        id
    }

    /// Where an id stands; one that is adopted exists from now on.
    pub(super) fn standing(&mut self, id: &str) -> Standing {
        if !id.starts_with(&self.prefix()) {
            return Standing::Foreign;
        }
        match self.identities.get(id) {
            Some(identity) if identity.deleted => Standing::Deleted,
            Some(_) => Standing::Exists,
            None if self.adopt => {
                self.identities.insert(id.into(), Identity::default());
                Standing::Exists
            }
            None => Standing::Unknown,
        }
    }

    /// Every identity in the order of its id, which is that of creation.
    pub(super) fn identities(&self) -> impl Iterator<Item = (&Arc<str>, &Identity)> {
        self.identities.iter()
    }

    pub(super) fn revoke(&mut self, id: &str, now: Timestamp) {
        self.sequence += 1;
        if let Some(identity) = self.identities.get_mut(id) {
            identity.revoked_before = self.sequence;
            identity.revoked_at = Some(now);
        }
    }

    pub(super) fn delete(&mut self, id: &str, now: Timestamp) {
        self.revoke(id, now);
        if let Some(identity) = self.identities.get_mut(id) {
            identity.deleted = true;
        }
    }

    /// Grants a token for an identity, or for a Teams user, who is none of ours.
    pub(super) fn grant(
        &mut self,
        owner: &str,
        scopes: &[String],
        key: KeyStamp,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Grant {
        self.sequence += 1;
        let iat = now.as_second();
        let mut again = None;
        if let Some(identity) = self.identities.get_mut(owner) {
            identity.tokens_issued += 1;
            let (second, count) = identity.last_issue;
            again = (second == iat).then_some(self.sequence);
            let before = if second == iat { count } else { 0 };
            identity.last_issue = (iat, before + 1);
        }
        let exp = call::seconds_up(expires_at);
        Grant {
            claims: Claims::new(owner, &self.resource_id, scopes, iat, exp).numbered(again),
            facts: TokenFacts {
                owner: owner.into(),
                expires_at,
                key,
                sequence: self.sequence,
            },
            nonce: self.nonce(),
        }
    }

    /// Why a known token is dead; `None` if it lives.
    pub(super) fn death(&self, facts: &TokenFacts, now: Timestamp) -> Option<&'static str> {
        let identity = self.identities.get(&facts.owner);
        if identity.is_some_and(|i| i.deleted) {
            Some("its identity was deleted")
        } else if identity.is_some_and(|i| facts.sequence < i.revoked_before) {
            Some("revoked")
        } else if !self.keys.holds(facts.key) {
            Some("the key that it was issued with was regenerated")
        } else if facts.expires_at <= now {
            Some("expired")
        } else {
            None
        }
    }

    /// Why a token of another emulator, which this one stands in for, is dead; `None` if it lives.
    pub(super) fn death_of_adopted(&self, claims: &Claims, now: Timestamp) -> Option<&'static str> {
        let identity = self
            .identities
            .get(format!("8:{}", claims.skypeid).as_str());
        if !self.adopt || *claims.resource_id != *self.resource_id {
            Some("unknown")
        } else if identity.is_some_and(|i| i.deleted) {
            Some("its identity was deleted")
        } else if identity
            .and_then(|i| i.revoked_at)
            .is_some_and(|at| claims.iat <= at.as_second())
        {
            Some("revoked")
        } else if claims.exp <= now.as_second() {
            Some("expired")
        } else {
            None
        }
    }
}

/// The instant at which a token ends.
pub(super) fn expiry(now: Timestamp, asked: Duration, ttl: Option<Duration>) -> Timestamp {
    call::after(now, ttl.unwrap_or(asked))
}

fn key(slot: Slot, text: Secret) -> Result<Key, UnlikeAKey> {
    let stamp = KeyStamp {
        slot,
        generation: 0,
    };
    Key::new(stamp, text).ok_or(UnlikeAKey(slot.as_str()))
}

/// A lower-case GUID, its first part given or random.
fn guid(rng: &mut ChaCha8Rng, first: Option<u32>) -> String {
    let random: u128 = rng.random();
    let hex = format!("{random:032x}");
    let first = first.map_or_else(|| hex[..8].to_owned(), |n| format!("{n:08x}"));
    format!(
        "{first}-{}-{}-{}-{}",
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn world() -> World {
        World::new(&EmulatorOptions::default()).unwrap()
    }

    fn grant(world: &mut World, id: &str, slot: Slot) -> Grant {
        let key = world.keys.get(slot).stamp;
        world.grant(id, &["chat".to_owned()], key, at(0), at(60))
    }

    #[test]
    fn ids_look_like_the_services_and_grow() {
        let mut world = world();
        let (first, second) = (world.create(at(0)), world.create(at(0)));
        assert_eq!(first.len(), 79);
        assert!(first < second);
        assert_eq!(first.to_lowercase(), *first);
        assert_eq!(world.standing(&first), Standing::Exists);
        assert_eq!(world.standing("8:acs:other_x"), Standing::Foreign);
    }

    #[test]
    fn what_is_issued_again_in_the_second_of_a_revocation_lives() {
        let mut world = world();
        let id = world.create(at(0));
        let old = grant(&mut world, &id, Slot::Primary);
        world.revoke(&id, at(0));
        let new = grant(&mut world, &id, Slot::Primary);
        assert_eq!(world.death(&old.facts, at(0)), Some("revoked"));
        assert_eq!(world.death(&new.facts, at(0)), None);
        assert_ne!(old.claims, new.claims, "or both would be the same text");
    }

    #[test]
    fn a_token_dies_with_its_key_its_identity_and_its_time() {
        let mut world = world();
        let id = world.create(at(0));
        let first = grant(&mut world, &id, Slot::Primary);
        let second = grant(&mut world, &id, Slot::Secondary);
        world.regenerate(Slot::Primary);
        assert_eq!(
            world.death(&first.facts, at(0)),
            Some("the key that it was issued with was regenerated")
        );
        assert_eq!(world.death(&second.facts, at(0)), None);
        assert_eq!(world.death(&second.facts, at(60)), Some("expired"));
        world.delete(&id, at(1));
        assert_eq!(
            world.death(&second.facts, at(1)),
            Some("its identity was deleted")
        );
        assert_eq!(world.standing(&id), Standing::Deleted);
    }

    #[test]
    fn another_emulators_identities_and_tokens_are_adopted_only_when_asked() {
        let id = format!("8:acs:{}_u", world().resource_id);
        let scopes = ["chat".to_owned()];
        for (adopt, standing, death) in [
            (false, Standing::Unknown, Some("unknown")),
            (true, Standing::Exists, None),
        ] {
            let options = EmulatorOptions {
                adopt,
                ..EmulatorOptions::default()
            };
            let mut world = World::new(&options).unwrap();
            assert_eq!(world.standing(&id), standing);
            let now = at(0).as_second();
            let claims = Claims::new(&id, &world.resource_id, &scopes, now, now + 60);
            assert_eq!(world.death_of_adopted(&claims, at(1)), death);
        }
    }
}
