//! Requests end to end, without a socket, under paused time: answers, limits, faults, outages, hangs.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, header::RETRY_AFTER};
use serde_json::{Value, json};

use super::*;
use crate::{
    Limits, REASON_HEADER, TokenAlg,
    access_keys::hmac_sha256,
    call::http_date,
    signature::{content_hash, string_to_sign},
};

const HOST: &str = "127.0.0.1:8443";
const V: &str = "?api-version=2023-10-01";

struct Side {
    emulator: Arc<Emulator>,
    clock: Clock,
}

fn side(change: impl FnOnce(&mut EmulatorOptions)) -> Side {
    let clock = Clock::simulated("2026-11-22T12:00:00.5Z".parse().unwrap());
    let mut options = EmulatorOptions {
        token_alg: TokenAlg::Filler,
        ..EmulatorOptions::default()
    };
    change(&mut options);
    let emulator = Arc::new(Emulator::new(options, clock.clone()).unwrap());
    Side { emulator, clock }
}

impl Side {
    fn key(&self, slot: Slot) -> Vec<u8> {
        let text = self.emulator.world().keys.get(slot).text().clone();
        BASE64_STANDARD.decode(text.expose()).unwrap()
    }

    fn signed(&self, method: Method, target: &str, body: &str, key: &[u8]) -> Request<Bytes> {
        let values = [
            http_date(self.clock.now()),
            HOST.to_owned(),
            content_hash(body.as_bytes()),
        ];
        let text = string_to_sign(method.as_str(), target, &values);
        let signature = BASE64_STANDARD.encode(hmac_sha256(key, text.as_bytes()));
        Request::builder()
            .method(method)
            .uri(target)
            .header("host", HOST)
            .header("x-ms-date", &values[0])
            .header("x-ms-content-sha256", &values[2])
            .header("x-ms-client-request-id", "c1")
            .header("content-type", "application/json")
            .header(
                "authorization",
                format!("HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"),
            )
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    async fn call(&self, method: Method, target: &str, body: &str) -> Reply {
        let request = self.signed(method, target, body, &self.key(Slot::Primary));
        self.emulator.handle(request).await
    }

    async fn post(&self, target: &str, body: &str) -> Response<Bytes> {
        answered(self.call(Method::POST, target, body).await)
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("/_emulator/v1/{path}"))
            .body(Bytes::from(body.to_string()))
            .unwrap();
        json_of(&answered(self.emulator.handle(request).await))
    }

