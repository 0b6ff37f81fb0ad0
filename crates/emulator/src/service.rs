//! The emulator: one asynchronous function from request to reply, and the operations on the world.
//!
//! Order of checks as recorded: signature, version, limits and faults, then the operation: token of the Teams
//! body or ownership of the id, then the model, then ranges.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header::AUTHORIZATION};
use jiff::Timestamp;
use renewd_acs_wire::{
    AccessToken, CreateRequest, CreateResponse, ExchangeRequest, Identity, IssueRequest, Secret,
};
use renewd_clock::Clock;

use super::{
    access_keys::{self, KeyStamp, Slot},
    answer::{self, Answering, Envelope, Problem, Reply},
    call::{self, Call, Counts, Entry, IDENTITY_VERSIONS, Purpose, Route, TEAMS_VERSIONS},
    control,
    entra::{self, Asked, CertificateError, EntraControls, EntraPart, Place, Registration},
    faults::{Blow, Harm},
    mint::{KeyError, Mint},
    signature::{self, Sent},
    world::{EmulatorError, EmulatorOptions, Grant, Standing, World, expiry},
};

/// ACS Identity for one resource, in memory.
#[derive(Debug)]
pub struct Emulator {
    pub(super) options: EmulatorOptions,
    pub(super) mint: Mint,
    clock: Clock,
    world: Mutex<World>,
}

/// What became of a request, and what the request log wants to know of it.
struct Judged {
    answer: Response<Bytes>,
    /// Who called, for the log.
    caller: Option<String>,
    reason: Option<String>,
}

/// Who proved to be allowed in.
enum Caller {
    Key(KeyStamp),
    /// The client that the bearer belongs to.
    Client(String),
}

impl Caller {
    fn name(&self) -> String {
        match self {
            Self::Key(key) => key.slot.as_str().to_owned(),
            Self::Client(client) => format!("entra:{client}"),
        }
    }

    fn key(&self) -> Option<KeyStamp> {
        match self {
            Self::Key(key) => Some(*key),
            Self::Client(_) => None,
        }
    }
}

impl Emulator {
    /// An emulator that tells the time by `clock`, plus whatever its control API moved it by.
    ///
    /// # Errors
    /// When an access key in the options is none.
    pub fn new(options: EmulatorOptions, clock: Clock) -> Result<Self, EmulatorError> {
        Ok(Self {
            mint: Mint::new(options.token_alg)?,
            world: Mutex::new(World::new(&options)?),
            options,
            clock,
        })
    }

    /// Answers one request: of ACS Identity, of Entra ID, or of the control API under `/_emulator/v1/`. Signed
    /// is what the request's own URI and headers say, so both must be as they would be on the wire.
    pub async fn handle(&self, request: Request<Bytes>) -> Reply {
        if request.uri().path().starts_with(control::PREFIX) {
            return Reply::Answer(control::answer(self, &request));
        }
        let began = self.clock.steady();
        let call = Call::read(request);
        let trouble = match call.purpose {
            Some(purpose) => self.world().faults.strike(purpose, call.id()),
            None => super::faults::Trouble::default(),
        };
        if !trouble.delay.is_zero() {
            tokio::time::sleep(trouble.delay).await;
        }
        let judged = match trouble.blow {
            Some(blow) if !blow.after => None,
            _ => Some(self.judge(&call)),
        };
        let took = self.clock.steady().saturating_sub(began);
        self.reply(&call, judged, trouble.blow, took)
    }

    /// The same where only the metadata services are at home.
    pub(super) async fn handle_metadata(&self, request: Request<Bytes>) -> Reply {
        let route = call::route(request.method(), request.uri().path());
        if matches!(route, Route::Entra(Place::Metadata | Place::AppService)) {
            return self.handle(request).await;
        }
        let problem = answer::not_found(request.uri().path());
        Reply::Answer(answer::error(&problem))
    }

    /// The emulator as a function for a transport in this process; `broken` makes the transport's
    /// own error for a connection that breaks.
    pub fn as_handler<E: 'static>(
        self: &Arc<Self>,
        broken: impl Fn(&'static str) -> E + Clone + Send + Sync + 'static,
    ) -> Answering<E> {
        let emulator = Arc::clone(self);
        Arc::new(move |request| {
            let (emulator, broken) = (Arc::clone(&emulator), broken.clone());
            Box::pin(async move { emulator.handle(request).await.settle(broken).await })
        })
    }

