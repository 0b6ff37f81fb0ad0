//! The daemon's parts while it runs: one renewer per resource, one dispatcher per sink, what they publish, and
//! the signals that it hears. Parts are started here, at first and by a reload.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{Loops, RunError, loops::SourceSyncs, membership::Membership};
use crate::{
    acs::Client,
    api::{DaemonLife, SharedState, SinkAsk},
    campaign::Runner,
    clock::Clock,
    cluster::Charge,
    config::{self, HeartbeatSettings, ResourceSettings, Settings, SinkSettings},
    engine::{Ask, Dispatcher, DispatcherDeps, FileSinks, Renewer},
    jobs::Jobs,
    keys::Keys,
    model::{
        Amiss, DispatcherView, KeyStage, KeysView, Name, RenewerView, ResourceName, SinkAt, Spec,
        StoreStanding, Timestamp, TrustFile,
    },
    permits::{Permits, ResourceDeps},
    schedule::{Declared, Gate},
    sinks::{FileSink, Sink},
    store::{Opened, Refusal, Store},
    telemetry::Metrics,
    transport::{self, NetworkOptions, Transport},
};

/// The loop of the jobs.
const JOBS: &str = "jobs";
/// A part that a reload stops gets so long.
pub(super) const PART_GRACE: Duration = Duration::from_secs(10);

/// The parts, by name.
pub(super) struct Supervisor {
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) metrics: Metrics,
    pub(super) loops: Loops,
    pub(super) opened: Opened,
    /// Whether this machine leads, as far as its parts know.
    pub(super) charge: Charge,
    /// How it stands in its cluster, where there is one.
    pub(super) membership: Option<Membership>,
    /// What is declared, for a machine that may come to lead.
    pub(super) identities: Arc<[Spec]>,
    settings: Settings,
    declared: BTreeMap<ResourceName, Declared>,
    life: DaemonLife,
    /// What a resource's successor takes over from, once a reload has replaced it.
    clients: BTreeMap<ResourceName, Arc<Client>>,
    renewers: BTreeMap<ResourceName, watch::Receiver<RenewerView>>,
    gates: BTreeMap<ResourceName, Arc<Mutex<Gate>>>,
    /// The same, for the dispatchers.
    renewer_views: watch::Sender<BTreeMap<ResourceName, watch::Receiver<RenewerView>>>,
    runners: BTreeMap<ResourceName, watch::Receiver<Option<Timestamp>>>,
    keys: BTreeMap<ResourceName, watch::Receiver<KeysView>>,
    jobs_decided: Option<watch::Receiver<Option<Timestamp>>>,
    dispatchers: BTreeMap<SinkAt, watch::Receiver<DispatcherView>>,
    dispatcher_commands: BTreeMap<SinkAt, mpsc::Sender<Ask>>,
    files: watch::Sender<FileSinks>,
    pub(super) source_syncs: SourceSyncs,
    /// What is wrong with the file of the store.
    pub(super) store_moved: watch::Sender<Option<Amiss>>,
    configured_at: Timestamp,
    reload_refused: Option<Amiss>,
    not_taken: Vec<(Name, String)>,
    pub(super) trust: Trust,
    heartbeat: watch::Sender<Option<HeartbeatSettings>>,
    shared_state: watch::Sender<Arc<SharedState>>,
}

/// The CA files of all parts.
#[derive(Default)]
pub(super) struct Trust {
    /// What each held when the part that trusts it was started, by the loop of the part.
    held: BTreeMap<String, Option<Vec<u8>>>,
    pub(super) paths: watch::Sender<BTreeSet<PathBuf>>,
    /// As they were read last.
    pub(super) found: watch::Sender<BTreeMap<PathBuf, TrustFile>>,
}

/// Parts that are built and not yet started. Building can fail and touches nothing; starting cannot
/// fail: so a reload is all or nothing.
pub(super) struct Built {
    resources: Vec<(ResourceSettings, Arc<Client>)>,
    sinks: Vec<(SinkSettings, Sink)>,
}

