//! Instants as the service writes them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// `expiresOn`: .NET's round-trip format, up to seven fractional digits with trailing zeros left
/// out, and `+00:00`, never `Z`.
pub(super) fn expires_on(at: Timestamp) -> String {
    let seconds = at.strftime("%Y-%m-%dT%H:%M:%S");
    let ticks = format!("{:07}", at.subsec_nanosecond().max(0) / 100);
    match ticks.trim_end_matches('0') {
        "" => format!("{seconds}+00:00"),
        fraction => format!("{seconds}.{fraction}+00:00"),
    }
}

/// An HTTP date, whole seconds.
pub(super) fn http_date(at: Timestamp) -> String {
    httpdate::fmt_http_date(SystemTime::from(at))
}

/// Reads an HTTP date.
pub(super) fn read_http_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text).ok()?;
    Timestamp::try_from(at).ok()
}

/// `at` plus `by`, kept within what a timestamp can hold.
pub(super) fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Whole seconds, rounded up, as in a token's `exp`.
pub(super) fn seconds_up(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

/// Reads `30s`, `500ms`, `5m`, `2h`, `1d`, or a bare number of seconds.
pub(super) fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().ok()?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_written_as_dotnet_does() {
        let write = |text: &str| expires_on(text.parse().unwrap());
        assert_eq!(
            write("2023-10-19T15:35:25.246068799Z"),
            "2023-10-19T15:35:25.2460687+00:00"
        );
        assert_eq!(
            write("2023-10-19T15:35:25.68764Z"),
            "2023-10-19T15:35:25.68764+00:00"
        );
        assert_eq!(write("2023-10-19T15:35:25Z"), "2023-10-19T15:35:25+00:00");
    }

    #[test]
    fn durations_need_a_known_unit() {
        assert_eq!(read_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(read_duration("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(read_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read_duration("2h"), Some(Duration::from_hours(2)));
        for bad in ["", "s", "-1s", "3w", "1 s"] {
            assert_eq!(read_duration(bad), None, "{bad:?}");
        }
    }
}