    /// The connection string with the primary key, for this endpoint (`https://host:port`).
    pub fn connection_string(&self, endpoint: &str) -> Secret {
        let keys = Arc::clone(&self.world().keys);
        let key = keys.get(Slot::Primary).text().expose();
        let endpoint = endpoint.trim_end_matches('/');
        Secret::new(format!("endpoint={endpoint}/;accesskey={key}"))
    }

    /// The same with the secondary key.
    pub fn secondary_connection_string(&self, endpoint: &str) -> Secret {
        let keys = Arc::clone(&self.world().keys);
        let key = keys.get(Slot::Secondary).text().expose();
        let endpoint = endpoint.trim_end_matches('/');
        Secret::new(format!("endpoint={endpoint}/;accesskey={key}"))
    }

    /// The tenant, the application and the machine.
    pub fn registration(&self) -> Registration {
        self.world().entra.registration().clone()
    }

    /// A certificate of the application that ends then, with its key, as PEM. Everybody can read the key in the
    /// emulator's sources.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client_certificate(&self, until: Timestamp) -> Result<Secret, CertificateError> {
        let now = self.now();
        self.world().entra.make_certificate(now, until)
    }

    /// A federated token for the application that lives so long.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn federated_token(&self, life: Duration) -> Result<Secret, KeyError> {
        let now = self.now();
        self.world().entra.federated_token(now, life)
    }

    /// Sees to it that Arc's key files can be written.
    ///
    /// # Errors
    /// What stands against it, as a text.
    pub fn prepare_arc(&self) -> Result<(), String> {
        self.world().entra.prepare_arc()
    }

    /// Changes what the control API changes at `entra`.
    pub fn steer_entra(&self, change: impl FnOnce(&mut EntraControls)) {
        self.world().entra.steer(change);
    }

    /// How many bearers were made.
    pub fn bearers(&self) -> u64 {
        self.world().entra.made()
    }

    /// What became of the requests to a part of Entra ID.
    pub fn entra_requests(&self, part: EntraPart) -> Counts {
        let world = self.world();
        let counts = world.request_log.counts().get(part.as_str());
        counts.copied().unwrap_or_default()
    }

    /// The control API as a function: the path after `/_emulator/v1/`, and JSON. It needs no secret.
    ///
    /// # Errors
    /// What the control API says against it.
    pub fn control(
        &self,
        method: &Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, String> {
        control::call_in_process(self, method, path, body)
    }

    pub fn now(&self) -> Timestamp {
        let offset = self.world().offset;
        self.now_at(offset)
    }

    pub(super) fn now_at(&self, offset: jiff::SignedDuration) -> Timestamp {
        let now = self.clock.now();
        now.checked_add(offset).unwrap_or(now)
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, call: &Call) -> Judged {
        if let (Route::Entra(place), Some(Purpose::Entra(part))) = (&call.route, call.purpose) {
            return self.judge_token_request(call, place, part);
        }
        let (answer, caller, reason) = match self.authenticate(call) {
            Err(problem) => (answer::error(&problem), None, Some(problem.reason)),
            Ok(caller) => match self.carry_out(call, caller.key()) {
                Ok(answer) => (answer, Some(caller.name()), None),
                Err(problem) => (
                    answer::error(&problem),
                    Some(caller.name()),
                    Some(format!("{}: {}", problem.code(), problem.reason)),
                ),
            },
        };
        Judged {
            answer,
            caller,
            reason,
        }
    }

    fn judge_token_request(&self, call: &Call, place: &Place, part: EntraPart) -> Judged {
        let (uri, now) = (call.request.uri(), self.now());
        let mut world = self.world();
        let scheme = uri.scheme_str().unwrap_or_else(|| world.entra.scheme());
        let asked = Asked {
            method: call.request.method(),
            headers: call.request.headers(),
            query: uri.query().unwrap_or_default(),
            body: call.request.body(),
            base: format!("{scheme}://{}", call.host),
            now,
        };
        let (answer, reason) = world.entra.answer(place, part, &asked);
        Judged {
            answer,
            caller: None,
            reason,
        }
    }

    fn authenticate(&self, call: &Call) -> Result<Caller, Problem> {
        let now = self.now();
        let keys = {
            let mut world = self.world();
            if let Some(bearer) = bearer(call.request.headers()) {
                return world.entra.admit(bearer, now).map(Caller::Client);
            }
            let controls = world.entra.controls();
            if !controls.access_keys {
                let reason = "the resource takes no access keys";
                return Err(answer::bearer_denied(controls.access_keys_status, reason));
            }
            Arc::clone(&world.keys)
        };
        let sent = Sent {
            method: call.request.method(),
            target: &call.target,
            host: &call.host,
            headers: call.request.headers(),
            body: call.request.body(),
        };
        signature::verify(&sent, &keys, now, self.options.date_margin)
            .map(|key| Caller::Key(key.stamp))
            .map_err(|denial| answer::denied(&denial))
    }

    fn carry_out(&self, call: &Call, key: Option<KeyStamp>) -> Result<Response<Bytes>, Problem> {
        let (path, method) = (call.request.uri().path(), call.request.method());
        let operation = match call.purpose {
            Some(Purpose::Acs(operation)) => operation,
            _ if call.route == Route::WrongMethod => {
                return Err(answer::method_not_allowed(method, path));
            }
            _ => return Err(answer::not_found(path)),
        };
        let version = call.version()?;
        let now = self.now();
        let outcome = {
            let mut world = self.world();
            if let Err(wait) = world.limiter.admit(operation, now) {
                let limit = world.limiter.limits().0.get(&operation);
                let limit = limit.map(ToString::to_string).unwrap_or_default();
                let reason = format!("more than {limit} of {operation}");
                return Err(answer::throttled(wait, reason));
            }
            let ask = Ask {
                options: &self.options,
                now,
                key,
                version: &version,
                headers: call.request.headers(),
                body: call.request.body(),
            };
            perform(&mut world, &call.route, &ask)?
        };
        self.present(outcome)
    }

    /// Signs what was granted, outside the lock, and writes the answer.
    fn present(&self, outcome: Outcome) -> Result<Response<Bytes>, Problem> {
        Ok(match outcome {
            Outcome::Done => answer::no_content(IDENTITY_VERSIONS),
            Outcome::Granted(grant) => {
                answer::success(StatusCode::OK, &self.mint(&grant)?, IDENTITY_VERSIONS)
            }
            Outcome::Exchanged(grant) => {
                answer::success(StatusCode::OK, &self.mint(&grant)?, TEAMS_VERSIONS)
            }
            Outcome::Created(id, grant) => {
                let created = CreateResponse {
                    identity: Identity { id: id.to_string() },
                    access_token: grant.map(|grant| self.mint(&grant)).transpose()?,
                };
                answer::success(StatusCode::CREATED, &created, IDENTITY_VERSIONS)
            }
        })
    }

    fn mint(&self, grant: &Grant) -> Result<AccessToken, Problem> {
        let token = self
            .mint
            .sign(&grant.claims, grant.nonce)
            .map_err(|_| answer::injected(StatusCode::INTERNAL_SERVER_ERROR, None, 0))?;
        self.world()
            .tokens
            .record(token.expose(), grant.facts.clone());
        Ok(AccessToken {
            token,
            expires_on: call::expires_on(grant.facts.expires_at),
        })
    }

    /// Applies the blow, puts the headers on and notes what happened.
    fn reply(
        &self,
        call: &Call,
        judged: Option<Judged>,
        blow: Option<Blow>,
        took: std::time::Duration,
    ) -> Reply {
        let mut world = self.world();
        let now = self.now_at(world.offset);
        let caller = judged.as_ref().and_then(|judged| judged.caller.clone());
        let mut reason = judged.as_ref().and_then(|judged| judged.reason.clone());
        if let Some(blow) = blow {
            reason = Some(format!(
                "fault {} was injected: {:?}",
                blow.fault, blow.harm
            ));
        }
        let mut reply = apply(judged, blow, |blow, status, retry_after| {
            match call.purpose {
                Some(Purpose::Entra(part)) => {
                    entra::injected(part, status, retry_after, blow.fault, now)
                }
                _ => answer::error(&answer::injected(status, retry_after, blow.fault)),
            }
        });
        let of_acs = !matches!(call.purpose, Some(Purpose::Entra(_)));
        if of_acs && let Reply::Answer(answer) | Reply::Truncated { answer, .. } = &mut reply {
            let envelope = Envelope {
                now,
                took,
                nonce: world.nonce(),
                client_request_id: call.request.headers().get("x-ms-client-request-id"),
            };
            envelope.wrap(answer);
        }
        let entry = call.entry(now, caller, &reply, reason);
        log(&entry);
        world.request_log.note(entry);
        reply
    }
}

