//! The authority: discovery, and the token endpoint with its three ways of proving who one is.

use std::collections::BTreeMap;

use http::{Method, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::{
    Asked, Entra, EntraPart, Refusal, assertion,
    bearer::{self, Holder},
    pairs,
};

/// The one type of assertion.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const FORM: &str = "application/x-www-form-urlencoded";
/// Room for an assertion of the longest kind, and all else.
const LARGEST: usize = 256 << 10;

/// Which way of proving itself a form takes: an assertion of a client for itself is signed with its certificate,
/// every other one is somebody else's word for it.
pub(super) fn part(body: &[u8]) -> EntraPart {
    let form = fields(body).unwrap_or_default();
    let Some(text) = form.get("client_assertion") else {
        return EntraPart::ClientSecret;
    };
    let client = form.get("client_id").map_or("", String::as_str);
    match assertion::issuer(text) {
        Some(issuer) if issuer.eq_ignore_ascii_case(client) => EntraPart::ClientCertificate,
        _ => EntraPart::WorkloadIdentity,
    }
}

/// An error as the authority writes it.
pub(super) fn refusal(refusal: &Refusal, now: Timestamp) -> Value {
    let stamp = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let trace = uuid::Uuid::nil().to_string();
    json!({
        "error": refusal.error,
        "error_description": format!(
            "AADSTS{}: {} Trace ID: {trace} Correlation ID: {trace} Timestamp: {stamp}",
            refusal.number, refusal.text
        ),
        "error_codes": [refusal.number],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": trace,
        "error_uri": format!("https://login.microsoftonline.com/error?code={}", refusal.number),
    })
}

fn endpoint(tenant: &str, base: &str) -> String {
    format!("{base}/{tenant}/oauth2/v2.0/token")
}

fn check_tenant(entra: &Entra, tenant: &str, error: &'static str) -> Result<(), Refusal> {
    if tenant.eq_ignore_ascii_case(&entra.registration.tenant) {
        return Ok(());
    }
    let text =
        format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
    let reason = format!("the tenant here is {}", entra.registration.tenant);
    Err(Refusal::new(400, error, 90_002, text).because(reason))
}

/// The metadata of OpenID Connect. The tenant is written as it was asked for.
pub(super) fn discovery(entra: &Entra, tenant: &str, asked: &Asked<'_>) -> Result<Value, Refusal> {
    check_method(asked, &Method::GET)?;
    check_tenant(entra, tenant, "invalid_tenant")?;
    let base = &asked.base;
    Ok(json!({
        "token_endpoint": endpoint(tenant, base),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": format!("{base}/_emulator/v1/jwks"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": format!("{base}/{tenant}/v2.0"),
        "request_uri_parameter_supported": false,
        "authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/devicecode"),
        "end_session_endpoint": format!("{base}/{tenant}/oauth2/v2.0/logout"),
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "ver"],
        "tenant_region_scope": "NA",
    }))
}

fn check_method(asked: &Asked<'_>, wanted: &Method) -> Result<(), Refusal> {
    if asked.method == wanted {
        return Ok(());
    }
    let text = format!(
        "The endpoint only accepts {wanted} requests. Received a {} request.",
        asked.method
    );
    Err(Refusal::new(400, "invalid_request", 900_561, text))
}

/// A bearer for whoever proves to be the application.
pub(super) fn token(
    entra: &mut Entra,
    tenant: &str,
    part: EntraPart,
    asked: &Asked<'_>,
) -> Result<Value, Refusal> {
    check_method(asked, &Method::POST)?;
    let form = read_form(asked)?;
    check_tenant(entra, tenant, "invalid_request")?;
    let grant = field(&form, "grant_type")?;
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(Refusal::new(400, "unsupported_grant_type", 70_003, text));
    }
    check_client(entra, field(&form, "client_id")?)?;
    let audience = read_scope(field(&form, "scope")?)?;
    prove(
        entra,
        &form,
        part,
        &endpoint(tenant, &asked.base),
        asked.now,
    )?;
    let answers = challenge_answered(&form)?.filter(|asked| entra.challenge == Some(*asked));
    let (client, object) = (
        entra.registration.client_id.clone(),
        entra.object_id.clone(),
    );
    let holder = Holder {
        client: &client,
        object: &object,
        answers,
    };
    let bearer = entra.grant(part, holder, &audience, asked.now)?;
    let mut answer = json!({
        "token_type": "Bearer",
        "expires_in": bearer.left(asked.now),
        "ext_expires_in": bearer.left(asked.now),
        "access_token": bearer.text.expose(),
    });
    if let Some(refresh) = entra.controls.refresh_in {
        answer["refresh_in"] = refresh.as_secs().into();
    }
    Ok(answer)
}

