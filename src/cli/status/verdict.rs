//! `renewd status --check`: the same facts in one line and an exit code, as programs that watch servers
//! want them (the convention of Nagios's plugins, which Icinga, Checkmk, Sensu and others follow).

use std::fmt;

use crate::{
    api::client::{
        ClientError,
        wire::{Need, Status},
    },
    model::one_line,
};

use super::{
    super::{
        exit::{Exit, Failed},
        output::relative,
    },
    screen,
};

/// At most so many things are told; the first ones are the worst.
const TOLD: usize = 5;
/// The longest line, in characters: programs that watch cut longer ones.
const LONGEST: usize = 1000;

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// How everything is, in one line.
#[derive(Debug)]
pub(super) struct Verdict {
    level: Level,
    text: String,
    /// What can be drawn over time.
    figures: String,
}

impl Verdict {
    pub(super) fn of(status: Result<Status, ClientError>) -> Self {
        match status {
            Ok(status) => Self::of_status(&status),
            Err(error) => Self {
                level: Level::Unknown,
                text: Failed::from(error).to_string(),
                figures: String::new(),
            },
        }
    }

    fn of_status(status: &Status) -> Self {
        let (grave, other): (Vec<&Need>, Vec<&Need>) =
            status.needs.iter().partition(|need| need.kind.is_grave());
        let level = match (grave.is_empty(), other.is_empty() && status.ready) {
            (false, _) => Level::Critical,
            (true, false) => Level::Warning,
            (true, true) => Level::Ok,
        };
        let mut said: Vec<String> = Vec::new();
        if !status.ready {
            let since = relative(status.since, status.at);
            said.push(format!("not ready (started {since})"));
        }
        said.extend(grave.iter().chain(&other).map(|need| told(need)));
        if said.is_empty() {
            let consumers = screen::consumers(status.consumers.as_ref(), status.at);
            said.push(anstream::adapter::strip_str(&consumers).to_string());
        }
        let more = said.len().saturating_sub(TOLD);
        said.truncate(TOLD);
        if more > 0 {
            said.push(format!("and {more} more: renewd status"));
        }
        Self {
            level,
            text: said.join("; "),
            figures: figures(status),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        Exit::As(match self.level {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        })
    }
}

fn told(need: &Need) -> String {
    let because = need.because.as_ref();
    let because = because.map_or(String::new(), |because| format!(" ({because})"));
    format!("{}: {}{because}", need.subject, need.message)
}

/// `label=value` of what is known.
fn figures(status: &Status) -> String {
    let mut pairs = vec![("needs", status.needs.len() as u64)];
    if let Some(served) = &status.consumers {
        let all = served.all();
        pairs.extend([
            ("live", all.live),
            ("without", all.without),
            ("unknown", all.unknown),
        ]);
    }
    let pairs = pairs
        .iter()
        .map(|(label, value)| format!("{label}={value}"));
    pairs.collect::<Vec<String>>().join(" ")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        };
        // A bar begins the figures.
        let text = one_line(&self.text).replace('|', "/");
        let cut = text.char_indices().nth(LONGEST).map(|(at, _)| at);
        let (text, sign) = match cut {
            Some(at) => (text.get(..at).unwrap_or_default(), "…"),
            None => (text.as_str(), ""),
        };
        write!(f, "RENEWD {level} - {text}{sign}")?;
        match self.figures.is_empty() {
            true => Ok(()),
            false => write!(f, " | {}", self.figures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ready: bool, needs: &serde_json::Value) -> (String, Exit) {
        let status: Status = serde_json::from_value(serde_json::json!({
            "at": "2026-11-22T12:00:00Z", "version": "0.1.0", "instance": "web-1", "since": "2026-11-22T11:59:00Z",
            "ready": ready, "needs": needs, "earliest_expiry": {}, "lanes": {}, "couriers": {}, "held_step_ms": null,
            "consumers": {"sinks": {}, "socket": {"live": 3, "without": 0, "unknown": 0,
                "next_end": "2026-11-22T15:00:00Z"}}
        }))
        .unwrap();
        let verdict = Verdict::of(Ok(status));
        (verdict.to_string(), verdict.exit())
    }

    fn need(kind: &str, message: &str) -> serde_json::Value {
        serde_json::json!({"kind": kind, "subject": "contoso", "message": message, "names": []})
    }

    #[test]
    fn the_worst_decides_and_comes_first() {
        let (line, exit) = verdict(true, &serde_json::json!([]));
        assert_eq!(
            line,
            "RENEWD OK - 3 consumers: 3 hold a live token; the next one ends in 3h | needs=0 live=3 without=0 unknown=0"
        );
        assert_eq!(exit, Exit::As(0));
        let orphans = need("orphans", "1 may exist");
        let (line, exit) = verdict(true, &serde_json::json!([orphans]));
        assert!(
            line.starts_with("RENEWD WARNING - contoso: 1 may exist | needs=1 "),
            "{line}"
        );
        assert_eq!(exit, Exit::As(1));
        let (line, exit) = verdict(
            true,
            &serde_json::json!([orphans, need("outage", "it is\nunanswered | x")]),
        );
        assert!(
            line.starts_with("RENEWD CRITICAL - contoso: it is\\u{a}unanswered / x; contoso: 1 may exist | needs=2 "),
            "{line}"
        );
        assert_eq!(exit, Exit::As(2));
        let (line, exit) = verdict(false, &serde_json::json!([]));
        assert!(
            line.starts_with("RENEWD WARNING - not ready (started 1m ago)"),
            "{line}"
        );
        assert_eq!(exit, Exit::As(1));
    }

    #[test]
    fn it_stays_one_line_of_a_bearable_length() {
        let many: Vec<_> = (0..9).map(|_| need("late", &"x".repeat(400))).collect();
        let (line, exit) = verdict(true, &serde_json::json!(many));
        assert_eq!((line.lines().count(), exit), (1, Exit::As(2)));
        assert!(
            line.contains('…') && line.chars().count() < LONGEST + 100,
            "{line}"
        );
    }
}
