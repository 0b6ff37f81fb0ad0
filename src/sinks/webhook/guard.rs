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
    Loopback,
    /// A network of somebody's own.
    Private,
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
    let may_be = possible(address);
    if METADATA_V6.contains(&address) || may_be.iter().any(|v4| METADATA_V4.contains(v4)) {
        return Some(Inside::Metadata);
    }
    if address.is_loopback() || address.is_unspecified() {
        return Some(Inside::Loopback);
    }
    let embedded = embedded(address);
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

/// How an IPv4 address stands inside an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `::ffff:a.b.c.d`: the system connects to the IPv4 address itself.
    Mapped,
    /// `64:ff9b::a.b.c.d`, the prefix of NAT64 and DNS64 (RFC 6052).
    Translated,
    /// Deprecated, tunnelled or private forms.
    Odd,
}

/// What an IPv4 address would be in every place where one may stand in an IPv6 address: whatever its
/// prefix, it may be that of a translator whose own prefix ends at bit 32, 40, 48, 56, 64 or 96 (RFC 6052;
/// bits 64 to 71 are skipped), of a 6to4 router, or of Teredo.
fn possible(address: Ipv6Addr) -> [Ipv4Addr; 8] {
    let b = address.octets();
    let join = |at: [usize; 4]| Ipv4Addr::from(at.map(|at| b[at]));
    [
        join([4, 5, 6, 7]),
        join([5, 6, 7, 9]),
        join([6, 7, 9, 10]),
        join([7, 9, 10, 11]),
        join([9, 10, 11, 12]),
        join([12, 13, 14, 15]),
        join([2, 3, 4, 5]),
        Ipv4Addr::from(!u32::from(join([12, 13, 14, 15]))),
    ]
}

/// Every IPv4 address that may be meant by an IPv6 address.
fn embedded(address: Ipv6Addr) -> Vec<(Form, Ipv4Addr)> {
    let s = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let last = join(s[6], s[7]);
    let mut found = Vec::new();
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] => found.push((Form::Mapped, last)),
        // "Compatible" (deprecated), and translated by SIIT (RFC 2765).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => found.push((Form::Odd, last)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push((Form::Translated, last)),
        // A network's own NAT64 (RFC 8215): its prefix may have any length from 48 to 96 bits, so
        // every place where the address may stand counts; bits 64 to 71 are skipped.
        [0x64, 0xff9b, 1, ..] => {
            found.extend([
                (Form::Odd, join(s[3], s[4] << 8 | s[5] >> 8)),
                (
                    Form::Odd,
                    join(s[4] << 8 | s[5] >> 8, s[5] << 8 | s[6] >> 8),
                ),
                (Form::Odd, last),
            ]);
        }
        [0x2002, high, low, ..] => found.push((Form::Odd, join(high, low))),
        // Teredo (RFC 4380): the server, and the client turned over.
        [0x2001, 0, high, low, ..] => found.extend([
            (Form::Odd, join(high, low)),
            (Form::Odd, join(!s[6], !s[7])),
        ]),
        _ => {}
    }
    // ISATAP (RFC 5214): in the interface identifier, whatever the prefix.
    if matches!(s[4], 0 | 0x200) && s[5] == 0x5efe {
        found.push((Form::Odd, last));
    }
    found
}

#[cfg(test)]
mod tests {
    //! Every form of every forbidden address, and the public ones that pass.

    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<Inside> {
        inside(text.parse().unwrap())
    }

