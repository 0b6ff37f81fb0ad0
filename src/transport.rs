//! The only room that sends an HTTP request out, bounded in time and size.
//!
//! It ends in an enum: the network (reqwest over rustls), or a function in this process, so that the
//! emulator and a receiver answer without a socket under paused time. Who sends has a say in how names become
//! addresses. Signing, retries and the meaning of an answer lie above it, in the rooms that call it.

mod certificate;

use std::{
    error::Error as _,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
pub use certificate::{end as certificate_end, first_end, public_key as certificate_key};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
pub use reqwest::Url;
use zeroize::Zeroize;

use crate::config::read_regular;

/// The bundle of all public authorities takes a quarter of a MiB.
pub const LARGEST_CA_FILE: u64 = 4 << 20;
/// Longest text of a service that is passed on, in characters.
const LONGEST_TEXT: usize = 300;
/// How much of an answer that nobody wants is read away, and for how long.
const READ_AWAY: usize = 64 * 1024;
const READING_AWAY: Duration = Duration::from_secs(1);

/// Who calls, in every request.
pub static USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("renewd/", env!("CARGO_PKG_VERSION")));

/// A request as it is sent. Its URL is made by the parser that sends it, once for each peer; what is
/// sent is no other text than the one that was signed.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub method: Method,
    /// Where to, path and query included.
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Outgoing {
    fn for_network(self) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method, self.url);
        *request.headers_mut() = self.headers;
        *request.body_mut() = Some(self.body.into());
        request
    }

    /// For a function in this process.
    fn for_handler(self) -> Result<http::Request<Bytes>, TransportError> {
        let mut request = http::Request::new(self.body);
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        let uri = self.url.as_str().parse();
        *request.uri_mut() = uri.map_err(|e| TransportError::Connect(format!("{e}")))?;
        Ok(request)
    }
}

#[derive(Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// `Retry-After` in both forms, seconds or a date as seen from `now` (RFC 9110, 10.2.3); a date in the past is no
/// wait.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = http_date(text)?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// A date as headers hold it.
pub fn http_date(text: &str) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()
}

/// A service's text, on one line and not too long. Should something on the way have echoed a token
/// (every JWT begins with `eyJ`), it goes no further.
pub fn tamed(text: &str) -> String {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| if word.contains("eyJ") { "***" } else { word })
        .collect();
    words.join(" ").chars().take(LONGEST_TEXT).collect()
}

/// Nobody else holds the body any more, so it can be wiped; it may hold a token.
pub fn wipe(reply: Reply) {
    if let Ok(mut body) = reply.body.try_into_mut() {
        body.as_mut().zeroize();
    }
}

/// What an answer begins with.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// Why there is no answer. All of these are worth another try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Name resolution or connect failed.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The TLS handshake failed, such as for a certificate that is not trusted.
    #[error("the TLS handshake was refused: {0}")]
    Handshake(String),
    /// The whole call took longer than its deadline.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke before the answer was complete.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The body is larger than the caller can want.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl TransportError {
    /// The same, the reason first, with the peer's name.
    pub fn with(&self, peer: &str) -> String {
        match self {
            Self::Connect(why) => format!("no connection to {peer}: {why}"),
            Self::Handshake(why) => format!("TLS handshake with {peer} refused: {why}"),
            Self::Timeout(limit) => format!("no complete answer from {peer} within {limit:?}"),
            Self::Broken(why) => format!("the connection to {peer} broke: {why}"),
            Self::TooLarge(limit) => format!("the answer of {peer} is larger than {limit} bytes"),
        }
    }

    /// Whether no connection came about, so that nothing was sent.
    pub fn is_unconnected(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Handshake(_))
    }
}

/// Why a transport cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportSetupError {
    /// The CA file cannot be read.
    #[error("cannot read the CA file {path}: {source}")]
    CaFile {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The CA file holds no usable certificate.
    #[error("{path} holds no usable CA certificate: {reason}")]
    CaContent { path: PathBuf, reason: String },
    /// The proxy's URL cannot be used.
    #[error("cannot send by way of this proxy: {0}")]
    Proxy(String),
    /// The TLS library refused.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A function in this process that answers like a server.
pub type Handler = Arc<
    dyn Fn(
            http::Request<Bytes>,
        ) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>>
        + Send
        + Sync,
>;

/// A second call finds the provider installed already, which is just as well.
fn provide_tls() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
}

/// Sends requests to a socket of this machine and nowhere else, each on a connection of its own.
///
/// # Errors
/// When TLS cannot be set up, which is not used here.
pub fn local(socket: &Path) -> Result<reqwest::Client, TransportSetupError> {
    provide_tls();
    reqwest::Client::builder()
        .unix_socket(socket)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .tls_certs_only([])
        .build()
        .map_err(|error| TransportSetupError::Tls(error.to_string()))
}

