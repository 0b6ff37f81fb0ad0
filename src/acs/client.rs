//! The client of one resource: signs, sends, and makes sense of what comes back. Its two access keys can be
//! proved one by one with a harmless call, preferred, and replaced by a successor; where it has none, its calls carry
//! a bearer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{
    AccessKey, Created, Error, ErrorCause, Issued, ResourceUrl, SetupError,
    answer::{self, Challenge, Expected, Heard},
    client_clock::{self, Diagnosis, Skew},
    credential::{self, Credential, KeySigner, Signer},
    error,
    request::{AcsCall, Signing},
};
use crate::{
    acs::{Proof, keys},
    clock::{Clock, Lease},
    config::ResourceSettings,
    entra::{BearerNews, Bearers},
    model::{
        BearerView, DoubtedKeys, IdentityId, KeyRole, KeyStanding, KeyStatus, Operation,
        ResourceName, Scope, Secret,
    },
    transport::{Outgoing, Transport, TransportError, USER_AGENT},
};

/// Larger answers are refused; the service's are about 1 KiB.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Speaks to one ACS resource. Share it in an `Arc`; calls may be made at the same time.
#[derive(Debug)]
pub struct Client {
    resource: ResourceName,
    /// Whom failures name: the host, and the proxy that leads there.
    peer: String,
    endpoint: ResourceUrl,
    /// The query of every request.
    query: String,
    clock: Clock,
    transport: Transport,
    credential: Credential,
    /// Keys whose tokens may be dead, whether they are still in use or not.
    doubted: Mutex<DoubtedKeys>,
    /// Rises with each refusal of a key.
    denials: watch::Sender<u64>,
    skew: Mutex<Skew>,
    /// Until when calls may start.
    lease: Mutex<Lease>,
    request_ids: Mutex<ChaCha8Rng>,
}

/// A call that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct AcsAnswer<T> {
    /// What was asked for.
    pub value: T,
    /// The service's request id, to quote to support.
    pub request_id: Option<String>,
    /// The fingerprint of the key that signed, and so minted a token that came, or what stands for a bearer.
    pub key: String,
    /// When the call began, by our clock.
    pub began: Timestamp,
    /// Whether this call found that one key is refused and the other works.
    pub switched_key: bool,
    /// How many requests were sent: more than one after a re-signed date, a second key or another bearer.
    pub requests: u32,
}

impl Client {
    /// A client of one resource.
    ///
    /// # Errors
    /// When the settings are such that no call could be made.
    pub fn new(
        settings: &ResourceSettings,
        clock: Clock,
        transport: Transport,
    ) -> Result<Self, SetupError> {
        let (endpoint, credential) = error::settle(settings, &clock, &transport)?;
        Ok(Self {
            resource: settings.name.clone(),
            peer: match &settings.proxy {
                Some(proxy) => format!("{} by way of {proxy}", endpoint.authority()),
                None => endpoint.authority().to_owned(),
            },
            endpoint,
            query: format!("api-version={}", settings.api_version),
            credential,
            doubted: Mutex::default(),
            denials: watch::Sender::default(),
            skew: Mutex::default(),
            lease: Mutex::new(Lease::unlimited()),
            request_ids: Mutex::new(source_of_ids(&settings.name, &clock)),
            clock,
            transport,
        })
    }

    /// From now on calls are made under this lease alone.
    pub fn heed(&self, lease: Lease) {
        *lock(&self.lease) = lease;
    }

    /// Whether a call may start now.
    pub fn may_call(&self) -> bool {
        lock(&self.lease).holds(self.clock.steady())
    }

