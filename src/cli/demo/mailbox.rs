//! The consumer's side of the webhooks: the emulator's receiver, listening in this process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::task::JoinSet;

use crate::{clock::Clock, emulator::receiver::Receiver, model::Secret};

use super::super::exit::Failed;

/// Between two looks at what has arrived.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Mailbox {
    receiver: Arc<Receiver>,
    secret: Secret,
    url: String,
    /// Serves; ends with the mailbox.
    _serving: JoinSet<()>,
}

impl Mailbox {
    /// Opens a receiver on a free port, with a secret of its own.
    pub(super) async fn open(clock: &Clock) -> Result<Self, Failed> {
        let bytes = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        let secret = Secret::new(format!("whsec_{}", BASE64_STANDARD.encode(bytes.concat())));
        let receiver = Receiver::new(std::slice::from_ref(&secret), clock.clone());
        let receiver = Arc::new(receiver.map_err(Failed::plain)?);
        let bound = receiver.bind("127.0.0.1:0").await;
        let bound = bound.map_err(|error| Failed::plain(format!("no receiver: {error}")))?;
        let url = bound.url().to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(bound.run_until(std::future::pending()));
        Ok(Self {
            receiver,
            secret,
            url,
            _serving: serving,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// Events whose signature was right; and those that were refused, or came after a newer one.
    pub(super) fn counts(&self) -> (u64, u64) {
        let received = self.receiver.received();
        let backwards: u64 = received.tokens.values().map(|told| told.backwards).sum();
        (received.accepted, received.refused.len() as u64 + backwards)
    }

    /// How many identities' newest event carries the version of their file; waits a little for the
    /// last ones to arrive.
    pub(super) async fn in_step(
        &self,
        files: &BTreeMap<&'static str, u64>,
        longest: Duration,
    ) -> u64 {
        let all = async {
            while self.agreeing(files) < files.len() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        // Whoever is not in step by then is counted as such.
        tokio::time::timeout(longest, all).await.ok();
        self.agreeing(files) as u64
    }

    fn agreeing(&self, files: &BTreeMap<&'static str, u64>) -> usize {
        let told = self.receiver.received().tokens;
        let same = |(name, version): &(&&str, &u64)| {
            told.get(**name)
                .is_some_and(|told| told.version.cast_unsigned() == **version)
        };
        files.iter().filter(same).count()
    }
}