impl Built {
    /// Builds clients and sinks from their settings.
    pub(super) fn new(
        clock: &Clock,
        instance: &str,
        resources: &[ResourceSettings],
        sinks: &[SinkSettings],
    ) -> Result<Self, RunError> {
        let resources = resources
            .iter()
            .map(|settings| Ok((settings.clone(), Arc::new(client(clock, settings)?))));
        let sinks = sinks.iter().map(|settings| {
            let sink = Sink::build(settings, clock, instance, None);
            let named = |source| RunError::Sink {
                name: settings.name().clone(),
                source,
            };
            Ok((settings.clone(), sink.map_err(named)?))
        });
        Ok(Self {
            resources: resources.collect::<Result<_, RunError>>()?,
            sinks: sinks.collect::<Result<_, RunError>>()?,
        })
    }
}

impl Built {
    /// Of these those that are chosen.
    pub(super) fn retain(
        mut self,
        resource: impl Fn(&ResourceSettings) -> bool,
        sink: impl Fn(&SinkSettings) -> bool,
    ) -> Self {
        self.resources.retain(|(settings, _)| resource(settings));
        self.sinks.retain(|(settings, _)| sink(settings));
        self
    }

    /// The file sinks among these.
    pub(super) fn files(
        &self,
        chosen: impl Fn(&SinkSettings) -> bool,
        at: impl Fn(&SinkSettings) -> SinkAt,
    ) -> Vec<(SinkAt, &FileSink)> {
        let chosen = self.sinks.iter().filter(|(settings, _)| chosen(settings));
        let files = chosen.filter_map(|(settings, sink)| match sink {
            Sink::File(file) => Some((at(settings), file)),
            _ => None,
        });
        files.collect()
    }

    /// Keys that are being replaced sign nothing from the first call on, and it is known from the first
    /// look on which tokens may be dead. Answers with how many those of keys are that are no longer
    /// configured, by resource.
    pub(super) async fn heed(
        &self,
        store: &Store,
        now: Timestamp,
    ) -> Result<BTreeMap<ResourceName, u64>, RunError> {
        let mut unconfigured = BTreeMap::new();
        for (settings, client) in &self.resources {
            let change = store.open_key_change(&settings.name).await?;
            let begun = change.filter(|change| change.stage != KeyStage::Checking);
            client.avoid_key(begun.map(|change| change.old_key).as_deref());
            let ours = client.minters();
            let doubts = store.take_keys(&settings.name, ours.clone(), now).await?;
            let strange = doubts
                .iter()
                .filter(|doubt| !ours.contains(&doubt.fingerprint));
            let tokens: u64 = strange.map(|doubt| doubt.tokens).sum();
            if tokens > 0 {
                unconfigured.insert(settings.name.clone(), tokens);
            }
            let since = doubts
                .into_iter()
                .map(|doubt| (doubt.fingerprint, doubt.since));
            client.doubt_keys(since.collect());
        }
        Ok(unconfigured)
    }
}

/// What is shared before there are parts.
fn without_parts(
    settings: &Settings,
    (life, opened): (DaemonLife, &Opened),
    declared: &BTreeMap<ResourceName, Declared>,
    (store_moved, trust): (&watch::Sender<Option<Amiss>>, &Trust),
) -> SharedState {
    SharedState {
        daemon: settings.daemon.clone(),
        life,
        standing: opened.standing.clone(),
        brought_up: opened.told(),
        renewers: BTreeMap::new(),
        gates: BTreeMap::new(),
        declared: declared.clone(),
        runners: BTreeMap::new(),
        jobs: Vec::new(),
        jobs_decided: None,
        keys: BTreeMap::new(),
        sinks: settings.sink_names(),
        configured_sources: settings.source_names(),
        dispatchers: BTreeMap::new(),
        sources: BTreeMap::new(),
        store_moved: store_moved.subscribe(),
        trusted: trust.found.subscribe(),
        configured_at: life.since,
        reload_refused: None,
        not_taken: Vec::new(),
        renewal: settings.renewal,
        cluster: None,
    }
}

