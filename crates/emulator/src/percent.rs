//! Percent-decoding of one path segment, after the path was split.

/// The segment with every `%XX` decoded; `None` where an escape or the result is not valid.
pub(super) fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, tail @ ..] = tail else {
                return None;
            };
            bytes.push(nibble(*high)? << 4 | nibble(*low)?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|n| u8::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_plain_text_is_left() {
        assert_eq!(decode("8%3Aacs%3aa_b").as_deref(), Some("8:acs:a_b"));
        assert_eq!(decode("a%2Fb+%C3%BC").as_deref(), Some("a/b+ü"));
        assert_eq!(decode("%3"), None);
        assert_eq!(decode("%zz"), None);
        assert_eq!(decode("%ff"), None);
    }
}
