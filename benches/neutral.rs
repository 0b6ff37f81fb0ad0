//! A server for the benches that costs next to nothing: fixed answers, no signature looked at, counters.
//!
//!     neutral LIFE_SECONDS          prints its address, then serves until it is ended
//!
//! It answers issuing, creating, revoking and deleting as ACS Identity does, by the end of the path alone, with one
//! token of the usual size for everybody; `GET /stats` says how many of each it answered, `PUT /refuse` and
//! `PUT /serve` make it answer 503 and stop that. So what is measured against it is the client.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a program for benches that may panic, print and use the machine's clock"
)]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, header, server::conn::http1, service};
use hyper_util::rt::TokioIo;

/// About what a token of the service measures.
const TOKEN_BYTES: usize = 960;

type Answer = Response<Full<Bytes>>;

#[derive(Default)]
struct Server {
    life_secs: u64,
    refusing: AtomicBool,
    issued: AtomicU64,
    created: AtomicU64,
    revoked: AtomicU64,
    deleted: AtomicU64,
    /// The second for which `body` was written, and the body.
    issue: Mutex<(u64, Bytes)>,
}

fn main() {
    let life = std::env::args()
        .nth(1)
        .expect("usage: neutral LIFE_SECONDS");
    let server = Arc::new(Server {
        life_secs: life.parse().expect("LIFE_SECONDS is a number"),
        ..Server::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(server));
}

async fn serve(server: Arc<Server>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("an option of every socket");
        let server = Arc::clone(&server);
        let answer = service::service_fn(move |request| answer(Arc::clone(&server), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    // A body that is not read away would end the connection.
    drop(body.collect().await);
    let path = head.uri.path();
    Ok(match (&head.method, path) {
        (&Method::GET, "/stats") => said(200, server.stats()),
        (&Method::PUT, "/refuse") => server.refuse(true),
        (&Method::PUT, "/serve") => server.refuse(false),
        _ if server.refusing.load(Relaxed) => said(503, Bytes::new()),
        (&Method::POST, _) if path.ends_with("/:issueAccessToken") => {
            server.issued.fetch_add(1, Relaxed);
            said(200, server.token())
        }
        (&Method::POST, _) if path.ends_with("/:revokeAccessTokens") => {
            server.revoked.fetch_add(1, Relaxed);
            said(204, Bytes::new())
        }
        (&Method::POST, _) => {
            let number = server.created.fetch_add(1, Relaxed);
            said(201, server.identity(number))
        }
        _ => {
            server.deleted.fetch_add(1, Relaxed);
            said(204, Bytes::new())
        }
    })
}

fn said(status: u16, body: Bytes) -> Answer {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(Full::new(body))
        .expect("the parts are fixed")
}

impl Server {
    fn refuse(&self, refusing: bool) -> Answer {
        self.refusing.store(refusing, Relaxed);
        said(204, Bytes::new())
    }

    fn stats(&self) -> Bytes {
        let [issued, created, revoked, deleted] =
            [&self.issued, &self.created, &self.revoked, &self.deleted]
                .map(|count| count.load(Relaxed));
        format!(r#"{{"issue":{issued},"create":{created},"revoke":{revoked},"delete":{deleted}}}"#)
            .into()
    }

    /// The answer to issuing, written once a second.
    fn token(&self) -> Bytes {
        let second = SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a year after 1970")
            .as_secs();
        let mut issue = self.issue.lock().expect("nothing panics under it");
        if issue.0 != second {
            *issue = (second, self.issue_body(second).into());
        }
        issue.1.clone()
    }

    fn issue_body(&self, second: u64) -> String {
        let end = jiff::Timestamp::from_second(second.saturating_add(self.life_secs).cast_signed())
            .expect("a life that a calendar holds");
        let end = end.strftime("%Y-%m-%dT%H:%M:%S.0000000+00:00");
        format!(
            r#"{{"token":"{}","expiresOn":"{end}"}}"#,
            "t".repeat(TOKEN_BYTES)
        )
    }

    fn identity(&self, number: u64) -> Bytes {
        let id = format!(
            "8:acs:11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-dddd-{number:012x}"
        );
        let second = SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a year after 1970")
            .as_secs();
        format!(
            r#"{{"identity":{{"id":"{id}"}},"accessToken":{}}}"#,
            self.issue_body(second)
        )
        .into()
    }
}
