//! The door for tests, under `/_emulator/v1/`: JSON in, JSON out, guarded if so wished. PUT is as
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
//! | `jwks` | GET | the public test keys; never guarded |

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::{Emulator, answer, control, mint};

pub(super) const PREFIX: &str = "/_emulator/v1/";

/// The header that carries the control door's secret.
pub const CONTROL_HEADER: HeaderName = HeaderName::from_static("x-emulator-control");

/// Why the door does not do what it was asked.
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

/// Answers a request to the door.
pub(super) fn answer(emulator: &Emulator, request: &Request<Bytes>) -> Response<Bytes> {
    let path = request.uri().path().trim_start_matches(PREFIX);
    let done = if path == "jwks" {
        mint::jwks().map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    } else if !may_enter(emulator, request) {
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

fn may_enter(emulator: &Emulator, request: &Request<Bytes>) -> bool {
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
        ["faults"] if *method == get => Ok(control::faults(emulator)),
        ["faults"] if *method == post => control::add_fault(emulator, read(request)?),
        ["faults"] if *method == delete => Ok(control::clear_faults(emulator)),
        ["faults", number] if *method == delete => control::clear_fault(emulator, number),
        ["keys"] if *method == get => Ok(control::keys(emulator)),
        ["keys"] if *method == post => Ok(control::regenerate(emulator, &read(request)?)),
        ["limits"] if *method == get => Ok(control::limits(emulator)),
        ["limits"] if *method == post => control::set_limits(emulator, read(request)?),
        ["tokens"] if *method == post => control::judge_tokens(emulator, read(request)?),
        ["requests"] if *method == get => control::requests(emulator, request.uri().query()),
        ["requests"] if *method == delete => Ok(control::forget_requests(emulator)),
        ["stats"] if *method == get => Ok(control::stats(emulator)),
        ["stats"] if *method == delete => Ok(control::forget_stats(emulator)),
        ["identities"] if *method == get => Ok(control::identities(emulator)),
        ["clock"] if *method == get => Ok(control::clock(emulator)),
        ["clock"] if *method == post => control::move_clock(emulator, &read(request)?),
        [
            "faults" | "keys" | "limits" | "tokens" | "requests" | "stats" | "identities" | "clock",
        ] => Err(Refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} does not take {method}"),
        )),
        _ => Err(Refusal::unknown(format!(
            "there is no {path}; known are faults, keys, limits, tokens, requests, stats, identities, clock, jwks"
        ))),
    }
}

fn read<T: DeserializeOwned>(request: &Request<Bytes>) -> Result<T, Refusal> {
    serde_json::from_slice(request.body())
        .map_err(|error| Refusal::bad(format!("cannot read the body: {error}")))
}
