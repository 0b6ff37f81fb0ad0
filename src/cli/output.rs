//! What is printed: colour only on a terminal, times as people say them, secrets never; words that others chose
//! are made fit for a terminal here, where they leave. Tables are aligned under a dim heading, the last column
//! cut at the screen's edge. In CSV a cell that a spreadsheet would take for a formula begins with an
//! apostrophe, which it shows as text; our own import takes it off again.

use std::{
    fs::{self, File, Permissions},
    io::{self, IsTerminal, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    },
    path::Path,
};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::exit::Failed;
use crate::{
    api::client::wire::{HolderRow, Layout, json_of},
    model::{Secret, State, fit, fit_json, short_duration},
};

pub(crate) use crate::model::{grouped, paint};

/// What is well, and needs nobody.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// It deserves a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// It needs a person.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// The word that matters on its line.
pub(crate) const STRONG: Style = Style::new().bold();
/// For headings and for asides.
pub(crate) const DIM: Style = Style::new().dimmed();
/// No style at all.
pub(crate) const PLAIN: Style = Style::new();

/// Clears a terminal from the top, without a flicker and without touching what was scrolled away.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Prints to standard output, in lines that the screen has room for. A reader that has gone away
/// (`renewd status | head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failed> {
    put(&mut anstream::stdout().lock(), &fit(&folded(text, width())))
}

/// Prints what must stay on the lines on which it stands.
pub(crate) fn print_lines(text: &str) -> Result<(), Failed> {
    put(&mut anstream::stdout().lock(), &fit(text))
}

/// Prints in the place of what was printed before, where standard output is a terminal.
pub(crate) fn redraw(text: &str) -> Result<(), Failed> {
    let mut out = anstream::stdout().lock();
    if on_terminal() {
        put(&mut out, REDRAW)?;
    }
    put(&mut out, &fit(text))
}

/// Replaces a file that is there, at once: a reader sees the old one or the new. Its owner stays, and its mode where no
/// other is given; of an attempt that fails nothing is left.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let was = fs::metadata(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.renewd-{}", std::process::id()));
    let written = (|| {
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (was.uid(), was.gid()) {
            fchown(&file, Some(was.uid()), Some(was.gid()))?;
        }
        file.set_permissions(mode.map_or(was.permissions(), Permissions::from_mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        fs::remove_file(&beside).ok();
    }
    written
}

/// Prints what other programs read: to the byte, but for a terminal.
pub(crate) fn print_data(text: &str) -> Result<(), Failed> {
    match on_terminal() {
        true => print_lines(text),
        false => put(&mut io::stdout().lock(), text),
    }
}

/// Prints a part of something long: of what other programs read (`data`), or of what people do. Whether anybody
/// still reads.
pub(crate) fn print_part(text: &str, data: bool) -> Result<bool, Failed> {
    match data && !on_terminal() {
        true => put_part(&mut io::stdout().lock(), text),
        false => put_part(&mut anstream::stdout().lock(), &fit(text)),
    }
}

fn put(out: &mut impl Write, text: &str) -> Result<(), Failed> {
    put_part(out, text).map(drop)
}

fn put_part(out: &mut impl Write, text: &str) -> Result<bool, Failed> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failed::output(&error)),
    }
}

/// Prints a secret that was asked for, and a line end.
pub(crate) fn print_secret(secret: &Secret) -> Result<(), Failed> {
    print_data(secret.expose())?;
    print_data("\n")
}

/// Prints lines of which one holds a secret that was asked for.
pub(crate) fn print_secret_lines(lines: &Secret) -> Result<(), Failed> {
    print_data(lines.expose())
}

/// Prints one JSON document, with the version of its form.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failed> {
    let text = json_of(document, Layout::Long)
        .map_err(|error| Failed::plain(format!("cannot write JSON: {error}")))?;
    print_data(&format!("{}\n", fit_json(&text)))
}

/// What [`print_json`] would print of a part of a document, so many levels within it.
pub(crate) fn json_within(part: &impl Serialize, levels: usize) -> Result<String, Failed> {
    let text = serde_json::to_string_pretty(part)
        .map_err(|error| Failed::plain(format!("cannot write JSON: {error}")))?;
    let indent = "  ".repeat(levels);
    let lines: Vec<String> = text.lines().map(|line| format!("{indent}{line}")).collect();
    Ok(fit_json(&lines.join("\n")).into())
}

/// Says something on standard error that is not the result, in lines that the screen has room for.
pub(crate) fn aside(text: &str) {
    aside_lines(&folded(text, width_of_asides()));
}

