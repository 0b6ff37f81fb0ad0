//! Sets up logs and names metrics; both are built once, by `app` or `cli`, and handed down.
//!
//! Only our own words are ever logged below `warn`: HTTP and TLS crates print headers, frames and
//! bodies at `debug` and `trace`, and those carry tokens and signatures. So everything that is not
//! `renewd` is capped at `warn`, whatever the filter says; and rustls, which tells of each handshake that is
//! refused without a word on whose it was, says nothing: whoever called tells that. A panic becomes a line that
//! cannot carry a secret.

mod exposition;
mod metrics;
mod process;
mod scrape;

use std::{
    any::Any,
    borrow::Cow,
    io::{self, IsTerminal},
    panic, thread,
};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterFn, ParseError, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use crate::model::fit;

pub use exposition::Exposition;
pub use metrics::Metrics;
pub use scrape::{JobTimes, Scrape, StoreHealth, Stored};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal's own protocol where standard error is connected to it, else [`LogFormat::Human`].
    #[default]
    Automatic,
    /// Text for people on standard error, coloured on a terminal.
    Human,
    /// One JSON object a line on standard error.
    Json,
    /// The journal's own protocol.
    Journal,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            "journal" => Ok(Self::Journal),
            other => Err(format!("{other:?} is none of human, json, journal")),
        }
    }
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter cannot be read.
    #[error(
        "RENEWD_LOG: {filter:?} is not a log filter, such as `info` or `warn,super::engine=debug`"
    )]
    Filter {
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logs were set up before.
    #[error("logs are already set up in this process")]
    Twice(#[from] TryInitError),
}

/// The variable that holds the filter where none is given.
const FILTER_VARIABLE: &str = "RENEWD_LOG";
/// The filter where nobody says anything.
const DEFAULT_FILTER: &str = "info";
/// What every field is called in the journal: `RENEWD_IDENTITY=…`.
const JOURNAL_PREFIX: &str = "RENEWD";

/// Sends log lines out and reports panics as such lines, without their payload. The filter is, in
/// this order, `filter`, the variable `RENEWD_LOG`, `info`; it is written as in
/// [`EnvFilter`]. To be called once, before any thread starts.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), InitError> {
    let filter = match filter {
        Some(filter) => filter.to_owned(),
        None => std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.to_owned()),
    };
    let levels = EnvFilter::try_new(&filter).map_err(|source| InitError::Filter {
        filter: filter.clone(),
        source,
    })?;
    let (layer, missing) = output(format);
    tracing_subscriber::registry()
        .with(levels)
        .with(own_words_only())
        .with(layer)
        .try_init()?;
    report();
    if let Some(error) = missing {
        tracing::warn!(%error, "the journal does not answer: this log goes to standard error");
    }
    Ok(())
}