/// The answer as the blow leaves it; `injected` makes one of a status that was asked for.
fn apply(
    judged: Option<Judged>,
    blow: Option<Blow>,
    injected: impl Fn(Blow, StatusCode, Option<u64>) -> Response<Bytes>,
) -> Reply {
    let answer = judged.map(|judged| judged.answer);
    let Some(blow) = blow else {
        return answer.map_or(Reply::Reset, Reply::Answer);
    };
    match (blow.harm, answer) {
        (Harm::Hang, _) => Reply::Hang,
        (Harm::Reset, _) | (_, None) if !matches!(blow.harm, Harm::Status(..)) => Reply::Reset,
        (Harm::Malformed, Some(mut answer)) => {
            *answer.body_mut() = Bytes::from_static(b"<html>this is not JSON</html>");
            Reply::Answer(answer)
        }
        (Harm::Truncated, Some(answer)) if !answer.body().is_empty() => {
            let sent = answer.body().len() / 2;
            Reply::Truncated { answer, sent }
        }
        (Harm::Status(status, retry_after), _) => {
            Reply::Answer(injected(blow, status, retry_after))
        }
        _ => Reply::Reset,
    }
}

/// The bearer of a request that has one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

/// A request that failed is told once, here.
fn log(entry: &Entry) {
    let operation = entry.operation.map_or("none", Purpose::as_str);
    let request_id = entry.client_request_id.as_deref().unwrap_or("none");
    match (&entry.reason, entry.status) {
        (Some(reason), status) => tracing::info!(
            operation,
            request_id,
            status,
            "{} {} was not carried out: {reason}",
            entry.method,
            entry.target
        ),
        (None, status) => tracing::debug!(
            operation,
            request_id,
            status,
            "{} {}",
            entry.method,
            entry.target
        ),
    }
}