    #[test]
    fn forbidden_addresses_are_known_in_every_form() {
        use Inside::{LinkLocal, Loopback, Metadata, Private, Reserved};
        for (address, what) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("0.0.0.0", Loopback),
            ("0.1.2.3", Loopback),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("169.254.1.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("168.63.129.16", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.192", Metadata),
            ("192.0.2.1", Reserved),
            ("198.18.0.1", Reserved),
            ("203.0.113.9", Reserved),
            ("224.0.0.1", Reserved),
            ("255.255.255.255", Reserved),
            ("::1", Loopback),
            ("::", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", Metadata),
            ("::127.0.0.1", Loopback),
            ("::ffff:0:10.0.0.1", Private),
            ("64:ff9b::7f00:1", Loopback),
            ("64:ff9b::a83f:8110", Metadata),
            ("64:ff9b:1:7f00:0:100::", Loopback),
            ("64:ff9b:1::a00:1", Loopback),
            ("2002:7f00:1::", Loopback),
            ("2002:a9fe:a9fe::1", Metadata),
            ("2001:0:5ef5:79fd:0:0:80ff:fffe", Loopback),
            ("2001:0:5ef5:79fd::", Reserved),
            // Metadata before whatever else it may be.
            ("2001:0:a00:1:0:0:5601:5601", Metadata),
            ("2001:0:a9fe:a9fe:0:0:f5ff:fffe", Metadata),
            ("64:ff9b:1:a9fe:a9:fe00::", Metadata),
            ("64:ff9b:1:a00:0:100:a9fe:a9fe", Metadata),
            ("2001:67c:2960:6464::a9fe:a9fe", Metadata),
            ("2001:67c:a83f:8110::", Metadata),
            ("fd12:3456::5efe:169.254.169.254", Metadata),
            ("fe80::a9fe:a9fe", Metadata),
            ("::a9fe:a9fe", Metadata),
            ("2002:a83f:8110::1", Metadata),
            ("2a01::5efe:10.1.2.3", Private),
            ("fec0::1", Private),
            ("fc00::1", Private),
            ("fd12:3456::1", Private),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fe80::1", LinkLocal),
            ("ff02::1", Reserved),
            ("100::1", Reserved),
            ("2001:db8::1", Reserved),
            ("4000::1", Reserved),
        ] {
            assert_eq!(of(address), Some(what), "{address}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "11.0.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "168.63.129.17",
            "2606:4700::1111",
            "2a01:4f8::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
    }

    #[test]
    fn one_forbidden_answer_refuses_them_all() {
        let answer = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter()
                .map(|ip| (ip.parse::<IpAddr>().unwrap(), 0).into())
                .collect()
        };
        let mixed = answer(&["1.1.1.1", "10.0.0.7"]);
        let why = admit("crm.example", mixed.clone(), false).unwrap_err();
        assert!(
            why.contains("crm.example resolves to 10.0.0.7, a private network"),
            "{why}"
        );
        assert_eq!(admit("crm.example", mixed.clone(), true), Ok(mixed));
        let metadata = answer(&["1.1.1.1", "169.254.169.254"]);
        assert!(admit("crm.example", metadata, true).is_err());
    }

    #[test]
    fn names_that_need_no_lookup_are_known() {
        for name in [
            "metadata.google.internal",
            "METADATA.goog.",
            "instance-data",
        ] {
            assert!(is_metadata_name(name), "{name}");
        }
        assert!(!is_metadata_name("metadata.example"));
        assert!(is_local_name("LOCALHOST") && is_local_name("a.localhost."));
        assert!(!is_local_name("localhost.example"));
    }

    proptest! {
        #[test]
        fn no_form_hides_a_forbidden_address(bits: u32, pick in 0usize..8, port in 1u16..) {
            let samples = [0x7f00_0001, 0x0a00_0001, 0xac10_0001, 0xc0a8_0001, 0xa9fe_a9fe, 0xa83f_8110, 0x6440_0001, bits];
            let v4 = Ipv4Addr::from(samples[pick]);
            prop_assume!(inside_v4(v4).is_some());
            let [high, low] = [(samples[pick] >> 16) as u16, samples[pick] as u16];
            for form in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, port),
                Ipv6Addr::new(0x2001, 0, 0x0101, 0x0101, 0, port, !high, !low),
                Ipv6Addr::new(0x2a01, 0, 0, 0, 0x200, 0x5efe, high, low),
            ] {
                prop_assert!(inside(form.into()).is_some(), "{form} of {v4}");
            }
        }
    }
}
