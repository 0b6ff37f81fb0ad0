//! A connection whose other end must go on reading: one that takes nothing for too long is cut, so
//! that a caller that hangs keeps neither its seat nor what waits for it.
//!
//! A connection whose refusals are problem documents, also those that the HTTP library makes by itself,
//! before anything of ours has seen the request: it answers with a bare head.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::problem::{Problem, ProblemType};

#[derive(Debug)]
pub(super) struct StalledWrite<S> {
    inner: S,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> StalledWrite<S> {
    /// Waits so long for the other end to take something.
    pub(super) fn new(inner: S, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            waiting: None,
        }
    }

    /// Passes on what a write came to, unless it has been pending for too long.
    fn within<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waiting.as_mut().poll(cx));
        let why = "the other end takes nothing any more";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StalledWrite<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StalledWrite<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.within(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.within(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.within(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A head that long is not the library's.
const LONGEST: usize = 256;

#[derive(Debug)]
pub(super) struct Worded<S> {
    inner: S,
    /// What is said in the place of a bare head, and how much of it has been written.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncWrite + Unpin> Worded<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            instead: None,
        }
    }

    /// Writes what stands in the place of a bare head, to its end.
    fn write_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((text, written)) = &mut self.instead {
            let more = ready!(Pin::new(&mut self.inner).poll_write(cx, &text[*written..]))?;
            *written += more;
            if more == 0 || *written == text.len() {
                self.instead = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of a whole answer of 4xx without a body. Ours all have one.
fn bare_refusal(answer: &[u8]) -> Option<StatusCode> {
    if answer.len() > LONGEST || !answer.ends_with(b"\r\n\r\n") {
        return None;
    }
    let text = std::str::from_utf8(answer).ok()?.to_ascii_lowercase();
    let status = text.strip_prefix("http/1.1 4")?;
    let status = StatusCode::from_bytes(format!("4{}", status.get(..2)?).as_bytes()).ok()?;
    (text.matches("\r\n\r\n").count() == 1 && text.contains("\r\ncontent-length: 0\r\n"))
        .then_some(status)
}

fn worded(status: StatusCode) -> Vec<u8> {
    let kind = ProblemType::of_status(status);
    let detail = match kind {
        ProblemType::HeadersTooLarge => {
            "the request has more than 100 headers, or more than 16 KiB of them, or announces a body that nobody can send"
        }
        ProblemType::TargetTooLong => {
            "the target of the request is too long: at most 16 KiB are taken"
        }
        _ => "this is not a request of HTTP/1.1 that can be understood",
    };
    Problem::new(kind, detail).whole_answer()
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.instead.is_none() {
            let Some(status) = bare_refusal(buf) else {
                return Pin::new(&mut self.inner).poll_write(cx, buf);
            };
            self.instead = Some((worded(status), 0));
        }
        ready!(self.write_instead(cx))?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [one] => self.poll_write(cx, one),
            _ => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_instead(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod stalled_write_tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_cut_and_whoever_is_slow_is_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = StalledWrite::new(near, PATIENCE);
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(PATIENCE / 2).await;
                let mut some = [0; 16];
                far.read_exact(&mut some).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[7; 64]), slow);
        written.unwrap();
        let error = near.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

#[cfg(test)]
mod worded_tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_put_into_words() {
        let bare = |text: &str| bare_refusal(text.as_bytes()).map(|status| status.as_u16());
        assert_eq!(
            bare(
                "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            ),
            Some(431)
        );
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\nx",
            "data: HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert_eq!(bare(other), None, "{other}");
        }
        let text = String::from_utf8(worded(StatusCode::BAD_REQUEST)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{head}"
        );
    }
}
