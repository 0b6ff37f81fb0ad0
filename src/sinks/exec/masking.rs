//! What a program said, made fit for a log: without any part of the token, on one line, and short.

use std::collections::HashSet;

use zeroize::Zeroizing;

/// So many bytes that a text shares with the token are no coincidence. A program that prints half of
/// it, or wraps it at some column, is caught as well as one that prints it whole.
const SHARED: usize = 12;
/// What stands for the masked part.
const MASK: &[u8] = b"***";
/// The end of what was said is what explains a failure.
const LONGEST: usize = 600;

/// The end of an output as one printable line, with every part of the token masked.
pub(super) fn readable(said: &[u8], token: Option<&str>) -> String {
    let masked = match token {
        Some(token) if !token.is_empty() => mask(said, token.as_bytes()),
        _ => Zeroizing::new(said.to_vec()),
    };
    let text = String::from_utf8_lossy(&masked);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" | ");
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    match line.char_indices().rev().nth(LONGEST) {
        Some((at, cut)) => format!("…{}", &line[at + cut.len_utf8()..]),
        None => line,
    }
}

fn mask(said: &[u8], token: &[u8]) -> Zeroizing<Vec<u8>> {
    let width = SHARED.min(token.len());
    let parts: HashSet<&[u8]> = token.windows(width).collect();
    let mut masked = Zeroizing::new(Vec::with_capacity(said.len()));
    // Everything before this place belongs to a part of the token.
    let mut secret_until = 0;
    for at in 0..said.len() {
        let is_start = said
            .get(at..at + width)
            .is_some_and(|part| parts.contains(part));
        if is_start {
            if at >= secret_until && !masked.ends_with(MASK) {
                masked.extend_from_slice(MASK);
            }
            secret_until = at + width;
        }
        if at >= secret_until {
            masked.push(said[at]);
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJza3lwZWlkIjoiYWNzIn0.c2lnbmF0dXJl";

    #[test]
    fn the_token_and_its_parts_are_masked_and_the_rest_is_not() {
        let said = |text: String| readable(text.as_bytes(), Some(TOKEN));
        assert_eq!(said(format!("got {TOKEN}, thanks")), "got ***, thanks");
        assert_eq!(said(format!("{TOKEN}{TOKEN}")), "***");
        assert_eq!(said(format!("cut {}", &TOKEN[20..])), "cut ***");
        assert_eq!(said(format!("a {} b", &TOKEN[3..30])), "a *** b");
        assert_eq!(said("curl: (7) Failed".to_owned()), "curl: (7) Failed");
        assert_eq!(readable(b"short abc", Some("abc")), "short ***");
    }

    #[test]
    fn it_is_one_short_printable_line() {
        assert_eq!(
            readable(b"one\n\n \x1b[31mtwo\r\n", None),
            "one | \u{fffd}[31mtwo"
        );
        let long = readable("ä".repeat(5000).as_bytes(), None);
        assert!(long.starts_with('…') && long.chars().count() == LONGEST + 1);
        assert_eq!(readable(b"\xff", None), "\u{fffd}");
        assert_eq!(readable(b"", Some(TOKEN)), "");
    }

    proptest! {
        #[test]
        fn no_part_of_the_token_is_ever_seen(before in ".{0,40}", from in 0..40usize, len in 12..60usize, after in ".{0,40}") {
            let end = (from + len).min(TOKEN.len());
            let said = format!("{before}{}{after}", &TOKEN[from..end]);
            let seen = readable(said.as_bytes(), Some(TOKEN));
            for part in TOKEN.as_bytes().windows(SHARED) {
                prop_assert!(!seen.contains(std::str::from_utf8(part).unwrap()), "{seen}");
            }
        }
    }
}
