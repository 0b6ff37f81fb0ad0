//! A store with identities, dispatchers over it, and a receiver in this process, all under paused time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use renewd::{
    clock::Clock,
    config::{
        ContentType, EventBody, FileFormat, FileSinkSettings, Include, LoadedSecret, SecretRef,
        SinkSettings, StorePlace, StoreSettings, WebhookSinkSettings,
    },
    engine::{Ask, Dispatcher, DispatcherDeps},
    model::{
        Applied, Attempt, Change, Declaration, DispatcherView, Due, DueReason, Num, OnRemoval,
        Origin, RenewerView, ResourceName, Scope, Secret, SinkAt, SinkName, Spec, Timestamp, Token,
        TokenMeta, Version,
    },
    sinks::Sink,
    store::Store,
    telemetry::Metrics,
    transport::{Transport, TransportError},
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How the receiver takes one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// With this status.
    Answer(u16),
    /// With this status and `Retry-After`.
    Wait(u16, u64),
    /// It takes the event, and the answer comes late, or too late.
    Slowly(Duration),
    /// It takes the event, and the answer is lost.
    Silently,
    /// Our own code fails.
    Panic,
}

/// One event as the receiver got it.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Timestamp,
    /// The sink, by the host that it posts to.
    pub(crate) sink: String,
    /// The CloudEvents type.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) taken: bool,
}

type Behaviour = Arc<Mutex<Box<dyn FnMut(&Arrival) -> Manner + Send>>>;

/// A receiver that behaves as told and remembers everything.
#[derive(Clone)]
pub(crate) struct Receiver {
    seen: Arc<Mutex<Vec<Arrival>>>,
    behaviour: Behaviour,
    clock: Clock,
}

impl Receiver {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            seen: Arc::default(),
            behaviour: Arc::new(Mutex::new(Box::new(|_| Manner::Answer(200)))),
            clock: clock.clone(),
        }
    }

    /// From now on it behaves so.
    pub(crate) fn behaves(&self, how: impl FnMut(&Arrival) -> Manner + Send + 'static) {
        *self.behaviour.lock().unwrap() = Box::new(how);
    }

    pub(crate) fn seen(&self) -> Vec<Arrival> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// The versions of an identity that were taken, in order.
    pub(crate) fn taken(&self, name: &str) -> Vec<u64> {
        let seen = self.seen();
        seen.iter()
            .filter(|a| a.taken && a.name == name)
            .map(|a| a.version)
            .collect()
    }

    pub(crate) fn transport(&self) -> Transport {
        let receiver = self.clone();
        Transport::InProcess(Arc::new(move |request| receiver.receive(&request)))
    }

    fn receive(
        &self,
        request: &Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let event: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let host = request.uri().host().unwrap();
        let mut arrival = Arrival {
            at: self.clock.now(),
            sink: host.split('.').next().unwrap().to_owned(),
            kind: event["type"].as_str().unwrap().to_owned(),
            name: event["subject"].as_str().unwrap_or_default().to_owned(),
            version: event["data"]["version"].as_u64().unwrap_or_default(),
            taken: true,
        };
        let manner = (self.behaviour.lock().unwrap())(&arrival);
        let (status, wait, delay) = match manner {
            Manner::Answer(status) => (status, None, Duration::ZERO),
            Manner::Wait(status, wait) => (status, Some(wait), Duration::ZERO),
            Manner::Slowly(delay) => (200, None, delay),
            Manner::Silently => (0, None, Duration::ZERO),
            Manner::Panic => (1, None, Duration::ZERO),
        };
        arrival.taken = status == 0 || status == 200;
        self.seen.lock().unwrap().push(arrival);
        assert_ne!(status, 1, "as told");
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            if status == 0 {
                return Err(TransportError::Broken("lost".to_owned()));
            }
            let mut response = Response::builder().status(status);
            if let Some(wait) = wait {
                response = response.header("retry-after", wait);
            }
            Ok(response.body(Bytes::new()).unwrap())
        })
    }
}

