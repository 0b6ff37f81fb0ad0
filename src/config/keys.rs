//! What is said of a key, once: its type, bounds, default, sample and meaning. The rows stand in
//! [`sections`](super::sections), each above the lines that read it. The reader takes bounds and
//! defaults from them; hints for unknown keys, what an error may show, the check of a reload and the
//! reference file (`config/renewd.toml`) are made from the same rows.
//!
//! To add a key: a row in its section, the line there that reads it, and a field in `settings`.

use super::{
    quantity::{THIS, is_plain, is_word},
    tree::Value,
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    pub(super) preset: Preset,
    /// A value as it is written in TOML.
    pub(super) sample: &'static str,
    pub(super) shown: Shown,
    /// An error may quote what stands under it, where that reads as words and numbers do.
    pub(super) quoted: bool,
    /// What else it may be, as JSON Schema calls the type; empty where nothing.
    pub(super) also: &'static str,
    /// A running daemon cannot follow a change of it.
    pub(super) restart: bool,
    pub(super) says: &'static str,
}

/// What a key takes, with its bounds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    Text,
    Path,
    /// A name or an id of the model.
    Name,
    Names,
    Boolean,
    Integer(i64, i64),
    Share(f64, f64),
    /// At least and at most so many seconds.
    Duration(u64, u64),
    /// One of these, each with what it means where the word alone does not say it.
    Word(&'static [(&'static str, &'static str)]),
    /// So many, at most this, in a window of 1s to 1h.
    Limit(u32),
    /// Users, and groups as `group:NAME`.
    Accounts,
    /// A list of strings.
    Texts,
    /// A table whose keys are free.
    Free,
    /// A reference to a secret.
    Secret,
    /// A list of references to secrets.
    Secrets,
    /// `[name]`, or an inline table.
    Table(&'static Table),
    /// `[[name]]`.
    Tables(&'static Table),
}

/// What holds where a key is left out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Preset {
    Required,
    /// Nothing: what the key would bring about does not happen.
    Nothing,
    /// This, as it is written in TOML.
    Is(&'static str),
    /// What this section says of the same key.
    Of(&'static str),
    /// Something that depends on the surroundings, in words.
    Said(&'static str),
}

/// How the reference file shows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Line,
    /// In a comment, since it does not go together with the rest of the sample.
    Comment,
    /// Not here: another section explains it.
    Elsewhere,
}

/// The keys of a section.
#[derive(Debug)]
pub(super) struct Table {
    /// As it stands in a header: `sink.file`.
    pub(super) name: &'static str,
    /// As an operator writes it: `[[sink.file]]`.
    pub(super) header: &'static str,
    pub(super) says: &'static str,
    /// In groups, of which several sections share one.
    pub(super) groups: &'static [&'static [Key]],
}

impl Table {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static Key> + Clone {
        self.groups.iter().copied().flatten()
    }

    /// The row of a key.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// The default of a row whose default is a plain value.
    #[expect(clippy::expect_used, reason = "a test reads the default of every row")]
    pub(super) fn preset<T>(&self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> T {
        let text = self.key(name).map(Key::preset_text);
        text.and_then(read)
            .expect("the row has a default that can be read")
    }

    /// Whether it holds nothing but sections.
    pub(super) fn is_of_sections(&self) -> bool {
        self.keys()
            .all(|key| matches!(key.takes, Takes::Table(_) | Takes::Tables(_)))
    }
}

/// A row that the reference file shows.
pub(super) const fn key(
    name: &'static str,
    takes: Takes,
    preset: Preset,
    sample: &'static str,
    says: &'static str,
) -> Key {
    Key {
        name,
        takes,
        preset,
        sample,
        shown: Shown::Line,
        quoted: takes.is_harmless(),
        also: "",
        restart: false,
        says,
    }
}

impl Takes {
    /// Whether what it takes is never a secret: numbers, durations, words that are known, names, paths.
    /// Free text may be anything.
    const fn is_harmless(&self) -> bool {
        !matches!(
            self,
            Self::Text
                | Self::Texts
                | Self::Free
                | Self::Secret
                | Self::Secrets
                | Self::Table(_)
                | Self::Tables(_)
        )
    }
}

impl Key {
    /// Free text of which an error may quote what reads as words and numbers do.
    pub(super) const fn quoted(self) -> Self {
        Self {
            quoted: true,
            ..self
        }
    }

    /// It may also be written as this type of JSON Schema.
    pub(super) const fn or(self, also: &'static str) -> Self {
        Self { also, ..self }
    }

    /// A path or a name where a secret may have been put by mistake.
    pub(super) const fn unquoted(self) -> Self {
        Self {
            quoted: false,
            ..self
        }
    }

    pub(super) const fn restart(self) -> Self {
        Self {
            restart: true,
            ..self
        }
    }

    pub(super) const fn commented(self) -> Self {
        Self {
            shown: Shown::Comment,
            ..self
        }
    }

    pub(super) const fn elsewhere(self) -> Self {
        Self {
            shown: Shown::Elsewhere,
            ..self
        }
    }

    /// The same key where another section has another default, sample or meaning.
    pub(super) const fn again(
        self,
        preset: Preset,
        sample: &'static str,
        says: &'static str,
    ) -> Self {
        Self {
            preset,
            sample,
            says,
            ..self
        }
    }

    /// Whether what stands under it may be shown.
    pub(super) fn may_show(&self, value: &Value) -> bool {
        self.quoted
            && match value {
                Value::Text(text) => is_plain(text),
                Value::Array(_) | Value::Table(_) => false,
                _ => true,
            }
    }

    /// The words that it takes; none where it takes something else.
    pub(super) fn words(&self) -> &'static [(&'static str, &'static str)] {
        match self.takes {
            Takes::Word(words) => words,
            _ => &[],
        }
    }

    /// The value at the place of this word.
    pub(super) fn value_of<T: Copy>(&self, word: &str, values: &[T]) -> Option<T> {
        debug_assert_eq!(self.words().len(), values.len(), "{}", self.name);
        let at = self.words().iter().position(|(known, _)| *known == word)?;
        values.get(at).copied()
    }

    /// The default as a text without its quotes; none where it is not a plain value.
    pub(super) fn preset_text(&self) -> &'static str {
        match self.preset {
            Preset::Is(text) => text.trim_matches('"'),
            _ => "",
        }
    }
}

pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// Every key of every section.
#[derive(Debug)]
pub(super) struct Vocabulary(Vec<&'static Table>);

impl Vocabulary {
    /// The tables below `root`, the outer ones first, then the one of a secret's reference.
    pub(super) fn new(root: &'static Table, secret: &'static Table) -> Self {
        let mut tables = vec![root];
        let mut at = 0;
        while let Some(table) = tables.get(at) {
            let inner = table.keys().filter_map(|key| match key.takes {
                Takes::Table(inner) | Takes::Tables(inner) => Some(inner),
                _ => None,
            });
            tables.extend(inner.collect::<Vec<_>>());
            at += 1;
        }
        tables.push(secret);
        Self(tables)
    }

    fn every_key(&self) -> impl Iterator<Item = &'static Key> {
        self.0.iter().flat_map(|table| table.keys())
    }

    /// The keys that a running daemon cannot follow, such as `daemon.listen`.
    pub(super) fn restart_keys(&self) -> Vec<String> {
        let path = |table: &Table, key: &Key| format!("{}.{}", table.name, key.name);
        let keys = self
            .0
            .iter()
            .flat_map(|table| table.keys().map(move |key| (table, key)));
        keys.filter(|(_, key)| key.restart)
            .map(|(table, key)| path(table, key))
            .collect()
    }

    /// The headers of the sections that know a key, for "this belongs in …".
    pub(super) fn homes_of(&self, name: &str) -> Vec<&'static str> {
        let sections = self.0.iter().take(self.0.len().saturating_sub(1));
        sections
            .filter(|table| !table.name.is_empty() && table.key(name).is_some())
            .map(|table| table.header)
            .collect()
    }

    /// Whether a word is a key of some section.
    pub(super) fn is_known(&self, word: &str) -> bool {
        self.every_key().any(|key| key.name == word)
    }

    /// Whether an error may name a key that its section does not know: it is known elsewhere, or reads as one
    /// that was misspelt.
    pub(super) fn may_name(&self, word: &str) -> bool {
        self.is_known(word) || is_word(word)
    }

    /// A key that users choose, for a message.
    pub(super) fn of_user(&self, key: &str) -> String {
        match self.may_name(key) {
            true => format!("{key:?}"),
            false => THIS.to_owned(),
        }
    }
}