/// What an operation is done with.
pub(super) struct Ask<'a> {
    pub(super) options: &'a EmulatorOptions,
    pub(super) now: Timestamp,
    /// None where a bearer was shown.
    pub(super) key: Option<KeyStamp>,
    pub(super) version: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// What an operation came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Created(Arc<str>, Option<Grant>),
    Granted(Grant),
    Exchanged(Grant),
    Done,
}

/// Since this version the lifetime can be chosen; before it was always a day.
const CHOOSABLE_LIFETIME: &str = "2022-10-01";
/// Since this version there are more scopes than two.
const FINE_SCOPES: &str = "2023-10-01";
const A_DAY: i64 = 1440;

/// Does what the route asks for.
pub(super) fn perform(world: &mut World, route: &Route, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    match route {
        Route::Create => create(world, ask),
        Route::Issue(id) => issue(world, id, ask),
        Route::Revoke(id) => {
            existing(world, id, ask)?;
            world.revoke(id, ask.now);
            Ok(Outcome::Done)
        }
        Route::Delete(id) => {
            existing(world, id, ask)?;
            world.delete(id, ask.now);
            Ok(Outcome::Done)
        }
        Route::Exchange => exchange(world, ask),
        Route::Entra(_) | Route::WrongMethod | Route::Unknown => Err(answer::not_found("")),
    }
}

/// Without scopes, or with none in the list, only an identity is made (the latter is not
/// established) and the lifetime is not looked at.
fn create(world: &mut World, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    let request: CreateRequest = answer::read(ask.headers, ask.body)?.unwrap_or_default();
    let scopes = request.create_token_with_scopes.unwrap_or_default();
    if scopes.is_empty() {
        return Ok(Outcome::Created(world.create(ask.now), None));
    }
    let lifetime = lifetime(request.expires_in_minutes, ask.version)?;
    check_scopes(&scopes, ask.version)?;
    let id = world.create(ask.now);
    let grant = grant(world, &id, &scopes, lifetime, ask);
    Ok(Outcome::Created(id, Some(grant)))
}

