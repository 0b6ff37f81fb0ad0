//! `renewd demo`: the daemon at work, with trouble on purpose, told on the screen.

use std::{io, path::Path};

use renewd_demo::{Kept, Line, Promise, Teller, Tone, play};

use super::{
    Context,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, Cell, DIM, GOOD, PLAIN, STRONG, Table, WARN, paint},
};

/// Watch it work: emulator, daemon and receiver in a temporary folder, in under a minute
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Leave it running afterwards, to play with, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let played = play(self.keep, &context.clock, &Screen).await;
        let well = played.map_err(Failed::plain)?;
        Ok(if well { Exit::Done } else { Exit::Failed })
    }
}

struct Screen;

impl Teller for Screen {
    fn begins(&self, folder: &Path) -> io::Result<()> {
        print(&format!(
            "{}, in {}\n\n",
            paint(STRONG, "a real emulator, a real daemon, a real receiver"),
            folder.display()
        ))
    }

    fn happens(&self, line: &Line<'_>) -> io::Result<()> {
        let seconds = paint(DIM, format!("{:>5.1} s", line.seconds));
        let style = match line.tone {
            Tone::Plain => PLAIN,
            Tone::Strong => STRONG,
            Tone::Good => GOOD,
            Tone::Warning => WARN,
            Tone::Bad => BAD,
        };
        let what = paint(style, format!("{:<9}", line.what));
        let mut words = line.words.to_owned();
        if !line.aside.is_empty() {
            words.push(' ');
            words.push_str(&paint(DIM, line.aside));
        }
        print(&format!("{seconds}  {what}  {words}\n"))
    }

    fn ends(&self, promises: &[Promise]) -> io::Result<()> {
        print(&format!("\n{}", table(promises, output::width())))
    }

    fn goes_on(&self, kept: &Kept) -> io::Result<()> {
        print(&suggestions(kept))
    }

    fn leaves(&self, folder: &Path) {
        output::aside(&format!(
            "the logs stay in {}: emulator.log, daemon.log",
            folder.display()
        ));
    }
}

fn print(text: &str) -> io::Result<()> {
    output::print(text).map_err(|failed| io::Error::other(failed.to_string()))
}

fn table(promises: &[Promise], width: Option<usize>) -> String {
    let mut table = Table::new(&["", "PROMISE", "SEEN"]);
    for promise in promises {
        let mark = if promise.kept {
            Cell::styled("✓", GOOD)
        } else {
            Cell::styled("✗", BAD)
        };
        table.row([mark, promise.what.into(), promise.seen.as_str().into()]);
    }
    let broken = promises.iter().filter(|promise| !promise.kept).count();
    let verdict = match broken {
        0 => paint(GOOD, "every promise was kept"),
        _ => paint(
            BAD,
            format!("{broken} of {} promises were broken", promises.len()),
        ),
    };
    format!(
        "{}\n{} {verdict}\n",
        table.render(1, width),
        paint(DIM, " ")
    )
}

/// What to try while it goes on.
fn suggestions(kept: &Kept) -> String {
    let mut text = format!(
        "\n{} Try, in another terminal:\n\n  export RENEWD_SOCKET={}\n",
        paint(STRONG, "It goes on until Ctrl-C."),
        kept.socket
    );
    for (command, what) in [
        ("renewd status --watch", "how everything is"),
        ("renewd identity list", "who there is"),
        ("renewd why on-call", "what is decided about one, and why"),
        ("renewd token on-call", "its current token"),
        (
            "renewd hold on-call",
            "withhold it; then renewd release on-call",
        ),
        ("renewd audit list", "who did what, when and why"),
    ] {
        text.push_str(&format!("  {command:<24} {}\n", paint(DIM, what)));
    }
    text.push_str(&format!("\n  {:<24} {}\n", "configuration", kept.config));
    text.push_str(&format!("  {:<24} {}\n", "tokens", kept.tokens));
    if !kept.page.is_empty() {
        let page = "page and metrics";
        text.push_str(&format!("  {page:<24} http://{}/\n", kept.page));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_was_broken_is_marked_and_counted() {
        let promise = |kept, what, seen: &str| Promise {
            kept,
            what,
            seen: seen.to_owned(),
        };
        let good = promise(true, "nobody is created twice", "5 wanted, 5 created");
        let bad = promise(
            false,
            "SIGTERM is a clean end",
            "the daemon did not end with 0",
        );
        let text = table(&[good, bad], None);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
