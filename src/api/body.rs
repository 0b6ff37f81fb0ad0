//! Bodies of requests: read only where the caller has a right, within a size, a time and the memory that
//! all of them have together.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body as Raw, HttpBody},
    extract::{FromRequest, Request, State},
    middleware::Next,
    response::Response,
};
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::problem::{Problem, ProblemType};

pub(super) const ACKNOWLEDGEMENT: usize = 1024;
/// The largest body otherwise.
pub(super) const LARGEST: usize = 4 * 1024 * 1024;
/// The largest list of names and ids for a campaign: some 500,000.
pub(super) const LARGEST_LIST: usize = 64 * 1024 * 1024;
/// What all bodies that are being read or worked on may take together.
pub(super) const ALL: usize = 128 * 1024 * 1024;
/// How long a body may take to come.
const WHOLE: Duration = Duration::from_secs(10);
/// The room is counted in pieces of so many bytes.
const PIECE: usize = 1024;

/// The room for bodies; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct BodyRoom(Arc<Semaphore>);

impl Default for BodyRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL / PIECE)))
    }
}

impl BodyRoom {
    /// Room for so many bytes, until dropped.
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.0).try_acquire_many_owned(pieces);
        taken.map_err(|_| {
            let why = format!(
                "the bodies of other requests take the {} MiB that all may take together",
                ALL >> 20
            );
            Problem::new(ProblemType::Busy, why).retry_after(Duration::from_secs(1))
        })
    }
}

/// Middleware for routes whose callers have been let in: the body is there, whole, before the handler is.
pub(super) async fn whole(
    State((room, most)): State<(BodyRoom, usize)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (request, _room) = read(&room, request, most).await?;
    Ok(next.run(request).await)
}

/// The request with its body read; the room is the body's for as long as it is held.
pub(super) async fn read(
    room: &BodyRoom,
    request: Request,
    most: usize,
) -> Result<(Request, Option<OwnedSemaphorePermit>), Problem> {
    let too_large = || {
        let why = format!("the body is larger than the {most} bytes that are taken here");
        Problem::new(ProblemType::TooLarge, why)
    };
    let said = request.body().size_hint().upper();
    let said = said.map(|said| usize::try_from(said).unwrap_or(usize::MAX));
    match said {
        Some(0) => return Ok((request, None)),
        Some(said) if said > most => return Err(too_large()),
        _ => {}
    }
    let room = room.take(said.unwrap_or(most))?;
    let (parts, body) = request.into_parts();
    let collected = timeout(WHOLE, Limited::new(body, most).collect());
    let body = match collected.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => {
            let why = "the body ended before it was whole";
            return Err(Problem::new(ProblemType::Invalid, why));
        }
        Err(_) => {
            let why = format!("the body did not come within {} s", WHOLE.as_secs());
            return Err(Problem::new(ProblemType::Timeout, why));
        }
    };
    Ok((Request::from_parts(parts, Raw::from(body)), Some(room)))
}

/// A JSON body whose mistakes are problem documents too.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => {
                let kind = match rejection.status() {
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemType::UnsupportedMedia,
                    StatusCode::PAYLOAD_TOO_LARGE => ProblemType::TooLarge,
                    _ => ProblemType::Invalid,
                };
                Err(Problem::new(kind, rejection.body_text()))
            }
        }
    }
}
