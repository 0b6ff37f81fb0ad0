//! A small collecting reader over the tree: take a key, expect a type, tell what is wrong and go on.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{
    Environment, Limit,
    file::File,
    keys::{self, Key, Table, Takes, Vocabulary},
    problem::{Note, ProblemReport},
    quantity::{duration, duration_text, is_plain, limit, shown},
    tree::{Members, Node, Span, Value},
};

/// What reading takes besides the tree.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    pub(super) files: &'a [File],
    pub(super) environment: &'a Environment,
    pub(super) report: &'a ProblemReport,
    pub(super) vocabulary: &'static Vocabulary,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

static EMPTY: Members = Members::new();

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    table: &'static Table,
    head: Span,
    fields: &'a Members,
    reading: &'a Inputs<'a>,
    /// Keys that it was told why it cannot have.
    refused: Vec<&'static str>,
    #[cfg(debug_assertions)]
    taken: std::collections::BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        table: &'static Table,
        head: Span,
        fields: &'a Members,
        reading: &'a Inputs<'a>,
    ) -> Self {
        Self {
            table,
            head,
            fields,
            reading,
            refused: Vec::new(),
            #[cfg(debug_assertions)]
            taken: std::collections::BTreeSet::new(),
        }
    }

    /// The table under a key, as a section of its own; an empty one where the key is left out.
    pub(super) fn inner(&mut self, name: &'static str) -> Section<'a> {
        let (key, item) = self.take(name);
        let left_out = || match key.takes {
            Takes::Table(table) => Section::new(table, Span::new(0, 0..0), &EMPTY, self.reading),
            _ => unreachable!("only a key of a table is read so"),
        };
        item.and_then(Item::section).unwrap_or_else(left_out)
    }

    /// Where its header stands.
    pub(super) fn head(&self) -> Span {
        self.head
    }

    /// Tells why a key has no place here that a reader may look for.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str, hint: &str) {
        if let Some(field) = self.fields.get(key) {
            self.tell(Note::error(field.key, message).hint(hint));
            self.refused.push(key);
        }
    }

    pub(super) fn tell(&self, note: Note) {
        self.reading.report.add(note);
    }

    /// Its header as an operator writes it.
    pub(super) fn header(&self) -> &'static str {
        self.table.header
    }

    /// The row of a key and what stands under it.
    #[expect(
        clippy::expect_used,
        reason = "every key that is read has its row, or the first test that reads its section fails"
    )]
    fn take(&mut self, name: &'static str) -> (&'static Key, Option<Item<'a>>) {
        #[cfg(debug_assertions)]
        self.taken.insert(name);
        let key = self
            .table
            .key(name)
            .expect("each key that is read has a row");
        let item = self.fields.get(name).map(|field| Item {
            key,
            node: &field.node,
            entry: false,
            reading: self.reading,
        });
        (key, item)
    }

    /// What stands under a key, if it is there.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.take(key).1
    }

    /// What stands under a key that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Option<Item<'a>> {
        let item = self.optional(key);
        if item.is_none() {
            let message = format!("{} needs `{key}`", self.table.header);
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

    /// What is read under a key, or the default of its row.
    fn preset<T: Default>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
        preset: impl FnOnce(&'static Key) -> Option<T>,
    ) -> T {
        let (row, item) = self.take(key);
        item.and_then(read)
            .or_else(|| preset(row))
            .unwrap_or_default()
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> bool {
        self.preset(key, Item::boolean, |row| row.preset_text().parse().ok())
    }

    pub(super) fn integer<T: TryFrom<i64> + Default>(&mut self, key: &'static str) -> T {
        self.preset(key, Item::integer, |row| {
            row.preset_text()
                .parse()
                .ok()
                .and_then(|n| T::try_from(n).ok())
        })
    }

    pub(super) fn share(&mut self, key: &'static str) -> f64 {
        self.preset(key, Item::share, |row| row.preset_text().parse().ok())
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Duration {
        self.preset(key, Item::duration, |row| duration(row.preset_text()))
    }

    /// One of the row's words, as the value that stands at the same place; the row names a default.
    pub(super) fn word<T: Copy, const N: usize>(&mut self, key: &'static str, values: [T; N]) -> T {
        let (row, item) = self.take(key);
        let read = match item {
            Some(item) => item.word(&values),
            None => row.value_of(row.preset_text(), &values),
        };
        read.unwrap_or(values[0])
    }

    /// Tells of every key that the section does not know.
    pub(super) fn finish(self) {
        #[cfg(debug_assertions)]
        assert_eq!(
            self.taken,
            self.table.keys().map(|key| key.name).collect(),
            "every key of {:?} is read",
            self.table.name
        );
        let known = || self.table.keys().map(|key| key.name);
        let unknown = self.fields.iter();
        let is_unknown = |key: &str| self.table.key(key).is_none() && !self.refused.contains(&key);
        for (key, field) in unknown.filter(|(key, _)| is_unknown(key)) {
            // Guessing what was meant costs, and nobody would see it.
            if self.reading.report.is_full() {
                return;
            }
            let header = self.table.header;
            let message = match (
                self.table.is_of_sections(),
                self.reading.vocabulary.may_name(key),
            ) {
                (true, true) => format!("there is no section {key:?}"),
                (true, false) => "there is no section of this name".to_owned(),
                (false, true) => format!("{header} knows no key {key:?}"),
                (false, false) => format!("{header} does not know this key"),
            };
            let homes = self.reading.vocabulary.homes_of(key);
            let hint = match keys::nearest(key, known()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if !homes.is_empty() => format!("`{key}` belongs in {}", homes.join(" or ")),
                None => format!("it knows {}", known().collect::<Vec<_>>().join(", ")),
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
    key: &'static Key,
    node: &'a Node,
    /// It is one of the list that stands under the key.
    entry: bool,
    reading: &'a Inputs<'a>,
}

impl<'a> Item<'a> {
    pub(super) fn span(self) -> Span {
        self.node.span
    }

    pub(super) fn key(self) -> &'static str {
        self.key.name
    }

    pub(super) fn value(self) -> &'a Value {
        &self.node.value
    }

    pub(super) fn reading(self) -> &'a Inputs<'a> {
        self.reading
    }

    pub(super) fn at<T>(self, value: T) -> Located<T> {
        Located {
            value,
            span: self.span(),
        }
    }

    /// Whether what stands here may be quoted.
    pub(super) fn is_shown(self) -> bool {
        self.key.may_show(self.value())
    }

    /// Tells that this value is wrong; nothing comes of it.
    pub(super) fn wrong<T>(self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.reading
            .report
            .add(Note::error(self.span(), message).hint(hint));
        None
    }

    /// Tells that this value is wrong, with the sample as a hint.
    pub(super) fn unlike_sample<T>(self, message: impl Into<String>) -> Option<T> {
        self.wrong(message, self.sample())
    }

    fn out_of_range<T>(self, bounds: &str) -> Option<T> {
        self.wrong(
            format!("`{}` is out of range", self.key.name),
            format!("it must be {bounds}"),
        )
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

    /// How it could be written, for a hint.
    pub(super) fn sample(self) -> String {
        format!("such as {} = {}", self.key.name, self.key.sample)
    }

    /// The wrong type, with an example of the right one.
    pub(super) fn mistyped<T>(self, wanted: &str) -> Option<T> {
        let what = if self.entry { "an entry of " } else { "" };
        let (name, kind) = (self.key.name, self.value().kind());
        self.unlike_sample(format!("{what}`{name}` must be {wanted}, not {kind}"))
    }

    pub(super) fn text(self) -> Option<&'a str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => self.mistyped("a string"),
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self.value() {
            Value::Boolean(yes) => Some(*yes),
            _ => self.mistyped("true or false, without quotes"),
        }
    }

    fn integer<T: TryFrom<i64>>(self) -> Option<T> {
        let Value::Integer(number, _) = self.value() else {
            return self.mistyped("a whole number");
        };
        let Takes::Integer(least, most) = self.key.takes else {
            return number.and_then(|number| T::try_from(number).ok());
        };
        let fits = number.filter(|number| (least..=most).contains(number));
        match fits.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.out_of_range(&format!("between {least} and {most}")),
        }
    }

    pub(super) fn share(self) -> Option<f64> {
        let number = match self.value() {
            Value::Float(number) => *number,
            Value::Integer(Some(number), _) => {
                f64::from(i32::try_from(*number).unwrap_or(i32::MAX))
            }
            _ => return self.mistyped("a number"),
        };
        match self.key.takes {
            Takes::Share(least, most) if !(least..=most).contains(&number) => {
                self.out_of_range(&format!("a share between {least} and {most}"))
            }
            _ => Some(number),
        }
    }

    /// A duration such as `24h`.
    pub(super) fn duration(self) -> Option<Duration> {
        let Value::Text(text) = self.value() else {
            return self.mistyped("a duration with its unit, in quotes");
        };
        let Some(read) = duration(text) else {
            return self.wrong(
                format!("{} is not a duration", shown(text)),
                format!(
                    "write a number and its unit, s, m, h or d, {}",
                    self.sample()
                ),
            );
        };
        match self.key.takes {
            Takes::Duration(least, most) if !(least..=most).contains(&read.as_secs()) => {
                let text = |secs| duration_text(Duration::from_secs(secs));
                self.out_of_range(&format!("between {} and {}", text(least), text(most)))
            }
            _ => Some(read),
        }
    }

    /// So many in a window, such as `1000/30s`.
    pub(super) fn limit(self) -> Option<Limit> {
        let text = self.text()?;
        let Some(limit) = limit(text) else {
            return self.wrong(
                format!("{} is not a limit", shown(text)),
                format!("so many in so long, {}", self.sample()),
            );
        };
        let windows = Duration::from_secs(1)..=Duration::from_hours(1);
        match self.key.takes {
            Takes::Limit(most)
                if !(1..=most).contains(&limit.calls) || !windows.contains(&limit.window) =>
            {
                self.out_of_range(&format!("1 to {most} in 1s to 1h"))
            }
            _ => Some(limit),
        }
    }

    /// One of the row's words, as the value that stands at the same place.
    pub(super) fn word<T: Copy>(self, values: &[T]) -> Option<T> {
        let text = self.text()?;
        if let Some(value) = self.key.value_of(text, values) {
            return Some(value);
        }
        let words = self.key.words().iter().map(|(word, _)| *word);
        self.wrong(
            format!("`{}` cannot be {}", self.key.name, shown(text)),
            one_of(text, words),
        )
    }

    /// A name or id of the model.
    pub(super) fn name<T>(self) -> Option<Located<T>>
    where
        T: FromStr<Err = crate::model::NameError>,
    {
        let text = self.text()?;
        match text.parse() {
            Ok(name) => Some(self.at(name)),
            Err(error) => self.wrong(
                format!("{} is not a valid {}", shown(text), error.what),
                error.rule,
            ),
        }
    }

    /// A path; a relative one starts at the directory of the file that names it.
    pub(super) fn path(self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() || text.contains('\0') {
            return self.unlike_sample(format!("`{}` is not a path", self.key.name));
        }
        Some(self.reading.files[self.span().file].directory().join(text))
    }

    pub(super) fn items(self) -> Option<impl ExactSizeIterator<Item = Item<'a>>> {
        let Value::Array(nodes) = self.value() else {
            return self.mistyped("a list");
        };
        Some(nodes.iter().map(move |node| Item {
            node,
            entry: true,
            ..self
        }))
    }

    /// A table, to be read as the section of its row.
    pub(super) fn section(self) -> Option<Section<'a>> {
        match self.key.takes {
            Takes::Table(table) | Takes::Tables(table) => self.section_of(table),
            _ => None,
        }
    }

    /// A table, to be read as this section.
    pub(super) fn section_of(self, table: &'static Table) -> Option<Section<'a>> {
        match self.value() {
            Value::Table(fields) => Some(Section::new(table, self.span(), fields, self.reading)),
            _ => self.mistyped("a table"),
        }
    }

    /// The entries of a `[[…]]` list.
    pub(super) fn sections(self) -> Vec<Section<'a>> {
        let Takes::Tables(table) = self.key.takes else {
            return Vec::new();
        };
        let name = table.name;
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
            Value::Table(fields) => Some(Section::new(table, node.span, fields, self.reading)),
            _ => {
                wrong(node.span);
                None
            }
        };
        nodes.into_iter().filter_map(section).collect()
    }

    /// Whether mistakes enough were told of.
    pub(super) fn is_enough(self) -> bool {
        self.reading.report.is_full()
    }
}

/// A hint for a word that is none of those that are allowed.
pub(super) fn one_of<'w>(word: &str, words: impl Iterator<Item = &'w str> + Clone) -> String {
    let words = words.filter(|word| is_plain(word));
    match keys::nearest(word, words.clone()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("known are {}", words.collect::<Vec<_>>().join(", ")),
    }
}
