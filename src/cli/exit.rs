//! How a command ends: its exit code, and for a failure one sentence and what can be done.

use std::fmt;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done,
    Failed,
    /// The arguments or the configuration are wrong.
    Usage,
    /// The daemon is not reachable.
    Unreachable,
    /// Some of it was done, some failed.
    Partly,
    /// There is no live token.
    NoToken,
    /// It was not done in time, and goes on in the daemon.
    Unfinished,
    /// As the program that was run ended.
    As(u8),
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Partly => 4,
            Self::NoToken => 5,
            Self::Unfinished => 6,
            Self::As(code) => code,
        }
    }
}

/// What a verb answers: how it ended, or a failure that is still to be shown.
pub(crate) type Outcome = Result<Exit, Failed>;

/// A failure that is still to be shown.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(super) exit: Exit,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Failed {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            hint: None,
        }
    }

    /// An ordinary failure: exit code 1.
    pub(crate) fn plain(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// A mistake in arguments or configuration: exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A person was asked and did not say yes, or there was nobody to ask.
    pub(crate) fn unconfirmed() -> Self {
        Self::usage("nobody confirmed it, so nothing was done")
            .hint("answer y, or add `--yes` where nobody can answer")
    }

    /// Standard output, or the terminal, cannot be written.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        Self::plain(format!("cannot write the output: {error}"))
    }

    /// Adds what can be done about it.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failed {
    /// What the system refused while nothing more can be said of it: signals, pipes, children.
    fn from(error: std::io::Error) -> Self {
        Self::plain(format!("the system refused: {error}"))
    }
}
