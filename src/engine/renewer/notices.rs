//! What a renewer tells people, each once, and what it has told.
//!
//! Of its resource: the beginning and the end of an outage, refused keys, refused creation. Of identities: that
//! a renewal is late, never inside an announced outage, and that one fails by itself while others succeed; more
//! than ten a minute become one notice. The store tells of each identity that it is over, with the commit that
//! ends it; that none is left is told here.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Moment, OPERATIONS, Renewer, bearers, calls::Line};
use crate::{
    model::{
        Blame, Change, Failure, HealthView, IdentityId, Notice, NoticeKind, Operation, Record,
        ResourceName, State, short_duration,
    },
    schedule::{
        CallFinding, Fold, Grounds, Outage, Standing, Steady, TokenEnd as How, standing, state,
    },
    store::{Ended, StoreError, Work},
};

/// An outage in the log, while it goes on.
const OUTAGE: &str = "no answer";
const KEYS: &str = "the access keys are refused";
const BEARER: &str = "no bearer that is taken";

/// The words before the resource's name in keys.
pub(super) const LATE: &str = "late";
pub(super) const FAILING: &str = "identities";
pub(super) const CREATE: &str = "create";
pub(super) const STORE: &str = "store";

/// Why nothing is created with `create = "never"`.
pub(super) const CREATE_NEVER: &str = "identities without an id are not created because the resource says create = \"never\"; give \
     them an id in the configuration, or run `renewd identity import`";

pub(super) fn created(record: &Record, id: &IdentityId, at: Timestamp) -> Notice {
    about(
        record,
        NoticeKind::IdentityCreated,
        at,
        format!("{} was created as {id}.", record.spec.name),
    )
}

pub(super) fn orphaned(record: &Record, failure: &Failure, at: Timestamp) -> Notice {
    let message = format!(
        "The answer to creating {} was lost ({}): ACS may hold an identity that nobody knows. It is created anew.",
        record.spec.name, failure.message
    );
    about(record, NoticeKind::IdentityOrphaned, at, message)
}

pub(super) fn late(record: &Record, grounds: &Grounds, at: Timestamp) -> Notice {
    let fate = fate(record, grounds, at);
    let last = match record.attempts.last().filter(|last| last.result != "ok") {
        Some(attempt) => format!("; the last attempt ended with {}", attempt.result),
        None => "; it was not tried since it became due".to_owned(),
    };
    let message = format!(
        "The renewal of {} is late: {fate}{last}. See `renewd why {}`.",
        record.spec.name, record.spec.name
    );
    about(record, NoticeKind::RenewalLate, at, message)
}

/// What is left to the token of a row, in words.
fn fate(record: &Record, grounds: &Grounds, at: Timestamp) -> String {
    match standing(record, grounds, at) {
        Standing::None => "it has no token".to_owned(),
        Standing::Good { left } => format!("its token ends in {}", short_duration(left)),
        Standing::Doubtful { since, left } => format!(
            "its token may be dead, as its access key is refused or no longer configured since {since:.0}; if it is \
             not, it ends in {}",
            short_duration(left)
        ),
        Standing::Dead {
            since,
            how: How::Expired,
        } => format!("its token ended at {since:.0}"),
        Standing::Dead {
            since,
            how: How::Revoked,
        } => format!("its token was revoked at {since:.0}"),
        Standing::Dead {
            how: How::Dropped, ..
        } => "its token is not stored any more, or it is not known whether it lives".to_owned(),
    }
}

pub(super) fn failing(
    record: &Record,
    grounds: &Grounds,
    (because, result): (&str, &str),
    next: Timestamp,
    at: Timestamp,
) -> Notice {
    let (name, token) = (&record.spec.name, fate(record, grounds, at));
    let message = format!(
        "{name} fails by itself, while {} answers other calls ({because}): {token}; it is tried again at {next:.0}, \
         apart from the others. The last attempt ended with {result}. See `renewd why {name}`.",
        record.spec.resource
    );
    Notice {
        key: Some(Notice::failing_key(name)),
        ..about(record, NoticeKind::IdentityFailing, at, message)
    }
}

pub(super) fn many_failing(resource: &ResourceName, more: u32, at: Timestamp) -> Notice {
    let message = format!(
        "{more} more identities of {resource} fail by themselves, while it answers other calls. See `renewd status`."
    );
    of(resource, NoticeKind::IdentityFailing, FAILING, at, message)
}

