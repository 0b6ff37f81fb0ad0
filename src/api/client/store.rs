//! Questions about the store itself.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    Client, ClientError,
    exchange::{OWN_LABEL, unreadable},
    wire::{BackedUp, CLIENT_HEADER, MADE_AT_HEADER},
};

/// A large database is copied before the first byte comes.
const COPYING: Duration = Duration::from_secs(900);
/// Between two pieces.
const PIECE: Duration = Duration::from_secs(60);

impl Client {
    /// Has the daemon make a backup and hands over its pieces; when it was made. What `take` fails
    /// with ends it.
    pub async fn backup(
        &self,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<Timestamp>, ClientError> {
        let target = "/v1/store/backup";
        let silent = |waited| ClientError::Silent {
            path: self.path.clone(),
            waited,
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(CLIENT_HEADER, OWN_LABEL)
            .header(header::HOST, "localhost")
            .body(Full::new(Bytes::new()))
            .map_err(|error| unreadable(target, &error.to_string()))?;
        let (mut sender, connection) = self.connect().await?;
        let asked = async {
            let answer = timeout(COPYING, sender.send_request(request))
                .await
                .map_err(|_| silent(COPYING))?
                .map_err(|source| self.broken(source))?;
            let made_at = answer
                .headers()
                .get(MADE_AT_HEADER)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .and_then(|micros| Timestamp::from_microsecond(micros).ok());
            let status = answer.status();
            let mut body = answer.into_body();
            let mut refusal = Vec::new();
            while let Some(frame) = timeout(PIECE, body.frame())
                .await
                .map_err(|_| silent(PIECE))?
            {
                let frame = frame.map_err(|source| self.broken(source))?;
                let Some(piece) = frame.data_ref() else {
                    continue;
                };
                if !status.is_success() {
                    refusal.extend_from_slice(piece);
                } else if let Err(error) = take(piece) {
                    return Ok(Err(error));
                }
            }
            match (status.is_success(), made_at) {
                (true, Some(made_at)) => Ok(Ok(made_at)),
                (true, None) => Err(unreadable(target, "it does not say when it was made")),
                (false, _) => Err(serde_json::from_slice(&refusal).map_or_else(
                    |_| unreadable(target, status.as_str()),
                    ClientError::Problem,
                )),
            }
        };
        // The connection has to be driven beside the answer; it ends by itself, or is dropped.
        let (mut asked, mut connection) = (std::pin::pin!(asked), std::pin::pin!(connection));
        tokio::select! {
            biased;
            done = &mut asked => done,
            ended = &mut connection => {
                ended.map_err(|source| self.broken(source))?;
                asked.await
            }
        }
    }

    /// Tells the daemon that a backup reached its place.
    pub async fn backed_up(&self, done: &BackedUp) -> Result<BackedUp, ClientError> {
        self.call(Method::POST, "/v1/store/backed-up", Some(done))
            .await
    }
}