/// The same for what must stay on the lines on which it stands.
pub(crate) fn aside_lines(text: &str) {
    // Nothing can be said where standard error itself is gone.
    drop(writeln!(anstream::stderr(), "{}", fit(text)));
}

/// Shows a failure and what can be done about it.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    let mut text = format!("{} {message}", paint(BAD, "error:"));
    if let Some(hint) = hint {
        text.push_str(&format!("\n{} {hint}", paint(DIM, " hint:")));
    }
    aside(&text);
}

/// Whether a person watches standard output.
pub(crate) fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// How wide a screen that is named can be at least.
const NARROWEST: usize = 20;

/// The screen's width: as `COLUMNS` says, else the terminal's, where standard output is one.
pub(crate) fn width() -> Option<usize> {
    width_of(io::stdout())
}

/// The same of standard error.
pub(crate) fn width_of_asides() -> Option<usize> {
    width_of(io::stderr())
}

fn width_of(screen: impl AsFd) -> Option<usize> {
    let said = std::env::var("COLUMNS").ok();
    if let Some(columns) = said.and_then(|columns| columns.parse::<usize>().ok()) {
        return Some(columns.max(NARROWEST));
    }
    // Whatever is no terminal has no size.
    let size = rustix::termios::tcgetwinsize(screen).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Asks a person; `false` where nobody is there to answer.
pub(crate) fn confirm(question: &str) -> Result<bool, Failed> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut err = anstream::stderr();
    let question = format!("{question} {}", paint(DIM, "[y/N]"));
    write!(err, "{} ", fit(&folded(&question, width_of_asides())))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How a state looks.
pub(crate) fn state_style(state: State) -> Style {
    match state {
        State::Active => GOOD,
        State::New | State::Held => WARN,
        State::Late | State::Gone => BAD,
        State::Deleted => DIM,
    }
}

/// An instant as people say it: `in 3h 12m`, `2m ago`, `now`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    let words = short_duration(distance.unsigned_abs());
    match distance.as_secs() {
        0 => "now".to_owned(),
        1.. => format!("in {words}"),
        _ => format!("{words} ago"),
    }
}

/// How long ago, as people say it: `2m 5s`, `0s`.
pub(crate) fn ago(since: Timestamp, now: Timestamp) -> String {
    short_duration(now.duration_since(since).try_into().unwrap_or_default())
}

/// Whether something takes long enough to be told of.
pub(crate) fn is_long(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since).as_secs() >= 5
}

/// Bars of so many eighths of a line.
pub(crate) const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A count and its noun.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{count} {noun}")
}

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
    /// The last column goes on in the next line where it is too long, instead of being cut.
    wraps: bool,
}

/// What a column of text keeps at least where the screen is narrow; the last one holds details.
const LEAST: usize = 10;
const LEAST_OF_LAST: usize = 6;
/// Spaces between two columns at least.
const GAP: usize = 2;
/// What stands for columns that have no room.
const MORE: &str = " …";

impl Table {
    /// A table with these headings; one that starts with `>` is aligned to the right.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
            wraps: false,
        }
    }

    /// Facts about one thing: nothing of the last column is cut.
    pub(crate) fn facts(heads: &[&'static str]) -> Self {
        Self {
            wraps: true,
            ..Self::new(heads)
        }
    }

    /// Adds a row, one cell per heading.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line indented, none wider than `width`. Where it is too wide, columns of text
    /// are cut, details first, then the last columns are left out; a sign tells of either.
    pub(crate) fn render(&self, indent: usize, width: Option<usize>) -> String {
        let heads: Vec<Cell> = self
            .heads
            .iter()
            .map(|head| Cell::styled(head.trim_start_matches('>'), DIM))
            .collect();
        let headed = heads.iter().any(|head| !head.text.is_empty());
        let lines = headed.then_some(&heads).into_iter().chain(&self.rows);
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent));
        let widths = self.fitted(self.widths(&heads), room);
        let mut text = String::new();
        for line in lines {
            text.push_str(&" ".repeat(indent));
            text.push_str(&self.line(line, &widths, (indent, room)));
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

    /// The widths on a screen with so much room: details give way first, then the widest text; numbers
    /// never. Columns that have no room even so are not among them.
    fn fitted(&self, mut widths: Vec<usize>, room: usize) -> Vec<usize> {
        let last = widths.len().saturating_sub(1);
        let least = |column: usize| match column == last {
            true => LEAST_OF_LAST,
            false => LEAST.max(self.heads[column].chars().count()),
        };
        let is_text = |column: &usize| !self.heads[*column].starts_with('>');
        while total(&widths) > room {
            let gives = |column: &usize| is_text(column) && widths[*column] > least(*column);
            let widest = (0..widths.len()).filter(gives);
            let widest = widest.max_by_key(|column| (*column == last, widths[*column]));
            match widest {
                Some(column) => widths[column] -= 1,
                None => break,
            }
        }
        let all = widths.len();
        let fits = |count: usize| {
            let sign = if count < all { MORE.chars().count() } else { 0 };
            total(&widths[..count]) + sign <= room
        };
        let count = (1..=all).rev().find(|count| fits(*count)).unwrap_or(1);
        widths.truncate(count);
        if count == 1 && all > 0 {
            widths[0] = widths[0].min(room);
        }
        widths
    }

    fn line(&self, cells: &[Cell], widths: &[usize], (indent, room): (usize, usize)) -> String {
        let shown = cells.iter().rposition(|cell| !cell.text.is_empty());
        let count = shown.map_or(0, |last| last + 1);
        let (mut text, mut begins) = (String::new(), 0);
        for (column, cell) in cells.iter().enumerate().take(count.min(widths.len())) {
            if column > 0 {
                text.push_str(&" ".repeat(GAP));
            }
            let is_last = column + 1 == self.heads.len();
            if self.wraps && is_last {
                let rest = room.saturating_sub(begins).max(LEAST);
                let told = wrapped(&cell.text, Some(rest), indent + begins);
                text.push_str(&paint(cell.style, told));
                continue;
            }
            let shown = cut(&cell.text, widths[column]);
            let fill = " ".repeat(widths[column].saturating_sub(shown.chars().count()));
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
            begins += widths[column] + GAP;
        }
        if count > widths.len() && total(widths) + MORE.chars().count() <= room {
            text.push_str(MORE);
        }
        text
    }
}