pub(super) fn none_fails(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("No identity of {resource} fails by itself any more.");
    of(
        resource,
        NoticeKind::IdentityRecovered,
        FAILING,
        at,
        message,
    )
}

pub(super) fn many_late(resource: &ResourceName, more: u32, at: Timestamp) -> Notice {
    let message = format!(
        "The renewals of {more} more identities of {resource} are late. See `renewd status`."
    );
    of(resource, NoticeKind::RenewalLate, LATE, at, message)
}

pub(super) fn none_is_late(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("No renewal of {resource} is late any more.");
    of(resource, NoticeKind::RenewalRecovered, LATE, at, message)
}

pub(super) fn unreachable(
    resource: &ResourceName,
    because: &str,
    survives: Option<Timestamp>,
    at: Timestamp,
) -> Notice {
    let message = format!(
        "{resource} does not answer ({because}). {} Only probes go out until it answers.",
        survival(survives, at)
    );
    of(
        resource,
        NoticeKind::ResourceUnreachable,
        "outage",
        at,
        message,
    )
}

/// Under which key an outage is told.
pub(super) fn trouble_key(kind: NoticeKind, resource: &ResourceName) -> String {
    let word = match kind {
        NoticeKind::KeyRejected => "keys",
        NoticeKind::EntraUnreachable | NoticeKind::EntraRefused => {
            return bearers::key(kind, resource);
        }
        _ => "outage",
    };
    format!("{word} {resource}")
}

/// An outage goes on while tokens end.
pub(super) fn outlived(
    resource: &ResourceName,
    kind: NoticeKind,
    because: &str,
    ended: Ended,
    at: Timestamp,
) -> Notice {
    let still = match kind {
        NoticeKind::KeyRejected => "still refuses the access keys",
        NoticeKind::EntraUnreachable | NoticeKind::EntraRefused => {
            "is still without a bearer that it takes"
        }
        _ => "still does not answer",
    };
    let tokens = match (ended.ended, ended.any_lives) {
        (1, true) => "The first token has ended; consumers of it hold a dead one.".to_owned(),
        (count, true) => format!("{count} tokens have ended; consumers of them hold dead ones."),
        (count, false) => format!(
            "No token lives any more: all {count} have ended, and every consumer is without a live one."
        ),
    };
    Notice::new(
        kind,
        at,
        format!("{resource} {still} ({because}). {tokens}"),
    )
    .about(resource)
    .keyed(trouble_key(kind, resource))
}

pub(super) fn recovered(
    resource: &ResourceName,
    survives: Option<Timestamp>,
    at: Timestamp,
) -> Notice {
    let message = format!("{resource} answers again. {}", survival(survives, at));
    of(
        resource,
        NoticeKind::ResourceRecovered,
        "outage",
        at,
        message,
    )
}

pub(super) fn key_rejected(
    resource: &ResourceName,
    because: &str,
    survives: Option<Timestamp>,
    at: Timestamp,
) -> Notice {
    let message = format!(
        "{resource} refuses the access keys ({because}). Put a valid connection string in place, `renewd key set \
         {resource}`. {}",
        doubtful(survives, at)
    );
    of(resource, NoticeKind::KeyRejected, "keys", at, message)
}

pub(super) fn key_accepted(resource: &ResourceName, has_keys: bool, at: Timestamp) -> Notice {
    let message = match has_keys {
        true => format!("{resource} accepts an access key again."),
        false => format!("{resource} is called with a bearer, and takes it."),
    };
    of(resource, NoticeKind::ResourceRecovered, "keys", at, message)
}

pub(super) fn key_switched(resource: &ResourceName, key: &str, at: Timestamp) -> Notice {
    let message = format!(
        "{resource} refuses one access key and accepts the other ({key}), which is used from now on. Replace the \
         refused one; tokens that it minted are dead if it was regenerated."
    );
    of(resource, NoticeKind::KeySwitched, "", at, message)
}

pub(super) fn create_refused(resource: &ResourceName, why: &str, at: Timestamp) -> Notice {
    let message = format!("{resource}: {why}.");
    of(resource, NoticeKind::CreateRefused, CREATE, at, message)
}

pub(super) fn create_allowed(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("{resource}: no identity waits any more for a creation that is refused.");
    of(resource, NoticeKind::CreateAllowed, CREATE, at, message)
}

