//! `POST /v1/reload`: asks `app` to read the configuration again.

use axum::{Json, extract::State};
use tokio::sync::oneshot;

use super::{
    super::{
        handle::{Api, Command},
        problem::{Problem, ProblemType},
        wire::Reloaded,
    },
    Admin,
};

/// The effect, or every problem; then nothing was changed.
pub(super) async fn reload(
    State(api): State<Api>,
    admin: Admin,
) -> Result<Json<Reloaded>, Problem> {
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