/// A running dispatcher.
pub(crate) struct Running {
    pub(crate) view: watch::Receiver<DispatcherView>,
    pub(crate) commands: mpsc::Sender<Ask>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), renewd::engine::DispatcherError>>,
}

/// How often something changes in this time.
pub(crate) async fn changes<T>(mut seen: watch::Receiver<T>, time: Duration) -> usize {
    seen.mark_unchanged();
    let (end, mut changes) = (tokio::time::sleep(time), 0);
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return changes,
            changed = seen.changed() => changed.map(|()| changes += 1).unwrap(),
        }
    }
}

impl Running {
    /// How often it decides in this time.
    pub(crate) async fn rounds(&self, time: Duration) -> usize {
        changes(self.view.clone(), time).await
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub(crate) struct Harness {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) receiver: Receiver,
    nums: BTreeMap<String, Num>,
    pub(crate) renewers: watch::Sender<BTreeMap<ResourceName, watch::Receiver<RenewerView>>>,
}

impl Harness {
    /// With these identities, each going to each of these sinks. No token yet.
    pub(crate) async fn new(names: &[&str], sinks: &[&str]) -> Self {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        Self::open(clock, names, sinks).await
    }

    /// The same on the machine's clock, with threads.
    pub(crate) async fn in_production(names: &[&str], sinks: &[&str]) -> Self {
        Self::open(Clock::system(), names, sinks).await
    }

    async fn open(clock: Clock, names: &[&str], sinks: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = StoreSettings {
            place: StorePlace::File(dir.path().join("renewd.db")),
            seal_key: None,
            keep_renewals: Duration::from_hours(168),
            keep_other: Duration::from_hours(9600),
            owner: renewd::config::Owner::default(),
            save_before_migration: true,
            node: None,
            withdrawn_copy: None,
        };
        let open = if clock.is_simulated() {
            Store::open_inline
        } else {
            Store::open
        };
        let (store, _) = open(&settings, dir.path(), clock.now()).unwrap();
        let sinks: Vec<SinkName> = sinks.iter().map(|name| name.parse().unwrap()).collect();
        let specs: Vec<Spec> = names.iter().map(|name| spec(name, &sinks)).collect();
        store
            .reconcile(&specs, &at(&sinks), clock.now())
            .await
            .unwrap();
        let mut nums = BTreeMap::new();
        for name in names {
            let record = store.record(&name.parse().unwrap()).await.unwrap().unwrap();
            nums.insert((*name).to_owned(), record.num);
        }
        let receiver = Receiver::new(&clock);
        Self {
            dir,
            store,
            clock,
            receiver,
            nums,
            renewers: watch::Sender::default(),
        }
    }

    /// Declares anew: these identities, each with its sinks, and all sinks that there are.
    pub(crate) async fn declare(&self, identities: &[(&str, &[&str])], sinks: &[&str]) {
        let named = |names: &[&str]| -> Vec<SinkName> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        let specs = identities
            .iter()
            .map(|(name, sinks)| spec(name, &named(sinks)));
        let specs: Vec<Spec> = specs.collect();
        let now = self.clock.now();
        let done = self.store.reconcile(&specs, &at(&named(sinks)), now).await;
        assert_eq!(done.unwrap().refused, []);
    }

    pub(crate) fn num(&self, name: &str) -> Num {
        self.nums[name]
    }

    /// Commits a new token that lives for so long.
    pub(crate) async fn issue_for(&self, name: &str, life: Duration) -> Version {
        let now = self.clock.now();
        let change = Change::Issued {
            num: self.num(name),
            call_began: now,
            id: None,
            token: Token {
                secret: Secret::new(format!("token-of-{name}-{now}")),
                meta: TokenMeta {
                    issued_at: now,
                    expires_at: now + life,
                    minted_by: "key".to_owned(),
                },
            },
            due: Due {
                at: now + life / 2,
                why: DueReason::Renewal,
            },
            late_at: now + life / 2,
            attempt: Attempt {
                at: now,
                result: "ok".to_owned(),
                request_id: None,
            },
        };
        match self.store.commit(vec![change], now).await.unwrap()[0] {
            Applied::Done(version) => version,
            Applied::Stale => panic!("stale"),
        }
    }

