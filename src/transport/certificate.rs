//! When certificates end: what DER says of that, and nothing else of them.

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// Whoever needed a certificate that ended so long ago has another by now, where others of the bundle live.
const OUTLIVED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// More than so many are the public authorities, of which hardly any is needed and each month one may end.
const OURS: usize = 16;

/// When the first of the certificates in a bundle of PEM ends that are still of use at `now`, of the public authorities
/// the last; `None` where none can be read.
pub fn first_end(pem: &[u8], now: Timestamp) -> Option<Timestamp> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let ends: Vec<Timestamp> = certificates.filter_map(|der| end(&der)).collect();
    let of_use = ends
        .iter()
        .filter(|end| now.duration_since(**end) < OUTLIVED);
    let first = of_use.min().filter(|_| ends.len() <= OURS);
    first.or(ends.iter().max()).copied()
}

/// When a certificate ends (`notAfter` of RFC 5280).
pub fn end(der: &[u8]) -> Option<Timestamp> {
    let (_, validity, _) = element(from_validity(der)?)?;
    let (_, _, until) = element(validity)?;
    let (tag, text, _) = element(until)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The key that a certificate is about (`SubjectPublicKeyInfo` of RFC 5280, in DER).
pub fn public_key(der: &[u8]) -> Option<&[u8]> {
    let (_, _, subject) = element(from_validity(der)?)?;
    let (_, _, key) = element(subject)?;
    let (_, _, rest) = element(key)?;
    key.get(..key.len() - rest.len())
}

/// What a certificate says from its validity on.
fn from_validity(der: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(der)?;
    let (_, mut body, _) = element(certificate)?;
    // The version may be left out; then come serial number, algorithm and issuer.
    if element(body)?.0 == 0xa0 {
        body = element(body)?.2;
    }
    for _ in 0..3 {
        body = element(body)?.2;
    }
    Some(body)
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], mut rest) = der.split_first_chunk()?;
    let mut length = usize::from(length);
    if length >= 0x80 {
        let bytes = rest.split_at_checked(length - 0x80)?;
        if bytes.0.len() > 4 {
            return None;
        }
        let number = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
        length = bytes.0.iter().fold(0, number);
        rest = bytes.1;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `UTCTime` or `GeneralizedTime`, in whole seconds of UTC.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    let century = match (tag, digits.get(..2)?) {
        (0x17, year) if year < "50" => "20",
        (0x17, _) => "19",
        (0x18, _) => "",
        _ => return None,
    };
    let digits = format!("{century}{digits}");
    let part = |from: usize, to: usize| digits.get(from..to);
    let at = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    at.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER_ENDS: &str = "2054-04-15T20:23:52Z";
    const LATER: &str = "-----BEGIN CERTIFICATE-----
MIIBfjCCASOgAwIBAgIUHIz/uG2C26OyJntDFI4QHv2kjf8wCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIZXhhbXBsZTIwIBcNMjYxMTI4MjAyMzUyWhgPMjA1NDA0MTUy
MDIzNTJaMBMxETAPBgNVBAMMCGV4YW1wbGUyMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEdaLqWyd+5MY0uRCwPISF0K3AI9gVjzuPSi90k3VwStPH3KuPETPeZPla
+NU6BwnidNnsOVU1zFeuqSDnaaohU6NTMFEwHQYDVR0OBBYEFFUoJnwV7kqVmwHf
PDXif72bolRAMB8GA1UdIwQYMBaAFFUoJnwV7kqVmwHfPDXif72bolRAMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAKUGwvuyuoBhDKQDZcADFcdX
U3C/w7MKmidL2HCSyCv8AiEAw3xqbqImYslxcSnj5q+B60tuoCqTduvGzzNyqUvd
fvg=
-----END CERTIFICATE-----
";
    const LEAF: &str = "-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUUSZ7zWV4Lq3TOtio4/ulijryC0wwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHZXhhbXBsZTAeFw0yNjExMjgxNjQxMzlaFw0zNjExMjUxNjQx
MzlaMBIxEDAOBgNVBAMMB2V4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQErvGadaIzTg1G340QMHVRPTREzZSkKMoZnUUR7wWDTk4zNRtw2wVXEgUVryyk
Bu//MW1mcZK1CskfbaW1GfGjo1MwUTAdBgNVHQ4EFgQUUJH8n0d39amUUA7Fs7ql
f4WsQ5AwHwYDVR0jBBgwFoAUUJH8n0d39amUUA7Fs7qlf4WsQ5AwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBOWnP1omdXddIy42Wd9Mt44bewMtlY
RnK4hz/GZmNQBwIhANryBoBNS9LuzyktUKZkalxoRgxdfFNNhJ3iKg9gMUwr
-----END CERTIFICATE-----
";

    #[test]
    fn it_is_read_from_both_forms_of_time() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(time(0x17, "261122120000Z"), at("2026-11-22T12:00:00Z"));
        assert_eq!(time(0x17, "991231235959Z"), at("1999-12-31T23:59:59Z"));
        assert_eq!(time(0x18, "40960101000000Z"), at("4096-01-01T00:00:00Z"));
        for (tag, text) in [
            (0x17, "26"),
            (0x18, "20261341000000Z"),
            (0x04, "261122120000Z"),
            (0x17, "2é1122120000Z"),
        ] {
            assert_eq!(time(tag, text), None, "{text}");
        }
    }

    #[test]
    fn the_first_of_a_bundle_counts_and_what_is_no_certificate_does_not() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (sooner, later) = (at("2036-11-25T16:41:39Z"), at(LATER_ENDS));
        let both = format!("{LATER}nothing\n{LEAF}");
        let of = |pem: &str, now: &str| first_end(pem.as_bytes(), at(now));
        assert_eq!(of(LEAF, "2026-11-22T12:00:00Z"), Some(sooner));
        assert_eq!(of(LEAF, "2086-11-22T12:00:00Z"), Some(sooner), "none lives");
        assert_eq!(of("nothing", "2026-11-22T12:00:00Z"), None);
        assert_eq!(of(&both, "2026-11-22T12:00:00Z"), Some(sooner));
        assert_eq!(
            of(&both, "2036-12-01T12:00:00Z"),
            Some(sooner),
            "somebody may need it"
        );
        assert_eq!(
            of(&both, "2037-01-01T12:00:00Z"),
            Some(later),
            "it is of no use any more"
        );
        let public = LEAF.repeat(OURS) + LATER;
        assert_eq!(of(&public, "2026-11-22T12:00:00Z"), Some(later), "public");
        let der = CertificateDer::from_pem_slice(LEAF.as_bytes()).unwrap();
        for cut in 0..der.len() {
            assert_eq!(super::end(&der[..cut]), None, "cut off at {cut}");
        }
    }
}
