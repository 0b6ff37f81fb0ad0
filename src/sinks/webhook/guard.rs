//! Which addresses a webhook may reach when its host is a name.
//!
//! Whoever writes an address into the configuration means it. A name means whatever its zone answers
//! today, so a name must not lead inside: to this machine, to private networks, or to the services
//! that hand credentials to whoever asks from inside a cloud. Those last ones are never reached, not
//! even by an address that was written.
//!
//! The decision is made over the whole answer of a lookup, and the connection goes to the addresses
//! that were judged: no second lookup stands between. Ranges are those of the IANA special-purpose
//! registries (RFC 6890 and its updates).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::answer::{self, Form};
use crate::transport::Resolver;

/// Credential services that answer by name (Google, Amazon).
const METADATA_NAMES: [&str; 5] = [
    "metadata",
    "metadata.goog",
    "metadata.google.internal",
    "instance-data",
    "instance-data.ec2.internal",
];
/// Amazon, Azure and most others; Azure's WireServer; Amazon's for tasks and pods; Alibaba; Oracle.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// Amazon's for instances and for pods; Google's.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Why an address is not a public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    /// A cloud's service that hands out credentials.
    Metadata,
    /// This machine.
    Loopback,
    /// A network of somebody's own.
    Private,
    /// The nearest wire.
    LinkLocal,
    /// Multicast, documentation, tunnels and the like.
    Reserved,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "a cloud's metadata service",
            Self::Loopback => "this machine",
            Self::Private => "a private network",
            Self::LinkLocal => "a link-local address",
            Self::Reserved => "an address that is not public",
        })
    }
}

/// What an address is, unless it is public.
pub(super) fn inside(address: IpAddr) -> Option<Inside> {
    match address {
        IpAddr::V4(address) => inside_v4(address),
        IpAddr::V6(address) => inside_v6(address),
    }
}

/// Whether a host's name is that of a metadata service.
pub(super) fn is_metadata_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    METADATA_NAMES
        .iter()
        .any(|name| host.eq_ignore_ascii_case(name))
}

/// Whether a name leads to this machine by definition (RFC 6761).
pub(super) fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Lets all the addresses of an answer pass, or none.
///
/// # Errors
/// With the sentence for the operator, when any of them is forbidden.
pub(super) fn admit(
    host: &str,
    addresses: Vec<SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, String> {
    for address in &addresses {
        let ip = address.ip();
        match inside(ip) {
            None => {}
            Some(Inside::Metadata) => {
                return Err(format!(
                    "{host} resolves to {ip}, {}, where nothing is ever posted",
                    Inside::Metadata
                ));
            }
            Some(_) if allow_private => {}
            Some(what) => {
                return Err(format!(
                    "{host} resolves to {ip}, {what}; if that is meant, write the address itself or say allow_private = true"
                ));
            }
        }
    }
    Ok(addresses)
}

/// A resolver that gives out only what may be reached.
pub(super) fn guarded(lookup: Resolver, allow_private: bool) -> Resolver {
    Resolver::new(Arc::new(move |host: String| {
        let lookup = lookup.clone();
        Box::pin(async move {
            let addresses = lookup.resolve(&host).await?;
            admit(&host, addresses, allow_private)
        })
    }))
}

fn inside_v4(address: Ipv4Addr) -> Option<Inside> {
    let [a, b, c, _] = address.octets();
    if METADATA_V4.contains(&address) {
        return Some(Inside::Metadata);
    }
    match (a, b, c) {
        // The whole of 0/8 is "this host"; Linux connects 0.0.0.0 to itself.
        (0 | 127, ..) => Some(Inside::Loopback),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Some(Inside::Private),
        (169, 254, _) => Some(Inside::LinkLocal),
        (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113)
        | (224.., ..) => Some(Inside::Reserved),
        _ => None,
    }
}

fn inside_v6(address: Ipv6Addr) -> Option<Inside> {
    // Before every other reading: what is allowed as a private address may be this as another.
    let may_be = answer::possible(address);
    if METADATA_V6.contains(&address) || may_be.iter().any(|v4| METADATA_V4.contains(v4)) {
        return Some(Inside::Metadata);
    }
    if address.is_loopback() || address.is_unspecified() {
        return Some(Inside::Loopback);
    }
    let embedded = answer::embedded(address);
    if let Some(found) = embedded.iter().find_map(|(_, v4)| inside_v4(*v4)) {
        return Some(found);
    }
    // A mapped address is its IPv4 address, and a DNS64 network reaches the public one through its
    // translator. Tunnels have no place in front of a receiver.
    if let Some((Form::Mapped | Form::Translated, _)) = embedded.first() {
        return None;
    }
    let [first, second, ..] = address.segments();
    match (first, second) {
        (0xfc00..=0xfdff, _) | (0xfec0..=0xfeff, _) => Some(Inside::Private),
        (0xfe80..=0xfebf, _) => Some(Inside::LinkLocal),
        (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, 0..=0xfff) => Some(Inside::Reserved),
        (0x2000..=0x3fff, _) => None,
        _ => Some(Inside::Reserved),
    }
}

#[cfg(test)]
mod tests;
