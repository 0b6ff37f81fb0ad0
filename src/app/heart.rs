//! Tells the service manager how the daemon is: feeds the watchdog while every loop decides, and keeps
//! the status line.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Scene,
    clock::Clock,
    model::{Counts, HealthView, State, Timestamp, short_duration},
    store::Store,
    systemd::{Notifier, NotifyError, Verdict, Watchdog},
};

/// How often the status line is made anew where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What the heart looks at.
pub(super) struct Heart {
    pub(super) notifier: Arc<Notifier>,
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) scene: watch::Receiver<Arc<Scene>>,
}

impl Heart {
    /// Beats until told to stop.
    pub(super) async fn beat(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut watchdog = Watchdog::from_env(self.clock.now());
        let every = watchdog
            .as_ref()
            .map_or(STATUS_EVERY, |dog| dog.interval().min(STATUS_EVERY));
        let mut told = String::new();
        loop {
            if let Some(dog) = &mut watchdog {
                self.feed(dog);
            }
            let status = self.status().await;
            if status != told {
                tell(self.notifier.status(&status));
                told = status;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    fn feed(&self, dog: &mut Watchdog) {
        let scene = Arc::clone(&self.scene.borrow());
        match dog.tick(&scene.decisions(), self.clock.now()) {
            Verdict::Feed => tell(self.notifier.watchdog()),
            Verdict::Starve(stuck) => {
                tracing::error!(
                    loops = stuck.join(", "),
                    "not every loop decides any more; the watchdog is not fed"
                );
            }
        }
    }

    async fn status(&self) -> String {
        let scene = Arc::clone(&self.scene.borrow());
        if let Some(why) = scene.standing.refusal() {
            return why;
        }
        match self.store.counts().await {
            Ok(counts) => status_line(&counts, &scene, self.clock.now()),
            Err(error) => format!("the store cannot be read: {error}"),
        }
    }
}

/// One line for `systemctl status`: what needs a person first.
fn status_line(counts: &Counts, scene: &Scene, now: Timestamp) -> String {
    let mut parts: Vec<String> = Vec::new();
    let lanes = scene.lane_views();
    for (resource, lane) in &lanes {
        for health in lane.health.values() {
            match health {
                HealthView::Open => continue,
                HealthView::Probing { because, .. } => {
                    parts.push(format!("{resource} unreachable ({because})"))
                }
                HealthView::Held { because, .. } => {
                    parts.push(format!("{resource} held ({because})"))
                }
            }
            break;
        }
        let blocked = lane.blocked.iter().chain(&lane.creation_refused);
        parts.extend(blocked.map(|why| format!("{resource} blocked ({why})")));
    }
    let in_state = |state: State| -> u64 {
        counts
            .identities
            .values()
            .filter_map(|states| states.get(&state))
            .sum()
    };
    parts.push(format!("{} active", in_state(State::Active)));
    for state in [State::New, State::Held, State::Gone] {
        if in_state(state) > 0 {
            parts.push(format!("{} {state}", in_state(state)));
        }
    }
    let pending: u64 = counts.pending.values().sum();
    if pending > 0 {
        parts.push(format!("{pending} deliveries pending"));
    }
    if let Some(next) = lanes.values().filter_map(|lane| lane.next_due).min() {
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        parts.push(format!("next renewal in {}", short_duration(wait)));
    }
    parts.join(", ")
}

/// A service manager that does not listen is no reason to stop keeping tokens fresh.
fn tell(told: Result<(), NotifyError>) {
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
