//! The other side of a simulation: a service that knows each identity's newest token and fails as it is told. The
//! emulator judges signatures and texts; here only times and counts matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};

use crate::{
    acs::{AccessKey, is_signed_with},
    clock::Clock,
    model::KeyRole,
    transport::{Transport, TransportError},
};

/// One call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// On the clock that never steps.
    pub at: Duration,
    /// `issue`, `create`, `revoke` or `delete`.
    pub operation: &'static str,
    pub id: String,
    /// What it asks for.
    pub body: String,
    /// The key that signed it, where the service knows keys.
    pub key: Option<KeyRole>,
}

/// What the service does instead of answering well.
#[derive(Debug, Clone)]
pub enum Manner {
    /// The name does not resolve, or nothing listens.
    Connect,
    /// The connection breaks; the request took effect.
    Reset,
    /// The answer never comes.
    Hang,
    /// This status, code and message.
    Status(u16, &'static str, &'static str),
    /// 429 with this Retry-After.
    Throttle(u64),
    /// 200 and something that is no JSON.
    Malformed,
    /// A token that ended an hour ago.
    Expired,
    /// All is well, but it takes so much longer.
    Slow(Duration),
    /// The code of the client panics.
    Panic,
}

/// What the service did to an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It has a new token, which ends then; the one before ended, or would have ended, at another time.
    Minted {
        /// The end of the token before, where there was one.
        before: Option<Timestamp>,
        /// The end of the new one.
        ends: Timestamp,
    },
    /// Its tokens are dead.
    Killed {
        /// The end of its token before that.
        before: Option<Timestamp>,
    },
}

/// How an id begins that nobody has: asking for its token makes nothing.
pub const NOBODY: &str = "8:acs:00000000-";

type Plan = Box<dyn FnMut(&Call) -> Option<Manner> + Send>;
type Watcher = Box<dyn FnMut(&str, Deed, Timestamp) + Send>;

#[derive(Clone)]
pub struct Provider(Arc<Mutex<Inner>>);

