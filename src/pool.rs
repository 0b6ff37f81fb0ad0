//! Runs what blocks, on threads that are made at the start.
//!
//! The daemon starts no thread later on, so that nobody who asks much of it can bring it to where none can
//! be started any more. Each kind of work has a share of the threads: a file system or a user database that
//! hangs holds its own kind up and no other. What is left belongs to the names of hosts.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// Threads on which everything runs that does not block, at most: as many as there are cores.
pub const WORKERS: usize = 8;
/// Threads on which everything runs that blocks.
pub const BLOCKING: usize = 40;
/// What the names of hosts have at the least.
const FOR_NAMES: usize = 8;
/// How long the threads may take to be made.
const MADE: Duration = Duration::from_secs(5);
/// They do not end for want of work.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Looking users and groups up.
pub static ACCOUNTS: Share = Share::of(share(4));
/// Writing the files of consumers.
pub static FILES: Share = Share::of(share(16));
/// Whether lists of identities have changed.
pub static LISTS: Share = Share::of(share(8));
/// The store while it is opened, and what is wrong around the process.
pub static LOOKS: Share = Share::of(share(4));

/// Tests of one process have clocks of their own, so none may wait for the threads of another.
const fn share(threads: usize) -> usize {
    if cfg!(test) { 256 } else { threads }
}

const _: () = assert!(4 + 16 + 8 + 4 + FOR_NAMES == BLOCKING);

/// A kind of work that blocks, and how much of it may be under way.
#[derive(Debug)]
pub struct Share(Semaphore);

impl Share {
    const fn of(threads: usize) -> Self {
        Self(Semaphore::const_new(threads))
    }

    /// Runs this as soon as one of the share's threads is free. Dropped before that it is not run; dropped
    /// later it runs to its end.
    ///
    /// # Errors
    /// When it panics, or the runtime ends.
    #[expect(clippy::disallowed_methods, reason = "this is the pool")]
    pub async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = self.0.acquire().await;
        spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
    }
}

/// The runtime of the daemon, with all the threads that it will ever have; and a sentence where some could
/// not be made. So many more can be made afterwards, for whoever has threads or programs of its own.
///
/// # Errors
/// When there can be no runtime.
pub fn runtime(spare: usize) -> io::Result<(Runtime, Option<String>)> {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let workers = cores.clamp(2, WORKERS);
    let too_few = || io::Error::other("the system gives no more (TasksMax=, ulimit -u)");
    if Spare::make(workers + 1).threads.len() <= workers {
        return Err(too_few());
    }
    let kept = Spare::make(spare);
    let building = catch_unwind(AssertUnwindSafe(|| {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(BLOCKING)
            .thread_keep_alive(FOR_EVER)
            .enable_all()
            .build()
    }));
    let runtime = building.map_err(|_| too_few())??;
    let made = catch_unwind(AssertUnwindSafe(|| fill(&runtime))).map_err(|_| too_few())?;
    drop(kept);
    let lacking = (made < BLOCKING).then(|| {
        format!("only {made} of {BLOCKING} threads could be made (TasksMax=, ulimit -u): what blocks waits longer")
    });
    Ok((runtime, lacking))
}

/// Threads that are there for others to be made in their place.
struct Spare {
    ended: Option<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Spare {
    /// As many as the system gives, up to so many.
    fn make(most: usize) -> Self {
        let (ended, end) = mpsc::channel();
        let end = Arc::new(Mutex::new(end));
        let threads = (0..most).map_while(|_| {
            let end = Arc::clone(&end);
            let wait = move || {
                // Nothing is ever sent: it returns when the other end is gone.
                let end = end.lock().unwrap_or_else(PoisonError::into_inner);
                end.recv().ok();
            };
            thread::Builder::new().spawn(wait).ok()
        });
        Self {
            threads: threads.collect(),
            ended: Some(ended),
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        drop(self.ended.take());
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Makes all threads for blocking work, by work that lasts until all are there, or no more come. How many there
/// are.
fn fill(runtime: &Runtime) -> usize {
    #[derive(Default)]
    struct There {
        count: usize,
        over: bool,
    }
    let there = Arc::new((Mutex::new(There::default()), Condvar::new()));
    let wait = |there: &(Mutex<There>, Condvar)| {
        let (count, came) = there;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            came.wait_timeout_while(count, MADE, |there| !there.over && there.count < BLOCKING);
        let (mut there, _) = waited.unwrap_or_else(PoisonError::into_inner);
        there.over = true;
        came.notify_all();
        there.count
    };
    for _ in 0..BLOCKING {
        let there = Arc::clone(&there);
        runtime.spawn_blocking(move || {
            let mut counted = there.0.lock().unwrap_or_else(PoisonError::into_inner);
            counted.count += usize::from(!counted.over);
            drop(counted);
            there.1.notify_all();
            wait(&there);
        });
    }
    wait(&there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicUsize, Ordering},
    };

    #[test]
    fn all_threads_are_there_from_the_start_and_no_other_is_made() {
        let (runtime, lacking) = runtime(3).unwrap();
        assert_eq!(lacking, None);
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let seen = runtime.block_on(async {
            let all: Vec<_> = (0..1000)
                .map(|_| tokio::spawn(FILES.run(|| thread::current().id())))
                .collect();
            let mut seen = HashSet::new();
            for one in all {
                seen.insert(one.await.unwrap().unwrap());
            }
            seen
        });
        assert!(seen.len() <= BLOCKING);
        // Other tests of this process start and end threads of their own.
        assert!(threads() <= before + BLOCKING, "{before} before");
    }

    #[tokio::test]
    async fn a_kind_that_hangs_leaves_the_threads_of_others_alone() {
        static HANGING: Share = Share::of(3);
        static OTHER: Share = Share::of(1);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let most = Arc::new(AtomicUsize::new(0));
        let all: Vec<_> = (0..20)
            .map(|_| {
                let (held, most) = (Arc::clone(&held), Arc::clone(&most));
                tokio::spawn(HANGING.run(move || {
                    most.fetch_add(1, Ordering::SeqCst);
                    held.lock().unwrap().recv().ok();
                }))
            })
            .collect();
        assert_eq!(OTHER.run(|| 7).await.unwrap(), 7);
        assert!(most.load(Ordering::SeqCst) <= 3);
        drop(release);
        for one in all {
            one.await.unwrap().unwrap();
        }
    }
}
