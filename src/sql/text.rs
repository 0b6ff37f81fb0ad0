//! A statement's text for PostgreSQL: its parameters, whether rows may be fetched by pages, and what it does to the
//! transaction that it stands in.

use super::dialect::for_postgres;

/// What a statement's answer is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    All,
    First,
    /// A page: two more parameters say how many rows, after how many.
    Page,
}

/// A statement as PostgreSQL takes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SqlText {
    pub(super) sql: String,
    /// Parameters that it has of its own.
    pub(super) params: usize,
    /// Whether it was cut to what is wanted: it selects, and has no limit of its own.
    pub(super) cut: bool,
}

/// Writes `?1` as `$1`, outside of literals, names in quotes and comments, and adds the limit of what is wanted.
pub(super) fn translated(sql: &str, wanted: Extent) -> SqlText {
    let sql: &str = &for_postgres(sql);
    let (mut out, mut params, mut depth) = (String::with_capacity(sql.len() + 16), 0, 0_usize);
    let (mut rest, mut limited) = (sql, false);
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\'' | '"' => quoted(rest, c),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '?' => {
                let digits = digits(&rest[1..]);
                let number = &rest[1..=digits];
                params = params.max(number.parse().unwrap_or(0));
                out.push('$');
                out.push_str(number);
                rest = &rest[1 + digits..];
                continue;
            }
            c if c.is_alphabetic() || c == '_' => {
                let word = word(rest);
                limited |= depth == 0 && word.eq_ignore_ascii_case("limit");
                word.len()
            }
            c => {
                match c {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                c.len_utf8()
            }
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    let cut = wanted != Extent::All && !limited && selects(sql);
    if cut {
        out.push_str(&match wanted {
            Extent::Page => format!(" LIMIT ${} OFFSET ${}", params + 1, params + 2),
            Extent::First | Extent::All => " LIMIT 1".to_owned(),
        });
    }
    SqlText {
        sql: out,
        params,
        cut,
    }
}

/// The length of what stands between quotes, with them; two of them inside are one.
fn quoted(text: &str, quote: char) -> usize {
    let close = text[1..].find(quote);
    close.map_or(text.len(), |at| at + 2)
}

fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len())
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn selects(sql: &str) -> bool {
    let first = word(sql.trim_start());
    first.eq_ignore_ascii_case("select") && !sql.trim_end().ends_with("FOR UPDATE")
}

/// What a text does to the transaction that it is run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Begins,
    Commits,
    Ends,
    /// Takes back what was done since a savepoint.
    TakesBack,
    /// Makes or forgets a savepoint.
    Marks,
}

/// What each statement of a text does to the transaction; nothing where one does something else.
pub(super) fn controls(sql: &str) -> Option<Vec<Control>> {
    let statements = sql
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    statements.map(control).collect()
}

fn control(statement: &str) -> Option<Control> {
    let mut words = statement.split_whitespace();
    let first = words.next()?.to_ascii_uppercase();
    match (&*first, words.next()) {
        ("BEGIN", _) => Some(Control::Begins),
        ("ROLLBACK", Some(to)) if to.eq_ignore_ascii_case("to") => Some(Control::TakesBack),
        ("COMMIT" | "END", _) => Some(Control::Commits),
        ("ROLLBACK", _) => Some(Control::Ends),
        ("SAVEPOINT" | "RELEASE", _) => Some(Control::Marks),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_renumbered_where_they_stand() {
        let text = translated(
            "SELECT '?1', \"a?2\", x -- ?3\n, /* ?4 */ y FROM t WHERE a = ?2 AND b IN (?1, ?12) AND c = 'it''s ?5'",
            Extent::All,
        );
        assert_eq!(
            text.sql,
            "SELECT '?1', \"a?2\", x -- ?3\n, /* ?4 */ y FROM t WHERE a = $2 AND b IN ($1, $12) AND c = 'it''s ?5'"
        );
        assert_eq!((text.params, text.cut), (12, false));
    }

    #[test]
    fn a_selection_without_a_limit_is_cut_to_what_is_wanted() {
        let page = translated("SELECT a FROM t WHERE b = ?1 ORDER BY a", Extent::Page);
        assert_eq!(
            page.sql,
            "SELECT a FROM t WHERE b = $1 ORDER BY a LIMIT $2 OFFSET $3"
        );
        let inner = translated("SELECT (SELECT x FROM u LIMIT 1) FROM t", Extent::First);
        assert!(inner.cut && inner.sql.ends_with("FROM t LIMIT 1"));
        for whole in [
            "SELECT a FROM t limit ?1",
            "INSERT INTO t (a) VALUES (?1) RETURNING a",
            "WITH x AS (DELETE FROM t RETURNING a) SELECT a FROM x",
            "SELECT a FROM t FOR UPDATE",
        ] {
            assert!(!translated(whole, Extent::First).cut, "{whole}");
        }
        let named = translated("SELECT t.limited, \"limit\" FROM t", Extent::First);
        assert!(named.cut);
    }

    #[test]
    fn what_a_text_does_to_its_transaction_is_known() {
        use Control::*;
        assert_eq!(controls("ROLLBACK; BEGIN"), Some(vec![Ends, Begins]));
        assert_eq!(
            controls("ROLLBACK TO part; RELEASE part"),
            Some(vec![TakesBack, Marks])
        );
        assert_eq!(controls("SAVEPOINT part"), Some(vec![Marks]));
        assert_eq!(controls("COMMIT"), Some(vec![Commits]));
        assert_eq!(controls("UPDATE t SET a = 1; COMMIT"), None);
    }
}
