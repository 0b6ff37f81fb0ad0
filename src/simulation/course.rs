//! The course of a simulation: a daemon's parts over a store in a folder, and what happens to them, in the order of
//! time.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Setting, SimulationError,
    faults::{FaultKind, PlannedFault},
    findings::Findings,
    provider::Provider,
    report::{CampaignSeen, CourseSeen},
    start,
};
use crate::{
    acs::{AccessKey, Client, ConnectionString},
    campaign::Runner,
    clock::Clock,
    config::{
        CreatePolicy, CredentialSettings, KeySettings, LoadedSecret, Owner, ResourceSettings,
        SecretRef, StorePlace, StoreSettings,
    },
    engine::Renewer,
    keys::Keys,
    model::{
        Declaration, KeyRole, OnRemoval, Origin, RenewerView, Scope, Secret, SinkAt, Spec, Then,
    },
    permits::{Permits, ResourceDeps},
    store::{CampaignAction, CampaignId, Cause, NewCampaign, OpenError, Opened, Store, Target},
    telemetry::Metrics,
    transport::Transport,
};

/// How long the trails are kept; a test of them keeps them longer.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// Rows of one clean-up.
const PRUNED: usize = 5000;
const HOUR: Duration = Duration::from_hours(1);

/// What a daemon of a simulation is started with.
#[derive(Debug, Clone)]
pub struct DaemonParts<'a> {
    /// Where its store lies.
    pub store: &'a StoreSettings,
    /// Where the files beside the store lie.
    pub state_dir: &'a Path,
    pub resource: &'a ResourceSettings,
    pub specs: &'a [Spec],
    pub sinks: &'a [SinkAt],
    pub clock: &'a Clock,
    pub transport: Transport,
    /// Where its chance starts.
    pub seed: u64,
}

/// What runs between a start and an end.
#[derive(Debug)]
pub struct Daemon {
    pub store: Store,
    /// What was found when it was opened.
    pub opened: Opened,
    /// What the renewer publishes.
    pub view: watch::Receiver<RenewerView>,
    /// When it was last decided about campaigns.
    pub campaigns: watch::Receiver<Option<Timestamp>>,
    /// What its loops share.
    pub deps: ResourceDeps,
    stop: CancellationToken,
    loops: Vec<(&'static str, JoinHandle<Result<(), String>>)>,
}

impl Daemon {
    /// Takes over what is declared, and starts the renewer and the campaigns.
    ///
    /// # Errors
    /// When the store cannot be opened or written, or no client can be made.
    pub async fn start(parts: DaemonParts<'_>) -> Result<Self, SimulationError> {
        let now = parts.clock.now();
        let (store, opened) = unlocked(|| Store::open_inline(parts.store, parts.state_dir, now))?;
        store.reconcile(parts.specs, parts.sinks, now).await?;
        let client = Client::new(parts.resource, parts.clock.clone(), parts.transport)?;
        let client = Arc::new(client);
        let deps = ResourceDeps {
            settings: parts.resource.clone(),
            permits: Permits::new(
                parts.resource,
                client.clone(),
                store.clone(),
                parts.clock.clone(),
            ),
            client,
            store: store.clone(),
            clock: parts.clock.clone(),
            metrics: Metrics::new(),
            seed: parts.seed,
        };
        let renewer = Renewer::new(deps.clone());
        let runner = Runner::new(deps.clone());
        let (view, campaigns) = (renewer.view(), runner.decided());
        let mut daemon = Self {
            store,
            opened,
            view,
            campaigns,
            deps,
            stop: CancellationToken::new(),
            loops: Vec::new(),
        };
        daemon.spawn("the renewer", renewer.run(daemon.stop.clone()));
        daemon.spawn("the campaigns", runner.run(daemon.stop.clone()));
        Ok(daemon)
    }

    /// Starts what proves and replaces access keys as well.
    pub fn watch_keys(&mut self) {
        let keys = Keys::new(self.deps.clone());
        self.spawn("the keys", keys.run(self.stop.clone()));
    }

    fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        running: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let running = async move { running.await.map_err(|error| error.to_string()) };
        self.loops.push((name, tokio::spawn(running)));
    }

