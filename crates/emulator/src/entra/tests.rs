//! Entra ID as clients meet it, without a socket, under paused time.

use std::{borrow::Borrow, sync::Arc};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use http::header::AUTHORIZATION;
use renewd_clock::Clock;
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use super::*;
use crate::{Emulator, EmulatorOptions, REASON_HEADER, Reply, TokenAlg, mint::CLIENT_KEY};

mod assertions;
mod bearers;
mod machines;

const HOST: &str = "login.example:8443";
const SCOPE: &str = "https://communication.azure.com//.default";

struct Place {
    emulator: Arc<Emulator>,
    registration: Registration,
}

struct Said {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Said {
    /// Status and error of a refusal, and the emulator's reason.
    fn refusal(&self) -> (u16, &str, &str) {
        let error = self.body["error"].as_str().unwrap_or_default();
        let reason = self.headers.get(REASON_HEADER).unwrap();
        (self.status, error, reason.to_str().unwrap())
    }

    fn bearer(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["access_token"].as_str().unwrap()
    }
}

fn place() -> Place {
    place_with(|_| ())
}

fn place_with(change: impl FnOnce(&mut EmulatorOptions)) -> Place {
    let clock = Clock::simulated("2026-11-22T12:00:00.5Z".parse().unwrap());
    let mut options = EmulatorOptions {
        token_alg: TokenAlg::Filler,
        ..EmulatorOptions::default()
    };
    change(&mut options);
    let emulator = Arc::new(Emulator::new(options, clock).unwrap());
    let registration = emulator.registration();
    Place {
        emulator,
        registration,
    }
}

fn request(method: &str, target: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", HOST)
}

impl Place {
    async fn send(&self, request: Request<Bytes>) -> Said {
        let Reply::Answer(answer) = self.emulator.handle(request).await else {
            panic!("no answer");
        };
        Said {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: serde_json::from_slice(answer.body()).unwrap_or_default(),
        }
    }

    fn token_path(&self) -> String {
        format!("/{}/oauth2/v2.0/token", self.registration.tenant)
    }

    fn endpoint(&self) -> String {
        format!("https://{HOST}{}", self.token_path())
    }

