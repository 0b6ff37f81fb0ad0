//! Where keys, strings and words of a text end that may be broken TOML.

pub(super) fn ends_word(c: char) -> bool {
    "[]{},=\"'#".contains(c) || c.is_whitespace()
}

/// Where a single-line string ends: at its closing quote, or at the end of the line.
pub(super) fn closing(body: &str, quote: &str) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' if quote == "\"" => escaped = true,
            _ if quote.starts_with(c) => return at,
            _ => {}
        }
    }
    body.len()
}

/// A dotted key at a position: its segments and its end.
pub(super) fn key_at(text: &str, start: usize) -> Option<(Vec<String>, usize)> {
    let mut segments = Vec::new();
    let mut at = start;
    loop {
        let rest = &text[at..];
        let segment = match rest.chars().next()? {
            quote @ ('"' | '\'') => {
                let body = &rest[1..];
                let end = body.find([quote, '\n'])?;
                body[end..].starts_with(quote).then_some(())?;
                at += end + 2;
                &body[..end]
            }
            _ => {
                let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let end = rest.find(|c| !bare(c)).unwrap_or(rest.len());
                at += end;
                &rest[..end]
            }
        };
        if segment.is_empty() {
            return None;
        }
        segments.push(segment.to_owned());
        let rest = text[at..].trim_start_matches([' ', '\t']);
        let Some(next) = rest.strip_prefix('.') else {
            return Some((segments, at));
        };
        at = text.len() - next.trim_start_matches([' ', '\t']).len();
    }
}
