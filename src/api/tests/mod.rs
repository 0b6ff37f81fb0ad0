//! The endpoints through their routers, in this process, over a real store and under paused time.

mod access;
mod admission;
mod away;
mod beside_store;
mod control;
mod need_kinds;
mod needs;
mod news;
mod nodes;
mod openapi;
mod page;
mod tokens;
mod watching;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::*;
use crate::{
    accounts,
    clock::Clock,
    config::{DaemonSettings, Renewal, StorePlace, StoreSettings},
    model::{
        Amiss, Attempt, Attempts, Change, Declaration, DispatcherView, Due, DueReason, Kind, Name,
        Origin, Reader, Record, RenewerView, ResourceName, Scope, Secret, Spec, State, Step,
        StoreStanding, Token, TokenDocument, TokenMeta, Version,
    },
    store::{Cause, Holding, ItemOutcome, StepOn, Store},
    telemetry::Metrics,
};

/// The identity that has a token from the start.
const ANNA: &str = "anna";
/// The one that has none.
const BERT: &str = "bert";
const READER: &str = "nobody";

struct Harness {
    api: Api,
    clock: Clock,
    store: Store,
    renewer: watch::Sender<RenewerView>,
    runner: watch::Sender<Option<Timestamp>>,
    dispatcher: watch::Sender<DispatcherView>,
    moved: watch::Sender<Option<Amiss>>,
    shared_state: watch::Sender<Arc<SharedState>>,
    commands: mpsc::Receiver<Command>,
    _folder: tempfile::TempDir,
}

/// Anna with a token of an hour, Bert without one.
async fn harness() -> Harness {
    harness_with(|_, _| {}).await
}

/// The same over a store of such settings, in a folder that holds something already.
async fn harness_with(prepare: impl FnOnce(&mut StoreSettings, &std::path::Path)) -> Harness {
    let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut settings = StoreSettings {
        place: StorePlace::File(folder.path().join("renewd.db")),
        seal_key: None,
        keep_renewals: Duration::from_hours(168),
        keep_other: Duration::from_hours(9600),
        owner: crate::config::Owner::default(),
        save_before_migration: true,
        node: None,
        withdrawn_copy: None,
    };
    prepare(&mut settings, folder.path());
    let (store, _) = Store::open_inline(&settings, folder.path(), clock.now()).unwrap();
    store
        .reconcile(
            &[spec(ANNA), spec(BERT)],
            &["files".parse().unwrap()],
            clock.now(),
        )
        .await
        .unwrap();
    let Stage {
        shared_state,
        renewer,
        runner,
        dispatcher,
        moved,
    } = stage(&clock, folder.path());
    let shared_state_seen = shared_state.subscribe();
    let (sender, commands) = mpsc::channel(1);
    let api = Api::new(
        clock.clone(),
        store.clone(),
        Metrics::new(),
        shared_state_seen,
        sender,
    );
    let harness = Harness {
        api,
        clock,
        store,
        renewer,
        runner,
        dispatcher,
        moved,
        shared_state,
        commands,
        _folder: folder,
    };
    harness.issue(ANNA, "canary-1").await;
    harness
}

/// What a daemon of one resource and one sink publishes.
struct Stage {
    shared_state: watch::Sender<Arc<SharedState>>,
    renewer: watch::Sender<RenewerView>,
    runner: watch::Sender<Option<Timestamp>>,
    dispatcher: watch::Sender<DispatcherView>,
    moved: watch::Sender<Option<Amiss>>,
}

fn stage(clock: &Clock, folder: &std::path::Path) -> Stage {
    let fresh = Some(clock.now());
    let runner = watch::Sender::new(fresh);
    let renewer = watch::Sender::new(RenewerView {
        decided_at: fresh,
        ..RenewerView::default()
    });
    let dispatcher = watch::Sender::new(DispatcherView {
        decided_at: fresh,
        ..DispatcherView::default()
    });
    let moved = watch::Sender::new(None);
    let shared_state = SharedState {
        standing: StoreStanding::Own,
        brought_up: None,
        jobs: Vec::new(),
        jobs_decided: None,
        keys: BTreeMap::new(),
        daemon: DaemonSettings {
            state_dir: folder.to_owned(),
            listen: None,
            socket: folder.join("renewd.sock"),
            instance: "test".into(),
            admins: Vec::new(),
            page_names: false,
            heartbeat: None,
        },
        life: DaemonLife {
            since: clock.now(),
            restored: true,
            stopping: false,
        },
        renewers: BTreeMap::from([(contoso(), renewer.subscribe())]),
        gates: BTreeMap::new(),
        declared: BTreeMap::new(),
        runners: BTreeMap::from([(contoso(), runner.subscribe())]),
        sinks: vec!["files".parse().unwrap()],
        dispatchers: BTreeMap::from([("files".parse().unwrap(), dispatcher.subscribe())]),
        configured_sources: Vec::new(),
        sources: BTreeMap::new(),
        store_moved: moved.subscribe(),
        trusted: watch::Sender::default().subscribe(),
        configured_at: clock.now(),
        reload_refused: None,
        not_taken: Vec::new(),
        cluster: None,
        renewal: Renewal {
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
        },
    };
    Stage {
        shared_state: watch::Sender::new(Arc::new(shared_state)),
        renewer,
        runner,
        dispatcher,
        moved,
    }
}

