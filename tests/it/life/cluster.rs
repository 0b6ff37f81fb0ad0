//! Three machines on one database in simulated time, with links that are cut, pauses, answers that are lost, clocks that
//! step, restarts and people who order things at any of them. Whatever happens: nobody calls ACS while another one leads, no
//! version falls, what is held stays held, and nobody is without a live token for long while one machine reaches both
//! ACS and the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use jiff::SignedDuration;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use renewd::{
    acs::Client,
    campaign::Runner,
    clock::{Clock, Lease},
    cluster::{Charge, LateCalls, LeaseDoor, LeaseKeeper, LeaseKeeperDeps},
    config::{ClusterSettings, LoadedSecret, Owner, SecretRef, StorePlace, StoreSettings},
    engine::Renewer,
    model::{NodeName, Role, Secret, Spec, State, Step, Then, Timestamp},
    permits::{Permits, ResourceDeps},
    store::{CampaignAction, Cause, Link, NewCampaign, StepOn, Store, Target},
    telemetry::Metrics,
    transport::{Transport, TransportError},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    HOUR, MINUTE, SECOND,
    service::Service,
    world::{resource, spec},
};

const NODES: usize = 3;
const IDENTITIES: usize = 12;
/// A token lives so long.
const TOKEN: Duration = Duration::from_mins(12);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// A machine that reaches everything leads after so long, and has renewed what had died.
const BACK: Duration = Duration::from_secs(75);

/// How long a world lives, and how many of them do.
#[derive(Debug, Clone, Copy)]
struct Span {
    life: Duration,
    seeds: u64,
    /// Between two looks at what other machines changed.
    heeds: Duration,
}

fn span() -> Span {
    match std::env::var("RENEWD_TEST_SCALE").as_deref() {
        Ok("soak") => Span {
            life: HOUR * 24 * 30,
            seeds: 20,
            heeds: MINUTE,
        },
        _ => Span {
            life: HOUR,
            seeds: 300,
            heeds: SECOND * 5,
        },
    }
}

/// Stops a machine as SIGSTOP does.
#[derive(Debug, Clone, Default)]
struct Pause(Arc<(AtomicBool, Mutex<Vec<Waker>>)>);

impl Pause {
    fn is_frozen(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    fn freeze(&self) {
        self.0.0.store(true, Ordering::SeqCst);
    }

    fn thaw(&self) {
        self.0.0.store(false, Ordering::SeqCst);
        self.0.1.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    async fn thawed(&self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_frozen() {
            return Poll::Ready(());
        }
        self.0.1.lock().unwrap().push(context.waker().clone());
        Poll::Pending
    }

    /// The same work, which does not go on while the machine is stopped.
    fn over<T>(&self, work: impl Future<Output = T> + Send + 'static) -> Stoppable<T> {
        Stoppable {
            work: Box::pin(work),
            pause: self.clone(),
        }
    }
}

struct Stoppable<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    pause: Pause,
}

impl<T> Future for Stoppable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.pause.poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => self.work.as_mut().poll(context),
        }
    }
}

/// A machine, up or down.
struct Node {
    name: NodeName,
    clock: Clock,
    link: Link,
    cut: bool,
    pause: Pause,
    without_acs: Arc<AtomicBool>,
    up: Option<Up>,
    /// Since when it reaches everything.
    able_since: Option<Duration>,
}

