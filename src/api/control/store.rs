//! `POST /v1/store/accept`: a person's word about the store itself.

use axum::{Json, extract::State};
use tokio::sync::oneshot;

use super::{
    super::{
        handle::{Api, Command, Permission},
        problem::{Problem, ProblemType},
        wire::{ResealStarted, Resealing, StoreUsed, StoreWord},
    },
    Admin, Body,
};

/// Goes on with a store of which it is not known what was withdrawn.
pub(super) async fn accept(
    State(api): State<Api>,
    admin: Admin,
    Body(word): Body<StoreWord>,
) -> Result<Json<StoreUsed>, Problem> {
    say(&api, &admin, Permission::Accept, word).await
}

/// Takes over a store that belonged to another machine.
pub(super) async fn adopt(
    State(api): State<Api>,
    admin: Admin,
    Body(word): Body<StoreWord>,
) -> Result<Json<StoreUsed>, Problem> {
    say(&api, &admin, Permission::Adopt, word).await
}

/// Replaces the seal key, or goes on with it; how far it is.
pub(super) async fn reseal(
    State(api): State<Api>,
    admin: Admin,
    Body(word): Body<StoreWord>,
) -> Result<Json<ResealStarted>, Problem> {
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
) -> Result<Json<Resealing>, Problem> {
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
