//! The control API for tests, verb by verb, under `/_emulator/v1/`: JSON in, JSON out, guarded if so wished. PUT is as
//! good as POST.
//!
//! | path | method | what |
//! |---|---|---|
//! | `faults` | GET, POST, DELETE | list, add (see `faults`), clear; DELETE `faults/N` clears one |
//! | `keys` | GET, POST | show; `{"regenerate":"primary"}` |
//! | `limits` | GET, POST | show; `{"issue":"1000/30s","create":null}` changes those |
//! | `tokens` | POST | `{"token":"…"}` or `{"tokens":["…"]}`: which are live, and why not |
//! | `requests` | GET, DELETE | the last ones, `?limit=100&operation=issue`; forget them |
//! | `stats` | GET, DELETE | calls, 429s and so on by operation, identities; forget the calls |
//! | `identities` | GET | every one that was created |
//! | `clock` | GET, POST | `{"offset_seconds":300}` sets, `{"advance_seconds":60}` moves |
//! | `entra` | GET, POST, DELETE | tenant, application, machine and controls; `{"role":false}` changes a control (see `entra::controls`); all as at the start |
//! | `entra/secrets` | POST, DELETE | one more secret of the application, `{}` or `{"secret":"…"}`; all but the newest are gone |
//! | `entra/certificates` | POST, DELETE | registers `{"pem":"…"}`, or makes one, `{"lives_seconds":86400}`; all but the newest are gone |
//! | `entra/federated` | POST | a federated token, `{"lives_seconds":3600}` |
//! | `jwks` | GET | the public test keys; never guarded |

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use renewd_acs_wire::Secret;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::{
    Emulator,
    access_keys::Slot,
    answer,
    call::{self, OPERATIONS, Purpose},
    entra::EntraControls,
    faults::{FaultSpec, Limits},
    mint,
    world::World,
};

pub(super) const PREFIX: &str = "/_emulator/v1/";

/// The header that carries the control API's secret.
pub const CONTROL_HEADER: HeaderName = HeaderName::from_static("x-emulator-control");

/// Why the control API does not do what it was asked.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, String);

impl Refusal {
    pub(super) fn bad(what: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, what.into())
    }

    pub(super) fn unknown(what: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, what.into())
    }
}

/// Answers a request to the control API.
pub(super) fn answer(emulator: &Emulator, request: &Request<Bytes>) -> Response<Bytes> {
    let path = request.uri().path().trim_start_matches(PREFIX);
    let done = if path == "jwks" {
        mint::jwks().map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    } else if !is_authorized(emulator, request) {
        Err(Refusal(
            StatusCode::UNAUTHORIZED,
            format!("the header {CONTROL_HEADER} does not hold the control secret"),
        ))
    } else {
        dispatch(emulator, request, path)
    };
    match done {
        Ok(value) => answer::json(StatusCode::OK, &value),
        Err(Refusal(status, what)) => answer::json(status, &json!({"error": what})),
    }
}

