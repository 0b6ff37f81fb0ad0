//! Renewers and dispatchers over one store: two resources, two sinks, trouble at each of the four. What one
//! of them suffers costs no other anything, and in the end every consumer has the newest version.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use renewd::{
    acs::Client,
    clock::Clock,
    config::{FileSinkSettings, Owner, ResourceSettings, SinkSettings, StorePlace, StoreSettings},
    engine::{Dispatcher, DispatcherDeps, Renewer},
    model::{Declaration, SinkAt, Spec},
    permits::{Permits, ResourceDeps},
    sinks::Sink,
    store::Store,
    telemetry::Metrics,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    HOUR, MINUTE, SECOND,
    service::{Fault, Service},
    world::{access_key, resource, spec},
};
use crate::dispatchers::harness::{self, Manner, Receiver};

const RESOURCES: [&str; 2] = ["contoso", "fabrikam"];
const SINKS: [&str; 2] = ["files", "app"];
/// Identities of each resource.
const EACH: usize = 4;
/// Longer than any trouble below, and shorter than half of a life.
const LONGEST_TROUBLE: Duration = Duration::from_mins(20);

struct Together {
    clock: Clock,
    dir: tempfile::TempDir,
    services: Vec<Service>,
    receiver: Receiver,
    starts: u64,
    up: Option<Up>,
    /// The newest version that was seen in each file.
    seen: BTreeMap<String, u64>,
}

