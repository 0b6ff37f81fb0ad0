//! The IPv4 addresses that stand inside IPv6 ones.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How an IPv4 address stands inside an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
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
pub(super) fn possible(address: Ipv6Addr) -> [Ipv4Addr; 8] {
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
pub(super) fn embedded(address: Ipv6Addr) -> Vec<(Form, Ipv4Addr)> {
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
