//! The bearers of one resource: one request at a time for all who call, in a task of its own that ends with its
//! answer, so that whoever waits may give up without harm to the others.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{
    answer::Grant,
    assertion::{CertificateError, ClientCertificate},
    authority::{Asking, Authority, ClientProof},
    bearer::{Bearer, BearerTurn, Begun, Hand},
    error::{Again, BearerError},
    metadata::Metadata,
};
use crate::{
    clock::Clock,
    config::{EntraKind, EntraSettings, Environment, IdentitySelector, ResourceSettings},
    model::{BearerCause, BearerKind, BearerTrouble, BearerView, ResourceName, entra_minter},
    transport::{NetworkOptions, Transport},
};

/// An answer to a token request may take so long.
const DEADLINE: Duration = Duration::from_secs(20);
/// A metadata service is on this machine or its host.
const CONNECT: Duration = Duration::from_secs(3);
/// Between two looks for another secret in the place of one that was refused.
const LOOK: Duration = Duration::from_secs(10);

/// Why no bearer can ever be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BearerSetupError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An address that cannot be one, or a file of authorities.
    #[error("{0}")]
    Way(String),
}

/// The bearers of one resource; cheap to clone, all clones are the same.
#[derive(Debug, Clone)]
pub struct Bearers(Arc<Inner>);

struct Inner {
    resource: ResourceName,
    entra: EntraSettings,
    clock: Clock,
    source: Source,
    transport: Transport,
    hand: Mutex<Hand>,
    known: Mutex<Known>,
    /// Rises with each request that ended, and with each refusal by ACS that is news.
    news: watch::Sender<u64>,
    ids: Mutex<ChaCha8Rng>,
}

/// What is told of requests.
#[derive(Debug, Default)]
struct Known {
    client: Option<String>,
    requests: u64,
    /// When it is looked next for another secret.
    look_at: Duration,
}

#[derive(Debug)]
enum Source {
    Machine(Metadata),
    Application(Authority),
}

impl Source {
    fn peer(&self) -> &str {
        match self {
            Self::Machine(metadata) => metadata.peer(),
            Self::Application(authority) => authority.peer(),
        }
    }

    fn new(entra: &EntraSettings) -> Result<Self, BearerSetupError> {
        let (tenant, client, proof) = match &entra.kind {
            EntraKind::ManagedIdentity { selector } => {
                let resource = entra.scope.trim_end_matches(".default");
                let resource = resource.strip_suffix('/').unwrap_or(resource);
                let environment = Environment::of_process();
                let metadata = Metadata::of(&environment, resource, selector.as_ref());
                return metadata.map(Self::Machine).map_err(BearerSetupError::Way);
            }
            EntraKind::WorkloadIdentity {
                tenant,
                client_id,
                token_file,
            } => (
                tenant,
                client_id,
                ClientProof::Federated(token_file.clone()),
            ),
            EntraKind::ClientSecret {
                tenant,
                client_id,
                secret,
            } => (
                tenant,
                client_id,
                ClientProof::Secret(Mutex::new(secret.clone())),
            ),
            EntraKind::ClientCertificate {
                tenant,
                client_id,
                certificate,
            } => {
                let read = ClientCertificate::parse(&certificate.secret)?;
                let held = Mutex::new((certificate.clone(), read));
                (tenant, client_id, ClientProof::Certificate(held))
            }
        };
        let made = Authority::new(&entra.authority, tenant, client, &entra.scope, proof);
        made.map(Self::Application).map_err(BearerSetupError::Way)
    }

    async fn obtain(&self, asking: &Asking<'_>, sent: &mut u64) -> Result<Grant, BearerError> {
        match self {
            Self::Machine(metadata) => {
                let (deadline, now) = (asking.deadline, asking.now);
                metadata.obtain(asking.transport, deadline, now, sent).await
            }
            Self::Application(authority) => authority.obtain(asking, sent).await,
        }
    }
}

