//! The two loops of the daemon's workers.
//!
//! A [`Worker`] works off a queue: the renewer, the campaign runner, the key replacement, the dispatcher,
//! the source sync. Each time round it starts what its gate allows, says what it knows, and sleeps until
//! the next thing can happen, [`LONGEST_REST`] at most, so that a watchdog can be fed from what it says. What
//! ended is taken in and goes to its outbox. At the end nothing new starts; what is under way may end
//! within [`GRACE`], and what it brought is noted.
//!
//! A [`Task`] does one thing every so often. A step is safe to be repeated, and never tries again by
//! itself: the next one does.

use std::{convert::Infallible, future::Future, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    model::Timestamp,
    schedule::{Moment, Steady},
};

/// A worker reaffirms its decision at least this often.
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(15);
/// A round that found nothing to start is not repeated sooner than this.
pub(crate) const SHORTEST_REST: Duration = Duration::from_millis(20);
/// At the end, what is under way and not noted gets so long.
const GRACE: Duration = Duration::from_secs(8);
/// Between two looks at what is left then.
const LOOK: Duration = Duration::from_millis(200);

/// Works off a queue. What [`Worker::next`] waits for may be dropped while it waits, and loses nothing.
pub(crate) trait Worker: Send {
    type Event: Send;
    /// Why it cannot go on, or could not end well.
    type Error: Send;

    /// The clock that it sleeps by.
    fn clock(&self) -> &Clock;

    /// What comes before the first round.
    fn begin(&mut self, _stop: &CancellationToken) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// One decision: what may start is started, and what is known is said. When to decide again at the
    /// latest.
    fn round(
        &mut self,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Timestamp, Self::Error>> + Send;

    /// Waits for the next thing that happens; at the end only for what is still under way.
    fn next(
        &mut self,
        ending: bool,
    ) -> impl Future<Output = Result<Self::Event, Self::Error>> + Send;

    /// Takes in what happened.
    fn take(&mut self, event: Self::Event) -> impl Future<Output = ()> + Send;

    /// Nothing happened until it was time to decide again.
    fn rested(&mut self) {}

    /// At the end, for the `first` time and again: notes what is not noted yet; whether nothing is left of
    /// it, nor under way.
    fn settle(&mut self, _first: bool) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }

    /// The last word, after what was under way has ended, or has had its time.
    fn end(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Runs a worker until `stop`, and to its end.
///
/// # Errors
/// When it cannot go on, or did not end well.
pub(crate) async fn run<W: Worker>(mut worker: W, stop: CancellationToken) -> Result<(), W::Error> {
    let clock = worker.clock().clone();
    worker.begin(&stop).await;
    loop {
        let wake = worker.round(&stop).await?;
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            event = worker.next(false) => Some(event?),
            () = clock.sleep_until(wake) => None,
        };
        match event {
            Some(event) => worker.take(event).await,
            None => worker.rested(),
        }
    }
    let ends = tokio::time::sleep(GRACE);
    tokio::pin!(ends);
    let mut first = true;
    while !worker.settle(std::mem::take(&mut first)).await {
        let event = tokio::select! {
            biased;
            event = worker.next(true) => event?,
            () = &mut ends => break,
            () = tokio::time::sleep(LOOK) => continue,
        };
        worker.take(event).await;
    }
    worker.end().await
}

/// When a worker decides again: as soon as anything wants that, but neither at once nor too late.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wake {
    now: Moment,
    at: Steady,
}

impl Wake {
    /// Nothing wants it yet.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            now,
            at: now.steady + LONGEST_REST,
        }
    }

    /// Something wants it then.
    pub(crate) fn by(&mut self, at: Option<Steady>) {
        self.at = at.map_or(self.at, |at| self.at.min(at));
    }

    /// Something wants it when the wall clock says so.
    pub(crate) fn by_wall(&mut self, at: Option<Timestamp>) {
        let ahead = at.map(|at| at.duration_since(self.now.wall));
        self.by(ahead.map(|ahead| self.now.steady + Duration::try_from(ahead).unwrap_or_default()));
    }

    pub(crate) fn at(self) -> Timestamp {
        self.now
            .wall_at(self.at.max(self.now.steady + SHORTEST_REST))
    }
}

/// Does one thing every so often.
pub(crate) trait Task: Send {
    /// Does it, as far as it goes now; how long to rest until it is done again.
    fn step(&mut self) -> impl Future<Output = Duration> + Send;

