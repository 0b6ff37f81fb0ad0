//! Writes ids into the text of a configuration file: only lines are added, everything else stays as
//! it is to the byte, comments and alignment included.

use std::collections::BTreeMap;

use toml_edit::{Document, Item, TableLike};

use crate::model::{IdentityId, Name};

/// A text with ids written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub text: String,
    /// Whose ids were written, in the order of the text.
    pub names: Vec<Name>,
    /// Identities without an id of which none is known.
    pub unknown: Vec<Name>,
}

/// Writes `id = "…"` below the name of each `[[identity]]` that has none and whose id is known.
///
/// # Errors
/// When the text is not TOML; the message is the parser's.
pub fn pin(text: &str, ids: &BTreeMap<Name, IdentityId>) -> Result<Pinned, String> {
    let document = Document::parse(text).map_err(|error| error.message().to_owned())?;
    let mut pinned = Pinned {
        text: text.to_owned(),
        names: Vec::new(),
        unknown: Vec::new(),
    };
    let mut additions: Vec<(usize, String)> = Vec::new();
    let mut see = |table: &dyn TableLike, inline: bool| {
        let Some((name, value)) = unpinned(table) else {
            return;
        };
        let Some(id) = ids.get(&name) else {
            pinned.unknown.push(name);
            return;
        };
        if let Some(end) = value.span().map(|span| span.end) {
            additions.push(addition(text, end, id, inline));
            pinned.names.push(name);
        }
    };
    match document.as_table().get("identity") {
        Some(Item::ArrayOfTables(tables)) => tables.iter().for_each(|table| see(table, false)),
        Some(Item::Value(toml_edit::Value::Array(values))) => {
            let tables = values.iter().filter_map(toml_edit::Value::as_inline_table);
            tables.for_each(|table| see(table, true));
        }
        _ => {}
    }
    for (at, addition) in additions.iter().rev() {
        pinned.text.insert_str(*at, addition);
    }
    Ok(pinned)
}

/// The name of an identity without an id, and where it stands.
fn unpinned(table: &dyn TableLike) -> Option<(Name, &Item)> {
    if table.contains_key("id") {
        return None;
    }
    let value = table.get("name")?;
    Some((value.as_str()?.parse().ok()?, value))
}

/// What is added, and where: a line below the name's, aligned with it; or after it in an inline
/// table.
fn addition(text: &str, end: usize, id: &IdentityId, inline: bool) -> (usize, String) {
    if inline {
        return (end, format!(", id = \"{id}\""));
    }
    let line = text[..end].rfind('\n').map_or(0, |at| at + 1);
    let head = &text[line..end];
    let indent = &head[..head.len() - head.trim_start().len()];
    let width = head.trim_start().find('=').unwrap_or(3);
    let (at, start) = match text[end..].find('\n') {
        Some(at) => (end + at, "\n"),
        None => (text.len(), "\n"),
    };
    let at = if text[..at].ends_with('\r') {
        at - 1
    } else {
        at
    };
    let start = if text[at..].starts_with('\r') {
        "\r\n"
    } else {
        start
    };
    (at, format!("{start}{indent}{:<width$}= \"{id}\"", "id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_are_added() {
        let text = "# ours\n[[identity]]\n  name     = \"a\"  # the first\n  scopes   = [\"chat\"]\n\n[[identity]]\nid = \"8:acs:b\"\nname = \"b\"\n\n[[identity]]\nname = \"c\"\n[[identity]]\r\nname = \"d\"\r\nscopes = []";
        let ids = ["a", "b", "d"].map(|name| {
            (
                name.parse().unwrap(),
                format!("8:acs:{name}").parse().unwrap(),
            )
        });
        let pinned = pin(text, &BTreeMap::from(ids)).unwrap();
        assert_eq!(
            pinned.text,
            "# ours\n[[identity]]\n  name     = \"a\"  # the first\n  id       = \"8:acs:a\"\n  scopes   = [\"chat\"]\n\n[[identity]]\nid = \"8:acs:b\"\nname = \"b\"\n\n[[identity]]\nname = \"c\"\n[[identity]]\r\nname = \"d\"\r\nid   = \"8:acs:d\"\r\nscopes = []"
        );
        assert_eq!(
            pinned.names,
            ["a", "d"].map(|name| name.parse::<Name>().unwrap())
        );
        assert_eq!(pinned.unknown, ["c".parse::<Name>().unwrap()]);
        assert_eq!(
            pin(&pinned.text, &BTreeMap::new()).unwrap().text,
            pinned.text
        );
    }

    #[test]
    fn an_inline_table_gets_a_key() {
        let ids = BTreeMap::from([("a".parse().unwrap(), "8:acs:a".parse().unwrap())]);
        let pinned = pin("identity = [{ name = \"a\", scopes = [\"chat\"] }]\n", &ids).unwrap();
        assert_eq!(
            pinned.text,
            "identity = [{ name = \"a\", id = \"8:acs:a\", scopes = [\"chat\"] }]\n"
        );
    }
}
