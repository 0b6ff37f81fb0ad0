//! Durations as people write them on a command line, `30s`, `90m`, `24h`, `1h30m`, and instants.

use std::time::Duration;

use jiff::Timestamp;

/// Reads a duration of whole seconds, at least one.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 30s, 90m, 24h or 1h30m");
    let (mut total, mut digits) = (0_u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = std::mem::take(&mut digits).parse().map_err(|_| wrong())?;
        let seconds = count.checked_mul(unit).ok_or_else(wrong)?;
        total = total.checked_add(seconds).ok_or_else(wrong)?;
    }
    if !digits.is_empty() || total == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}

/// Reads how long a token may live.
pub(crate) fn token_life(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_hours(1)..=Duration::from_hours(24);
    let life = parse(text)?;
    let told = || format!("{text}: ACS lets tokens live from 1h to 24h");
    allowed.contains(&life).then_some(life).ok_or_else(told)
}

/// An instant, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(Timestamp),
    Ago(Duration),
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is neither an instant such as 2026-11-22T00:00:00Z nor so long ago, such as 24h"
            )
        };
        text.parse()
            .map(Self::At)
            .or_else(|_| parse(text).map(Self::Ago))
            .map_err(|_| wrong())
    }
}

impl When {
    /// The instant, counted back from now.
    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse("2d"), Ok(Duration::from_hours(48)));
        for bad in [
            "",
            "30",
            "s",
            "0s",
            "1x",
            "-1s",
            "1.5h",
            "99999999999999999999s",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_instant_may_be_said_as_so_long_ago() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let when = |text: &str| text.parse::<When>().unwrap().before(now).to_string();
        assert_eq!(when("24h"), "2026-11-21T12:00:00Z");
        assert_eq!(when("2026-11-20T01:00:00+01:00"), "2026-11-20T00:00:00Z");
        assert!("yesterday".parse::<When>().is_err());
    }
}
