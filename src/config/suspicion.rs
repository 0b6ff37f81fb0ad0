//! What looks like a secret, wherever it stands; and values made fit for messages.

use std::ops::Range;

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
