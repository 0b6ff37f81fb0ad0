//! Entra ID, in memory: one tenant with one application, and the machine's metadata services. Bearers come from
//! here and are judged at every operation of ACS.
//!
//! | place | what |
//! |---|---|
//! | `/{tenant}/v2.0/.well-known/openid-configuration` | discovery |
//! | `/{tenant}/oauth2/v2.0/token` | the token endpoint: secret, certificate, workload identity (`authority`) |
//! | `/metadata/identity/oauth2/token`, a slash more or not | IMDS; with an api-version of Arc's, Arc (`metadata`) |
//! | `/msi/token` | App Service (`metadata`) |
//!
//! Source: requests of the Python and JavaScript SDKs as they were sent, and the public documentation. What was
//! never seen of the real thing is marked "unverified" where it stands: above all every text and number of a
//! refusal, and how ACS refuses a bearer.

mod assertion;
mod authority;
mod bearer;
mod certificate;
mod controls;
mod metadata;

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd_acs_wire::{Secret, hex};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    answer, call,
    mint::{KeyError, Mint, TokenAlg},
};
pub use certificate::CertificateError;
use certificate::Registered;
pub use controls::{Challenge, EntraControls, Machine};
use metadata::ArcKeys;

/// How the tenant and the machine are set up; whatever is left out follows from the seed.
#[derive(Debug, Clone)]
pub struct EntraOptions {
    /// The emulator's if left out.
    pub seed: Option<u64>,
    /// The tenant's id, a GUID.
    pub tenant: Option<String>,
    /// The application's client id, a GUID.
    pub client_id: Option<String>,
    /// What the application proves itself with at first; more can be added.
    pub client_secret: Option<Secret>,
    /// Whose federated tokens the application takes; they are signed with the emulator's test key.
    pub issuer: String,
    /// For whom those speak.
    pub subject: String,
    /// A text that is taken for a federated token as it is.
    pub federated_token: Option<Secret>,
    /// Where Arc's agent puts its key files; clients know one place only.
    pub arc_folder: PathBuf,
    /// Whether the authority is reached over plain http; clients refuse that.
    pub plain_http: bool,
}

impl Default for EntraOptions {
    fn default() -> Self {
        Self {
            seed: None,
            tenant: None,
            client_id: None,
            client_secret: None,
            issuer: "https://oidc.renewd.example/".to_owned(),
            subject: "system:serviceaccount:default:renewd".to_owned(),
            federated_token: None,
            arc_folder: PathBuf::from("/var/opt/azcmagent/tokens"),
            plain_http: false,
        }
    }
}

/// What a request to Entra ID is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntraPart {
    Discovery,
    ClientSecret,
    ClientCertificate,
    WorkloadIdentity,
    Imds,
    AppService,
    Arc,
}

impl EntraPart {
    pub const ALL: [Self; 7] = [
        Self::Discovery,
        Self::ClientSecret,
        Self::ClientCertificate,
        Self::WorkloadIdentity,
        Self::Imds,
        Self::AppService,
        Self::Arc,
    ];

    /// The word in counts, faults and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::ClientSecret => "client_secret",
            Self::ClientCertificate => "client_certificate",
            Self::WorkloadIdentity => "workload_identity",
            Self::Imds => "imds",
            Self::AppService => "app_service",
            Self::Arc => "arc",
        }
    }
}

/// A place of Entra ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// With the tenant as the path names it.
    Discovery(String),
    Token(String),
    Metadata,
    AppService,
}

impl Place {
    /// The place of a path's decoded segments.
    pub(super) fn of(segments: &[&str]) -> Option<Self> {
        let is = |found: &[&str], wanted: &[&str]| {
            found.len() == wanted.len()
                && (found.iter().zip(wanted)).all(|(one, other)| one.eq_ignore_ascii_case(other))
        };
        const METADATA: [&str; 4] = ["metadata", "identity", "oauth2", "token"];
        let unslashed = segments.strip_suffix(&[""]).unwrap_or(segments);
        if is(unslashed, &METADATA) {
            return Some(Self::Metadata);
        }
        match segments {
            ["msi", "token"] => Some(Self::AppService),
            [tenant, rest @ ..] if is(rest, &["oauth2", "v2.0", "token"]) => {
                Some(Self::Token((*tenant).to_owned()))
            }
            [tenant, rest @ ..] if is(rest, &["v2.0", ".well-known", "openid-configuration"]) => {
                Some(Self::Discovery((*tenant).to_owned()))
            }
            _ => None,
        }
    }

    /// What a request to here is for.
    pub(super) fn part(&self, request: &Request<Bytes>) -> EntraPart {
        match self {
            Self::Discovery(_) => EntraPart::Discovery,
            Self::Token(_) => authority::part(request.body()),
            Self::AppService => EntraPart::AppService,
            Self::Metadata => metadata::part(request.uri().query().unwrap_or_default()),
        }
    }
}

/// A request to Entra ID.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
    /// Scheme and host by which the client came.
    pub(super) base: String,
    pub(super) now: Timestamp,
}

