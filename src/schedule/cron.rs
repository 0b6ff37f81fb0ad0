//! When a job is due: a cron pattern in a real time zone. The pattern is matched in civil time, then
//! the zone says which instant that is: a local time that a clock change skips becomes the first
//! valid instant after it, a doubled one its first occurrence. Pure.

mod pattern;

use jiff::{
    Timestamp, ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use pattern::Pattern;

/// Patterns exist that match once in so many years (a 29 February on a given weekday, over a year
/// such as 2100); one that matches never within them matches never.
const HORIZON_YEARS: i16 = 50;

/// A cron pattern and the zone in which it is meant.
#[derive(Debug, Clone)]
pub struct Cron {
    pattern: Pattern,
    zone: TimeZone,
}

/// Why a pattern or a zone cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Neither five nor six fields.
    #[error("a cron pattern has five fields, or six with seconds first; this one has {0}")]
    Fields(usize),
    /// One field is wrong.
    #[error(
        "the {field} field of the pattern cannot be `{text}`: {why} (column {column} of the pattern)"
    )]
    Field {
        /// Which.
        field: &'static str,
        /// As it is written.
        text: String,
        /// Which character of the pattern is meant, from 1.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// Such as 30 February.
    #[error("the pattern never comes")]
    Never,
    /// The system does not know the zone.
    #[error("there is no time zone `{0}`")]
    Zone(String),
}

impl Cron {
    /// Reads a pattern (five fields, or six with seconds first; 0 and 7 are Sunday) and an IANA zone.
    ///
    /// # Errors
    /// When either cannot be used.
    pub fn parse(pattern: &str, zone: &str) -> Result<Self, CronError> {
        Ok(Self {
            zone: time_zone(zone)?,
            pattern: Pattern::parse(pattern)?,
        })
    }

    /// The first instant after this one; `None` when it never comes again.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut civil = self.zone.to_datetime(after);
        loop {
            civil = self.next_civil(civil)?;
            // In the second pass of a doubled hour, what was due in the first is over.
            let at = self.instant(civil)?;
            if at > after {
                return Some(at);
            }
        }
    }

    /// The first civil time that matches after this one.
    fn next_civil(&self, after: DateTime) -> Option<DateTime> {
        let start = after
            .with()
            .subsec_nanosecond(0)
            .build()
            .ok()?
            .checked_add(1.second())
            .ok()?;
        let mut date = start.date();
        if self.pattern.matches_day(date)
            && let Some(found) = self.first_of_day(start)
        {
            return Some(found);
        }
        let last = date.year().saturating_add(HORIZON_YEARS);
        loop {
            date = date.tomorrow().ok().filter(|date| date.year() <= last)?;
            if self.pattern.matches_day(date) {
                return self.first_of_day(date.at(0, 0, 0, 0));
            }
        }
    }

    /// The first match on the day of `from`, not before it.
    fn first_of_day(&self, from: DateTime) -> Option<DateTime> {
        for &hour in self
            .pattern
            .hours
            .iter()
            .filter(|hour| **hour >= from.hour())
        {
            let same_hour = hour == from.hour();
            let minutes = self.pattern.minutes.iter();
            for &minute in minutes.filter(|minute| !same_hour || **minute >= from.minute()) {
                let same_minute = same_hour && minute == from.minute();
                let mut seconds = self.pattern.seconds.iter();
                let second = seconds.find(|second| !same_minute || **second >= from.second());
                if let Some(&second) = second {
                    return Some(from.date().at(hour, minute, second, 0));
                }
            }
        }
        None
    }

    /// The instant of a civil time.
    fn instant(&self, civil: DateTime) -> Option<Timestamp> {
        let local = self.zone.to_ambiguous_timestamp(civil);
        if !matches!(local.offset(), AmbiguousOffset::Gap { .. }) {
            return local.earlier().ok();
        }
        // With the offset of before the gap it lies at or after the change; the change itself is the
        // first instant that is valid.
        let past = local.later().ok()?.checked_add(1.nanosecond()).ok()?;
        let change = self.zone.preceding(past).next()?;
        Some(change.timestamp())
    }
}

fn time_zone(name: &str) -> Result<TimeZone, CronError> {
    TimeZone::get(name).map_err(|_| CronError::Zone(name.to_owned()))
}

/// The zone that a misspelt name was probably meant to be.
pub(super) fn nearest_zone(name: &str) -> Option<String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace([' ', '-'], "_");
    let wanted = plain(name);
    let known = jiff::tz::db().available().map(|zone| zone.to_string());
    known
        .map(|zone| {
            let city = zone.rsplit('/').next().unwrap_or(&zone);
            let whole = strsim::damerau_levenshtein(&wanted, &plain(&zone));
            let part = strsim::damerau_levenshtein(&wanted, &plain(city));
            (whole.min(part), zone)
        })
        .filter(|(distance, _)| *distance <= (wanted.len() / 4).max(1))
        .min()
        .map(|(_, zone)| zone)
}

#[cfg(test)]
mod debian;
#[cfg(test)]
mod tests;
