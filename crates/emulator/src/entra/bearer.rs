//! Bearers: made for a client and an audience, shaped as the real ones (JWT, RS256), and judged by ACS.
//!
//! A bearer is known by its signature, with a key that everybody can read in this very folder: so it outlives the
//! emulator that made it, as it would a service, and one of another tenant is told from one of this.

use std::time::Duration;

use jiff::Timestamp;
use renewd_acs_wire::Secret;
use serde::{Deserialize, Serialize};

use super::{Challenge, Entra, EntraPart, Refusal, guid};
use crate::{
    answer::{self, Problem},
    call,
    mint::KeyError,
};

/// The resource that ACS is, as a scope and as `resource=` name it; `aud` was never seen, so it is taken with and
/// without the slash.
const ACS: &str = "https://communication.azure.com";
/// Other resources that every tenant knows: their bearers are made, and refused by ACS.
const OTHERS: [&str; 4] = [
    "https://management.azure.com",
    "https://graph.microsoft.com",
    "https://vault.azure.net",
    "https://storage.azure.com",
];
/// Usual lives. Those of the authority vary from 60 to 90 minutes.
const BY_AUTHORITY: Duration = Duration::from_secs(3600);
const BY_METADATA: Duration = Duration::from_secs(86_400);

/// A bearer that was given out.
#[derive(Debug, Clone)]
pub(super) struct Bearer {
    pub(super) text: Secret,
    pub(super) client: String,
    pub(super) made_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Bearer {
    /// Whole seconds that are left.
    pub(super) fn left(&self, now: Timestamp) -> i64 {
        (self.expires_at.as_second() - now.as_second()).max(0)
    }
}

/// For whom a bearer is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) client: &'a str,
    pub(super) object: &'a str,
    /// The time that a claims challenge asked for, where the request answers one.
    pub(super) answers: Option<i64>,
}

/// The claims of real ones that somebody might read, and one of our own.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    appid: String,
    /// How the client proved itself: 1 by a secret, 2 by a key.
    appidacr: String,
    oid: String,
    sub: String,
    tid: String,
    /// Tells each from every other.
    uti: String,
    ver: String,
    /// The challenge that it was asked for with; no claim of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<i64>,
}

/// The audience for a resource, however many slashes it ends with.
pub(super) fn audience(resource: &str) -> Result<String, Refusal> {
    let bare = resource.trim_end_matches('/');
    let mut known = [ACS].into_iter().chain(OTHERS);
    let Some(known) = known.find(|name| name.eq_ignore_ascii_case(bare)) else {
        let text = format!("The resource principal named {resource} was not found in the tenant.");
        let reason = format!("the resource {resource} is unknown here; that of ACS is {ACS}/");
        return Err(Refusal::new(400, "invalid_resource", 500_011, text).because(reason));
    };
    let slash = if bare.len() < resource.len() { "/" } else { "" };
    Ok(format!("{known}{slash}"))
}

impl Entra {
    /// Makes a bearer, or gives the one that was given before.
    pub(super) fn grant(
        &mut self,
        part: EntraPart,
        holder: Holder<'_>,
        audience: &str,
        now: Timestamp,
    ) -> Result<Bearer, Refusal> {
        let place = (holder.client.to_owned(), audience.to_owned());
        let before = self.given.get(&place).filter(|_| self.controls.cached);
        if let Some(bearer) = before.filter(|bearer| bearer.expires_at > now) {
            return Ok(bearer.clone());
        }
        let (usual, appidacr) = match part {
            EntraPart::ClientSecret => (BY_AUTHORITY, "1"),
            EntraPart::ClientCertificate | EntraPart::WorkloadIdentity => (BY_AUTHORITY, "2"),
            _ => (BY_METADATA, "2"),
        };
        let life = self.controls.lifetime.unwrap_or(usual);
        // Whole seconds: what the answer says is what the bearer holds.
        let from = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let expires_at = call::after(from, life);
        let tenant = self.registration.tenant.clone();
        let claims = Claims {
            aud: self
                .controls
                .audience
                .as_deref()
                .unwrap_or(audience)
                .to_owned(),
            iss: format!("https://sts.windows.net/{tenant}/"),
            iat: from.as_second(),
            nbf: from.as_second(),
            exp: expires_at.as_second(),
            appid: holder.client.to_owned(),
            appidacr: appidacr.to_owned(),
            oid: holder.object.to_owned(),
            sub: holder.object.to_owned(),
            tid: tenant,
            uti: guid(&mut self.rng),
            ver: "1.0".to_owned(),
            answers: holder.answers,
        };
        let bearer = Bearer {
            text: self.sign(&claims)?,
            client: holder.client.to_owned(),
            made_at: from,
            expires_at,
        };
        self.made += 1;
        self.given.insert(place, bearer.clone());
        Ok(bearer)
    }

    fn sign(&self, claims: &Claims) -> Result<Secret, Refusal> {
        let failed = |error: KeyError| Refusal::new(500, "server_error", 90_033, error.to_string());
        self.mint.sign(claims, [0; 32]).map_err(failed)
    }

    /// The client that a bearer at ACS belongs to.
    pub(crate) fn admit(&mut self, text: &str, now: Timestamp) -> Result<String, Problem> {
        let denied = |reason: String| answer::bearer_denied(401, reason);
        let unknown = || denied("the bearer is none that an emulator made".to_owned());
        let claims: Claims = self.mint.read(text).ok_or_else(unknown)?;
        if claims.tid != self.registration.tenant {
            return Err(denied(format!(
                "the bearer is of the tenant {}",
                claims.tid
            )));
        }
        if claims.aud.trim_end_matches('/') != ACS {
            return Err(denied(format!(
                "the audience of the bearer is {}; it should be {ACS}/",
                claims.aud
            )));
        }
        if claims.exp <= now.as_second() {
            let ended = Timestamp::from_second(claims.exp).unwrap_or(now);
            return Err(denied(format!("the bearer expired at {ended}")));
        }
        if claims.nbf > call::seconds_up(now) {
            return Err(denied("the bearer is not valid yet".to_owned()));
        }
        self.challenge(claims.answers, now)?;
        if !self.controls.role {
            let reason = format!("{} has no role at the resource", claims.appid);
            return Err(answer::bearer_denied(self.controls.role_status, reason));
        }
        Ok(claims.appid)
    }

    /// Asks for another bearer where that was ordered and this one does not answer it.
    fn challenge(&mut self, answers: Option<i64>, now: Timestamp) -> Result<(), Problem> {
        if self.controls.challenge == Challenge::Off {
            return Ok(());
        }
        let asked = *self.challenge.get_or_insert(now.as_second());
        if self.controls.challenge == Challenge::UntilAnswered && answers == Some(asked) {
            return Ok(());
        }
        let claims = serde_json::json!({
            "access_token": {"nbf": {"essential": true, "value": asked.to_string()}}
        });
        Err(answer::claims_challenge(&claims.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_known_with_and_without_its_slashes() {
        assert_eq!(audience("https://communication.azure.com").unwrap(), ACS);
        for slashes in ["/", "//"] {
            let audience = audience(&format!("{ACS}{slashes}")).unwrap();
            assert_eq!(audience, "https://communication.azure.com/");
        }
        for unknown in [
            "",
            "/",
            "https://communication.azure.com.evil.example/",
            "communication",
        ] {
            assert!(audience(unknown).is_err(), "{unknown}");
        }
    }
}
