//! One question and its answer: a connection, a deadline, a limit.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{
    Client, Problem,
    wire::{CLIENT_HEADER, Page},
};

/// What the command line calls itself.
pub(super) const OWN_LABEL: &str = concat!("renewd/", env!("CARGO_PKG_VERSION"));
/// How long an answer may take besides the wait that was asked for.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer: a page of a listing.
const LARGEST: usize = 32 * 1024 * 1024;

/// Why the daemon could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no daemon answers on {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the daemon on {} broke the connection off; its log may say why", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("the daemon on {} did not answer within {} s", path.display(), waited.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it was given.
        waited: Duration,
    },
    /// The daemon ended a stream that has no end: it stops.
    #[error("the daemon on {} ended the stream: it stops or restarts", path.display())]
    Ended {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon says no, and why.
    #[error("{0}")]
    Problem(Problem),
    /// The answer makes no sense.
    #[error(
        "the daemon's answer to {target} cannot be read ({why}): do daemon and command have the same version?"
    )]
    Unreadable {
        /// What was asked.
        target: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Client {
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        after: Option<&str>,
    ) -> Result<Page<T>, ClientError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let query = after.map_or(String::new(), |after| {
            format!("{separator}after={}", encoded(after))
        });
        self.get(&format!("{path}{query}")).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(Method::GET, target, None::<&()>).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.call_within(method, target, body, ANSWER).await
    }

    pub(super) async fn call_within<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
        within: Duration,
    ) -> Result<T, ClientError> {
        let body = match body.map(serde_json::to_vec) {
            None => Bytes::new(),
            Some(Ok(body)) => body.into(),
            Some(Err(error)) => return Err(unreadable(target, &error.to_string())),
        };
        self.exchange_json(method, target, OWN_LABEL, body, within)
            .await
    }

    /// Asks under another name than the command line's.
    pub(super) async fn call_as<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        label: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        self.exchange_json(method, target, label, body, ANSWER)
            .await
    }

    pub(super) async fn exchange_json<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        label: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<T, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(CLIENT_HEADER, label)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        let answer = self.send(target, request, body, within).await?;
        serde_json::from_slice(answer.body())
            .map_err(|error| unreadable(target, &error.to_string()))
    }

    /// One question on a connection of its own; an answer that is no success is an error.
    pub(super) async fn send(
        &self,
        target: &str,
        request: http::request::Builder,
        body: Bytes,
        within: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let request = request
            .header(header::HOST, "localhost")
            .body(Full::new(body))
            .map_err(|error| unreadable(target, &error.to_string()))?;
        let answer = match timeout(within, self.exchange(target, request)).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(ClientError::Silent {
                    path: self.path.clone(),
                    waited: within,
                });
            }
        };
        if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        match serde_json::from_slice(answer.body()) {
            Ok(problem) => Err(ClientError::Problem(problem)),
            Err(_) => Err(unreadable(target, answer.status().as_str())),
        }
    }

    pub(super) async fn exchange(
        &self,
        target: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ClientError> {
        let broken = |source| self.broken(source);
        let (mut sender, connection) = self.connect().await?;
        let answered = async {
            let (parts, body) = sender
                .send_request(request)
                .await
                .map_err(broken)?
                .into_parts();
            match Limited::new(body, LARGEST).collect().await {
                Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
                Err(error) => Err(unreadable(target, &error.to_string())),
            }
        };
        // The connection has to be driven beside the answer; it ends by itself, or is dropped.
        let mut answered = std::pin::pin!(answered);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            answer = &mut answered => answer,
            ended = &mut connection => {
                ended.map_err(broken)?;
                answered.await
            }
        }
    }
}

/// What sends requests over a connection, and the connection, which has to be driven.
type Connected = (
    SendRequest<Full<Bytes>>,
    Connection<TokioIo<UnixStream>, Full<Bytes>>,
);

impl Client {
    pub(super) async fn connect(&self) -> Result<Connected, ClientError> {
        let stream =
            UnixStream::connect(&self.path)
                .await
                .map_err(|source| ClientError::Unreachable {
                    path: self.path.clone(),
                    source,
                })?;
        hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))
    }

    pub(super) fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            source,
        }
    }
}

/// A text as a query takes it.
pub(super) fn encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if keep(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

pub(super) fn unreadable(target: &str, why: &str) -> ClientError {
    ClientError::Unreadable {
        target: target.to_owned(),
        why: why.to_owned(),
    }
}