    async fn create(&self) -> String {
        let answer = self.post(&format!("/identities{V}"), "").await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        json_of(&answer)["identity"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    async fn issue(&self, id: &str) -> Response<Bytes> {
        let target = format!("/identities/{id}/:issueAccessToken{V}");
        self.post(&target, r#"{"scopes":["chat"]}"#).await
    }

    async fn judge(&self, token: &str) -> Value {
        self.control(Method::POST, "tokens", json!({"token": token}))
            .await
    }
}

fn answered(reply: Reply) -> Response<Bytes> {
    match reply {
        Reply::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

fn error_of(answer: &Response<Bytes>) -> (u16, String, String, Value) {
    let error = &json_of(answer)["error"];
    (
        answer.status().as_u16(),
        error["code"].as_str().unwrap().to_owned(),
        error["message"].as_str().unwrap().to_owned(),
        error["target"].clone(),
    )
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    Some(answer.headers().get(name)?.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_success_has_the_services_headers() {
    let side = side(|_| ());
    let body = r#"{"createTokenWithScopes":["chat","voip"],"expiresInMinutes":60}"#;
    let answer = side.post(&format!("/identities{V}"), body).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(
        header(&answer, "content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(
        header(&answer, "api-supported-versions"),
        Some(IDENTITY_VERSIONS)
    );
    assert_eq!(header(&answer, "x-ms-client-request-id"), Some("c1"));
    assert_eq!(header(&answer, "request-context"), Some("appId="));
    assert_eq!(header(&answer, "x-processing-time"), Some("0ms"));
    assert_eq!(
        header(&answer, "strict-transport-security"),
        Some("max-age=2592000")
    );
    assert_eq!(
        header(&answer, "date"),
        Some("Sun, 22 Nov 2026 12:00:00 GMT")
    );
    let vector = header(&answer, "ms-cv").unwrap();
    assert!(vector.len() == 24 && vector.ends_with(".0"), "{vector}");
    assert_eq!(header(&answer, REASON_HEADER), None);
    let body = json_of(&answer);
    assert_eq!(
        body["accessToken"]["expiresOn"],
        "2026-11-22T13:00:00.5+00:00"
    );
}

#[tokio::test(start_paused = true)]
async fn revoking_and_deleting_answer_without_a_body() {
    let side = side(|_| ());
    let id = side.create().await;
    let revoke = side
        .post(&format!("/identities/{id}/:revokeAccessTokens{V}"), "")
        .await;
    let delete = answered(
        side.call(Method::DELETE, &format!("/identities/{id}{V}"), "")
            .await,
    );
    for answer in [revoke, delete] {
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert!(answer.body().is_empty());
        assert_eq!(header(&answer, "content-type"), None);
        assert_eq!(header(&answer, "content-length"), None);
        assert_eq!(
            header(&answer, "api-supported-versions"),
            Some(IDENTITY_VERSIONS)
        );
    }
    let answer = side.issue(&id).await;
    let (status, code, message, _) = error_of(&answer);
    assert_eq!((status, code.as_str()), (404, "IdentityNotFound"));
    assert_eq!(message, "Provided identity doesn't exist.");
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_status_code_text_target_and_headers() {
    let side = side(|_| ());
    let id = side.create().await;
    let issue = format!("/identities/{id}/:issueAccessToken{V}");
    let create = format!("/identities{V}");
    let foreign = format!(
        "/identities/8:acs:f5294985-c25d-4372-80f9-bb43572e72b2_00000007-ea1a-6e54-6032-3b3a0d0002c2/:revokeAccessTokens{V}"
    );
    let range =
        "ExpiresInMinutes value 59 is invalid. Value must be within the [60, 1440] interval.";
    #[rustfmt::skip]
    let cases = [
        (&issue, r#"{"scopes":null}"#, 400, "ValidationError", "Scopes: The Scopes field is required.", json!("Scopes"), false),
        (&issue, "{}", 400, "ValidationError", "Scopes: The Scopes field is required.", json!("Scopes"), false),
        (&issue, r#"{"scopes":["chat"],"expiresInMinutes":59}"#, 400, "ValidationError", range, json!("ExpiresInMinutes"), true),
        (&create, r#"{"createTokenWithScopes":["chat"],"expiresInMinutes":59}"#, 400, "ValidationError", range, json!("ExpiresInMinutes"), true),
        (&foreign, "", 401, "IdentityNotOwned", "Provided identity doesn't belong to the resource.", Value::Null, true),
    ];
    for (target, body, status, code, message, field, listed) in cases {
        let answer = side.post(target, body).await;
        let expected = (status, code.to_owned(), message.to_owned(), field);
        assert_eq!(error_of(&answer), expected, "{target} {body}");
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        assert_eq!(
            header(&answer, "api-supported-versions").is_some(),
            listed,
            "{body}"
        );
        assert!(header(&answer, REASON_HEADER).is_some());
        assert!(!answer.body().windows(6).any(|w| w == b"target") || !expected.3.is_null());
    }
}

#[tokio::test(start_paused = true)]
async fn null_and_absent_members_and_bodies_are_alike() {
    let side = side(|_| ());
    let nulls = r#"{"createTokenWithScopes": null, "expiresInMinutes": null}"#;
    for body in ["", "{}", "null", nulls] {
        let answer = side.post(&format!("/identities{V}"), body).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{body}");
        assert_eq!(json_of(&answer).get("accessToken"), None);
        // The real one's create response without a token is 101 bytes long.
        assert_eq!(answer.body().len(), 101);
    }
}

#[tokio::test(start_paused = true)]
async fn versions_are_required_and_checked_after_the_signature() {
    let side = side(|_| ());
    let (status, code, ..) = error_of(&side.post("/identities", "").await);
    assert_eq!((status, code.as_str()), (400, "ApiVersionUnspecified"));
    let (status, code, message, _) =
        error_of(&side.post("/identities?api-version=2020-01-01", "").await);
    assert_eq!((status, code.as_str()), (400, "UnsupportedApiVersion"));
    assert_eq!(
        message,
        format!(
            "The HTTP resource that matches the request URI 'https://{HOST}/identities' does not support the API version '2020-01-01'."
        )
    );
    let unsigned = Request::post("/identities").body(Bytes::new()).unwrap();
    let answer = answered(side.emulator.handle(unsigned).await);
    let (status, code, message, _) = error_of(&answer);
    assert_eq!((status, code.as_str()), (401, "Denied"));
    assert_eq!(message, "Denied by the resource provider.");
    assert_eq!(header(&answer, "api-supported-versions"), None);
    assert_eq!(
        header(&answer, REASON_HEADER),
        Some("missing header Authorization")
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_hash_of_the_content_is_named_as_the_service_names_it() {
    let side = side(|_| ());
    let key = side.key(Slot::Primary);
    let mut request = side.signed(Method::POST, &format!("/identities{V}"), "{}", &key);
    *request.body_mut() = Bytes::from_static(b"{ }");
    let answer = answered(side.emulator.handle(request).await);
    let (status, code, message, _) = error_of(&answer);
    assert_eq!((status, code.as_str()), (401, "Denied"));
    assert_eq!(
        message,
        "Request 'x-ms-content-sha256' differs from generated content hash."
    );
    let reason = header(&answer, REASON_HEADER).unwrap();
    assert!(reason.contains("the body of 3 bytes hashes to"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn before_2022_10_01_a_token_always_lives_a_day() {
    let side = side(|_| ());
    let body = r#"{"createTokenWithScopes":["chat"],"expiresInMinutes":5}"#;
    let answer = side.post("/identities?api-version=2021-03-07", body).await;
    assert_eq!(
        json_of(&answer)["accessToken"]["expiresOn"],
        "2026-11-23T12:00:00.5+00:00"
    );
    let body = r#"{"createTokenWithScopes":["chat.join"]}"#;
    let (status, ..) = error_of(&side.post("/identities?api-version=2021-03-07", body).await);
    assert_eq!(status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_token_reissued_in_the_second_of_the_revocation_lives_and_the_old_one_does_not() {
    let side = side(|_| ());
    let id = side.create().await;
    let old = json_of(&side.issue(&id).await)["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(side.judge(&old).await["live"], json!(true));
    side.post(&format!("/identities/{id}/:revokeAccessTokens{V}"), "")
        .await;
    let new = json_of(&side.issue(&id).await)["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let verdict = side.judge(&old).await;
    assert_eq!(
        (&verdict["live"], &verdict["reason"]),
        (&json!(false), &json!("revoked"))
    );
    assert_eq!(side.judge(&new).await["live"], json!(true));
    let both = json!({"tokens": [old, new, "x.y.z"]});
    let results = side.control(Method::POST, "tokens", both).await;
    let live: Vec<_> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["live"])
        .collect();
    assert_eq!(live, [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_regenerated_key_is_denied_and_takes_its_tokens_along() {
    let side = side(|_| ());
    let former = side.key(Slot::Primary);
    let id = side.create().await;
    let token = json_of(&side.issue(&id).await)["token"]
        .as_str()
        .unwrap()
        .to_owned();
    side.control(Method::POST, "keys", json!({"regenerate": "primary"}))
        .await;
    assert_eq!(side.judge(&token).await["live"], json!(false));
    let request = side.signed(Method::POST, &format!("/identities{V}"), "", &former);
    let answer = answered(side.emulator.handle(request).await);
    assert_eq!(error_of(&answer).1, "Denied");
    assert!(
        header(&answer, REASON_HEADER)
            .unwrap()
            .contains("which was regenerated")
    );
    let secondary = side.key(Slot::Secondary);
    let request = side.signed(Method::POST, &format!("/identities{V}"), "", &secondary);
    assert_eq!(
        answered(side.emulator.handle(request).await).status(),
        StatusCode::CREATED
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_end_at_the_time_of_the_moved_clock() {
    let side = side(|options| options.token_ttl = Some(Duration::from_secs(20)));
    let id = side.create().await;
    let token = json_of(&side.issue(&id).await)["token"]
        .as_str()
        .unwrap()
        .to_owned();
    tokio::time::advance(Duration::from_millis(19_900)).await;
    assert_eq!(side.judge(&token).await["live"], json!(true));
    side.control(Method::POST, "clock", json!({"advance_seconds": 0.2}))
        .await;
    assert_eq!(side.judge(&token).await["reason"], json!("expired"));
    side.control(Method::POST, "clock", json!({"offset_seconds": 600}))
        .await;
    let answer = side.post(&format!("/identities{V}"), "").await;
    assert!(
        header(&answer, REASON_HEADER)
            .unwrap()
            .starts_with("date off by -600 s")
    );
    assert!(error_of(&answer).2.contains("allowed margin of 5 minutes"));
}

#[tokio::test(start_paused = true)]
async fn the_control_api_is_closed_to_whoever_does_not_know_the_secret() {
    let side = side(|options| options.control_secret = Some(Secret::new("s".to_owned())));
    let probe = async |path: &str, secret: &str| {
        let request = Request::get(format!("/_emulator/v1/{path}"))
            .header("x-emulator-control", secret)
            .body(Bytes::new())
            .unwrap();
        answered(side.emulator.handle(request).await)
            .status()
            .as_u16()
    };
    assert_eq!(probe("stats", "wrong").await, 401);
    assert_eq!(probe("stats", "s").await, 200);
    assert_eq!(probe("jwks", "wrong").await, 200);
}

#[tokio::test(start_paused = true)]
async fn requests_are_remembered_with_the_reason() {
    let side = side(|_| ());
    side.create().await;
    let request = side.signed(Method::POST, &format!("/identities{V}"), "", b"wrong");
    side.emulator.handle(request).await;
    let list = side
        .control(
            Method::GET,
            "requests?limit=1&operation=create",
            Value::Null,
        )
        .await;
    let entry = &list["requests"][0];
    assert_eq!(
        (&entry["number"], &entry["status"]),
        (&json!(2), &json!(401))
    );
    assert!(entry["reason"].as_str().unwrap().starts_with("wrong key"));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_world() {
    let transcript = async || {
        let side = side(|options| options.seed = 9);
        let id = side.create().await;
        let answer = side.issue(&id).await;
        format!("{id} {:?} {:?}", answer.headers(), answer.body())
    };
    assert_eq!(transcript().await, transcript().await);
}

#[tokio::test(start_paused = true)]
async fn too_many_calls_are_told_how_long_to_wait() {
    let mut limits = Limits::default();
    limits.set("create=2/30s").unwrap();
    let side = side(|options| options.limits = limits);
    side.create().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    side.create().await;
    let answer = side.post(&format!("/identities{V}"), "").await;
    assert_eq!(error_of(&answer).0, 429);
    assert_eq!(answer.headers()[RETRY_AFTER], "21");
    tokio::time::advance(Duration::from_secs(21)).await;
    side.create().await;
    let stats = side.control(Method::GET, "stats", Value::Null).await;
    assert_eq!(stats["operations"]["create"]["throttled"], json!(1));
    assert_eq!(stats["identities"]["created"], json!(3));
}

#[tokio::test(start_paused = true)]
async fn faults_before_and_after_the_operation_differ_in_what_took_place() {
    let side = side(|_| ());
    let created = async || {
        side.control(Method::GET, "stats", Value::Null).await["identities"]["created"].clone()
    };
    let create = format!("/identities{V}");
    for (fault, takes_place) in [
        (json!({"kind": "reset", "count": 1}), 0),
        (json!({"kind": "reset", "count": 1, "after": true}), 1),
        (json!({"kind": "status", "status": 500, "count": 1}), 1),
        (json!({"kind": "truncated", "count": 1}), 2),
        (json!({"kind": "malformed", "count": 1}), 3),
    ] {
        side.control(Method::POST, "faults", fault.clone()).await;
        let reply = side.call(Method::POST, &create, "").await;
        match (fault["kind"].as_str().unwrap(), reply) {
            ("reset", Reply::Reset) => {}
            ("status", Reply::Answer(answer)) => assert_eq!(answer.status(), 500),
            ("truncated", Reply::Truncated { answer, sent }) => assert!(sent < answer.body().len()),
            ("malformed", Reply::Answer(answer)) => {
                assert_eq!(answer.status(), 201);
                assert!(serde_json::from_slice::<Value>(answer.body()).is_err());
            }
            (kind, reply) => panic!("{kind}: {reply:?}"),
        }
        assert_eq!(created().await, json!(takes_place), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_breaks_every_call_and_leaves_the_control_api_reachable() {
    let side = side(|_| ());
    let id = side.create().await;
    side.control(Method::POST, "faults", json!({"kind": "outage"}))
        .await;
    let handler = side.emulator.as_handler(str::to_owned);
    let target = format!("/identities/{id}{V}");
    let request = side.signed(Method::DELETE, &target, "", &side.key(Slot::Primary));
    assert_eq!(handler(request).await.unwrap_err(), "connection reset");
    side.control(Method::DELETE, "faults", Value::Null).await;
    assert_eq!(side.issue(&id).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_hang_never_ends_and_a_delay_does() {
    let side = side(|_| ());
    side.control(
        Method::POST,
        "faults",
        json!({"kind": "delay", "delay_ms": 700, "count": 1}),
    )
    .await;
    let began = side.clock.steady();
    side.create().await;
    assert_eq!(side.clock.steady() - began, Duration::from_millis(700));
    side.control(Method::POST, "faults", json!({"kind": "hang", "count": 1}))
        .await;
    let handler = side.emulator.as_handler(str::to_owned);
    let target = format!("/identities{V}");
    let request = side.signed(Method::POST, &target, "", &side.key(Slot::Primary));
    let waited = tokio::time::timeout(Duration::from_secs(3600), handler(request)).await;
    assert!(waited.is_err());
}
