//! Keys one by one: proving one with a harmless call, preferring one, taking a successor up.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{Client, Course, TOKEN, lock};
use crate::{
    acs::{AccessKey, Cause, Error, Proof, proof, request::Call},
    model::{DoubtedKeys, KeyRole, Operation, Scope},
};

impl Client {
    /// Proves one key with a signed call that makes nothing: asking for the token of nobody. The
    /// other key is never tried in its place. `None` where there is no such key.
    pub async fn prove(&self, role: KeyRole, deadline: Duration) -> Option<Proof> {
        let key = lock(&self.keys).get(role)?;
        Some(self.proved(role, key, deadline).await)
    }

    /// Proves a key that is not in place yet, such as a successor.
    pub async fn prove_new(&self, role: KeyRole, key: &AccessKey, deadline: Duration) -> Proof {
        self.proved(role, Arc::new(key.clone()), deadline).await
    }

    async fn proved(&self, role: KeyRole, key: Arc<AccessKey>, deadline: Duration) -> Proof {
        let course = Course {
            role,
            key,
            other_key_tried: true,
            ..self.course(deadline)
        };
        let nobody = match proof::NOBODY.parse() {
            Ok(nobody) => nobody,
            Err(error) => return Proof::Unknown(format!("{error}")),
        };
        let hour = Duration::from_hours(1);
        let call = Call::issue(&nobody, &[Scope::Chat], hour);
        proof::read(self.follow(&call, &TOKEN, course).await.map(|_| ()))
    }

    /// Tries an operation out, `Revoke` or `Delete`, on an identity that nobody has: it changes nothing,
    /// and that there is no such identity is what the service should say. How many requests were sent.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn try_out(&self, operation: Operation, deadline: Duration) -> Result<u32, Error> {
        let Ok(nobody) = proof::NOBODY.parse() else {
            // It can always be read.
            return Ok(0);
        };
        let tried = match operation {
            Operation::Delete => self.delete(&nobody, deadline).await,
            _ => self.revoke(&nobody, deadline).await,
        };
        match tried {
            Ok(answer) => Ok(answer.requests),
            Err(error) => match &error.cause {
                Cause::Rejected(rejection) if rejection.proves_key() => Ok(error.requests),
                _ => Err(error),
            },
        }
    }

    /// Signs with the other key wherever the one of this fingerprint would; `None` ends it. The
    /// avoided one is still tried where the other is refused.
    pub fn avoid_key(&self, fingerprint: Option<&str>) {
        lock(&self.keys).avoid(fingerprint);
    }

    /// From now on the tokens of these keys may be dead, and of no others.
    pub fn doubt_keys(&self, keys: DoubtedKeys) {
        lock(&self.keys).doubt(keys);
    }

    /// Takes a key's successor up; calls under way end with the key that they began with.
    pub fn take_up(&self, role: KeyRole, key: AccessKey) {
        lock(&self.keys).take_up(role, key);
    }

    /// Signs with this key from now on: it works, and the other one is refused.
    pub fn rely_on(&self, role: KeyRole) {
        lock(&self.keys).switch_to(role);
    }

    /// Changes with each refusal of a key.
    pub fn denials(&self) -> watch::Receiver<u64> {
        self.denials.subscribe()
    }

    /// How often the key of this fingerprint was refused, and when it was last accepted by the clock
    /// that never steps.
    pub fn key_record(&self, fingerprint: &str) -> (u64, Option<Duration>) {
        lock(&self.keys).record_of(fingerprint)
    }

    /// How many calls are under way that the key of this fingerprint signed.
    pub fn in_flight_with(&self, fingerprint: &str) -> usize {
        lock(&self.keys).in_flight(fingerprint)
    }
}