struct Up {
    store: Store,
    stop: CancellationToken,
    /// What leads, and what keeps the lease.
    main: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Node {
    fn is_able(&self) -> bool {
        self.up.is_some()
            && !self.cut
            && !self.pause.is_frozen()
            && !self.without_acs.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The database is not reached.
    Cut,
    /// ACS is not reached.
    WithoutAcs,
    Frozen,
    Killed,
    Ended,
}

/// What goes wrong, and what is ordered.
#[derive(Debug, Clone, Copy)]
enum Event {
    Begins(usize, Trouble),
    Over(usize, Trouble),
    LosesAnswers(usize, u32),
    Steps(usize, i64),
    Drains(usize, bool),
    Holds(usize, usize),
    Releases(usize, usize),
    Revokes(usize, Option<usize>),
    Renews(usize),
    Look,
}

/// Everything that happens, in the order of time.
fn plan(rng: &mut ChaCha8Rng, life: Duration) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let secs = life.as_secs();
    // About as much in a month as in a week of hours.
    let troubles = if life > HOUR { 1500 } else { 14 };
    for _ in 0..troubles {
        let at = Duration::from_secs(rng.random_range(60..secs - 400));
        let lasts = Duration::from_secs(rng.random_range(1..200));
        let node = rng.random_range(0..NODES);
        let kind = *[
            Trouble::Cut,
            Trouble::Cut,
            Trouble::WithoutAcs,
            Trouble::Frozen,
            Trouble::Frozen,
            Trouble::Killed,
            Trouble::Ended,
        ]
        .choose(rng)
        .unwrap();
        events.push((at, Event::Begins(node, kind)));
        events.push((at + lasts, Event::Over(node, kind)));
    }
    for _ in 0..troubles {
        let at = Duration::from_secs(rng.random_range(60..secs - 400));
        let (node, who) = (rng.random_range(0..NODES), rng.random_range(0..IDENTITIES));
        let event = match rng.random_range(0..7) {
            0 => Event::LosesAnswers(node, rng.random_range(1..4)),
            1 => Event::Steps(node, rng.random_range(-600..600)),
            2 => {
                events.push((at + MINUTE * 2, Event::Drains(node, false)));
                Event::Drains(node, true)
            }
            3 => {
                events.push((
                    at + MINUTE * 3,
                    Event::Releases(rng.random_range(0..NODES), who),
                ));
                Event::Holds(node, who)
            }
            4 => Event::Revokes(node, Some(who)),
            5 => Event::Revokes(node, None),
            _ => Event::Renews(node),
        };
        events.push((at, event));
    }
    let mut look = LOOK;
    while look <= life {
        events.push((look, Event::Look));
        look += if life > HOUR { MINUTE } else { LOOK };
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

struct World {
    rng: ChaCha8Rng,
    span: Span,
    dir: tempfile::TempDir,
    /// True time: the service's and the database's.
    clock: Clock,
    service: Service,
    specs: Vec<Spec>,
    nodes: Vec<Node>,
    /// Looks at the database over no link.
    observer: Store,
    /// What must not happen, and did.
    broken: Arc<Mutex<Vec<String>>>,
    versions: BTreeMap<String, u64>,
    held: BTreeSet<usize>,
    /// When each was released last.
    released: BTreeMap<usize, Duration>,
    starts: u64,
    log: Arc<Mutex<String>>,
}

fn at_the_start() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn store_settings(dir: &Path, node: &NodeName) -> StoreSettings {
    StoreSettings {
        place: StorePlace::File(dir.join("renewd.db")),
        seal_key: Some(LoadedSecret {
            from: SecretRef::Env("SEAL".to_owned()),
            secret: Secret::new("07".repeat(32)),
        }),
        keep_renewals: HOUR * 24,
        keep_other: HOUR * 24 * 60,
        owner: Owner::default(),
        save_before_migration: false,
        node: Some(node.clone()),
        withdrawn_copy: None,
    }
}

fn open(dir: &Path, node: &NodeName, now: Timestamp) -> Store {
    let settings = store_settings(dir, node);
    let own = dir.join(node.as_str());
    let opened = renewd::simulation::unlocked(|| Store::open_inline(&settings, &own, now));
    opened.unwrap().0
}

impl World {
    async fn begin(seed: u64, span: Span) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("renewd-cluster-")
            .tempdir_in(if Path::new("/dev/shm").is_dir() {
                "/dev/shm"
            } else {
                "/tmp"
            })
            .unwrap();
        let clock = Clock::simulated(at_the_start());
        let service = Service::new(&clock);
        service.tokens_live(TOKEN);
        service.delay(Duration::from_millis(120));
        let observer = open(dir.path(), &"observer".parse().unwrap(), at_the_start());
        observer.reached_by(Link::to(clock.clone()));
        let nodes = (0..NODES).map(|n| Node {
            name: format!("web-{n}").parse().unwrap(),
            clock: Clock::simulated(at_the_start()),
            link: Link::to(clock.clone()),
            cut: false,
            pause: Pause::default(),
            without_acs: Arc::default(),
            up: None,
            able_since: None,
        });
        let nodes = nodes.collect();
        let specs = (0..IDENTITIES).map(|n| {
            let mut spec = spec(&format!("bot-{n:02}"));
            spec.declared.id = Some(format!("8:acs:bot-{n:02}").parse().unwrap());
            spec
        });
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x005e_ed00),
            span,
            clock,
            service,
            specs: specs.collect(),
            nodes,
            observer,
            broken: Arc::default(),
            versions: BTreeMap::new(),
            held: BTreeSet::new(),
            released: BTreeMap::new(),
            starts: seed << 16,
            log: Arc::default(),
            dir,
        };
        for n in 0..NODES {
            world.up(n);
        }
        world
    }

