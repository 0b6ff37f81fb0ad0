//! What a lane tells people about its resource: the beginning and the end of an outage, refused
//! keys, refused creation; each once.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Lane, Moment, messages, queue::Line, view::OPERATIONS};
use crate::{
    model::{HealthView, NoticeKind, Operation},
    store::{Ended, StoreError, Work},
};

/// Between two looks whether anybody waits for a creation that was refused.
const LOOK_FOR_REFUSED: Duration = Duration::from_secs(5);
/// Between two looks for tokens that ended in an outage.
const LOOK_FOR_ENDED: Duration = Duration::from_secs(2);

impl Lane {
    /// Tells what has changed since the last round.
    pub(super) async fn tell(&mut self) {
        let now = self.moment();
        self.tell_outage(now).await;
        self.tell_keys(now).await;
        self.tell_folded(now);
        self.tell_failing_folded(now);
        if let Some(trouble) = self.outbox.untold_trouble() {
            let notice = messages::unwritable(&self.settings.name, &trouble, now.wall);
            self.raise(notice);
        }
        if self.outbox.ended_trouble() {
            let notice = messages::writable(&self.settings.name, now.wall);
            self.raise(notice);
        }
    }

    async fn tell_outage(&mut self, now: Moment) {
        let resource = self.settings.name.clone();
        let probing = OPERATIONS.into_iter().find_map(|operation| {
            let health = self.permits.gate().health(operation);
            match health {
                HealthView::Probing { because, .. } => Some(because),
                _ => None,
            }
        });
        if let Some(because) = probing {
            if self.outage.bad(now.steady) {
                let survives = self.survives_until().await;
                let notice = messages::unreachable(&resource, &because, survives, now.wall);
                tracing::error!(%resource, "{}", notice.message);
                self.raise(notice);
                self.told_again = Some(0);
            } else if self.outage.is_announced() {
                self.tell_of_ended(NoticeKind::ResourceUnreachable, &because, now)
                    .await;
            }
            return;
        }
        let was_on = self.outage.is_on();
        if self.outage.good(now.steady) {
            let survives = self.survives_until().await;
            let notice = messages::recovered(&resource, survives, now.wall);
            tracing::info!(%resource, "{}", notice.message);
            self.raise(notice);
        }
        if was_on {
            self.recovered = Some(now);
        }
    }

    async fn tell_keys(&mut self, now: Moment) {
        let resource = self.settings.name.clone();
        let because = self.permits.gate().refusal(&OPERATIONS).map(str::to_owned);
        if let Some(because) = because {
            if self.key_outage.bad(now.steady) {
                let survives = self.survives_until().await;
                let notice = messages::key_rejected(&resource, &because, survives, now.wall);
                tracing::error!(%resource, "{}", notice.message);
                self.raise(notice);
                self.told_again = Some(0);
            } else if self.key_outage.is_announced() {
                self.tell_of_ended(NoticeKind::KeyRejected, &because, now)
                    .await;
            }
            return;
        }
        let was_on = self.key_outage.is_on();
        if self.key_outage.good(now.steady) {
            let notice = messages::key_accepted(&resource, now.wall);
            tracing::info!(%resource, "{}", notice.message);
            self.raise(notice);
        }
        if was_on {
            self.recovered = Some(now);
        }
    }

    /// An outage that outlives tokens is told again when the first one ends, and when all have.
    async fn tell_of_ended(&mut self, kind: NoticeKind, because: &str, now: Moment) {
        if self.told_again >= Some(2) || now.steady < self.looked_for_ended + LOOK_FOR_ENDED {
            return;
        }
        self.looked_for_ended = now.steady;
        let resource = self.settings.name.clone();
        let service = now.wall + self.client.skew();
        let Ok(ended) = self.store.ended_tokens(&resource, service).await else {
            return;
        };
        let stage = match ended {
            Ended { ended: 0, .. } => 0,
            Ended {
                any_lives: true, ..
            } => 1,
            Ended { .. } => 2,
        };
        let told = match self.told_again {
            Some(told) => told,
            None => {
                let key = messages::trouble_key(kind, &resource);
                let Ok(times) = self.store.times_told(key).await else {
                    return;
                };
                times.saturating_sub(1)
            }
        };
        self.told_again = Some(told.max(stage));
        if stage > told {
            let notice = messages::outlived(&resource, kind, because, ended, now.wall);
            tracing::error!(%resource, "{}", notice.message);
            self.raise(notice);
        }
    }

    /// Creation is refused although identities without an id wait for it.
    pub(super) fn tell_creation_refused(&mut self, why: &str, now: Moment) {
        if std::mem::replace(&mut self.creation_refusal_told, true) {
            return;
        }
        self.creation_waits_at = now.steady + LOOK_FOR_REFUSED;
        tracing::error!(resource = %self.settings.name, "identities are not created: {why}");
        let notice = messages::create_refused(&self.settings.name, why, now.wall);
        self.raise(notice);
    }

    /// While creation is refused for all: tells once when somebody waits.
    pub(super) async fn review_refused_creation(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        let Some(why) = self.creation_refused.clone() else {
            return self.look_for_refused(now).await;
        };
        if !self
            .queue_of(Line::main(Operation::CreateWithToken))
            .wants_rows(now)
        {
            return Ok(());
        }
        let name = &self.settings.name;
        let waiting = self
            .store
            .due(name, Work::Create, now.wall, 1, &self.busy)
            .await?;
        if waiting.is_empty() {
            let next = self.store.next_due(name, Work::Create, &self.busy).await?;
            self.queue(Line::main(Operation::CreateWithToken)).look_at = next;
            self.tell_creation_allowed(now);
        } else {
            self.queue(Line::main(Operation::CreateWithToken)).look_at = None;
            self.tell_creation_refused(&why, now);
        }
        Ok(())
    }

    /// What refused one creation may be over: told when none waits that failed.
    async fn look_for_refused(&mut self, now: Moment) -> Result<(), StoreError> {
        if !self.creation_refusal_told || now.steady < self.creation_waits_at {
            return Ok(());
        }
        self.creation_waits_at = now.steady + LOOK_FOR_REFUSED;
        let (name, nobody) = (&self.settings.name, BTreeSet::new());
        for line in [
            Line::main(Operation::CreateWithToken),
            Line::alone(Operation::CreateWithToken),
        ] {
            let next = self.store.next_due_in(name, line.work(), &nobody);
            if next.await?.is_some() {
                return Ok(());
            }
        }
        self.tell_creation_allowed(now);
        Ok(())
    }

    fn tell_creation_allowed(&mut self, now: Moment) {
        if std::mem::replace(&mut self.creation_refusal_told, false) {
            let notice = messages::create_allowed(&self.settings.name, now.wall);
            tracing::info!(resource = %self.settings.name, "{}", notice.message);
            self.raise(notice);
        }
    }

    /// Until when every token of the resource lives at least.
    async fn survives_until(&mut self) -> Option<Timestamp> {
        // Without an answer the notice simply says less.
        let earliest = self.store.earliest_expiry().await.ok()?;
        earliest.get(&self.settings.name).copied()
    }
}