/// Where the lines go, and why not to the journal. One that should be there and does not answer is no reason
/// not to start: standard error carries the lines then.
fn output<S>(format: LogFormat) -> (Box<dyn Layer<S> + Send + Sync>, Option<io::Error>)
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let wanted =
        format == LogFormat::Journal || format == LogFormat::Automatic && stderr_is_journal();
    let missing = match wanted.then(tracing_journald::layer) {
        Some(Ok(journal)) => {
            let journal = journal
                .with_field_prefix(Some(JOURNAL_PREFIX.to_owned()))
                .with_syslog_identifier("renewd".to_owned());
            return (journal.boxed(), None);
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let layer = match format {
        LogFormat::Json => fmt::layer().json().with_writer(io::stderr).boxed(),
        LogFormat::Automatic | LogFormat::Human | LogFormat::Journal => fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(|| Fit(io::stderr()))
            .boxed(),
    };
    (layer, missing)
}

/// Lines for people, made fit for a terminal. A whole line comes at once; the only styles in it are those
/// of the line's own making, because what is logged has its escape characters replaced before.
struct Fit<W>(W);

impl<W: io::Write> io::Write for Fit<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut parts = text.split("\x1b[");
        let first = parts.next().map_or(Cow::Borrowed(""), fit);
        self.0.write_all(first.as_bytes())?;
        for part in parts {
            self.0.write_all(b"\x1b[")?;
            self.0.write_all(fit(part).as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lets through our own lines, and of everybody else's only warnings and errors.
fn own_words_only() -> FilterFn<fn(&Metadata<'_>) -> bool> {
    filter_fn(is_own_or_grave as fn(&Metadata<'_>) -> bool)
}

fn is_own_or_grave(line: &Metadata<'_>) -> bool {
    let is_of = |name: &str| {
        let rest = line.target().strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let tells_no_peer = is_of("rustls") || is_of("rustls_platform_verifier");
    // The crates beside the daemon are named `renewd_…`.
    let is_own = is_of("renewd") || line.target().starts_with("renewd_");
    *line.level() <= Level::WARN && !tells_no_peer || is_own
}

/// Whether standard error is the stream that the service manager connected to the journal:
/// `JOURNAL_STREAM` holds its device and inode (systemd.exec(5)). The variable alone proves
/// nothing, as it is inherited through redirections.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| names_stream(&stream, stat.st_dev, stat.st_ino))
}

/// Whether `DEVICE:INODE` names this file.
fn names_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream == format!("{device}:{inode}")
}

/// What stands for a payload that was put together at run time.
const WITHHELD: &str = "message withheld: it was built at run time and could hold a secret";

/// From now on a panic is logged with its place and thread. Its message is shown only when it is a
/// literal of the program text, because a formatted one may quote a value.
fn report() {
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        tracing::error!(
            place,
            thread = thread::current().name().unwrap_or("unnamed"),
            "a panic, which is a defect of renewd: {}",
            spoken(info.payload())
        );
    }));
}

/// What may be said of a panic's payload.
fn spoken(payload: &dyn Any) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or(WITHHELD)
}

#[cfg(test)]
mod logging_tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, act: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::registry()
            .with(EnvFilter::try_new(filter).unwrap())
            .with(own_words_only())
            .with(fmt::layer().with_writer(move || Fit(writer.clone())));
        tracing::subscriber::with_default(lines, act);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn other_crates_say_nothing_below_warn_even_at_trace() {
        let text = logged("trace,hyper=trace,reqwest=trace", || {
            tracing::trace!(target: "hyper::proto::h1::io", "flushed canary");
            tracing::debug!(target: "reqwest::connect", "canary");
            tracing::warn!(target: "rustls::common_state", "canary: sending fatal alert");
            tracing::error!(target: "rustls_platform_verifier::verification", "canary: no peer");
            tracing::debug!(target: "renewdish", "canary");
            tracing::warn!(target: "h2::codec", "heard");
            tracing::trace!(target: "renewd::engine", "ours");
        });
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("heard") && text.contains("ours"), "{text}");
    }

    #[test]
    fn what_others_chose_cannot_act_on_a_terminal() {
        let text = logged("info", || {
            let reason = "\x1b[2J\u{9b}1m\u{202e}doog\u{7}";
            tracing::warn!(target: "renewd", reason, "the source {reason}");
        });
        let own = text.matches("\x1b[").count();
        let plain = logged("info", || {
            tracing::warn!(target: "renewd", reason = "x", "the source x");
        });
        assert_eq!(own, plain.matches("\x1b[").count(), "{text:?}");
        assert!(!text.contains(['\u{9b}', '\u{202e}', '\u{7}']), "{text:?}");
    }

    #[test]
    fn the_filter_still_decides_about_our_own_lines() {
        let text = logged("renewd::store=debug,warn", || {
            tracing::debug!(target: "renewd::store", "wanted");
            tracing::debug!(target: "renewd::engine", "unwanted");
        });
        assert!(
            text.contains("wanted") && !text.contains("unwanted"),
            "{text}"
        );
    }

    #[test]
    fn only_the_very_stream_is_the_journal() {
        assert!(names_stream("9:123", 9, 123));
        assert!(!names_stream("9:123", 9, 124));
        assert!(!names_stream("", 0, 0));
        assert!(!names_stream("9:1234", 9, 123));
    }
}

#[cfg(test)]
mod panics_tests {
    use super::*;

    #[test]
    fn a_formatted_message_is_withheld() {
        let secret = "canary";
        let payload = panic::catch_unwind(|| panic!("unexpected {secret}")).unwrap_err();
        assert_eq!(spoken(&*payload), WITHHELD);
        let payload = panic::catch_unwind(|| panic!("a literal")).unwrap_err();
        assert_eq!(spoken(&*payload), "a literal");
    }
}
