//! `PUT /v1/tokens/{name}/ack`: a consumer says which version it uses, so that an operator sees who
//! still holds an old one.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use http::HeaderMap;

use super::{
    control::Body,
    handle::Api,
    peer::{Peer, Right},
    problem::{Problem, ProblemType},
    tokens::not_for_you,
    wire::{Ack, Acked, CLIENT_HEADER},
};
use crate::{model::Name, store::Acknowledgement};

/// The longest name of a consumer that is kept.
const LONGEST_LABEL: usize = 64;

/// The endpoint; for those who may read the token.
pub(super) async fn acknowledge(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(ack): Body<Ack>,
) -> Result<Json<Acked>, Problem> {
    let Some(Extension(peer)) = peer else {
        return Err(not_for_you());
    };
    let record = match name.parse::<Name>() {
        Ok(name) => api.store.record(&name).await?,
        Err(_) => None,
    };
    let readers = record.as_ref().map(|record| record.spec.readers.as_slice());
    let right = api
        .hub
        .rights()
        .of(&api, peer, readers.unwrap_or_default())
        .await;
    let record = match (record, right) {
        (Some(record), Right::Control | Right::Read) => record,
        (None, Right::Control) => {
            let why = "there is no identity of this name";
            return Err(Problem::new(ProblemType::Unknown, why));
        }
        _ => return Err(not_for_you()),
    };
    if ack.version > record.version {
        let why = format!(
            "{name} has no version {} yet: the newest is {}",
            ack.version, record.version
        );
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    let noted = Acknowledgement {
        num: record.num,
        uid: peer.uid,
        client: label(&headers),
        version: ack.version,
    };
    api.store.acknowledge(noted, api.clock.now()).await?;
    Ok(Json(Acked {
        version: ack.version,
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