    fn up(&mut self, n: usize) {
        self.starts += 1;
        let node = &mut self.nodes[n];
        if node.up.is_some() || node.cut {
            return;
        }
        let store = open(self.dir.path(), &node.name, node.clock.now());
        store.reached_by(node.link.clone());
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (reaches, reached) = watch::channel(true);
        let (_, digest) = watch::channel("same".to_owned());
        let keeper = LeaseKeeper::new(LeaseKeeperDeps {
            settings: ClusterSettings {
                name: "test".parse().unwrap(),
                node: node.name.clone(),
                nodes: Vec::new(),
            },
            store: store.clone(),
            clock: node.clock.clone(),
            digest,
            socket: "/run/renewd/renewd.sock".to_owned(),
            reaches: reached,
        });
        let door = keeper.door();
        let transport = self.transport(n, &door);
        let leads = Leads {
            name: self.nodes[n].name.clone(),
            store: store.clone(),
            clock: self.nodes[n].clock.clone(),
            specs: self.specs.clone(),
            transport: transport.clone(),
            pause: self.nodes[n].pause.clone(),
            seed: self.starts,
            log: self.log.clone(),
            truth: self.clock.clone(),
        };
        let pause = &self.nodes[n].pause;
        let (heeds, heeding, ending) = (self.span.heeds, store.clone(), stop.clone());
        let main = tokio::spawn(pause.over(async move {
            let left = CancellationToken::new();
            let leading = async {
                leads.serve(door, ending).await;
                // What works under the lease ends before the lease is given up.
                left.cancel();
            };
            let (_, ended) = tokio::join!(leading, keeper.run(left.clone()));
            ended.unwrap();
        }));
        let [clock, heard] = [(); 2].map(|()| self.nodes[n].clock.clone());
        tasks.spawn(pause.over(async move {
            loop {
                tokio::time::sleep(heeds).await;
                heeding.heed_others(heard.now()).await.ok();
            }
        }));
        tasks.spawn(pause.over(probe(transport, clock, reaches)));
        self.nodes[n].up = Some(Up {
            store,
            stop,
            main,
            tasks,
        });
    }

    /// What a machine sends its calls to: looks who leads when one begins, and lets it wait while the machine is stopped,
    /// which is then between looking at the lease and sending.
    fn transport(&self, n: usize, door: &LeaseDoor) -> Transport {
        let Transport::InProcess(service) = self.service.transport() else {
            panic!("the service is in this process");
        };
        let node = &self.nodes[n];
        let (name, pause, without) = (
            node.name.clone(),
            node.pause.clone(),
            node.without_acs.clone(),
        );
        let (observer, broken, door) = (self.observer.clone(), self.broken.clone(), door.clone());
        let (log, truth) = (self.log.clone(), self.clock.clone());
        Transport::InProcess(Arc::new(move |request| {
            let (service, name, pause, without) = (
                service.clone(),
                name.clone(),
                pause.clone(),
                without.clone(),
            );
            let (observer, broken, door) = (observer.clone(), broken.clone(), door.clone());
            let (log, truth) = (log.clone(), truth.clone());
            Box::pin(async move {
                let refused = || Err(TransportError::Connect("cut".to_owned()));
                if request.method() == http::Method::OPTIONS {
                    return match without.load(Ordering::SeqCst) {
                        true => refused(),
                        false => Ok(http::Response::new(bytes::Bytes::new())),
                    };
                }
                let leader = observer.nodes().await.unwrap();
                let leader = leader.into_iter().find(|row| row.leads).map(|row| row.name);
                if leader.as_ref() != Some(&name) {
                    let charge = door.charge.borrow().role.clone();
                    let told = format!(
                        "{:?}: {name} ({charge:?}) calls while {leader:?} leads",
                        truth.steady()
                    );
                    broken.lock().unwrap().push(told);
                }
                let path = request.uri().path().to_owned();
                writeln!(log.lock().unwrap(), "{:?} {name} {path}", truth.steady()).unwrap();
                pause.thawed().await;
                if without.load(Ordering::SeqCst) {
                    return refused();
                }
                let answer = service(request).await;
                pause.thawed().await;
                answer
            })
        }))
    }

