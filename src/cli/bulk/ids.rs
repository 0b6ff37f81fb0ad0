//! Names and ACS ids from a file: one per line, CSV with a heading, or JSON lines. All of it is
//! understood before anything is done.

use std::{fs::File, io::Read, path::Path};

use crate::model::{Fields, IdentityId, Lines, Name, other_delimiter, text_of};

use super::super::exit::Failed;

/// The largest file.
const LARGEST: u64 = 64 * 1024 * 1024;
/// At most so many refused lines are shown.
const SHOWN: usize = 20;

/// What a file named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) names: Vec<Name>,
    pub(super) ids: Vec<IdentityId>,
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Listed, Failed> {
    let shown = path.display();
    let failed =
        |error: &dyn std::fmt::Display| Failed::usage(format!("cannot read {shown}: {error}"));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    if read.map_err(|error| failed(&error))? as u64 > LARGEST {
        return Err(Failed::usage(format!(
            "{shown} is larger than 64 MiB; split it"
        )));
    }
    let text = text_of(&bytes).map_err(|error| failed(&error))?;
    parse(text).map_err(|refused| {
        let some: Vec<&str> = refused.iter().take(SHOWN).map(String::as_str).collect();
        Failed::usage(format!(
            "{shown}: nothing was done, {} lines cannot be understood:\n{}",
            refused.len(),
            some.join("\n")
        ))
    })
}

/// All that a text names, or every line that cannot be understood with its number and the reason.
fn parse(text: &str) -> Result<Listed, Vec<String>> {
    let (mut listed, mut refused) = (Listed::default(), Vec::new());
    let lines = Lines::of(text.as_bytes()).filter_map(Result::ok);
    // It was read as text, and no end of a line is a part of a character.
    let lines = lines.filter_map(|(at, line)| Some((at, String::from_utf8(line).ok()?)));
    let mut lines = lines.filter(|(_, line)| is_content(line.trim())).peekable();
    let first = lines.peek().map(|(_, line)| line.trim().to_owned());
    let columns = first
        .as_deref()
        .and_then(Columns::of)
        .transpose()
        .map_err(|why| vec![why])?;
    let heading = columns.is_some();
    if heading {
        lines.next();
    }
    for (at, line) in lines {
        let found = match &columns {
            Some(columns) => columns.pick(&line),
            None if line.trim_start().starts_with('{') => from_json(&line),
            None => Ok(line.trim().to_owned()),
        };
        let added = found.and_then(|word| listed.add(&word));
        if let Err(why) = added {
            refused.push(format!("line {at}: {why}"));
        }
    }
    if refused.is_empty() && listed == Listed::default() {
        refused.push("it names nobody".to_owned());
    }
    let word = first.as_deref().and_then(other_delimiter);
    if let (Some(word), false, false) = (word, heading, refused.is_empty()) {
        refused.push(format!(
            "{word} separate the columns of its first line, and commas are wanted"
        ));
    }
    if refused.is_empty() {
        Ok(listed)
    } else {
        Err(refused)
    }
}

fn is_content(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

impl Listed {
    fn add(&mut self, word: &str) -> Result<(), String> {
        if word.starts_with("8:") {
            self.ids.push(word.parse().map_err(|e| format!("{e}"))?);
        } else {
            self.names.push(word.parse().map_err(|e| format!("{e}"))?);
        }
        Ok(())
    }
}

/// Where name and id stand in a CSV file.
struct Columns {
    name: Option<usize>,
    id: Option<usize>,
}

impl Columns {
    /// The columns, if a line is a heading.
    fn of(line: &str) -> Option<Result<Self, String>> {
        let cells = cells(line)?;
        let place = |word: &str| cells.iter().position(|cell| cell.trim() == word);
        let (name, id) = (place("name"), place("id"));
        if name.is_none() && id.is_none() {
            return None;
        }
        let twice = |word: &str| cells.iter().filter(|cell| cell.trim() == word).count() > 1;
        Some(match ["name", "id"].into_iter().find(|word| twice(word)) {
            Some(word) => Err(format!("its first line has the column `{word}` twice")),
            None => Ok(Self { name, id }),
        })
    }

    fn pick(&self, line: &str) -> Result<String, String> {
        let cells = cells(line).ok_or("it is not CSV")?;
        let cell = |at: Option<usize>| {
            let cell = cells.get(at?)?.trim();
            (!cell.is_empty()).then(|| cell.to_owned())
        };
        cell(self.name)
            .or_else(|| cell(self.id))
            .ok_or_else(|| "it has neither name nor id".to_owned())
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(str::to_owned).collect())
}

fn from_json(line: &str) -> Result<String, String> {
    let fields = Fields::read(line.as_bytes()).map_err(|e| format!("not a JSON object: {e}"))?;
    let word = |key| match fields.only(key) {
        Ok(value) => Ok(value.and_then(serde_json::Value::as_str)),
        Err(key) => Err(format!("the key {key:?} stands there twice")),
    };
    let word = word("name")?.or(word("id")?).map(str::to_owned);
    word.ok_or_else(|| "it has neither name nor id".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> (Vec<String>, Vec<String>) {
        let listed = parse(text).unwrap();
        let names = listed.names.iter().map(ToString::to_string).collect();
        (names, listed.ids.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn three_formats_name_the_same() {
        let wanted = (vec!["anna".to_owned()], vec!["8:acs:x".to_owned()]);
        for text in [
            "# stolen\nanna\n\n8:acs:x\n",
            "name,resource,id\nanna,contoso,8:acs:a\n,contoso,\"8:acs:x\"\n",
            "{\"name\":\"anna\",\"id\":\"8:acs:a\"}\n{\"id\":\"8:acs:x\",\"labels\":{}}\n",
        ] {
            assert_eq!(words(text), wanted, "{text}");
        }
    }

    #[test]
    fn every_wrong_line_is_told_by_its_number() {
        let refused = parse("anna\na b\n{\"nme\":1}\n{oops\n8:\u{e4}\n").unwrap_err();
        let starts: Vec<&str> = refused.iter().map(|line| &line[..7]).collect();
        assert_eq!(starts, ["line 2:", "line 3:", "line 4:", "line 5:"]);
        for end in ["\r\n", "\r"] {
            let refused =
                parse(&["", "anna", "", "a b", "{\"name\":\"x\",\"name\":\"y\"}"].join(end))
                    .unwrap_err();
            let starts: Vec<&str> = refused.iter().map(|line| &line[..7]).collect();
            assert_eq!(starts, ["line 4:", "line 5:"], "{refused:?}");
        }
        assert!(parse("name,id,name\na,,b\n").unwrap_err()[0].contains("twice"));
        assert_eq!(parse("# nobody\n").unwrap_err(), ["it names nobody"]);
        let semicolons = parse("name;id\nanna;8:acs:x\n").unwrap_err();
        assert!(
            semicolons[2].starts_with("semicolons separate"),
            "{semicolons:?}"
        );
    }

    #[test]
    fn a_mark_is_skipped_and_utf16_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        for text in ["anna\n", "name,id\nanna,\n", "{\"name\":\"anna\"}\n"] {
            std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
            assert_eq!(
                read(&path).unwrap().names,
                ["anna".parse().unwrap()],
                "{text}"
            );
        }
        std::fs::write(&path, b"\xff\xfea\0\n\0").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("UTF-16"));
    }
}
