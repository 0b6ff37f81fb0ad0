//! Watches over both keys all the time: proves them, takes a successor up that lies in its place, sees that
//! what a refused or forgotten key minted is minted anew, and tells people of keys in doubt.

use std::time::Duration;

use super::{DEADLINE, Found, Keys};
use crate::{
    acs::Proof,
    model::{
        DoubtReason, KeyChange, KeyDoubt, KeyRole, KeyStanding, KeyView, KeyWork, NoneWorks,
        Notice, NoticeKind, Num, ResourceName, Timestamp, short_duration,
    },
    schedule::{News, Steady, Word},
    store::{KeyPage, StoreError},
    worker::LONGEST_REST,
};

/// Rows of one transaction.
const PAGE: usize = 2000;
/// While tokens are in doubt, at least between two looks at how many are left.
const LOOK: Duration = Duration::from_millis(300);
/// Of its time counting takes at most one part in so many.
const SHARE: u32 = 5;
/// A call that a refused key signed may still bring a token: so all is put first again from time to time.
const MARK_AGAIN: Duration = Duration::from_secs(5);
/// Where there was no permit for a proof.
const NO_PERMIT: Duration = Duration::from_millis(500);

impl Keys {
    /// One look at both keys and at what is in doubt; how long to rest after it.
    pub(super) async fn watch_over(
        &mut self,
        open: Option<&KeyChange>,
    ) -> Result<Duration, StoreError> {
        self.read_doubts().await?;
        let mut rest = LONGEST_REST;
        for key in self.follow() {
            if !self.probes.is_due(&key.fingerprint, self.clock.steady()) {
                continue;
            }
            let Some(word) = self.prove(key.role).await? else {
                rest = rest.min(NO_PERMIT);
                continue;
            };
            self.on_word(&key, word).await?;
        }
        self.look_for_successors(open).await?;
        if self
            .doubts
            .iter()
            .any(|doubt| doubt.tokens > 0 || doubt.told)
        {
            rest = rest.min(self.replace_doubtful(open).await?);
        }
        self.find_out_whether_any_works().await?;
        let now = self.clock.steady();
        let wakes = self.probes.wakes_at().map(|at| at.saturating_sub(now));
        Ok(rest.min(wakes.unwrap_or(rest)).max(NO_PERMIT.min(LOOK)))
    }

    /// What the store says of keys in doubt, so that everybody knows.
    async fn read_doubts(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.doubts = self.store.doubted_keys(&self.settings.name, now).await?;
        self.client.doubt_keys(
            self.doubts
                .iter()
                .map(|doubt| (doubt.fingerprint.clone(), doubt.since))
                .collect(),
        );
        Ok(())
    }

    /// The keys as they are, after the probes has heard what ordinary calls found.
    fn follow(&mut self) -> Vec<KeyView> {
        let (now, keys) = (self.clock.steady(), self.client.key_status().keys);
        let watched = keys
            .iter()
            .map(|key| (key.fingerprint.as_str(), self.is_doubted(&key.fingerprint)));
        let watched: Vec<_> = watched.collect();
        self.probes.watch(watched, now);
        for key in &keys {
            let (denials, accepted_at) = self.client.key_record(&key.fingerprint);
            self.probes
                .heard(&key.fingerprint, denials, accepted_at, now);
        }
        keys
    }

    fn is_doubted(&self, fingerprint: &str) -> bool {
        self.doubts
            .iter()
            .any(|doubt| doubt.fingerprint == fingerprint)
    }

    async fn on_word(&mut self, key: &KeyView, word: Word) -> Result<(), StoreError> {
        let denials = self.client.key_record(&key.fingerprint).0;
        let now = self.clock.steady();
        let (resource, role, fingerprint) = (&self.settings.name, key.role, &key.fingerprint);
        match self.probes.proved(fingerprint, word, denials, now) {
            News::None => Ok(()),
            News::Refused => {
                tracing::error!(%resource, key = %role, fingerprint, "the access key is refused: what it minted may be dead");
                let doubt = KeyDoubt {
                    fingerprint: fingerprint.clone(),
                    role: Some(role),
                    why: DoubtReason::Refused,
                    since: self.clock.now(),
                    told: false,
                    tokens: 0,
                    first_end: None,
                };
                self.store.note_doubt(resource, doubt, None).await?;
                self.read_doubts().await
            }
            News::Restored => {
                tracing::info!(%resource, key = %role, fingerprint, "the access key is accepted again");
                self.permits.gate().keys_accepted();
                self.restored(&key.fingerprint).await
            }
        }
    }

