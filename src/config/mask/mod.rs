//! Decides which parts of a configuration text may be shown to people.
//!
//! An excerpt is printed exactly when something is wrong with the text, so nothing here relies on
//! the text being correct TOML. A tolerant scan follows keys, strings and brackets, and *shows* only
//! what stands under a key that is known to hold no secret; values under secret keys, under unknown
//! keys, without a key, in multi-line strings (no key needs one) and in comments are masked. What is
//! shown passes `suspicion`, which finds what looks like a secret wherever it stands.

mod lexis;
#[cfg(test)]
mod tests;

use std::ops::Range;

use lexis::{closing, ends_word, key_at};

use super::{keys, quantity::suspicious_pieces};

/// Whether what the scan is in may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Under a key that holds no secret.
    Open,
    /// Under `labels`, whose keys are free.
    Free,
    /// Under anything else.
    Hidden,
}

/// The byte ranges of `text` that must not be shown, in order.
pub(super) fn masked(text: &str) -> Vec<Range<usize>> {
    let mut scan = Scan {
        text,
        at: 0,
        section: Owner::Open,
        owners: vec![Owner::Hidden],
        braces: Vec::new(),
        out: Vec::new(),
    };
    while scan.at < text.len() {
        scan.line();
    }
    scan.out
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// What the last header allows for the keys below it.
    section: Owner,
    /// The owner outside of all brackets, then one for each open bracket.
    owners: Vec<Owner>,
    /// For each open bracket: whether it is `{`, and the owner of the table around its keys.
    braces: Vec<(bool, Owner)>,
    out: Vec<Range<usize>>,
}