pub(super) fn unwritable(resource: &ResourceName, why: &str, at: Timestamp) -> Notice {
    let message = format!("No tokens of {resource} could be obtained for a while: {why}.");
    of(resource, NoticeKind::StoreUnwritable, STORE, at, message)
}

pub(super) fn writable(resource: &ResourceName, at: Timestamp) -> Notice {
    let message = format!("The store can be written again, and tokens of {resource} are obtained.");
    of(resource, NoticeKind::StoreWritable, STORE, at, message)
}

fn survival(survives: Option<Timestamp>, now: Timestamp) -> String {
    match survives {
        Some(until) if until > now => {
            let left = until.duration_since(now).try_into().unwrap_or_default();
            format!(
                "Every token lives until {until:.0} at least ({} from now).",
                short_duration(left)
            )
        }
        Some(_) => "Some tokens have expired.".to_owned(),
        None => "No token is at risk.".to_owned(),
    }
}

/// How long tokens last whose keys are refused: nobody knows whether they are good.
fn doubtful(survives: Option<Timestamp>, now: Timestamp) -> String {
    match survives {
        Some(until) if until > now => {
            let left = until.duration_since(now).try_into().unwrap_or_default();
            format!(
                "Tokens that these keys minted may be dead; if they are good after all, the first ends at {until:.0} \
                 ({} from now).",
                short_duration(left)
            )
        }
        Some(_) => "Some tokens have expired, and the others may be dead.".to_owned(),
        None => "No token is at risk.".to_owned(),
    }
}

fn about(record: &Record, kind: NoticeKind, at: Timestamp, message: String) -> Notice {
    let notice = Notice::new(kind, at, message)
        .about(&record.spec.resource)
        .of(&record.spec.name);
    match kind {
        NoticeKind::RenewalLate => notice.keyed(Notice::late_key(&record.spec.name)),
        _ => notice,
    }
}

/// `key` is the word before the resource's name in the key; empty for what cannot end.
fn of(
    resource: &ResourceName,
    kind: NoticeKind,
    key: &str,
    at: Timestamp,
    message: String,
) -> Notice {
    let notice = Notice::new(kind, at, message).about(resource);
    match key {
        "" => notice,
        key => notice.keyed(format!("{key} {resource}")),
    }
}

/// Between two looks whether anybody waits for a creation that was refused.
const LOOK_FOR_REFUSED: Duration = Duration::from_secs(5);
/// Between two looks for tokens that ended in an outage.
const LOOK_FOR_ENDED: Duration = Duration::from_secs(2);

impl Renewer {
    /// Tells what has changed since the last round.
    pub(super) async fn tell(&mut self) {
        let now = self.moment();
        self.tell_outage(now).await;
        self.tell_keys(now).await;
        self.tell_bearer(now).await;
        self.tell_folded(now);
        self.tell_failing_folded(now);
        if let Some(trouble) = self.outbox.untold_trouble() {
            let notice = unwritable(&self.settings.name, &trouble, now.wall);
            self.raise(notice);
        }
        if self.outbox.ended_trouble() {
            let notice = writable(&self.settings.name, now.wall);
            self.raise(notice);
        }
    }

    /// An outage of the service.
    async fn tell_outage(&mut self, now: Moment) {
        let probing = OPERATIONS.into_iter().find_map(|operation| {
            let health = self.permits.gate().health(operation);
            match health {
                HealthView::Probing { because, .. } => Some(because),
                _ => None,
            }
        });
        self.tell_hold(NoticeKind::ResourceUnreachable, probing, now)
            .await;
    }

    /// Access keys that are refused.
    async fn tell_keys(&mut self, now: Moment) {
        let refusal = match self.client.bearers() {
            None => self.permits.gate().refusal(&OPERATIONS).map(str::to_owned),
            Some(_) => None,
        };
        self.tell_hold(NoticeKind::KeyRejected, refusal, now).await;
    }

