//! What is answered while the database is away: what this node's mirror holds, with its age, and of everything else
//! that it has to wait.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::{
    handle::Api,
    problem::{Problem, ProblemType},
};
use crate::model::{DatabaseAway, short_duration};

/// How old in seconds it is what is answered.
pub(super) const AGE: HeaderName = HeaderName::from_static("x-renewd-age");
/// When to come again: the database is looked for more often than that.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// Middleware: while the database is away, whatever changes something is told to wait, and answers tell how old they are.
pub(super) async fn aged(State(api): State<Api>, request: Request, next: Next) -> Response {
    let before = api.store.away();
    if let Some(away) = &before
        && !needs_no_database(request.method(), request.uri().path())
    {
        let why = format!("nothing can be changed: {}", away.because);
        return waits(&why).into_response();
    }
    let mut response = next.run(request).await;
    // It may have gone, or come back, while the answer was made.
    if let Some(away) = before.or_else(|| api.store.away())
        && let Some(age) = away.age(api.clock.now())
    {
        let seconds = HeaderValue::from(age.as_secs());
        response.headers_mut().insert(AGE, seconds);
    }
    response
}

/// That something has to wait for the database, and why.
pub(super) fn waits(why: &str) -> Problem {
    let detail = format!(
        "{why}. It goes on by itself once the database answers this node, which `renewd status` tells; tokens that this \
         node knows are served meanwhile"
    );
    Problem::new(ProblemType::Stale, detail).retry_after(COME_AGAIN)
}

/// Whether a request only looks, or is about what is not in the database.
fn needs_no_database(method: &Method, path: &str) -> bool {
    method == Method::GET || (path.starts_with("/v1/sinks/") && path.ends_with("/test"))
}

/// What is wrong and what is served meanwhile, for people.
pub(super) fn told(away: &DatabaseAway, now: Timestamp) -> String {
    match away.age(now) {
        Some(age) => format!(
            "the database is away, and what this node knew {} ago is served: nothing is renewed or changed through this \
             node until it is back",
            short_duration(age)
        ),
        None => "the database is away, and this node has no mirror of it: nothing is served, renewed or changed \
                 through this node until it is back"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_is_answered_and_what_changes_something_waits() {
        for (method, path, may) in [
            (Method::GET, "/v1/tokens/ada", true),
            (Method::GET, "/v1/watch", true),
            (Method::GET, "/v1/identities", true),
            (Method::PUT, "/v1/tokens/ada/ack", false),
            (Method::POST, "/v1/campaigns", false),
            (Method::POST, "/v1/campaigns/plan", false),
            (Method::POST, "/v1/sinks/hook/pause", false),
            (Method::POST, "/v1/sinks/hook/test", true),
            (Method::POST, "/v1/reload", false),
            (Method::DELETE, "/v1/identities/ada", false),
        ] {
            assert_eq!(needs_no_database(&method, path), may, "{method} {path}");
        }
    }
}