    /// Whom its requests go to: the host, and the proxy that leads there.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whether its host answers at all, whatever it says to a request that asks for nothing.
    pub async fn is_reached(&self, deadline: Duration) -> bool {
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::USER_AGENT, USER_AGENT.clone());
        let probe = Outgoing {
            method: http::Method::OPTIONS,
            url: self.endpoint.url("/", ""),
            headers,
            body: bytes::Bytes::new(),
        };
        let answer = self.transport.send(probe, LARGEST_ANSWER, deadline).await;
        matches!(answer, Ok(_) | Err(TransportError::TooLarge(_)))
    }

    /// Goes on where the client of the same resource ended that this one replaces.
    pub fn take_over(&self, before: &Self) {
        if let (Some(ours), Some(before)) = (self.credential.bearers(), before.credential.bearers())
        {
            ours.take_over(before);
        }
    }

    /// Creates an identity, with its first token where scopes and a lifetime are given. Not
    /// idempotent: a failure with `maybe_done` may have left an identity behind.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn create(
        &self,
        token: Option<(&[Scope], Duration)>,
        deadline: Duration,
    ) -> Result<AcsAnswer<Created>, Error> {
        let wanted = Expected {
            status: StatusCode::CREATED,
            read: match token {
                Some(_) => answer::created_with_token,
                None => answer::created,
            },
        };
        self.call(&AcsCall::create(token), &wanted, deadline).await
    }

    /// Issues a token for an identity; `lifetime` counts in whole minutes, 60 to 1440.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn issue(
        &self,
        id: &IdentityId,
        scopes: &[Scope],
        lifetime: Duration,
        deadline: Duration,
    ) -> Result<AcsAnswer<Issued>, Error> {
        self.call(&AcsCall::issue(id, scopes, lifetime), &TOKEN, deadline)
            .await
    }

    /// Revokes all tokens of an identity; ACS may take 15 minutes to propagate that.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn revoke(
        &self,
        id: &IdentityId,
        deadline: Duration,
    ) -> Result<AcsAnswer<()>, Error> {
        self.call(&AcsCall::revoke(id), &NO_CONTENT, deadline).await
    }

    /// Deletes an identity for ever.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn delete(
        &self,
        id: &IdentityId,
        deadline: Duration,
    ) -> Result<AcsAnswer<()>, Error> {
        self.call(&AcsCall::delete(id), &NO_CONTENT, deadline).await
    }

    /// Exchanges a Teams user's Entra token for an ACS token of that user.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn exchange(
        &self,
        token: &Secret,
        app_id: &str,
        user_id: &str,
        deadline: Duration,
    ) -> Result<AcsAnswer<Issued>, Error> {
        self.call(&AcsCall::exchange(token, app_id, user_id), &TOKEN, deadline)
            .await
    }

    /// How far the resource's clock is ahead of ours; zero until an answer told.
    pub fn skew(&self) -> SignedDuration {
        self.measured_skew().unwrap_or(SignedDuration::ZERO)
    }

    /// When the certificate of the endpoint ends, as it was shown last.
    pub fn peer_ends(&self) -> Option<Timestamp> {
        self.transport.peer_ends()
    }

    /// As [`Client::skew`], but `None` until an answer told.
    pub fn measured_skew(&self) -> Option<SignedDuration> {
        lock(&self.skew).at(self.clock.now(), self.clock.steady())
    }

    /// Which key signs, and what the service last said of each; none, where bearers do.
    pub fn key_status(&self) -> KeyStatus {
        let keys = self.credential.keys();
        keys.map_or_else(KeyStatus::default, |keys| keys.status())
    }

    /// Keys whose tokens may be dead.
    pub fn doubted_keys(&self) -> DoubtedKeys {
        lock(&self.doubted).clone()
    }

    /// Makes the call; once more for a wrong clock, once more for a refused key or bearer.
    async fn call<T>(
        &self,
        call: &AcsCall<'_>,
        wanted: &Expected<T>,
        deadline: Duration,
    ) -> Result<AcsAnswer<T>, Error> {
        let course = self.course(deadline);
        self.follow(call, wanted, course).await
    }

    /// Makes the call on this course.
    async fn follow<T>(
        &self,
        call: &AcsCall<'_>,
        wanted: &Expected<T>,
        mut course: Course,
    ) -> Result<AcsAnswer<T>, Error> {
        let began = self.clock.now();
        loop {
            let heard = self.request(call, wanted, &mut course).await;
            course.requests += u32::from(heard.was_sent());
            let switched_key = self.learn(&heard, &course);
            let challenge = heard.challenge.as_ref();
            match heard.result {
                Ok(value) => {
                    return Ok(AcsAnswer {
                        value,
                        request_id: heard.request_id,
                        key: course.signer.minter(),
                        began,
                        switched_key,
                        requests: course.requests,
                    });
                }
                Err(cause) if self.correct(&mut course, &cause, heard.date) => {}
                Err(cause) if course.replace_bearer(&cause, challenge).await => {}
                Err(cause) => {
                    let error = Error {
                        blames_credential: self.blames(&cause, challenge, heard.date, &course),
                        bearer: matches!(course.signer, Signer::Bearer(_)),
                        operation: call.operation,
                        peer: self.peer.clone(),
                        identity: call.identity.cloned(),
                        cause,
                        request_id: heard.request_id,
                        requests: course.requests,
                        apart: self.too_far(heard.date),
                    };
                    self.note_refusal(&error, challenge);
                    return Err(error);
                }
            }
        }
    }

    /// How far a date is from ours, where that is too far to be believed.
    fn too_far(&self, date: Option<Timestamp>) -> Option<SignedDuration> {
        let apart = date?.duration_since(self.clock.now());
        (!client_clock::is_believed(apart)).then_some(apart)
    }

    fn course(&self, deadline: Duration) -> Course {
        Course {
            signer: self.credential.signer(),
            ahead: self.skew(),
            date_tried: false,
            ends: self.clock.steady().saturating_add(deadline),
            requests: 0,
        }
    }

    /// Sends one request and reads the answer.
    async fn request<T>(
        &self,
        call: &AcsCall<'_>,
        wanted: &Expected<T>,
        course: &mut Course,
    ) -> Heard<T> {
        let ours = uuid::Builder::from_random_bytes(lock(&self.request_ids).random())
            .into_uuid()
            .to_string();
        let authorized = course.signer.authorization(course.ends).await;
        let now = self.clock.now();
        let signed = authorized.and_then(|authorization| {
            let signed = call.sign(&Signing {
                endpoint: &self.endpoint,
                query: &self.query,
                authorization: &authorization,
                at: now.checked_add(course.ahead).unwrap_or(now),
                request_id: &ours,
            });
            signed.map_err(|error| ErrorCause::Unsent(error.to_string()))
        });
        let left = course.ends.saturating_sub(self.clock.steady());
        let mut heard = match signed {
            Err(cause) => Heard::nothing(cause),
            // Looked at last: from here on nothing but the sending lies before the call.
            Ok(_) if !self.may_call() => Heard::nothing(ErrorCause::NoAnswer(
                TransportError::Connect("this node does not lead any more".to_owned()),
            )),
            Ok(request) => match self.transport.send(request, LARGEST_ANSWER, left).await {
                Ok(reply) => answer::read(reply, call.operation, wanted, self.clock.now()),
                Err(error) => Heard::nothing(ErrorCause::NoAnswer(error)),
            },
        };
        heard.request_id.get_or_insert(ours);
        tracing::debug!(
            resource = %self.resource,
            operation = %call.operation,
            request_id = heard.request_id,
            outcome = heard.outcome(),
            "asked ACS"
        );
        heard
    }

    /// Takes from an authenticated answer what it tells of clocks and keys; whether the client
    /// changed over to the other key because of it.
    fn learn<T>(&self, heard: &Heard<T>, course: &Course) -> bool {
        if !heard.is_authenticated() {
            return false;
        }
        if let Some(date) = heard
            .date
            .filter(|date| self.too_far(Some(*date)).is_none())
        {
            lock(&self.skew).note(date, self.clock.steady());
            self.clock.confirm(date);
        }
        match (&course.signer, self.credential.keys()) {
            (Signer::Key(signer), Some(mut keys)) => {
                let (fingerprint, now) = (signer.key.fingerprint(), self.clock.steady());
                keys.note(fingerprint, KeyStanding::Accepted, now);
                signer.other_tried && heard.result.is_ok() && keys.switch_to(signer.role)
            }
            (Signer::Bearer(signer), _) => {
                signer.taken();
                false
            }
            (Signer::Key(_), None) => false,
        }
    }

    /// Whether a call failed because of what it was made with.
    fn blames(
        &self,
        cause: &ErrorCause,
        challenge: Option<&Challenge>,
        date: Option<Timestamp>,
        course: &Course,
    ) -> bool {
        match &course.signer {
            Signer::Key(_) => {
                let now = self.clock.now();
                client_clock::diagnose(cause, date, now, course.ahead) == Diagnosis::Key
            }
            Signer::Bearer(_) => {
                credential::refusal(cause, challenge) == Some(credential::BearerRefusal::Bearer)
            }
        }
    }

    /// That a bearer was refused is told of the bearers, too.
    fn note_refusal(&self, error: &Error, challenge: Option<&Challenge>) {
        let refused = credential::refusal(&error.cause, challenge).is_some();
        if let Some(bearers) = self.credential.bearers().filter(|_| refused) {
            bearers.refused(credential::trouble(challenge), &error.reason());
        }
    }

    /// Corrects the course after a refusal; whether one more try is worth it.
    fn correct(&self, course: &mut Course, cause: &ErrorCause, date: Option<Timestamp>) -> bool {
        let (Signer::Key(signer), Some(mut keys)) = (&mut course.signer, self.credential.keys())
        else {
            return false;
        };
        let now = self.clock.now();
        let in_time = self.clock.steady() < course.ends;
        match client_clock::diagnose(cause, date, now, course.ahead) {
            Diagnosis::Neither => false,
            Diagnosis::Clock(ahead) => {
                course.ahead = ahead;
                !std::mem::replace(&mut course.date_tried, true) && in_time
            }
            Diagnosis::Key => {
                self.denials.send_modify(|count| *count += 1);
                let (fingerprint, now) = (signer.key.fingerprint(), self.clock.steady());
                keys.note(fingerprint, KeyStanding::Denied, now);
                let first = !std::mem::replace(&mut signer.other_tried, true);
                match keys.other(signer.role).filter(|_| first && in_time) {
                    Some(other) => {
                        (signer.role, signer.key) = other;
                        true
                    }
                    None => false,
                }
            }
        }
    }
}