    /// Waits for what ends the rest early.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Repeats a task until `stop`.
///
/// # Errors
/// Never: what fails is done at the next step.
pub(crate) async fn repeat(mut task: impl Task, stop: CancellationToken) -> Result<(), Infallible> {
    loop {
        let rest = task.step().await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = task.woken() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::{sync::mpsc, task::JoinSet};

    use super::*;

    /// Starts a job for each number that it is sent, and writes down what happens.
    struct Recorder {
        clock: Clock,
        orders: mpsc::Receiver<u64>,
        jobs: JoinSet<u64>,
        heard: mpsc::UnboundedSender<String>,
    }

    enum Happened {
        Ordered(u64),
        Done(u64),
    }

    impl Recorder {
        fn say(&self, what: String) {
            self.heard.send(what).unwrap();
        }
    }

    impl Worker for Recorder {
        type Event = Happened;
        type Error = String;

        fn clock(&self) -> &Clock {
            &self.clock
        }

        async fn round(&mut self, _stop: &CancellationToken) -> Result<Timestamp, String> {
            self.say("round".to_owned());
            Ok(Wake::new(Moment {
                wall: self.clock.now(),
                steady: self.clock.steady(),
            })
            .at())
        }

        async fn next(&mut self, ending: bool) -> Result<Happened, String> {
            tokio::select! {
                biased;
                Some(done) = self.jobs.join_next() => Ok(Happened::Done(done.unwrap())),
                order = self.orders.recv(), if !ending => {
                    order.map(Happened::Ordered).ok_or_else(|| "nobody orders any more".to_owned())
                }
                else => std::future::pending().await,
            }
        }

        async fn take(&mut self, event: Happened) {
            match event {
                Happened::Done(secs) => self.say(format!("done {secs}")),
                Happened::Ordered(secs) => {
                    self.jobs.spawn(async move {
                        tokio::time::sleep(Duration::from_secs(secs)).await;
                        secs
                    });
                }
            }
        }

        fn rested(&mut self) {
            self.say("rested".to_owned());
        }

        async fn settle(&mut self, _first: bool) -> bool {
            self.jobs.is_empty()
        }

        async fn end(&mut self) -> Result<(), String> {
            match self.jobs.len() {
                0 => Ok(()),
                left => Err(format!("{left} left")),
            }
        }
    }

    struct Played {
        ended: Result<(), String>,
        heard: Vec<String>,
        took: Duration,
    }

    /// Orders these, and stops after so long.
    async fn play(orders: &[u64], stop_after: Duration) -> Played {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let (send, orders_in) = mpsc::channel(8);
        let (heard, mut hear) = mpsc::unbounded_channel();
        let recorder = Recorder {
            clock: clock.clone(),
            orders: orders_in,
            jobs: JoinSet::new(),
            heard,
        };
        for order in orders {
            send.send(*order).await.unwrap();
        }
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(recorder, stop.clone()));
        tokio::time::sleep(stop_after).await;
        stop.cancel();
        let ended = running.await.unwrap();
        let mut lines = Vec::new();
        while let Ok(line) = hear.try_recv() {
            lines.push(line);
        }
        Played {
            ended,
            heard: lines,
            took: clock.steady(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_decides_again_after_each_event_and_at_least_every_so_often() {
        let played = play(&[2], Duration::from_secs(20)).await;
        assert_eq!(
            played.heard,
            ["round", "round", "done 2", "round", "rested", "round"]
        );
        assert_eq!(played.ended, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_what_is_under_way_may_end_and_nothing_begins() {
        let played = play(&[3, 5], Duration::from_secs(1)).await;
        assert_eq!(played.ended, Ok(()));
        assert_eq!(
            played.heard,
            ["round", "round", "round", "done 3", "done 5"]
        );
        assert!(played.took < Duration::from_secs(6), "{:?}", played.took);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_told() {
        let played = play(&[3, 3600], Duration::from_secs(1)).await;
        assert_eq!(played.ended, Err("1 left".to_owned()));
        let longest = Duration::from_secs(1) + GRACE + LOOK;
        assert!(played.took <= longest, "{:?}", played.took);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_repeated_after_its_rest_or_when_it_is_woken() {
        struct Counter(Arc<AtomicU32>, mpsc::Receiver<()>);

        impl Task for Counter {
            async fn step(&mut self) -> Duration {
                self.0.fetch_add(1, Ordering::Relaxed);
                Duration::from_secs(10)
            }

            async fn woken(&mut self) {
                if self.1.recv().await.is_none() {
                    std::future::pending().await
                }
            }
        }

        let (wake, woken) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let count = Arc::<AtomicU32>::default();
        let counter = Counter(count.clone(), woken);
        let until = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(25)).await;
            wake.send(()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
            until.cancel();
        });
        repeat(counter, stop).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 4);
    }
}
