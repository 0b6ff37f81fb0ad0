//! One machine of a world of three: its clock, its ways to the database and to ACS, what runs on it, and what it lacks
//! where a promise is to be broken.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use jiff::SignedDuration;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd::{
    acs::Client,
    campaign::Runner,
    clock::{Clock, Lease},
    cluster::{Charge, LateCalls, LeaseHandle, LeaseKeeper, LeaseKeeperDeps},
    config::{ClusterSettings, LoadedSecret, Owner, SecretRef, StorePlace, StoreSettings},
    engine::Renewer,
    model::{NodeName, Role, Secret, Spec, Timestamp},
    permits::{Permits, ResourceDeps},
    store::{Link, Store},
    telemetry::Metrics,
    transport::{Transport, TransportError},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::Span;
use crate::life::{HOUR, MINUTE, SECOND, service::Service, world::resource};

/// A request stays on its machine for so long after the lease was looked at.
const SENDING: Duration = Duration::from_millis(400);

/// Stops a machine as SIGSTOP does.
#[derive(Debug, Clone, Default)]
pub(super) struct Pause(Arc<(AtomicBool, Mutex<Vec<Waker>>)>);

impl Pause {
    pub(super) fn is_frozen(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    pub(super) fn freeze(&self) {
        self.0.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn thaw(&self) {
        self.0.0.store(false, Ordering::SeqCst);
        self.0.1.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    pub(super) async fn thawed(&self) {
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
    pub(super) fn over<T>(&self, work: impl Future<Output = T> + Send + 'static) -> Stoppable<T> {
        Stoppable {
            work: Box::pin(work),
            pause: self.clone(),
        }
    }
}

pub(super) struct Stoppable<T> {
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
pub(super) struct Node {
    pub(super) name: NodeName,
    /// By how much its wall clock is ahead of true time.
    pub(super) off: SignedDuration,
    pub(super) clock: Clock,
    pub(super) link: Link,
    pub(super) cut: bool,
    pub(super) pause: Pause,
    pub(super) without_acs: Arc<AtomicBool>,
    pub(super) up: Option<Up>,
    /// Since when it reaches everything, and the database.
    pub(super) able_since: Option<Duration>,
    pub(super) hears_since: Option<Duration>,
}

pub(super) struct Up {
    pub(super) store: Store,
    stop: CancellationToken,
    /// Its end.
    process: CancellationToken,
    /// What leads, and what keeps the lease.
    main: JoinHandle<()>,
    tasks: JoinSet<()>,
}

/// What a machine lacks in a world that is to break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// Neither does it look at its lease before a call, nor does the store refuse what it writes after its epoch, such as
    /// permits: each of the two would do here.
    Lease,
    /// It does not answer for what a former leader may still send.
    LateCalls,
    /// It goes by its own clock.
    DatabaseClock,
    /// It looks once at what others changed, and never again.
    Others,
}

/// What a machine is started with.
pub(super) struct Start {
    pub(super) dir: PathBuf,
    pub(super) specs: Vec<Spec>,
    pub(super) service: Service,
    pub(super) seed: u64,
    pub(super) span: Span,
    /// True time: the service's and the database's.
    pub(super) truth: Clock,
    /// Looks at the database over no link.
    pub(super) observer: Store,
    pub(super) broken: Arc<Mutex<Vec<String>>>,
    pub(super) log: Arc<Mutex<String>>,
}

impl Node {
    /// One that is down.
    pub(super) fn new(n: usize, (truth, seed): (&Clock, u64)) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (n as u64 + 1));
        let off = SignedDuration::from_secs(rng.random_range(-600..600));
        let rng = Mutex::new(rng);
        let link = Link::carried(truth.clone(), move || {
            let mut rng = rng.lock().unwrap();
            let most = if rng.random_range(0..50) == 0 {
                2500
            } else {
                40
            };
            Duration::from_millis(rng.random_range(1..most))
        });
        Self {
            name: format!("web-{n}").parse().unwrap(),
            off,
            clock: truth.clone(),
            link,
            cut: false,
            pause: Pause::default(),
            without_acs: Arc::default(),
            up: None,
            able_since: None,
            hears_since: None,
        }
    }

    fn hears(&self) -> bool {
        self.up.is_some() && !self.cut && !self.pause.is_frozen()
    }

    /// Notes since when it reaches what.
    pub(super) fn note(&mut self, now: Duration) {
        let able = self.hears() && !self.without_acs.load(Ordering::SeqCst);
        self.able_since = able.then(|| self.able_since.unwrap_or(now));
        self.hears_since = self.hears().then(|| self.hears_since.unwrap_or(now));
    }

    /// Its store, for whoever orders or asks something there.
    pub(super) fn asked(&self) -> Option<Store> {
        let up = self.up.as_ref().filter(|_| !self.pause.is_frozen());
        up.map(|up| up.store.clone())
    }

    /// Its wall clock steps; what runs holds the step, and what starts believes it.
    pub(super) fn steps(&mut self, by: SignedDuration) {
        self.off += by;
        if self.up.is_some() {
            self.clock.step_wall(by);
        }
    }

    pub(super) fn start(&mut self, start: Start) {
        if self.up.is_some() || self.cut {
            return;
        }
        self.clock = Clock::simulated(start.truth.now() + self.off);
        let store = open(&start.dir, &self.name, self.clock.now());
        store.reached_by(self.link.clone());
        store.keep_mirror("test");
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (lacks, told) = watch::channel(0);
        let keeper = self.keeper(&store, told, start.span.lack);
        let handle = keeper.handle();
        let process = CancellationToken::new();
        let transport = self.transport(&start, (&handle, &process));
        let leads = Leads {
            name: self.name.clone(),
            store: store.clone(),
            clock: self.clock.clone(),
            specs: start.specs,
            transport: transport.clone(),
            pause: self.pause.clone(),
            seed: start.seed,
            lack: start.span.lack,
            log: start.log,
            truth: start.truth,
        };
        let (heeds, heeding, ending) = (start.span.heeds, store.clone(), stop.clone());
        let main = tokio::spawn(self.pause.over(async move {
            let left = CancellationToken::new();
            let leading = async {
                leads.serve(handle, ending).await;
                // What works under the lease ends before the lease is given up.
                left.cancel();
            };
            let (_, ended) = tokio::join!(leading, keeper.run(left.clone()));
            ended.unwrap();
        }));
        let [clock, heard] = [(); 2].map(|()| self.clock.clone());
        let once = start.span.lack == Some(Lack::Others);
        tasks.spawn(self.pause.over(async move {
            loop {
                tokio::time::sleep(heeds).await;
                let heeded = heeding.heed_others(heard.now()).await;
                if once && heeded.is_ok() {
                    return;
                }
            }
        }));
        tasks.spawn(self.pause.over(probe(transport, clock, lacks)));
        self.up = Some(Up {
            store,
            stop,
            process,
            main,
            tasks,
        });
    }

    fn keeper(
        &self,
        store: &Store,
        lacks: watch::Receiver<u32>,
        lack: Option<Lack>,
    ) -> LeaseKeeper {
        let (_, digest) = watch::channel("same".to_owned());
        LeaseKeeper::new(LeaseKeeperDeps {
            settings: ClusterSettings {
                name: "test".parse().unwrap(),
                node: self.name.clone(),
                nodes: Vec::new(),
            },
            store: store.clone(),
            clock: match lack {
                Some(Lack::DatabaseClock) => Clock::simulated(self.clock.now()),
                _ => self.clock.clone(),
            },
            digest,
            socket: "/run/renewd/renewd.sock".to_owned(),
            lacks,
        })
    }

    /// What a machine sends its calls to: looks who leads when one begins, and lets it wait while the machine is stopped,
    /// which is then between looking at the lease and sending.
    fn transport(
        &self,
        start: &Start,
        (handle, process): (&LeaseHandle, &CancellationToken),
    ) -> Transport {
        let Transport::InProcess(service) = start.service.transport() else {
            panic!("the service is in this process");
        };
        let (name, pause, without) = (
            self.name.clone(),
            self.pause.clone(),
            self.without_acs.clone(),
        );
        let (observer, broken, handle) =
            (start.observer.clone(), start.broken.clone(), handle.clone());
        let (log, truth, process) = (start.log.clone(), start.truth.clone(), process.clone());
        Transport::InProcess(Arc::new(move |request| {
            let (service, name, pause, without) = (
                service.clone(),
                name.clone(),
                pause.clone(),
                without.clone(),
            );
            let (observer, broken, handle) = (observer.clone(), broken.clone(), handle.clone());
            let (log, truth, process) = (log.clone(), truth.clone(), process.clone());
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
                    let charge = handle.charge.borrow().role.clone();
                    let told = format!(
                        "{:?}: {name} ({charge:?}) calls while {leader:?} leads",
                        truth.steady()
                    );
                    broken.lock().unwrap().push(told);
                }
                let path = request.uri().path().to_owned();
                writeln!(log.lock().unwrap(), "{:?} {name} {path}", truth.steady()).unwrap();
                // What is about to be sent is, even where whoever sends it has given up by then; not after a kill.
                let sent = tokio::spawn(async move {
                    tokio::time::sleep(SENDING).await;
                    pause.thawed().await;
                    if without.load(Ordering::SeqCst) || process.is_cancelled() {
                        return refused();
                    }
                    let answer = service(request).await;
                    pause.thawed().await;
                    answer
                });
                sent.await.unwrap()
            })
        }))
    }

    /// Ends as `kill -9` does, or as SIGTERM.
    pub(super) async fn down(&mut self, kill: bool) {
        let Some(mut up) = self.up.take() else {
            return;
        };
        if kill {
            up.main.abort();
            up.main.await.ok();
        } else {
            up.stop.cancel();
            let ended = tokio::time::timeout(MINUTE, &mut up.main).await;
            ended.expect("it ends within a minute").unwrap();
        }
        up.process.cancel();
        up.tasks.shutdown().await;
        // Calls that were under way are cut off with the process.
        tokio::task::yield_now().await;
    }
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

