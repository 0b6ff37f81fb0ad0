//! The token endpoint of Entra ID: what an application sends there to get a bearer, and what a refusal of it means.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, CONTENT_TYPE, DATE, USER_AGENT},
};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::{
    answer::{self, Grant},
    assertion::{CertificateError, ClientCertificate},
    error::{Again, BETWEEN, BearerError},
};
use crate::{
    config::{Environment, LoadedSecret, SecretRef, read_regular, reload_secret},
    model::{BearerCause, RESERVED, Secret, percent_encoded, text_of},
    transport::{self, Outgoing, Reply, Transport, Url, http_date, retry_after},
};

/// Larger answers are none of a token endpoint.
const LARGEST_ANSWER: usize = 64 * 1024;
/// A token of Kubernetes is no larger.
const LARGEST_FEDERATED: u64 = 64 << 10;
/// What a 429 asks for that does not say.
const THROTTLED: Duration = Duration::from_mins(1);
/// Clocks this near are no reason to refuse an assertion.
const NEAR: SignedDuration = SignedDuration::from_secs(60);
/// No clock is believed to be further off than this.
const FURTHEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Where an application asks for bearers, and how it proves who it is.
#[derive(Debug)]
pub(super) struct Authority {
    url: Url,
    peer: String,
    client: String,
    scope: String,
    proof: ClientProof,
}

#[derive(Debug)]
pub(super) enum ClientProof {
    Secret(Mutex<LoadedSecret>),
    Certificate(Mutex<(LoadedSecret, ClientCertificate)>),
    /// A token of Kubernetes in this file, which is read each time.
    Federated(PathBuf),
}

/// One token request's circumstances.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) transport: &'a Transport,
    pub(super) deadline: Duration,
    /// Claims that a resource asked for.
    pub(super) claims: Option<&'a str>,
    /// The `jti` of an assertion.
    pub(super) id: &'a str,
    pub(super) now: Timestamp,
}

impl Authority {
    pub(super) fn new(
        authority: &str,
        tenant: &str,
        client: &str,
        scope: &str,
        proof: ClientProof,
    ) -> Result<Self, String> {
        let tenant = percent_encoded(tenant, RESERVED);
        let text = format!(
            "{}/{tenant}/oauth2/v2.0/token",
            authority.trim_end_matches('/')
        );
        let url = Url::parse(&text).map_err(|_| format!("{authority:?} is not a valid URL"))?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        Ok(Self {
            peer: format!("Entra ID at {host}{port}"),
            url,
            client: client.to_owned(),
            scope: scope.to_owned(),
            proof,
        })
    }

    /// The one that failures name.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// When the certificate ends that proves who we are.
    pub(super) fn certificate_ends(&self) -> Option<Timestamp> {
        match &self.proof {
            ClientProof::Certificate(held) => lock(held).1.ends(),
            ClientProof::Secret(_) | ClientProof::Federated(_) => None,
        }
    }

    /// Whether another secret or certificate lies in the place of the one in hand, which is taken up then; or why
    /// what lies there is of no use.
    pub(super) fn takes_up(&self) -> Result<bool, CertificateError> {
        match &self.proof {
            ClientProof::Secret(held) => {
                let mut held = lock(held);
                let found = successor(&held);
                let is_other = found.is_some();
                *held = found.unwrap_or_else(|| held.clone());
                Ok(is_other)
            }
            ClientProof::Certificate(held) => {
                let mut held = lock(held);
                let Some(found) = successor(&held.0) else {
                    return Ok(false);
                };
                let certificate = ClientCertificate::parse(&found.secret)?;
                *held = (found, certificate);
                Ok(true)
            }
            ClientProof::Federated(_) => Ok(false),
        }
    }

    /// Asks for a bearer; once more where our clock was wrong, and the answer tells. How many requests were sent is
    /// counted in `sent`.
    pub(super) async fn obtain(
        &self,
        asking: &Asking<'_>,
        sent: &mut u64,
    ) -> Result<Grant, BearerError> {
        if let Err(why) = self.takes_up() {
            tracing::warn!(
                "the certificate in hand stays in use: in its place lies another one, but {why}"
            );
        }
        let (reply, proof) = self.ask(asking, asking.now, sent).await?;
        let (reply, proof) = match self.corrected(&reply, asking.now) {
            Some(now) => self.ask(asking, now, sent).await?,
            None => (reply, proof),
        };
        match reply.status.is_success() {
            true => answer::granted(reply, asking.now).map_err(|why| {
                let told = format!("the answer of {} cannot be read: {why}", self.peer);
                BearerError::unanswered(told, Again::Later)
            }),
            false => Err(self.refusal(&reply, &proof, asking.now)),
        }
    }

    /// The authority's time, where an assertion that was made by ours was refused and the two are far apart.
    fn corrected(&self, reply: &Reply, now: Timestamp) -> Option<Timestamp> {
        let is_timed = matches!(self.proof, ClientProof::Certificate(_));
        if !is_timed || !matches!(reply.status.as_u16(), 400 | 401) {
            return None;
        }
        let date = http_date(reply.headers.get(DATE)?.to_str().ok()?)?;
        let apart = date.duration_since(now).abs();
        (NEAR < apart && apart <= FURTHEST).then_some(date)
    }