/// How the requests of one call are signed, and how long they may take.
struct Course {
    signer: Signer,
    /// What is added to our time for signing.
    ahead: SignedDuration,
    date_tried: bool,
    /// The end of the deadline, on the steady clock.
    ends: Duration,
    requests: u32,
}

impl Course {
    /// Another bearer after a refusal; whether one more try is worth it.
    async fn replace_bearer(&mut self, cause: &ErrorCause, challenge: Option<&Challenge>) -> bool {
        match &mut self.signer {
            Signer::Key(_) => false,
            Signer::Bearer(signer) => signer.replace(cause, challenge, self.ends).await,
        }
    }
}

const TOKEN: Expected<Issued> = Expected {
    status: StatusCode::OK,
    read: answer::issued,
};
const NO_CONTENT: Expected<()> = Expected {
    status: StatusCode::NO_CONTENT,
    read: answer::nothing,
};

/// Where request ids are drawn from. Under a simulated clock the same run draws the same ids.
fn source_of_ids(resource: &ResourceName, clock: &Clock) -> ChaCha8Rng {
    if !clock.is_simulated() {
        return rand::make_rng();
    }
    let seed = format!("{resource} {}", clock.now().as_nanosecond());
    ChaCha8Rng::from_seed(Sha256::digest(seed).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Proves one key with a signed call that makes nothing: asking for the token of nobody. The
    /// other key is never tried in its place. `None` where there is no such key.
    pub async fn prove(&self, role: KeyRole, deadline: Duration) -> Option<Proof> {
        let key = self.credential.keys()?.get(role)?;
        Some(self.prove_key(role, key, deadline).await)
    }

    /// Proves a key that is not in place yet, such as a successor.
    pub async fn prove_new(&self, role: KeyRole, key: &AccessKey, deadline: Duration) -> Proof {
        self.prove_key(role, Arc::new(key.clone()), deadline).await
    }

    /// Proves whatever calls are made with at the moment; `None` where there is nothing to make one with.
    pub async fn prove_in_use(&self, deadline: Duration) -> Option<Proof> {
        match self.credential.bearers() {
            None => self.prove(self.key_status().in_use, deadline).await,
            Some(_) => {
                let proved = self.harmless(self.course(deadline)).await;
                match &proved {
                    Err(error) if matches!(error.cause, ErrorCause::NoBearer(_)) => None,
                    _ => Some(keys::read(proved)),
                }
            }
        }
    }

    async fn prove_key(&self, role: KeyRole, key: Arc<AccessKey>, deadline: Duration) -> Proof {
        let signer = Signer::Key(KeySigner {
            role,
            key,
            other_tried: true,
        });
        let course = Course {
            signer,
            ..self.course(deadline)
        };
        keys::read(self.harmless(course).await)
    }

    /// Asks for the token of nobody.
    async fn harmless(&self, course: Course) -> Result<(), Error> {
        // Nobody's id can always be read.
        let Ok(nobody) = keys::NOBODY.parse() else {
            return Ok(());
        };
        let hour = Duration::from_hours(1);
        let call = AcsCall::issue(&nobody, &[Scope::Chat], hour);
        self.follow(&call, &TOKEN, course).await.map(|_| ())
    }

    /// Tries an operation out, `Revoke` or `Delete`, on an identity that nobody has: it changes nothing,
    /// and that there is no such identity is what the service should say. How many requests were sent.
    ///
    /// # Errors
    /// See [`Error`]; the call never takes longer than `deadline`.
    pub async fn try_out(&self, operation: Operation, deadline: Duration) -> Result<u32, Error> {
        let Ok(nobody) = keys::NOBODY.parse() else {
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
                ErrorCause::Rejected(rejection) if rejection.proves_key() => Ok(error.requests),
                _ => Err(error),
            },
        }
    }

    /// Signs with the other key wherever the one of this fingerprint would; `None` ends it. The
    /// avoided one is still tried where the other is refused.
    pub fn avoid_key(&self, fingerprint: Option<&str>) {
        if let Some(mut keys) = self.credential.keys() {
            keys.avoid(fingerprint);
        }
    }

    /// From now on the tokens of these keys may be dead, and of no others.
    pub fn doubt_keys(&self, keys: DoubtedKeys) {
        *lock(&self.doubted) = keys;
    }

    /// Takes a key's successor up; calls under way end with the key that they began with.
    pub fn take_up(&self, role: KeyRole, key: AccessKey) {
        if let Some(mut keys) = self.credential.keys() {
            keys.take_up(role, key);
        }
    }

    /// Signs with this key from now on: it works, and the other one is refused.
    pub fn rely_on(&self, role: KeyRole) {
        if let Some(mut keys) = self.credential.keys() {
            keys.switch_to(role);
        }
    }

    /// Changes with each refusal of a key.
    pub fn denials(&self) -> watch::Receiver<u64> {
        self.denials.subscribe()
    }

    /// How often the key of this fingerprint was refused, and when it was last accepted by the clock
    /// that never steps.
    pub fn key_record(&self, fingerprint: &str) -> (u64, Option<Duration>) {
        let keys = self.credential.keys();
        keys.map_or((0, None), |keys| keys.record_of(fingerprint))
    }

    /// How many calls are under way that the key of this fingerprint signed.
    pub fn in_flight_with(&self, fingerprint: &str) -> usize {
        let keys = self.credential.keys();
        keys.map_or(0, |keys| keys.in_flight(fingerprint))
    }

    /// What `minted_by` tokens come with now: the fingerprints of the keys, or what stands for a bearer.
    pub fn minters(&self) -> Vec<String> {
        match self.credential.bearers() {
            Some(bearers) => vec![bearers.minter()],
            None => {
                let keys = self.key_status().keys.into_iter();
                keys.map(|key| key.fingerprint).collect()
            }
        }
    }

    /// The bearers, where calls carry some.
    pub fn bearers(&self) -> Option<&Bearers> {
        self.credential.bearers()
    }

    /// What happens to the bearer from now on; nothing where there are access keys.
    pub fn bearer_news(&self) -> BearerNews {
        self.bearers()
            .map_or_else(BearerNews::default, Bearers::news)
    }

    /// What is known of the bearer; `None` where there are access keys.
    pub fn bearer_view(&self) -> Option<BearerView> {
        self.bearers().map(Bearers::view)
    }
}

#[cfg(test)]
mod bearer_tests;
#[cfg(test)]
mod tests;