    /// Which loop ended although nobody stopped it.
    pub fn ended(&self) -> Option<&'static str> {
        let ended = self.loops.iter().find(|(_, task)| task.is_finished());
        ended.map(|(name, _)| *name)
    }

    /// Ends as SIGTERM does.
    ///
    /// # Errors
    /// With the loop that did not end well, and why.
    pub async fn stop(mut self) -> Result<(), (&'static str, String)> {
        self.stop.cancel();
        let mut failed = Ok(());
        for (name, task) in std::mem::take(&mut self.loops) {
            let ended = task.await.unwrap_or_else(|error| Err(error.to_string()));
            failed = failed.and(ended.map_err(|why| (name, why)));
        }
        failed
    }

    /// Ends as `kill -9` does.
    pub async fn kill(mut self) {
        let loops = std::mem::take(&mut self.loops);
        loops.iter().for_each(|(_, task)| task.abort());
        for (_, task) in loops {
            // What was cut off has nothing to say.
            task.await.ok();
        }
    }
}

/// One that is let go of runs no further: others may follow on the same runtime.
impl Drop for Daemon {
    fn drop(&mut self) {
        for (_, task) in &self.loops {
            task.abort();
        }
    }
}

/// Opens a store that was let go of. Where this process starts programs as well, as tests do, such a child still
/// shares the lock between fork and exec, for less than a millisecond.
///
/// # Errors
/// As it is opened.
pub fn unlocked<T>(open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    for _ in 0..1000 {
        match open() {
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(1)),
            opened => return opened,
        }
    }
    open()
}

