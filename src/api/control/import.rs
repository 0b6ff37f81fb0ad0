//! `POST /v1/import`: identities and ids in batches. `POST /v1/create`: the word that those without an id
//! may be created.

use axum::{Json, extract::State};

use super::{
    super::{
        batch::Batch,
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{CreateMissing, CreationsAllowed, Import, Imported},
    },
    Admin, Body,
    identities::surroundings,
};

/// Checks a batch, or takes it over; each batch is one entry of the audit trail.
pub(super) async fn import(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<Import>,
) -> Result<Json<Imported>, Problem> {
    let batch = Batch::of(asked.lines, &surroundings(&api.shared_state()));
    if asked.check {
        return Ok(Json(batch.check(&api.store).await?));
    }
    let done = batch.apply(&api.store, api.clock.now()).await?;
    if done.added + done.changed + done.adopted + done.remembered > 0 {
        let result = format!(
            "{} added, {} changed, {} ids given back, {} ids remembered",
            done.added, done.changed, done.adopted, done.remembered
        );
        admin.audit(&api, "import", None, None, &result).await?;
    }
    Ok(Json(done))
}

/// Lets identities be created that wait for it; each is an entry of the audit trail.
pub(super) async fn create(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<CreateMissing>,
) -> Result<Json<CreationsAllowed>, Problem> {
    if asked.all_missing != asked.names.is_empty() {
        let why = "say either names or all_missing";
        return Err(Problem::new(ProblemType::Invalid, why.to_owned()));
    }
    let cause = admin.cause(&api, asked.reason).await;
    let names = (!asked.all_missing).then_some(asked.names);
    let word = api.store.create_by_word(names, &cause, api.clock.now());
    let (allowed, refused) = word.await?;
    Ok(Json(CreationsAllowed {
        allowed,
        refused: refused.into_iter().map(Into::into).collect(),
    }))
}