impl Bearers {
    /// The bearers of a resource, none of which is there yet. Requests go the way of `transport`, where that leads into
    /// this process; else those to an authority go as the resource's do, and those to a metadata service past any proxy.
    ///
    /// # Errors
    /// When the settings are such that none could ever be asked for.
    pub fn new(
        settings: &ResourceSettings,
        entra: &EntraSettings,
        clock: Clock,
        transport: &Transport,
    ) -> Result<Self, BearerSetupError> {
        let source = Source::new(entra)?;
        Ok(Self(Arc::new(Inner {
            resource: settings.name.clone(),
            entra: entra.clone(),
            transport: way(settings, &source, transport)?,
            source,
            hand: Mutex::default(),
            known: Mutex::new(Known {
                client: client(entra),
                ..Known::default()
            }),
            news: watch::Sender::default(),
            ids: Mutex::new(source_of_ids(&settings.name, &clock)),
            clock,
        })))
    }

    /// Goes on with the bearer that is in hand elsewhere for the same caller: a secret that is put in place by hand and
    /// wrong stops nothing while that lasts.
    pub fn take_over(&self, before: &Self) {
        if !self.0.entra.asks_like(&before.0.entra) {
            return;
        }
        let proves = self.0.entra != before.0.entra;
        let now = self.0.clock.steady();
        let (client, requests) = {
            let known = lock(&before.0.known);
            (known.client.clone(), known.requests)
        };
        self.0.hand().take_over(&before.0.hand(), proves, now);
        let mut known = lock(&self.0.known);
        (known.client, known.requests) = (client, requests);
    }

    /// A bearer for a call that has to end at `ends`, on the clock that never steps.
    ///
    /// # Errors
    /// When none is in hand and none comes in time; at once, where none may be asked for yet.
    pub async fn bearer(&self, ends: Duration) -> Result<Arc<Bearer>, BearerError> {
        let mut news = self.0.news.subscribe();
        loop {
            news.borrow_and_update();
            let turn = self.0.hand().turn(self.0.clock.steady());
            match turn {
                BearerTurn::Take(bearer) => {
                    self.tend();
                    return Ok(bearer);
                }
                BearerTurn::Fail(trouble) => return Err(none(&trouble)),
                BearerTurn::Ask(since) => self.request(since, None),
                BearerTurn::Wait => {}
            }
            if !self.comes_in_time(&mut news, ends).await {
                let told = format!("{} has not answered in time", self.0.source.peer());
                return Err(BearerError::unanswered(told, Again::Later));
            }
        }
    }

    /// Another bearer than one that ACS does not take; with these `claims`, where it asked for that. `None`: there is
    /// none to be had in time, so the refusal stands.
    pub async fn another(
        &self,
        refused: &Arc<Bearer>,
        claims: Option<&str>,
        ends: Duration,
    ) -> Option<Arc<Bearer>> {
        let mut news = self.0.news.subscribe();
        loop {
            news.borrow_and_update();
            let now = self.0.clock.steady();
            let turn = self.0.hand().turn_after(refused, claims.is_some(), now)?;
            match turn {
                BearerTurn::Take(bearer) => return Some(bearer),
                BearerTurn::Fail(_) => return None,
                BearerTurn::Ask(since) => self.request(since, claims),
                BearerTurn::Wait => {}
            }
            if !self.comes_in_time(&mut news, ends).await {
                return None;
            }
        }
    }

    /// ACS took this bearer.
    pub fn taken(&self, bearer: &Arc<Bearer>) {
        let mut hand = self.0.hand();
        let was_refused = hand.trouble().is_some();
        hand.taken(bearer);
        let news = was_refused && hand.trouble().is_none();
        drop(hand);
        if news {
            self.0.tell();
        }
    }

