//! Aligned tables: a dim heading, columns as wide as they need, the last one cut at the screen's edge.

use anstyle::Style;

use super::output::{DIM, PLAIN, paint};

/// One cell: its text, and how it looks.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, PLAIN)
    }
}

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings; one that starts with `>` is aligned to the right.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell per heading.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line indented, none wider than `width`.
    pub(crate) fn render(&self, indent: usize, width: Option<usize>) -> String {
        let heads: Vec<Cell> = self
            .heads
            .iter()
            .map(|head| Cell::styled(head.trim_start_matches('>'), DIM))
            .collect();
        let headed = heads.iter().any(|head| !head.text.is_empty());
        let lines = headed.then_some(&heads).into_iter().chain(&self.rows);
        let widths = self.widths(&heads);
        let mut text = String::new();
        for line in lines {
            text.push_str(&" ".repeat(indent));
            text.push_str(&self.line(line, &widths, width.map(|w| w.saturating_sub(indent))));
            text.push('\n');
        }
        text
    }

    fn widths(&self, heads: &[Cell]) -> Vec<usize> {
        (0..heads.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.text.chars().count()).max();
                widest.unwrap_or(0).max(heads[column].text.chars().count())
            })
            .collect()
    }

    fn line(&self, cells: &[Cell], widths: &[usize], width: Option<usize>) -> String {
        let shown = cells.iter().rposition(|cell| !cell.text.is_empty());
        let count = shown.map_or(0, |last| last + 1);
        let (mut text, mut room) = (String::new(), width.unwrap_or(usize::MAX));
        for (column, cell) in cells.iter().enumerate().take(count) {
            if column > 0 {
                if room <= 2 {
                    break;
                }
                text.push_str("  ");
                room -= 2;
            }
            let shown = cut(&cell.text, room);
            let taken = widths[column].min(room);
            let fill = " ".repeat(taken.saturating_sub(shown.chars().count()));
            let painted = paint(cell.style, &shown);
            if self.heads[column].starts_with('>') {
                text.push_str(&fill);
                text.push_str(&painted);
            } else {
                text.push_str(&painted);
                if column + 1 < count {
                    text.push_str(&fill);
                }
            }
            room -= taken;
        }
        text
    }
}

/// The text, cut with an ellipsis where there is no room for all of it.
pub(crate) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    if room == 0 {
        kept
    } else {
        format!("{kept}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", ">LEFT", "NOTE"]);
        table.row(["bot".into(), "3h 12m".into(), "all is well".into()]);
        table.row(["support-bot".into(), "9s".into(), Cell::from("")]);
        table
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        assert_eq!(
            plain(&sample().render(2, None)),
            "  NAME           LEFT  NOTE\n  bot          3h 12m  all is well\n  support-bot      9s\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for width in 4..40 {
            for line in plain(&sample().render(2, Some(width))).lines() {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
        assert!(plain(&sample().render(2, Some(30))).contains("all is…"));
    }
}
