//! The heartbeat that somebody outside listens to, as healthchecks.io and its kin do: while all is well an address is
//! asked every so often, and whoever hears nothing for longer wakes a person. So a machine that is gone is told of too.
//!
//! It falls silent as soon as anything holds that wakes a person ([`alarms`](crate::schedule::alarms)), or cannot be
//! known. The address is a secret: whoever knows it could keep up the appearance that all is well.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    config::HeartbeatSettings,
    schedule::{Alarm, told},
    telemetry::Metrics,
    transport::{NetworkOptions, Outgoing, Transport, USER_AGENT, Url},
    worker::Task,
};

/// An answer that takes longer is none.
const DEADLINE: Duration = Duration::from_secs(10);
/// Where none is configured there is nothing to do before one is.
const UNWANTED: Duration = Duration::from_hours(1);

pub(super) struct ExternalHeartbeat<L> {
    clock: Clock,
    metrics: Metrics,
    /// Made with the first one.
    transport: Option<Transport>,
    settings: watch::Receiver<Option<HeartbeatSettings>>,
    /// What wakes a person at the moment.
    look: L,
    /// What was said last of why it is silent, or not heard.
    said: Option<String>,
}

impl<L, F> ExternalHeartbeat<L>
where
    L: Fn() -> F + Send + Sync,
    F: Future<Output = Vec<Alarm>> + Send,
{
    pub(super) fn new(
        (clock, metrics): (Clock, Metrics),
        transport: Option<Transport>,
        settings: watch::Receiver<Option<HeartbeatSettings>>,
        look: L,
    ) -> Self {
        Self {
            clock,
            metrics,
            transport,
            settings,
            look,
            said: None,
        }
    }

    async fn beat(&mut self, settings: &HeartbeatSettings) {
        let alarms = (self.look)().await;
        if !alarms.is_empty() {
            return self.say(format!("silent, because {}", told(&alarms)));
        }
        match self.send(settings).await {
            Ok(()) => {
                self.metrics.heard(self.clock.now());
                if self.said.take().is_some() {
                    tracing::info!("the heartbeat is heard again");
                }
            }
            Err(why) => self.say(format!("not heard: {why}")),
        }
    }

    /// Says why it is not heard, once while that stays the same.
    fn say(&mut self, why: String) {
        if self.said.as_ref() != Some(&why) {
            tracing::warn!("the heartbeat is {why}");
        }
        self.said = Some(why);
    }

    /// Without the address in what it says.
    async fn send(&mut self, settings: &HeartbeatSettings) -> Result<(), String> {
        let transport = match &self.transport {
            Some(transport) => transport,
            None => {
                let made = Transport::network(&NetworkOptions::default());
                self.transport
                    .insert(made.map_err(|error| error.to_string())?)
            }
        };
        let url = Url::parse(settings.url.secret.expose());
        let url = url.map_err(|_| "its address is no URL".to_owned())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, USER_AGENT.clone());
        let request = Outgoing {
            method: Method::GET,
            url,
            headers,
            body: Bytes::new(),
        };
        let answer = transport.send_for_head(request, DEADLINE).await;
        let head = answer.map_err(|error| error.with("its receiver"))?;
        match head.status.is_success() {
            true => Ok(()),
            false => Err(format!("its receiver answered {}", head.status.as_u16())),
        }
    }
}

impl<L, F> Task for ExternalHeartbeat<L>
where
    L: Fn() -> F + Send + Sync,
    F: Future<Output = Vec<Alarm>> + Send,
{
    async fn step(&mut self) -> Duration {
        let settings = self.settings.borrow_and_update().clone();
        let Some(settings) = settings else {
            return UNWANTED;
        };
        let began = self.clock.steady();
        self.beat(&settings).await;
        let took = self.clock.steady().saturating_sub(began);
        settings.every.saturating_sub(took)
    }

    /// A reload may bring one, or another one.
    async fn woken(&mut self) {
        // The sender lives as long as the daemon.
        if self.settings.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        config::{LoadedSecret, SecretRef},
        model::Secret,
        worker,
    };

    const CANARY: &str = "http://127.0.0.1:1/ping/canary-5b1f";

    fn settings(every: u64) -> HeartbeatSettings {
        HeartbeatSettings {
            url: LoadedSecret {
                from: SecretRef::Env("PING".to_owned()),
                secret: Secret::new(CANARY.to_owned()),
            },
            every: Duration::from_secs(every),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_beats_while_all_is_well_and_is_silent_while_anything_wakes_a_person() {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let heard = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&heard);
        let receiver = Transport::InProcess(Arc::new(move |request: http::Request<Bytes>| {
            assert_eq!(
                (request.method(), request.uri().path()),
                (&Method::GET, "/ping/canary-5b1f")
            );
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(http::Response::new(Bytes::new())) })
        }));
        let alarms = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&alarms);
        let look = move || {
            let alarms = seen.lock().unwrap().clone();
            async move { alarms }
        };
        let (configured, settings_now) = watch::channel(None);
        let beat = ExternalHeartbeat::new(
            (clock.clone(), Metrics::new()),
            Some(receiver),
            settings_now,
            look,
        );
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker::repeat(beat, stop.clone()));
        let minutes = async |minutes: u64| {
            tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
            heard.swap(0, Ordering::SeqCst)
        };
        let configured = |every: Option<u64>| {
            configured.send_replace(every.map(settings));
        };
        assert_eq!(minutes(10).await, 0, "nobody asked for it");
        configured(Some(60));
        assert_eq!(minutes(10).await, 10);
        alarms
            .lock()
            .unwrap()
            .push(Alarm::LoopStill("jobs".to_owned()));
        assert_eq!(minutes(10).await, 0);
        alarms.lock().unwrap().clear();
        assert_eq!(minutes(10).await, 10);
        configured(Some(20));
        assert!((29..=31).contains(&minutes(10).await));
        configured(None);
        minutes(1).await;
        assert_eq!(minutes(10).await, 0);
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