    async fn down(&mut self, n: usize, kill: bool) {
        let Some(mut up) = self.nodes[n].up.take() else {
            return;
        };
        if !kill {
            up.stop.cancel();
            let ended = tokio::time::timeout(MINUTE, &mut up.main).await;
            ended.expect("it ends within a minute").unwrap();
        }
        if kill {
            up.main.abort();
            up.main.await.ok();
        }
        up.tasks.shutdown().await;
        // Calls that were under way are cut off with the process.
        tokio::task::yield_now().await;
    }

    async fn live(mut self) -> (Vec<String>, String) {
        let plan = plan(&mut self.rng, self.span.life);
        for (at, event) in plan {
            let wait = at.saturating_sub(self.clock.steady());
            tokio::time::sleep(wait).await;
            self.happens(event).await;
        }
        let mut log = std::mem::take(&mut *self.log.lock().unwrap());
        for record in self.observer.list(None, 100).await.unwrap() {
            writeln!(log, "{record:?}").unwrap();
        }
        for n in 0..NODES {
            self.nodes[n].pause.thaw();
            self.down(n, true).await;
        }
        let broken = std::mem::take(&mut *self.broken.lock().unwrap());
        (broken, log)
    }

    async fn happens(&mut self, event: Event) {
        if !matches!(event, Event::Look) {
            writeln!(
                self.log.lock().unwrap(),
                "{:?} {event:?}",
                self.clock.steady()
            )
            .unwrap();
        }
        match event {
            Event::Begins(n, trouble) => self.begins(n, trouble).await,
            Event::Over(n, trouble) => self.over(n, trouble),
            Event::LosesAnswers(n, count) => self.nodes[n].link.lose(count),
            Event::Steps(n, secs) => self.nodes[n]
                .clock
                .step_wall(SignedDuration::from_secs(secs)),
            Event::Look => self.look().await,
            Event::Drains(n, drained) => {
                let (name, now) = (self.nodes[n].name.clone(), self.clock.now());
                let cause = Cause::ours("a test");
                let drained = self.observer.drain_node(&name, drained, &cause, now);
                drained.await.unwrap();
            }
            Event::Holds(n, who) => {
                if self.step(n, who, Step::Withhold).await {
                    self.held.insert(who);
                }
            }
            Event::Releases(n, who) => {
                if self.held.contains(&who) && self.step(n, who, Step::Release).await {
                    self.held.remove(&who);
                    self.released.insert(who, self.clock.steady());
                }
            }
            Event::Revokes(n, Some(who)) => self.order(n, CampaignAction::Revoke, Some(who)).await,
            Event::Revokes(n, None) => self.order(n, CampaignAction::Revoke, None).await,
            Event::Renews(n) => self.order(n, CampaignAction::Renew, None).await,
        }
        for node in &mut self.nodes {
            let now = self.clock.steady();
            node.able_since = node.is_able().then(|| node.able_since.unwrap_or(now));
        }
    }

    async fn begins(&mut self, n: usize, trouble: Trouble) {
        let node = &mut self.nodes[n];
        match trouble {
            Trouble::Cut => {
                node.cut = true;
                node.link.cut(true);
            }
            Trouble::WithoutAcs => node.without_acs.store(true, Ordering::SeqCst),
            Trouble::Frozen => {
                node.pause.freeze();
                node.link.cut(true);
            }
            Trouble::Killed => self.down(n, true).await,
            Trouble::Ended if node.pause.is_frozen() => {}
            Trouble::Ended => self.down(n, false).await,
        }
    }

    fn over(&mut self, n: usize, trouble: Trouble) {
        let node = &mut self.nodes[n];
        match trouble {
            Trouble::Cut => node.cut = false,
            Trouble::WithoutAcs => node.without_acs.store(false, Ordering::SeqCst),
            Trouble::Frozen => node.pause.thaw(),
            Trouble::Killed | Trouble::Ended => {}
        }
        let node = &self.nodes[n];
        node.link.cut(node.cut || node.pause.is_frozen());
        if !node.cut {
            self.up(n);
        }
    }

    /// A person's command at a machine; whether it was taken.
    async fn step(&mut self, n: usize, who: usize, step: Step) -> bool {
        let Some(up) = self.nodes[n]
            .up
            .as_ref()
            .filter(|_| !self.nodes[n].pause.is_frozen())
        else {
            return false;
        };
        let Ok(Some(record)) = up.store.record(&self.specs[who].name).await else {
            return false;
        };
        let steps = vec![StepOn {
            num: record.num,
            step,
            request_id: None,
        }];
        let (cause, now) = (Cause::ours("a test"), self.nodes[n].clock.now());
        up.store.step(steps, &cause, now).await.is_ok()
    }