fn issue(world: &mut World, id: &str, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    existing(world, id, ask)?;
    let request: Option<IssueRequest> = answer::read(ask.headers, ask.body)?;
    let request = request.ok_or_else(answer::body_required)?;
    let scopes = request.scopes.ok_or_else(answer::scopes_required)?;
    if scopes.is_empty() {
        return Err(answer::scopes_empty());
    }
    let lifetime = lifetime(request.expires_in_minutes, ask.version)?;
    check_scopes(&scopes, ask.version)?;
    Ok(Outcome::Granted(grant(world, id, &scopes, lifetime, ask)))
}

fn grant(
    world: &mut World,
    id: &str,
    scopes: &[String],
    lifetime: Duration,
    ask: &Ask<'_>,
) -> Grant {
    let expires_at = expiry(ask.now, lifetime, ask.options.token_ttl);
    world.grant(id, scopes, ask.key, ask.now, expires_at)
}

/// The token lives as long as the user's own. Its scopes are not established.
fn exchange(world: &mut World, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    let request: Option<ExchangeRequest> = answer::read(ask.headers, ask.body)?;
    let request = request.ok_or_else(answer::body_required)?;
    let text = request.token.as_ref().map_or("", |token| token.expose());
    let token = access_keys::read(text, ask.now).map_err(answer::invalid_access_token)?;
    let app_id = request.app_id.filter(|text| !text.is_empty());
    let app_id = app_id.ok_or_else(answer::app_id_required)?;
    let user_id = request.user_id.filter(|text| !text.is_empty());
    let user_id = user_id.ok_or_else(answer::user_id_required)?;
    if uuid::Uuid::try_parse(&app_id).is_err() {
        return Err(answer::app_id_format());
    }
    if !app_id.eq_ignore_ascii_case(&token.app_id) {
        return Err(answer::app_id_unexpected());
    }
    if !user_id.eq_ignore_ascii_case(&token.user_id) {
        return Err(answer::user_id_unexpected());
    }
    let own = token.expires_at.duration_since(ask.now);
    let own = Duration::try_from(own).unwrap_or_default();
    let expires_at = expiry(ask.now, own, ask.options.token_ttl.map(|ttl| ttl.min(own)));
    let owner = format!("8:orgid:{}", token.user_id);
    let scopes = ["chat".to_owned(), "voip".to_owned()];
    let grant = world.grant(&owner, &scopes, ask.key, ask.now, expires_at);
    Ok(Outcome::Exchanged(grant))
}

fn existing(world: &mut World, id: &str, ask: &Ask<'_>) -> Result<(), Problem> {
    let status = ask.options.deleted_status;
    match world.standing(id) {
        Standing::Exists => Ok(()),
        Standing::Foreign => Err(answer::identity_not_owned(id, &world.prefix())),
        Standing::Deleted => Err(answer::identity_not_found(status, "it was deleted")),
        Standing::Unknown => Err(answer::identity_not_found(
            status,
            "no such identity was created here",
        )),
    }
}

fn lifetime(minutes: Option<i64>, version: &str) -> Result<Duration, Problem> {
    let minutes = match minutes {
        Some(minutes) if version >= CHOOSABLE_LIFETIME => minutes,
        _ => A_DAY,
    };
    if !(60..=A_DAY).contains(&minutes) {
        return Err(answer::lifetime_out_of_range(minutes));
    }
    Ok(Duration::from_secs(minutes.unsigned_abs() * 60))
}

fn check_scopes(scopes: &[String], version: &str) -> Result<(), Problem> {
    let known: &[&str] = if version >= FINE_SCOPES {
        &[
            "chat",
            "voip",
            "chat.join",
            "chat.join.limited",
            "voip.join",
        ]
    } else {
        &["chat", "voip"]
    };
    match scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        Some(unknown) => Err(answer::scope_unknown(unknown)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