/// Pairs of a query or a form; `None` where one cannot be read or comes twice.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = |text: &str| call::decode(&text.replace('+', " "));
        if found.insert(read(name)?, read(value)?).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Why there is no token. The numbers and texts of the authority are the ones that are known of it, unverified
/// for the case at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    /// The number behind `AADSTS`.
    number: u32,
    text: String,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
    retry_after: Option<u64>,
    /// For the emulator's own header and the log.
    reason: String,
}

impl Refusal {
    fn new(status: u16, error: &'static str, number: u32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            error,
            number,
            reason: text.clone(),
            text,
            challenge: None,
            retry_after: None,
        }
    }

    /// Of a metadata service, which has no numbers.
    fn plain(status: u16, error: &'static str, text: impl Into<String>) -> Self {
        Self::new(status, error, 0, text)
    }

    fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

/// A trouble that was asked for, as this part would tell it (unverified).
pub(super) fn injected(
    part: EntraPart,
    status: StatusCode,
    retry_after: Option<u64>,
    fault: u64,
    now: Timestamp,
) -> Response<Bytes> {
    let (error, number) = match status.as_u16() {
        400 => ("invalid_request", 900_144),
        401 => ("invalid_client", 7_000_215),
        404 | 410 => ("not_found", 90_033),
        500 => ("server_error", 90_033),
        _ => ("temporarily_unavailable", 90_033),
    };
    let text = "A transient error has occurred. Please try again.";
    let mut refusal = Refusal::new(status.as_u16(), error, number, text);
    refusal.retry_after = retry_after;
    refuse(
        part,
        &refusal.because(format!("fault {fault} was injected")),
        now,
    )
}

fn refuse(part: EntraPart, refusal: &Refusal, now: Timestamp) -> Response<Bytes> {
    let body = match part {
        EntraPart::AppService => {
            json!({"statusCode": refusal.status.as_u16(), "message": refusal.text})
        }
        EntraPart::Imds | EntraPart::Arc => {
            json!({"error": refusal.error, "error_description": refusal.text})
        }
        _ => authority::refusal(refusal, now),
    };
    let mut answer = answer::json(refusal.status, &body);
    let headers = answer.headers_mut();
    if let Some(challenge) = &refusal.challenge
        && let Ok(value) = HeaderValue::from_str(challenge)
    {
        headers.insert(WWW_AUTHENTICATE, value);
    }
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer::explain(headers, &refusal.reason);
    answer
}

/// An identity of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManagedIdentity {
    pub client_id: String,
    pub object_id: String,
    /// None for the one that is the machine's own.
    pub resource_id: Option<String>,
}

/// What programs are told of the tenant, the application and the machine.
#[derive(Debug, Clone)]
pub struct Registration {
    pub tenant: String,
    pub client_id: String,
    /// The newest of the application's secrets.
    pub client_secret: Secret,
    /// The machine's own identity.
    pub system: ManagedIdentity,
    /// One that was assigned to it.
    pub assigned: ManagedIdentity,
    /// What `X-IDENTITY-HEADER` must hold.
    pub identity_header: Secret,
}

/// Tenant, application and machine as they stand, with the bearers that were given.
#[derive(Debug)]
pub(super) struct Entra {
    mint: Mint,
    options: EntraOptions,
    registration: Registration,
    /// The application's object id.
    object_id: String,
    secrets: Vec<Secret>,
    certificates: Vec<Registered>,
    controls: EntraControls,
    /// The time that a challenge in force asks for.
    challenge: Option<i64>,
    /// Ids of assertions with their ends, and what had them.
    used: BTreeMap<String, (Timestamp, Vec<u8>)>,
    /// The last bearer for a client and an audience.
    given: BTreeMap<(String, String), bearer::Bearer>,
    /// Bearers that were made.
    made: u64,
    arc_keys: ArcKeys,
    rng: ChaCha8Rng,
}

