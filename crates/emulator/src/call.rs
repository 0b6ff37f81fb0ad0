//! A call from end to end, and the log of all: which operation it asks for (by the raw request target), what is
//! known of it before it is judged, its answer's body (whole, or breaking off before its announced end),
//! instants as the service writes them, and what is remembered: counts for ever, the last requests one by one.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Uri, header::HOST};
use hyper::body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use renewd_acs_wire::{CreateRequest, Operation};
use serde::{Deserialize, Serialize};

use super::{
    answer::{self, Problem, Reply},
    entra::{EntraPart, Place},
};

/// A request's place in the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `POST /identities`.
    Create,
    /// `DELETE /identities/{id}`.
    Delete(String),
    /// `POST /identities/{id}/:revokeAccessTokens`.
    Revoke(String),
    /// `POST /identities/{id}/:issueAccessToken`.
    Issue(String),
    /// `POST /teamsUser/:exchangeAccessToken`.
    Exchange,
    /// A place of Entra ID, which judges the method itself.
    Entra(Place),
    /// A place of the API that does not take this method.
    WrongMethod,
    /// No place of the API.
    Unknown,
}

/// Finds the route. The path is split first and decoded after, so that an escaped `/` stays within
/// its segment; both `%3A` and `:` lead to the same place.
pub(super) fn route(method: &Method, path: &str) -> Route {
    let Some(segments) = path
        .split('/')
        .skip(1)
        .map(decode)
        .collect::<Option<Vec<String>>>()
    else {
        return Route::Unknown;
    };
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let Some(place) = Place::of(&parts) {
        return Route::Entra(place);
    }
    let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    let (wanted, found) = match parts[..] {
        [a] if is(a, "identities") => (Method::POST, Route::Create),
        [a, id] if is(a, "identities") && !id.is_empty() => {
            (Method::DELETE, Route::Delete(id.to_owned()))
        }
        [a, id, verb] if is(a, "identities") && is(verb, ":issueAccessToken") => {
            (Method::POST, Route::Issue(id.to_owned()))
        }
        [a, id, verb] if is(a, "identities") && is(verb, ":revokeAccessTokens") => {
            (Method::POST, Route::Revoke(id.to_owned()))
        }
        [a, verb] if is(a, "teamsUser") && is(verb, ":exchangeAccessToken") => {
            (Method::POST, Route::Exchange)
        }
        _ => return Route::Unknown,
    };
    if *method == wanted {
        found
    } else {
        Route::WrongMethod
    }
}

/// A version of the API, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiVersion {
    Unspecified,
    /// This one, known or not.
    Asked(String),
}

/// The recorded list of what the identity operations support, verbatim.
pub(super) const IDENTITY_VERSIONS: &str = "2020-07-20-preview2, 2021-02-22-preview1, 2021-03-07, 2021-10-31-preview, 2021-11-01, 2022-06-01, 2022-10-01, 2023-10-01";
/// The recorded list of what the Teams exchange supports, verbatim.
pub(super) const TEAMS_VERSIONS: &str = "2021-10-31-preview, 2022-06-01, 2022-10-01";
/// Supported besides the recorded lists: the SDKs use them for every operation.
const NEWER_VERSIONS: [&str; 2] = ["2023-10-01", "2025-06-30"];
/// Listed by the service and not emulated: its operations have other shapes.
const OTHER_SHAPES: &str = "2020-07-20-preview2";

/// The `api-version` of a query; its name in any case, as ASP.NET takes it.
pub(super) fn api_version(query: &str) -> ApiVersion {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, value)| name.eq_ignore_ascii_case("api-version") && !value.is_empty())
        .and_then(|(_, value)| decode(value))
        .map_or(ApiVersion::Unspecified, ApiVersion::Asked)
}

/// Whether this version is supported there.
pub(super) fn supports(list: &str, version: &str) -> bool {
    version != OTHER_SHAPES
        && (NEWER_VERSIONS.contains(&version) || list.split(", ").any(|known| known == version))
}

