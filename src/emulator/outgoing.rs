//! An answer's body on the wire: whole, or breaking off before its announced end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that announces `length` bytes and carries what there is of them.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    length: u64,
    breaks_off: bool,
}

/// The body breaks off here, on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the body breaks off, as was asked for")]
pub(super) struct BreaksOff;

impl Outgoing {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self {
            length: bytes.len() as u64,
            bytes: Some(bytes).filter(|b| !b.is_empty()),
            breaks_off: false,
        }
    }

    /// The first `sent` bytes of a body.
    pub(super) fn truncated(bytes: &Bytes, sent: usize) -> Self {
        Self {
            length: bytes.len() as u64,
            bytes: Some(bytes.slice(..sent.min(bytes.len()))),
            breaks_off: true,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BreaksOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BreaksOff>>> {
        Poll::Ready(match self.bytes.take() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.breaks_off => Some(Err(BreaksOff)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && !self.breaks_off
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
