//! What TCP serves: health, metrics, and a page that does not know who looks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use super::{
    guard::{Door, guard},
    handle::Api,
    problem::{Problem, ProblemType, as_document},
    snapshot::Snapshot,
    wire::PublicStatus,
};
use crate::telemetry::Exposition;

/// So many may wait for a look: the other connections are left to whoever asks whether renewd lives.
const WAITING: usize = 192;
/// How long a look at the daemon may take, with the one before it.
const LOOK: Duration = Duration::from_secs(10);

const PAGE: &str = include_str!("page.html");
/// The page is one file: its own script and style, and questions to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Looks at the daemon, one at a time. Whoever asks while one is under way waits for the next one, which all share
/// who wait by then: readers of tokens wait for the same store.
#[derive(Debug)]
struct Looks<T> {
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
    async fn shared(&self, look: impl Future<Output = T>) -> Result<Arc<T>, Problem> {
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
}

/// What the endpoints look at.
#[derive(Debug, Clone)]
struct Seen {
    api: Api,
    glances: Arc<Looks<Snapshot>>,
    looks: Arc<Looks<Snapshot>>,
}

impl Seen {
    async fn glance(&self) -> Result<Arc<Snapshot>, Problem> {
        self.glances.shared(Snapshot::glance(&self.api)).await
    }

    async fn whole(&self) -> Result<Arc<Snapshot>, Problem> {
        self.looks.shared(Snapshot::take(&self.api)).await
    }
}

/// The endpoints behind `door`.
pub(super) fn router(api: Api, door: Door) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/", get(page))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .fallback(super::no_such_endpoint)
        .layer(middleware::from_fn_with_state(door, guard))
        .layer(middleware::from_fn(as_document))
        .with_state(Seen {
            api,
            glances: Arc::default(),
            looks: Arc::default(),
        })
}

/// That this is answered is the answer.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(seen): State<Seen>) -> Result<Response, Problem> {
    let readiness = seen.glance().await?.readiness();
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok((status, NO_STORE, Json(readiness)).into_response())
}

async fn metrics(
    State(seen): State<Seen>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let form = Exposition::accepted(accepted.filter_map(|value| value.to_str().ok()));
    let scrape = seen.whole().await?.scrape();
    let headers = [
        (header::CONTENT_TYPE, form.content_type()),
        (header::VARY, "accept"),
    ];
    Ok((headers, seen.api.metrics.render(scrape, form)))
}

async fn status(State(seen): State<Seen>) -> Result<impl IntoResponse, Problem> {
    let status: PublicStatus = seen.whole().await?.public();
    Ok((NO_STORE, Json(status)))
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE)
}

const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

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
