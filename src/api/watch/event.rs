//! What a watcher is sent: a token document as a server-sent event, and the frames around it.

use bytes::Bytes;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::super::{handle::Api, problem::Problem, tokens::shown};
use crate::{
    model::{Name, Reader, Version},
    schedule::{Grounds, Standing},
    store::Holding,
};

/// How soon a reader that lost its connection should come again, in milliseconds.
const COME_AGAIN_MS: u32 = 1000;

/// The state of one identity, rendered once for everybody who watches it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: Name,
    pub(super) version: Version,
    /// Who may see it.
    pub(super) readers: Vec<Reader>,
    /// When the token in it ends, by our clock; `None` where it holds none.
    pub(super) ends_at: Option<Timestamp>,
    /// The number of the change that made it.
    pub(super) seq: u64,
    data: Bytes,
}

impl Api {
    /// What a watcher may be told of a row now.
    pub(super) fn event(&self, holding: Holding, seq: u64) -> Event {
        let renewer = self.shared_state().renewer(&holding.record.spec.resource);
        Event::of(holding, seq, &Grounds::of(&renewer), self.clock.now())
    }
}

impl Event {
    /// What a watcher may be told of a row at this instant, given how its resource stands.
    pub(super) fn of(holding: Holding, seq: u64, grounds: &Grounds, now: Timestamp) -> Self {
        let readers = holding.record.spec.readers.clone();
        let (document, stands) = shown(holding, grounds, now);
        let end = match stands {
            Standing::Good { left } | Standing::Doubtful { left, .. } => {
                now.checked_add(left).unwrap_or(Timestamp::MAX)
            }
            Standing::None | Standing::Dead { .. } => Timestamp::MIN,
        };
        Self {
            name: document.name.clone(),
            version: document.version,
            readers,
            ends_at: document.token.as_ref().map(|_| end),
            seq,
            data: Bytes::from_owner(document.to_json()),
        }
    }

    /// Whether what it says of the token still holds.
    pub(super) fn is_good(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }

    /// The event as it goes out, numbered.
    pub(super) fn frame(&self, id: u64) -> Bytes {
        let head = format!("id: {id}\nevent: token\ndata: ");
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + self.data.len() + 2));
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.data);
        bytes.extend_from_slice(b"\n\n");
        // Wiped when the last part of it has been written.
        Bytes::from_owner(bytes)
    }
}

/// The first frame: how soon to come again.
pub(super) fn welcome() -> Bytes {
    Bytes::from(format!("retry: {COME_AGAIN_MS}\n\n"))
}

/// Moves the reader's place in the stream without telling it anything.
pub(super) fn place(id: u64) -> Bytes {
    Bytes::from(format!("id: {id}\n\n"))
}

/// Says that the connection lives.
pub(super) fn heartbeat() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// The last that a watcher hears of an identity that it may no longer read.
pub(super) fn forbidden(name: &Name, problem: &Problem) -> Bytes {
    let mut document = serde_json::to_value(problem).unwrap_or_default();
    document["name"] = name.as_str().into();
    Bytes::from(format!("event: forbidden\ndata: {document}\n\n"))
}
