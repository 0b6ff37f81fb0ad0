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
//! works, everything that it minted is minted anew, before all other work. A resource without access keys has none
//! to watch over, but it may have tokens of keys that it had.

mod probes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    acs::{AccessKey, Client, ConnectionString, Proof, ResourceUrl},
    clock::Clock,
    config::{Environment, LoadedSecret, ResourceSettings, SecretRef, reload_secret},
    model::{
        KeyChange, KeyDoubt, KeyRole, KeyStage, KeyWork, KeysView, NodeName, NoneWorks, NotedKeys,
    },
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
    /// What the other machines of a cluster were told last.
    noted: NotedKeys,
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
            looked = self.look_and_tell() => looked,
        };
        let rest = match looked {
            Ok(rest) => rest,
            Err(error @ StoreError::Closed { .. }) => return Err(error),
            // The store has told of it; the keys stay in use as they are.
            Err(StoreError::Unreadable { .. }) => LONGEST_REST,
            // Who keeps the lease tells, once, that the database is away.
            Err(StoreError::Away { .. }) => TROUBLE,
            Err(error) => {
                tracing::error!(resource = %self.settings.name, %error, "the keys wait until the store works");
                TROUBLE
            }
        };
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
            noted: NotedKeys::default(),
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

    async fn look_and_tell(&mut self) -> Result<Duration, StoreError> {
        let looked = self.look().await;
        self.publish();
        self.tell_others().await;
        looked
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
        let endpoint = ResourceUrl::of(&self.settings);
        let authority = endpoint.as_ref().map(ResourceUrl::authority);
        match authority.and_then(|authority| authority.split_once('.')) {
            Some((name, rest)) if rest.ends_with("communication.azure.com") => name.to_owned(),
            _ => self.settings.name.to_string(),
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

    /// The other machines of a cluster know of the keys what is noted here.
    async fn tell_others(&mut self) {
        let noted = NotedKeys {
            keys: KeysView {
                decided_at: None,
                ..self.view.borrow().clone()
            },
            bearer: self.client.bearer_view(),
        };
        if !self.store.is_shared() || noted == self.noted {
            return;
        }
        match self.store.note_keys(&self.settings.name, &noted).await {
            Ok(()) => self.noted = noted,
            // The next round notes it.
            Err(error) => tracing::debug!(%error, "how the keys are is noted later"),
        }
    }
}

/// A proof may take so long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two proofs of the old key.
const PROVE: Duration = Duration::from_secs(2);
/// The same where somebody must be out at once.
const PROVE_NOW: Duration = Duration::from_millis(500);

impl Keys {
    /// Takes the step that is next; how long to rest after it.
    async fn step(&mut self, change: &mut KeyChange) -> Result<Duration, StoreError> {
        if self.settings.credential.keys().is_none() {
            let why = "the resource has no access keys any more; what they minted is minted anew with a bearer";
            change.trouble = Some(why.to_owned());
            change.stage = KeyStage::Refused;
            return Ok(PROVE);
        }
        if change.stage == KeyStage::Checking {
            self.check_other(change).await?;
            return Ok(match change.stage {
                KeyStage::Checking => PROVE,
                _ => Duration::ZERO,
            });
        }
        self.client.avoid_key(Some(&change.old_key));
        let mut rest = PROVE;
        if change.stage == KeyStage::Reminting {
            let (over, soon) = self.sweep(change).await?;
            rest = soon;
            change.trouble = self.fallen_back(change);
            if over {
                rest = PROVE;
                if self.is_proved_once_more(change).await? {
                    change.reminted_at = Some(self.clock.now());
                    change.stage = KeyStage::Regenerate;
                }
            }
        }
        self.look_at_old_key(change).await?;
        if change.stage == KeyStage::Regenerate && change.refused_at.is_some() {
            change.stage = KeyStage::Replace;
        }
        if matches!(change.stage, KeyStage::Regenerate | KeyStage::Replace) {
            rest = rest.min(PROVE);
        }
        Ok(rest)
    }

    /// Nothing is begun before the key that is to sign is known to work.
    async fn check_other(&mut self, change: &mut KeyChange) -> Result<(), StoreError> {
        let other = change.role.other();
        match self.permits.prove(&self.client, other, DEADLINE).await? {
            Some(Proof::Accepted | Proof::Unserved(_)) => {
                change.trouble = None;
                self.client.avoid_key(Some(&change.old_key));
                change.stage = KeyStage::Reminting;
            }
            Some(Proof::Denied(why)) => {
                change.trouble = Some(format!(
                    "the {other} key is refused, so nothing was changed: {why}"
                ));
                change.stage = KeyStage::Refused;
            }
            Some(Proof::Unknown(why)) => {
                change.trouble = Some(format!("the {other} key could not be proved yet: {why}"));
            }
            None => {
                change.trouble = Some(format!("there is no {other} key"));
                change.stage = KeyStage::Refused;
            }
        }
        Ok(())
    }

    /// The other key was refused in the meantime, and the old one is back in use.
    fn fallen_back(&self, change: &KeyChange) -> Option<String> {
        let status = self.client.key_status();
        let signs = status.keys.iter().find(|key| key.role == status.in_use)?;
        (signs.fingerprint == change.old_key).then(|| {
            format!(
                "the {} key is refused, so the old one signs again: put a valid one in place and reload",
                change.role.other()
            )
        })
    }

    /// Nobody holds a token of the old key any more: whether one of them was dead before is known only by
    /// a proof after the last was replaced.
    async fn is_proved_once_more(&mut self, change: &mut KeyChange) -> Result<bool, StoreError> {
        let since = self.clock.now();
        self.prove_at = Steady::ZERO;
        self.look_at_old_key(change).await?;
        let held = self.client.key_status().keys;
        let is_held = held.iter().any(|key| key.fingerprint == change.old_key);
        Ok(!is_held || change.refused_at.is_some() || change.accepted_at >= Some(since))
    }

    /// Proves the old key from time to time, and looks for its successor.
    async fn look_at_old_key(&mut self, change: &mut KeyChange) -> Result<(), StoreError> {
        let eager = change.work == KeyWork::LeakNow;
        let waiting = matches!(change.stage, KeyStage::Regenerate | KeyStage::Replace);
        let now = self.clock.steady();
        if now < self.prove_at {
            return Ok(());
        }
        let pause = if eager { PROVE_NOW } else { PROVE };
        self.prove_at = now + pause;
        if change.refused_at.is_none() {
            self.prove_old(change).await?;
        }
        if waiting {
            self.look_for_successor(change).await?;
        }
        Ok(())
    }

    async fn prove_old(&self, change: &mut KeyChange) -> Result<(), StoreError> {
        let held = self.client.key_status().keys;
        let is_ours = |key: &crate::model::KeyView| {
            key.role == change.role && key.fingerprint == change.old_key
        };
        if !held.iter().any(is_ours) {
            return Ok(());
        }
        let asked = self.clock.now();
        let proof = self.permits.prove(&self.client, change.role, DEADLINE);
        match proof.await? {
            Some(Proof::Accepted | Proof::Unserved(_)) if needs_evidence(change) => {
                change.accepted_at = Some(asked);
            }
            Some(Proof::Denied(_)) => change.refused_at = Some(self.clock.now()),
            Some(Proof::Accepted | Proof::Unserved(_) | Proof::Unknown(_)) | None => {}
        }
        Ok(())
    }
}

/// Whether it matters until when the old key was accepted: while a consumer may hold a token of it.
fn needs_evidence(change: &KeyChange) -> bool {
    change.work == KeyWork::LeakNow
        || change
            .reminted_at
            .is_none_or(|reminted| change.accepted_at.is_none_or(|at| at < reminted))
}

/// Rows of one transaction.
const PAGE: usize = 2000;
/// Between two looks at those on their way, at least.
const LOOK: Duration = Duration::from_millis(300);
/// Of its time the sweep takes at most one part in so many.
const SHARE: u32 = 5;
/// A token that the old key minted may have been on its way into the store when the rows were
/// looked through: so a second look must find nothing either, no sooner than this after the first,
/// and with no call of the old key under way in between.
const QUIET: Duration = Duration::from_secs(2);

/// How far the sweep is.
#[derive(Debug, Default)]
struct Sweep {
    id: i64,
    /// The rows were looked through once.
    marked: bool,
    /// Since when nothing has been found.
    clean_since: Option<Steady>,
    /// It is over; kept, so that a repeated round does not begin anew.
    over: bool,
}

impl Keys {
    /// One look; whether no consumer holds a token of the old key any more, and how long to rest.
    async fn sweep(&mut self, change: &KeyChange) -> Result<(bool, Duration), StoreError> {
        if self.sweep.id != change.id {
            self.sweep = Sweep {
                id: change.id,
                ..Sweep::default()
            };
        }
        if self.sweep.over {
            return Ok((true, LOOK));
        }
        let began = self.clock.steady();
        if !self.sweep.marked {
            self.mark(change).await?;
            self.sweep.marked = true;
        }
        self.settle_change(change).await?;
        let open = self.store.open_key_change(&change.resource).await?;
        let left = open.map_or(0, |change| change.pending + change.issued);
        if left == 0 && self.client.in_flight_with(&change.old_key) == 0 {
            self.look_again(change).await?;
        } else {
            self.sweep.clean_since = None;
        }
        let took = self.clock.steady().saturating_sub(began);
        Ok((self.sweep.over, (took * (SHARE - 1)).max(LOOK)))
    }

    async fn look_again(&mut self, change: &KeyChange) -> Result<(), StoreError> {
        let now = self.clock.steady();
        let due = self
            .sweep
            .clean_since
            .is_none_or(|since| now >= since + QUIET);
        if !due {
            return Ok(());
        }
        let found = self.mark(change).await?;
        if found > 0 {
            self.sweep.clean_since = None;
        } else if self.sweep.clean_since.is_some() {
            self.sweep.over = true;
        } else {
            self.sweep.clean_since = Some(now);
        }
        Ok(())
    }

    /// Sets due whatever the old key minted; how many rows that were.
    async fn mark(&self, change: &KeyChange) -> Result<u64, StoreError> {
        let (mut found, mut after) = (0, 0);
        loop {
            let now = self.clock.now();
            let page = self.store.mark_minted(change, after, PAGE, now).await?;
            found += page.marked;
            match page.next {
                Some(next) => after = next,
                None => return Ok(found),
            }
        }
    }

    async fn settle_change(&self, change: &KeyChange) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let now = self.clock.now();
            let page = self.store.settle_key_items(change, after, PAGE, now);
            match page.await? {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
}

/// What lies in the place of a key.
enum Found {
    /// The same key as before.
    Same,
    /// Another one, which works.
    Works(AccessKey),
    /// Something that cannot be used; why.
    Unusable(String),
}

impl Keys {
    /// Looks where the configuration says: a file is read again; what came from the environment or
    /// as a credential was read when the process started.
    async fn successor(&self, role: KeyRole, before: &str) -> Result<Found, StoreError> {
        let Some(loaded) = self.secret_of(role) else {
            return Ok(Found::Same);
        };
        let found = match &loaded.from {
            SecretRef::File(_) => reload_secret(&loaded.from, &Environment::of_process()),
            SecretRef::Credential(_) | SecretRef::Env(_) => Ok(loaded.clone()),
        };
        let read = match found {
            Ok(found) => ConnectionString::parse(&found.secret).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let ours = ResourceUrl::of(&self.settings);
        let key = match (read, ours) {
            (Ok(string), Some(ours)) if string.endpoint != ours => {
                return Ok(Found::Unusable(format!(
                    "the new {role} connection string is one of {}, not of {ours}: another resource is taken up by a \
                     reload alone",
                    string.endpoint
                )));
            }
            (Ok(string), _) => string.key,
            (Err(why), _) => {
                return Ok(Found::Unusable(format!(
                    "the new {role} connection string cannot be read: {why}"
                )));
            }
        };
        if key.fingerprint() == before {
            return Ok(Found::Same);
        }
        let (permits, client) = (&self.permits, &self.client);
        let proof = permits.prove_new(client, role, &key, DEADLINE).await?;
        Ok(match proof {
            Proof::Accepted | Proof::Unserved(_) => Found::Works(key),
            Proof::Denied(why) => Found::Unusable(format!("the new {role} key is refused: {why}")),
            Proof::Unknown(why) => {
                Found::Unusable(format!("the new {role} key could not be proved yet: {why}"))
            }
        })
    }

    /// Takes the successor up that a change waits for, if it is there.
    async fn look_for_successor(&self, change: &mut KeyChange) -> Result<(), StoreError> {
        match self.successor(change.role, &change.old_key).await? {
            Found::Works(key) => self.take_up(change, key),
            Found::Unusable(why) => change.trouble = Some(why),
            Found::Same => {
                let from = self.secret_of(change.role).map(|loaded| &loaded.from);
                let node = self.store.node();
                change.trouble = from.and_then(|from| awaited(change, from, node));
            }
        }
        Ok(())
    }

    fn take_up(&self, change: &mut KeyChange, key: AccessKey) {
        self.client.take_up(change.role, key);
        self.permits.gate().keys_accepted();
        // The successor works, so the old key is no more.
        change.refused_at.get_or_insert(self.clock.now());
        change.trouble = None;
        change.stage = KeyStage::Done;
    }

    fn secret_of(&self, role: KeyRole) -> Option<&LoadedSecret> {
        self.settings.credential.keys()?.of(role)
    }
}

/// What the operator has to do, once the old key is refused.
fn awaited(change: &KeyChange, from: &SecretRef, node: Option<&NodeName>) -> Option<String> {
    change.refused_at?;
    let (role, resource) = (change.role, &change.resource);
    let told = match from {
        SecretRef::File(path) => format!(
            "the new {role} connection string is awaited in {}: renewd key set {resource} --key {role}",
            path.display()
        ),
        SecretRef::Credential(name) => format!(
            "the new {role} connection string is awaited as the credential {name}: put it there and restart the \
             daemon; tokens and socket survive that"
        ),
        SecretRef::Env(name) => format!(
            "the new {role} connection string is awaited in the variable {name}: set it and restart the daemon; \
             tokens and socket survive that"
        ),
    };
    Some(match node {
        Some(node) => {
            format!("{told}. That is on {node}, which leads; the other nodes need it as well")
        }
        None => told,
    })
}