    async fn ask(
        &self,
        asking: &Asking<'_>,
        now: Timestamp,
        sent: &mut u64,
    ) -> Result<(Reply, Secret), BearerError> {
        let proof = self.prove(asking.id, now)?;
        let mut fields = vec![
            ("client_id", self.client.as_str()),
            ("scope", &self.scope),
            ("grant_type", "client_credentials"),
        ];
        match &self.proof {
            ClientProof::Secret(_) => fields.push(("client_secret", proof.expose())),
            ClientProof::Certificate(_) | ClientProof::Federated(_) => fields.extend([
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", proof.expose()),
            ]),
        }
        fields.extend(asking.claims.map(|claims| ("claims", claims)));
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, transport::USER_AGENT.clone());
        let request = Outgoing {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            body: form(&fields),
        };
        *sent += 1;
        let answer = asking
            .transport
            .send(request, LARGEST_ANSWER, asking.deadline)
            .await;
        let reply = answer
            .map_err(|error| BearerError::unanswered(error.with(&self.peer), Again::Later))?;
        Ok((reply, proof))
    }

    /// What proves who we are.
    fn prove(&self, id: &str, now: Timestamp) -> Result<Secret, BearerError> {
        match &self.proof {
            ClientProof::Secret(held) => Ok(lock(held).secret.clone()),
            ClientProof::Certificate(held) => {
                let made = lock(held)
                    .1
                    .assertion(&self.client, self.url.as_str(), id, now);
                made.map_err(|why| {
                    BearerError::refused(BearerCause::WrongCertificate, why.to_string())
                })
            }
            ClientProof::Federated(path) => federated(path),
        }
    }

    fn refusal(&self, reply: &Reply, proof: &Secret, now: Timestamp) -> BearerError {
        let said = answer::refusal(reply, Some(proof));
        let status = reply.status.as_u16();
        let told = said.told(status, &self.peer);
        match (status, said.error.as_str()) {
            (429, _) => BearerError {
                cause: BearerCause::Throttled,
                told,
                again: Again::After(
                    retry_after(&reply.headers, now)
                        .unwrap_or(THROTTLED)
                        .max(BETWEEN),
                ),
            },
            (408 | 500.., _) | (_, "temporarily_unavailable" | "server_error") => {
                BearerError::unanswered(told, Again::Later)
            }
            (400 | 401, "invalid_client") => BearerError::refused(self.blamed(now), told),
            (400 | 401, "unauthorized_client") => {
                BearerError::refused(BearerCause::UnknownClient, told)
            }
            _ => BearerError::refused(BearerCause::Misconfigured, told),
        }
    }

    /// What it is about us that the authority does not accept.
    fn blamed(&self, now: Timestamp) -> BearerCause {
        match &self.proof {
            ClientProof::Secret(_) => BearerCause::WrongSecret,
            ClientProof::Certificate(_)
                if self.certificate_ends().is_some_and(|ends| ends <= now) =>
            {
                BearerCause::CertificateExpired
            }
            ClientProof::Certificate(_) => BearerCause::WrongCertificate,
            ClientProof::Federated(_) => BearerCause::Misconfigured,
        }
    }
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A form as it is sent; wiped when the last who sends it is done with it.
fn form(fields: &[(&str, &str)]) -> Bytes {
    // Each byte takes three at most, so that no copy is left behind by growing.
    let most = fields
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2);
    let mut body = Zeroizing::new(Vec::with_capacity(most.sum()));
    for (name, value) in fields {
        let sign: &[u8] = if body.is_empty() { b"" } else { b"&" };
        let value = Zeroizing::new(percent_encoded(value, RESERVED));
        for part in [sign, name.as_bytes(), b"=", value.as_bytes()] {
            body.extend_from_slice(part);
        }
    }
    Bytes::from_owner(body)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token that Kubernetes keeps in a file.
fn federated(path: &Path) -> Result<Secret, BearerError> {
    let refused = |why: String| {
        let told = format!(
            "the token of Kubernetes in {} cannot be read: {why}",
            path.display()
        );
        BearerError {
            again: Again::Later,
            ..BearerError::refused(BearerCause::Misconfigured, told)
        }
    };
    let bytes = read_regular(path, LARGEST_FEDERATED).map(Zeroizing::new);
    let bytes = bytes.map_err(|error| refused(error.to_string()))?;
    let text = text_of(&bytes)
        .map_err(|why| refused(why.to_string()))?
        .trim();
    match text.is_empty() {
        true => Err(refused("it is empty".to_owned())),
        false => Ok(Secret::new(text.to_owned())),
    }
}

/// Another secret that lies in a file where this one lay; one from elsewhere stays until the process ends.
fn successor(held: &LoadedSecret) -> Option<LoadedSecret> {
    let SecretRef::File(_) = &held.from else {
        return None;
    };
    // What cannot be read now may be half replaced: what is in hand goes on.
    let found = reload_secret(&held.from, &Environment::of_process()).ok()?;
    (found.secret != held.secret).then_some(found)
}
