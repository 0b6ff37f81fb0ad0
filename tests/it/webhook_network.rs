//! Webhooks over real sockets: which addresses they reach, by which way, and what an answer may cost.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use renewd::{
    config::WebhookSinkSettings,
    model::Timestamp,
    sinks::{DeliveryOutcome, SinkFailure, WebhookSink},
    transport::Resolver,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    samples::{delivery, document},
    webhooks::{NEW, settings},
};

/// A listener that keeps the head of every request and answers in some way.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start<F>(ip: &str, answer: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(TcpListener::bind((ip, 0)).await.unwrap(), answer)
    }

    fn listen<F>(listener: TcpListener, answer: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 16 * 1024];
                let length = stream.read(&mut request).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                kept.lock().unwrap().push(text);
                tokio::spawn(answer(stream));
            }
        });
        Self { address, seen }
    }

    /// Answers 204 and closes.
    async fn well(ip: &str) -> Self {
        Self::start(ip, no_content).await
    }

    fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn no_content(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).await.ok();
}

/// A lookup that gives these answers one after the other, and counts.
fn lookups(answers: &[&[&str]]) -> (Resolver, Arc<AtomicUsize>) {
    let parse = |ip: &&str| SocketAddr::from((ip.parse::<IpAddr>().unwrap(), 0));
    let answers: Vec<Vec<SocketAddr>> = answers
        .iter()
        .map(|list| list.iter().map(parse).collect())
        .collect();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let resolver = Resolver::new(Arc::new(move |_| {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        let answer = answers[n.min(answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    }));
    (resolver, count)
}

async fn post(
    settings: &WebhookSinkSettings,
    lookup: Resolver,
) -> Result<DeliveryOutcome, SinkFailure> {
    let sink = WebhookSink::resolving(settings, "web-1", lookup).unwrap();
    sink.deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
        .await
}

fn named(port: u16, allow_private: bool) -> WebhookSinkSettings {
    WebhookSinkSettings {
        allow_http: true,
        allow_private,
        ..settings(&format!("http://crm.example:{port}/hook"), &[NEW])
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_before_any_connection() {
    let server = Server::well("127.0.0.1").await;
    for answer in [
        &["127.0.0.1"][..],
        &["1.1.1.1", "127.0.0.1"],
        &["127.0.0.1", "1.1.1.1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["0.0.0.0"],
    ] {
        let (lookup, count) = lookups(&[answer]);
        let failure = post(&named(server.address.port(), false), lookup)
            .await
            .unwrap_err();
        assert!(
            failure.message.contains("crm.example resolves to")
                && failure.message.contains("allow_private = true"),
            "{failure}"
        );
        assert_eq!(count.load(Ordering::SeqCst), 1, "{answer:?}");
    }
    assert_eq!(server.requests(), Vec::<String>::new());
    let (lookup, _) = lookups(&[&["127.0.0.1"]]);
    let taken = post(&named(server.address.port(), true), lookup).await;
    assert_eq!(taken, Ok(DeliveryOutcome::Accepted(204)));
    let (lookup, _) = lookups(&[&["127.0.0.1", "169.254.169.254"]]);
    let failure = post(&named(server.address.port(), true), lookup).await;
    assert!(failure.unwrap_err().message.contains("metadata"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_connected_where_it_was_judged() {
    let judged = Server::well("127.0.0.1").await;
    let port = judged.address.port();
    let other = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let other = Server::listen(other, no_content);
    let (lookup, count) = lookups(&[&["127.0.0.1"], &["127.0.0.2"], &["169.254.169.254"]]);
    let sink = WebhookSink::resolving(&named(port, true), "web-1", lookup).unwrap();
    let attempt = async || {
        sink.deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
            .await
    };
    assert_eq!(attempt().await, Ok(DeliveryOutcome::Accepted(204)));
    assert_eq!(count.load(Ordering::SeqCst), 1, "one lookup per connection");
    assert_eq!((judged.requests().len(), other.requests().len()), (1, 0));
    assert_eq!(attempt().await, Ok(DeliveryOutcome::Accepted(204)));
    assert_eq!((judged.requests().len(), other.requests().len()), (1, 1));
    assert!(attempt().await.unwrap_err().message.contains("metadata"));
    assert_eq!((judged.requests().len(), other.requests().len()), (1, 1));
}

#[tokio::test]
async fn an_address_that_was_written_is_not_looked_up() {
    let server = Server::well("127.0.0.1").await;
    let (lookup, count) = lookups(&[&["1.1.1.1"]]);
    let url = format!("http://{}/hook", server.address);
    let taken = post(&settings(&url, &[NEW]), lookup).await;
    assert_eq!(taken, Ok(DeliveryOutcome::Accepted(204)));
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_configured_proxy_gets_everything_and_resolves_the_name_itself() {
    let proxy = Server::well("127.0.0.1").await;
    let (lookup, count) = lookups(&[&["127.0.0.1"]]);
    let settings = WebhookSinkSettings {
        proxy: Some(format!("http://{}", proxy.address)),
        ..named(80, false)
    };
    assert_eq!(
        post(&settings, lookup).await,
        Ok(DeliveryOutcome::Accepted(204))
    );
    let requests = proxy.requests();
    assert!(
        requests[0].starts_with("POST http://crm.example/hook HTTP/1.1\r\n"),
        "{requests:?}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing to look up here");
}

/// By `check --online`, which takes the way that events take.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_not_used() {
    let (proxy, receiver) = (
        Server::well("127.0.0.1").await,
        Server::well("127.0.0.1").await,
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), NEW).unwrap();
    let nobody = "endpoint=http://127.0.0.1:1/;accesskey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
    std::fs::write(folder.path().join("contoso"), nobody).unwrap();
    let config = format!(
        "[[resource]]\nname = \"contoso\"\nconnection_string = {{ file = \"contoso\" }}\n\
         [[sink.webhook]]\nname = \"crm\"\nurl = \"http://{}/hook\"\nsecrets = [{{ file = \"secret\" }}]\n",
        receiver.address
    );
    std::fs::write(folder.path().join("renewd.toml"), config).unwrap();
    let mut check = tokio::process::Command::new(crate::stage::RENEWD);
    check.args(["check", "--online", "--config"]);
    check.arg(folder.path().join("renewd.toml"));
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        check.env(name, format!("http://{}", proxy.address));
    }
    let said = check
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .await
        .unwrap();
    assert_eq!(receiver.requests().len(), 1, "{said:?}");
    assert_eq!(proxy.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::well("127.0.0.1").await;
    let to = elsewhere.address;
    let server = Server::start("127.0.0.1", move |mut stream| async move {
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.ok();
    })
    .await;
    let url = format!("http://{}/hook", server.address);
    let failure = post(&settings(&url, &[NEW]), Resolver::system()).await;
    assert!(failure.unwrap_err().message.contains("redirect"));
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
}

/// A receiver that answers with this, and then one byte after the other.
async fn dripping(begin: &'static [u8]) -> Server {
    let drip = move |mut stream: TcpStream| async move {
        stream.write_all(begin).await.ok();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    Server::start("127.0.0.1", drip).await
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_at_the_total_deadline() {
    let server = dripping(b"HTTP/1.1 200 OK\r\nx-slow: ").await;
    let hasty = WebhookSinkSettings {
        timeout: Duration::from_secs(1),
        ..settings(&format!("http://{}/hook", server.address), &[NEW])
    };
    let failure = post(&hasty, Resolver::system()).await.unwrap_err();
    assert!(
        failure.message.ends_with("no complete answer within 1s"),
        "{failure}"
    );
}

/// An event that was taken is not sent again because its answer goes on and on.
#[tokio::test]
async fn what_follows_the_head_of_an_answer_changes_nothing() {
    let server = dripping(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let url = format!("http://{}/hook", server.address);
    let taken = post(&settings(&url, &[NEW]), Resolver::system()).await;
    assert_eq!(taken, Ok(DeliveryOutcome::Accepted(200)));
    let server = dripping(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    let url = format!("http://{}/hook", server.address);
    let failure = post(&settings(&url, &[NEW]), Resolver::system()).await;
    assert!(failure.unwrap_err().message.contains("503"));
}

/// 60 kB that would become 60 MB: it is read as it comes, and decoded by nobody.
#[tokio::test]
async fn a_compressed_answer_stays_compressed() {
    let server = Server::start("127.0.0.1", async |mut stream: TcpStream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 60000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok();
        // No valid gzip: whoever tried to decode it would fail.
        stream.write_all(&[0x1f; 60_000]).await.ok();
    })
    .await;
    let url = format!("http://{}/hook", server.address);
    let taken = post(&settings(&url, &[NEW]), Resolver::system()).await;
    assert_eq!(taken, Ok(DeliveryOutcome::Accepted(200)));
    let asked = &server.requests()[0].to_lowercase();
    assert!(!asked.contains("accept-encoding"), "{asked}");
}

/// A gibibyte is offered; what goes over is what the kernel's buffers take before the cut.
#[tokio::test]
async fn an_endless_answer_costs_next_to_nothing() {
    const OFFERED: usize = 1 << 30;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = Server::start("127.0.0.1", move |mut stream: TcpStream| {
        let counter = Arc::clone(&counter);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
            while counter.load(Ordering::SeqCst) < OFFERED
                && stream.write_all(&[b'x'; 8192]).await.is_ok()
            {
                counter.fetch_add(8192, Ordering::SeqCst);
            }
        }
    })
    .await;
    let url = format!("http://{}/hook", server.address);
    let taken = post(&settings(&url, &[NEW]), Resolver::system()).await;
    assert_eq!(taken, Ok(DeliveryOutcome::Accepted(200)));
    assert!(sent.load(Ordering::SeqCst) < OFFERED / 16);
}