impl Supervisor {
    /// A supervisor without parts. The declared identities are rows by now, so they are not kept.
    pub(super) fn new(
        clock: Clock,
        (store, opened): (Store, Opened),
        metrics: Metrics,
        settings: &Settings,
    ) -> Self {
        let life = DaemonLife {
            since: clock.now(),
            restored: false,
            stopping: false,
        };
        let declared = Declared::of(settings);
        let mut settings = settings.clone();
        let mut identities = std::mem::take(&mut settings.identities);
        if settings.cluster.is_none() {
            identities.clear();
        }
        let store_moved = watch::Sender::new(None);
        let trust = Trust::default();
        let seen = (&store_moved, &trust);
        let shared_state = without_parts(&settings, (life, &opened), &declared, seen);
        Self {
            clock,
            store,
            metrics,
            loops: Loops::default(),
            opened,
            charge: Charge::alone(),
            membership: None,
            identities: identities.into(),
            heartbeat: watch::Sender::new(settings.daemon.heartbeat.clone()),
            settings,
            declared,
            life,
            clients: BTreeMap::new(),
            renewers: BTreeMap::new(),
            gates: BTreeMap::new(),
            renewer_views: watch::Sender::default(),
            runners: BTreeMap::new(),
            jobs_decided: None,
            keys: BTreeMap::new(),
            dispatchers: BTreeMap::new(),
            dispatcher_commands: BTreeMap::new(),
            files: watch::Sender::default(),
            source_syncs: SourceSyncs::default(),
            store_moved,
            configured_at: life.since,
            reload_refused: None,
            not_taken: Vec::new(),
            trust,
            shared_state: watch::Sender::new(Arc::new(shared_state)),
        }
    }

    /// What each resource allows, and what is declared of it.
    pub(super) fn declared(&self) -> &BTreeMap<ResourceName, Declared> {
        &self.declared
    }

    /// What the configuration said when it was last taken over, without the identities.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells of file sinks that are about to come, so that nobody takes a file back that will be theirs.
    pub(super) fn expect(&self, built: &Built) {
        let coming = built
            .sinks
            .iter()
            .filter_map(|(settings, sink)| match sink {
                Sink::File(file) => Some((self.at(settings), file.clone())),
                _ => None,
            });
        self.files
            .send_modify(|files| *files = files.iter().cloned().chain(coming).collect());
    }

    /// What is known of each resource's access keys.
    pub(super) fn key_views(&self) -> Vec<(ResourceName, KeysView)> {
        let views = self.keys.iter();
        views
            .map(|(name, view)| (name.clone(), view.borrow().clone()))
            .collect()
    }

    /// The file sinks as they are.
    pub(super) fn files(&self) -> watch::Receiver<FileSinks> {
        self.files.subscribe()
    }

    /// The parts as they are, for those who look.
    pub(super) fn shared_state(&self) -> watch::Receiver<Arc<SharedState>> {
        self.shared_state.subscribe()
    }

    /// What the configuration says of the heartbeat.
    pub(super) fn heartbeat(&self) -> watch::Receiver<Option<HeartbeatSettings>> {
        self.heartbeat.subscribe()
    }

    /// Whose hosts are asked whether they are reached.
    pub(super) fn hosts(&self, settings: &Settings) -> Vec<Arc<Client>> {
        let clients = settings.resources.iter();
        let clients = clients.filter_map(|one| client(&self.clock, one).ok());
        clients.map(Arc::new).collect()
    }

    /// Starts what was built.
    pub(super) fn start(&mut self, built: Built) {
        for (settings, client) in built.resources {
            self.start_resource(settings, client);
        }
        let running = &self.renewers;
        self.clients.retain(|name, _| running.contains_key(name));
        for (settings, sink) in built.sinks {
            self.start_sink(&settings, sink);
        }
        self.tell_trusted();
        self.publish();
    }

    /// Stops the parts of these names and waits until they have ended, so that their successors
    /// never run beside them.
    pub(super) async fn stop(&mut self, resources: &[String], sinks: &[String]) {
        let chosen = parts(resources, sinks);
        self.loops
            .replace_all(PART_GRACE, |name| chosen.contains(name))
            .await;
        self.forget(resources, sinks);
    }

    /// The same for parts of a machine that does not lead any more: how they end is told, and ends nothing else.
    pub(super) async fn let_go(&mut self, resources: &[String], sinks: &[String]) {
        let chosen = parts(resources, sinks);
        self.loops
            .let_go_all(PART_GRACE, |name| chosen.contains(name))
            .await;
        self.forget(resources, sinks);
        self.renewer_views.send_replace(self.renewers.clone());
    }

