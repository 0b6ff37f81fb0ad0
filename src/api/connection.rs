//! The connection to a daemon: one question and its answer, with a deadline and a limit; what the command line
//! asks through.

use std::{
    fmt::Display,
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::{endpoint::Endpoint, problem::Problem, wire::CLIENT_HEADER};
use crate::model::{RESERVED, percent_encoded};

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

/// A daemon, found by its socket. Each question is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) path: PathBuf,
}

/// A question to an endpoint that is being put together.
pub(super) struct Call<'a, E> {
    client: &'a Client,
    target: String,
    label: &'a str,
    body: Result<Vec<u8>, serde_json::Error>,
    within: Duration,
    endpoint: PhantomData<E>,
}

impl<'a, E: Endpoint> Call<'a, E> {
    /// What is asked for besides the path; a key without a value is left out.
    pub(super) fn query<const N: usize>(mut self, pairs: [(&str, Option<String>); N]) -> Self {
        for (key, value) in pairs {
            debug_assert!(E::QUERY.contains(&key), "{} takes no {key}", E::PATH);
            if let Some(value) = value {
                let sign = if self.target.contains('?') { '&' } else { '?' };
                self.target.push(sign);
                self.target.push_str(&format!("{key}={}", encoded(&value)));
            }
        }
        self
    }

    /// The page after this cursor.
    pub(super) fn after(self, cursor: Option<&str>) -> Self {
        self.query([("after", cursor.map(str::to_owned))])
    }

    pub(super) fn body(mut self, body: &E::Body) -> Self {
        self.body = serde_json::to_vec(body);
        self
    }

    /// How long the answer may take, where that is longer than usual.
    pub(super) fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Under another name than the command line's.
    pub(super) fn labelled(mut self, label: &'a str) -> Self {
        self.label = label;
        self
    }

    #[cfg(test)]
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) async fn send(self) -> Result<E::Answer, ClientError> {
        let target = &self.target;
        let wrong = |error: serde_json::Error| unreadable(target, &error.to_string());
        let body = self.body.map_err(wrong)?;
        let request = Request::builder()
            .method(E::METHOD)
            .uri(target)
            .header(CLIENT_HEADER, self.label)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json");
        let sent = self.client.send(target, request, body.into(), self.within);
        serde_json::from_slice(sent.await?.body()).map_err(wrong)
    }
}

/// The path of an endpoint with these names in its places, in their order. Names of the model are safe in a path
/// as they are.
fn filled(path: &str, names: &[&dyn Display]) -> String {
    let mut names = names.iter();
    let segments = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{') {
            Some(_) => names.next().map(ToString::to_string).unwrap_or_default(),
            None => segment.to_owned(),
        });
    segments.collect::<Vec<_>>().join("/")
}

impl Client {
    /// The daemon that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            path: socket.into(),
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A question to an endpoint, with the names that its path takes.
    pub(super) fn call<E: Endpoint>(&self, _: E, names: &[&dyn Display]) -> Call<'_, E> {
        Call {
            client: self,
            target: filled(E::PATH, names),
            label: OWN_LABEL,
            body: Ok(Vec::new()),
            within: ANSWER,
            endpoint: PhantomData,
        }
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
    percent_encoded(text, RESERVED)
}

pub(super) fn unreadable(target: &str, why: &str) -> ClientError {
    ClientError::Unreadable {
        target: target.to_owned(),
        why: why.to_owned(),
    }
}
