//! Assertions: the tokens by which a client proves itself without a secret. One is signed with the key of a
//! certificate of the application, in every form that the SDKs send; the other is a federated token.
//!
//! The SDKs of Python and JavaScript send one assertion again and again while it lives, so the real service takes
//! that. That it looks at `jti` otherwise, or how far off it lets times be, is unverified.

use std::time::Duration;

use base64::{
    Engine,
    prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use renewd_acs_wire::{Secret, hex};
use ring::{
    digest::{SHA256, digest},
    signature::{
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;

use super::{Entra, Refusal, certificate::Registered};
use crate::{call, mint::KeyError};

/// The audience of every federated token.
const EXCHANGE: &str = "api://AzureADTokenExchange";
/// How far clocks may differ.
const SKEW: f64 = 300.0;
/// How far off the end of an assertion by a certificate may be.
const LONGEST: f64 = 86_400.0;
/// The longest text that is looked at.
const LARGEST: usize = 64 << 10;

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    x5t: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
    crit: Option<serde_json::Value>,
}

/// Times are numbers with or without a fraction.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn holds(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

/// A compact JWS that was taken apart.
struct Jws<'a> {
    /// Header and claims, as they are signed.
    signed: &'a str,
    signature: Vec<u8>,
    header: Header,
    claims: Claims,
}

/// Base64url. Python's asynchronous client pads every part, its other one the thumbprint alone, the rest nothing.
fn unencoded(text: &str) -> Option<Vec<u8>> {
    let unpadded = BASE64_URL_SAFE_NO_PAD.decode(text);
    unpadded.or_else(|_| BASE64_URL_SAFE.decode(text)).ok()
}

fn part<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    let bytes = unencoded(text).ok_or_else(|| format!("its {what} is not base64url"))?;
    // The text of the error could quote a claim; its kind and place say enough.
    serde_json::from_slice(&bytes).map_err(|error| {
        let (kind, column) = (error.classify(), error.column());
        format!("its {what} is not the JSON that is wanted ({kind:?} error at column {column})")
    })
}

impl<'a> Jws<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        if text.len() > LARGEST {
            return Err(format!("it is longer than {LARGEST} bytes"));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err("it does not have three parts joined by dots".to_owned());
        };
        let signed = &text[..header.len() + 1 + claims.len()];
        let signature = unencoded(signature);
        let jws = Self {
            signed,
            signature: signature.ok_or("its signature is not base64url")?,
            header: part(header, "header")?,
            claims: part(claims, "payload")?,
        };
        if jws.header.crit.is_some() {
            return Err("its header has `crit`".to_owned());
        }
        let typ = jws.header.typ.as_deref().unwrap_or("JWT");
        if !typ.eq_ignore_ascii_case("JWT") {
            return Err(format!("its `typ` is {typ:?}"));
        }
        Ok(jws)
    }

    /// The error names what is wrong with the times; `longest` is how many seconds off the end may be.
    fn check_times(&self, now: Timestamp, longest: f64) -> Result<(), String> {
        let now = now.as_millisecond() as f64 / 1000.0;
        let Claims { exp, nbf, iat, .. } = self.claims;
        if exp <= now - SKEW {
            return Err(format!("it ended {:.0} s ago", now - exp));
        }
        if exp > now + longest {
            return Err(format!("it ends in {:.0} s", exp - now));
        }
        match nbf.or(iat) {
            Some(begin) if begin > now + SKEW => Err(format!("it begins in {:.0} s", begin - now)),
            Some(begin) if begin > exp => Err("it begins after its end".to_owned()),
            _ => Ok(()),
        }
    }

    fn is_signed_by(&self, key: &[u8], algorithm: &'static RsaParameters) -> bool {
        UnparsedPublicKey::new(algorithm, key)
            .verify(self.signed.as_bytes(), &self.signature)
            .is_ok()
    }

    /// The certificate that the header names: every name that it has must be of one and the same.
    fn certificate<'c>(&self, known: &'c [Registered]) -> Result<&'c Registered, String> {
        let Header {
            kid, x5t, x5t_s256, ..
        } = &self.header;
        if kid.is_none() && x5t.is_none() && x5t_s256.is_none() {
            return Err("its header has none of x5t#S256, x5t, kid".to_owned());
        }
        let print = |text: &String| unencoded(text);
        let is = |one: &Registered| {
            kid.as_ref().is_none_or(|kid| {
                kid.eq_ignore_ascii_case(&hex(&one.sha1)) || print(kid).as_ref() == Some(&one.sha1)
            }) && x5t
                .as_ref()
                .is_none_or(|x5t| print(x5t).as_ref() == Some(&one.sha1))
                && (x5t_s256.as_ref()).is_none_or(|x5t| print(x5t).as_ref() == Some(&one.sha256))
        };
        let unknown = "its header names no certificate of the application";
        known
            .iter()
            .find(|one| is(one))
            .ok_or_else(|| unknown.to_owned())
    }
}

/// For whom an assertion speaks by its own word; `None` where it is none.
pub(super) fn issuer(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let payload = text.split('.').nth(1).filter(|_| text.len() <= LARGEST)?;
    part::<Issuer>(payload, "payload").ok().map(|said| said.iss)
}