/// What the system said when no connection came about.
pub fn io_error(error: &reqwest::Error) -> io::Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<io::Error>();
        if let Some(code) = io.and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        cause = inner.source();
    }
    io::Error::other(error.to_string())
}

/// Options for the network.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// Trust these certificates besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Limit on name resolution, TCP and TLS together.
    pub connect_timeout: Option<Duration>,
    /// Resolves names; else the system does.
    pub resolver: Option<Resolver>,
    /// The URL of a proxy that everything goes through, `http://host:port`.
    pub proxy: Option<String>,
}

/// The way over the network, and what is known of whoever was met there.
#[derive(Clone)]
pub struct Network {
    client: reqwest::Client,
    /// When the certificate ends that the peer showed last.
    peer_ends: Arc<Mutex<Option<Timestamp>>>,
}

impl Network {
    async fn execute(&self, request: Outgoing) -> Result<reqwest::Response, TransportError> {
        let answer = self.client.execute(request.for_network()).await;
        let answer = answer.map_err(|e| classify(&e))?;
        let shown = answer.extensions().get::<reqwest::tls::TlsInfo>();
        if let Some(der) = shown.and_then(reqwest::tls::TlsInfo::peer_certificate) {
            let mut ends = self
                .peer_ends
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *ends = certificate::end(der);
        }
        Ok(answer)
    }
}

#[derive(Clone)]
pub enum Transport {
    Network(Network),
    /// To a function in this process.
    InProcess(Handler),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network(_) => "Transport::Network",
            Self::InProcess(_) => "Transport::InProcess",
        })
    }
}