/// A request, with what it asks for.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request<Bytes>,
    pub(super) target: String,
    pub(super) host: String,
    pub(super) route: Route,
    /// None where it asks for nothing that there is.
    pub(super) purpose: Option<Purpose>,
}

/// What a request is for, as faults, counts and the log name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub(super) enum Purpose {
    Acs(Operation),
    Entra(EntraPart),
}

impl Purpose {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Acs(operation) => operation.as_str(),
            Self::Entra(part) => part.as_str(),
        }
    }

    /// The one of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let parts = EntraPart::ALL.into_iter().map(Self::Entra);
        let mut all = OPERATIONS.into_iter().map(Self::Acs).chain(parts);
        all.find(|purpose| purpose.as_str() == name)
    }
}

impl From<Purpose> for &'static str {
    fn from(purpose: Purpose) -> Self {
        purpose.as_str()
    }
}

impl TryFrom<String> for Purpose {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| format!("there is no operation {name}"))
    }
}

/// Every operation, in the order of listings.
pub(super) const OPERATIONS: [Operation; 6] = [
    Operation::Create,
    Operation::CreateWithToken,
    Operation::Issue,
    Operation::Revoke,
    Operation::Delete,
    Operation::Exchange,
];

impl Call {
    pub(super) fn read(request: Request<Bytes>) -> Self {
        let route = route(request.method(), request.uri().path());
        let purpose = match &route {
            Route::Create => Some(Purpose::Acs(creation(&request))),
            Route::Issue(_) => Some(Purpose::Acs(Operation::Issue)),
            Route::Revoke(_) => Some(Purpose::Acs(Operation::Revoke)),
            Route::Delete(_) => Some(Purpose::Acs(Operation::Delete)),
            Route::Exchange => Some(Purpose::Acs(Operation::Exchange)),
            Route::Entra(place) => Some(Purpose::Entra(place.part(&request))),
            Route::WrongMethod | Route::Unknown => None,
        };
        Self {
            target: request
                .uri()
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
            host: host(&request),
            request,
            route,
            purpose,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        match &self.route {
            Route::Issue(id) | Route::Revoke(id) | Route::Delete(id) => Some(id),
            _ => None,
        }
    }

    pub(super) fn version(&self) -> Result<String, Problem> {
        let uri: &Uri = self.request.uri();
        let supported = match self.route {
            Route::Exchange => TEAMS_VERSIONS,
            _ => IDENTITY_VERSIONS,
        };
        match api_version(uri.query().unwrap_or_default()) {
            ApiVersion::Unspecified => Err(answer::api_version_unspecified()),
            ApiVersion::Asked(version) if supports(supported, &version) => Ok(version),
            ApiVersion::Asked(version) => Err(answer::api_version_unsupported(
                &self.host,
                uri.path(),
                &version,
                supported,
            )),
        }
    }

    pub(super) fn entry(
        &self,
        at: Timestamp,
        key: Option<String>,
        reply: &Reply,
        reason: Option<String>,
    ) -> Entry {
        let header = |name: &str| {
            let value = self.request.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        Entry {
            number: 0,
            at,
            operation: self.purpose,
            method: self.request.method().to_string(),
            target: self.target.clone(),
            id: self.id().map(str::to_owned),
            client_request_id: header("x-ms-client-request-id"),
            user_agent: header("user-agent"),
            key,
            status: reply.status().map(|status| status.as_u16()),
            reason,
        }
    }
}

/// Limits and counts tell a creation with a token from one without.
fn creation(request: &Request<Bytes>) -> Operation {
    let body = answer::read::<CreateRequest>(request.headers(), request.body());
    let scopes = body.ok().flatten().and_then(|b| b.create_token_with_scopes);
    if scopes.is_some_and(|scopes| !scopes.is_empty()) {
        Operation::CreateWithToken
    } else {
        Operation::Create
    }
}

/// `Host`, or the authority of HTTP/2 without a port that is the scheme's own.
fn host(request: &Request<Bytes>) -> String {
    if let Some(host) = request.headers().get(HOST) {
        return host.to_str().unwrap_or_default().to_owned();
    }
    let uri = request.uri();
    let name = uri.host().unwrap_or_default();
    match (uri.scheme_str(), uri.port_u16()) {
        (_, None) | (Some("https"), Some(443)) | (Some("http"), Some(80)) => name.to_owned(),
        (_, Some(port)) => format!("{name}:{port}"),
    }
}

/// A body that announces `length` bytes and carries what there is of them.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    length: u64,
    end: End,
}

/// What comes after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// One more look first: what was handed over so far goes out only while the body is waited for.
    Hesitates,
    BreaksOff,
}