struct Inner {
    clock: Clock,
    /// The time when the clock's steady part was at zero; steps of the wall clock do not move it.
    epoch: Timestamp,
    ahead: SignedDuration,
    /// Instead of what was asked for.
    life: Option<Duration>,
    plan: Option<Plan>,
    watcher: Option<Watcher>,
    /// The keys by which signatures are looked at.
    keys: Vec<(KeyRole, AccessKey)>,
    /// Each answer takes so long.
    delay: Duration,
    /// Whether calls are remembered.
    remembers: bool,
    calls: Vec<Call>,
    made: u64,
    deleted: BTreeSet<String>,
    /// When each identity's newest token ends, and which key minted it.
    live: BTreeMap<String, (Timestamp, Option<KeyRole>)>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl Provider {
    /// A service that answers well and remembers each call.
    pub fn new(clock: &Clock) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            epoch: clock
                .now()
                .checked_sub(clock.steady())
                .unwrap_or(clock.now()),
            clock: clock.clone(),
            ahead: SignedDuration::ZERO,
            life: None,
            plan: None,
            watcher: None,
            keys: Vec::new(),
            delay: Duration::ZERO,
            remembers: true,
            calls: Vec::new(),
            made: 0,
            deleted: BTreeSet::new(),
            live: BTreeMap::new(),
        })))
    }

    /// From now on calls fail as `plan` says.
    pub fn fail(&self, plan: impl FnMut(&Call) -> Option<Manner> + Send + 'static) {
        self.inner().plan = Some(Box::new(plan));
    }

    /// From now on all is well.
    pub fn mend(&self) {
        self.inner().plan = None;
    }

    /// From now on calls are told to nobody but `watcher`, with what they did.
    pub fn watch(&self, watcher: impl FnMut(&str, Deed, Timestamp) + Send + 'static) {
        let mut inner = self.inner();
        inner.remembers = false;
        inner.watcher = Some(Box::new(watcher));
    }

    /// From now on it is known which of these keys signed a call, and minted a token.
    pub fn know_keys(&self, keys: Vec<(KeyRole, AccessKey)>) {
        self.inner().keys = keys;
    }

    /// Tokens live so long, whatever is asked for.
    pub fn tokens_live(&self, life: Duration) {
        self.inner().life = Some(life);
    }

    /// From now on each answer takes so long.
    pub fn delay(&self, delay: Duration) {
        self.inner().delay = delay;
    }

    /// The service's clock goes ahead of ours by so much.
    pub fn is_ahead(&self, by: SignedDuration) {
        self.inner().ahead = by;
    }

    /// Every call that is remembered.
    pub fn calls(&self) -> Vec<Call> {
        self.inner().calls.clone()
    }

    pub fn forget_calls(&self) {
        self.inner().calls.clear();
    }

    /// Identities without a token that the service would accept now.
    pub fn without_live_token(&self) -> usize {
        let inner = self.inner();
        let now = inner.now();
        inner.live.values().filter(|(end, _)| *end <= now).count()
    }

    /// Those identities, each with the end of its last token.
    pub fn dead(&self) -> Vec<(String, Timestamp)> {
        let inner = self.inner();
        let now = inner.now();
        let dead = inner.live.iter().filter(|(_, (end, _))| *end <= now);
        dead.map(|(id, (end, _))| (id.clone(), *end)).collect()
    }

    /// The tokens that a key minted are dead from now on.
    pub fn kill_minted(&self, by: KeyRole) {
        let mut inner = self.inner();
        let now = inner.now();
        let minted = inner.live.iter().filter(|(_, (_, key))| *key == Some(by));
        let minted: Vec<String> = minted.map(|(id, _)| id.clone()).collect();
        for id in minted {
            inner.kill(&id, now);
        }
    }

    /// What a client sends its requests to.
    pub fn transport(&self) -> Transport {
        let provider = self.clone();
        Transport::InProcess(Arc::new(move |request| {
            let provider = provider.clone();
            Box::pin(async move {
                let (call, fault, mut delay) = provider.arrived(&request);
                if let Some(Manner::Slow(by)) = &fault {
                    delay += *by;
                }
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                match fault {
                    Some(Manner::Connect) => Err(TransportError::Connect("refused".to_owned())),
                    Some(Manner::Hang) => std::future::pending().await,
                    Some(Manner::Panic) => panic!("on purpose"),
                    Some(Manner::Reset) => {
                        provider.answer(&call, &request, None);
                        Err(TransportError::Broken("reset".to_owned()))
                    }
                    fault => Ok(provider.answer(&call, &request, fault.as_ref())),
                }
            })
        }))
    }

    fn arrived(&self, request: &Request<Bytes>) -> (Call, Option<Manner>, Duration) {
        let mut inner = self.inner();
        let path = request.uri().path();
        let id = path
            .trim_start_matches("/identities")
            .trim_start_matches('/');
        let id = id.split('/').next().unwrap_or_default().replace("%3A", ":");
        let operation = match (request.method().as_str(), path) {
            ("DELETE", _) => "delete",
            (_, path) if path.ends_with(":revokeAccessTokens") => "revoke",
            (_, path) if path.ends_with(":issueAccessToken") => "issue",
            _ => "create",
        };
        let call = Call {
            at: inner.clock.steady(),
            operation,
            id,
            body: match inner.remembers {
                true => String::from_utf8_lossy(request.body()).into_owned(),
                false => String::new(),
            },
            key: inner.signed_by(request),
        };
        if inner.remembers {
            inner.calls.push(call.clone());
        }
        let fault = inner.plan.as_mut().and_then(|plan| plan(&call));
        let delay = inner.delay;
        (call, fault, delay)
    }

    fn answer(
        &self,
        call: &Call,
        request: &Request<Bytes>,
        fault: Option<&Manner>,
    ) -> Response<Bytes> {
        let mut inner = self.inner();
        let mut wait = None;
        let (status, body) = match fault {
            Some(Manner::Status(status, code, message)) => (*status, error(code, message)),
            Some(Manner::Throttle(secs)) => {
                wait = Some(*secs);
                (429, error("TooManyRequests", "Too many requests."))
            }
            Some(Manner::Malformed) => (200, "<html>".to_owned()),
            Some(Manner::Expired) => {
                let ended = inner.now() - SignedDuration::from_hours(1);
                (200, token(ended))
            }
            _ => inner.well(call, request),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        let date = httpdate::fmt_http_date(inner.now().into());
        let headers = response.headers_mut();
        headers.extend(HeaderValue::try_from(date).map(|date| (http::header::DATE, date)));
        headers.extend(wait.map(|wait| (http::header::RETRY_AFTER, HeaderValue::from(wait))));
        response
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.epoch + self.clock.steady() + self.ahead
    }

    fn well(&mut self, call: &Call, request: &Request<Bytes>) -> (u16, String) {
        if self.deleted.contains(&call.id) || call.id.starts_with(NOBODY) {
            let message = "Provided identity doesn't exist.";
            return (404, error("IdentityNotFound", message));
        }
        match call.operation {
            "delete" => {
                self.deleted.insert(call.id.clone());
                self.live.remove(&call.id);
                (204, String::new())
            }
            "revoke" => {
                let now = self.now();
                self.kill(&call.id, now);
                (204, String::new())
            }
            "create" => {
                self.made += 1;
                let id = format!("8:acs:resource_{:08}", self.made);
                let token = self.mint(&id, call.key, request);
                let body = format!(r#"{{"identity":{{"id":"{id}"}},"accessToken":{token}}}"#);
                (201, body)
            }
            _ => (200, self.mint(&call.id, call.key, request)),
        }
    }

    fn mint(&mut self, id: &str, key: Option<KeyRole>, request: &Request<Bytes>) -> String {
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let asked = body["expiresInMinutes"].as_u64().unwrap_or(1440);
        let life = self.life.unwrap_or(Duration::from_secs(asked * 60));
        let now = self.now();
        let ends = now + life;
        let before = match self.live.get_mut(id) {
            Some(held) => Some(std::mem::replace(held, (ends, key)).0),
            None => {
                self.live.insert(id.to_owned(), (ends, key));
                None
            }
        };
        self.tell(id, Deed::Minted { before, ends }, now);
        token(ends)
    }

    fn kill(&mut self, id: &str, now: Timestamp) {
        let held = self.live.insert(id.to_owned(), (now, None));
        let before = held.map(|(end, _)| end);
        self.tell(id, Deed::Killed { before }, now);
    }

    fn tell(&mut self, id: &str, deed: Deed, now: Timestamp) {
        if let Some(watcher) = &mut self.watcher {
            watcher(id, deed, now);
        }
    }

    fn signed_by(&self, request: &Request<Bytes>) -> Option<KeyRole> {
        let mut keys = self.keys.iter();
        let signed = keys.find(|(_, key)| is_signed_with(request, key));
        signed.map(|(role, _)| *role)
    }
}

fn token(ends: Timestamp) -> String {
    let ends = ends.to_string();
    let ends = ends.trim_end_matches('Z');
    format!(r#"{{"token":"filler.token.text","expiresOn":"{ends}+00:00"}}"#)
}

fn error(code: &str, message: &str) -> String {
    format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#)
}
