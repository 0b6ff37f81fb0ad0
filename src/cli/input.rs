//! What is handed to a command: secrets, from a file or standard input and never as an argument; and what a person
//! answers at a terminal, of which a secret is not shown.

use std::{
    fmt::Display,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::Path,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use zeroize::Zeroizing;

use super::{exit::Failed, output};
use crate::model::{Secret, text_of};

/// No secret is longer, in bytes.
const LONGEST: u64 = 64 << 10;

/// The secret on standard input, without what is blank around it.
pub(crate) fn secret_on_stdin(what: &str) -> Result<Secret, Failed> {
    let cannot = |error: &dyn Display| {
        Failed::plain(format!(
            "cannot read the {what} from standard input: {error}"
        ))
    };
    let secret = secret_of(&mut io::stdin().lock()).map_err(|error| cannot(&error))?;
    secret.ok_or_else(|| Failed::usage(format!("standard input holds no {what}")))
}

/// The same in a file.
pub(crate) fn secret_in(path: &Path) -> Result<Secret, Failed> {
    let shown = path.display();
    let secret = File::open(path).and_then(|mut file| secret_of(&mut file));
    let secret = secret.map_err(|error| Failed::usage(format!("cannot read {shown}: {error}")))?;
    secret.ok_or_else(|| Failed::usage(format!("{shown} is empty")))
}

fn secret_of(from: &mut impl Read) -> io::Result<Option<Secret>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(LONGEST).read_to_end(&mut bytes)?;
    let text =
        text_of(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| Secret::new(text.to_owned())))
}

/// Somebody at the terminal.
#[derive(Debug)]
pub(crate) struct Person {
    interrupt: Signal,
    terminate: Signal,
}

impl Person {
    /// Whoever sits at standard input, if that is a terminal.
    pub(crate) fn at_terminal() -> Result<Option<Self>, Failed> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        Ok(Some(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        }))
    }

    /// Asks until an answer can be read; an empty one is what stands in brackets.
    pub(crate) async fn answer<T, E: Display>(
        &mut self,
        question: &str,
        usual: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Failed> {
        let brackets = match usual {
            "" => String::new(),
            usual => format!(" [{usual}]"),
        };
        loop {
            put(&format!("{question}{brackets}: "))?;
            let line = self.line().await?;
            let said = match line.trim() {
                "" => usual,
                said => said,
            };
            match read(said) {
                Ok(answer) => return Ok(answer),
                Err(why) => output::aside(&format!("  {why}")),
            }
        }
    }

    /// The same for a secret: what is typed is not shown.
    pub(crate) async fn secret<E: Display>(
        &mut self,
        question: &str,
        check: impl Fn(&Secret) -> Result<(), E>,
    ) -> Result<Secret, Failed> {
        loop {
            // Before it is asked for: who types at once is not shown either.
            let hidden = Hidden::begin()?;
            put(&format!("{question} (it is not shown): "))?;
            let line = self.line().await;
            drop(hidden);
            put("\n")?;
            let secret = Secret::new(line?.trim().to_owned());
            match check(&secret) {
                Ok(()) => return Ok(secret),
                Err(why) => output::aside(&format!("  {why}")),
            }
        }
    }

    /// One line. A signal ends the wait for it, so that a terminal shows again what is typed.
    async fn line(&mut self) -> Result<Zeroizing<String>, Failed> {
        let (tell, told) = oneshot::channel();
        // The thread may be left waiting for a line: the process ends with it.
        std::thread::spawn(move || {
            let mut line = Zeroizing::new(String::new());
            let read = io::stdin().read_line(&mut line);
            drop(tell.send(read.map(|count| (count > 0).then_some(line))));
        });
        let stopped = || Failed::plain("it was stopped, so nothing was written");
        let line = tokio::select! {
            biased;
            _ = self.interrupt.recv() => return Err(stopped()),
            _ = self.terminate.recv() => return Err(stopped()),
            line = told => line,
        };
        let ended = || Failed::plain("standard input ended, so nothing was written");
        line.map_err(|_| ended())??.ok_or_else(ended)
    }
}

fn put(text: &str) -> Result<(), Failed> {
    let mut err = anstream::stderr();
    err.write_all(text.as_bytes())?;
    Ok(err.flush()?)
}

/// A terminal that shows nothing of what is typed, until dropped.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> Result<Self, Failed> {
        let refused = |error| Failed::from(io::Error::from(error));
        let before = tcgetattr(io::stdin()).map_err(refused)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(refused)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Where the terminal is gone, nothing is shown on it either.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}