/// What columns take together.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
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

/// A bar in this style that stays beside what is printed; none where nobody looks.
pub(super) fn bar(style: &str) -> Option<ProgressBar> {
    on_terminal().then(|| {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar
    })
}

/// How far a line that goes on is indented.
const FOLD: usize = 2;

/// Lines that begin at the edge of the screen, each as long as there is room for. Others are tables, excerpts and
/// commands to be copied: they stay as they are.
fn folded(text: &str, width: Option<usize>) -> String {
    let lines = text.split('\n');
    let folded = lines.map(|line| match width {
        Some(width) if seen(line) > width && !line.starts_with(' ') => {
            wrapped(line, Some(width.saturating_sub(FOLD)), FOLD)
        }
        _ => line.to_owned(),
    });
    folded.collect::<Vec<_>>().join("\n")
}

/// A line below another one, which goes on further in.
pub(crate) fn item(text: &str, width: Option<usize>) -> String {
    let further = 2 * FOLD;
    let room = width.map(|width| width.saturating_sub(further));
    format!("{:FOLD$}{}", "", wrapped(text, room, further))
}

/// How many characters of a text are seen: its styles are not.
fn seen(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let first = parts.next().map_or(0, |part| part.chars().count());
    let styled = parts.map(|part| part.split_once('m').map_or(part, |(_, rest)| rest));
    first + styled.map(|part| part.chars().count()).sum::<usize>()
}

/// The words of a text; a command in backquotes, which somebody may copy, is one where a line has room for it.
fn words(text: &str, room: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for word in text.split(' ') {
        let quotes = word.matches('`').count();
        match words.last_mut() {
            Some(last) if is_open && seen(last) + 1 + seen(word) <= room => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        is_open ^= quotes % 2 == 1;
    }
    words
}

/// The text in lines of which none takes more than `room`, broken between words; those after the first are indented
/// besides.
pub(crate) fn wrapped(text: &str, room: Option<usize>, indent: usize) -> String {
    let Some(room) = room else {
        return text.to_owned();
    };
    let (mut told, mut column) = (String::new(), 0);
    let mut begins = true;
    for word in words(text, room) {
        let length = seen(&word);
        if column > 0 && column + 1 + length > room {
            told.push('\n');
            told.push_str(&" ".repeat(indent));
            column = 0;
        } else if !begins {
            told.push(' ');
            column += 1;
        }
        begins = false;
        told.push_str(&word);
        column += length;
    }
    told
}

/// What formulas begin with, and what spreadsheets skip before them. Source: OWASP, "CSV injection".
const FORMULA: [char; 10] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff20}',
];
const TEXT: char = '\'';

/// A cell as it is written.
pub(super) fn csv_cell(text: impl Into<String>) -> String {
    let text = text.into();
    // What begins with an apostrophe gets another, so that exactly one is taken off.
    match text.trim_start_matches(TEXT).starts_with(FORMULA) {
        true => format!("{TEXT}{text}"),
        false => text,
    }
}

