//! A connection whose refusals are problem documents, also those that the HTTP library makes by itself,
//! before anything of ours has seen the request: it answers with a bare head.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::problem::{Problem, ProblemType};

/// A head that long is not the library's.
const LONGEST: usize = 256;

/// The connection.
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
            "the headers of a request may be 100 and take 16 KiB, and it must be possible to send its body"
        }
        ProblemType::TargetTooLong => "the target of the request is too long",
        _ => "this is no request of HTTP/1.1 that can be understood",
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
mod tests {
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