impl Scan<'_> {
    /// Scans from the start of a line to its end, or beyond it to the end of a multi-line string.
    fn line(&mut self) {
        self.skip_blank();
        if let Some(end) = self.header() {
            self.hide_suspicious(self.at..end);
            self.at = end;
            self.leave_brackets(Owner::Hidden);
        } else if let Some((key, end)) = self.key() {
            if self.braces.last().is_none_or(|(brace, _)| !brace) {
                self.leave_brackets(Owner::Hidden);
            }
            self.enter_key(&key, end);
        } else if self.braces.is_empty() {
            self.leave_brackets(Owner::Hidden);
        }
        while self.at < self.text.len() && !self.step() {}
    }

    /// Takes one token; true at the end of the line.
    fn step(&mut self) -> bool {
        if self.stray_key() {
            return false;
        }
        let rest = &self.text[self.at..];
        match rest.as_bytes()[0] {
            b'\n' => {
                self.at += 1;
                return true;
            }
            b'#' => {
                let end = self.at + rest.find('\n').unwrap_or(rest.len());
                self.hide(self.at + 1..end);
                self.at = end;
            }
            b'"' | b'\'' => {
                self.string();
                self.spent();
            }
            open @ (b'[' | b'{') => {
                let owner = self.owner();
                self.owners.push(owner);
                self.braces.push((open == b'{', owner));
                self.at += 1;
                self.inner_key();
            }
            b']' | b'}' => {
                if self.braces.pop().is_some() {
                    self.owners.pop();
                }
                self.at += 1;
            }
            b',' => {
                self.at += 1;
                self.inner_key();
            }
            b'=' | b' ' | b'\t' | b'\r' => self.at += 1,
            _ => {
                self.word();
                self.spent();
            }
        }
        false
    }

    /// A value was taken: what follows it without a comma belongs to no key.
    fn spent(&mut self) {
        self.set_owner(Owner::Hidden);
    }

    /// A key where none can be, because a line end or a bracket was lost before it: it can only
    /// hide what was open.
    fn stray_key(&mut self) -> bool {
        if self.owner() == Owner::Hidden {
            return false;
        }
        let Some((path, end)) = key_at(self.text, self.at) else {
            return false;
        };
        if !self.text[end..]
            .trim_start_matches([' ', '\t'])
            .starts_with('=')
        {
            return false;
        }
        self.hide_suspicious(self.at..end);
        let open = self.owner();
        self.set_owner(path.iter().fold(open, |owner, word| within(owner, word)));
        self.at = end;
        true
    }

    /// After a bracket or a comma: the next value, in an inline table with its key, if there is one on this line.
    fn inner_key(&mut self) {
        let Some((table, around)) = self.braces.last().copied() else {
            return;
        };
        self.set_owner(around);
        if !table {
            return;
        }
        self.skip_blank();
        if let Some((key, end)) = self.key() {
            self.enter_key(&key, end);
        }
    }

    /// Goes on behind a key, whose value follows.
    fn enter_key(&mut self, key: &[String], end: usize) {
        self.hide_suspicious(self.at..end);
        let around = self.braces.last().map_or(self.section, |(_, owner)| *owner);
        let owner = key
            .iter()
            .fold(around, |owner, segment| within(owner, segment));
        self.set_owner(owner);
        self.at = end;
    }

    fn string(&mut self) {
        let rest = &self.text[self.at..];
        let quote = &rest[..1];
        let triple = quote.repeat(3);
        if rest.starts_with(&triple) {
            let body = &rest[3..];
            let end = body.find(&triple).unwrap_or(body.len());
            self.hide(self.at + 3..self.at + 3 + end);
            self.at += (3 + end + 3).min(rest.len());
            // Where it opens by mistake, it ends in the middle of anything: no key speaks for the rest.
            self.leave_brackets(Owner::Hidden);
            return;
        }
        let end = 1 + closing(&rest[1..], quote);
        let content = self.at + 1..self.at + end;
        if self.owner() == Owner::Hidden {
            self.hide(content);
        } else {
            self.hide_suspicious(content);
        }
        self.at += end;
        if self.text[self.at..].starts_with(quote) {
            self.at += 1;
        }
    }

    /// A bare word: a number, a boolean, or a value whose quotes were forgotten.
    fn word(&mut self) {
        let rest = &self.text[self.at..];
        // Outside of brackets nothing tells where a forgotten quote was meant to be: all is hidden.
        let whole = self.owner() == Owner::Hidden && self.braces.is_empty();
        let ends = |c: char| c == '\n' || (!whole && ends_word(c));
        let end = self.at + rest.find(ends).unwrap_or(rest.len()).max(1);
        let end = (end..=self.text.len())
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or(self.text.len());
        if self.owner() == Owner::Hidden {
            self.hide(self.at..end);
        } else {
            self.hide_suspicious(self.at..end);
        }
        self.at = end;
    }

    /// The end of a table header that starts here; sets what the section allows.
    fn header(&mut self) -> Option<usize> {
        let rest = &self.text[self.at..];
        let name = rest.strip_prefix("[[").or(rest.strip_prefix('['))?;
        let start = self.text.len() - name.len();
        let (path, end) = key_at(self.text, start)?;
        let rest = &self.text[end..];
        // An array of bare words is no header; a header whose bracket was forgotten is one.
        if !rest.trim_start_matches([' ', '\t']).starts_with(']')
            && !path.iter().all(|word| keys::is_known(word))
        {
            return None;
        }
        self.section = match path.last() {
            Some(last) if last == "labels" => Owner::Free,
            _ if path
                .iter()
                .any(|word| keys::is_known(word) && !keys::may_show(word)) =>
            {
                Owner::Hidden
            }
            _ => Owner::Open,
        };
        Some(end + (rest.len() - rest.trim_start_matches([']', ' ', '\t']).len()))
    }

    /// A key that starts here, and where its value may start: `key =`, or a known word whose `=`
    /// was forgotten.
    fn key(&self) -> Option<(Vec<String>, usize)> {
        let (path, end) = key_at(self.text, self.at)?;
        let rest = self.text[end..].trim_start_matches([' ', '\t']);
        let known = path.last().is_some_and(|word| keys::is_known(word));
        (rest.starts_with('=') || (known && !rest.starts_with([',', ']', '}'])))
            .then_some((path, end))
    }

    fn skip_blank(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn owner(&self) -> Owner {
        self.owners.last().copied().unwrap_or(Owner::Hidden)
    }

    fn set_owner(&mut self, owner: Owner) {
        if let Some(last) = self.owners.last_mut() {
            *last = owner;
        }
    }

    fn leave_brackets(&mut self, owner: Owner) {
        self.braces.clear();
        self.owners.clear();
        self.owners.push(owner);
    }

    fn hide(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.out.push(range);
        }
    }

    fn hide_suspicious(&mut self, range: Range<usize>) {
        let found = suspicious_pieces(&self.text[range.clone()]);
        self.out.extend(
            found
                .into_iter()
                .map(|part| range.start + part.start..range.start + part.end),
        );
    }
}

/// What a key allows inside of something: once hidden, always hidden.
fn within(around: Owner, key: &str) -> Owner {
    match around {
        Owner::Hidden => Owner::Hidden,
        _ if key == "labels" => Owner::Free,
        Owner::Free if !keys::is_known(key) => Owner::Free,
        _ if keys::may_show(key) => Owner::Open,
        _ => Owner::Hidden,
    }
}