impl Transport {
    /// A transport over the network: no redirects, no proxies from the environment, HTTP/2 where
    /// offered.
    ///
    /// # Errors
    /// When the CA file cannot be used or TLS cannot be set up.
    pub fn network(options: &NetworkOptions) -> Result<Self, TransportSetupError> {
        provide_tls();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(options.connect_timeout.unwrap_or(Duration::from_secs(10)))
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            .tls_info(true);
        if let Some(path) = &options.ca_file {
            let pem = read_regular(path, LARGEST_CA_FILE);
            let pem = pem.map_err(|source| TransportSetupError::CaFile {
                path: path.clone(),
                source,
            })?;
            let content = |reason: String| TransportSetupError::CaContent {
                path: path.clone(),
                reason,
            };
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| content(e.to_string()))?;
            if certificates.is_empty() {
                return Err(content("no certificate found".to_owned()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(resolver) = &options.resolver {
            builder = builder.dns_resolver(Arc::new(resolver.clone()));
        }
        if let Some(url) = &options.proxy {
            let proxy = reqwest::Proxy::all(url);
            builder =
                builder.proxy(proxy.map_err(|error| TransportSetupError::Proxy(chain(&error)))?);
        }
        let client = builder
            .build()
            .map_err(|e| TransportSetupError::Tls(chain(&e)))?;
        Ok(Self::Network(Network {
            client,
            peer_ends: Arc::default(),
        }))
    }

    /// When the certificate ends that the peer showed last; `None` where it showed none.
    pub fn peer_ends(&self) -> Option<Timestamp> {
        match self {
            Self::Network(network) => {
                let ends = network.peer_ends.lock();
                *ends.unwrap_or_else(PoisonError::into_inner)
            }
            Self::InProcess(_) => None,
        }
    }

    /// Sends `request` and reads the whole answer, at most `max_body` bytes of it, within
    /// `deadline`, everything included.
    ///
    /// # Errors
    /// When no complete answer came in time; see [`TransportError`].
    pub async fn send(
        &self,
        request: Outgoing,
        max_body: usize,
        deadline: Duration,
    ) -> Result<Reply, TransportError> {
        within(deadline, async {
            match self {
                Self::Network(network) => {
                    let mut response = network.execute(request).await?;
                    let status = response.status();
                    let headers = std::mem::take(response.headers_mut());
                    let body = body(response, max_body).await?;
                    Ok(Reply {
                        status,
                        headers,
                        body,
                    })
                }
                Self::InProcess(handler) => {
                    let (parts, body) = handler(request.for_handler()?).await?.into_parts();
                    match body.len() > max_body {
                        true => Err(TransportError::TooLarge(max_body)),
                        false => Ok(Reply {
                            status: parts.status,
                            headers: parts.headers,
                            body,
                        }),
                    }
                }
            }
        })
        .await
    }

    /// Sends `request` for what its answer begins with, which has to come within `deadline`. What
    /// follows changes nothing: as much of it is read away as comes at once, so that the connection
    /// can serve again, and of a longer or slower one the connection is closed.
    ///
    /// # Errors
    /// When no answer began in time; see [`TransportError`].
    pub async fn send_for_head(
        &self,
        request: Outgoing,
        deadline: Duration,
    ) -> Result<ResponseHead, TransportError> {
        match self {
            Self::Network(network) => {
                let mut response = within(deadline, network.execute(request)).await?;
                let status = response.status();
                let headers = std::mem::take(response.headers_mut());
                let rest = body(response, READ_AWAY);
                // Whether all of it came is the same to the caller.
                tokio::time::timeout(READING_AWAY, rest).await.ok();
                Ok(ResponseHead { status, headers })
            }
            Self::InProcess(handler) => {
                let (parts, _) = within(deadline, handler(request.for_handler()?))
                    .await?
                    .into_parts();
                Ok(ResponseHead {
                    status: parts.status,
                    headers: parts.headers,
                })
            }
        }
    }
}

async fn within<T>(
    deadline: Duration,
    exchange: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    tokio::time::timeout(deadline, exchange)
        .await
        .map_err(|_| TransportError::Timeout(deadline))?
}

/// The body, if it is no longer than that.
async fn body(mut response: reqwest::Response, max_body: usize) -> Result<Bytes, TransportError> {
    // Known where the answer tells it, and then there is room for all of it at once.
    let told = response.content_length().unwrap_or_default();
    let told = usize::try_from(told).unwrap_or(usize::MAX);
    if told > max_body {
        return Err(TransportError::TooLarge(max_body));
    }
    let mut body = BytesMut::with_capacity(told);
    while let Some(chunk) = response.chunk().await.map_err(|e| classify(&e))? {
        if body.len() + chunk.len() > max_body {
            return Err(TransportError::TooLarge(max_body));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn classify(error: &reqwest::Error) -> TransportError {
    let text = chain(error);
    match tls_reason(error) {
        _ if !error.is_connect() => TransportError::Broken(text),
        Some(why) => TransportError::Handshake(why),
        None => TransportError::Connect(text),
    }
}

/// What TLS says among the causes of an error, and what can be done where an authority is not known.
fn tls_reason(error: &reqwest::Error) -> Option<String> {
    let tls = tls_error(std::error::Error::source(error)?)?;
    let unknown = matches!(
        tls,
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)
    );
    let advice = match unknown {
        true => {
            " (if the host is the right one, name the authority of its certificate in `ca_file`)"
        }
        false => "",
    };
    Some(format!("{tls}{advice}"))
}

/// The error of TLS in an error, however often it is wrapped: one of IO shows what it wraps as itself.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    match error.downcast_ref::<std::io::Error>() {
        Some(io) => tls_error(io.get_ref()?),
        None => tls_error(error.source()?),
    }
}

/// Causes that say only where another one came up.
const LAYERS: [&str; 3] = ["tcp connect error", "dns error", "error resolving DNS"];

/// The causes of an error, outermost first, without the URL (it may hold what logs should not).
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        parts.push(error.to_string());
        cause = error.source();
    }
    // What hyper-util says of its layers, as in "client error (Connect)", repeats what is said beside it.
    let is_layer = |part: &str| part.starts_with("client error (") || LAYERS.contains(&part);
    if parts.iter().any(|part| !is_layer(part)) {
        parts.retain(|part| !is_layer(part));
    }
    if parts.is_empty() {
        "the request could not be sent".to_owned()
    } else {
        parts.join(": ")
    }
}

/// A lookup: the addresses of a name (ports are of no matter), or why there are none.
pub type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<SocketAddr>, String>> + Send + Sync>;

/// Resolves names. A connection goes to the very addresses that one call gave, so whoever judges
/// them here has judged where the connection goes.
#[derive(Clone)]
pub struct Resolver(Lookup);

impl Resolver {
    pub fn new(lookup: Lookup) -> Self {
        Self(lookup)
    }

    /// As this system resolves names.
    pub fn system() -> Self {
        Self::new(Arc::new(|host: String| {
            Box::pin(async move {
                let addresses = tokio::net::lookup_host((host.as_str(), 0)).await;
                addresses.map(Iterator::collect).map_err(|e| e.to_string())
            })
        }))
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// When there are none, or none that may be used: one sentence.
    pub async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, String> {
        (self.0)(host.to_owned()).await
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let addresses: reqwest::dns::Addrs = Box::new(found.await?.into_iter());
            Ok(addresses)
        })
    }
}
