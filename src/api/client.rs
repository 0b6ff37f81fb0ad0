//! Asks a running daemon over its local socket; what the command line uses.

mod access;
mod deliveries;
mod watch;

mod jobs;
mod keys;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

pub use self::access::AuditFilter;
pub use self::deliveries::Ledger;
pub use self::watch::{Update, Watch};
use super::wire::{
    CLIENT_HEADER, CampaignId, CampaignOrder, CampaignPlan, CampaignProgress, Examination,
    Identity, NewCampaign, NewIdentity, NoticeRow, Page, Reloaded, Removed, Renew, Renewing,
    ReportLine, Status, WithReason,
};
pub use super::{
    addition::Surroundings,
    batch::Batch,
    problem::{Problem, ProblemType},
    wire,
};
use crate::model::{Name, Secret, SourceName, SourceReport, Version};

/// What the command line calls itself.
const OWN_LABEL: &str = concat!("renewd/", env!("CARGO_PKG_VERSION"));
/// How long an answer may take besides the wait that was asked for.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a source may be read, and its list be written.
const READING: Duration = Duration::from_mins(15);
/// The largest answer: a page of a listing.
const LARGEST: usize = 32 * 1024 * 1024;

/// Why the daemon could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no daemon answers on {}: is renewd running? (systemctl status renewd; --socket or RENEWD_SOCKET for another place)", path.display())]
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

/// The form of a fetched token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenForm {
    /// The bare token.
    Bare,
    /// The token document.
    Json,
}

