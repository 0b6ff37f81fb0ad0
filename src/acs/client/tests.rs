//! The client against a small other side in this process, which checks what arrives and refuses keys and
//! clocks when told to.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{Request, Response};

use super::*;
use crate::{
    acs::request,
    config::{CreatePolicy, CredentialSettings, KeySettings, Limits, LoadedSecret, SecretRef},
    model::{FailureClass, Operation},
    transport::TransportError,
};

const PRIMARY: &[u8] = b"primary";
const SECONDARY: &[u8] = b"secondary";
const ID: &str = "8:acs:11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001";
const TOKEN_BODY: &str =
    r#"{"token":"canary.b.c","expiresOn":"2026-11-23T12:00:00.1234567+00:00"}"#;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What the other side does instead of answering well.
#[derive(Debug, Clone)]
enum Fault {
    Answer(u16, String),
    Break,
    Hang,
}

/// The other side: refuses other keys and dates more than 5 minutes off.
struct Side {
    clock: Clock,
    key: Mutex<&'static [u8]>,
    ahead: Mutex<SignedDuration>,
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Request<Bytes>>>,
}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap()),
            key: Mutex::new(PRIMARY),
            ahead: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    fn fail(&self, fault: Fault) {
        lock(&self.faults).push_back(fault);
    }

    fn reject(&self, status: u16, code: &str) {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"Because."}}}}"#);
        self.fail(Fault::Answer(status, body));
    }

    fn requests(&self) -> usize {
        lock(&self.seen).len()
    }

    fn now(&self) -> Timestamp {
        self.clock.now() + *lock(&self.ahead)
    }

    fn transport(self: &Arc<Self>) -> Transport {
        let side = Arc::clone(self);
        Transport::InProcess(Arc::new(move |request| {
            let side = Arc::clone(&side);
            Box::pin(async move {
                let fault = lock(&side.faults).pop_front();
                let (status, body) = match fault {
                    Some(Fault::Hang) => std::future::pending().await,
                    Some(Fault::Break) => return Err(TransportError::Broken("reset".to_owned())),
                    Some(Fault::Answer(status, body)) => (status, body),
                    None => side.answer(&request),
                };
                lock(&side.seen).push(request);
                let builder = Response::builder()
                    .status(status)
                    .header("date", request::http_date(side.now()));
                Ok(builder.body(Bytes::from(body)).unwrap())
            })
        }))
    }

    fn answer(&self, request: &Request<Bytes>) -> (u16, String) {
        if !self.accepts(request) {
            let denied =
                r#"{"error":{"code":"Denied","message":"Denied by the resource provider."}}"#;
            return (401, denied.to_owned());
        }
        let path = request.uri().path();
        match (request.method().as_str(), path) {
            ("POST", "/identities") if request.body().is_empty() => {
                (201, format!(r#"{{"identity":{{"id":"{ID}"}}}}"#))
            }
            ("POST", "/identities") => (
                201,
                format!(r#"{{"identity":{{"id":"{ID}"}},"accessToken":{TOKEN_BODY}}}"#),
            ),
            ("POST", path) if path.ends_with("/:revokeAccessTokens") => (204, String::new()),
            ("POST", _) => (200, TOKEN_BODY.to_owned()),
            _ => (204, String::new()),
        }
    }

    fn accepts(&self, request: &Request<Bytes>) -> bool {
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        let date = Timestamp::try_from(httpdate::parse_http_date(header("x-ms-date")).unwrap());
        let signable = request::Signable {
            method: request.method(),
            target: request.uri().path_and_query().unwrap().as_str(),
            host: request.uri().authority().unwrap().as_str(),
            date: header("x-ms-date"),
            content_hash: &request::content_hash(request.body()),
        };
        let key = AccessKey::new(lock(&self.key).to_vec());
        date.unwrap().duration_since(self.now()).abs() <= SignedDuration::from_mins(5)
            && header("authorization") == signable.authorization(&key)
    }
}

fn loaded(endpoint: &str, key: &[u8]) -> LoadedSecret {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let key = BASE64_STANDARD.encode(key);
    LoadedSecret {
        from: SecretRef::Env("CS".to_owned()),
        secret: Secret::new(format!("endpoint={endpoint};accesskey={key}")),
    }
}

fn keys(primary: LoadedSecret, secondary: Option<LoadedSecret>) -> CredentialSettings {
    CredentialSettings::Keys(KeySettings {
        connection_string: primary,
        secondary_connection_string: secondary,
    })
}

fn settings() -> ResourceSettings {
    let endpoint = "https://contoso.example:8443/";
    ResourceSettings {
        name: "contoso".parse().unwrap(),
        credential: keys(loaded(endpoint, PRIMARY), Some(loaded(endpoint, SECONDARY))),
        ca_file: None,
        proxy: None,
        api_version: "2023-10-01".to_owned(),
        create: CreatePolicy::Auto,
        limits: Limits::default(),
        max_in_flight: 32,
    }
}

fn client(side: &Arc<Side>) -> Client {
    Client::new(&settings(), side.clock.clone(), side.transport()).unwrap()
}

fn id() -> IdentityId {
    ID.parse().unwrap()
}

async fn issue(client: &Client) -> Result<AcsAnswer<Issued>, Error> {
    client.issue(&id(), &[Scope::Chat], HOUR, 10 * SECOND).await
}

#[tokio::test(start_paused = true)]
async fn every_operation_goes_out_as_documented() {
    let side = Side::new();
    let client = client(&side);
    let deadline = 10 * SECOND;
    let scopes = [Scope::Chat, Scope::Voip];
    assert_eq!(
        client.create(None, deadline).await.unwrap().value.token,
        None
    );
    let created = client
        .create(Some((&scopes, HOUR)), deadline)
        .await
        .unwrap();
    assert_eq!(created.value.id, id());
    assert_eq!(created.value.token.unwrap().secret.expose(), "canary.b.c");
    issue(&client).await.unwrap();
    client.revoke(&id(), deadline).await.unwrap();
    client.delete(&id(), deadline).await.unwrap();
    let entra = Secret::new("entra".to_owned());
    client
        .exchange(&entra, "app", "user", deadline)
        .await
        .unwrap();

    let encoded = ID.replace(':', "%3A");
    let seen: Vec<String> = lock(&side.seen)
        .iter()
        .map(|r| {
            format!(
                "{} {} {}",
                r.method(),
                r.uri(),
                String::from_utf8_lossy(r.body())
            )
        })
        .collect();
    let base = "https://contoso.example:8443";
    let version = "?api-version=2023-10-01";
    assert_eq!(
        seen,
        [
            format!("POST {base}/identities{version} "),
            format!(
                r#"POST {base}/identities{version} {{"createTokenWithScopes":["chat","voip"],"expiresInMinutes":60}}"#
            ),
            format!(
                r#"POST {base}/identities/{encoded}/:issueAccessToken{version} {{"scopes":["chat"],"expiresInMinutes":60}}"#
            ),
            format!("POST {base}/identities/{encoded}/:revokeAccessTokens{version} "),
            format!("DELETE {base}/identities/{encoded}{version} "),
            format!(
                r#"POST {base}/teamsUser/:exchangeAccessToken{version} {{"token":"entra","appId":"app","userId":"user"}}"#
            ),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn every_request_says_who_asks_and_how_much_it_carries() {
    let side = Side::new();
    let client = client(&side);
    client.create(None, SECOND).await.unwrap();
    client.revoke(&id(), SECOND).await.unwrap();
    issue(&client).await.unwrap();
    let header = |at: usize, name: &str| {
        let value = lock(&side.seen)[at].headers().get(name).cloned();
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(header(2, "user-agent"), Some(format!("renewd/{version}")));
    for (at, length, kind) in [
        (0, Some("0"), Some("application/json")),
        (1, Some("0"), None),
        (2, None, Some("application/json")),
    ] {
        assert_eq!(header(at, "content-length").as_deref(), length, "{at}");
        assert_eq!(header(at, "content-type").as_deref(), kind, "{at}");
    }
    let id = |at| header(at, "x-ms-client-request-id").unwrap();
    assert_ne!(id(0), id(1));
    assert_eq!(id(0).len(), 36);
}

#[tokio::test(start_paused = true)]
async fn the_same_run_draws_the_same_request_ids() {
    let ids = async || {
        let side = Side::new();
        let client = client(&side);
        let answers = [issue(&client).await.unwrap(), issue(&client).await.unwrap()];
        answers.map(|answer| answer.request_id.unwrap())
    };
    assert_eq!(ids().await, ids().await);
}

#[tokio::test(start_paused = true)]
async fn lost_and_unreadable_answers_may_have_taken_effect() {
    let side = Side::new();
    let client = client(&side);
    for (fault, says) in [
        (
            Fault::Break,
            "the connection to contoso.example:8443 broke: reset",
        ),
        (
            Fault::Hang,
            "no complete answer from contoso.example:8443 within 10s",
        ),
        (
            Fault::Answer(201, "x".repeat(64 * 1024 + 1)),
            "the answer of contoso.example:8443 is larger than 65536 bytes",
        ),
        (
            Fault::Answer(201, "canary".to_owned()),
            "the answer of contoso.example:8443 (201) cannot be read: it is not JSON, at byte 1 of 6",
        ),
        (
            Fault::Answer(201, r#"{"identity":{"id"#.to_owned()),
            "its JSON is cut short",
        ),
        (
            Fault::Answer(200, format!(r#"{{"identity":{{"id":"{ID}"}}}}"#)),
            "another kind of success was expected",
        ),
    ] {
        side.fail(fault.clone());
        let error = client.create(None, 10 * SECOND).await.unwrap_err();
        let failure = error.failure();
        assert!(failure.message.contains(says), "{}", failure.message);
        let text = error.to_string();
        assert!(text.starts_with("cannot create an identity: "), "{text}");
        assert!(text.ends_with(&failure.message), "{text}");
        assert!(
            failure.maybe_done && failure.class == FailureClass::Retry,
            "{fault:?}"
        );
        assert!(
            failure.request_id.is_some(),
            "ours is quoted where the service gave none"
        );
        assert_eq!(error.operation, Operation::Create);
    }
}

#[tokio::test(start_paused = true)]
async fn one_deadline_holds_over_all_requests_of_a_call() {
    let side = Side::new();
    let client = client(&side);
    side.reject(401, "Denied");
    side.fail(Fault::Hang);
    let began = side.clock.steady();
    let error = issue(&client).await.unwrap_err();
    assert_eq!(error.requests, 2);
    let took = side.clock.steady() - began;
    assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_key_or_a_token() {
    let side = Side::new();
    let client = client(&side);
    let answer = issue(&client).await.unwrap();
    let shown = format!("{client:?} {answer:?} {:?}", client.key_status());
    for secret in ["canary", "cHJpbWFyeQ", "primary\"", "c2Vjb25kYXJ5"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_could_not_call_is_not_made() {
    let side = Side::new();
    let make = |primary: &str, secondary: Option<&str>, version: &str| {
        let settings = ResourceSettings {
            credential: keys(
                loaded(primary, PRIMARY),
                secondary.map(|endpoint| loaded(endpoint, SECONDARY)),
            ),
            api_version: version.to_owned(),
            ..settings()
        };
        Client::new(&settings, side.clock.clone(), side.transport()).map(|_| ())
    };
    let name: ResourceName = "contoso".parse().unwrap();
    let version = "2023-10-01";
    assert_eq!(make("https://a", Some("https://a/"), version), Ok(()));
    assert_eq!(
        make("https://a", Some("https://b"), version),
        Err(SetupError::Endpoints(name.clone()))
    );
    assert_eq!(
        make("http://a", None, version),
        Err(SetupError::Insecure(name.clone()))
    );
    assert_eq!(
        make("https://a", None, "new"),
        Err(SetupError::ApiVersion(name))
    );
    assert!(matches!(
        make("a", None, version),
        Err(SetupError::Primary(..))
    ));
    assert!(matches!(
        make("https://a", Some("a"), version),
        Err(SetupError::Secondary(..))
    ));
}

/// Takes one request and returns its head as it came over the socket.
async fn head_of_one_request(listener: tokio::net::TcpListener) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn what_goes_over_a_socket_is_what_was_signed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut settings = settings();
    settings.credential = keys(loaded(&format!("http://{address}/"), PRIMARY), None);
    let network = Transport::network(&crate::transport::NetworkOptions::default()).unwrap();
    let client = Client::new(&settings, Clock::system(), network).unwrap();
    let identity = id();
    let (head, answer) = tokio::join!(
        head_of_one_request(listener),
        client.revoke(&identity, 10 * SECOND)
    );
    answer.unwrap();

    let target = format!(
        "/identities/{}/:revokeAccessTokens?api-version=2023-10-01",
        ID.replace(':', "%3A")
    );
    assert!(
        head.starts_with(&format!("POST {target} HTTP/1.1\r\n")),
        "{head}"
    );
    let header = |name: &str| {
        let lines = || head.lines().filter_map(|line| line.split_once(": "));
        let value = lines().find(|(key, _)| key.eq_ignore_ascii_case(name));
        value.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    assert_eq!(header("content-length"), "0");
    assert_eq!(header("host"), address.to_string());
    let signable = request::Signable {
        method: &http::Method::POST,
        target: &target,
        host: &header("host"),
        date: &header("x-ms-date"),
        content_hash: &request::content_hash(b""),
    };
    let key = AccessKey::new(PRIMARY.to_vec());
    assert_eq!(header("authorization"), signable.authorization(&key));
}

/// Whatever stands in the query: the service, which checks the signature, gets the very text that was signed.
#[tokio::test(start_paused = true)]
async fn what_is_signed_is_what_is_sent_whatever_it_holds() {
    let side = Side::new();
    let client = Client {
        query: "api-version=no version\n%&é".to_owned(),
        ..Client::new(&settings(), side.clock.clone(), side.transport()).unwrap()
    };
    let id = ID.parse().unwrap();
    let issued = client.issue(&id, &[Scope::Chat], HOUR, SECOND).await;
    assert_eq!((issued.unwrap().requests, side.requests()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_followed_by_the_other_which_is_remembered() {
    let side = Side::new();
    let client = client(&side);
    issue(&client).await.unwrap();
    *lock(&side.key) = SECONDARY;
    let switched = issue(&client).await.unwrap();
    assert_eq!((switched.requests, switched.switched_key), (2, true));
    assert_eq!(
        switched.key,
        AccessKey::new(SECONDARY.to_vec()).fingerprint()
    );
    let next = issue(&client).await.unwrap();
    assert_eq!((next.requests, next.switched_key), (1, false));
    let status = client.key_status();
    assert_eq!(status.in_use, KeyRole::Secondary);
    assert_eq!(status.keys[0].standing, KeyStanding::Denied);
    assert_eq!(status.keys[1].standing, KeyStanding::Accepted);
}

#[tokio::test(start_paused = true)]
async fn when_both_keys_are_refused_two_requests_are_all() {
    let side = Side::new();
    *lock(&side.key) = b"regenerated";
    let client = client(&side);
    let error = issue(&client).await.unwrap_err();
    assert_eq!(
        (error.class(), error.requests),
        (FailureClass::Credentials, 2)
    );
    assert_eq!(client.key_status().in_use, KeyRole::Primary);
    assert!(
        client
            .key_status()
            .keys
            .iter()
            .all(|k| k.standing == KeyStanding::Denied)
    );
    assert_eq!(
        error.to_string(),
        format!(
            "cannot issue a token for {ID}: 401 Denied from {}: Denied by the resource provider. (check the connection strings against the keys that the Azure portal shows)",
            client.endpoint.authority()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn only_denied_tries_the_other_key() {
    let side = Side::new();
    let client = client(&side);
    for (status, code, class) in [
        (401, "Unauthorized", FailureClass::Credentials),
        (403, "Forbidden", FailureClass::Credentials),
        (401, "IdentityNotOwned", FailureClass::Gone),
        (404, "IdentityNotFound", FailureClass::Gone),
        (429, "TooManyRequests", FailureClass::Wait),
        (500, "InternalServerError", FailureClass::Retry),
    ] {
        side.reject(status, code);
        let failure = issue(&client).await.unwrap_err().failure();
        assert_eq!(
            (failure.class, failure.status),
            (class, Some(status)),
            "{code}"
        );
    }
    assert_eq!(side.requests(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_signs_again_with_the_answers_date_and_learns() {
    let side = Side::new();
    let client = client(&side);
    let day = SignedDuration::from_hours(24);
    *lock(&side.ahead) = -day;
    let first = issue(&client).await.unwrap();
    assert_eq!((first.requests, first.switched_key), (2, false));
    assert!((client.skew() + day).abs() <= SignedDuration::from_secs(1));
    assert_eq!(
        issue(&client).await.unwrap().requests,
        1,
        "signed with the skew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_and_a_wrong_key_are_told_apart() {
    let side = Side::new();
    let client = client(&side);
    *lock(&side.ahead) = SignedDuration::from_hours(1);
    *lock(&side.key) = SECONDARY;
    let answer = issue(&client).await.unwrap();
    assert_eq!((answer.requests, answer.switched_key), (3, true));
}

#[tokio::test(start_paused = true)]
async fn a_refusals_date_teaches_nothing() {
    let side = Side::new();
    let client = client(&side);
    *lock(&side.ahead) = SignedDuration::from_hours(24);
    for _ in 0..2 {
        side.reject(401, "Denied");
    }
    issue(&client).await.unwrap_err();
    assert_eq!(client.measured_skew(), None);
}

#[tokio::test(start_paused = true)]
async fn an_authenticated_date_confirms_a_step_of_our_clock() {
    let side = Side::new();
    let client = client(&side);
    let hour = SignedDuration::from_hours(1);
    *lock(&side.ahead) = hour;
    issue(&client).await.unwrap();
    let before = side.clock.now();
    side.clock.step_wall(hour);
    issue(&client).await.unwrap();
    assert_eq!(side.clock.now(), before + hour);
    assert!(
        client.skew().abs() <= SignedDuration::from_secs(1),
        "{}",
        client.skew()
    );
    *lock(&side.ahead) = SignedDuration::ZERO;
    assert_eq!(
        issue(&client).await.unwrap().requests,
        1,
        "no sample was spoilt"
    );
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_cannot_be_is_not_followed() {
    for days in [8, 3650, -8, -3650, 365 * 7900] {
        let side = Side::new();
        let client = client(&side);
        *lock(&side.ahead) = SignedDuration::from_hours(24 * days);
        let error = issue(&client).await.unwrap_err();
        assert_eq!(
            (client.measured_skew(), error.requests),
            (None, 1),
            "{days}"
        );
        let told = error.to_string();
        assert!(told.contains("set the clock of this machine"), "{told}");
        assert!(!error.blames_credential, "{days}");
    }
    // Answers of success with such a date are taken, their date is not.
    let side = Side::new();
    let client = client(&side);
    issue(&client).await.unwrap();
    let before = client.skew();
    side.clock.step_wall(SignedDuration::from_hours(-24 * 3650));
    assert!(
        client.skew().as_hours().abs() <= 7 * 24,
        "{}",
        client.skew()
    );
    assert!((client.skew() - before).as_hours().abs() <= 7 * 24);
}