/// Opens the store of a machine, whose own files lie in a folder of its name.
pub(super) fn open(dir: &Path, node: &NodeName, now: Timestamp) -> Store {
    let settings = store_settings(dir, node);
    let own = dir.join(node.as_str());
    let opened = renewd::simulation::unlocked(|| Store::open_inline(&settings, &own, now));
    opened.unwrap().0
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
    lack: Option<Lack>,
    log: Arc<Mutex<String>>,
    truth: Clock,
}

impl Leads {
    /// Leads when it is this machine's turn, until `stop`.
    async fn serve(&self, mut handle: LeaseHandle, stop: CancellationToken) {
        loop {
            let charge = handle.charge.borrow_and_update().clone();
            let turn = format!("{:?} {} {:?}", self.truth.steady(), self.name, charge.role);
            writeln!(self.log.lock().unwrap(), "{turn}").unwrap();
            match charge.role {
                Role::Leads { epoch } => {
                    handle.at_work.send_replace(true);
                    self.lead(epoch, &charge, &mut handle, &stop).await;
                    handle.at_work.send_replace(false);
                }
                Role::Follows { .. } => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        changed = handle.charge.changed() => changed.unwrap(),
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
        handle: &mut LeaseHandle,
        stop: &CancellationToken,
    ) {
        let over = {
            let (mut handle, stop) = (handle.charge.clone(), stop.clone());
            let mine = charge.role.clone();
            async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    ended = handle.wait_for(|charge| charge.role != mine) => drop(ended),
                }
            }
        };
        tokio::pin!(over);
        let ending = CancellationToken::new();
        let mut parts = JoinSet::new();
        let store = match self.lack {
            Some(Lack::Lease) => self.store.plain(),
            _ => self.store.leading(epoch),
        };
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
        let mut settings = resource();
        // Work takes a while, so that something happens in the middle of it.
        settings.max_in_flight = 2;
        let client = Client::new(&settings, self.clock.clone(), self.transport.clone())?;
        if self.lack != Some(Lack::Lease) {
            client.heed(lease.clone());
        }
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
        let answers = self.lack != Some(Lack::LateCalls);
        parts.spawn(self.pause.over(async move {
            loop {
                if answers {
                    late.answer().await.ok();
                }
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
async fn probe(transport: Transport, clock: Clock, lacks: watch::Sender<u32>) {
    let client = Client::new(&resource(), clock, transport).unwrap();
    let mut failed = 0;
    loop {
        failed = if client.is_reached(SECOND * 5).await {
            0
        } else {
            failed + 1
        };
        lacks.send_if_modified(|before| {
            let now = u32::from(failed >= 2);
            std::mem::replace(before, now) != now
        });
        tokio::time::sleep(SECOND * if failed == 1 { 2 } else { 5 }).await;
    }
}
