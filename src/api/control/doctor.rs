//! `GET /v1/doctor`: asks `app` to look around in the daemon's own context.

use axum::{Json, extract::State};
use tokio::sync::oneshot;

use super::{
    super::{
        handle::{Api, Command},
        problem::{Problem, ProblemType},
        snapshot::Snapshot,
        wire::{Examination, Examiner},
    },
    Admin,
};
use crate::accounts;

/// Everything that is found. It takes as long as the slowest receiver, at most some ten seconds.
pub(super) async fn examine(
    State(api): State<Api>,
    _: Admin,
) -> Result<Json<Examination>, Problem> {
    let (answer, answered) = oneshot::channel();
    let stopping = |_| Problem::new(ProblemType::Conflict, "the daemon is stopping");
    api.commands
        .send(Command::Examine { answer })
        .await
        .map_err(|_| stopping(()))?;
    let findings = answered.await.map_err(|_| stopping(()))?;
    let status = Snapshot::take(&api).await.status();
    Ok(Json(Examination {
        consumers: status.consumers,
        needs: Some(status.needs),
        by: Examiner::Daemon,
        user: accounts::user_of(accounts::own_uid()).name,
        findings: findings.into_iter().map(Into::into).collect(),
    }))
}
