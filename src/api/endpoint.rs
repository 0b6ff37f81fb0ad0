//! An endpoint of the local socket as a type: the server routes by it, the client calls by it, and the table in
//! the header of `api` is held to it by a test. The long poll for a token, the event stream and the
//! backup answer in other ways than with one JSON document; they are written out on both sides.

use axum::{
    Json, Router,
    handler::Handler,
    routing::{delete, get, post, put},
};
use http::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{handle::Api, problem::Problem};

pub(super) trait Endpoint {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    const METHOD: Method;
    /// As the router takes it: `/v1/sinks/{name}/pause`.
    const PATH: &'static str;
    /// The keys that a query may have.
    const QUERY: &'static [&'static str];
    /// What is sent with it; `()` is nothing.
    type Body: Serialize;
    type Answer: Serialize + DeserializeOwned;
}

/// What a handler answers: the endpoint's answer, or why not.
pub(super) type EndpointAnswer<E> = Result<Json<<E as Endpoint>::Answer>, Problem>;

/// Declares endpoints: `Name: METHOD "path" ?key key, Body => Answer;`.
macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $method:ident $path:literal $(? $($key:ident)+)?, $body:ty => $answer:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name;

        impl crate::api::endpoint::Endpoint for $name {
            const METHOD: http::Method = http::Method::$method;
            const PATH: &'static str = $path;
            const QUERY: &'static [&'static str] = &[$($(stringify!($key)),+)?];
            type Body = $body;
            type Answer = $answer;
        }
    )+};
}
pub(super) use endpoints;

/// A router that knows which endpoints it has.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Api>,
    known: Vec<(Method, &'static str)>,
}

impl Routes {
    /// What answers an endpoint.
    pub(super) fn endpoint<E, H, T>(self, _: E, handler: H) -> Self
    where
        E: Endpoint,
        H: Handler<T, Api>,
        T: 'static,
    {
        self.written_out(E::METHOD, E::PATH, handler)
    }

    /// What answers one that is no [`Endpoint`].
    pub(super) fn written_out<H, T>(self, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let route = match method {
            Method::GET => get(handler),
            Method::PUT => put(handler),
            Method::DELETE => delete(handler),
            _ => post(handler),
        };
        let Self { router, mut known } = self;
        known.push((method, path));
        Self {
            router: router.route(path, route),
            known,
        }
    }

    pub(super) fn into_router(self) -> Router<Api> {
        self.router
    }

    /// The endpoints, as the table in the header of `api` writes them.
    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        let name = |(method, path): &(Method, &str)| format!("{method} {path}");
        self.known.iter().map(name).collect()
    }
}
