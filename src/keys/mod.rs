//! Replaces an access key of a resource without a moment in which any consumer holds a dead token.
//!
//! A change is a row in the store, so it outlives restarts; each round looks at what is there and
//! takes the next step, whichever came before. The engine stays the only one that issues: here rows
//! are set due, and waited for.
//!
//! | stage | what happens | goes on when |
//! |---|---|---|
//! | checking | the other key is proved by a harmless signed call | it is accepted |
//! | reminting | the other key signs; tokens of the old one are set due | none is left with any consumer |
//! | regenerate | the operator regenerates the old key | the old key is refused |
//! | replace | its successor is awaited where the configuration says | the successor is accepted |
//!
//! With or without a change, both keys are watched over (`probes`): as soon as one is refused and the other
//! works, everything that it minted is minted anew, before all other work.

mod probes;
mod replacement;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::replacement::Sweep;
use crate::{
    acs::{Client, ConnectionString},
    clock::Clock,
    config::ResourceSettings,
    model::{KeyChange, KeyDoubt, KeysView, NoneWorks},
    permits::{Permits, ResourceDeps},
    schedule::{KeyProbes, Steady},
    store::{Store, StoreError},
    worker::{self, LONGEST_REST, Worker},
};

/// While the store cannot be written, it is tried again after so long.
const TROUBLE: Duration = Duration::from_secs(5);

/// The loop of one resource.
#[derive(Debug)]
pub struct Keys {
    settings: ResourceSettings,
    client: Arc<Client>,
    permits: Permits,
    store: Store,
    clock: Clock,
    sweep: Sweep,
    /// When the old key is proved next, and its successor looked for.
    prove_at: Steady,
    begun: watch::Receiver<u64>,
    /// When each key is proved.
    probes: KeyProbes,
    /// Changes with each refusal of a key.
    denials: watch::Receiver<u64>,
    /// Keys whose tokens may be dead, as last read.
    doubts: Vec<KeyDoubt>,
    /// When the tokens of each were last put before all others.
    marked: BTreeMap<String, Steady>,
    none_works: Option<NoneWorks>,
    /// Those that the resource said are gone were asked for again.
    asked_again: bool,
    view: watch::Sender<KeysView>,
}

impl Worker for Keys {
    /// A replacement was begun, or a key was refused: there is something to look at.
    type Event = ();
    type Error = StoreError;

    fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn round(&mut self, stop: &CancellationToken) -> Result<Timestamp, StoreError> {
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(self.clock.now()),
            looked = self.look() => looked,
        };
        let rest = match looked {
            Ok(rest) => rest,
            Err(error @ StoreError::Closed { .. }) => return Err(error),
            // The store has told of it; the keys stay in use as they are.
            Err(StoreError::Unreadable { .. }) => LONGEST_REST,
            Err(error) => {
                tracing::error!(resource = %self.settings.name, %error, "the keys wait until the store works");
                TROUBLE
            }
        };
        self.publish();
        let now = self.clock.now();
        Ok(now.checked_add(rest).unwrap_or(Timestamp::MAX))
    }

    async fn next(&mut self, ending: bool) -> Result<(), StoreError> {
        let closed = |doing| StoreError::Closed { doing };
        tokio::select! {
            biased;
            changed = self.begun.changed(), if !ending => {
                changed.map_err(|_| closed("wait for a replacement of keys"))
            }
            changed = self.denials.changed(), if !ending => {
                changed.map_err(|_| closed("wait for what is said of a key"))
            }
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, (): ()) {}
}

impl Keys {
    /// A loop that has not begun.
    pub fn new(deps: ResourceDeps) -> Self {
        let ResourceDeps {
            settings,
            client,
            permits,
            store,
            clock,
            ..
        } = deps;
        Self {
            sweep: Sweep::default(),
            prove_at: Steady::ZERO,
            begun: store.campaign_signal(),
            probes: KeyProbes::default(),
            denials: client.denials(),
            doubts: Vec::new(),
            marked: BTreeMap::new(),
            none_works: None,
            asked_again: false,
            view: watch::Sender::default(),
            settings,
            client,
            permits,
            store,
            clock,
        }
    }

    /// What the loop publishes, each time round.
    pub fn view(&self) -> watch::Receiver<KeysView> {
        self.view.subscribe()
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// When the store is gone.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        worker::run(self, stop).await
    }

    /// One look and one step; how long to rest after it.
    async fn look(&mut self) -> Result<Duration, StoreError> {
        if !self.asked_again {
            let (resource, now) = (&self.settings.name, self.clock.now());
            self.store.ask_held_again(resource, now).await?;
            self.asked_again = true;
        }
        let open = self.store.open_key_change(&self.settings.name).await?;
        let rest = self.watch_over(open.as_ref()).await?;
        let Some(change) = open else {
            self.client.avoid_key(None);
            self.sweep = Sweep::default();
            return Ok(rest);
        };
        let mut next = change.clone();
        let rest = rest.min(self.step(&mut next).await?);
        if next.stage.is_over() {
            next.ended_at = Some(self.clock.now());
        }
        if next != change {
            self.tell(&change, &next);
            self.store.note_key_change(next, self.clock.now()).await?;
        }
        Ok(rest)
    }

    fn tell(&self, before: &KeyChange, now: &KeyChange) {
        let (resource, key) = (&now.resource, now.role);
        if before.stage != now.stage {
            tracing::info!(%resource, %key, stage = ?now.stage, "a replacement of keys goes on");
        }
        if let Some(trouble) = now
            .trouble
            .as_ref()
            .filter(|_| before.trouble != now.trouble)
        {
            tracing::warn!(%resource, %key, "a replacement of keys cannot go on: {trouble}");
        }
    }

    /// Azure's hosts begin with the resource's name: `NAME.REGION.communication.azure.com`.
    fn azure_name(&self) -> String {
        let ours = self.settings.name.to_string();
        let Ok(read) = ConnectionString::parse(&self.settings.connection_string.secret) else {
            return ours;
        };
        match read.endpoint.authority().split_once('.') {
            Some((name, rest)) if rest.ends_with("communication.azure.com") => name.to_owned(),
            _ => ours,
        }
    }

    /// How many tokens can be issued in a minute: as `schedule::Pace` keeps it, 97 % of what ACS allows.
    fn issues_per_minute(&self) -> u64 {
        let limit = self.settings.limits.issue;
        let issues = u64::from(limit.calls) * 97 * 60 / (100 * limit.window.as_secs().max(1));
        issues.max(1)
    }

    fn publish(&self) {
        self.view.send_replace(KeysView {
            decided_at: Some(self.clock.now()),
            status: self.client.key_status(),
            azure_name: self.azure_name(),
            issues_per_minute: self.issues_per_minute(),
            doubts: self.doubts.clone(),
            none_works: self.none_works,
        });
    }
}
