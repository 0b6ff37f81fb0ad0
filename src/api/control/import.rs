//! `POST /v1/import`: identities and ids in batches.

use axum::{Json, extract::State};

use super::{
    super::{
        batch::Batch,
        handle::Api,
        problem::Problem,
        wire::{Import, Imported},
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
    let batch = Batch::of(asked.lines, &surroundings(&api.scene()));
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