/// The candidate that a misspelt word was probably meant to be: at most a third of it is wrong.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &plain(candidate)),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= (word.chars().count().max(candidate.len()) / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{quantity::duration, sections::VOCABULARY};

    #[test]
    fn misspelt_words_find_their_meaning() {
        let table = VOCABULARY.0.iter().find(|table| table.name == "sink.file");
        let keys = || table.unwrap().keys().map(|key| key.name);
        assert_eq!(nearest("paht", keys()), Some("path"));
        assert_eq!(nearest("Path", keys()), Some("path"));
        assert_eq!(nearest("colour", keys()), None);
    }

    /// The allow-list of free text, as one reads it: nobody adds to it by accident.
    #[test]
    fn only_this_free_text_may_be_quoted() {
        let is_free = |key: &&Key| matches!(key.takes, Takes::Text | Takes::Texts);
        let quoted = VOCABULARY
            .every_key()
            .filter(is_free)
            .filter(|key| key.quoted);
        let names: std::collections::BTreeSet<_> = quoted.map(|key| key.name).collect();
        let expected = [
            "api_version",
            "cron",
            "events",
            "group",
            "instance",
            "listen",
            "max_scopes",
            "mode",
            "owner",
            "path",
            "scopes",
            "select",
            "timezone",
        ];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
        for key in VOCABULARY.every_key() {
            let is_secret = matches!(key.takes, Takes::Secret | Takes::Secrets | Takes::Free);
            assert!(!(is_secret && key.quoted), "{}", key.name);
        }
    }

    #[test]
    fn every_default_is_within_its_bounds() {
        for key in VOCABULARY.every_key() {
            let text = key.preset_text();
            if !matches!(key.preset, Preset::Is(_)) {
                continue;
            }
            let fits = match key.takes {
                Takes::Boolean => matches!(text, "true" | "false"),
                Takes::Integer(least, most) => {
                    text.parse().is_ok_and(|n: i64| (least..=most).contains(&n))
                }
                Takes::Share(least, most) => {
                    text.parse().is_ok_and(|n: f64| (least..=most).contains(&n))
                }
                Takes::Duration(least, most) => duration(text).is_some_and(|read| {
                    (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&read)
                }),
                Takes::Word(words) => words.iter().any(|(word, _)| *word == text),
                Takes::Limit(most) => {
                    crate::config::quantity::limit(text).is_some_and(|limit| limit.calls <= most)
                }
                _ => true,
            };
            assert!(fits, "{}", key.name);
        }
    }
}
