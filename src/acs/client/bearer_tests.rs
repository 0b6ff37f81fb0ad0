//! The client without access keys against a small other side in this process, which gives bearers, takes them, and
//! fails at either as it is told.

use std::{collections::VecDeque, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};

use super::*;
use crate::{
    acs::request,
    config::{
        CreatePolicy, CredentialSettings, EntraKind, EntraSettings, Limits, LoadedSecret, SecretRef,
    },
    model::{About, BearerCause, FailureClass},
    transport::TransportError,
};

const ID: &str = "8:acs:11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001";
const TOKEN: &str = r#"{"token":"token.b.c","expiresOn":"2026-11-23T12:00:00+00:00"}"#;
const DENIED: &str = r#"{"error":{"code":"Denied","message":"Denied by the resource provider."}}"#;
const PEM: &str = include_str!("../../../tests/it/fixtures/entra-client.pem");
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// What the authority does instead of giving a bearer.
#[derive(Debug, Clone)]
enum AuthorityFault {
    Answer(u16, &'static str),
    Throttle(u64),
    Break,
    Hang,
}

/// Gives bearers and takes them.
struct Side {
    clock: Clock,
    /// What the authority does, one after the other, then for ever as the last says.
    refusals: Mutex<VecDeque<AuthorityFault>>,
    /// Token requests as they came, with their instants.
    asked: Mutex<Vec<(Duration, Request<Bytes>)>>,
    /// Instead of a new one each time.
    same: Mutex<bool>,
    /// What ACS does instead of answering well.
    faults: Mutex<VecDeque<(u16, String, String)>>,
    calls: Mutex<Vec<Request<Bytes>>>,
    ahead: Mutex<SignedDuration>,
}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap()),
            refusals: Mutex::default(),
            asked: Mutex::default(),
            same: Mutex::default(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            ahead: Mutex::default(),
        })
    }

    fn refuse(&self, with: impl IntoIterator<Item = AuthorityFault>) {
        *lock(&self.refusals) = with.into_iter().collect();
    }

    fn fault(&self, status: u16, challenge: &str, body: &str) {
        lock(&self.faults).push_back((status, challenge.to_owned(), body.to_owned()));
    }

    fn requests(&self) -> usize {
        lock(&self.asked).len()
    }

    /// The fields of a token request.
    fn form(&self, at: usize) -> String {
        String::from_utf8(lock(&self.asked)[at].1.body().to_vec()).unwrap()
    }

    fn transport(self: &Arc<Self>) -> Transport {
        let side = Arc::clone(self);
        Transport::InProcess(Arc::new(move |request| {
            let side = Arc::clone(&side);
            Box::pin(async move {
                let of_tokens = request.uri().path().contains("/oauth2/");
                let (status, headers, body) = match of_tokens {
                    true => side.token(request).await?,
                    false => side.answer(request),
                };
                let date = request::http_date(side.clock.now() + *lock(&side.ahead));
                let mut answer = Response::builder().status(status).header("date", date);
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                Ok(answer.body(Bytes::from(body)).unwrap())
            })
        }))
    }

    async fn token(&self, request: Request<Bytes>) -> Result<Answered, TransportError> {
        let count = {
            let mut asked = lock(&self.asked);
            asked.push((self.clock.steady(), request));
            asked.len()
        };
        // Others ask meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let refusal = {
            let mut refusals = lock(&self.refusals);
            match refusals.len() {
                0 | 1 => refusals.front().cloned(),
                _ => refusals.pop_front(),
            }
        };
        let plain = |status, body: &str| Ok((status, Vec::new(), body.to_owned()));
        match refusal {
            None => {
                let number = if *lock(&self.same) { 1 } else { count };
                let body = format!(
                    r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"canary.{number}"}}"#
                );
                plain(200, &body)
            }
            Some(AuthorityFault::Answer(status, body)) => plain(status, body),
            Some(AuthorityFault::Throttle(secs)) => {
                let wait = ("retry-after", secs.to_string());
                Ok((429, vec![wait], r#"{"error":"throttled"}"#.to_owned()))
            }
            Some(AuthorityFault::Break) => Err(TransportError::Connect("refused".to_owned())),
            Some(AuthorityFault::Hang) => std::future::pending().await,
        }
    }

    fn answer(&self, request: Request<Bytes>) -> Answered {
        let carries = request.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(carries.starts_with("Bearer canary."), "{carries}");
        for name in ["x-ms-date", "x-ms-content-sha256"] {
            assert!(!request.headers().contains_key(name), "{name}");
        }
        let path = request.uri().path().to_owned();
        let (method, empty) = (request.method().clone(), request.body().is_empty());
        lock(&self.calls).push(request);
        if let Some((status, challenge, body)) = lock(&self.faults).pop_front() {
            let headers = match challenge.as_str() {
                "" => Vec::new(),
                challenge => vec![("www-authenticate", challenge.to_owned())],
            };
            return (status, headers, body);
        }
        let created = |token: &str| format!(r#"{{"identity":{{"id":"{ID}"}}{token}}}"#);
        let (status, body) = match (method.as_str(), path.as_str()) {
            ("POST", "/identities") if empty => (201, created("")),
            ("POST", "/identities") => (201, created(&format!(r#","accessToken":{TOKEN}"#))),
            ("POST", path) if path.ends_with("/:revokeAccessTokens") => (204, String::new()),
            ("POST", _) => (200, TOKEN.to_owned()),
            _ => (204, String::new()),
        };
        (status, Vec::new(), body)
    }
}

type Answered = (u16, Vec<(&'static str, String)>, String);

fn secret(text: &str) -> LoadedSecret {
    LoadedSecret {
        from: SecretRef::Env("SECRET".to_owned()),
        secret: Secret::new(text.to_owned()),
    }
}

fn by_secret() -> EntraKind {
    EntraKind::ClientSecret {
        tenant: "tenant".to_owned(),
        client_id: "me".to_owned(),
        secret: secret("sesame & canary"),
    }
}

fn by_certificate() -> EntraKind {
    EntraKind::ClientCertificate {
        tenant: "tenant".to_owned(),
        client_id: "me".to_owned(),
        certificate: secret(PEM),
    }
}

const MACHINE: EntraKind = EntraKind::ManagedIdentity { selector: None };

fn settings(kind: EntraKind) -> ResourceSettings {
    ResourceSettings {
        name: "contoso".parse().unwrap(),
        credential: CredentialSettings::Entra(EntraSettings {
            endpoint: "https://contoso.example".to_owned(),
            kind,
            authority: "https://login.example".to_owned(),
            scope: "https://communication.azure.com//.default".to_owned(),
        }),
        ca_file: None,
        proxy: None,
        api_version: "2023-10-01".to_owned(),
        create: CreatePolicy::Auto,
        limits: Limits::default(),
        max_in_flight: 32,
    }
}

fn client(side: &Arc<Side>, kind: EntraKind) -> Client {
    Client::new(&settings(kind), side.clock.clone(), side.transport()).unwrap()
}

async fn issue(client: &Client) -> Result<AcsAnswer<Issued>, Error> {
    let id = ID.parse().unwrap();
    let hour = Duration::from_hours(1);
    client.issue(&id, &[Scope::Chat], hour, SECOND * 10).await
}

/// Lets time pass as a renewer does: what is due by itself is sent.
async fn pass(side: &Side, client: &Client, time: Duration) {
    let ends = side.clock.steady() + time;
    while side.clock.steady() < ends {
        client.bearers().unwrap().tend();
        tokio::time::sleep(SECOND / 2).await;
    }
}

fn trouble(client: &Client) -> Option<BearerCause> {
    client
        .bearer_view()
        .unwrap()
        .trouble
        .map(|trouble| trouble.cause)
}

#[tokio::test(start_paused = true)]
async fn every_operation_carries_one_bearer_and_is_signed_with_no_key() {
    let side = Side::new();
    for kind in [by_secret(), by_certificate(), MACHINE] {
        lock(&side.asked).clear();
        let client = client(&side, kind.clone());
        let (id, deadline) = (ID.parse().unwrap(), SECOND * 10);
        let hour = Duration::from_hours(1);
        client.create(None, deadline).await.unwrap();
        let created = client.create(Some((&[Scope::Chat], hour)), deadline).await;
        assert!(created.unwrap().value.token.is_some());
        let issued = issue(&client).await.unwrap();
        client.revoke(&id, deadline).await.unwrap();
        client.delete(&id, deadline).await.unwrap();
        let teams = Secret::new("teams".to_owned());
        client
            .exchange(&teams, "app", "user", deadline)
            .await
            .unwrap();
        assert_eq!(side.requests(), 1, "{kind:?}");
        let minter = match kind {
            EntraKind::ManagedIdentity { .. } => "entra:managed_identity",
            _ => "entra:me",
        };
        assert_eq!((issued.key.as_str(), issued.requests), (minter, 1));
        assert_eq!(client.minters(), [minter]);
        let view = client.bearer_view().unwrap();
        assert_eq!((view.requests, view.trouble), (1, None));
        assert_eq!(
            view.certificate_ends.is_some(),
            matches!(kind, EntraKind::ClientCertificate { .. })
        );
        assert!(
            view.ends
                .is_some_and(|ends| ends > side.clock.now() + MINUTE * 59)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_is_what_the_kinds_say() {
    let side = Side::new();
    for kind in [by_secret(), by_certificate(), MACHINE] {
        issue(&client(&side, kind)).await.unwrap();
    }
    let own = "client_id=me&scope=https%3A%2F%2Fcommunication.azure.com%2F%2F.default&grant_type=client_credentials";
    assert_eq!(
        side.form(0),
        format!("{own}&client_secret=sesame%20%26%20canary")
    );
    let assertion = format!(
        "{own}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=eyJ"
    );
    assert!(side.form(1).starts_with(&assertion), "{}", side.form(1));
    let asked = lock(&side.asked);
    assert_eq!(
        asked[0].1.uri(),
        "https://login.example/tenant/oauth2/v2.0/token"
    );
    let machine = &asked[2].1;
    assert_eq!(
        machine.uri(),
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcommunication.azure.com%2F"
    );
    assert_eq!(
        (machine.method().as_str(), &machine.headers()["metadata"]),
        ("GET", &"true".parse::<http::HeaderValue>().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn forty_thousand_at_once_are_one_token_request() {
    let side = Side::new();
    let client = client(&side, by_secret());
    let bearers = client.bearers().unwrap();
    let ends = side.clock.steady() + SECOND * 10;
    let all = join_all((0..40_000).map(|_| bearers.bearer(ends))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(side.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_is_silent_for_less_than_the_rest_of_a_bearer_costs_no_call() {
    let side = Side::new();
    let client = client(&side, by_secret());
    issue(&client).await.unwrap();
    pass(&side, &client, MINUTE * 29).await;
    assert_eq!(side.requests(), 1);
    side.refuse([
        AuthorityFault::Break,
        AuthorityFault::Hang,
        AuthorityFault::Answer(503, ""),
    ]);
    let ends = side.clock.steady() + MINUTE * 25;
    while side.clock.steady() < ends {
        pass(&side, &client, MINUTE).await;
        assert_eq!(issue(&client).await.unwrap().requests, 1);
    }
    assert_eq!(trouble(&client), Some(BearerCause::Unanswered));
    assert!(side.requests() < 55, "{}", side.requests());
    side.refuse([]);
    pass(&side, &client, SECOND * 31).await;
    assert_eq!(trouble(&client), None);
    let gaps: Vec<Duration> = lock(&side.asked)
        .windows(2)
        .map(|two| two[1].0 - two[0].0)
        .collect();
    assert!(gaps.iter().all(|gap| *gap >= SECOND * 30), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_bearer_nothing_is_sent_and_a_call_waits_no_longer_than_it_may() {
    let side = Side::new();
    let client = client(&side, by_secret());
    side.refuse([AuthorityFault::Hang]);
    let began = side.clock.steady();
    let error = issue(&client).await.unwrap_err();
    let took = side.clock.steady() - began;
    assert!(took >= SECOND * 10 && took < SECOND * 11, "{took:?}");
    let failure = error.failure();
    assert_eq!(
        (failure.about, failure.class),
        (About::Bearer, FailureClass::Retry)
    );
    assert_eq!((error.requests, lock(&side.calls).len()), (0, 0));
    tokio::time::sleep(SECOND * 11).await;
    let error = issue(&client).await.unwrap_err();
    assert_eq!(
        side.requests(),
        1,
        "it is asked again after 30 s, not at once"
    );
    assert_eq!(
        error.to_string(),
        format!(
            "cannot issue a token for {ID}: there is no bearer for it: no complete answer from Entra ID at login.example within 20s"
        )
    );
    assert!(client.bearers().unwrap().hold().is_some());
    assert_eq!(
        client.prove_in_use(SECOND).await,
        None,
        "it says nothing of ACS"
    );
    side.refuse([]);
    pass(&side, &client, SECOND * 31).await;
    assert!(client.bearers().unwrap().hold().is_none());
    issue(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_apart_and_not_repeated() {
    for (kind, status, body, cause) in [
        (
            by_secret(),
            401,
            r#"{"error":"invalid_client"}"#,
            BearerCause::WrongSecret,
        ),
        (
            by_certificate(),
            401,
            r#"{"error":"invalid_client"}"#,
            BearerCause::WrongCertificate,
        ),
        (
            by_secret(),
            400,
            r#"{"error":"unauthorized_client"}"#,
            BearerCause::UnknownClient,
        ),
        (
            by_secret(),
            400,
            r#"{"error":"invalid_request"}"#,
            BearerCause::Misconfigured,
        ),
        (
            by_secret(),
            400,
            r#"{"error":"invalid_scope"}"#,
            BearerCause::Misconfigured,
        ),
        (by_secret(), 403, "<html>", BearerCause::Misconfigured),
        (
            MACHINE,
            400,
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
            BearerCause::UnknownIdentity,
        ),
        (MACHINE, 403, "", BearerCause::Misconfigured),
    ] {
        let side = Side::new();
        let client = client(&side, kind);
        side.refuse([AuthorityFault::Answer(status, body)]);
        let error = issue(&client).await.unwrap_err();
        assert_eq!(error.class(), FailureClass::Credentials, "{body}");
        for _ in 0..9 {
            pass(&side, &client, MINUTE).await;
            issue(&client).await.unwrap_err();
        }
        assert_eq!(
            (side.requests(), trouble(&client)),
            (1, Some(cause)),
            "{status} {body}"
        );
        pass(&side, &client, MINUTE * 2).await;
        assert_eq!(side.requests(), 2, "in case that somebody mended it there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_metadata_service_that_restarts_is_waited_for() {
    let side = Side::new();
    let client = client(&side, MACHINE);
    side.refuse([AuthorityFault::Answer(410, "")]);
    issue(&client).await.unwrap_err();
    pass(&side, &client, MINUTE).await;
    let tries = side.requests();
    assert!((5..=7).contains(&tries), "{tries}");
    side.refuse([]);
    pass(&side, &client, SECOND * 31).await;
    assert_eq!(trouble(&client), None);
    let gaps: Vec<Duration> = lock(&side.asked)
        .windows(2)
        .map(|two| two[1].0 - two[0].0)
        .collect();
    assert!(gaps.iter().all(|gap| *gap >= SECOND), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_to_wait_is_not_asked_before() {
    for kind in [by_secret(), MACHINE] {
        let side = Side::new();
        let client = client(&side, kind);
        side.refuse([AuthorityFault::Throttle(60)]);
        issue(&client).await.unwrap_err();
        pass(&side, &client, SECOND * 59).await;
        assert_eq!(
            (side.requests(), trouble(&client)),
            (1, Some(BearerCause::Throttled))
        );
        side.refuse([]);
        pass(&side, &client, SECOND * 3).await;
        assert_eq!((side.requests(), trouble(&client)), (2, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bearer_that_was_taken_and_is_refused_is_replaced_once() {
    let side = Side::new();
    let client = client(&side, by_secret());
    issue(&client).await.unwrap();
    pass(&side, &client, MINUTE).await;
    side.fault(401, "Bearer", "");
    assert_eq!(issue(&client).await.unwrap().requests, 2);
    assert_eq!(side.requests(), 2);
    for _ in 0..20 {
        side.fault(401, "", DENIED);
    }
    let error = issue(&client).await.unwrap_err();
    assert_eq!(
        (error.failure().about, error.class()),
        (About::Keys, FailureClass::Credentials)
    );
    for _ in 0..9 {
        pass(&side, &client, MINUTE).await;
        issue(&client).await.unwrap_err();
    }
    assert!(side.requests() <= 3, "{}", side.requests());
    assert_eq!(trouble(&client), Some(BearerCause::MissingRole));
    assert!(matches!(
        client.prove_in_use(SECOND).await,
        Some(Proof::Denied(_))
    ));
    lock(&side.faults).clear();
    issue(&client).await.unwrap();
    assert_eq!(trouble(&client), None);
}

#[tokio::test(start_paused = true)]
async fn a_refused_bearer_that_comes_back_as_it_was_ends_no_loop() {
    let side = Side::new();
    *lock(&side.same) = true;
    let client = client(&side, MACHINE);
    issue(&client).await.unwrap();
    pass(&side, &client, MINUTE).await;
    for _ in 0..9 {
        side.fault(401, "", DENIED);
        issue(&client).await.unwrap_err();
        pass(&side, &client, MINUTE).await;
    }
    assert_eq!(side.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_role_is_told_and_no_other_bearer_is_asked_for() {
    let side = Side::new();
    let client = client(&side, by_secret());
    side.fault(403, "", r#"{"error":{"code":"Forbidden","message":"No."}}"#);
    let error = issue(&client).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Credentials);
    assert!(
        error.reason().contains("does not let its identity in"),
        "{error}"
    );
    assert_eq!(
        (side.requests(), trouble(&client)),
        (1, Some(BearerCause::MissingRole))
    );
    // A page of something in between says nothing of the role.
    issue(&client).await.unwrap();
    for _ in 0..3 {
        side.fault(403, "", "<html>Forbidden</html>");
        issue(&client).await.unwrap_err();
    }
    assert_eq!(trouble(&client), None);
}

#[tokio::test(start_paused = true)]
async fn one_challenge_is_answered_with_its_claims_and_a_second_is_told() {
    let side = Side::new();
    let client = client(&side, by_secret());
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#;
    let challenge = format!(
        r#"Bearer realm="", error="insufficient_claims", claims="{}""#,
        BASE64_STANDARD.encode(claims)
    );
    side.fault(401, &challenge, DENIED);
    assert_eq!(issue(&client).await.unwrap().requests, 2);
    assert_eq!(side.requests(), 2);
    let sent = format!(
        "&claims={}",
        crate::model::percent_encoded(claims, crate::model::RESERVED)
    );
    assert!(side.form(1).ends_with(&sent), "{}", side.form(1));
    pass(&side, &client, MINUTE).await;
    side.fault(401, &challenge, DENIED);
    side.fault(401, &challenge, DENIED);
    let error = issue(&client).await.unwrap_err();
    assert_eq!((error.requests, side.requests()), (2, 3));
    for _ in 0..9 {
        side.fault(401, &challenge, DENIED);
        issue(&client).await.unwrap_err();
    }
    assert_eq!(side.requests(), 3, "not for each call anew");
    assert_eq!(trouble(&client), Some(BearerCause::Challenged));
}

#[tokio::test(start_paused = true)]
async fn an_assertion_by_a_wrong_clock_is_made_again_with_the_answers_date() {
    let side = Side::new();
    let client = client(&side, by_certificate());
    *lock(&side.ahead) = SignedDuration::from_hours(1);
    side.refuse([
        AuthorityFault::Answer(401, r#"{"error":"invalid_client"}"#),
        AuthorityFault::Break,
    ]);
    issue(&client).await.unwrap_err();
    assert_eq!(side.requests(), 2);
    let issued = |at: usize| -> i64 {
        let form = side.form(at);
        let claims = form.rsplit('=').next().unwrap().split('.').nth(1).unwrap();
        let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD
            .decode(claims)
            .unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        claims["nbf"].as_i64().unwrap()
    };
    assert!((issued(1) - issued(0) - 3600).abs() <= 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_kubernetes_is_read_at_each_request() {
    let side = Side::new();
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let client = client(
        &side,
        EntraKind::WorkloadIdentity {
            tenant: "tenant".to_owned(),
            client_id: "me".to_owned(),
            token_file: path.clone(),
        },
    );
    issue(&client).await.unwrap();
    std::fs::write(&path, "second").unwrap();
    pass(&side, &client, MINUTE * 31).await;
    assert!(side.form(0).ends_with("client_assertion=first"));
    assert!(side.form(1).ends_with("client_assertion=second"));
    std::fs::remove_file(&path).unwrap();
    pass(&side, &client, MINUTE * 31).await;
    assert_eq!(
        (side.requests(), trouble(&client)),
        (2, Some(BearerCause::Misconfigured))
    );
    issue(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_secret_in_the_place_of_a_refused_one_is_taken_up() {
    let side = Side::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "old").unwrap();
    let kind = EntraKind::ClientSecret {
        tenant: "tenant".to_owned(),
        client_id: "me".to_owned(),
        secret: LoadedSecret {
            from: SecretRef::File(path.clone()),
            secret: Secret::new("old".to_owned()),
        },
    };
    let client = client(&side, kind);
    side.refuse([AuthorityFault::Answer(401, r#"{"error":"invalid_client"}"#)]);
    issue(&client).await.unwrap_err();
    pass(&side, &client, MINUTE).await;
    assert_eq!(side.requests(), 1);
    side.refuse([]);
    std::fs::write(&path, "new\n").unwrap();
    pass(&side, &client, SECOND * 11).await;
    assert_eq!((side.requests(), trouble(&client)), (2, None));
    assert!(side.form(1).ends_with("client_secret=new"));
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_bearer_or_what_it_is_asked_with() {
    let side = Side::new();
    let client = client(&side, by_secret());
    let echo = r#"{"error":"invalid_client","error_description":"what is sesame & canary?"}"#;
    side.refuse([AuthorityFault::Answer(401, echo)]);
    let error = issue(&client).await.unwrap_err();
    let view = client.bearer_view();
    side.refuse([]);
    pass(&side, &client, MINUTE * 11).await;
    let answer = issue(&client).await.unwrap();
    let shown = format!(
        "{client:?} {answer:?} {error:?} {error} {view:?} {:?}",
        client.bearer_view()
    );
    assert!(shown.contains("what is"), "{shown}");
    for secret in ["canary", "sesame", "token.b.c"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_could_never_get_a_bearer_is_not_made() {
    let side = Side::new();
    let make = |settings: &ResourceSettings| {
        Client::new(settings, side.clock.clone(), side.transport()).map(|_| ())
    };
    let certificate = EntraKind::ClientCertificate {
        tenant: "tenant".to_owned(),
        client_id: "me".to_owned(),
        certificate: secret("no PEM"),
    };
    assert!(matches!(
        make(&settings(certificate)),
        Err(SetupError::Bearer(..))
    ));
    let with = |endpoint: &str| {
        let mut settings = settings(by_secret());
        if let CredentialSettings::Entra(entra) = &mut settings.credential {
            entra.endpoint = endpoint.to_owned();
        }
        settings
    };
    assert_eq!(make(&with("https://a")), Ok(()));
    assert!(matches!(make(&with("a")), Err(SetupError::Endpoint(..))));
    assert!(matches!(
        make(&with("http://a")),
        Err(SetupError::Insecure(_))
    ));
}
