//! A small collecting reader over the tree: take a key, expect a type, tell what is wrong and go on.

use std::{ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use super::{
    Environment,
    file::File,
    quantity::{duration, duration_text},
    report::{Note, Report},
    suspicion::shown,
    tree::{Fields, Node, Span, Value},
    vocabulary,
};

/// What reading takes besides the tree.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) files: &'a [File],
    pub(super) environment: &'a Environment,
    pub(super) report: &'a Report,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

static EMPTY: Fields = Fields::new();

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    name: &'static str,
    head: Span,
    fields: &'a Fields,
    reading: &'a Reading<'a>,
    #[cfg(debug_assertions)]
    taken: std::collections::BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// The section of this name, as the vocabulary has it.
    pub(super) fn new(
        name: &'static str,
        head: Span,
        fields: &'a Fields,
        reading: &'a Reading<'a>,
    ) -> Self {
        Self {
            name,
            head,
            fields,
            reading,
            #[cfg(debug_assertions)]
            taken: std::collections::BTreeSet::new(),
        }
    }

    /// A section that is left out.
    pub(super) fn left_out(name: &'static str, reading: &'a Reading<'a>) -> Self {
        Self::new(name, Span::new(0, 0..0), &EMPTY, reading)
    }

    /// Where its header stands.
    pub(super) fn head(&self) -> Span {
        self.head
    }

    /// What stands under a key, if it is there.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Item<'a>> {
        #[cfg(debug_assertions)]
        self.taken.insert(key);
        let field = self.fields.get(key)?;
        Some(Item {
            key,
            node: &field.node,
            reading: self.reading,
        })
    }

    /// What stands under a key that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Option<Item<'a>> {
        let item = self.optional(key);
        if item.is_none() {
            let message = format!("{} needs `{key}`", vocabulary::header(self.name));
            self.reading
                .report
                .add(Note::error(self.head, message).absence());
        }
        item
    }

    /// What is read under a key, or the default where the key is left out (or wrong: then that is
    /// told and nothing comes of the whole).
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> T {
        self.optional(key).and_then(read).unwrap_or(default)
    }

    /// Tells of every key that the section does not know.
    pub(super) fn finish(self) {
        let known = vocabulary::keys_of(self.name);
        #[cfg(debug_assertions)]
        assert_eq!(
            self.taken,
            known.iter().copied().collect(),
            "the vocabulary and the reader of {:?} agree",
            self.name
        );
        for (key, field) in self.fields {
            if known.contains(&key.as_str()) {
                continue;
            }
            let header = vocabulary::header(self.name);
            let message = match self.name {
                "" | "sink" | "source" => format!("there is no section {}", shown(key)),
                _ => format!("{header} knows no key {}", shown(key)),
            };
            let homes: Vec<_> = vocabulary::homes_of(key)
                .into_iter()
                .map(vocabulary::header)
                .collect();
            let meant = vocabulary::nearest(key, known.iter().copied());
            let hint = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if !homes.is_empty() => format!("`{key}` belongs in {}", homes.join(" or ")),
                None => format!("it knows {}", known.join(", ")),
            };
            self.reading
                .report
                .add(Note::error(field.key, message).hint(hint));
        }
    }
}

/// A value that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    key: &'static str,
    node: &'a Node,
    reading: &'a Reading<'a>,
}

impl<'a> Item<'a> {
    pub(super) fn span(self) -> Span {
        self.node.span
    }

