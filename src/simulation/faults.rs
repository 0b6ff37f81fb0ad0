//! What goes wrong in a simulation, and when: one line of words each, or drawn by chance.
//!
//! | fault | what happens | words |
//! |---|---|---|
//! | `outage` | nothing listens | `for` |
//! | `brown-out` | a share of all calls fails | `for`, `share` |
//! | `poison` | a share of all identities is refused, whatever is asked for | `for`, `share` |
//! | `throttle` | every call is answered 429 | `for`, `wait` |
//! | `slow` | every answer takes so long | `for`, `by` |
//! | `clock` | our wall clock steps, and back after `for` | `by`, `for` |
//! | `restart` | the daemon ends well and starts again after `for` | `for` |
//! | `kill` | it is killed and starts again after `for` | `for` |
//! | `key-loss` | a key is regenerated, so that its tokens die and it is refused; after `for` its successor lies in its place | `for`, `keys` |
//! | `revoke` | somebody revokes everybody; new tokens follow | – |
//! | `renew` | somebody renews everybody | – |

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::short_duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// No connection comes about.
    Outage,
    /// This share of all calls fails.
    BrownOut(f64),
    /// This share of all identities is refused.
    Poison(f64),
    /// Every call is answered 429 with this Retry-After.
    Throttle(Duration),
    /// Every answer takes so much longer.
    Slow(Duration),
    /// Our wall clock steps.
    Clock(SignedDuration),
    /// The daemon ends well and starts again.
    Restart,
    /// It is killed and starts again.
    Kill,
    /// One access key, or both, are regenerated.
    KeyLoss {
        /// Whether the secondary one as well.
        both: bool,
    },
    /// Everybody is revoked, and new tokens follow.
    Revoke,
    Renew,
}

/// Something that goes wrong, from when on and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedFault {
    pub kind: FaultKind,
    /// When it begins, from the start.
    pub at: Duration,
    /// How long it lasts; zero where it is over at once or lasts for ever.
    pub lasts: Duration,
}

impl PlannedFault {
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }

    /// Whether it goes on at an instant.
    pub fn holds(&self, now: Duration) -> bool {
        self.at <= now && now < self.ends()
    }

    /// Whether while it lasts the service cannot be reached well, or there is nobody who would.
    pub fn is_bad_time(&self) -> bool {
        match self.kind {
            FaultKind::Outage
            | FaultKind::BrownOut(_)
            | FaultKind::Throttle(_)
            | FaultKind::Slow(_)
            | FaultKind::Restart
            | FaultKind::Kill => true,
            FaultKind::KeyLoss { both } => both,
            FaultKind::Poison(_) | FaultKind::Clock(_) | FaultKind::Revoke | FaultKind::Renew => {
                false
            }
        }
    }

    pub fn word(&self) -> &'static str {
        match self.kind {
            FaultKind::Outage => "outage",
            FaultKind::BrownOut(_) => "brown-out",
            FaultKind::Poison(_) => "poison",
            FaultKind::Throttle(_) => "throttle",
            FaultKind::Slow(_) => "slow",
            FaultKind::Clock(_) => "clock",
            FaultKind::Restart => "restart",
            FaultKind::Kill => "kill",
            FaultKind::KeyLoss { .. } => "key-loss",
            FaultKind::Revoke => "revoke",
            FaultKind::Renew => "renew",
        }
    }
}

impl fmt::Display for PlannedFault {
    /// As it would be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at={}", self.word(), written(self.at))?;
        if !self.lasts.is_zero() {
            write!(f, " for={}", written(self.lasts))?;
        }
        match self.kind {
            FaultKind::BrownOut(share) | FaultKind::Poison(share) => write!(f, " share={share}"),
            FaultKind::Throttle(wait) => write!(f, " wait={}", written(wait)),
            FaultKind::Slow(by) => write!(f, " by={}", written(by)),
            FaultKind::Clock(by) if by.is_negative() => {
                write!(f, " by=-{}", written(by.unsigned_abs()))
            }
            FaultKind::Clock(by) => write!(f, " by={}", written(by.unsigned_abs())),
            FaultKind::KeyLoss { both: true } => write!(f, " keys=both"),
            _ => Ok(()),
        }
    }
}

/// A duration so that it is read as the same one.
fn written(duration: Duration) -> String {
    let secs = duration.as_secs();
    let parts = [
        (secs / 86_400, "d"),
        (secs / 3600 % 24, "h"),
        (secs / 60 % 60, "m"),
        (secs % 60, "s"),
    ];
    let told = parts.iter().filter(|(count, _)| *count > 0);
    let text: String = told.map(|(count, unit)| format!("{count}{unit}")).collect();
    match text.is_empty() {
        true => "0s".to_owned(),
        false => text,
    }
}

/// Why a line says nothing that can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line:?} is no fault: {why}")]
pub struct FaultError {
    line: String,
    why: String,
}

const KNOWN: &str =
    "outage, brown-out, poison, throttle, slow, clock, restart, kill, key-loss, revoke, renew";

impl FromStr for PlannedFault {
    type Err = FaultError;

