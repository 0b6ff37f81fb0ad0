//! An endpoint of the local socket as a type: the server routes by it, the client calls by it, and the table in
//! the header of `api` is held to it by a test. The long poll for a token, the event stream and the
//! backup answer in other ways than with one JSON document; they are written out on both sides.

use axum::{
    Router,
    handler::Handler,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use http::{HeaderValue, Method, StatusCode, header};
#[cfg(test)]
pub(super) use schemars::JsonSchema as Described;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    handle::Api,
    problem::{Problem, ProblemType},
    wire::{Layout, json_of},
};

/// What the description of the socket says of a type: only tests write that.
#[cfg(not(test))]
pub(super) trait Described {}
#[cfg(not(test))]
impl<T> Described for T {}

pub(super) trait Endpoint {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    const METHOD: Method;
    /// As the router takes it: `/v1/sinks/{name}/pause`.
    const PATH: &'static str;
    /// The keys that a query may have.
    const QUERY: &'static [&'static str];
    /// What is sent with it; `()` is nothing.
    type Body: Serialize + Described;
    type Answer: Serialize + DeserializeOwned + Described;
    /// The status with which it comes back.
    const STATUS: StatusCode = StatusCode::OK;
}

/// An answer as JSON, with the version of its form.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let text = match json_of(&self.0, Layout::Short) {
            Ok(text) => text,
            Err(error) => {
                return Problem::new(ProblemType::Internal, error.to_string()).into_response();
            }
        };
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], text).into_response()
    }
}

/// What a handler answers: the endpoint's answer, or why not.
pub(super) type EndpointAnswer<E> = Result<Json<<E as Endpoint>::Answer>, Problem>;

/// Declares endpoints: `Name: METHOD "path" ?key key, Body => Answer;`, with `as CREATED` where the status is not 200.
macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $method:ident $path:literal $(? $($key:ident)+)?, $body:ty => $answer:ty $(as $status:ident)?;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name;

        impl crate::api::endpoint::Endpoint for $name {
            const METHOD: http::Method = http::Method::$method;
            const PATH: &'static str = $path;
            const QUERY: &'static [&'static str] = &[$($(stringify!($key)),+)?];
            type Body = $body;
            type Answer = $answer;
            $(const STATUS: http::StatusCode = http::StatusCode::$status;)?
        }
    )+};
}
pub(super) use endpoints;

/// A router that knows which endpoints it has.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Api>,
    known: Vec<(Method, &'static str)>,
    #[cfg(test)]
    described: Vec<Description>,
}

/// An endpoint as the description of the socket shows it.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) query: &'static [&'static str],
    pub(super) status: StatusCode,
    /// `None` where nothing is sent with it.
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: SchemaOf,
}

#[cfg(test)]
pub(super) type SchemaOf = fn(&mut schemars::SchemaGenerator) -> schemars::Schema;

#[cfg(test)]
impl Description {
    pub(super) fn of<E: Endpoint>() -> Self {
        let is_nothing = std::any::type_name::<E::Body>() == std::any::type_name::<()>();
        let body: SchemaOf = |generator| generator.subschema_for::<E::Body>();
        Self {
            method: E::METHOD,
            path: E::PATH,
            query: E::QUERY,
            status: E::STATUS,
            body: (!is_nothing).then_some(body),
            answer: |generator| generator.subschema_for::<E::Answer>(),
        }
    }
}

impl Routes {
    /// What answers an endpoint.
    pub(super) fn endpoint<E, H, T>(self, _: E, handler: H) -> Self
    where
        E: Endpoint,
        H: Handler<T, Api>,
        T: 'static,
    {
        #[cfg_attr(not(test), expect(unused_mut, reason = "only tests describe it"))]
        let mut routes = self.written_out(E::METHOD, E::PATH, handler);
        #[cfg(test)]
        routes.described.push(Description::of::<E>());
        routes
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
        let mut routes = self;
        routes.known.push((method, path));
        routes.router = routes.router.route(path, route);
        routes
    }

    pub(super) fn into_router(self) -> Router<Api> {
        self.router
    }

    #[cfg(test)]
    pub(super) fn described(self) -> Vec<Description> {
        self.described
    }

    /// The endpoints, as the table in the header of `api` writes them.
    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        let name = |(method, path): &(Method, &str)| format!("{method} {path}");
        self.known.iter().map(name).collect()
    }
}