    fn forget(&mut self, resources: &[String], sinks: &[String]) {
        self.renewers
            .retain(|name, _| !resources.contains(&name.to_string()));
        self.gates
            .retain(|name, _| !resources.contains(&name.to_string()));
        self.runners
            .retain(|name, _| !resources.contains(&name.to_string()));
        self.keys
            .retain(|name, _| !resources.contains(&name.to_string()));
        let stays = |sink: &SinkAt| !sinks.contains(&sink.name().to_string());
        self.dispatchers.retain(|sink, _| stays(sink));
        self.dispatcher_commands.retain(|sink, _| stays(sink));
        let kept = self.files.borrow().clone();
        let kept = kept.iter().filter(|(sink, _)| stays(sink));
        self.files.send_replace(kept.cloned().collect());
    }

    /// Stops the loop of the jobs.
    pub(super) async fn stop_jobs(&mut self) {
        self.loops
            .replace_all(PART_GRACE, |name| name == JOBS)
            .await;
        self.jobs_decided = None;
    }

    /// Starts the loop of the jobs, where there are any; one that runs is stopped first.
    pub(super) async fn start_jobs(&mut self) {
        self.stop_jobs().await;
        if !self.settings.jobs.is_empty() {
            let jobs = Jobs::new(&self.settings.jobs, self.store.clone(), self.clock.clone());
            self.jobs_decided = Some(jobs.decided());
            self.loops.spawn(JOBS, |stop| jobs.run(stop));
        }
        self.publish();
    }

    /// Takes over what a reload read.
    pub(super) fn adopt(&mut self, settings: &Settings) {
        self.declared = Declared::of(settings);
        self.heartbeat.send_if_modified(|before| {
            let now = &settings.daemon.heartbeat;
            let is_other = before != now;
            before.clone_from(now);
            is_other
        });
        if let Some(membership) = &self.membership {
            membership.adopt(settings, &self.store, self.hosts(settings));
            self.identities = settings.identities.clone().into();
        }
        self.settings = Settings {
            identities: Vec::new(),
            ..settings.clone()
        };
        self.publish();
    }

    /// Waits until every file sink that was started has put its files right.
    pub(super) fn restoring(&self) -> impl Future<Output = ()> + use<> {
        let dispatchers: Vec<_> = self.dispatchers.values().cloned().collect();
        async move {
            for mut dispatcher in dispatchers {
                // A dispatcher that is gone has been replaced, or its end is told elsewhere.
                dispatcher.wait_for(|view| view.restored).await.ok();
            }
        }
    }

    /// Asks a sink's dispatcher something. Where there is none, or it has too much to do to listen, the
    /// question is dropped, which whoever waits for an answer notices.
    pub(super) fn ask(&self, name: &SinkAt, ask: SinkAsk) {
        let resource = self.settings.resources.first().map(|one| &one.name);
        let ask = match (ask, resource) {
            (SinkAsk::GoOn, _) => Ask::GoOn,
            (SinkAsk::Test { answer }, Some(resource)) => Ask::Test {
                resource: resource.clone(),
                answer,
            },
            (SinkAsk::Test { .. }, None) => return,
        };
        if let Some(commands) = self.dispatcher_commands.get(name)
            && let Err(error) = commands.try_send(ask)
        {
            tracing::warn!(sink = %name, %error, "a command did not reach the sink");
        }
    }

    /// What was told of resources that are not configured any more is over.
    pub(super) async fn end_notices_elsewhere(&self, settings: &Settings) -> Result<(), RunError> {
        let resources = settings.resources.iter();
        let names = resources.map(|resource| resource.name.clone()).collect();
        let now = self.clock.now();
        Ok(self.store.end_notices_elsewhere(names, now).await?)
    }