    fn from_str(line: &str) -> Result<Self, FaultError> {
        read(line).map_err(|why| FaultError {
            line: line.to_owned(),
            why,
        })
    }
}

/// The words of a line by their names.
struct Words<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Words<'a> {
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }

    fn duration(&mut self, name: &str, usual: Option<Duration>) -> Result<Duration, String> {
        match (self.take(name), usual) {
            (Some(text), _) => duration(text),
            (None, Some(usual)) => Ok(usual),
            (None, None) => Err(format!("it needs {name}=, such as {name}=2h")),
        }
    }

    fn share(&mut self, usual: f64) -> Result<f64, String> {
        let Some(text) = self.take("share") else {
            return Ok(usual);
        };
        let share: Option<f64> = text.parse().ok();
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| format!("share={text}: it is between 0 and 1"))
    }
}

fn read(line: &str) -> Result<PlannedFault, String> {
    let mut parts = line.split_whitespace();
    let word = parts.next().ok_or("it is empty")?;
    let mut words = Vec::new();
    for part in parts {
        let pair = part.split_once('=');
        words.push(pair.ok_or_else(|| format!("{part:?} is not name=value"))?);
    }
    let mut words = Words(words);
    let at = words.duration("at", None)?;
    let (kind, lasts) = kind_of(word, &mut words)?;
    match words.0.first() {
        Some((name, _)) => Err(format!("{word} knows no {name}=")),
        None => Ok(PlannedFault { kind, at, lasts }),
    }
}

fn kind_of(word: &str, words: &mut Words<'_>) -> Result<(FaultKind, Duration), String> {
    let usual = |duration| Some(duration);
    Ok(match word {
        "outage" => (FaultKind::Outage, words.duration("for", None)?),
        "brown-out" => (
            FaultKind::BrownOut(words.share(0.5)?),
            words.duration("for", None)?,
        ),
        "poison" => (
            FaultKind::Poison(words.share(0.01)?),
            words.duration("for", None)?,
        ),
        "throttle" => (
            FaultKind::Throttle(words.duration("wait", usual(SECOND * 10))?),
            words.duration("for", None)?,
        ),
        "slow" => (
            FaultKind::Slow(words.duration("by", usual(SECOND * 15))?),
            words.duration("for", None)?,
        ),
        "clock" => {
            let by = words.take("by").ok_or("it needs by=, such as by=-1h")?;
            (
                FaultKind::Clock(signed(by)?),
                words.duration("for", usual(Duration::ZERO))?,
            )
        }
        "restart" => (
            FaultKind::Restart,
            words.duration("for", usual(SECOND * 2))?,
        ),
        "kill" => (FaultKind::Kill, words.duration("for", usual(SECOND * 2))?),
        "key-loss" => {
            let both = match words.take("keys") {
                None | Some("primary") => false,
                Some("both") => true,
                Some(other) => return Err(format!("keys={other}: it is primary or both")),
            };
            let lasts = words.duration("for", usual(Duration::ZERO))?;
            if both && lasts.is_zero() {
                return Err("with keys=both it needs for=".to_owned());
            }
            (FaultKind::KeyLoss { both }, lasts)
        }
        "revoke" => (FaultKind::Revoke, Duration::ZERO),
        "renew" => (FaultKind::Renew, Duration::ZERO),
        _ => return Err(format!("there is none of that name; there are {KNOWN}")),
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 30s, 90m, 2d or 1h30m");
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest[digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let more = count
            .checked_mul(unit)
            .and_then(|more| total.checked_add(more));
        total = more.filter(|total| *total < 1 << 40).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    match text.is_empty() {
        true => Err(wrong()),
        false => Ok(Duration::from_secs(total)),
    }
}

fn signed(text: &str) -> Result<SignedDuration, String> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let by = SignedDuration::try_from(duration(text)?).map_err(|error| error.to_string())?;
    Ok(if negative { -by } else { by })
}

/// Reads a script: one fault a line; what follows `#` is a remark.
///
/// # Errors
/// At the first line that is no fault, with its number.
pub fn script(text: &str) -> Result<Vec<PlannedFault>, String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let fault = line.parse::<PlannedFault>();
            faults.push(fault.map_err(|error| format!("line {}: {error}", number + 1))?);
        }
    }
    Ok(faults)
}

