//! Words on a screen: colour only on a terminal, times as people say them, secrets never. Whatever others
//! chose of them is made fit for a terminal here, where it leaves.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde::Serialize;

pub(crate) use crate::model::paint;
use crate::model::{Secret, State, fit, fit_json, short_duration};

use super::exit::Failed;

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// It deserves a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// It needs a person.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// The word that matters on its line.
pub(crate) const STRONG: Style = Style::new().bold();
/// Headings and asides.
pub(crate) const DIM: Style = Style::new().dimmed();
/// No style at all.
pub(crate) const PLAIN: Style = Style::new();

/// Clears a terminal from the top, without a flicker and without touching what was scrolled away.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Prints to standard output. A reader that has gone away (`renewd status | head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failed> {
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

/// Prints what other programs read: to the byte, but for a terminal.
pub(crate) fn print_data(text: &str) -> Result<(), Failed> {
    match on_terminal() {
        true => print(text),
        false => put(&mut io::stdout().lock(), text),
    }
}

fn put(out: &mut impl Write, text: &str) -> Result<(), Failed> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failed::output(&error)),
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

/// Prints one JSON document.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failed::plain(format!("cannot write JSON: {error}")))?;
    print_data(&format!("{}\n", fit_json(&text)))
}

/// Says something on standard error that is not the result.
pub(crate) fn aside(text: &str) {
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

/// The terminal's width, where standard output is one.
pub(crate) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (on_terminal() && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Asks a person; `false` where nobody is there to answer.
pub(crate) fn confirm(question: &str) -> Result<bool, Failed> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut err = anstream::stderr();
    write!(err, "{} {} ", fit(question), fit(&paint(DIM, "[y/N]")))?;
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

/// A count and its noun.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
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