    pub(super) fn key(self) -> &'static str {
        self.key
    }

    pub(super) fn value(self) -> &'a Value {
        &self.node.value
    }

    pub(super) fn reading(self) -> &'a Reading<'a> {
        self.reading
    }

    pub(super) fn at<T>(self, value: T) -> Located<T> {
        Located {
            value,
            span: self.span(),
        }
    }

    /// Tells that this value is wrong; nothing comes of it.
    pub(super) fn wrong<T>(self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.reading
            .report
            .add(Note::error(self.span(), message).hint(hint));
        None
    }

    pub(super) fn error(self, message: impl Into<String>) -> Note {
        Note::error(self.span(), message)
    }

    pub(super) fn warning(self, message: impl Into<String>) -> Note {
        Note::warning(self.span(), message)
    }

    pub(super) fn tell(self, note: Note) {
        self.reading.report.add(note);
    }

    /// The wrong type, with an example of the right one.
    pub(super) fn mistyped<T>(self, wanted: &str, example: &str) -> Option<T> {
        let message = format!(
            "`{}` must be {wanted}, not {}",
            self.key,
            self.value().kind()
        );
        self.wrong(message, format!("such as {} = {example}", self.key))
    }

    /// A string; the example is for the hint.
    pub(super) fn text(self, example: &str) -> Option<&'a str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => self.mistyped("a string", &format!("{example:?}")),
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self.value() {
            Value::Boolean(yes) => Some(*yes),
            _ => self.mistyped("true or false, without quotes", "true"),
        }
    }

    pub(super) fn integer(self, range: RangeInclusive<i64>) -> Option<i64> {
        let example = range.end().min(&32).to_string();
        let Value::Integer(number, _) = self.value() else {
            return self.mistyped("a whole number", &example);
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong(
                format!("`{}` is out of range", self.key),
                format!("it must be between {} and {}", range.start(), range.end()),
            ),
        }
    }

    pub(super) fn fraction(self, range: RangeInclusive<f64>, example: &str) -> Option<f64> {
        let number = match self.value() {
            Value::Float(number) => *number,
            Value::Integer(Some(number), _) => {
                f64::from(i32::try_from(*number).unwrap_or(i32::MAX))
            }
            _ => return self.mistyped("a number", example),
        };
        if range.contains(&number) {
            return Some(number);
        }
        self.wrong(
            format!("`{}` is out of range", self.key),
            format!(
                "it is a share of a token's life and must be between {} and {}",
                range.start(),
                range.end()
            ),
        )
    }

    /// A duration such as `24h`.
    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let bounds = format!(
            "between {} and {}",
            duration_text(*range.start()),
            duration_text(*range.end())
        );
        let example = format!("{:?}", duration_text(*range.end()));
        let Value::Text(text) = self.value() else {
            return self.mistyped("a duration with its unit, in quotes", &example);
        };
        let Some(read) = duration(text) else {
            return self.wrong(
                format!("{} is not a duration", shown(text)),
                format!(
                    "write a number and its unit, s, m, h or d: {} = {example}",
                    self.key
                ),
            );
        };
        if range.contains(&read) {
            return Some(read);
        }
        self.wrong(
            format!("`{}` is out of range", self.key),
            format!("it must be {bounds}"),
        )
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(choices.first().map_or("", |(word, _)| word))?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words = || choices.iter().map(|(word, _)| *word);
        self.wrong(
            format!("`{}` cannot be {}", self.key, shown(text)),
            one_of(text, words()),
        )
    }

    /// A name or id of the model.
    pub(super) fn name<T>(self, example: &str) -> Option<Located<T>>
    where
        T: FromStr<Err = crate::model::NameError>,
    {
        let text = self.text(example)?;
        match text.parse() {
            Ok(name) => Some(self.at(name)),
            Err(error) => self.wrong(
                format!("{} is not a valid {}", shown(text), error.what),
                error.rule,
            ),
        }
    }

    /// A path; a relative one starts at the directory of the file that names it.
    pub(super) fn path(self, example: &str) -> Option<PathBuf> {
        let text = self.text(example)?;
        if text.is_empty() || text.contains('\0') {
            return self.wrong(
                format!("`{}` is not a path", self.key),
                format!("such as {} = {example:?}", self.key),
            );
        }
        Some(self.reading.files[self.span().file].directory().join(text))
    }

    /// A list.
    pub(super) fn items(self, example: &str) -> Option<impl ExactSizeIterator<Item = Item<'a>>> {
        let Value::Array(nodes) = self.value() else {
            return self.mistyped("a list", example);
        };
        Some(nodes.iter().map(move |node| Item { node, ..self }))
    }

    /// A table, to be read as the section of this name.
    pub(super) fn section(self, name: &'static str, example: &str) -> Option<Section<'a>> {
        match self.value() {
            Value::Table(fields) => Some(Section::new(name, self.span(), fields, self.reading)),
            _ => self.mistyped("a table", example),
        }
    }

    /// The entries of a `[[…]]` list.
    pub(super) fn sections(self, name: &'static str) -> Vec<Section<'a>> {
        let wrong = |span| {
            let message = format!("`{name}` is a list of sections, each with its own header");
            let hint = format!("write [[{name}]], with two brackets");
            self.tell(Note::error(span, message).hint(hint));
        };
        let nodes = match self.value() {
            Value::Array(nodes) => nodes.iter().collect(),
            Value::Table(_) => {
                wrong(self.span());
                vec![self.node]
            }
            _ => {
                wrong(self.span());
                Vec::new()
            }
        };
        let section = |node: &'a Node| match &node.value {
            Value::Table(fields) => Some(Section::new(name, node.span, fields, self.reading)),
            _ => {
                wrong(node.span);
                None
            }
        };
        nodes.into_iter().filter_map(section).collect()
    }
}

/// A hint for a word that is none of those that are allowed.
pub(super) fn one_of<'w>(word: &str, words: impl Iterator<Item = &'w str> + Clone) -> String {
    match vocabulary::nearest(word, words.clone()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("known are {}", words.collect::<Vec<_>>().join(", ")),
    }
}