    /// What holds the whole resource, for this reason or for none any more: its beginning, that tokens end
    /// in it, its end.
    pub(super) async fn tell_hold(
        &mut self,
        kind: NoticeKind,
        because: Option<String>,
        now: Moment,
    ) {
        let resource = self.settings.name.clone();
        let Some(because) = because else {
            let outage = self.outage_of(kind);
            let was_on = outage.is_on();
            if outage.good(now.steady) {
                let notice = self.over(kind, now).await;
                tracing::info!(%resource, "{}", notice.message);
                self.raise(notice);
            }
            if was_on {
                self.recovered = Some(now);
            }
            return;
        };
        let hold = match kind {
            NoticeKind::KeyRejected => KEYS,
            NoticeKind::EntraUnreachable | NoticeKind::EntraRefused => BEARER,
            _ => OUTAGE,
        };
        if self.outage_of(kind).bad(now.steady) {
            let notice = self.begun(kind, &because, now).await;
            tracing::error!(%resource, "{}", notice.message);
            self.said.is_news(hold, now.steady);
            self.raise(notice);
            self.told_again = Some(0);
        } else if self.outage_of(kind).is_announced() {
            self.say_again(hold, &because, now);
            self.tell_of_ended(kind, &because, now).await;
        }
    }

    fn outage_of(&mut self, kind: NoticeKind) -> &mut Outage {
        match kind {
            NoticeKind::KeyRejected => &mut self.key_outage,
            NoticeKind::EntraUnreachable => &mut self.bearer_outage,
            NoticeKind::EntraRefused => &mut self.bearer_refusal,
            _ => &mut self.outage,
        }
    }

    async fn begun(&mut self, kind: NoticeKind, because: &str, now: Moment) -> Notice {
        let survives = self.survives_until().await;
        let (resource, at) = (&self.settings.name, now.wall);
        match kind {
            NoticeKind::KeyRejected => key_rejected(resource, because, survives, at),
            NoticeKind::EntraUnreachable | NoticeKind::EntraRefused => {
                self.without_new_bearer(kind, because, &survival(survives, at), at)
            }
            _ => unreachable(resource, because, survives, at),
        }
    }

    async fn over(&mut self, kind: NoticeKind, now: Moment) -> Notice {
        let (resource, at) = (self.settings.name.clone(), now.wall);
        let has_keys = self.client.bearers().is_none();
        match kind {
            NoticeKind::KeyRejected => key_accepted(&resource, has_keys, at),
            NoticeKind::EntraUnreachable | NoticeKind::EntraRefused => {
                let survival = survival(self.survives_until().await, at);
                bearers::recovered(&resource, kind, (has_keys, &survival), at)
            }
            _ => recovered(&resource, self.survives_until().await, at),
        }
    }