    /// Notes who is not taken over: those of the configuration, and those that name a sink which is configured no more.
    pub(super) async fn took_over(&mut self, refused: &[Refusal]) {
        let elsewhere = self.store.of_former_sinks().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "who names a sink that is configured no more is not known");
            Vec::new()
        });
        let refused: Vec<&Refusal> = refused.iter().chain(&elsewhere).collect();
        for refusal in &refused {
            tracing::error!(identity = %refusal.name, "not taken over: {}", refusal.reason);
        }
        let refused = refused.iter();
        self.not_taken = refused
            .map(|refusal| (refusal.name.clone(), refusal.reason.clone()))
            .collect();
        self.publish();
    }

    /// Notes whether the last reload was refused, and why.
    pub(super) fn reloaded(&mut self, refused: Option<String>) {
        let now = self.clock.now();
        if refused.is_none() {
            self.configured_at = now;
        }
        self.reload_refused = refused.map(|what| Amiss { what, since: now });
        self.publish();
    }

    /// Names of resources and of sinks whose CA file holds something else than when they were started.
    pub(super) fn other_ca(&self, settings: &Settings) -> (BTreeSet<String>, BTreeSet<String>) {
        let is_other = |part: &str, file: Option<&PathBuf>| {
            let before = self.trust.held.get(part);
            before.is_some_and(|before| *before != ca_content(file))
        };
        let resources = settings.resources.iter();
        let resources = resources
            .filter(|one| is_other(&renewer_loop(one.name.as_str()), one.ca_file.as_ref()))
            .map(|one| one.name.to_string());
        let sinks = settings.sinks.iter();
        let sinks = sinks
            .filter(|one| is_other(&dispatcher_loop(one.name().as_str()), one.ca_file()))
            .map(|one| one.name().to_string());
        (resources.collect(), sinks.collect())
    }

    /// Tells which CA files there are.
    fn tell_trusted(&self) {
        let resources = self.settings.resources.iter();
        let resources = resources.filter_map(|one| one.ca_file.clone());
        let sinks = self.settings.sinks.iter();
        let files: BTreeSet<PathBuf> = resources
            .chain(sinks.filter_map(|one| one.ca_file().cloned()))
            .collect();
        // Also where they are the same: what they hold may be something else.
        self.trust.paths.send_replace(files);
    }

    /// Every live token is on disk again.
    pub(super) fn restored(&mut self) {
        self.life.restored = true;
        self.publish();
    }

    /// A person let the store be used, or one more word is needed. Where it may be used, its parts are
    /// about to start.
    pub(super) fn found(&mut self, standing: StoreStanding) {
        self.life.restored &= !standing.is_usable();
        self.opened.standing = standing;
        self.publish();
    }

    /// The store was opened, whose mirror was served until now.
    pub(super) fn was_opened(&mut self, opened: Opened) {
        self.life.restored = false;
        self.opened = opened;
        self.publish();
    }

    /// The end has begun.
    pub(super) fn stopping(&mut self) {
        self.life.stopping = true;
        self.publish();
    }

    fn start_resource(&mut self, settings: ResourceSettings, client: Arc<Client>) {
        let name = settings.name.clone();
        client.heed(self.charge.lease.clone());
        if let Some(before) = self.clients.insert(name.clone(), client.clone()) {
            client.take_over(&before);
        }
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let permits = Permits::new(&settings, client.clone(), store, clock);
        let gate = permits.shared_gate();
        let content = ca_content(settings.ca_file.as_ref());
        self.trust.held.insert(renewer_loop(name.as_str()), content);
        let deps = ResourceDeps {
            settings,
            client,
            permits,
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            seed: rand::random(),
        };
        let runner = Runner::new(deps.clone());
        let keys = Keys::new(deps.clone());
        let renewer = Renewer::new(deps);
        self.gates.insert(name.clone(), gate);
        self.renewers.insert(name.clone(), renewer.view());
        self.renewer_views.send_replace(self.renewers.clone());
        self.runners.insert(name.clone(), runner.decided());
        self.keys.insert(name.clone(), keys.view());
        self.loops
            .spawn(renewer_loop(name.as_str()), |stop| renewer.run(stop));
        self.loops
            .spawn(campaign_loop(name.as_str()), |stop| runner.run(stop));
        self.loops
            .spawn(keys_loop(name.as_str()), |stop| keys.run(stop));
    }

    fn start_sink(&mut self, settings: &SinkSettings, sink: Sink) {
        let part = dispatcher_loop(settings.name().as_str());
        let name = self.at(settings);
        let content = ca_content(settings.ca_file());
        self.trust.held.insert(part.clone(), content);
        self.files.send_modify(|files| {
            let mut now: Vec<_> = files
                .iter()
                .filter(|(of, _)| *of != name)
                .cloned()
                .collect();
            if let Sink::File(file) = &sink {
                now.push((name.clone(), file.clone()));
            }
            *files = now.into();
        });
        // One that is local to a machine is served whoever leads.
        let store = match settings.nodes() {
            Some(_) => self.store.plain(),
            None => self.store.clone(),
        };
        let dispatcher = Dispatcher::new(DispatcherDeps {
            name: name.clone(),
            sink,
            store,
            clock: self.clock.clone(),
            renewers: self.renewer_views.subscribe(),
            metrics: self.metrics.clone(),
            rate: settings.rate(),
            seed: rand::random(),
        });
        self.dispatchers.insert(name.clone(), dispatcher.view());
        self.dispatcher_commands
            .insert(name.clone(), dispatcher.commands());
        self.loops.spawn(part, |stop| dispatcher.run(stop));
    }

    /// As the store knows it.
    pub(super) fn at(&self, sink: &SinkSettings) -> SinkAt {
        sink.at(self.settings.store.node.as_ref())
    }

    pub(super) fn publish(&self) {
        self.shared_state.send_replace(Arc::new(SharedState {
            daemon: self.settings.daemon.clone(),
            life: self.life,
            standing: self.opened.standing.clone(),
            brought_up: self.opened.told(),
            renewers: self.renewers.clone(),
            gates: self.gates.clone(),
            declared: self.declared.clone(),
            runners: self.runners.clone(),
            jobs: self.settings.jobs.clone(),
            jobs_decided: self.jobs_decided.clone(),
            keys: self.keys.clone(),
            sinks: self.settings.sink_names(),
            configured_sources: self.settings.source_names(),
            dispatchers: self.dispatchers.clone(),
            sources: self.source_syncs.views(),
            store_moved: self.store_moved.subscribe(),
            trusted: self.trust.found.subscribe(),
            configured_at: self.configured_at,
            reload_refused: self.reload_refused.clone(),
            not_taken: self.not_taken.clone(),
            renewal: self.settings.renewal,
            cluster: self
                .membership
                .as_ref()
                .map(|one| one.handle.standing.clone()),
        }));
    }
}

