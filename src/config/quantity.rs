//! Values as people write them, and made fit for messages.
//!
//! Durations and limits as people write them: `24h`, `1h30m`, `1000/30s`.
//!
//! What looks like a secret, wherever it stands; and values made fit for messages.

use std::{ops::Range, time::Duration};

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

/// What is printed instead of a masked part.
pub(super) const MASK: &str = "***";

/// A value for a message: quoted, escaped, cut to a bearable length, and masked where it looks like
/// a secret.
pub(super) fn shown(value: &str) -> String {
    let mut plain = String::new();
    let mut at = 0;
    for range in suspicious(value) {
        plain.push_str(&value[at..range.start]);
        plain.push_str(MASK);
        at = range.end;
    }
    plain.push_str(&value[at..]);
    let cut: String = plain.chars().take(80).collect();
    let dots = if cut.len() < plain.len() { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_debug())
}

/// Whether any part of a value looks like a secret.
pub(super) fn looks_secret(value: &str) -> bool {
    !suspicious(value).is_empty()
}

/// The parts of a text that look like a secret: what follows a word such as `accesskey`, the user
/// and the query of a URL, and long runs of mixed letters and digits. In order, not overlapping.
pub(super) fn suspicious(text: &str) -> Vec<Range<usize>> {
    parts(text, is_random)
}

/// As [`suspicious`], and what may be a piece of a secret that a slip has cut in two. For excerpts alone:
/// some honest names look like that, and are masked there.
pub(super) fn suspicious_pieces(text: &str) -> Vec<Range<usize>> {
    parts(text, |word| is_random(word) || is_piece(word))
}

fn parts(text: &str, random: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for word in ["accesskey", "whsec_", "password", "sharedaccess", "bearer "] {
        found.extend(lower.find(word).map(|at| at..text.len()));
    }
    if let Some(authority) = lower.find("://").map(|at| at + 3) {
        let rest = &text[authority..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        found.extend(rest[..end].rfind('@').map(|at| authority..authority + at));
        found.extend(rest.find('?').map(|at| authority + at + 1..text.len()));
    }
    found.extend(random_runs(text, random));
    join(found)
}

/// Runs of base64 or hex that are too long and too mixed to be words.
fn random_runs(text: &str, random: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let in_run = |c: char| c.is_ascii_alphanumeric() || "+/=_".contains(c);
    let mut runs = Vec::new();
    let mut rest = 0;
    while let Some(start) = text[rest..].find(in_run).map(|at| rest + at) {
        let end = text[start..]
            .find(|c| !in_run(c))
            .map_or(text.len(), |at| start + at);
        if text[start..end].split(['/', '_']).any(&random) {
            runs.push(start..end);
        }
        rest = end;
    }
    runs
}

fn is_random(word: &str) -> bool {
    let has = |test: fn(&u8) -> bool| word.bytes().any(|b| test(&b));
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    (word.len() >= 20 && mixed && has(u8::is_ascii_digit))
        || (word.len() >= 40 && mixed)
        || (word.len() >= 32 && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Eight letters and more, of both cases, with a digit or with capitals inside.
fn is_piece(word: &str) -> bool {
    let capitals = word.bytes().skip(1).filter(u8::is_ascii_uppercase).count();
    word.len() >= 8
        && word.bytes().any(|b| b.is_ascii_uppercase())
        && word.bytes().any(|b| b.is_ascii_lowercase())
        && (capitals >= 2 || word.bytes().any(|b| b.is_ascii_digit()))
}

/// Sorts ranges and joins those that touch.
fn join(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
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
}
