//! Remembers for a few seconds what a peer may do, so that a thousand watchers of one user ask the
//! system's user database once. Other readers or admins are another question, so a change of either
//! counts at once; only the groups of a user may be some seconds old.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::OnceCell;

use super::super::{
    handle::Api,
    peer::{self, Peer, Right},
};
use crate::{accounts, model::Reader};

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(5);
/// Answers that are kept at once.
const MOST: usize = 4096;

/// The answers.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Rights(Arc<Mutex<BTreeMap<Question, Answer>>>);

type Question = (u32, u32, Vec<Reader>, Vec<Reader>);

#[derive(Debug, Clone)]
struct Answer {
    since: Duration,
    right: Arc<OnceCell<Right>>,
}

impl Rights {
    /// What this peer may do now where `readers` may read.
    pub(in crate::api) async fn of(&self, api: &Api, peer: Peer, readers: &[Reader]) -> Right {
        if peer.uid == 0 || peer.uid == accounts::own_uid() {
            return Right::Control;
        }
        let admins = api.scene().daemon.admins.clone();
        let right = self.answer(
            (peer.uid, peer.gid, admins.clone(), readers.to_vec()),
            api.clock.steady(),
        );
        *right
            .get_or_init(|| peer::decide(peer, admins, readers.to_vec()))
            .await
    }

    fn answer(&self, question: Question, now: Duration) -> Arc<OnceCell<Right>> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.retain(|_, answer| now < answer.since + HOLDS);
        }
        if answers.len() >= MOST {
            answers.clear();
        }
        let answer = answers.entry(question).or_insert_with(|| Answer::new(now));
        if now >= answer.since + HOLDS {
            *answer = Answer::new(now);
        }
        Arc::clone(&answer.right)
    }
}

impl Answer {
    fn new(since: Duration) -> Self {
        Self {
            since,
            right: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_a_while_and_for_the_same_readers() {
        let rights = Rights::default();
        let question = |reader: &str| (1, 1, vec![], vec![Reader::User(reader.to_owned())]);
        let first = rights.answer(question("anna"), Duration::ZERO);
        first.set(Right::Read).unwrap();
        let again = rights.answer(question("anna"), HOLDS / 2);
        assert_eq!(again.get(), Some(&Right::Read));
        assert_eq!(rights.answer(question("bert"), HOLDS / 2).get(), None);
        assert_eq!(rights.answer(question("anna"), HOLDS).get(), None);
    }

    #[test]
    fn memory_is_bounded() {
        let rights = Rights::default();
        for uid in 0..2 * u32::try_from(MOST).unwrap() {
            rights.answer((uid, 0, vec![], vec![]), Duration::ZERO);
        }
        assert!(rights.0.lock().unwrap().len() <= MOST);
    }
}
