//! The store and the daemon as a whole: a person's word about the store, its backups and its seal key, the reload of
//! the configuration, and what `doctor` finds.

use std::{io, time::Duration};

use axum::{body, extract::State, response::Response};
use futures_util::stream;
use http::{HeaderValue, Method, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, sync::oneshot};

use super::{
    admin::Admin,
    body::Body,
    connection::{ClientError, DaemonClient, OWN_LABEL, unreadable},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
    shared_state::{Command, Permission},
    snapshot::Snapshot,
    wire::{Need, Reloaded, StoreUsed},
};
use crate::{
    accounts,
    config::{Finding, Severity},
    model::{Served, service_time},
};

pub use crate::store::Resealing;

endpoints! {
    /// Goes on with a store of which it is not known what was withdrawn.
    AcceptStore: POST "/v1/store/accept", StoreWord => StoreUsed;
    /// Takes over a store that belonged to another machine.
    AdoptStore: POST "/v1/store/adopt", StoreWord => StoreUsed;
    /// Replaces the seal key, or goes on with it.
    Reseal: POST "/v1/store/reseal", StoreWord => ResealStarted;
    /// How far the replacement of the seal key is.
    ShowResealing: GET "/v1/store/reseal", () => Resealing;
    /// A backup reached its place.
    NoteBackup: POST "/v1/store/backed-up", BackedUp => BackedUp;
    /// Reads the configuration again, all or nothing.
    Reload: POST "/v1/reload", () => Reloaded;
    /// What is wrong around the daemon, as it sees it.
    Examine: GET "/v1/doctor", () => Examination;
}

/// Makes a backup and answers with its bytes.
pub(super) const BACKUP: &str = "/v1/store/backup";
/// The header of a backup that says when it was made, in microseconds since 1970.
pub const MADE_AT_HEADER: &str = "x-renewd-made-at";

/// `POST /v1/store/accept`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StoreWord {
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /v1/store/backed-up`: a backup reached its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackedUp {
    /// When it was made, as [`MADE_AT_HEADER`] said.
    pub made_at: Timestamp,
    /// Where it is, for the audit trail.
    pub place: String,
}

/// `POST /v1/store/reseal`: the seal key is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResealStarted {
    /// Where the key that is replaced will be.
    pub former: String,
    /// How far it is.
    pub now: Resealing,
}

/// `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Examination {
    pub by: Examiner,
    /// The user that looked: what may be read and written depends on it.
    pub user: String,
    /// Who holds a live token; `None` where no daemon was asked, or it does not know.
    #[serde(default)]
    pub consumers: Option<Served>,
    /// The time of the look by the clock of the resource that is furthest ahead: tokens end by that.
    #[serde(default)]
    pub service_time: Option<Timestamp>,
    /// What needs a person by what the daemon knows, the worst first; `None` where no daemon was asked.
    #[serde(default)]
    pub needs: Option<Vec<Need>>,
    /// The server that has the store and takes writes, where it lies in PostgreSQL.
    #[serde(default)]
    pub database: Option<String>,
    /// What is wrong around it, the worst first.
    pub findings: Vec<Ailment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Examiner {
    /// The daemon, from inside its sandbox.
    Daemon,
    /// The command, with what its own user may see.
    Command,
}

/// One thing that is wrong, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ailment {
    /// Whether it cannot work, or only looks odd.
    pub severity: Gravity,
    /// The key of the configuration that it is about, such as `sink.file[0].path`.
    pub at: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do: a command or the lines of a drop-in.
    pub fix: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// It can work, but is odd.
    Warning,
    Error,
}

impl Examination {
    /// Whether anything cannot work.
    pub fn any_error(&self) -> bool {
        let mut findings = self.findings.iter();
        let mut needs = self.needs.iter().flatten();
        findings.any(|finding| finding.severity == Gravity::Error)
            || needs.any(|need| need.kind.is_grave())
    }
}