/// The body breaks off here, on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the body breaks off, as was asked for")]
pub(super) struct BreaksOff;

impl Outgoing {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self {
            length: bytes.len() as u64,
            bytes: Some(bytes).filter(|b| !b.is_empty()),
            end: End::Whole,
        }
    }

    /// The first `sent` bytes of a body.
    pub(super) fn truncated(bytes: &Bytes, sent: usize) -> Self {
        Self {
            length: bytes.len() as u64,
            bytes: Some(bytes.slice(..sent.min(bytes.len()))),
            end: End::Hesitates,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BreaksOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BreaksOff>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Hesitates => {
                self.end = End::BreaksOff;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::BreaksOff => Poll::Ready(Some(Err(BreaksOff))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.end == End::Whole
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// `expiresOn`: .NET's round-trip format, up to seven fractional digits with trailing zeros left
/// out, and `+00:00`, never `Z`.
pub(super) fn expires_on(at: Timestamp) -> String {
    let seconds = at.strftime("%Y-%m-%dT%H:%M:%S");
    let ticks = format!("{:07}", at.subsec_nanosecond().max(0) / 100);
    match ticks.trim_end_matches('0') {
        "" => format!("{seconds}+00:00"),
        fraction => format!("{seconds}.{fraction}+00:00"),
    }
}

/// An HTTP date, whole seconds.
pub(super) fn http_date(at: Timestamp) -> String {
    httpdate::fmt_http_date(SystemTime::from(at))
}

/// Reads an HTTP date.
pub(super) fn read_http_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text).ok()?;
    Timestamp::try_from(at).ok()
}

/// `at` plus `by`, kept within what a timestamp can hold.
pub(super) fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Whole seconds, rounded up, as in a token's `exp`.
pub(super) fn seconds_up(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

/// Reads `30s`, `500ms`, `5m`, `2h`, `1d`, or a bare number of seconds.
pub(super) fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().ok()?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

/// One request and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// When it was answered, by the emulator's clock.
    pub(super) at: Timestamp,
    pub(super) operation: Option<Purpose>,
    pub(super) method: String,
    /// The raw request target.
    pub(super) target: String,
    pub(super) id: Option<String>,
    pub(super) client_request_id: Option<String>,
    pub(super) user_agent: Option<String>,
    /// The key that signed it, or whose bearer it had.
    pub(super) key: Option<String>,
    /// None where no answer was sent.
    pub(super) status: Option<u16>,
    /// Why it was not a success.
    pub(super) reason: Option<String>,
}

/// Calls of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub calls: u64,
    pub succeeded: u64,
    /// Answered with 429.
    pub throttled: u64,
    /// Answered with 401.
    pub denied: u64,
    /// Every other status from 400 on.
    pub failed: u64,
    /// No whole answer: reset, hung.
    pub unanswered: u64,
}

/// Requests that are remembered one by one.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct RequestLog {
    counts: BTreeMap<&'static str, Counts>,
    recent: VecDeque<Entry>,
    next: u64,
}

impl RequestLog {
    pub(super) fn note(&mut self, mut entry: Entry) {
        self.next += 1;
        entry.number = self.next;
        let name = entry.operation.map_or("other", Purpose::as_str);
        let counts = self.counts.entry(name).or_default();
        counts.calls += 1;
        match entry.status {
            Some(200..=299) => counts.succeeded += 1,
            Some(401) => counts.denied += 1,
            Some(429) => counts.throttled += 1,
            Some(_) => counts.failed += 1,
            None => counts.unanswered += 1,
        }
        self.recent.push_back(entry);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, Counts> {
        &self.counts
    }

    /// The newest entries, oldest of them first.
    pub(super) fn recent(&self, limit: usize, operation: Option<Purpose>) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = self
            .recent
            .iter()
            .rev()
            .filter(|entry| operation.is_none() || entry.operation == operation)
            .take(limit)
            .collect();
        found.reverse();
        found
    }