/// The same for whoever is in this process: the path, JSON in, JSON out.
pub(super) fn call_in_process(
    emulator: &Emulator,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<Value, String> {
    let request = Request::builder()
        .method(method)
        .uri(format!("{PREFIX}{path}"))
        .body(Bytes::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    let path = request.uri().path().trim_start_matches(PREFIX);
    dispatch(emulator, &request, path).map_err(|Refusal(_, what)| what)
}

fn is_authorized(emulator: &Emulator, request: &Request<Bytes>) -> bool {
    let Some(secret) = &emulator.options.control_secret else {
        return true;
    };
    let shown = request.headers().get(CONTROL_HEADER);
    shown.is_some_and(|shown| shown.as_bytes().ct_eq(secret.expose().as_bytes()).into())
}

fn dispatch(emulator: &Emulator, request: &Request<Bytes>, path: &str) -> Result<Value, Refusal> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let method = match request.method() {
        asked if *asked == Method::PUT => &post,
        asked => asked,
    };
    let segments: Vec<&str> = path.split('/').collect();
    match segments[..] {
        ["faults"] if *method == get => Ok(faults(emulator)),
        ["faults"] if *method == post => add_fault(emulator, read(request)?),
        ["faults"] if *method == delete => Ok(clear_faults(emulator)),
        ["faults", number] if *method == delete => clear_fault(emulator, number),
        ["keys"] if *method == get => Ok(keys(emulator)),
        ["keys"] if *method == post => Ok(regenerate(emulator, &read(request)?)),
        ["limits"] if *method == get => Ok(limits(emulator)),
        ["limits"] if *method == post => set_limits(emulator, read(request)?),
        ["tokens"] if *method == post => judge_tokens(emulator, read(request)?),
        ["requests"] if *method == get => requests(emulator, request.uri().query()),
        ["requests"] if *method == delete => Ok(forget_requests(emulator)),
        ["stats"] if *method == get => Ok(stats(emulator)),
        ["stats"] if *method == delete => Ok(forget_stats(emulator)),
        ["identities"] if *method == get => Ok(identities(emulator)),
        ["clock"] if *method == get => Ok(clock(emulator)),
        ["clock"] if *method == post => move_clock(emulator, &read(request)?),
        ["entra", ..] => entra(emulator, method, &segments[1..], request),
        [
            "faults" | "keys" | "limits" | "tokens" | "requests" | "stats" | "identities" | "clock",
        ] => Err(not_taken(path, method)),
        _ => Err(no_such(path)),
    }
}

fn not_taken(path: &str, method: &Method) -> Refusal {
    let what = format!("{path} does not take {method}");
    Refusal(StatusCode::METHOD_NOT_ALLOWED, what)
}

fn no_such(path: &str) -> Refusal {
    Refusal::unknown(format!(
        "there is no {path}; known are faults, keys, limits, tokens, requests, stats, identities, clock, entra, entra/secrets, entra/certificates, entra/federated, jwks"
    ))
}

fn entra(
    emulator: &Emulator,
    method: &Method,
    inside: &[&str],
    request: &Request<Bytes>,
) -> Result<Value, Refusal> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    match inside {
        [] if *method == get => {}
        [] if *method == post => {
            let steered = emulator.world().entra.steer_by(read(request)?);
            steered.map_err(Refusal::bad)?;
        }
        [] if *method == delete => {
            emulator.steer_entra(|controls| *controls = EntraControls::default())
        }
        ["secrets"] if *method == post => return add_secret(emulator, read(request)?),
        ["secrets"] if *method == delete => emulator.world().entra.retire_secrets(),
        ["certificates"] if *method == post => return add_certificate(emulator, read(request)?),
        ["certificates"] if *method == delete => emulator.world().entra.retire_certificates(),
        ["federated"] if *method == post => return federated_token(emulator, &read(request)?),
        [] | ["secrets" | "certificates" | "federated"] => {
            return Err(not_taken(&format!("entra/{}", inside.join("/")), method));
        }
        _ => return Err(no_such(&format!("entra/{}", inside.join("/")))),
    }
    Ok(emulator.world().entra.show())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddSecret {
    #[serde(default)]
    secret: Option<String>,
}

fn add_secret(emulator: &Emulator, request: AddSecret) -> Result<Value, Refusal> {
    if request.secret.as_ref().is_some_and(String::is_empty) {
        return Err(Refusal::bad("a secret is not empty"));
    }
    let given = request.secret.map(Secret::new);
    let new = emulator.world().entra.add_secret(given);
    Ok(json!({"client_secret": new.expose()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddCertificate {
    #[serde(default)]
    pem: Option<String>,
    #[serde(default)]
    lives_seconds: Option<u32>,
}

/// A year, where nothing else is asked for.
const USUAL_LIFE: u32 = 365 * 86_400;

fn add_certificate(emulator: &Emulator, request: AddCertificate) -> Result<Value, Refusal> {
    if let Some(pem) = request.pem {
        let added = emulator.world().entra.add_certificate(&pem);
        added.map_err(|error| Refusal::bad(error.to_string()))?;
        return Ok(emulator.world().entra.show());
    }
    let life = Duration::from_secs(request.lives_seconds.unwrap_or(USUAL_LIFE).into());
    let made = emulator.client_certificate(call::after(emulator.now(), life));
    let pem = made.map_err(|error| Refusal::bad(error.to_string()))?;
    Ok(json!({"pem": pem.expose()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskFederated {
    #[serde(default)]
    lives_seconds: Option<u32>,
}

fn federated_token(emulator: &Emulator, request: &AskFederated) -> Result<Value, Refusal> {
    let life = Duration::from_secs(request.lives_seconds.unwrap_or(3600).into());
    let made = emulator.federated_token(life);
    let token = made.map_err(|error| Refusal::bad(error.to_string()))?;
    Ok(json!({"token": token.expose()}))
}

fn read<T: DeserializeOwned>(request: &Request<Bytes>) -> Result<T, Refusal> {
    serde_json::from_slice(request.body())
        .map_err(|error| Refusal::bad(format!("cannot read the body: {error}")))
}

fn faults(emulator: &Emulator) -> Value {
    json!({"faults": emulator.world().faults.list()})
}

fn add_fault(emulator: &Emulator, spec: FaultSpec) -> Result<Value, Refusal> {
    let number = emulator.world().faults.add(spec).map_err(Refusal::bad)?;
    Ok(json!({"number": number}))
}

fn clear_faults(emulator: &Emulator) -> Value {
    emulator.world().faults.clear();
    faults(emulator)
}

fn clear_fault(emulator: &Emulator, number: &str) -> Result<Value, Refusal> {
    let removed = number
        .parse()
        .is_ok_and(|number| emulator.world().faults.remove(number));
    if removed {
        Ok(faults(emulator))
    } else {
        Err(Refusal::unknown(format!("there is no fault {number}")))
    }
}

/// The keys themselves: whoever may ask here is a test of the one who started the emulator.
fn keys(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let show = |slot| {
        let key = world.keys.get(slot);
        json!({"key": key.text().expose(), "generation": key.stamp.generation})
    };
    json!({"primary": show(Slot::Primary), "secondary": show(Slot::Secondary)})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Regenerate {
    regenerate: Slot,
}

fn regenerate(emulator: &Emulator, request: &Regenerate) -> Value {
    emulator.world().regenerate(request.regenerate);
    let slot = request.regenerate.as_str();
    tracing::info!(key = slot, "an access key was regenerated");
    keys(emulator)
}

fn limits(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let shown: BTreeMap<&str, Option<String>> = OPERATIONS
        .into_iter()
        .map(|operation| {
            let limit = world.limiter.limits().0.get(&operation);
            (operation.as_str(), limit.map(ToString::to_string))
        })
        .collect();
    json!(shown)
}

fn set_limits(
    emulator: &Emulator,
    changes: BTreeMap<String, Option<String>>,
) -> Result<Value, Refusal> {
    let mut new: Limits = emulator.world().limiter.limits().clone();
    for (operation, limit) in changes {
        let limit = limit.unwrap_or_else(|| "off".to_owned());
        new.set(&format!("{operation}={limit}"))
            .map_err(|e| Refusal::bad(e.to_string()))?;
    }
    emulator.world().limiter.replace(new);
    Ok(limits(emulator))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgeTokens {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    tokens: Option<Vec<String>>,
}

fn judge_tokens(emulator: &Emulator, request: JudgeTokens) -> Result<Value, Refusal> {
    match (request.token, request.tokens) {
        (Some(token), None) => Ok(judge(emulator, &Secret::new(token))),
        (None, Some(tokens)) => {
            let results: Vec<Value> = tokens
                .into_iter()
                .map(|token| judge(emulator, &Secret::new(token)))
                .collect();
            Ok(json!({"results": results}))
        }
        _ => Err(Refusal::bad("give either token or tokens")),
    }
}

/// Whether a token is live, and if not, why.
fn judge(emulator: &Emulator, token: &Secret) -> Value {
    let (known, now) = {
        let world = emulator.world();
        let now = emulator.now_at(world.offset);
        let known = world
            .tokens
            .find(token.expose())
            .map(|facts| (facts.clone(), world.death(facts, now)));
        (known, now)
    };
    if let Some((facts, death)) = known {
        return verdict(death, &facts.owner, facts.expires_at);
    }
    let Some(claims) = emulator.mint.read(token.expose()) else {
        return json!({"live": false, "reason": "unknown", "id": null, "expires_at": null});
    };
    let death = emulator.world().death_of_adopted(&claims, now);
    let ends = Timestamp::from_second(claims.exp).unwrap_or(now);
    verdict(death, &format!("8:{}", claims.skypeid), ends)
}

fn verdict(death: Option<&str>, id: &str, expires_at: Timestamp) -> Value {
    json!({
        "live": death.is_none(),
        "reason": death,
        "id": id,
        "expires_at": expires_at,
    })
}

fn requests(emulator: &Emulator, query: Option<&str>) -> Result<Value, Refusal> {
    let (mut limit, mut operation) = (100, None);
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
    {
        match pair.split_once('=') {
            Some(("limit", value)) => {
                let wrong = |_| Refusal::bad("limit must be a number");
                limit = value.parse().map_err(wrong)?;
            }
            Some(("operation", value)) => {
                let unknown = || Refusal::bad(format!("there is no operation {value}"));
                operation = Some(Purpose::named(value).ok_or_else(unknown)?);
            }
            _ => return Err(Refusal::bad("known are limit=N and operation=NAME")),
        }
    }
    let world = emulator.world();
    Ok(json!({"requests": world.request_log.recent(limit, operation)}))
}

fn forget_requests(emulator: &Emulator) -> Value {
    emulator.world().request_log.forget_requests();
    json!({"requests": []})
}

fn stats(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let (created, deleted) = world
        .identities()
        .fold((0_u64, 0_u64), |(all, gone), (_, identity)| {
            (all + 1, gone + u64::from(identity.deleted))
        });
    json!({
        "operations": world.request_log.counts(),
        "identities": {"created": created, "deleted": deleted},
        "bearers": world.entra.made(),
    })
}

fn forget_stats(emulator: &Emulator) -> Value {
    emulator.world().request_log.forget_counts();
    stats(emulator)
}

fn identities(emulator: &Emulator) -> Value {
    let world = emulator.world();
    let list: Vec<Value> = world
        .identities()
        .map(|(id, identity)| {
            json!({
                "id": id,
                "created_at": identity.created_at,
                "deleted": identity.deleted,
                "tokens_issued": identity.tokens_issued,
            })
        })
        .collect();
    json!({"identities": list})
}

fn clock(emulator: &Emulator) -> Value {
    let world = emulator.world();
    show_clock(emulator, &world)
}

fn show_clock(emulator: &Emulator, world: &World) -> Value {
    json!({
        "now": emulator.now_at(world.offset),
        "offset_seconds": world.offset.as_secs_f64(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveClock {
    #[serde(default)]
    offset_seconds: Option<f64>,
    #[serde(default)]
    advance_seconds: Option<f64>,
}

fn move_clock(emulator: &Emulator, request: &MoveClock) -> Result<Value, Refusal> {
    let read = |seconds: Option<f64>| match seconds {
        Some(seconds) => SignedDuration::try_from_secs_f64(seconds)
            .map(Some)
            .map_err(|_| Refusal::bad("that is too far for a clock")),
        None => Ok(None),
    };
    let (set, advance) = (
        read(request.offset_seconds)?,
        read(request.advance_seconds)?,
    );
    let mut world = emulator.world();
    let from = set.unwrap_or(world.offset);
    let to = from
        .checked_add(advance.unwrap_or_default())
        .ok_or_else(|| Refusal::bad("that is too far for a clock"))?;
    world.offset = to;
    Ok(show_clock(emulator, &world))
}