    /// The log says once an hour that an outage goes on, with its reason of then.
    fn say_again(&mut self, outage: &str, because: &str, now: Moment) {
        if self.said.is_news(outage, now.steady) {
            tracing::error!(resource = %self.settings.name, "still {outage}: {because}");
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
                let key = trouble_key(kind, &resource);
                let Ok(times) = self.store.times_told(key).await else {
                    return;
                };
                times.saturating_sub(1)
            }
        };
        self.told_again = Some(told.max(stage));
        if stage > told {
            let notice = outlived(&resource, kind, because, ended, now.wall);
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
        let notice = create_refused(&self.settings.name, why, now.wall);
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
            let notice = create_allowed(&self.settings.name, now.wall);
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

/// How often those that wait without attempts are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// How many of them at once, the most urgent first.
const AT_ONCE: usize = 128;
/// What was late when an outage ended gets so long to be renewed before anybody is told.
const AFTER_OUTAGE: Duration = Duration::from_mins(10);

/// Watches for late renewals.
#[derive(Debug, Default)]
pub(super) struct LateWatch {
    pub(super) fold: Fold,
    /// Many were told of in one notice, and not that it is over.
    pub(super) many_told: bool,
    looked: Steady,
}

impl Renewer {
    /// Looks at those that wait: a backlog makes identities late without a single failure.
    pub(super) async fn look_for_late(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        if now.steady < self.late.looked + EVERY || self.in_announced_outage() {
            return Ok(());
        }
        self.late.looked = now.steady;
        self.tell_if_none_is_late(now).await?;
        self.tell_if_none_fails(now).await?;
        let waiting = self
            .lines()
            .any(|line| !line.ready.is_empty() || line.wants_rows(now));
        if !waiting {
            return Ok(());
        }
        let name = &self.settings.name;
        let waiting = self
            .store
            .due(name, Work::Issue, now.wall, AT_ONCE, &self.busy)
            .await?;
        for record in &waiting {
            self.tell_if_late(record, now);
        }
        Ok(())
    }

    /// Tells that this record is late, if it is and nobody was told.
    pub(super) fn tell_if_late(&mut self, record: &Record, now: Moment) {
        if record.late_notified
            || state(record, &self.grounds(), now.wall) != State::Late
            || self.in_announced_outage()
            || self.lapsed_in_outage(record, now)
        {
            return;
        }
        let notices = match self.late.fold.tells(now.steady) {
            true => {
                let notice = late(record, &self.grounds(), now.wall);
                tracing::warn!(resource = %self.settings.name, identity = %record.spec.name, "{}", notice.message);
                vec![notice]
            }
            false => Vec::new(),
        };
        self.note(Change::LateNotified { num: record.num }, notices);
    }

    /// At the end of a minute, tells how many more there were.
    pub(super) fn tell_folded(&mut self, now: Moment) {
        if let Some(more) = self.late.fold.rest(now.steady) {
            let notice = many_late(&self.settings.name, more, now.wall);
            self.raise(notice);
            self.late.many_told = true;
        }
    }

    /// Tells that none is late any more, where many were told of.
    async fn tell_if_none_is_late(&mut self, now: Moment) -> Result<(), StoreError> {
        if !self.late.many_told {
            return Ok(());
        }
        let name = &self.settings.name;
        if self.store.late(now.wall).await?.contains_key(name) {
            return Ok(());
        }
        self.late.many_told = false;
        self.raise(none_is_late(name, now.wall));
        Ok(())
    }

    pub(super) fn in_announced_outage(&self) -> bool {
        let holds = [&self.outage, &self.key_outage, &self.bearer_refusal];
        holds.iter().any(|outage| outage.is_on()) || self.permits.gate().without_bearer().is_some()
    }

    fn lapsed_in_outage(&self, record: &Record, now: Moment) -> bool {
        self.recovered.is_some_and(|recovered| {
            let before = record.late_at.is_some_and(|at| at <= recovered.wall);
            before && now.steady < recovered.steady + AFTER_OUTAGE
        })
    }
}

/// What was told within this minute.
#[derive(Debug, Default)]
pub(super) struct Failing {
    begun: Fold,
    /// Many were told of in one notice, and not that it is over.
    pub(super) many_told: bool,
}

impl Failing {
    /// When the current minute ends.
    pub(super) fn ends_at(&self) -> Option<Steady> {
        self.begun.ends_at()
    }
}

impl Renewer {
    /// What is to be told of a row with what became of its call.
    pub(super) fn failing_notices(
        &mut self,
        record: &Record,
        change: &Change,
        now: Moment,
    ) -> Vec<Notice> {
        let Change::Failed {
            blame: Blame::RowAlone,
            attempt,
            due,
            ..
        } = change
        else {
            return Vec::new();
        };
        if record.failing_since.is_some() {
            return Vec::new();
        }
        let because = (&*self.doubts.because, &*attempt.result);
        let notice = failing(record, &self.grounds(), because, due.at, now.wall);
        tracing::warn!(resource = %self.settings.name, "{}", notice.message);
        let told = self.failing.begun.tells(now.steady);
        told.then_some(notice).into_iter().collect()
    }

    /// At the end of a minute, tells how many more there were.
    pub(super) fn tell_failing_folded(&mut self, now: Moment) {
        if let Some(more) = self.failing.begun.rest(now.steady) {
            let notice = many_failing(&self.settings.name, more, now.wall);
            self.raise(notice);
            self.failing.many_told = true;
        }
    }

    /// Tells that none fails any more, where many were told of.
    pub(super) async fn tell_if_none_fails(&mut self, now: Moment) -> Result<(), StoreError> {
        if !self.failing.many_told {
            return Ok(());
        }
        let (name, nobody) = (&self.settings.name, BTreeSet::new());
        for operation in OPERATIONS {
            let work = Line::alone(operation).work();
            let next = self.store.next_due_in(name, work, &nobody).await?;
            if next.is_some() {
                return Ok(());
            }
        }
        self.failing.many_told = false;
        self.raise(none_fails(name, now.wall));
        Ok(())
    }

    /// What led to the proof of an outage is taken back from the rows.
    pub(super) fn take_back(&mut self, finding: &CallFinding) {
        for num in &finding.excused {
            self.note(Change::Excused { num: *num }, Vec::new());
        }
    }
}
