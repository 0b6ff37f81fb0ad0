//! Makes text fit for a terminal, where it leaves for one.
//!
//! Much of what is shown was chosen by others: names of columns, messages of other programs, reasons that
//! people gave. On a terminal their control, format and bidirectional characters would move the cursor,
//! hide what stands there or turn it around. Everything that goes to a terminal passes [`fit`], which shows
//! such characters in words (`\u{1b}`) and lets through only the styles that [`paint`] made: those carry
//! a number that nobody outside of this process knows.

use std::{
    borrow::Cow,
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use anstyle::Style;

/// What our own styles begin with.
static OURS: LazyLock<String> =
    LazyLock::new(|| format!("\x1b[{};", RandomState::new().hash_one("style") | 1 << 63));

/// The text in a style; [`fit`] shows the style, and whoever prints strips it where there is no terminal.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    let (begin, end) = (style.render().to_string(), style.render_reset().to_string());
    let ours = |codes: String| codes.replace("\x1b[", &OURS);
    format!("{}{text}{}", ours(begin), ours(end))
}

/// Lines of text with nothing in them that acts on a terminal but our own styles, tabs and line ends.
pub fn fit(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && !is_layout(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut parts = text.split(OURS.as_str());
    let first = parts.next().unwrap_or_default();
    push_shown(&mut shown, first, is_layout);
    for part in parts {
        shown.push_str("\x1b[");
        push_shown(&mut shown, part, is_layout);
    }
    Cow::Owned(shown)
}

/// Words of others as part of one line: line ends and tabs are shown in words, too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    push_shown(&mut shown, text, |_| false);
    Cow::Owned(shown)
}

/// A JSON document in which such characters are written as JSON writes them; it means the same.
pub fn fit_json(document: &str) -> Cow<'_, str> {
    if !document.chars().any(|c| acts(c) && !is_layout(c)) {
        return Cow::Borrowed(document);
    }
    let mut shown = String::with_capacity(document.len());
    for c in document.chars() {
        if acts(c) && !is_layout(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                write!(shown, "\\u{unit:04x}").ok();
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn push_shown(shown: &mut String, text: &str, passes: impl Fn(char) -> bool) {
    for c in text.chars() {
        if acts(c) && !passes(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
}

fn is_layout(c: char) -> bool {
    matches!(c, '\n' | '\t')
}

/// Whether a character acts instead of being seen: controls (Cc), formats and bidirectional marks (Cf),
/// line and paragraph separators (Zl, Zp). Source: UnicodeData.txt 16.0, general categories.
pub(super) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;
    use proptest::prelude::*;

    use super::*;

    const RED: Style = AnsiColor::Red.on_default().bold();

    #[test]
    fn our_styles_pass_and_nobody_elses() {
        let foreign = "\x1b[31mred\x1b]0;title\x07 \u{9b}2J \u{202e}live\u{200b}";
        let text = format!("{} {foreign}\n\tend\n", paint(RED, "lapsed"));
        assert_eq!(
            fit(&text),
            "\x1b[1m\x1b[31mlapsed\x1b[0m \\u{1b}[31mred\\u{1b}]0;title\\u{7} \\u{9b}2J \\u{202e}live\\u{200b}\n\tend\n"
        );
        // Also inside of a style.
        assert!(fit(&paint(RED, "\x1b[8m")).contains("\\u{1b}[8m"));
    }

    #[test]
    fn words_of_others_stay_on_their_line() {
        assert_eq!(
            one_line("no such table\n  all is well\r"),
            "no such table\\u{a}  all is well\\u{d}"
        );
        assert_eq!(one_line("Müller, 日本"), "Müller, 日本");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"a": "\u{202e}\u{9b}\u{e0001}\u{1b}\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = fit_json(&text);
        assert!(shown.contains("\\u202e\\u009b\\udb40\\udc01"), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            prop_assert!(!fit(&text).chars().any(|c| acts(c) && !is_layout(c)));
            prop_assert!(!one_line(&text).chars().any(acts));
        }
    }
}