/// A folder of a simulation, in memory where there is such a place; removed at the end.
pub(super) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    pub(super) fn new() -> Result<Self, SimulationError> {
        let memory = Path::new("/dev/shm");
        let mut places = vec![memory.to_owned(), std::env::temp_dir()];
        places.retain(|place| place.is_dir());
        let name = format!("renewd-simulation-{}", uuid::Uuid::new_v4());
        let mut failed = None;
        for place in places {
            let path = place.join(&name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(source) => failed = Some(SimulationError::Folder { path, source }),
            }
        }
        Err(failed.unwrap_or(SimulationError::Folder {
            path: std::env::temp_dir(),
            source: std::io::ErrorKind::NotFound.into(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // What stays behind in memory harms nobody.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Something that happens to the daemon.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Begins(PlannedFault),
    Over(PlannedFault),
    Hour,
    End,
}

/// Everything that happens, in the order of time.
fn events(setting: &Setting) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for fault in &setting.faults {
        events.push((fault.at, Event::Begins(*fault)));
        if !fault.lasts.is_zero() {
            events.push((fault.ends(), Event::Over(*fault)));
        }
    }
    let hours = setting.length.as_secs().div_ceil(3600);
    events.extend(
        (1..=hours).map(|hour| (HOUR * u32::try_from(hour).unwrap_or(u32::MAX), Event::Hour)),
    );
    events.retain(|(at, _)| *at <= setting.length);
    events.push((setting.length, Event::End));
    events.sort_by_key(|(at, _)| *at);
    events
}

/// Lets all of it happen.
pub(super) async fn run(setting: &Setting, folder: &Path) -> Result<CourseSeen, SimulationError> {
    let mut course = Course::new(setting, folder);
    course.keys.iter().try_for_each(Key::write)?;
    course.tell_keys();
    course.up().await?;
    for (at, event) in events(setting) {
        let now = course.clock.steady();
        tokio::time::sleep(at.saturating_sub(now)).await;
        if let Some(part) = course.daemon.as_ref().and_then(Daemon::ended) {
            return Err(course.ended(part).await);
        }
        course.happens(event).await?;
    }
    course.end().await
}

struct Course<'a> {
    setting: &'a Setting,
    clock: Clock,
    provider: Provider,
    findings: Arc<Mutex<Findings>>,
    store: StoreSettings,
    state_dir: &'a Path,
    keys: [Key; 2],
    specs: Vec<Spec>,
    starts: u64,
    daemon: Option<Daemon>,
    /// Orders that wait for a daemon.
    orders: Vec<PlannedFault>,
    ordered: Vec<(PlannedFault, CampaignId)>,
}

impl<'a> Course<'a> {
    fn new(setting: &'a Setting, folder: &'a Path) -> Self {
        let clock = Clock::simulated(start());
        let findings = Arc::new(Mutex::new(Findings::new(setting, clock.now())));
        let provider = Provider::new(&clock);
        provider.delay(setting.latency);
        provider.fail({
            let findings = Arc::clone(&findings);
            move |call| lock(&findings).decide(call)
        });
        provider.watch({
            let findings = Arc::clone(&findings);
            move |id, deed, now| lock(&findings).see(id, deed, now)
        });
        Self {
            store: StoreSettings {
                place: StorePlace::File(folder.join("renewd.db")),
                seal_key: None,
                keep_renewals: KEPT,
                keep_other: KEPT * 60,
                owner: Owner::default(),
                save_before_migration: false,
                node: None,
                withdrawn_copy: None,
            },
            state_dir: folder,
            keys: [KeyRole::Primary, KeyRole::Secondary].map(|role| Key {
                role,
                path: folder.join(role.to_string()),
                generation: 0,
                is_lost: false,
            }),
            specs: (0..setting.identities).map(|n| spec(setting, n)).collect(),
            starts: 0,
            daemon: None,
            orders: Vec::new(),
            ordered: Vec::new(),
            setting,
            clock,
            provider,
            findings,
        }
    }

    async fn happens(&mut self, event: Event) -> Result<(), SimulationError> {
        match event {
            Event::Begins(fault) => self.begins(fault).await,
            Event::Over(fault) => self.over(fault).await,
            Event::Hour => self.hour().await,
            Event::End => Ok(()),
        }
    }

    async fn begins(&mut self, fault: PlannedFault) -> Result<(), SimulationError> {
        match fault.kind {
            FaultKind::Clock(by) => self.clock.step_wall(by),
            FaultKind::Restart => self.down().await?,
            FaultKind::Kill => {
                if let Some(daemon) = self.daemon.take() {
                    daemon.kill().await;
                }
            }
            FaultKind::KeyLoss { both } => {
                for key in self
                    .keys
                    .iter_mut()
                    .filter(|key| both || key.role == KeyRole::Primary)
                {
                    key.is_lost = true;
                    self.provider.kill_minted(key.role);
                }
                self.tell_keys();
            }
            FaultKind::Revoke | FaultKind::Renew => {
                self.orders.push(fault);
                self.give_orders().await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn over(&mut self, fault: PlannedFault) -> Result<(), SimulationError> {
        match fault.kind {
            FaultKind::Clock(by) => self.clock.step_wall(-by),
            FaultKind::KeyLoss { .. } => {
                for key in self.keys.iter_mut().filter(|key| key.is_lost) {
                    key.is_lost = false;
                    key.generation += 1;
                    key.write()?;
                }
                self.tell_keys();
            }
            FaultKind::Restart | FaultKind::Kill if self.daemon.is_none() => {
                self.up().await?;
                self.give_orders().await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn hour(&mut self) -> Result<(), SimulationError> {
        if let Some(daemon) = &self.daemon {
            while daemon
                .store
                .prune(PRUNED, self.clock.now())
                .await?
                .is_full(PRUNED)
            {}
        }
        let without = self.provider.without_live_token();
        lock(&self.findings).hour_ends(without);
        Ok(())
    }

    /// The service knows the keys that are not lost, where that matters.
    fn tell_keys(&self) {
        if self.setting.loses_keys() {
            let valid = self.keys.iter().filter(|key| !key.is_lost);
            self.provider
                .know_keys(valid.filter_map(Key::access_key).collect());
        }
    }

    async fn up(&mut self) -> Result<(), SimulationError> {
        let resource = resource(self.setting, &self.keys);
        let mut daemon = Daemon::start(DaemonParts {
            store: &self.store,
            state_dir: self.state_dir,
            resource: &resource,
            specs: &self.specs,
            sinks: &[],
            clock: &self.clock,
            transport: self.provider.transport(),
            seed: self.setting.seed.wrapping_add(self.starts << 32),
        })
        .await?;
        daemon.store.keep_to_itself();
        daemon.watch_keys();
        self.starts += 1;
        self.daemon = Some(daemon);
        Ok(())
    }

    async fn down(&mut self) -> Result<(), SimulationError> {
        let Some(daemon) = self.daemon.take() else {
            return Ok(());
        };
        let at = self.clock.steady();
        let stopped = daemon.stop().await;
        stopped.map_err(|(part, why)| SimulationError::Ended { part, at, why })
    }

    async fn ended(&mut self, part: &'static str) -> SimulationError {
        let at = self.clock.steady();
        match self.down().await {
            Err(error) => error,
            Ok(()) => SimulationError::Ended {
                part,
                at,
                why: "nobody had stopped it".to_owned(),
            },
        }
    }

    /// Orders what waits to be ordered, if there is a daemon.
    async fn give_orders(&mut self) -> Result<(), SimulationError> {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        for fault in self.orders.drain(..) {
            let (action, then) = match fault.kind {
                FaultKind::Revoke => (CampaignAction::Revoke, Some(Then::Reissue)),
                _ => (CampaignAction::Renew, None),
            };
            let cause = Cause {
                actor: "simulation".to_owned(),
                reason: None,
            };
            let new = NewCampaign::new(action, then, Target::All, cause);
            let id = daemon.store.create_campaign(new, self.clock.now()).await?;
            self.ordered.push((fault, id));
        }
        Ok(())
    }

    async fn end(mut self) -> Result<CourseSeen, SimulationError> {
        let mut campaigns = Vec::new();
        for (fault, id) in std::mem::take(&mut self.ordered) {
            let campaign = match &self.daemon {
                Some(daemon) => daemon.store.campaign(id).await?,
                None => None,
            };
            campaigns.push(CampaignSeen::of(fault, campaign.as_ref()));
        }
        let now = self.now_at_the_service();
        let dead = self.provider.dead();
        lock(&self.findings).ends(dead, now);
        self.down().await?;
        drop(self.provider);
        let findings = match Arc::try_unwrap(self.findings) {
            Ok(findings) => findings
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
            Err(shared) => lock(&shared).clone(),
        };
        Ok(CourseSeen {
            findings,
            campaigns,
        })
    }

    /// Steps of our wall clock do not move it.
    fn now_at_the_service(&self) -> Timestamp {
        start()
            .checked_add(self.clock.steady())
            .unwrap_or(Timestamp::MAX)
    }
}

fn lock(findings: &Mutex<Findings>) -> MutexGuard<'_, Findings> {
    findings.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An access key of the simulated resource, and the file in which its connection string lies.
struct Key {
    role: KeyRole,
    path: PathBuf,
    /// How often it was regenerated and put in its place.
    generation: u32,
    /// It was regenerated, and nobody has put its successor in its place.
    is_lost: bool,
}

impl Key {
    fn text(&self) -> String {
        let bytes = format!("{} key number {}", self.role, self.generation);
        format!(
            "endpoint=https://simulated.example/;accesskey={}",
            BASE64_STANDARD.encode(bytes)
        )
    }

    fn loaded(&self) -> LoadedSecret {
        LoadedSecret {
            from: SecretRef::File(self.path.clone()),
            secret: Secret::new(self.text()),
        }
    }

    fn access_key(&self) -> Option<(KeyRole, AccessKey)> {
        let string = ConnectionString::parse(&self.loaded().secret).ok()?;
        Some((self.role, string.key))
    }

    fn write(&self) -> Result<(), SimulationError> {
        let mut options = fs::OpenOptions::new();
        let opened = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path);
        let written = opened.and_then(|mut file| file.write_all(self.text().as_bytes()));
        written.map_err(|source| SimulationError::Folder {
            path: self.path.clone(),
            source,
        })
    }
}

fn resource(setting: &Setting, [primary, secondary]: &[Key; 2]) -> ResourceSettings {
    ResourceSettings {
        name: resource_name(),
        credential: CredentialSettings::Keys(KeySettings {
            connection_string: primary.loaded(),
            secondary_connection_string: Some(secondary.loaded()),
        }),
        ca_file: None,
        proxy: None,
        api_version: "2023-10-01".to_owned(),
        create: CreatePolicy::Auto,
        limits: setting.limits,
        max_in_flight: setting.max_in_flight,
    }
}

#[expect(clippy::expect_used, reason = "a constant that is a name")]
fn resource_name() -> crate::model::ResourceName {
    "simulated".parse().expect("it is a name")
}

#[expect(clippy::expect_used, reason = "letters and digits are a name")]
fn spec(setting: &Setting, number: u64) -> Spec {
    Spec {
        name: format!("bot-{number:06}").parse().expect("it is a name"),
        resource: resource_name(),
        origin: Origin::File,
        declared: Declaration {
            id: None,
            scopes: vec![Scope::Chat],
            lifetime: setting.lifetime,
            renew_at: setting.renew_at,
            spread: setting.spread,
            labels: std::collections::BTreeMap::default(),
            readers: Vec::new(),
            sinks: Vec::new(),
            on_removal: OnRemoval::Hold,
        },
    }
}
