//! How the emulator is set up, and what exists at its resource: keys, identities, tokens, and the order in which all came to be.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use renewd_acs_wire::Secret;

use super::{
    access_keys::{AccessKeys, Key, KeyStamp, Slot, draw},
    call::{self, RequestLog},
    entra::{Entra, EntraOptions},
    faults::{Faults, Limiter, Limits},
    mint::{Claims, KeyError, TokenAlg, TokenBook, TokenFacts},
};

/// How an emulator is set up; the default is as near to the service as can be.
#[derive(Debug, Clone)]
pub struct EmulatorOptions {
    /// Everything random that is not a signature follows from it: keys, ids, faults.
    pub seed: u64,
    /// The resource's immutable id, a lower-case GUID; made from the seed if left out.
    pub resource_id: Option<String>,
    /// The primary access key, base64; made from the seed if left out.
    pub primary_key: Option<Secret>,
    /// The secondary access key, likewise.
    pub secondary_key: Option<Secret>,
    /// Every token lives this long, whatever is asked for.
    pub token_ttl: Option<Duration>,
    /// How tokens are signed.
    pub token_alg: TokenAlg,
    /// How many calls are let through.
    pub limits: Limits,
    /// How far a request's date may be off, each way.
    pub date_margin: Duration,
    /// What an identity that does not exist answers with.
    pub deleted_status: DeletedStatus,
    /// Takes unknown ids of its own resource for existing ones, and tokens of another emulator with
    /// the same resource id for its own: as if it had kept its state over a restart.
    pub adopt: bool,
    /// What the control API asks for; open if left out.
    pub control_secret: Option<Secret>,
    /// The tenant and the machine that bearers come from.
    pub entra: EntraOptions,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            resource_id: None,
            primary_key: None,
            secondary_key: None,
            token_ttl: None,
            token_alg: TokenAlg::default(),
            limits: Limits::default(),
            date_margin: Duration::from_secs(300),
            deleted_status: DeletedStatus::default(),
            adopt: false,
            control_secret: None,
            entra: EntraOptions::default(),
        }
    }
}

/// The status for an identity that does not exist. The service's is not established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedStatus(u16);

impl Default for DeletedStatus {
    fn default() -> Self {
        Self(404)
    }
}

impl DeletedStatus {
    pub(super) fn code(self) -> StatusCode {
        StatusCode::from_u16(self.0).unwrap_or(StatusCode::NOT_FOUND)
    }
}

impl std::str::FromStr for DeletedStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(status @ 400..=499) => Ok(Self(status)),
            _ => Err(format!("{text:?} is not a status from 400 to 499")),
        }
    }
}

/// An access key that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} access key is not standard base64 of at least one byte")]
pub struct UnlikeAKey(pub(super) &'static str);

/// Why an emulator cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// An access key that was given is none.
    #[error(transparent)]
    AccessKey(#[from] UnlikeAKey),
    /// The built-in key for tokens cannot be used.
    #[error(transparent)]
    TokenKey(#[from] KeyError),
}

impl EmulatorOptions {
    /// Takes the keys from the text of a key file: the primary on the first line, the secondary on
    /// the second if there is one; both base64.
    ///
    /// # Errors
    /// When a line is not a key; the text is never quoted.
    pub fn with_key_file(mut self, text: &str) -> Result<Self, UnlikeAKey> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut key = |name| match lines.next() {
            None => Ok(None),
            Some(line) => match BASE64_STANDARD.decode(line) {
                Ok(bytes) if !bytes.is_empty() => Ok(Some(Secret::new(line.to_owned()))),
                _ => Err(UnlikeAKey(name)),
            },
        };
        let primary = key("primary")?.ok_or(UnlikeAKey("primary"))?;
        let secondary = key("secondary")?;
        self.primary_key = Some(primary);
        self.secondary_key = secondary;
        Ok(self)
    }
}

/// The state behind the lock.
#[derive(Debug)]
pub(super) struct World {
    pub(super) resource_id: Arc<str>,
    pub(super) keys: Arc<AccessKeys>,
    pub(super) tokens: TokenBook,
    pub(super) faults: Faults,
    pub(super) limiter: Limiter,
    pub(super) request_log: RequestLog,
    pub(super) entra: Entra,
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
    pub(super) fn new(options: &EmulatorOptions) -> Result<Self, EmulatorError> {
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
            entra: Entra::new(options.entra.clone(), options.seed)?,
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
        key: Option<KeyStamp>,
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
        } else if facts.key.is_some_and(|key| !self.keys.holds(key)) {
            // Whether it is so for a token that a bearer asked for is not established; here it is not.
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
        let key = Some(world.keys.get(slot).stamp);
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
