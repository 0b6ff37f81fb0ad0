//! The emulator behind a socket: plain http, or TLS with an authority of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use renewd_acs_wire::Secret;
use renewd_clock::Clock;

use super::{
    Emulator, EmulatorError, EmulatorOptions,
    socket::{self, Replying},
    tls::{self, TlsError, Trust, TrustError},
};

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// Plain http instead of TLS.
    pub plain_http: bool,
    /// Where the metadata services listen over plain http, and nothing else does; nowhere if left out.
    pub metadata: Option<String>,
    /// More names for the certificate, besides the listen host and those of this machine's
    /// loopback.
    pub names: Vec<String>,
    /// Where the authority's certificate goes; a folder of its own, removed in the end, if left out.
    pub ca_file: Option<PathBuf>,
    /// The authority is the same for the same seed; made for this run if left out.
    pub ca_seed: Option<u64>,
    pub emulator: EmulatorOptions,
}

/// Why the emulator cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The options do not make an emulator.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen { listen: String, source: io::Error },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority's certificate cannot be written.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// An emulator that is bound to its address; it accepts while [`Serving::run_until`] runs, and
/// connections that come before are kept waiting by the kernel.
pub struct Serving {
    listener: TcpListener,
    metadata: Option<TcpListener>,
    tls: Option<TlsAcceptor>,
    trust: Option<Trust>,
    endpoint: String,
    metadata_endpoint: Option<String>,
    emulator: Arc<Emulator>,
}

/// Binds the address, and makes an emulator and, unless it is plain http, an authority for it.
///
/// # Errors
/// When any of that fails; see [`ServeError`].
pub async fn serve(mut options: ServeOptions, clock: Clock) -> Result<Serving, ServeError> {
    options.emulator.entra.plain_http = options.plain_http;
    let emulator = Arc::new(Emulator::new(options.emulator, clock)?);
    let (listener, address) = bind(&options.listen).await?;
    let metadata = match &options.metadata {
        Some(listen) => Some(bind(listen).await?),
        None => None,
    };
    let scheme = if options.plain_http { "http" } else { "https" };
    let endpoint = format!("{scheme}://{}", reachable(address));
    let (tls, trust) = if options.plain_http {
        (None, None)
    } else {
        let names = names(&options.listen, address, options.names.clone());
        let (tls, authority) = tls::set_up(names, options.ca_seed)?;
        let trust = Trust::write(&authority, options.ca_file.as_deref())?;
        (Some(tls), Some(trust))
    };
    let metadata_endpoint = metadata
        .as_ref()
        .map(|(_, address)| format!("http://{}", reachable(*address)));
    Ok(Serving {
        listener,
        metadata: metadata.map(|(listener, _)| listener),
        tls,
        trust,
        endpoint,
        metadata_endpoint,
        emulator,
    })
}

async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let unbound = |source| ServeError::Listen {
        listen: listen.to_owned(),
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(unbound)?;
    let address = listener.local_addr().map_err(unbound)?;
    Ok((listener, address))
}

impl Serving {
    /// `https://HOST:PORT`, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `http://HOST:PORT` of the metadata services, where they listen.
    pub fn metadata_endpoint(&self) -> Option<&str> {
        self.metadata_endpoint.as_deref()
    }

    /// The connection string with the primary key, endpoint first, as every SDK reads it.
    pub fn connection_string(&self) -> Secret {
        self.emulator.connection_string(&self.endpoint)
    }

    /// The authority's certificate; none for plain http.
    pub fn ca_path(&self) -> Option<&Path> {
        self.trust.as_ref().map(Trust::ca)
    }

    /// The files by which programs trust it; none for plain http.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// The emulator, for whoever has it in the same process.
    pub fn emulator(&self) -> Arc<Emulator> {
        Arc::clone(&self.emulator)
    }