impl Entra {
    /// Judges an assertion by a certificate. `endpoint` is the URL of the token endpoint.
    pub(super) fn judge_assertion(
        &mut self,
        text: &str,
        endpoint: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let unlike = |reason: String| {
            Refusal::new(
                401,
                "invalid_client",
                50_027,
                "JWT token is invalid or malformed.",
            )
            .because(format!("the client assertion: {reason}"))
        };
        let invalid = |text: &str, reason: String| {
            Refusal::new(401, "invalid_client", 700_027, text)
                .because(format!("the client assertion: {reason}"))
        };
        let jws = Jws::read(text).map_err(unlike)?;
        let algorithm = match jws.header.alg.as_str() {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            other => {
                return Err(unlike(format!(
                    "its `alg` is {other:?}; RS256 and PS256 are taken"
                )));
            }
        };
        let unregistered = "The certificate with identifier used to sign the client assertion is not registered on application.";
        let registered = jws.certificate(&self.certificates);
        let registered = registered.map_err(|reason| invalid(unregistered, reason))?;
        if !jws.is_signed_by(&registered.key, algorithm) {
            return Err(invalid(
                "Client assertion failed signature validation.",
                "its signature is not by the certificate's key".to_owned(),
            ));
        }
        if now < registered.from || registered.until <= now {
            let reason = format!("the certificate ended at {}", registered.until);
            return Err(invalid(
                "Client assertion contains an invalid signature. [Reason - The key used is expired.]",
                reason,
            ));
        }
        let client = &self.registration.client_id;
        check_parties(&jws.claims, client, endpoint).map_err(unlike)?;
        jws.check_times(now, LONGEST).map_err(|reason| {
            Refusal::new(
                401,
                "invalid_client",
                700_024,
                "Client assertion is not within its valid time range.",
            )
            .because(format!("the client assertion: {reason}"))
        })?;
        self.use_up(&jws, now).map_err(unlike)
    }

    /// Notes the id of an assertion, which no other may have; with the control `assertion_once` not even the same
    /// one again.
    fn use_up(&mut self, jws: &Jws<'_>, now: Timestamp) -> Result<(), String> {
        self.used.retain(|_, (until, _)| *until > now);
        let Some(jti) = jws.claims.jti.as_ref().filter(|jti| !jti.is_empty()) else {
            return Err("it has no `jti`".to_owned());
        };
        let life = Duration::try_from_secs_f64(jws.claims.exp + SKEW).unwrap_or_default();
        let until = call::after(Timestamp::UNIX_EPOCH, life);
        let print = digest(&SHA256, jws.signed.as_bytes()).as_ref().to_vec();
        match self.used.get(jti) {
            Some((_, before)) if self.controls.assertion_once || *before != print => {
                Err("its `jti` was used before".to_owned())
            }
            _ => {
                self.used.insert(jti.clone(), (until, print));
                Ok(())
            }
        }
    }

    /// A federated token for the application, as a cluster's issuer would put it into a pod.
    pub(crate) fn federated_token(
        &self,
        now: Timestamp,
        life: Duration,
    ) -> Result<Secret, KeyError> {
        let claims = serde_json::json!({
            "iss": self.options.issuer,
            "sub": self.options.subject,
            "aud": [EXCHANGE],
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": call::after(now, life).as_second(),
        });
        self.mint.sign(&claims, [0; 32])
    }

    /// Judges a federated token, or the text that is taken for one.
    pub(super) fn judge_federated(&self, text: &str, now: Timestamp) -> Result<(), Refusal> {
        // A file that was written by hand ends with a line.
        let text = text.trim_end_matches(['\r', '\n']);
        let taken = self.options.federated_token.as_ref();
        if taken.is_some_and(|taken| taken.expose().as_bytes().ct_eq(text.as_bytes()).into()) {
            return Ok(());
        }
        let unlike = |reason: String| {
            Refusal::new(
                401,
                "invalid_client",
                700_213,
                "No matching federated identity record found for presented assertion.",
            )
            .because(format!("the federated token: {reason}"))
        };
        let jws = Jws::read(text).map_err(unlike)?;
        let options = &self.options;
        let Claims { iss, sub, aud, .. } = &jws.claims;
        if self.mint.read::<serde_json::Value>(text).is_none() {
            return Err(unlike(
                "it is not signed (RS256) with the emulator's key".to_owned(),
            ));
        }
        if (iss, sub) != (&options.issuer, &options.subject) {
            return Err(unlike(format!(
                "it is of {sub} by {iss}, not of {} by {}",
                options.subject, options.issuer
            )));
        }
        if !aud.holds(EXCHANGE) {
            return Err(unlike(format!("its audience is not {EXCHANGE}")));
        }
        jws.check_times(now, f64::INFINITY).map_err(unlike)
    }
}

fn check_parties(claims: &Claims, client: &str, endpoint: &str) -> Result<(), String> {
    for (name, found) in [("iss", &claims.iss), ("sub", &claims.sub)] {
        if !found.eq_ignore_ascii_case(client) {
            return Err(format!(
                "its `{name}` is {found:?}, not the client id {client}"
            ));
        }
    }
    if claims.aud.holds(endpoint) {
        return Ok(());
    }
    Err(format!("its `aud` is {:?}, not {endpoint}", claims.aud))
}
