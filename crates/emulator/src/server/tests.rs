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
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
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
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
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