    /// ACS refused a bearer, and no other one was to be had, or it did not take that either.
    pub fn refused(&self, cause: BearerCause, told: &str) {
        let now = self.0.clock.now();
        self.0.hand().refused(cause, told, now);
        self.0.tell();
    }

    /// Sends the request that is due by itself, if one is.
    pub fn tend(&self) {
        let now = self.0.clock.steady();
        if self.0.hand().waits_for_person() {
            self.look_for_another_secret(now);
        }
        let due = self.0.hand().begin_due(now);
        if let Some(since) = due {
            self.request(since, None);
        }
    }

    /// When [`Bearers::tend`] has something to do.
    pub fn due_at(&self) -> Option<Duration> {
        let hand = self.0.hand();
        let due = hand.due_at()?;
        match hand.waits_for_person() {
            true => Some(due.min(lock(&self.0.known).look_at)),
            false => Some(due),
        }
    }

    /// Why no call can be made, and until when at least.
    pub fn hold(&self) -> Option<(Duration, String)> {
        let hand = self.0.hand();
        let (until, trouble) = hand.hold(self.0.clock.steady())?;
        Some((until, trouble.told.clone()))
    }

    /// The `minted_by` of tokens that come now.
    pub fn minter(&self) -> String {
        let known = lock(&self.0.known);
        entra_minter(known.client.as_deref().unwrap_or(self.0.kind().as_str()))
    }

    /// What happens to the bearer from now on.
    pub fn news(&self) -> BearerNews {
        BearerNews(Some(self.0.news.subscribe()))
    }

    pub fn view(&self) -> BearerView {
        let hand = self.0.hand();
        let known = lock(&self.0.known);
        let (now, steady) = (self.0.clock.now(), self.0.clock.steady());
        let lasts = hand.lasts(steady);
        BearerView {
            kind: self.0.kind(),
            client: known.client.clone(),
            ends: lasts.and_then(|lasts| now.checked_add(lasts).ok()),
            trouble: hand.trouble().cloned(),
            certificate_ends: match &self.0.source {
                Source::Application(authority) => authority.certificate_ends(),
                Source::Machine(_) => None,
            },
            requests: known.requests,
        }
    }

    /// Waits for the end of the request that is on its way, no longer than until `ends`.
    async fn comes_in_time(&self, news: &mut watch::Receiver<u64>, ends: Duration) -> bool {
        let left = ends.saturating_sub(self.0.clock.steady());
        let ended = tokio::time::timeout(left, news.changed()).await;
        ended.is_ok_and(|changed| changed.is_ok())
    }

    /// Sends a request that was begun.
    fn request(&self, since: Begun, claims: Option<&str>) {
        let request = Request {
            inner: self.0.clone(),
            since,
            result: None,
        };
        tokio::spawn(request.run(claims.map(str::to_owned)));
    }

    fn look_for_another_secret(&self, now: Duration) {
        let mut known = lock(&self.0.known);
        if now < known.look_at {
            return;
        }
        known.look_at = now + LOOK;
        drop(known);
        if let Source::Application(authority) = &self.0.source
            && authority.takes_up() == Ok(true)
        {
            self.0.hand().hurry(now);
        }
    }
}

/// Tells of each request that ended, and of what ACS says of a bearer; by default of nothing.
#[derive(Debug, Default)]
pub struct BearerNews(Option<watch::Receiver<u64>>);

