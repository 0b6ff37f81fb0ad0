//! Looks at the daemon that many who ask share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use super::problem::{Problem, ProblemType};

/// So many may wait for a look: the other connections are left to whoever asks whether renewd lives.
const WAITING: usize = 192;
/// How long a look at the daemon may take, with the one before it.
const LOOK: Duration = Duration::from_secs(10);

/// Looks at the daemon, one at a time. Whoever asks while one is under way waits for the next one, which all share
/// who wait by then: readers of tokens wait for the same store.
#[derive(Debug)]
pub(super) struct Looks<T> {
    begun: AtomicU64,
    last: Mutex<Option<(u64, Arc<T>)>>,
    waiting: Semaphore,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            last: Mutex::new(None),
            waiting: Semaphore::new(WAITING),
        }
    }
}

impl<T> Looks<T> {
    /// What was found by a look that began after this question.
    pub(super) async fn shared(&self, look: impl Future<Output = T>) -> Result<Arc<T>, Problem> {
        let busy = |why| {
            let problem = Problem::new(ProblemType::Busy, why);
            problem.retry_after(Duration::from_secs(5))
        };
        let place = self.waiting.try_acquire();
        let _place = place.map_err(|_| busy(format!("{WAITING} others wait for the same")))?;
        let asked = self.begun.load(Ordering::SeqCst);
        let looked = async {
            let mut last = self.last.lock().await;
            if let Some((number, found)) = &*last
                && *number > asked
            {
                return Arc::clone(found);
            }
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let found = Arc::new(look.await);
            *last = Some((number, Arc::clone(&found)));
            found
        };
        timeout(LOOK, looked).await.map_err(|_| {
            busy(format!(
                "the store is too busy: it was not looked through within {} s",
                LOOK.as_secs()
            ))
        })
    }

    /// What the last look found, if that will do.
    pub(super) fn last(&self, will_do: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let last = self.last.try_lock().ok()?;
        let (_, found) = last.as_ref()?;
        will_do(found).then(|| Arc::clone(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_share_a_look_that_began_after_they_asked() {
        let (looks, made) = (Looks::default(), AtomicU64::new(0));
        let look = || async {
            let number = made.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            number
        };
        let ask = |after: u64| {
            let looks = &looks;
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                *looks.shared(look()).await.unwrap()
            }
        };
        let first = join_all((0..90).map(|_| ask(0)));
        let meanwhile = join_all((0..90).map(|_| ask(500)));
        let (first, meanwhile) = tokio::join!(first, meanwhile);
        assert_eq!((first[0], first[89]), (0, 1));
        assert!(meanwhile.iter().all(|number| *number == 1), "{meanwhile:?}");
        assert_eq!(
            ask(0).await,
            2,
            "what was found before the question is no answer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_given_up() {
        let looks = Looks::<()>::default();
        let (one, other) = tokio::join!(
            looks.shared(std::future::pending()),
            looks.shared(std::future::pending())
        );
        assert_eq!(one.unwrap_err().kind, ProblemType::Busy);
        assert_eq!(other.unwrap_err().kind, ProblemType::Busy);
        assert!(looks.shared(async {}).await.is_ok());
    }
}