    pub(super) fn forget_counts(&mut self) {
        self.counts.clear();
    }

    pub(super) fn forget_requests(&mut self) {
        self.recent.clear();
    }
}

/// The segment with every `%XX` decoded; `None` where an escape or the result is not valid.
pub(super) fn decode(segment: &str) -> Option<String> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let valid = segment.split('%').skip(1).all(is_escape);
    let decoded = percent_decode_str(segment).decode_utf8();
    decoded.ok().filter(|_| valid).map(Into::into)
}

#[cfg(test)]
mod call_tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_id_lead_to_the_same_place() {
        let issue = Route::Issue("8:acs:a_b".to_owned());
        for path in [
            "/identities/8%3Aacs%3Aa_b/:issueAccessToken",
            "/identities/8:acs:a_b/:issueAccessToken",
            "/identities/8%3aacs:a_b/%3AissueAccessToken",
        ] {
            assert_eq!(route(&Method::POST, path), issue, "{path}");
        }
        assert_eq!(
            route(&Method::DELETE, "/identities/a%2Fb"),
            Route::Delete("a/b".to_owned())
        );
    }

    #[test]
    fn other_methods_and_paths_are_told_apart() {
        assert_eq!(route(&Method::GET, "/identities"), Route::WrongMethod);
        assert_eq!(route(&Method::POST, "/identities/x/:other"), Route::Unknown);
        assert_eq!(route(&Method::POST, "/"), Route::Unknown);
        assert_eq!(route(&Method::DELETE, "/identities/"), Route::Unknown);
    }

    #[test]
    fn versions_are_those_of_the_recordings_and_the_newer_ones() {
        let asked = |text: &str| ApiVersion::Asked(text.to_owned());
        assert_eq!(api_version("api-version=2023-10-01"), asked("2023-10-01"));
        assert_eq!(api_version("a=b&API-Version=x"), asked("x"));
        assert_eq!(api_version("api-version="), ApiVersion::Unspecified);
        assert!(supports(IDENTITY_VERSIONS, "2021-03-07"));
        assert!(supports(TEAMS_VERSIONS, "2023-10-01"));
        assert!(!supports(TEAMS_VERSIONS, "2021-03-07"));
        assert!(!supports(IDENTITY_VERSIONS, "2020-07-20-preview2"));
    }
}

#[cfg(test)]
mod times_tests {
    use super::*;

    #[test]
    fn expiry_is_written_as_dotnet_does() {
        let write = |text: &str| expires_on(text.parse().unwrap());
        assert_eq!(
            write("2023-10-19T15:35:25.246068799Z"),
            "2023-10-19T15:35:25.2460687+00:00"
        );
        assert_eq!(
            write("2023-10-19T15:35:25.68764Z"),
            "2023-10-19T15:35:25.68764+00:00"
        );
        assert_eq!(write("2023-10-19T15:35:25Z"), "2023-10-19T15:35:25+00:00");
    }

    #[test]
    fn durations_need_a_known_unit() {
        assert_eq!(read_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(read_duration("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(read_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read_duration("2h"), Some(Duration::from_hours(2)));
        for bad in ["", "s", "-1s", "3w", "1 s"] {
            assert_eq!(read_duration(bad), None, "{bad:?}");
        }
    }
}

#[cfg(test)]
mod decode_tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_plain_text_is_left() {
        assert_eq!(decode("8%3Aacs%3aa_b").as_deref(), Some("8:acs:a_b"));
        assert_eq!(decode("a%2Fb+%C3%BC").as_deref(), Some("a/b+ü"));
        assert_eq!(decode("%3"), None);
        assert_eq!(decode("%zz"), None);
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("%%41"), None);
    }
}