    async fn order(&mut self, n: usize, action: CampaignAction, who: Option<usize>) {
        let Some(up) = self.nodes[n]
            .up
            .as_ref()
            .filter(|_| !self.nodes[n].pause.is_frozen())
        else {
            return;
        };
        let then = (action == CampaignAction::Revoke).then_some(Then::Reissue);
        let target = match who {
            None => Target::All,
            Some(who) => match up.store.record(&self.specs[who].name).await {
                Ok(Some(record)) => Target::Items(vec![renewd::store::Wanted::Row(record.num)]),
                _ => return,
            },
        };
        let new = NewCampaign::new(action, then, target, Cause::ours("a test"));
        // A machine that does not reach the database takes no order.
        up.store
            .create_campaign(new, self.nodes[n].clock.now())
            .await
            .ok();
    }

    /// Looks at what must hold at any time.
    async fn look(&mut self) {
        let now = self.clock.steady();
        let mut broken = Vec::new();
        let records = self.observer.list(None, 100).await.unwrap();
        for record in &records {
            let name = record.spec.name.to_string();
            let version = record.version.0;
            let before = self.versions.insert(name.clone(), version).unwrap_or(0);
            if version < before {
                broken.push(format!(
                    "{now:?}: the version of {name} fell from {before} to {version}"
                ));
            }
        }
        for who in &self.held {
            let held = records
                .iter()
                .find(|record| record.spec.name == self.specs[*who].name);
            if held.is_none_or(|record| record.state != State::Held) {
                broken.push(format!(
                    "{now:?}: bot-{who:02} is held no more, and nobody released it"
                ));
            }
        }
        let able = self.nodes.iter().filter_map(|node| node.able_since).min();
        if able.is_some_and(|since| now >= since + BACK) {
            for (id, ended) in self.service.dead() {
                let who = id.rsplit('-').next().and_then(|n| n.parse::<usize>().ok());
                let is_held = who.is_some_and(|who| {
                    records.iter().any(|record| {
                        record.spec.name == self.specs[who].name && record.state == State::Held
                    })
                });
                let dead = self.clock.now().duration_since(ended);
                let released = who.and_then(|who| self.released.get(&who));
                let is_held = is_held || released.is_some_and(|at| now < *at + BACK);
                if !is_held && dead >= SignedDuration::try_from(BACK).unwrap() {
                    broken.push(format!("{now:?}: {id} has had no live token for {dead:?}"));
                }
            }
        }
        self.broken.lock().unwrap().extend(broken);
    }
}

/// What a machine does while it leads.
struct Leads {
    name: NodeName,
    store: Store,
    clock: Clock,
    specs: Vec<Spec>,
    transport: Transport,
    pause: Pause,
    seed: u64,
    log: Arc<Mutex<String>>,
    truth: Clock,
}

impl Leads {
    /// Leads when it is this machine's turn, until `stop`.
    async fn serve(&self, mut door: LeaseDoor, stop: CancellationToken) {
        loop {
            let charge = door.charge.borrow_and_update().clone();
            let turn = format!("{:?} {} {:?}", self.truth.steady(), self.name, charge.role);
            writeln!(self.log.lock().unwrap(), "{turn}").unwrap();
            match charge.role {
                Role::Leads { epoch } => {
                    door.at_work.send_replace(true);
                    self.lead(epoch, &charge, &mut door, &stop).await;
                    door.at_work.send_replace(false);
                }
                Role::Follows { .. } => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        changed = door.charge.changed() => changed.unwrap(),
                    }
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// Until another epoch, or none, or `stop`.
    async fn lead(
        &self,
        epoch: u64,
        charge: &Charge,
        door: &mut LeaseDoor,
        stop: &CancellationToken,
    ) {
        let over = {
            let (mut door, stop) = (door.charge.clone(), stop.clone());
            let mine = charge.role.clone();
            async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    ended = door.wait_for(|charge| charge.role != mine) => drop(ended),
                }
            }
        };
        tokio::pin!(over);
        let ending = CancellationToken::new();
        let mut parts = JoinSet::new();
        let store = self.store.leading(epoch);
        loop {
            tokio::select! {
                biased;
                () = &mut over => break,
                begun = self.begin(&store, &charge.lease, &ending, &mut parts) => match begun {
                    Ok(()) => {
                        over.as_mut().await;
                        break;
                    }
                    Err(_) => tokio::time::sleep(SECOND * 2).await,
                },
            }
        }
        ending.cancel();
        let ended = async { while parts.join_next().await.is_some() {} };
        tokio::time::timeout(SECOND * 10, ended).await.ok();
        parts.shutdown().await;
    }