    /// A key is accepted again: what it minted is good, and keeps its own time.
    async fn restored(&mut self, fingerprint: &str) -> Result<(), StoreError> {
        let mut after = 0;
        while let Some(next) = self.spare_page(fingerprint, after).await?.next {
            after = next;
        }
        let told = self
            .doubts
            .iter()
            .find(|doubt| doubt.fingerprint == fingerprint && doubt.told);
        let notice = told.map(|doubt| self.accepted_again(doubt));
        let resource = &self.settings.name;
        self.store.end_doubt(resource, fingerprint, notice).await?;
        self.read_doubts().await
    }

    async fn spare_page(&self, fingerprint: &str, after: Num) -> Result<KeyPage, StoreError> {
        let (resource, now) = (&self.settings.name, self.clock.now());
        self.store
            .spare_doubtful(resource, fingerprint, after, PAGE, now)
            .await
    }

    /// Proves one key, if a call may go out.
    pub(super) async fn prove(&mut self, role: KeyRole) -> Result<Option<Word>, StoreError> {
        Ok(
            match self.permits.prove(&self.client, role, DEADLINE).await? {
                None | Some(Proof::Unknown(_)) => Some(Word::Unknown),
                Some(Proof::Accepted | Proof::Unserved(_)) => Some(Word::Accepted),
                Some(Proof::Denied(_)) => Some(Word::Denied),
            },
        )
    }

    /// Looks into the place of each refused key; a drill looks for the successor of its own key itself.
    async fn look_for_successors(&mut self, open: Option<&KeyChange>) -> Result<(), StoreError> {
        for key in self.client.key_status().keys {
            let own = open.is_some_and(|open| open.old_key == key.fingerprint);
            let is_time = self.probes.looks(&key.fingerprint, self.clock.steady());
            if own || !is_time {
                continue;
            }
            match self.successor(key.role, &key.fingerprint).await? {
                Found::Works(successor) => {
                    tracing::info!(
                        resource = %self.settings.name, key = %key.role, fingerprint = successor.fingerprint(),
                        "a new access key lies in its place and works: it is taken up"
                    );
                    self.client.take_up(key.role, successor);
                    self.permits.gate().keys_accepted();
                    self.read_doubts().await?;
                }
                Found::Same => {}
                Found::Unusable(why) => {
                    tracing::warn!(resource = %self.settings.name, key = %key.role, "its successor cannot be used: {why}");
                }
            }
        }
        Ok(())
    }

    /// Has doubtful tokens replaced, tells of it, and forgets keys that are done with.
    async fn replace_doubtful(&mut self, open: Option<&KeyChange>) -> Result<Duration, StoreError> {
        let began = self.clock.steady();
        let works = self.rely_on_one_that_works();
        for doubt in self.doubts.clone() {
            if doubt.tokens == 0 {
                self.done_with(&doubt).await?;
            } else if let Some(by) = &works {
                let leak = open.is_some_and(|open| {
                    open.old_key == doubt.fingerprint && open.work == KeyWork::LeakNow
                });
                if !doubt.told && !leak {
                    self.tell_doubt(&doubt, by).await?;
                }
                self.put_first(&doubt.fingerprint).await?;
            }
        }
        self.read_doubts().await?;
        if self.doubts.iter().all(|doubt| doubt.tokens == 0) {
            return Ok(LONGEST_REST);
        }
        let took = self.clock.steady().saturating_sub(began);
        Ok((took * (SHARE - 1)).max(LOOK))
    }

    /// A key that is known to work signs, or a bearer does; which, in words, if there is any.
    fn rely_on_one_that_works(&self) -> Option<String> {
        if let Some(bearer) = self.client.bearer_view() {
            let works = bearer.ends.is_some() && bearer.trouble.is_none();
            return works.then(|| "a bearer of Entra ID".to_owned());
        }
        let status = self.client.key_status();
        let works = |key: &&KeyView| {
            key.standing == KeyStanding::Accepted && !self.is_doubted(&key.fingerprint)
        };
        let mut working = status.keys.iter().filter(works);
        let in_use = working.clone().find(|key| key.role == status.in_use);
        let key = in_use.or_else(|| working.next())?;
        self.client.rely_on(key.role);
        Some(format!("the {} key", key.role))
    }