/// The loops of these resources and sinks.
fn parts(resources: &[String], sinks: &[String]) -> BTreeSet<String> {
    resources
        .iter()
        .flat_map(|name| [renewer_loop(name), campaign_loop(name), keys_loop(name)])
        .chain(sinks.iter().map(|name| dispatcher_loop(name)))
        .collect()
}

/// The loop that issues for a resource.
pub(super) fn renewer_loop(resource: &str) -> String {
    format!("renewer {resource}")
}

/// The loop that revokes and deletes for a resource.
pub(super) fn campaign_loop(resource: &str) -> String {
    format!("campaigns {resource}")
}

/// The loop that replaces keys of a resource.
pub(super) fn keys_loop(resource: &str) -> String {
    format!("keys {resource}")
}

/// The loop that serves a sink.
pub(super) fn dispatcher_loop(sink: &str) -> String {
    format!("sink {sink}")
}

/// What the CA file holds, where there is one that can be read.
fn ca_content(file: Option<&PathBuf>) -> Option<Vec<u8>> {
    config::read_regular(file?, transport::LARGEST_CA_FILE).ok()
}

fn client(clock: &Clock, settings: &ResourceSettings) -> Result<Client, RunError> {
    let options = NetworkOptions {
        ca_file: settings.ca_file.clone(),
        proxy: settings.proxy.clone(),
        ..NetworkOptions::default()
    };
    let transport = Transport::network(&options).map_err(|source| RunError::Transport {
        name: settings.name.clone(),
        source,
    })?;
    Ok(Client::new(settings, clock.clone(), transport)?)
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signalled {
    /// SIGTERM, SIGINT: end well.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Hears signals; those that arrive before they are asked for are kept.
#[derive(Debug)]
pub(super) struct ProcessSignals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl ProcessSignals {
    pub(super) fn hear() -> Result<Self, RunError> {
        let hear = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self {
            term: hear(SignalKind::terminate())?,
            int: hear(SignalKind::interrupt())?,
            hup: hear(SignalKind::hangup())?,
        })
    }

    /// The next one. Several SIGHUPs that wait together are one.
    pub(super) async fn next(&mut self) -> Signalled {
        tokio::select! {
            biased;
            _ = self.term.recv() => Signalled::End,
            _ = self.int.recv() => Signalled::End,
            _ = self.hup.recv() => Signalled::Reload,
        }
    }
}
