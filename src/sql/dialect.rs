//! One text for both engines. SQLite takes it as it stands; for PostgreSQL a few things are spelled otherwise here, once
//! per text:
//!
//! - hints of the plan are left out: `INDEXED BY …`, and `CROSS JOIN … ON`, which keeps SQLite from turning a join round;
//! - between `/*sqlite*/` and `/*postgres …*/` stands what only SQLite knows, and in the second comment what
//!   PostgreSQL reads in its place; a `/*postgres …*/` by itself adds something.

/// The text as PostgreSQL reads it, but for its parameters.
pub(super) fn for_postgres(text: &str) -> String {
    without_hints(&with_variants(text))
}

fn with_variants(text: &str) -> String {
    const SQLITE: &str = "/*sqlite*/";
    const POSTGRES: &str = "/*postgres ";
    let (mut spelled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, variant)) = rest.split_once(POSTGRES) {
        let kept = before.split_once(SQLITE).map_or(before, |(kept, _)| kept);
        let (ours, after) = variant.split_once("*/").unwrap_or((variant, ""));
        spelled.push_str(kept);
        spelled.push_str(ours);
        rest = after;
    }
    spelled.push_str(rest);
    spelled
}

fn without_hints(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len());
    let mut pieces = text.split(" INDEXED BY ");
    spelled.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let ends = |char: char| !(char.is_ascii_alphanumeric() || char == '_');
        spelled.push_str(piece.trim_start_matches(|char| !ends(char)));
    }
    spelled.replace("CROSS JOIN ", "JOIN ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_and_variants_are_spelled_for_postgres() {
        for (text, expected) in [
            (
                "SELECT 1 FROM a INDEXED BY a_b CROSS JOIN c ON c.x = a.x",
                "SELECT 1 FROM a JOIN c ON c.x = a.x",
            ),
            ("FROM a INDEXED BY a_b", "FROM a"),
            (
                "SELECT /*sqlite*/instr/*postgres strpos*/(a, ?1) > 0",
                "SELECT strpos(a, ?1) > 0",
            ),
            (
                "(id IS NULL)/*postgres ::int*/ = 0 AND /*sqlite*/a/*postgres b*/ = 1",
                "(id IS NULL)::int = 0 AND b = 1",
            ),
        ] {
            assert_eq!(for_postgres(text), expected, "{text}");
        }
    }
}