    /// Puts what a key minted before all other work.
    async fn put_first(&mut self, fingerprint: &str) -> Result<(), StoreError> {
        let now = self.clock.steady();
        let marked: Option<&Steady> = self.marked.get(fingerprint);
        if marked.is_some_and(|at| now < *at + MARK_AGAIN) {
            return Ok(());
        }
        let (mut after, mut found) = (0, 0);
        loop {
            let (resource, now) = (&self.settings.name, self.clock.now());
            let page = self
                .store
                .hasten_doubtful(resource, fingerprint, after, PAGE, now)
                .await?;
            found += page.marked;
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        if found > 0 {
            tracing::warn!(resource = %self.settings.name, fingerprint, tokens = found, "doubtful tokens are minted anew");
        }
        let now = self.clock.steady();
        self.marked.insert(fingerprint.to_owned(), now);
        Ok(())
    }

    async fn tell_doubt(&mut self, doubt: &KeyDoubt, by: &str) -> Result<(), StoreError> {
        let notice = self.doubtful(doubt, by);
        tracing::warn!(resource = %self.settings.name, "{}", notice.message);
        let told = KeyDoubt {
            told: true,
            ..doubt.clone()
        };
        let resource = &self.settings.name;
        self.store.note_doubt(resource, told, Some(notice)).await
    }

    /// The last token of a key is replaced.
    async fn done_with(&mut self, doubt: &KeyDoubt) -> Result<(), StoreError> {
        self.marked.remove(&doubt.fingerprint);
        let notice = doubt.told.then(|| self.replaced(doubt));
        if let Some(notice) = &notice {
            tracing::info!(resource = %self.settings.name, "{}", notice.message);
        }
        let resource = &self.settings.name;
        let keys = self.client.key_status().keys;
        if keys.iter().any(|key| key.fingerprint == doubt.fingerprint) {
            if doubt.told {
                let untold = KeyDoubt {
                    told: false,
                    ..doubt.clone()
                };
                self.store.note_doubt(resource, untold, notice).await?;
            }
            return Ok(());
        }
        self.store
            .end_doubt(resource, &doubt.fingerprint, notice)
            .await
    }

    /// Whether any key works; if none does, until when tokens would last.
    async fn find_out_whether_any_works(&mut self) -> Result<(), StoreError> {
        let keys = self.client.key_status().keys;
        let refused = |key: &KeyView| {
            key.standing == KeyStanding::Denied && self.is_doubted(&key.fingerprint)
        };
        if keys.is_empty() || !keys.iter().all(refused) {
            self.none_works = None;
            return Ok(());
        }
        let since = self.none_works.map_or(self.clock.now(), |none| none.since);
        let ends = self.store.earliest_expiry().await?;
        self.none_works = Some(NoneWorks {
            since,
            first_end: ends.get(&self.settings.name).copied(),
        });
        Ok(())
    }
}

impl Keys {
    /// Tokens are in doubt and are minted anew by another key.
    pub(super) fn doubtful(&self, doubt: &KeyDoubt, by: &str) -> Notice {
        let now = self.clock.now();
        let minutes = doubt.tokens as f64 / self.issues_per_minute() as f64;
        let takes = std::time::Duration::from_secs_f64((minutes * 60.0).ceil());
        let done_by = now.checked_add(takes).unwrap_or(now);
        let ends = doubt.first_end.map_or(String::new(), |end| {
            format!(" If they are good after all, the first of them ends at {end:.0}.")
        });
        let resource = &self.settings.name;
        let message = format!(
            "At {resource} {}. They are minted anew with {by}, most urgent first, by {done_by:.0} at the latest that the pace \
             allows ({} from now).{ends} See `renewd key status {resource}`.",
            doubt.told(),
            short_duration(takes)
        );
        notice(resource, doubt, NoticeKind::TokensDoubtful, message, now)
    }

    /// The last of them is replaced.
    pub(super) fn replaced(&self, doubt: &KeyDoubt) -> Notice {
        let resource = &self.settings.name;
        let message = format!(
            "No token of {} of {resource} is in use any more: all are minted anew.",
            doubt.key()
        );
        notice(
            resource,
            doubt,
            NoticeKind::TokensReplaced,
            message,
            self.clock.now(),
        )
    }

    /// The key is accepted again.
    pub(super) fn accepted_again(&self, doubt: &KeyDoubt) -> Notice {
        let resource = &self.settings.name;
        let message = format!(
            "{resource} accepts {} again: the {} that it minted and that were not replaced yet are good, and keep \
             their own time.",
            doubt.key(),
            tokens(doubt.tokens)
        );
        notice(
            resource,
            doubt,
            NoticeKind::TokensReplaced,
            message,
            self.clock.now(),
        )
    }
}

fn tokens(count: u64) -> String {
    format!("{count} {}", if count == 1 { "token" } else { "tokens" })
}

fn notice(
    resource: &ResourceName,
    doubt: &KeyDoubt,
    kind: NoticeKind,
    message: String,
    at: Timestamp,
) -> Notice {
    Notice::new(kind, at, message)
        .about(resource)
        .keyed(format!("doubt {resource} {}", doubt.fingerprint))
}
