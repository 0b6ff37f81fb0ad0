//! Values as people write them: durations and limits (`24h`, `1h30m`, `1000/30s`), and what of a value may
//! stand in a message.

use std::time::Duration;

use super::Limit;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads `90s`, `5m`, `24h`, `30d`, or several of them, as in `1h30m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let (_, secs) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(count.checked_mul(secs)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(Duration::from_secs(total))
}

/// Writes a duration in its largest whole unit, as it would be read; a day is written `24h`.
pub(super) fn duration_text(duration: Duration) -> String {
    let secs = duration.as_secs();
    UNITS
        .into_iter()
        .find(|(name, unit)| {
            secs >= *unit && secs.is_multiple_of(*unit) && !(*name == 'd' && secs == *unit)
        })
        .map_or_else(
            || format!("{secs}s"),
            |(name, unit)| format!("{}{name}", secs / unit),
        )
}

/// Reads `1000/30s`, so many calls in any window of this length, or `50/s`, which is `50/1s`.
pub(super) fn limit(text: &str) -> Option<Limit> {
    let (calls, window) = text.split_once('/')?;
    let window = window.trim();
    let is_unit = window.starts_with(|c: char| c.is_ascii_alphabetic());
    Some(Limit {
        calls: calls.trim().parse().ok()?,
        window: match is_unit {
            true => duration(&format!("1{window}"))?,
            false => duration(window)?,
        },
    })
}

/// What is said instead of a value that must not be shown.
pub(super) const THIS: &str = "what stands here";

/// A value for a message: quoted, escaped and cut to a bearable length. One that does not read as words and
/// numbers do is not shown.
pub(super) fn shown(value: &str) -> String {
    quoted(value).unwrap_or_else(|| THIS.to_owned())
}

/// A value in quotes, if it may be shown.
pub(super) fn quoted(value: &str) -> Option<String> {
    is_plain(value).then(|| {
        let cut: String = value.chars().take(80).collect();
        let dots = if cut.len() < value.len() { "…" } else { "" };
        format!("\"{}{dots}\"", cut.escape_debug())
    })
}

/// Whether a text reads as words and numbers do: `support-bot`, `/run/renewd/{name}.json`, `127.0.0.1:9847`. At
/// most one of its words mixes capitals or digits into letters, and that is short (in a path a little
/// longer); keys, tokens and made passwords do not read so, whole or in part.
pub(super) fn is_plain(text: &str) -> bool {
    let longest = match text.starts_with('/') {
        true => LONGEST_MIXED_IN_PATH,
        false => LONGEST_MIXED,
    };
    let (mut mixed, mut short) = (0, 0);
    let reads = |word: &str| match Word::of(word) {
        Word::Plain if word.len() <= 2 && word.contains(char::is_alphabetic) => {
            short += 1;
            short <= MOST_SHORT
        }
        Word::Plain => true,
        Word::Mixed(length) => {
            mixed += 1;
            mixed <= 1 && length <= longest
        }
        Word::Odd => false,
    };
    text.len() <= LONGEST_SHOWN && text.split(SEPARATORS).all(reads)
}

/// Whether a text is one or few short words without capitals inside, such as a misspelt key.
pub(super) fn is_word(text: &str) -> bool {
    let mut words = text.split(['_', '-', ' ']);
    text.len() <= 32 && words.all(|word| matches!(Word::of(word), Word::Plain))
}

/// No longer value is shown.
const LONGEST_SHOWN: usize = 240;
/// No longer run of letters is a word.
const LONGEST_WORD: usize = 16;
/// No longer run of letters, capitals and digits in turn is shown.
const LONGEST_MIXED: usize = 7;
const LONGEST_MIXED_IN_PATH: usize = 9;
/// No more words of one or two letters are shown: so many signs come between the letters of a key alone.
const MOST_SHORT: usize = 4;
/// What stands between the words of names, paths, addresses and conditions.
const SEPARATORS: &[char] = &[
    ' ', '.', ',', ':', '/', '_', '-', '@', '{', '}', '*', '=', '\'', '(', ')', '~',
];

enum Word {
    Plain,
    /// Of so many characters.
    Mixed(usize),
    /// With signs in it.
    Odd,
}

impl Word {
    fn of(text: &str) -> Self {
        let kind = |c: char| match c {
            '0'..='9' => Some(0),
            _ if c.is_uppercase() => Some(1),
            _ if c.is_alphabetic() => Some(2),
            _ => None,
        };
        let kinds: Option<Vec<u8>> = text.chars().map(kind).collect();
        let Some(kinds) = kinds else {
            return Self::Odd;
        };
        // A first capital is as good as a small letter.
        let kinds = &kinds[usize::from(kinds.starts_with(&[1, 2]))..];
        let mut changes = kinds.windows(2).filter(|two| two[0] != two[1]);
        let of_case = |two: &[u8]| !two.contains(&0);
        match (changes.next(), changes.next()) {
            (first, None) if kinds.len() <= LONGEST_WORD && !first.is_some_and(of_case) => {
                Self::Plain
            }
            _ => Self::Mixed(kinds.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, secs) in [
            ("90s", 90),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("5m", 300),
        ] {
            assert_eq!(duration(text), Some(Duration::from_secs(secs)));
            assert_eq!(duration_text(Duration::from_secs(secs)), text);
        }
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        for bad in [
            "",
            "24",
            "h",
            "1.5h",
            "-1h",
            "1 h",
            "1w",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_are_read() {
        let expected = Limit {
            calls: 1000,
            window: Duration::from_secs(30),
        };
        assert_eq!(limit("1000/30s"), Some(expected));
        assert_eq!(limit("1000 / 30s"), Some(expected));
        assert_eq!(limit("50/s"), limit("50/1s"));
        for bad in ["1000", "1000/", "1000/30", "/30s", "x/30s", "-1/30s"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_reads_as_words_and_numbers_do_is_shown() {
        for text in [
            "support-bot",
            "/run/renewd/tokens/{name}.json",
            "/tmp/.tmpaB3xY9/renewd.toml",
            "127.0.0.1:9847",
            "group:ops",
            "label.team = 'guest' nad state = late",
            "24x",
            "1000/30s",
            "web-1",
            "2023-10-01-preview",
            "",
        ] {
            assert!(is_plain(text), "{text}");
        }
        for text in [
            "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "0123456789abcdef0123456789abcdef",
            "0b5c9bf5-2d5c-4a27-a0c6-3a4b4b9f0d11",
            "bm90LWEtcmVhbC1rZXk",
            "correcthorsebatterystaple",
            "p4$$w0rd",
            "xK9-vQ2z_tY7",
            "YYNPSRu-CbE",
            "a-B-c9-x_Y-z-k-q",
            "two\nlines",
        ] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