/// Faults by chance within so much time; the last hours are quiet, so that all can be well again.
pub fn random(seed: u64, length: Duration) -> Vec<PlannedFault> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_fa17);
    let quiet = length.mul_f64(0.15).max(HOUR * 3);
    let last = length.saturating_sub(quiet);
    let mut faults: Vec<PlannedFault> = (0..rng.random_range(2..=6))
        .map(|_| drawn(last, &mut rng))
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn drawn(last: Duration, rng: &mut ChaCha8Rng) -> PlannedFault {
    let at = between(MINUTE * 10, last, rng);
    let share = |from: f64, to: f64, rng: &mut ChaCha8Rng| {
        (rng.random_range(from..to) * 1000.0).round() / 1000.0
    };
    let (kind, lasts) = match rng.random_range(0..11) {
        0 => (FaultKind::Outage, between(MINUTE, HOUR * 20, rng)),
        1 => (
            FaultKind::BrownOut(share(0.05, 0.9, rng)),
            between(MINUTE * 5, HOUR * 6, rng),
        ),
        2 => (
            FaultKind::Poison(share(0.02, 0.15, rng)),
            between(HOUR, HOUR * 48, rng),
        ),
        3 => (
            FaultKind::Throttle(between(SECOND, MINUTE, rng)),
            between(MINUTE, HOUR, rng),
        ),
        4 => (
            FaultKind::Slow(between(SECOND, SECOND * 40, rng)),
            between(MINUTE * 10, HOUR * 4, rng),
        ),
        5 => {
            let by = between(SECOND * 3, HOUR * 48, rng);
            let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::ZERO);
            let by = if rng.random_bool(0.5) { -by } else { by };
            (FaultKind::Clock(by), between(HOUR, HOUR * 12, rng))
        }
        6 => (FaultKind::Restart, between(SECOND, MINUTE, rng)),
        7 => (FaultKind::Kill, between(SECOND, MINUTE * 30, rng)),
        8 => (
            FaultKind::KeyLoss {
                both: rng.random_bool(0.3),
            },
            between(MINUTE * 10, HOUR * 10, rng),
        ),
        9 => (FaultKind::Revoke, Duration::ZERO),
        _ => (FaultKind::Renew, Duration::ZERO),
    };
    let lasts = lasts.min(last.saturating_sub(at).max(SECOND * 2));
    let lasts = match kind {
        FaultKind::Revoke | FaultKind::Renew => Duration::ZERO,
        _ => lasts,
    };
    PlannedFault { kind, at, lasts }
}

/// Whole seconds, each length as likely as one twice as long.
fn between(from: Duration, to: Duration, rng: &mut impl Rng) -> Duration {
    let (from, to) = (from.as_secs_f64().max(1.0), to.as_secs_f64().max(2.0));
    let drawn = (from.ln() + rng.random::<f64>() * (to / from).max(1.0).ln()).exp();
    Duration::from_secs(drawn as u64)
}

/// How a fault is told to a person.
pub fn told(fault: &PlannedFault) -> String {
    let lasts = match fault.lasts.is_zero() {
        true => String::new(),
        false => format!(" for {}", short_duration(fault.lasts)),
    };
    let detail = match fault.kind {
        FaultKind::BrownOut(share) => format!(", {:.0} % of the calls fail", share * 100.0),
        FaultKind::Poison(share) => format!(", {:.1} % of the identities", share * 100.0),
        FaultKind::Throttle(wait) => format!(", Retry-After {}", short_duration(wait)),
        FaultKind::Slow(by) => format!(", answers take {}", short_duration(by)),
        FaultKind::Clock(by) => {
            let sign = if by.is_negative() { "back" } else { "ahead" };
            format!(", {} {sign}", short_duration(by.unsigned_abs()))
        }
        FaultKind::KeyLoss { both: true } => ", both keys".to_owned(),
        FaultKind::KeyLoss { both: false } => ", the primary key".to_owned(),
        _ => String::new(),
    };
    format!("{}{lasts}{detail}", fault.word())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_script_is_read_line_by_line() {
        let text = "# a bad week\noutage at=2d for=6h\n\nclock at=1h30m by=-1h  # set back\nkey-loss at=3d\n";
        let faults = script(text).unwrap();
        assert_eq!(faults.len(), 3);
        assert_eq!(faults[0].kind, FaultKind::Outage);
        assert_eq!((faults[0].at, faults[0].lasts), (HOUR * 48, HOUR * 6));
        assert_eq!(
            faults[1].kind,
            FaultKind::Clock(SignedDuration::from_hours(-1))
        );
        assert_eq!(faults[2].kind, FaultKind::KeyLoss { both: false });
    }

    #[test]
    fn nonsense_is_explained() {
        for (line, part) in [
            ("outage", "it needs at="),
            ("outage at=2d", "it needs for="),
            ("outgae at=2d for=1h", "there are outage"),
            ("outage at=2d for=1h share=0.5", "knows no share="),
            ("brown-out at=1h for=1h share=2", "between 0 and 1"),
            ("slow at=1h for=1x", "not a duration"),
            ("kill at=99999999999999999999d", "not a duration"),
            ("clock at=1h", "it needs by="),
            ("key-loss at=1h keys=both", "it needs for="),
            ("kill 1h", "not name=value"),
        ] {
            let error = line.parse::<PlannedFault>().unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        let error = script("renew at=1h\nrenew").unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_read_as_it_is_written(seed: u64) {
            let length = HOUR * 72;
            let faults = random(seed, length);
            prop_assert!(!faults.is_empty());
            for fault in &faults {
                prop_assert!(fault.ends() < length, "{fault}");
                prop_assert_eq!(&fault.to_string().parse::<PlannedFault>().unwrap(), fault);
            }
            prop_assert_eq!(random(seed, length), faults);
        }
    }
}
