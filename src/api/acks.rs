//! `PUT /v1/tokens/{name}/ack`: a consumer says which version it uses, so that an operator sees who
//! still holds an old one.

use axum::{
    Extension, Json,
    extract::{FromRequest, Path, Request, State},
};
use http::HeaderMap;

use super::{
    body::{self, Body},
    handle::Api,
    peer::{Peer, Turns},
    problem::{Problem, ProblemType},
    rights::not_for_you,
    wire::{Ack, Acked, CLIENT_HEADER},
};
use crate::store::Acknowledgement;

/// The longest name of a consumer that is kept.
const LONGEST_LABEL: usize = 64;

/// The endpoint; for those who may read the token. Nothing of the body is read before that is known.
pub(super) async fn acknowledge(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    turns: Option<Extension<Turns>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Acked>, Problem> {
    let Some(Extension(peer)) = peer else {
        return Err(not_for_you());
    };
    let turns = turns.as_deref();
    let record = {
        let _turn = Turns::next(turns).await;
        let name = name.parse().ok();
        api.rights.admit(&api, Some(peer), name.as_ref()).await?
    };
    let client = label(request.headers());
    let (request, _room) = body::read(&api, request, body::ACKNOWLEDGEMENT).await?;
    let Body(ack) = Body::<Ack>::from_request(request, &api).await?;
    let name = &record.spec.name;
    let version = ack.version;
    if version > record.version {
        let why = format!(
            "{name} has no version {version} yet: the newest is {}",
            record.version
        );
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    let noted = Acknowledgement {
        num: record.num,
        uid: peer.uid,
        client,
        version,
    };
    let _turn = Turns::next(turns).await;
    if !api.store.acknowledge(noted, api.clock.now()).await? {
        let why = format!(
            "{name} never had a version {version}, as far as its last few are remembered: the newest is {}",
            record.version
        );
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    Ok(Json(Acked {
        version,
        current: record.version,
    }))
}

/// What the consumer calls itself: the header that every request carries anyway.
fn label(headers: &HeaderMap) -> String {
    let text = headers.get(CLIENT_HEADER).map(|value| value.as_bytes());
    String::from_utf8_lossy(text.unwrap_or_default())
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_LABEL)
        .collect()
}