    async fn begin(
        &self,
        store: &Store,
        lease: &Lease,
        ending: &CancellationToken,
        parts: &mut JoinSet<()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let now = self.clock.now();
        store.take_over_left(now).await?;
        store.reconcile(&self.specs, &[], now).await?;
        let settings = resource();
        let client = Client::new(&settings, self.clock.clone(), self.transport.clone())?;
        client.heed(lease.clone());
        let client = Arc::new(client);
        let deps = ResourceDeps {
            permits: Permits::new(&settings, client.clone(), store.clone(), self.clock.clone()),
            settings,
            client,
            store: store.clone(),
            clock: self.clock.clone(),
            metrics: Metrics::new(),
            seed: self.seed,
        };
        let (renewer, runner) = (Renewer::new(deps.clone()), Runner::new(deps));
        let (first, second) = (ending.clone(), ending.clone());
        parts.spawn(self.pause.over(async move {
            // What it could not note is known to be wasted.
            renewer.run(first).await.ok();
        }));
        parts.spawn(self.pause.over(async move {
            runner.run(second).await.ok();
        }));
        let late = LateCalls::new(store.clone(), self.clock.clone());
        parts.spawn(self.pause.over(async move {
            loop {
                late.answer().await.ok();
                tokio::time::sleep(SECOND).await;
            }
        }));
        let (pruning, clock) = (store.clone(), self.clock.clone());
        parts.spawn(self.pause.over(async move {
            loop {
                tokio::time::sleep(MINUTE * 10).await;
                pruning.prune_changes().await.ok();
                pruning.prune(5000, clock.now()).await.ok();
            }
        }));
        Ok(())
    }
}

/// Looks whether ACS is reached, as the daemon does.
async fn probe(transport: Transport, clock: Clock, reaches: watch::Sender<bool>) {
    let client = Client::new(&resource(), clock, transport).unwrap();
    let mut failed = 0;
    loop {
        failed = if client.is_reached(SECOND * 5).await {
            0
        } else {
            failed + 1
        };
        reaches.send_if_modified(|before| {
            let now = failed < 2;
            std::mem::replace(before, now) != now
        });
        tokio::time::sleep(SECOND * 10).await;
    }
}

/// What is broken in the world of a seed, and all that happened there.
fn world(seed: u64, span: Span) -> (Vec<String>, String) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let paused = builder.enable_all().start_paused(true).build().unwrap();
    paused.block_on(async { World::begin(seed, span).await.live().await })
}

#[test]
fn three_machines_keep_every_promise_whatever_is_cut_stopped_or_lost() {
    let span = span();
    let chosen = std::env::var("RENEWD_TEST_SEED").ok();
    let seeds: Vec<u64> = match chosen.as_deref().map(str::parse) {
        Some(Ok(seed)) => vec![seed],
        _ => (0..span.seeds).collect(),
    };
    let halves = [0, 1].map(|half| {
        let seeds: Vec<u64> = seeds.iter().copied().skip(half).step_by(2).collect();
        std::thread::spawn(move || {
            let failed = seeds.into_iter().filter_map(|seed| {
                let (broken, log) = world(seed, span);
                if std::env::var("RENEWD_TEST_SEED").is_ok() {
                    println!("{log}");
                }
                let broken = broken.into_iter().take(5).collect::<Vec<_>>().join("\n  ");
                (!broken.is_empty()).then(|| {
                    format!(
                        "seed {seed}:\n  {broken}\n  RENEWD_TEST_SEED={seed} cargo test --test it -- --nocapture \
                         life::cluster::three_machines"
                    )
                })
            });
            failed.collect::<Vec<String>>()
        })
    });
    let failed: Vec<String> = halves
        .into_iter()
        .flat_map(|half| half.join().unwrap())
        .collect();
    assert!(
        failed.is_empty(),
        "{} seeds:\n{}",
        failed.len(),
        failed[..failed.len().min(5)].join("\n")
    );
}

#[test]
fn the_same_seed_is_the_same_cluster_to_the_byte() {
    let span = Span {
        life: MINUTE * 20,
        seeds: 1,
        heeds: SECOND,
    };
    let (_, log) = world(3, span);
    assert!(
        log.contains("issueAccessToken") && log.contains("Leads"),
        "{log}"
    );
    assert_eq!(log, world(3, span).1);
    assert_ne!(log, world(4, span).1);
}
