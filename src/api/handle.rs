//! What the endpoints work with.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    body::BodyRoom,
    hub::Hub,
    reads::Reads,
    rights::Rights,
    shared_state::{Command, SharedState},
};
use crate::{
    clock::Clock,
    model::{Amiss, DispatcherView, SinkAt},
    store::{Store, StoreError},
    telemetry::Metrics,
};

/// Everything that the endpoints need.
#[derive(Debug, Clone)]
pub struct Api {
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) metrics: Metrics,
    pub(super) shared_state: watch::Receiver<Arc<SharedState>>,
    pub(super) commands: mpsc::Sender<Command>,
    /// What callers may do.
    pub(super) rights: Rights,
    /// What the bodies of requests may take.
    pub(super) room: BodyRoom,
    pub(super) hub: Hub,
    /// Tokens that were handed over.
    pub(super) reads: Reads,
    /// The TCP address that is not listened on, while it is refused.
    pub(super) unbound: watch::Sender<Option<Unbound>>,
    /// How many consumers held no live token when it was looked last.
    pub(super) lacking: Arc<AtomicU64>,
    /// One backup at a time.
    pub(super) backing_up: Arc<Mutex<()>>,
    /// What is wrong with the file of the local socket.
    pub(super) socket: watch::Sender<Option<Amiss>>,
    /// Once the servers end, long polls are answered at once.
    pub(super) stop: CancellationToken,
}

impl Api {
    /// Endpoints over these parts: `shared_state` is what there is now (a reload sends a new one), and
    /// `commands` is where `app` listens.
    pub fn new(
        clock: Clock,
        store: Store,
        metrics: Metrics,
        shared_state: watch::Receiver<Arc<SharedState>>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        let rights = Rights::new(clock.clone(), store.clone(), shared_state.clone());
        Self {
            clock,
            store,
            metrics,
            shared_state,
            commands,
            rights,
            room: BodyRoom::default(),
            hub: Hub::default(),
            reads: Reads::default(),
            unbound: watch::Sender::new(None),
            lacking: Arc::default(),
            backing_up: Arc::default(),
            socket: watch::Sender::new(None),
            stop: CancellationToken::new(),
        }
    }

    /// How many the last look at the daemon counted one by one, because they held no live token.
    pub fn counted(&self) -> u64 {
        self.lacking.load(Ordering::Relaxed)
    }

    /// The sinks that other machines of the cluster serve, as far as the store knows them.
    pub(super) async fn sinks_beside(
        &self,
    ) -> Result<BTreeMap<SinkAt, DispatcherView>, StoreError> {
        let here = self.shared_state().dispatcher_views();
        let mut beside = self
            .store
            .sinks_beside(here.keys().cloned().collect())
            .await?;
        for (sink, view) in &mut beside {
            let like = here.iter().find(|(one, _)| one.name() == sink.name());
            (view.kind, view.target) = match (sink.node(), like) {
                (None, _) => (
                    "webhook".to_owned(),
                    "served by the node that leads".to_owned(),
                ),
                (Some(node), None) => (String::new(), format!("served by {node}")),
                (Some(node), Some((_, like))) => (like.kind.clone(), format!("served by {node}")),
            };
        }
        Ok(beside)
    }

    /// The parts as they are now.
    pub(super) fn shared_state(&self) -> Arc<SharedState> {
        Arc::clone(&self.shared_state.borrow())
    }
}

/// A TCP address that is not listened on at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unbound {
    pub address: SocketAddr,
    /// What the system says.
    pub because: String,
}

impl Unbound {
    pub(super) fn new(address: SocketAddr, source: &io::Error) -> Self {
        Self {
            address,
            because: source.to_string(),
        }
    }
}
