//! Durations and limits as people write them: `24h`, `1h30m`, `1000/30s`.

use std::time::Duration;

use super::Limit;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads `90s`, `5m`, `24h`, `30d`, or several of them, as in `1h30m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let (_, secs) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(count.checked_mul(secs)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(Duration::from_secs(total))
}

/// Writes a duration in its largest whole unit, as it would be read; a day is written `24h`.
pub(super) fn duration_text(duration: Duration) -> String {
    let secs = duration.as_secs();
    UNITS
        .into_iter()
        .find(|(name, unit)| {
            secs >= *unit && secs.is_multiple_of(*unit) && !(*name == 'd' && secs == *unit)
        })
        .map_or_else(
            || format!("{secs}s"),
            |(name, unit)| format!("{}{name}", secs / unit),
        )
}

/// Reads `1000/30s`, so many calls in any window of this length, or `50/s`, which is `50/1s`.
pub(super) fn limit(text: &str) -> Option<Limit> {
    let (calls, window) = text.split_once('/')?;
    let window = window.trim();
    let is_unit = window.starts_with(|c: char| c.is_ascii_alphabetic());
    Some(Limit {
        calls: calls.trim().parse().ok()?,
        window: match is_unit {
            true => duration(&format!("1{window}"))?,
            false => duration(window)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, secs) in [
            ("90s", 90),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("5m", 300),
        ] {
            assert_eq!(duration(text), Some(Duration::from_secs(secs)));
            assert_eq!(duration_text(Duration::from_secs(secs)), text);
        }
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        for bad in [
            "",
            "24",
            "h",
            "1.5h",
            "-1h",
            "1 h",
            "1w",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_are_read() {
        let expected = Limit {
            calls: 1000,
            window: Duration::from_secs(30),
        };
        assert_eq!(limit("1000/30s"), Some(expected));
        assert_eq!(limit("1000 / 30s"), Some(expected));
        assert_eq!(limit("50/s"), limit("50/1s"));
        for bad in ["1000", "1000/", "1000/30", "/30s", "x/30s", "-1/30s"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }
}
