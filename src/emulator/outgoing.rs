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
    end: End,
}

/// What comes after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// One more look first: what was handed over so far goes out only while the body is waited for.
    Hesitates,
    BreaksOff,
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
            end: End::Whole,
        }
    }

    /// The first `sent` bytes of a body.
    pub(super) fn truncated(bytes: &Bytes, sent: usize) -> Self {
        Self {
            length: bytes.len() as u64,
            bytes: Some(bytes.slice(..sent.min(bytes.len()))),
            end: End::Hesitates,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BreaksOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BreaksOff>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Hesitates => {
                self.end = End::BreaksOff;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::BreaksOff => Poll::Ready(Some(Err(BreaksOff))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.end == End::Whole
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
