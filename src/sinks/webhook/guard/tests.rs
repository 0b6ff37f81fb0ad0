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
