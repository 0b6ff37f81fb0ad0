//! Tells the service manager how the daemon is: feeds the watchdog while every loop decides, and keeps
//! the status line.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, Scene},
    clock::Clock,
    systemd::{Notifier, NotifyError, Verdict, Watchdog},
};

/// How often the status line is made anew where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What the heart looks at.
pub(super) struct Heart {
    pub(super) notifier: Arc<Notifier>,
    pub(super) clock: Clock,
    pub(super) api: Api,
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
            let status = self.api.headline().await;
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
}

/// A service manager that does not listen is no reason to stop keeping tokens fresh.
fn tell(told: Result<(), NotifyError>) {
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