    /// A form with the usual fields and these; an empty value takes one away.
    async fn token(&self, fields: &[(&str, &str)]) -> Said {
        let usual = [
            ("client_id", self.registration.client_id.as_str()),
            ("scope", SCOPE),
            ("grant_type", "client_credentials"),
        ];
        let mut form: BTreeMap<&str, &str> = usual.into_iter().collect();
        form.extend(fields.iter().copied());
        let body: Vec<String> = form
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                let all = percent_encoding::NON_ALPHANUMERIC;
                format!(
                    "{name}={}",
                    percent_encoding::utf8_percent_encode(value, all)
                )
            })
            .collect();
        let request = request("POST", &self.token_path())
            .header(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            )
            .body(Bytes::from(body.join("&")))
            .unwrap();
        self.send(request).await
    }

    async fn by_secret(&self) -> Said {
        let secret = self.registration.client_secret.clone();
        self.token(&[("client_secret", secret.expose())]).await
    }

    async fn by_assertion(&self, assertion: &str) -> Said {
        self.token(&[
            ("client_assertion", assertion),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
        ])
        .await
    }

    /// An operation of ACS with this bearer.
    async fn create(&self, bearer: &str) -> Said {
        let request = request("POST", "/identities?api-version=2023-10-01")
            .header(AUTHORIZATION, format!("Bearer {bearer}"))
            .body(Bytes::new())
            .unwrap();
        self.send(request).await
    }

    fn control(&self, method: impl Borrow<Method>, path: &str, body: impl Borrow<Value>) -> Value {
        let done = self.emulator.control(method.borrow(), path, body.borrow());
        done.unwrap()
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn discovery_names_the_token_endpoint_by_the_way_the_client_came() {
    let place = place();
    let tenant = place.registration.tenant.to_uppercase();
    let path = format!("/{tenant}/v2.0/.well-known/openid-configuration");
    let said = place
        .send(request("GET", &path).body(Bytes::new()).unwrap())
        .await;
    let expected = format!("https://{HOST}/{tenant}/oauth2/v2.0/token");
    assert_eq!(said.body["token_endpoint"], expected);
    assert_eq!(said.body["issuer"], format!("https://{HOST}/{tenant}/v2.0"));

    let plain = place_with(|options| options.entra.plain_http = true);
    let said = plain
        .send(request("GET", &path).body(Bytes::new()).unwrap())
        .await;
    assert!(
        said.body["token_endpoint"]
            .as_str()
            .unwrap()
            .starts_with("http://")
    );

    let other = "/contoso.example/v2.0/.well-known/openid-configuration";
    let said = place
        .send(request("GET", other).body(Bytes::new()).unwrap())
        .await;
    let (status, error, reason) = said.refusal();
    assert_eq!((status, error), (400, "invalid_tenant"));
    assert!(reason.contains(&place.registration.tenant), "{reason}");
    let said = place
        .send(request("POST", &path).body(Bytes::new()).unwrap())
        .await;
    assert_eq!(said.refusal().0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_secret_gets_a_bearer_and_a_wrong_one_does_not() {
    let place = place();
    let said = place.by_secret().await;
    assert_eq!(said.body["token_type"], "Bearer");
    assert_eq!(said.body["expires_in"], 3600);
    assert_eq!(said.body["ext_expires_in"], 3600);
    assert_eq!(said.body.get("refresh_in"), None);
    assert_eq!(said.headers[CACHE_CONTROL], "no-store, no-cache");
    assert_eq!(place.create(said.bearer()).await.status, 201);

    let said = place.token(&[("client_secret", "wrong")]).await;
    let (status, error, reason) = said.refusal();
    assert_eq!((status, error), (401, "invalid_client"));
    assert!(!reason.contains("wrong"), "{reason}");
    assert_eq!(said.body["error_codes"], json!([7_000_215]));
    let text = said.body["error_description"].as_str().unwrap();
    assert!(
        text.starts_with("AADSTS7000215: Invalid client secret provided."),
        "{text}"
    );
    assert!(text.ends_with("Timestamp: 2026-11-22 12:00:00Z"), "{text}");
    let counts = place.emulator.entra_requests(EntraPart::ClientSecret);
    assert_eq!((counts.calls, counts.succeeded, counts.denied), (2, 1, 1));
    assert_eq!(place.emulator.bearers(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_form_lacks_or_has_wrong_is_told() {
    let place = place();
    let secret = place.registration.client_secret.expose().to_owned();
    #[rustfmt::skip]
    let cases = [
        (("grant_type", ""), 400, "invalid_request"),
        (("grant_type", "password"), 400, "unsupported_grant_type"),
        (("client_id", ""), 400, "invalid_request"),
        (("client_id", "00000000-0000-0000-0000-000000000000"), 400, "unauthorized_client"),
        (("scope", ""), 400, "invalid_request"),
        (("scope", "https://communication.azure.com/"), 400, "invalid_scope"),
        (("scope", "https://communication.azure.com//.default openid https://x/.default"), 400, "invalid_scope"),
        (("scope", "https://communication.azure.us//.default"), 400, "invalid_resource"),
        (("client_secret", ""), 401, "invalid_client"),
        (("client_assertion", "a.b.c"), 400, "invalid_request"),
        (("claims", "{"), 400, "invalid_request"),
    ];
    for (field, status, error) in cases {
        let said = place.token(&[("client_secret", &secret), field]).await;
        assert_eq!(
            (said.refusal().0, said.refusal().1),
            (status, error),
            "{field:?}"
        );
    }
    for scope in [SCOPE, "https://communication.azure.com/.default"] {
        let said = place
            .token(&[("client_secret", &secret), ("scope", scope)])
            .await;
        assert_eq!(place.create(said.bearer()).await.status, 201, "{scope}");
    }
    assert_eq!(place.emulator.bearers(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_methods_types_tenants_and_parameters_that_come_twice_are_refused() {
    let place = place();
    let registration = &place.registration;
    let form = format!(
        "client_id={}&scope={SCOPE}&grant_type=client_credentials&client_secret={}",
        registration.client_id,
        registration.client_secret.expose()
    );
    let form_type = "application/x-www-form-urlencoded";
    let path = place.token_path();
    let send = async |method: &str, path: &str, kind: &str, body: String| {
        let request = request(method, path).header("content-type", kind);
        let said = place.send(request.body(Bytes::from(body)).unwrap()).await;
        said.status
    };
    assert_eq!(send("POST", &path, form_type, form.clone()).await, 200);
    assert_eq!(
        send(
            "POST",
            &format!("{path}?client-request-id=1"),
            form_type,
            form.clone()
        )
        .await,
        200
    );
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"] {
        assert_eq!(
            send(method, &path, form_type, form.clone()).await,
            400,
            "{method}"
        );
    }
    assert_eq!(
        send("POST", &path, "application/json", form.clone()).await,
        400
    );
    let twice = format!("{form}&client_secret=x");
    assert_eq!(send("POST", &path, form_type, twice).await, 400);
    let long = format!("{form}&more={}", "x".repeat(300_000));
    assert_eq!(send("POST", &path, form_type, long).await, 400);
    let other = path.replace(&registration.tenant, "common");
    assert_eq!(send("POST", &other, form_type, form).await, 400);
    assert_eq!(
        send("POST", &path, form_type, "%ff=%zz".to_owned()).await,
        400
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_replaced_without_a_gap() {
    let place = place();
    let new = place.control(Method::POST, "entra/secrets", json!({}));
    let new = new["client_secret"].as_str().unwrap();
    assert_eq!(
        place.by_secret().await.status,
        200,
        "the old one is good beside it"
    );
    place.control(Method::DELETE, "entra/secrets", Value::Null);
    assert_eq!(place.by_secret().await.status, 401);
    assert_eq!(place.token(&[("client_secret", new)]).await.status, 200);
    assert_eq!(place.emulator.registration().client_secret.expose(), new);
    let given = json!({"secret": "of my own"});
    place.control(Method::POST, "entra/secrets", given);
    assert_eq!(
        place.token(&[("client_secret", "of my own")]).await.status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_as_the_part_tells_it_and_acs_goes_on() {
    let place = place();
    let bearer = place.by_secret().await.bearer().to_owned();
    let fault = json!({"kind": "status", "status": 429, "retry_after": 60, "operation": "entra", "count": 1});
    place.control(Method::POST, "faults", fault);
    assert_eq!(place.create(&bearer).await.status, 201);
    let said = place.by_secret().await;
    assert_eq!(
        (said.refusal().0, said.refusal().1),
        (429, "temporarily_unavailable")
    );
    assert_eq!(said.headers[RETRY_AFTER], "60");
    assert_eq!(place.by_secret().await.status, 200);

    let fault = json!({"kind": "status", "status": 410, "operation": "imds"});
    place.control(Method::POST, "faults", fault);
    let said = place.imds("").await;
    assert_eq!((said.refusal().0, said.refusal().1), (410, "not_found"));
    assert_eq!(place.by_secret().await.status, 200);

    place.control(Method::DELETE, "faults", Value::Null);
    place.control(
        Method::POST,
        "faults",
        json!({"kind": "hang", "operation": "entra"}),
    );
    let handler = place.emulator.as_handler(str::to_owned);
    let request = request("POST", &place.token_path())
        .body(Bytes::new())
        .unwrap();
    let waited = tokio::time::timeout(std::time::Duration::from_secs(3600), handler(request)).await;
    assert!(waited.is_err());
    let stats = place.control(Method::GET, "stats", Value::Null);
    assert_eq!(stats["operations"]["imds"]["failed"], 1);
    assert_eq!(stats["operations"]["client_secret"]["throttled"], 1);
    assert_eq!(stats["bearers"], 3);
}

#[tokio::test(start_paused = true)]
async fn the_control_api_shows_all_and_refuses_nonsense() {
    let place = place();
    let shown = place.control(Method::GET, "entra", Value::Null);
    assert_eq!(shown["client_id"], place.registration.client_id);
    assert_eq!(shown["controls"]["role"], true);
    let changed = place.control(
        Method::POST,
        "entra",
        json!({"role": false, "cached": true}),
    );
    assert_eq!(changed["controls"]["role"], false);
    let back = place.control(Method::DELETE, "entra", Value::Null);
    assert_eq!(back["controls"], shown["controls"]);
    for (method, path, body) in [
        (Method::POST, "entra", json!({"rolle": false})),
        (Method::PATCH, "entra", json!({})),
        (Method::GET, "entra/secrets", json!({})),
        (Method::POST, "entra/secrets", json!({"secret": ""})),
        (Method::POST, "entra/certificates", json!({"pem": "none"})),
        (Method::POST, "entra/nothing", json!({})),
    ] {
        let refused = place.emulator.control(&method, path, &body);
        assert!(refused.is_err(), "{method} {path}");
    }
}

#[test]
fn what_is_drawn_for_entra_changes_nothing_else_and_follows_from_the_seed() {
    let of = |seed| place_with(|options| options.seed = seed).registration;
    assert_eq!(of(1).client_id, of(1).client_id);
    assert_ne!(of(1).tenant, of(2).tenant);
    assert_ne!(of(1).tenant, of(1).client_id);
    let own = |seed| {
        let place = place_with(|options| (options.seed, options.entra.seed) = (seed, Some(9)));
        place.registration.client_secret.expose().to_owned()
    };
    assert_eq!(own(1), own(2));
}