impl From<Finding> for Ailment {
    fn from(finding: Finding) -> Self {
        Self {
            severity: match finding.severity {
                Severity::Warning => Gravity::Warning,
                Severity::Error => Gravity::Error,
            },
            at: finding.path,
            message: finding.message,
            fix: finding.hint,
        }
    }
}

/// Goes on with a store of which it is not known what was withdrawn.
pub(super) async fn accept(
    State(api): State<Api>,
    admin: Admin,
    Body(word): Body<StoreWord>,
) -> EndpointAnswer<AcceptStore> {
    say(&api, &admin, Permission::Accept, word).await
}

/// Takes over a store that belonged to another machine.
pub(super) async fn adopt(
    State(api): State<Api>,
    admin: Admin,
    Body(word): Body<StoreWord>,
) -> EndpointAnswer<AdoptStore> {
    say(&api, &admin, Permission::Adopt, word).await
}

/// Replaces the seal key, or goes on with it; how far it is.
pub(super) async fn reseal(
    State(api): State<Api>,
    admin: Admin,
    Body(word): Body<StoreWord>,
) -> EndpointAnswer<Reseal> {
    let cause = admin.cause(&api, word.reason).await;
    let begun = api.store.begin_reseal(&cause, api.clock.now()).await?;
    Ok(Json(ResealStarted {
        former: api.store.former_key(&begun.key),
        now: begun,
    }))
}

/// How far the replacement of the seal key is.
pub(super) async fn resealing(
    State(api): State<Api>,
    _admin: Admin,
) -> EndpointAnswer<ShowResealing> {
    Ok(Json(api.store.resealing().await?))
}

async fn say(
    api: &Api,
    admin: &Admin,
    permission: Permission,
    word: StoreWord,
) -> Result<Json<StoreUsed>, Problem> {
    let cause = admin.cause(api, word.reason).await;
    let (answer, answered) = oneshot::channel();
    let stopping = |_| Problem::new(ProblemType::Conflict, "the daemon is stopping");
    api.commands
        .send(Command::UseStore {
            permission,
            cause,
            answer,
        })
        .await
        .map_err(|_| stopping(()))?;
    match answered.await.map_err(|_| stopping(()))? {
        Ok(used) => Ok(Json(used)),
        Err(why) => Err(Problem::new(ProblemType::Conflict, why)),
    }
}

/// What is read and sent at once.
const PIECE: usize = 256 * 1024;

/// Makes a backup, one at a time, and sends it.
pub(super) async fn backup(State(api): State<Api>, _: Admin) -> Result<Response, Problem> {
    let Ok(_alone) = api.backing_up.try_lock() else {
        let why = "another backup is being made; try again when it is done";
        return Err(Problem::new(ProblemType::Conflict, why));
    };
    let made_at = api.clock.now();
    let file = api.store.backup(false, made_at).await?;
    let length = file.metadata().map_or(0, |found| found.len());
    let pieces = stream::try_unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, std::io::Error>((read > 0).then_some((piece, file)))
    });
    let mut response = Response::new(body::Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/vnd.sqlite3"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(MADE_AT_HEADER, HeaderValue::from(made_at.as_microsecond()));
    Ok(response)
}

/// Notes that a backup reached its place, for its age and for the audit trail.
pub(super) async fn backed_up(
    State(api): State<Api>,
    admin: Admin,
    Body(done): Body<BackedUp>,
) -> EndpointAnswer<NoteBackup> {
    api.store.backed_up(done.made_at, false).await?;
    admin
        .audit(&api, "store.backup", None, None, &done.place)
        .await?;
    Ok(Json(done))
}

/// The effect, or every problem; then nothing was changed.
pub(super) async fn reload(State(api): State<Api>, admin: Admin) -> EndpointAnswer<Reload> {
    let (answer, answered) = oneshot::channel();
    let stopping = |_| Problem::new(ProblemType::Conflict, "the daemon is stopping");
    api.commands
        .send(Command::Reload { answer })
        .await
        .map_err(|_| stopping(()))?;
    match answered.await.map_err(|_| stopping(()))? {
        Ok(done) => {
            admin
                .audit(&api, "reload", None, None, &done.effect)
                .await?;
            Ok(Json(done))
        }
        Err(problems) => Err(Problem::new(ProblemType::Refused, problems)),
    }
}