impl BearerNews {
    /// Waits for the next news, for ever where there is none to come.
    pub async fn heard(&mut self) {
        if let Some(news) = &mut self.0
            && news.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Inner {
    fn kind(&self) -> BearerKind {
        self.entra.kind.name()
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        lock(&self.hand)
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}

/// `Debug` shows no secret, and neither does anything in here.
impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearers")
            .field("resource", &self.resource)
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// A request that is on its way: however it ends, those who wait for it hear of that.
struct Request {
    inner: Arc<Inner>,
    since: Begun,
    result: Option<Result<Grant, BearerError>>,
}

impl Request {
    async fn run(mut self, claims: Option<String>) {
        let inner = self.inner.clone();
        let id: [u8; 16] = lock(&inner.ids).random();
        let id = uuid::Builder::from_random_bytes(id).into_uuid().to_string();
        let asking = Asking {
            transport: &inner.transport,
            deadline: DEADLINE,
            claims: claims.as_deref(),
            id: &id,
            now: inner.clock.now(),
        };
        let mut sent = 0;
        let result = inner.source.obtain(&asking, &mut sent).await;
        lock(&inner.known).requests += sent;
        self.result = Some(result);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let broken = || BearerError::unanswered("the request for a bearer broke off", Again::Later);
        let result = self.result.take().unwrap_or_else(|| Err(broken()));
        self.inner.ended(self.since, result);
        self.inner.tell();
    }
}

impl Inner {
    fn ended(&self, since: Begun, result: Result<Grant, BearerError>) {
        let (steady, now) = (self.clock.steady(), self.clock.now());
        let made = result.and_then(|granted| {
            let client = {
                let mut known = lock(&self.known);
                known.client = known.client.take().or_else(|| granted.client.clone());
                known.client.clone()
            };
            let minter = entra_minter(client.as_deref().unwrap_or(self.kind().as_str()));
            let bearer = Bearer::new(&granted.secret, minter);
            let bearer = bearer.map_err(|_| {
                BearerError::unanswered("the bearer holds what no header can", Again::Later)
            })?;
            Ok((granted, bearer))
        });
        let resource = &self.resource;
        match made {
            Ok((granted, bearer)) => {
                let lives = granted.lives.as_secs();
                tracing::debug!(%resource, peer = self.source.peer(), lives, "a bearer was obtained");
                self.hand().granted(&granted, bearer, since, steady);
            }
            Err(error) => {
                tracing::debug!(%resource, "no bearer was obtained: {error}");
                self.hand().failed(&error, (steady, now));
            }
        }
    }
}

/// The client id, where it is known before anything was asked.
fn client(entra: &EntraSettings) -> Option<String> {
    match &entra.kind {
        EntraKind::WorkloadIdentity { client_id, .. }
        | EntraKind::ClientSecret { client_id, .. }
        | EntraKind::ClientCertificate { client_id, .. }
        | EntraKind::ManagedIdentity {
            selector: Some(IdentitySelector::ClientId(client_id)),
        } => Some(client_id.clone()),
        EntraKind::ManagedIdentity { .. } => None,
    }
}

/// Without a request, for the reason that the last one gave.
fn none(trouble: &BearerTrouble) -> BearerError {
    BearerError {
        cause: trouble.cause,
        told: trouble.told.clone(),
        again: Again::Later,
    }
}

/// The way that token requests go.
fn way(
    settings: &ResourceSettings,
    source: &Source,
    transport: &Transport,
) -> Result<Transport, BearerSetupError> {
    let options = match (transport, source) {
        (Transport::InProcess(_), _) => return Ok(transport.clone()),
        (_, Source::Machine(_)) => NetworkOptions {
            connect_timeout: Some(CONNECT),
            ..NetworkOptions::default()
        },
        (_, Source::Application(_)) => NetworkOptions {
            ca_file: settings.ca_file.clone(),
            proxy: settings.proxy.clone(),
            ..NetworkOptions::default()
        },
    };
    Transport::network(&options).map_err(|error| BearerSetupError::Way(error.to_string()))
}

/// Where ids of assertions are drawn from. Under a simulated clock the same run draws the same ids.
fn source_of_ids(resource: &ResourceName, clock: &Clock) -> ChaCha8Rng {
    if !clock.is_simulated() {
        return rand::make_rng();
    }
    let seed = format!("entra {resource} {}", clock.now().as_nanosecond());
    ChaCha8Rng::from_seed(Sha256::digest(seed).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