/// What runs between a start and a stop.
struct Up {
    store: Store,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Together {
    async fn start() -> Self {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let services = RESOURCES.map(|_| Service::new(&clock));
        services.iter().for_each(|one| one.tokens_live(HOUR));
        let mut world = Self {
            receiver: Receiver::new(&clock),
            services: services.into(),
            clock,
            dir: tempfile::Builder::new()
                .prefix("renewd-together-")
                .tempdir()
                .unwrap(),
            starts: 0,
            up: None,
            seen: BTreeMap::new(),
        };
        world.up().await;
        world
    }

    /// Starts everything on what the folder holds.
    async fn up(&mut self) {
        let now = self.clock.now();
        let settings = StoreSettings {
            place: StorePlace::File(self.dir.path().join("renewd.db")),
            seal_key: None,
            keep_renewals: HOUR * 24,
            keep_other: HOUR * 24,
            owner: Owner::default(),
            save_before_migration: true,
            node: None,
            withdrawn_copy: None,
        };
        let (store, _) =
            renewd::simulation::unlocked(|| Store::open_inline(&settings, self.dir.path(), now))
                .unwrap();
        let sinks: Vec<SinkAt> = SINKS.iter().map(|name| name.parse().unwrap()).collect();
        let reconciled = store.reconcile(&specs(&sinks), &sinks, now).await;
        assert_eq!(reconciled.unwrap().refused, []);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let mut views = BTreeMap::new();
        for (name, service) in RESOURCES.iter().zip(&self.services) {
            let renewer = self.renewer(name, service, &store);
            views.insert(name.parse().unwrap(), renewer.view());
            let stop = stop.clone();
            tasks.spawn(async move { renewer.run(stop).await.unwrap() });
        }
        let (_, views) = watch::channel(views);
        for settings in self.sinks() {
            let dispatcher = Dispatcher::new(DispatcherDeps {
                name: settings.at(None),
                sink: Sink::build(
                    &settings,
                    &self.clock,
                    "test",
                    Some(self.receiver.transport()),
                )
                .unwrap(),
                store: store.clone(),
                clock: self.clock.clone(),
                renewers: views.clone(),
                metrics: Metrics::new(),
                rate: None,
                seed: 11 + self.starts,
            });
            let stop = stop.clone();
            tasks.spawn(async move { dispatcher.run(stop).await.unwrap() });
        }
        self.starts += 1;
        self.up = Some(Up { store, stop, tasks });
    }

    fn renewer(&self, name: &str, service: &Service, store: &Store) -> Renewer {
        let secret = format!("endpoint=https://{name}.example/;accesskey=c2VjcmV0LWtleQ==");
        let settings = ResourceSettings {
            name: name.parse().unwrap(),
            credential: access_key(secret),
            ..resource()
        };
        let client = Client::new(&settings, self.clock.clone(), service.transport()).unwrap();
        let client = Arc::new(client);
        Renewer::new(ResourceDeps {
            permits: Permits::new(&settings, client.clone(), store.clone(), self.clock.clone()),
            settings,
            client,
            store: store.clone(),
            clock: self.clock.clone(),
            metrics: Metrics::new(),
            seed: 7 + self.starts,
        })
    }

    fn sinks(&self) -> [SinkSettings; 2] {
        let path = format!("{}/tokens/{{name}}", self.dir.path().display());
        [
            SinkSettings::File(FileSinkSettings::new("files".parse().unwrap(), path)),
            SinkSettings::Webhook(harness::webhook("app", &["token.*"])),
        ]
    }

    /// Ends everything as SIGTERM does.
    async fn down(&mut self) {
        let mut up = self.up.take().unwrap();
        up.stop.cancel();
        while let Some(ended) = up.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Ends everything as `kill -9` does.
    async fn kill(&mut self) {
        let mut up = self.up.take().unwrap();
        up.tasks.shutdown().await;
    }

    /// Lets time pass, and looks at every file each ten seconds: no version ever falls.
    async fn pass(&mut self, time: Duration) {
        let ends = self.clock.steady() + time;
        while self.clock.steady() < ends {
            tokio::time::sleep(SECOND * 10).await;
            if let Some(up) = &mut self.up {
                let ended = up.tasks.try_join_next();
                assert!(ended.is_none(), "a loop ended: {ended:?}");
            }
            for name in names() {
                let Some(version) = self.in_file(&name) else {
                    continue;
                };
                let before = self.seen.insert(name.clone(), version);
                assert!(before.is_none_or(|before| before <= version), "{name}");
            }
        }
    }

    /// The version in the file of an identity.
    fn in_file(&self, name: &str) -> Option<u64> {
        let text = fs::read(self.dir.path().join("tokens").join(name)).ok()?;
        let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
        document["version"].as_u64()
    }

    async fn version(&self, name: &str) -> u64 {
        let store = &self.up.as_ref().unwrap().store;
        let record = store.record(&name.parse().unwrap()).await.unwrap().unwrap();
        record.version.0
    }

    /// Whoever does not have the newest version, by what the file holds and what the receiver took.
    async fn behind(&self) -> Vec<String> {
        let mut behind = Vec::new();
        for name in names() {
            let version = Some(self.version(&name).await);
            if self.in_file(&name) != version {
                behind.push(format!("the file of {name}"));
            }
            if self.receiver.taken(&name).last().copied() != version {
                behind.push(format!("the receiver, of {name}"));
            }
        }
        behind
    }

    fn without_live_token(&self) -> usize {
        self.services.iter().map(Service::without_live_token).sum()
    }

    /// From now on nothing can be written where the files lie.
    fn block_files(&self) {
        let tokens = self.dir.path().join("tokens");
        fs::rename(&tokens, self.dir.path().join("aside")).unwrap();
        fs::write(&tokens, "in the way").unwrap();
    }

    fn clear_files(&self) {
        let tokens = self.dir.path().join("tokens");
        fs::remove_file(&tokens).unwrap();
        fs::rename(self.dir.path().join("aside"), &tokens).unwrap();
    }
}

fn names() -> Vec<String> {
    let of = |resource| (0..EACH).map(move |n| format!("{resource}-{n}"));
    RESOURCES.into_iter().flat_map(of).collect()
}

fn specs(sinks: &[SinkAt]) -> Vec<Spec> {
    let names = names().into_iter();
    names
        .map(|name| Spec {
            resource: name.split('-').next().unwrap().parse().unwrap(),
            declared: Declaration {
                id: Some(format!("8:acs:{name}").parse().unwrap()),
                sinks: sinks.iter().map(|sink| sink.name().clone()).collect(),
                lifetime: HOUR,
                ..spec(&name).declared
            },
            ..spec(&name)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_resource_and_one_sink_costs_the_others_nothing() {
    let mut world = Together::start().await;
    world.pass(MINUTE).await;
    assert_eq!(world.behind().await, Vec::<String>::new());

    // One resource and the receiver fail for longer than half of a life.
    world.services[0].fail(|_| Some(Fault::Connect));
    world.receiver.behaves(|_| Manner::Answer(503));
    world.receiver.forget();
    world.pass(HOUR - MINUTE * 2).await;
    for name in names() {
        let (held, wanted) = (world.in_file(&name), world.version(&name).await);
        assert_eq!(held, Some(wanted), "{name}: its file waits for no receiver");
        assert!(world.receiver.taken(&name).is_empty(), "{name}");
    }
    assert_eq!(world.services[1].without_live_token(), 0);

    world.services[0].mend();
    world.receiver.behaves(|_| Manner::Answer(200));
    world.pass(HOUR).await;
    assert_eq!(world.behind().await, Vec::<String>::new());
    assert_eq!(world.without_live_token(), 0);
    world.down().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_and_whenever_it_ends_every_consumer_gets_the_newest_version() {
    for seed in 0..12 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = Together::start().await;
        world.pass(MINUTE * 2).await;
        for _ in 0..4 {
            trouble(&mut world, &mut rng).await;
        }
        world.pass(HOUR).await;
        let behind = world.behind().await;
        assert!(behind.is_empty(), "seed {seed}: {behind:?}");
        assert_eq!(world.without_live_token(), 0, "seed {seed}");
        for name in names() {
            let taken = world.receiver.taken(&name);
            assert!(taken.is_sorted(), "seed {seed}: {name}: {taken:?}");
        }
        world.down().await;
    }
}

/// One thing fails for a while, in which everything may be killed or stopped as well; then it works again.
async fn trouble(world: &mut Together, rng: &mut ChaCha8Rng) {
    let which = rng.random_range(0..4);
    match which {
        0 | 1 => {
            let odd = Fault::Status(503, "Odd", "No.");
            let fault = [Fault::Reset, Fault::Throttle(30), odd][rng.random_range(0..3)].clone();
            world.services[which].fail(move |_| Some(fault.clone()));
        }
        2 => {
            let manner = [Manner::Silently, Manner::Wait(429, 60), Manner::Answer(503)];
            let at = rng.random_range(0..manner.len());
            world.receiver.behaves(move |_| manner[at]);
        }
        _ => world.block_files(),
    }
    let lasts = LONGEST_TROUBLE.mul_f64(rng.random_range(0.1..1.0));
    let end = lasts.mul_f64(rng.random_range(0.0..1.0));
    world.pass(end).await;
    match rng.random_range(0..3) {
        0 => world.kill().await,
        1 => world.down().await,
        _ => {}
    }
    if world.up.is_none() {
        world.up().await;
    }
    world.pass(lasts.saturating_sub(end)).await;
    match which {
        0 | 1 => world.services[which].mend(),
        2 => world.receiver.behaves(|_| Manner::Answer(200)),
        _ => world.clear_files(),
    }
    world
        .pass(LONGEST_TROUBLE.mul_f64(rng.random_range(0.1..1.0)))
        .await;
}