    pub(crate) async fn issue(&self, name: &str) -> Version {
        self.issue_for(name, Duration::from_hours(24)).await
    }

    /// The renewer of the resource measures the service's clock to be so far ahead of ours.
    pub(crate) fn skew(&self, hours: i64) -> watch::Sender<RenewerView> {
        let renewer = watch::Sender::new(RenewerView {
            skew_ms: Some(hours * 3_600_000),
            ..RenewerView::default()
        });
        let contoso = "contoso".parse().unwrap();
        self.renewers
            .send_replace([(contoso, renewer.subscribe())].into());
        renewer
    }

    /// Lets time pass.
    pub(crate) async fn after(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Starts the dispatcher of a webhook that hears these events.
    pub(crate) fn webhook(&self, name: &str, events: &[&str]) -> Running {
        self.start(&SinkSettings::Webhook(self.webhook_settings(name, events)))
    }

    pub(crate) fn webhook_settings(&self, name: &str, events: &[&str]) -> WebhookSinkSettings {
        webhook(name, events)
    }

    pub(crate) fn file_settings(&self, name: &str) -> FileSinkSettings {
        FileSinkSettings {
            format: FileFormat::Token,
            ..FileSinkSettings::new(
                name.parse().unwrap(),
                format!("{}/tokens/{{name}}", self.dir.path().display()),
            )
        }
    }

    pub(crate) fn start(&self, settings: &SinkSettings) -> Running {
        let transport = Some(self.receiver.transport());
        let dispatcher = Dispatcher::new(DispatcherDeps {
            name: settings.at(None),
            sink: Sink::build(settings, &self.clock, "house", transport).unwrap(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            renewers: self.renewers.subscribe(),
            metrics: Metrics::new(),
            rate: settings.rate(),
            seed: 7,
        });
        let (view, commands) = (dispatcher.view(), dispatcher.commands());
        let stop = CancellationToken::new();
        let task = tokio::spawn(dispatcher.run(stop.clone()));
        Running {
            view,
            commands,
            stop,
            task,
        }
    }

    /// The row of the delivery table.
    pub(crate) async fn delivery(&self, name: &str) -> renewd::store::Delivery {
        self.store
            .deliveries_of(self.num(name))
            .await
            .unwrap()
            .remove(0)
    }
}

/// A webhook that hears these events.
pub(crate) fn webhook(name: &str, events: &[&str]) -> WebhookSinkSettings {
    WebhookSinkSettings {
        rate: None,
        name: name.parse().unwrap(),
        url: format!("https://{name}.example/hook"),
        allow_http: false,
        allow_private: false,
        proxy: None,
        secrets: vec![LoadedSecret {
            from: SecretRef::Env("SECRET".to_owned()),
            secret: Secret::new(SECRET.to_owned()),
        }],
        include: Include::Token,
        content_type: ContentType::CloudEvents,
        body: EventBody::Event,
        events: events.iter().map(|text| (*text).to_owned()).collect(),
        ca_file: None,
        timeout: Duration::from_secs(15),
    }
}

/// As the store knows them.
fn at(sinks: &[SinkName]) -> Vec<SinkAt> {
    sinks.iter().cloned().map(SinkAt::from).collect()
}

fn spec(name: &str, sinks: &[SinkName]) -> Spec {
    Spec {
        name: name.parse().unwrap(),
        resource: "contoso".parse().unwrap(),
        origin: Origin::File,
        declared: Declaration {
            id: Some(format!("8:acs:{name}").parse().unwrap()),
            scopes: vec![Scope::Chat],
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
            labels: BTreeMap::new(),
            readers: Vec::new(),
            sinks: sinks.to_vec(),
            on_removal: OnRemoval::Hold,
        },
    }
}