    /// Serves until `stop`, then lets connections finish for at most a second.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let emulator = Arc::clone(&self.emulator);
        let replying: Replying = Arc::new(move |request| {
            let emulator = Arc::clone(&emulator);
            Box::pin(async move { emulator.handle(request).await })
        });
        let served = socket::serve(self.listener, self.tls, replying, stop);
        let Some(metadata) = self.metadata else {
            return served.await;
        };
        let emulator = self.emulator;
        let replying: Replying = Arc::new(move |request| {
            let emulator = Arc::clone(&emulator);
            Box::pin(async move { emulator.handle_metadata(request).await })
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ended = async {
            stopped.await.ok();
        };
        let first = async {
            served.await;
            stop.send(()).ok();
        };
        tokio::join!(first, socket::serve(metadata, None, replying, ended));
    }
}

/// The address that a client on this machine connects to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The names on the certificate: loopback, the host as it was given and as it was resolved.
fn names(listen: &str, address: SocketAddr, more: Vec<String>) -> Vec<String> {
    let given = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let given = given.trim_start_matches('[').trim_end_matches(']');
    let mut names: Vec<String> = ["127.0.0.1", "::1", "localhost", given]
        .into_iter()
        .map(str::to_owned)
        .chain([address.ip().to_string()])
        .chain(more)
        .filter(|name| !name.is_empty())
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests {
    //! The emulator behind real sockets.

    use std::time::Duration;

    use http::Request;
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    struct Running {
        endpoint: String,
        ca: Option<PathBuf>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn start(plain_http: bool) -> Running {
        start_seeded(plain_http, None).await
    }

    async fn start_seeded(plain_http: bool, ca_seed: Option<u64>) -> Running {
        let options = ServeOptions {
            listen: "127.0.0.1:0".to_owned(),
            plain_http,
            metadata: None,
            names: Vec::new(),
            ca_file: None,
            ca_seed,
            emulator: EmulatorOptions::default(),
        };
        let serving = serve(options, Clock::system()).await.unwrap();
        let endpoint = serving.endpoint().to_owned();
        let ca = serving.ca_path().map(Path::to_owned);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serving.run_until(async {
            stopped.await.ok();
        }));
        Running {
            endpoint,
            ca,
            stop,
            task,
        }
    }

    impl Running {
        fn address(&self) -> &str {
            self.endpoint.split_once("://").unwrap().1
        }

        async fn fault(&self, json: &'static str) {
            let (status, _) = self.send("/_emulator/v1/faults", json).await.unwrap();
            assert_eq!(status, 200);
        }

        async fn send(&self, path: &str, body: &'static str) -> Result<(u16, Vec<u8>), String> {
            let stream = TcpStream::connect(self.address()).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            let driver = tokio::spawn(connection);
            let request = Request::post(path)
                .header("host", self.address())
                .body(Full::new(bytes::Bytes::from_static(body.as_bytes())))
                .unwrap();
            let answer = sender
                .send_request(request)
                .await
                .map_err(|e| format!("{e:?}"))?;
            let status = answer.status().as_u16();
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|e| format!("in the body: {e:?}"))?;
            drop(sender);
            driver.await.unwrap().unwrap();
            Ok((status, body.to_bytes().to_vec()))
        }

        async fn end(self) {
            self.stop.send(()).unwrap();
            self.task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reset_is_a_reset_and_a_truncated_body_breaks_off() {
        let server = start(true).await;
        server.fault(r#"{"kind":"reset","count":1}"#).await;
        let error = server.send("/identities", "").await.unwrap_err();
        assert!(error.contains("ConnectionReset"), "{error}");
        server.fault(r#"{"kind":"truncated","count":1}"#).await;
        let error = server.send("/identities", "").await.unwrap_err();
        assert!(error.starts_with("in the body"), "{error}");
        assert_eq!(server.send("/identities", "").await.unwrap().0, 401);
        server.end().await;
    }

    #[tokio::test]
    async fn a_hanging_call_does_not_keep_the_server_from_stopping() {
        let server = start(true).await;
        server.fault(r#"{"kind":"hang"}"#).await;
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream
            .write_all(b"POST /identities HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        server.end().await;
        // Nothing was answered; whether it ends by FIN or RST is the kernel's choice.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn a_tls_hello_on_the_plain_port_is_closed_at_once() {
        let server = start(true).await;
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream
            .write_all(&[0x16, 0x03, 0x01, 0x00, 0x05])
            .await
            .unwrap();
        let mut rest = Vec::new();
        let closed =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok() && rest.is_empty());
        server.end().await;
    }

    #[tokio::test]
    async fn tls_is_trusted_by_the_authority_alone_and_speaks_http2() {
        for seed in [None, Some(7)] {
            is_trusted_by_the_authority_alone(start_seeded(false, seed).await).await;
        }
    }

    async fn is_trusted_by_the_authority_alone(server: Running) {
        let ca = server.ca.clone().unwrap();
        let pem = std::fs::read(&ca).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let text = String::from_utf8(pem).unwrap();
        let body: String = text.lines().filter(|l| !l.starts_with("-----")).collect();
        let der = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, body).unwrap();
        roots.add(der.into()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        for name in ["127.0.0.1", "localhost", "::1"] {
            let stream = TcpStream::connect(server.address()).await.unwrap();
            let name = rustls::pki_types::ServerName::try_from(name).unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        }
        server.end().await;
        assert!(!ca.exists(), "the folder of its own is removed");
    }

    #[test]
    fn a_wildcard_address_is_reached_over_loopback() {
        assert_eq!(
            reachable("0.0.0.0:7".parse().unwrap()).to_string(),
            "127.0.0.1:7"
        );
        assert_eq!(reachable("[::]:7".parse().unwrap()).to_string(), "[::1]:7");
    }
}
