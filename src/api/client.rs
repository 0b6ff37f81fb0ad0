//! Asks a running daemon over its local socket; what the command line uses.

mod access;
mod campaigns;
mod deliveries;
mod exchange;
mod jobs;
mod keys;
mod sources;
mod store;
mod watch;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};

use self::exchange::{ANSWER, OWN_LABEL, encoded, unreadable};
pub use self::{
    access::AuditFilter,
    deliveries::DeliveryTable,
    exchange::ClientError,
    watch::{Update, Watch},
};
use super::wire::{
    CLIENT_HEADER, Examination, Identity, NewIdentity, NoticeRow, Page, Reloaded, Removed, Status,
};
pub use super::{
    addition::Surroundings,
    batch::Batch,
    problem::{Problem, ProblemType},
    wire,
};
use crate::model::{Name, ResourceName, Secret, Version};

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

    /// What needs a person, counts, renewers, dispatchers.
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
        let path = format!("/v1/identities/{name}{}", because(reason));
        self.call(Method::DELETE, &path, None::<&()>).await
    }

    /// Asks for an identity that is gone again, under the same id.
    pub async fn revive(
        &self,
        name: &Name,
        reason: Option<&str>,
    ) -> Result<wire::Identity, ClientError> {
        let path = format!("/v1/identities/{name}/revive{}", because(reason));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// A person's word that what ACS says is gone of a resource is; whom that withdraws.
    pub async fn confirm_gone(
        &self,
        resource: &ResourceName,
        reason: Option<&str>,
    ) -> Result<Vec<Name>, ClientError> {
        let path = format!("/v1/gone/{resource}/confirm{}", because(reason));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// Why the engine does, or does not do, what it does with an identity.
    pub async fn why(&self, name: &Name) -> Result<serde_json::Value, ClientError> {
        self.get(&format!("/v1/why/{name}")).await
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

    /// Takes over a store that belonged to another machine.
    pub async fn adopt_store(
        &self,
        word: &wire::StoreWord,
    ) -> Result<wire::StoreUsed, ClientError> {
        self.call(Method::POST, "/v1/store/adopt", Some(word)).await
    }

    /// Goes on with a store of which it is not known what was withdrawn.
    pub async fn accept_store(
        &self,
        word: &wire::StoreWord,
    ) -> Result<wire::StoreUsed, ClientError> {
        self.call(Method::POST, "/v1/store/accept", Some(word))
            .await
    }

    /// Replaces the seal key, or goes on with it.
    pub async fn reseal(&self, word: &wire::StoreWord) -> Result<wire::ResealStarted, ClientError> {
        self.call(Method::POST, "/v1/store/reseal", Some(word))
            .await
    }

    /// How far the replacement of the seal key is.
    pub async fn resealing(&self) -> Result<wire::Resealing, ClientError> {
        self.get("/v1/store/reseal").await
    }

    /// Reads the configuration again, all or nothing.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.call(Method::POST, "/v1/reload", None::<&()>).await
    }
}

/// A reason as the query takes it.
fn because(reason: Option<&str>) -> String {
    reason.map_or(String::new(), |reason| {
        format!("?reason={}", encoded(reason))
    })
}