fn contoso() -> ResourceName {
    "contoso".parse().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn spec(text: &str) -> Spec {
    Spec {
        name: name(text),
        resource: contoso(),
        origin: Origin::File,
        declared: Declaration {
            id: Some(format!("8:acs:{text}").parse().unwrap()),
            scopes: vec![Scope::Chat],
            lifetime: Duration::from_hours(1),
            renew_at: 0.5,
            spread: 0.0,
            labels: BTreeMap::new(),
            readers: vec![Reader::User(READER.into())],
            sinks: vec!["files".parse().unwrap()],
            on_removal: crate::model::OnRemoval::Hold,
        },
    }
}

/// What the store would say of an identity that has no token yet.
pub(super) fn holding(text: &str) -> Holding {
    let record = Record {
        num: 1,
        spec: spec(text),
        id: None,
        state: State::New,
        version: Version(0),
        token: None,
        due: None,
        late_at: None,
        attempts: Attempts::default(),
        failures: 0,
        failing_since: None,
        revoked_at: None,
        revoked: false,
        known_dead: false,
        doubted: false,
        late_notified: false,
    };
    let document = TokenDocument {
        name: name(text),
        resource: contoso(),
        id: None,
        state: State::New,
        token: None,
        scopes: vec![Scope::Chat],
        issued_at: None,
        expires_at: None,
        renews_at: None,
        version: Version(0),
        kind: Kind::Issued,
    };
    Holding { record, document }
}

impl Harness {
    /// Asks over TCP, from this machine.
    async fn tcp(&self, target: &str) -> Answer {
        let router = public::router(self.api.clone(), guard::Listener::Loopback);
        let request = Request::get(target).header("host", "localhost:9847");
        Answer::of(
            router
                .oneshot(request.body(Body::empty()).unwrap())
                .await
                .unwrap(),
        )
        .await
    }

    /// Commits a token of an hour, as the engine would.
    async fn issue(&self, who: &str, secret: &str) -> Version {
        let now = self.clock.now();
        let num = self.num(who).await;
        let hour = SignedDuration::from_hours(1);
        let change = Change::Issued {
            num,
            call_began: now,
            id: None,
            token: Token {
                secret: Secret::new(secret.into()),
                meta: TokenMeta {
                    issued_at: now,
                    expires_at: now + hour,
                    minted_by: "key".into(),
                },
            },
            due: Due {
                at: now + hour / 2,
                why: DueReason::Renewal,
            },
            late_at: now + hour * 3 / 4,
            attempt: Attempt {
                at: now,
                result: "ok".into(),
                request_id: None,
            },
        };
        self.store.commit(vec![change], now).await.unwrap();
        self.store
            .record(&name(who))
            .await
            .unwrap()
            .unwrap()
            .version
    }

    /// Its sink has what the store has.
    async fn deliver(&self, who: &str) {
        let row = self.store.record(&name(who)).await.unwrap().unwrap();
        let settled = crate::store::Settled::Delivered {
            sink: "files".parse().unwrap(),
            num: row.num,
            version: row.version,
        };
        let now = self.clock.now();
        self.store.settle(vec![settled], now).await.unwrap();
    }

    async fn step(&self, who: &str, step: Step) {
        let on = StepOn {
            num: self.num(who).await,
            step,
            request_id: None,
        };
        self.store
            .step(vec![on], &Cause::ours("a test"), self.clock.now())
            .await
            .unwrap();
    }

    async fn num(&self, who: &str) -> i64 {
        self.store.record(&name(who)).await.unwrap().unwrap().num
    }

    fn socket(&self) -> Router {
        local::router(self.api.clone())
    }

    async fn get(&self, peer: Peer, target: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.socket(), peer, "GET", target, headers, "").await
    }

    async fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        let json = [("content-type", "application/json")];
        ask(self.socket(), admin(), method, target, &json, body).await
    }
}

/// The daemon's own user.
fn admin() -> Peer {
    Peer {
        uid: accounts::own_uid(),
        gid: 0,
    }
}

fn reader() -> Peer {
    let nobody = accounts::user(READER).unwrap();
    Peer {
        uid: nobody.uid,
        gid: nobody.gid.unwrap(),
    }
}

/// A user that nobody knows.
fn stranger() -> Peer {
    Peer {
        uid: 3_999_999_999,
        gid: 3_999_999_999,
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(
    router: Router,
    peer: Peer,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("x-renewd-client", "test")
        .extension(peer);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    Answer::of(router.oneshot(request).await.unwrap()).await
}

fn at(harness: &Harness, seconds: i64) -> Timestamp {
    harness.clock.now() + SignedDuration::from_secs(seconds)
}
