//! A stand-in for the service that remembers each call to the nanosecond and fails as it is told.
//! The emulator judges signatures and texts; here only times and counts matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use renewd::{
    clock::Clock,
    transport::{Transport, TransportError},
};

/// One call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// On the clock that never steps.
    pub(super) at: Duration,
    /// `issue`, `create`, `revoke` or `delete`.
    pub(super) operation: &'static str,
    /// On which identity.
    pub(super) id: String,
    /// What it asks for.
    pub(super) body: String,
}

/// What the service does instead of answering well.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The name does not resolve, or nothing listens.
    Connect,
    /// The connection breaks; the request took effect.
    Reset,
    /// No answer, ever.
    Hang,
    /// This status, code and message.
    Status(u16, &'static str, &'static str),
    /// 429 with this Retry-After.
    Throttle(u64),
    /// 200 and something that is no JSON.
    Malformed,
    /// A token that ended an hour ago.
    Expired,
    /// The code of the client panics.
    Panic,
}

/// How an id begins that nobody has: asking for its token makes nothing.
pub(super) const NOBODY: &str = "8:acs:00000000-";

type Plan = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// The other side.
#[derive(Clone)]
pub(super) struct Service(Arc<Mutex<Inner>>);

struct Inner {
    clock: Clock,
    /// The time when the clock's steady part was at zero; steps of the wall clock do not move it.
    epoch: Timestamp,
    ahead: SignedDuration,
    /// Instead of what was asked for.
    life: Option<Duration>,
    plan: Option<Plan>,
    /// Each answer takes so long.
    delay: Duration,
    calls: Vec<Call>,
    made: u64,
    deleted: BTreeSet<String>,
    /// When each identity's newest token ends.
    pub(super) live: BTreeMap<String, Timestamp>,
}

impl Service {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            clock: clock.clone(),
            epoch: clock.now() - clock.steady(),
            ahead: SignedDuration::ZERO,
            life: None,
            plan: None,
            delay: Duration::ZERO,
            calls: Vec::new(),
            made: 0,
            deleted: BTreeSet::new(),
            live: BTreeMap::new(),
        })))
    }

    /// From now on calls fail as `plan` says.
    pub(super) fn fail(&self, plan: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.0.lock().unwrap().plan = Some(Box::new(plan));
    }

    /// From now on all is well.
    pub(super) fn mend(&self) {
        self.0.lock().unwrap().plan = None;
    }

    /// Tokens live so long, whatever is asked for.
    pub(super) fn tokens_live(&self, life: Duration) {
        self.0.lock().unwrap().life = Some(life);
    }

    /// From now on each answer takes so long.
    pub(super) fn delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    /// The service's clock goes ahead of ours by so much.
    pub(super) fn is_ahead(&self, by: SignedDuration) {
        self.0.lock().unwrap().ahead = by;
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    pub(super) fn forget_calls(&self) {
        self.0.lock().unwrap().calls.clear();
    }

    /// Identities without a token that the service would accept now.
    pub(super) fn without_live_token(&self) -> usize {
        let inner = self.0.lock().unwrap();
        let now = inner.now();
        inner.live.values().filter(|end| **end <= now).count()
    }

    pub(super) fn transport(&self) -> Transport {
        let service = self.clone();
        Transport::InProcess(Arc::new(move |request| {
            let service = service.clone();
            Box::pin(async move {
                let (call, fault) = service.arrived(&request);
                let delay = service.0.lock().unwrap().delay;
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                match fault {
                    Some(Fault::Connect) => Err(TransportError::Connect("refused".to_owned())),
                    Some(Fault::Hang) => std::future::pending().await,
                    Some(Fault::Panic) => panic!("on purpose"),
                    Some(Fault::Reset) => {
                        service.answer(&call, &request, None);
                        Err(TransportError::Broken("reset".to_owned()))
                    }
                    fault => Ok(service.answer(&call, &request, fault.as_ref())),
                }
            })
        }))
    }

    fn arrived(&self, request: &Request<Bytes>) -> (Call, Option<Fault>) {
        let mut inner = self.0.lock().unwrap();
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
            body: String::from_utf8_lossy(request.body()).into_owned(),
        };
        inner.calls.push(call.clone());
        let fault = inner.plan.as_mut().and_then(|plan| plan(&call));
        (call, fault)
    }

    fn answer(
        &self,
        call: &Call,
        request: &Request<Bytes>,
        fault: Option<&Fault>,
    ) -> Response<Bytes> {
        let mut inner = self.0.lock().unwrap();
        let mut builder = Response::builder();
        let (status, body) = match fault {
            Some(Fault::Status(status, code, message)) => (*status, error(code, message)),
            Some(Fault::Throttle(secs)) => {
                builder = builder.header("retry-after", *secs);
                (429, error("TooManyRequests", "Too many requests."))
            }
            Some(Fault::Malformed) => (200, "<html>".to_owned()),
            Some(Fault::Expired) => {
                let ended = inner.now() - SignedDuration::from_hours(1);
                (200, token(ended))
            }
            _ => inner.well(call, request),
        };
        let date = httpdate::fmt_http_date(inner.now().into());
        builder
            .status(status)
            .header("date", date)
            .body(Bytes::from(body))
            .unwrap()
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
                self.live.insert(call.id.clone(), now);
                (204, String::new())
            }
            "create" => {
                self.made += 1;
                let id = format!("8:acs:resource_{:08}", self.made);
                let token = self.mint(&id, request);
                let body = format!(r#"{{"identity":{{"id":"{id}"}},"accessToken":{token}}}"#);
                (201, body)
            }
            _ => (200, self.mint(&call.id, request)),
        }
    }

    fn mint(&mut self, id: &str, request: &Request<Bytes>) -> String {
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let asked = body["expiresInMinutes"].as_u64().unwrap_or(1440);
        let life = self.life.unwrap_or(Duration::from_secs(asked * 60));
        let ends = self.now() + life;
        self.live.insert(id.to_owned(), ends);
        token(ends)
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