/// Everything that is found. It takes as long as the slowest receiver, at most some ten seconds.
pub(super) async fn examine(State(api): State<Api>, _: Admin) -> EndpointAnswer<Examine> {
    let (answer, answered) = oneshot::channel();
    let stopping = |_| Problem::new(ProblemType::Conflict, "the daemon is stopping");
    api.commands
        .send(Command::Examine { answer })
        .await
        .map_err(|_| stopping(()))?;
    let findings = answered.await.map_err(|_| stopping(()))?;
    let status = Snapshot::take(&api).await.status();
    Ok(Json(Examination {
        service_time: Some(service_time(&status.renewers, status.at)),
        consumers: status.consumers,
        needs: Some(status.needs),
        by: Examiner::Daemon,
        user: accounts::user_of(accounts::own_uid()).name,
        database: api.store.server().await,
        findings: findings.into_iter().map(Into::into).collect(),
    }))
}

/// A large database is copied before the first byte comes.
const COPYING: Duration = Duration::from_secs(900);
/// Between two pieces of a backup.
const BETWEEN_PIECES: Duration = Duration::from_secs(60);

impl DaemonClient {
    /// Has the daemon make a backup and hands over its pieces; when it was made. What `take` fails
    /// with ends it.
    pub async fn backup(
        &self,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<Timestamp>, ClientError> {
        let request = self.request(Method::POST, BACKUP, OWN_LABEL)?;
        let mut answer = self.head(request, COPYING).await?;
        let made_at = answer
            .headers()
            .get(MADE_AT_HEADER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .and_then(|micros| Timestamp::from_microsecond(micros).ok());
        let status = answer.status();
        let mut refusal = Vec::new();
        while let Some(piece) = self.piece(&mut answer, BETWEEN_PIECES).await? {
            if !status.is_success() {
                refusal.extend_from_slice(&piece);
            } else if let Err(error) = take(&piece) {
                return Ok(Err(error));
            }
        }
        match (status.is_success(), made_at) {
            (true, Some(made_at)) => Ok(Ok(made_at)),
            (true, None) => Err(unreadable(BACKUP, "it does not say when it was made")),
            (false, _) => Err(serde_json::from_slice(&refusal).map_or_else(
                |_| unreadable(BACKUP, status.as_str()),
                ClientError::Problem,
            )),
        }
    }

    /// Tells the daemon that a backup reached its place.
    pub async fn backed_up(&self, done: &BackedUp) -> Result<BackedUp, ClientError> {
        self.call(NoteBackup, &[]).body(done).send().await
    }

    /// Takes over a store that belonged to another machine.
    pub async fn adopt_store(&self, word: &StoreWord) -> Result<StoreUsed, ClientError> {
        self.call(AdoptStore, &[]).body(word).send().await
    }

    /// Goes on with a store of which it is not known what was withdrawn.
    pub async fn accept_store(&self, word: &StoreWord) -> Result<StoreUsed, ClientError> {
        self.call(AcceptStore, &[]).body(word).send().await
    }

    /// Replaces the seal key, or goes on with it.
    pub async fn reseal(&self, word: &StoreWord) -> Result<ResealStarted, ClientError> {
        self.call(Reseal, &[]).body(word).send().await
    }

    /// How far the replacement of the seal key is.
    pub async fn resealing(&self) -> Result<Resealing, ClientError> {
        self.call(ShowResealing, &[]).send().await
    }

    /// Reads the configuration again, all or nothing.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.call(Reload, &[]).send().await
    }

    /// What is wrong around the daemon, as it sees it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self) -> Result<Examination, ClientError> {
        self.call(Examine, &[]).send().await
    }
}
