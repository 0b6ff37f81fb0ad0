//! `POST /v1/store/backup`: the whole store as one file, for whoever asks to keep elsewhere; and
//! `POST /v1/store/backed-up`: it got there.

use axum::{Json, body::Body, extract::State, response::Response};
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::io::AsyncReadExt as _;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{BackedUp, MADE_AT_HEADER},
    },
    Admin, Body as Asked,
};

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
    let mut response = Response::new(Body::from_stream(pieces));
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
    Asked(done): Asked<BackedUp>,
) -> Result<Json<BackedUp>, Problem> {
    api.store.backed_up(done.made_at, false).await?;
    admin
        .audit(&api, "store.backup", None, None, &done.place)
        .await?;
    Ok(Json(done))
}