fn read_form(asked: &Asked<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let kind = asked
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let essence = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let form = Some(asked.body).filter(|_| essence.trim().eq_ignore_ascii_case(FORM));
    let Some(form) = form else {
        return Err(missing("grant_type").because(format!("the body is {kind:?}, not {FORM}")));
    };
    let text = "The request body cannot be read, is too long, or has a parameter twice.";
    fields(form).ok_or_else(|| Refusal::new(400, "invalid_request", 900_144, text))
}

fn fields(body: &[u8]) -> Option<BTreeMap<String, String>> {
    let body = Some(body).filter(|body| body.len() <= LARGEST)?;
    pairs(std::str::from_utf8(body).ok()?)
}

fn missing(name: &str) -> Refusal {
    let text = format!("The request body must contain the following parameter: '{name}'.");
    Refusal::new(400, "invalid_request", 900_144, text)
}

fn field<'f>(form: &'f BTreeMap<String, String>, name: &str) -> Result<&'f str, Refusal> {
    let found = form.get(name).filter(|value| !value.is_empty());
    found.map(String::as_str).ok_or_else(|| missing(name))
}

fn check_client(entra: &Entra, client: &str) -> Result<(), Refusal> {
    let registration = &entra.registration;
    if client.eq_ignore_ascii_case(&registration.client_id) {
        return Ok(());
    }
    let text = format!(
        "Application with identifier '{client}' was not found in the directory '{}'.",
        registration.tenant
    );
    let reason = format!("the application here is {}", registration.client_id);
    Err(Refusal::new(400, "unauthorized_client", 700_016, text).because(reason))
}

/// The audience that a scope stands for. An application asks for all that it was given at one resource.
fn read_scope(scope: &str) -> Result<String, Refusal> {
    let Some(resource) = scope
        .strip_suffix("/.default")
        .filter(|it| !it.contains(' '))
    else {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        return Err(Refusal::new(400, "invalid_scope", 1_002_012, text));
    };
    bearer::audience(resource)
}

/// Whether the client proves to be the application.
fn prove(
    entra: &mut Entra,
    form: &BTreeMap<String, String>,
    part: EntraPart,
    endpoint: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    match (form.get("client_secret"), form.get("client_assertion")) {
        (None, None) => Err(Refusal::new(
            401,
            "invalid_client",
            7_000_216,
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        )),
        // Unverified.
        (Some(_), Some(_)) => Err(Refusal::new(
            400,
            "invalid_request",
            900_144,
            "Only one of 'client_secret' and 'client_assertion' may be given.",
        )),
        (Some(secret), None) => check_secret(entra, secret),
        (None, Some(assertion)) => {
            let kind = field(form, "client_assertion_type")?;
            if kind != JWT_BEARER {
                let text = format!("The client assertion type '{kind}' is not supported.");
                return Err(Refusal::new(400, "invalid_request", 50_013, text));
            }
            match part {
                EntraPart::ClientCertificate => entra.judge_assertion(assertion, endpoint, now),
                _ => entra.judge_federated(assertion, now),
            }
        }
    }
}

fn check_secret(entra: &Entra, given: &str) -> Result<(), Refusal> {
    let is = |known: &&renewd_acs_wire::Secret| -> bool {
        known.expose().as_bytes().ct_eq(given.as_bytes()).into()
    };
    if entra.secrets.iter().any(|known| is(&known)) {
        return Ok(());
    }
    let text = format!(
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
        entra.registration.client_id
    );
    Err(Refusal::new(401, "invalid_client", 7_000_215, text))
}

/// The time that a challenge of ACS asked for, out of the claims that a client hands on.
fn challenge_answered(form: &BTreeMap<String, String>) -> Result<Option<i64>, Refusal> {
    let Some(claims) = form.get("claims") else {
        return Ok(None);
    };
    let claims: Value = serde_json::from_str(claims).map_err(|_| {
        Refusal::new(
            400,
            "invalid_request",
            9_002_314,
            "The claims parameter is not valid JSON.",
        )
    })?;
    let asked = claims.pointer("/access_token/nbf/value");
    Ok(asked
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok()))
}
