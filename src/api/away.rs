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
use crate::{
    model::{DatabaseAway, mirror_age, short_duration},
    store::noting_mirror,
};

/// How old in seconds it is what is answered.
pub(super) const AGE: HeaderName = HeaderName::from_static("x-renewd-age");
/// When to come again: the database is looked for more often than that.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// Middleware: while the database is away, whatever changes something is told to wait, and answers tell how old they are.
pub(super) async fn aged(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Some(away) = api.store.away()
        && request.method() != Method::GET
    {
        let why = format!("nothing can be changed: {}", away.because);
        return waits(&why).into_response();
    }
    let (mut response, read) = noting_mirror(next.run(request)).await;
    // The mirror may be read before it is known that the database is away, and that may be known before it is read.
    let agreed = read.or_else(|| api.store.away()?.mirror_of);
    if let Some(agreed) = agreed {
        let age = mirror_age(agreed, api.clock.now());
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