/// A daemon, found by its socket. Each question is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
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

    /// The current token. With `wait` the daemon answers as soon as there is a live one newer than
    /// `seen`, at the latest after so long (it grants at most a minute); `None` when there was
    /// nothing newer by then.
    pub async fn token(
        &self,
        name: &Name,
        form: TokenForm,
        wait: Option<Duration>,
        seen: Option<Version>,
    ) -> Result<Option<Secret>, ClientError> {
        let query = wait.map_or(String::new(), |wait| format!("?wait={}s", wait.as_secs()));
        let accept = match form {
            TokenForm::Bare => "text/plain",
            TokenForm::Json => "application/json",
        };
        let target = format!("/v1/tokens/{name}{query}");
        let mut request = Request::get(&target)
            .header(CLIENT_HEADER, OWN_LABEL)
            .header(header::ACCEPT, accept);
        if let Some(version) = seen {
            request = request.header(header::IF_NONE_MATCH, format!("\"{version}\""));
        }
        let answer = self
            .send(
                &target,
                request,
                Bytes::new(),
                ANSWER + wait.unwrap_or_default(),
            )
            .await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        match String::from_utf8(answer.into_body().into()) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(_) => Err(unreadable(&target, "it is not text")),
        }
    }

    /// What needs a person, counts, lanes, couriers.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Identities in order of name, after this one.
    pub async fn identities(&self, after: Option<&str>) -> Result<Page<Identity>, ClientError> {
        self.page("/v1/identities", after).await
    }

    /// One identity.
    pub async fn identity(&self, name: &Name) -> Result<Identity, ClientError> {
        self.get(&format!("/v1/identities/{name}")).await
    }

    /// Adds an identity to the store.
    pub async fn add(&self, new: &NewIdentity) -> Result<Identity, ClientError> {
        self.call(Method::POST, "/v1/identities", Some(new)).await
    }

    /// Removes an identity from the store, as its `on_removal` says; ACS keeps it.
    pub async fn remove(&self, name: &Name, reason: Option<&str>) -> Result<Removed, ClientError> {
        let why = reason.map_or(String::new(), |reason| {
            format!("?reason={}", encoded(reason))
        });
        self.call(
            Method::DELETE,
            &format!("/v1/identities/{name}{why}"),
            None::<&()>,
        )
        .await
    }

    /// Why the engine does, or does not do, what it does with an identity.
    pub async fn why(&self, name: &Name) -> Result<serde_json::Value, ClientError> {
        self.get(&format!("/v1/why/{name}")).await
    }

    /// Sets identities due now.
    pub async fn renew(&self, renew: &Renew) -> Result<Renewing, ClientError> {
        self.call(Method::POST, "/v1/renew", Some(renew)).await
    }

    /// Starts a campaign.
    pub async fn start_campaign(&self, new: &NewCampaign) -> Result<CampaignProgress, ClientError> {
        self.call(Method::POST, "/v1/campaigns", Some(new)).await
    }

    /// What a campaign would do.
    pub async fn plan_campaign(&self, new: &NewCampaign) -> Result<CampaignPlan, ClientError> {
        let target = "/v1/campaigns/plan";
        self.call(Method::POST, target, Some(new)).await
    }

    /// Campaigns, the newest first.
    pub async fn campaigns(
        &self,
        after: Option<&str>,
    ) -> Result<Page<CampaignProgress>, ClientError> {
        self.page("/v1/campaigns", after).await
    }

    /// A page of a campaign's report: of what failed for good, or of all.
    pub async fn report(
        &self,
        id: CampaignId,
        failed: bool,
        after: Option<&str>,
    ) -> Result<Page<ReportLine>, ClientError> {
        let path = format!("/v1/campaigns/{id}/report?failed={failed}");
        self.page(&path, after).await
    }

    /// Pauses, resumes, cancels a campaign, or tries again what failed for good.
    pub async fn order(
        &self,
        id: CampaignId,
        order: CampaignOrder,
        reason: Option<String>,
    ) -> Result<CampaignProgress, ClientError> {
        let target = format!("/v1/campaigns/{id}/{}", order.as_str());
        let body = WithReason { reason };
        self.call(Method::POST, &target, Some(&body)).await
    }

    /// A campaign's progress.
    pub async fn campaign(&self, id: CampaignId) -> Result<CampaignProgress, ClientError> {
        self.get(&format!("/v1/campaigns/{id}")).await
    }

    /// Notices after this one; without it the latest ones. Oldest first.
    pub async fn notices(&self, after: Option<&str>) -> Result<Page<NoticeRow>, ClientError> {
        self.page("/v1/notices", after).await
    }

    /// What is wrong around the daemon, as it sees it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self) -> Result<Examination, ClientError> {
        self.get("/v1/doctor").await
    }

    /// Checks identities and ids, or takes them over.
    pub async fn import(&self, import: &wire::Import) -> Result<wire::Imported, ClientError> {
        self.call_within(Method::POST, "/v1/import", Some(import), READING)
            .await
    }

    /// The sources of identities and how they are.
    pub async fn sources(&self) -> Result<wire::Sources, ClientError> {
        self.get("/v1/sources").await
    }

    /// Reads a source and says what its list would change.
    pub async fn test_source(&self, name: &SourceName) -> Result<SourceReport, ClientError> {
        let target = format!("/v1/sources/{name}/test");
        self.call_within(Method::POST, &target, None::<&()>, READING)
            .await
    }

    /// Takes a source's list over; `yes` sets `max_removal` aside.
    pub async fn apply_source(
        &self,
        name: &SourceName,
        yes: bool,
    ) -> Result<SourceReport, ClientError> {
        let target = format!("/v1/sources/{name}/apply");
        let wish = wire::ApplySource { yes };
        self.call_within(Method::POST, &target, Some(&wish), READING)
            .await
    }

    /// Reads the configuration again, all or nothing.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.call(Method::POST, "/v1/reload", None::<&()>).await
    }

    async fn page<T: DeserializeOwned>(
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

    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(Method::GET, target, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.call_within(method, target, body, ANSWER).await
    }

    async fn call_within<T: DeserializeOwned>(
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
    async fn call_as<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        label: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        self.exchange_json(method, target, label, body, ANSWER)
            .await
    }

    async fn exchange_json<T: DeserializeOwned>(
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
    async fn send(
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

    async fn exchange(
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
    async fn connect(&self) -> Result<Connected, ClientError> {
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

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            source,
        }
    }
}

/// A text as a query takes it.
fn encoded(text: &str) -> String {
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

fn unreadable(target: &str, why: &str) -> ClientError {
    ClientError::Unreadable {
        target: target.to_owned(),
        why: why.to_owned(),
    }
}