/// A cell as it was before it was written.
pub(super) fn csv_text(cell: &str) -> &str {
    match cell.strip_prefix(TEXT) {
        Some(text) if text.trim_start_matches(TEXT).starts_with(FORMULA) => text,
        _ => cell,
    }
}

/// Records of named fields as CSV, with a heading where one is wanted.
pub(super) fn csv_rows<T: Serialize>(
    records: impl IntoIterator<Item = T>,
    headed: bool,
) -> Result<String, csv::Error> {
    let mut raw = csv::Writer::from_writer(Vec::new());
    for record in records {
        raw.serialize(record)?;
    }
    let raw = raw.into_inner().map_err(|error| error.into_error())?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(&*raw);
    let mut safe = csv::Writer::from_writer(Vec::new());
    for record in reader.records().skip(usize::from(!headed)) {
        safe.write_record(record?.iter().map(csv_cell))?;
    }
    let safe = safe.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&safe).into_owned())
}

/// One line for each consumer.
pub(crate) fn holders(rows: &[HolderRow], now: Timestamp) -> Table {
    let mut table = Table::new(&["CONSUMER", "USER", "IDENTITY", ">USES", ">NEWEST", "SAID"]);
    for HolderRow { holder, user } in rows {
        let style = match holder.version == holder.current {
            true => GOOD,
            false => WARN,
        };
        table.row([
            Cell::styled(holder.client.as_str(), STRONG),
            user.as_str().into(),
            holder.name.as_str().into(),
            Cell::styled(holder.version.to_string(), style),
            holder.current.to_string().into(),
            relative(holder.at, now).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod output_tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let at = |text: &str| relative(text.parse().unwrap(), now);
        assert_eq!(at("2026-11-22T15:12:00Z"), "in 3h 12m");
        assert_eq!(at("2026-11-22T11:58:00Z"), "2m ago");
        assert_eq!(at("2026-11-22T12:00:00.4Z"), "now");
        assert_eq!(at("2026-11-20T12:00:00Z"), "2d ago");
    }
}

#[cfg(test)]
mod fold_tests {
    use super::*;

    #[test]
    fn a_long_line_goes_on_below_and_a_command_stays_whole() {
        let text = "the store belongs to renewd; `runuser -u renewd -- renewd` runs it\n  az key list --of something\n";
        assert_eq!(
            folded(text, Some(40)),
            "the store belongs to renewd;\n  `runuser -u renewd -- renewd` runs it\n  az key list --of something\n"
        );
        assert_eq!(folded(text, None), text);
        let styled = format!("{} is lapsed", paint(BAD, "a"));
        assert_eq!(seen(&styled), 11);
        assert_eq!(folded(&styled, Some(11)), styled);
        assert!(
            folded("a `b c d e f g h i` j", Some(10))
                .lines()
                .all(|line| line.len() <= 10)
        );
    }
}

#[cfg(test)]
mod table_tests {
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

    #[test]
    fn what_has_no_room_is_marked_and_the_first_columns_stay() {
        let mut table = Table::new(&["NAME", "STATE", ">SENT", "SINKS", "WHY"]);
        let long = "a-very-long-name-that-goes-on-and-on-and-on";
        table.row([
            long.into(),
            "failing".into(),
            "1234567".into(),
            long.into(),
            long.into(),
        ]);
        let text = plain(&table.render(0, Some(50)));
        assert_eq!(
            text.lines().last().unwrap(),
            "a-very-lon…  failing  1234567  a-very-lon…  a-ver…"
        );
        let text = plain(&table.render(0, Some(34)));
        assert!(text.lines().all(|line| line.ends_with(MORE)), "{text}");
        assert!(text.contains("failing"), "{text}");
    }

    #[test]
    fn facts_are_wrapped_and_never_cut() {
        let mut facts = Table::facts(&["", ""]);
        facts.row(["reason".into(), "one two three four".into()]);
        assert_eq!(
            plain(&facts.render(2, Some(20))),
            "  reason  one two\n          three four\n"
        );
        assert_eq!(
            plain(&facts.render(0, None)),
            "reason  one two three four\n"
        );
        assert_eq!(
            wrapped("a averylongword b", Some(5), 1),
            "a\n averylongword\n b"
        );
    }
}

#[cfg(test)]
mod spreadsheet_tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_cell_begins_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"] {
            assert_eq!(csv_cell(text), format!("'{text}"));
        }
        for text in ["anna", "8:acs:x", "a=1", "'quoted'", ""] {
            assert_eq!(csv_cell(text), text);
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(text in "['=+@a\\-]{0,6}") {
            let cell = csv_cell(text.clone());
            prop_assert_eq!(csv_text(&cell), text);
        }
    }
}