impl Entra {
    /// Random choices are its own, so that the rest of the world is the same with and without it.
    pub(super) fn new(options: EntraOptions, seed: u64) -> Result<Self, KeyError> {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed.unwrap_or(seed));
        rng.set_stream(1);
        let mut guid = || guid(&mut rng);
        let drawn = [guid(), guid(), guid()];
        let mut identity = |resource_id| ManagedIdentity {
            client_id: guid(),
            object_id: guid(),
            resource_id,
        };
        let system = identity(None);
        let assigned = identity(Some(
            "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/emulator/providers/Microsoft.ManagedIdentity/userAssignedIdentities/renewd".to_owned(),
        ));
        let [tenant, client_id, object_id] = drawn;
        let drawn = [secret(&mut rng), secret(&mut rng)];
        let [client_secret, identity_header] = drawn;
        let client_secret = options.client_secret.clone().unwrap_or(client_secret);
        let registration = Registration {
            tenant: options.tenant.clone().unwrap_or(tenant).to_lowercase(),
            client_id: options
                .client_id
                .clone()
                .unwrap_or(client_id)
                .to_lowercase(),
            client_secret: client_secret.clone(),
            system,
            assigned,
            identity_header,
        };
        Ok(Self {
            mint: Mint::new(TokenAlg::Rs256)?,
            arc_keys: ArcKeys::new(options.arc_folder.clone()),
            options,
            registration,
            object_id,
            secrets: vec![client_secret],
            certificates: Vec::new(),
            controls: EntraControls::default(),
            challenge: None,
            used: BTreeMap::new(),
            given: BTreeMap::new(),
            made: 0,
            rng,
        })
    }

    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    pub(super) fn controls(&self) -> &EntraControls {
        &self.controls
    }

    /// Scheme of the authority where the request itself does not say it.
    pub(super) fn scheme(&self) -> &'static str {
        if self.options.plain_http {
            "http"
        } else {
            "https"
        }
    }

    /// Changes the controls. A challenge that is ordered anew is a new one.
    pub(super) fn steer(&mut self, change: impl FnOnce(&mut EntraControls)) {
        let before = self.controls.challenge;
        change(&mut self.controls);
        if before != self.controls.challenge {
            self.challenge = None;
        }
    }

    /// The same, as the control API takes it.
    pub(super) fn steer_by(&mut self, changes: Value) -> Result<(), String> {
        let new = self.controls.changed(changes)?;
        self.steer(|controls| *controls = new);
        Ok(())
    }

    /// How many bearers were made.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Gives the application one more secret, or this one.
    pub(super) fn add_secret(&mut self, text: Option<Secret>) -> Secret {
        let new = text.unwrap_or_else(|| secret(&mut self.rng));
        self.secrets.push(new.clone());
        self.registration.client_secret = new.clone();
        new
    }

    /// Takes every secret but the newest away.
    pub(super) fn retire_secrets(&mut self) {
        let newest = self.secrets.len().saturating_sub(1);
        self.secrets.drain(..newest);
    }

    /// Registers a certificate that somebody else made.
    pub(super) fn add_certificate(&mut self, pem: &str) -> Result<(), CertificateError> {
        self.certificates.push(Registered::read(pem)?);
        Ok(())
    }

    /// Makes a certificate that ends then and registers it; key and certificate as PEM. Its key is one that
    /// everybody can read in the emulator's sources.
    pub(super) fn make_certificate(
        &mut self,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Secret, CertificateError> {
        let serial = self.rng.random::<u64>() >> 1;
        let (pem, registered) = certificate::make(serial, from, until)?;
        self.certificates.push(registered);
        Ok(pem)
    }

    /// Takes every certificate but the newest away.
    pub(super) fn retire_certificates(&mut self) {
        let newest = self.certificates.len().saturating_sub(1);
        self.certificates.drain(..newest);
    }

    /// Answers a request, and says why where it is refused.
    pub(super) fn answer(
        &mut self,
        place: &Place,
        part: EntraPart,
        asked: &Asked<'_>,
    ) -> (Response<Bytes>, Option<String>) {
        let said = match place {
            Place::Discovery(tenant) => authority::discovery(self, tenant, asked),
            Place::Token(tenant) => authority::token(self, tenant, part, asked),
            Place::Metadata if part == EntraPart::Arc => metadata::arc(self, asked),
            Place::Metadata => metadata::imds(self, asked),
            Place::AppService => metadata::app_service(self, asked),
        };
        match said {
            Ok(body) => {
                let mut answer = answer::json(StatusCode::OK, &body);
                let uncached = HeaderValue::from_static("no-store, no-cache");
                answer.headers_mut().insert(CACHE_CONTROL, uncached);
                (answer, None)
            }
            Err(refusal) => {
                let answer = refuse(part, &refusal, asked.now);
                // To be asked for more is the first half of getting a bearer.
                (
                    answer,
                    Some(refusal.reason).filter(|_| refusal.challenge.is_none()),
                )
            }
        }
    }

    /// As the control API shows it; secrets included, whoever may ask there is a test.
    pub(super) fn show(&self) -> Value {
        let registration = &self.registration;
        json!({
            "tenant": registration.tenant,
            "client_id": registration.client_id,
            "client_secret": registration.client_secret.expose(),
            "secrets": self.secrets.len(),
            "certificates": self.certificates.iter().map(Registered::show).collect::<Vec<_>>(),
            "issuer": self.options.issuer,
            "subject": self.options.subject,
            "system_identity": registration.system,
            "assigned_identity": registration.assigned,
            "identity_header": registration.identity_header.expose(),
            "bearers": self.made,
            "controls": self.controls,
        })
    }
}

/// Lower-case, version 4.
fn guid(rng: &mut ChaCha8Rng) -> String {
    uuid::Builder::from_random_bytes(rng.random())
        .into_uuid()
        .hyphenated()
        .to_string()
}

/// 48 hexadecimal digits.
fn secret(rng: &mut ChaCha8Rng) -> Secret {
    Secret::new(hex(rng.random::<[u8; 24]>()))
}

#[cfg(test)]
mod tests;
