//! Refuses requests that did not mean to come here: from a browser, through a proxy, or by a name
//! that somebody else's DNS points at this machine.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, Uri, header};

use super::{
    handle::Api,
    problem::{Problem, ProblemType},
    wire::CLIENT_HEADER,
};

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// The local socket. The kernel says who calls, and clients invent what they like for a host.
    Socket,
    /// TCP on a loopback address: only by a loopback name, so that no web page can reach it.
    Loopback,
    /// TCP on any other address, where a proxy and any name may be in front.
    Network,
}

/// Middleware: answers in place of the router where [`refusal`] says so.
pub(super) async fn guard(
    State(listener): State<Listener>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(listener, request.headers(), request.uri()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

/// Middleware: while the store may not be used, people may look and say so; nothing else is done, and
/// no token is served.
pub(super) async fn usable(State(api): State<Api>, request: Request, next: Next) -> Response {
    let refusal = api.shared_state().standing.refusal();
    match refusal {
        Some(why) if !may_look(request.method(), request.uri().path()) => {
            Problem::new(ProblemType::StoreUnusable, why).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether a request only looks, or is about the store itself.
fn may_look(method: &Method, path: &str) -> bool {
    let served = ["/v1/tokens/", "/v1/watch"];
    path.starts_with("/v1/store/")
        || (method == Method::GET && !served.iter().any(|prefix| path.starts_with(prefix)))
}

/// Why this request is refused, if it is.
pub(super) fn refusal(listener: Listener, headers: &HeaderMap, uri: &Uri) -> Option<Problem> {
    if listener == Listener::Network {
        return None;
    }
    let refuse = |kind, why: &str| Some(Problem::new(kind, why));
    if listener == Listener::Socket {
        if !headers.contains_key(CLIENT_HEADER) {
            return refuse(
                ProblemType::HeaderMissing,
                "the header X-Renewd-Client is missing; any value will do",
            );
        }
        if let Some(name) = headers
            .keys()
            .find(|name| tells_of_a_stranger(name.as_str()))
        {
            let why = format!(
                "requests with {name} are refused: the socket is for programs on this machine"
            );
            return refuse(ProblemType::HeaderRefused, &why);
        }
    }
    let foreign =
        listener == Listener::Loopback && names_of(headers, uri).any(|host| !is_local(host));
    if foreign {
        return refuse(
            ProblemType::HeaderRefused,
            "the request names another host; use localhost",
        );
    }
    None
}

/// Every host that a request names.
fn names_of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> impl Iterator<Item = &'a str> {
    let hosts = headers.get_all(header::HOST).iter();
    hosts
        .map(|host| host.to_str().unwrap_or("?"))
        .chain(uri.authority().map(|authority| authority.as_str()))
}

/// Headers that browsers and proxies add, and local programs do not.
fn tells_of_a_stranger(header: &str) -> bool {
    matches!(header, "origin" | "forwarded") || header.starts_with("x-forwarded-")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a `Host` (with or without a port) can only mean this machine.
fn is_local(host: &str) -> bool {
    let name = without_port(host);
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case("renewd")
        || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn status(listener: Listener, headers: &[(&str, &str)]) -> Option<u16> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        refusal(listener, &headers, &Uri::from_static("/v1/status")).map(|problem| problem.status)
    }

    #[test]
    fn the_socket_wants_its_header_and_no_stranger() {
        assert_eq!(status(Listener::Socket, &[]), Some(400));
        assert_eq!(status(Listener::Socket, &[("x-renewd-client", "")]), None);
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-anything", "1"),
        ] {
            assert_eq!(
                status(Listener::Socket, &[("x-renewd-client", "t"), (name, value)]),
                Some(403),
                "{name}"
            );
        }
    }

    #[test]
    fn loopback_answers_to_loopback_names_only() {
        for host in [
            "localhost",
            "LOCALHOST:9847",
            "127.0.0.1:9847",
            "[::1]:9847",
            "[::1]",
            "127.9.9.9",
        ] {
            assert_eq!(
                status(Listener::Loopback, &[("host", host)]),
                None,
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9847",
            "192.0.2.1",
            "[2001:db8::1]:80",
        ] {
            assert_eq!(
                status(Listener::Loopback, &[("host", host)]),
                Some(403),
                "{host}"
            );
            assert_eq!(status(Listener::Network, &[("host", host)]), None, "{host}");
        }
    }

    #[test]
    fn the_socket_takes_whatever_clients_invent_for_a_host() {
        let on_socket =
            |host: &str| status(Listener::Socket, &[("x-renewd-client", ""), ("host", host)]);
        for host in [
            "unix",
            "docker",
            "d",
            "_",
            "localhost:80",
            "/run/renewd/renewd.sock",
            "%2Frun%2Frenewd%2Frenewd.sock",
            "2f72756e2f72656e6577642e736f636b:0",
            "renewd.sock",
            "http.unix",
            "api.localhost",
            "",
            "renewd.example.com",
            "host.with.dots.:80",
            "192.0.2.1",
            "[2001:db8::1]:80",
            "not a host, at all",
        ] {
            assert_eq!(on_socket(host), None, "{host}");
        }
        let target = Uri::from_static("http://renewd.example.com/v1/status");
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-renewd-client"),
            header::HeaderValue::from_static("t"),
        )]);
        assert!(refusal(Listener::Socket, &headers, &target).is_none());
        assert_eq!(
            status(Listener::Loopback, &[("host", "unix")]),
            Some(403),
            "TCP is for loopback names"
        );
    }

    #[test]
    fn of_a_store_that_may_not_be_used_one_may_look_at_everything_but_tokens() {
        for (method, path, may) in [
            (Method::GET, "/v1/status", true),
            (Method::GET, "/v1/identities", true),
            (Method::GET, "/v1/tokens/ada", false),
            (Method::GET, "/v1/watch", false),
            (Method::PUT, "/v1/tokens/ada/ack", false),
            (Method::POST, "/v1/campaigns", false),
            (Method::POST, "/v1/store/accept", true),
        ] {
            assert_eq!(may_look(&method, path), may, "{method} {path}");
        }
    }

    #[test]
    fn an_absolute_target_counts_as_a_host() {
        let uri = Uri::from_static("http://evil.example/v1/status");
        assert!(refusal(Listener::Loopback, &HeaderMap::new(), &uri).is_some());
    }
}
