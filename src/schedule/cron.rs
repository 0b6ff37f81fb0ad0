//! When a job is due, and what it does about an instant: a cron pattern in a real time zone, and a plain function
//! of what was decided last, of now, and of what is still running.
//!
//! The pattern is what Debian's cron reads, with seconds in front where there are six fields, and three forms
//! beyond it for days (`L`, `5L`, `5#2`); what is neither is refused at its column. It is matched in civil
//! time, then the zone says which instant that is: a local time that a clock change skips becomes the first
//! valid instant after it, a doubled one its first occurrence.

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::{
    config::{Finding, JobSettings, Severity},
    model::Missed,
};

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

/// A field: its name, its bounds, and the names of its numbers.
struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn field(name: &'static str, low: u8, high: u8) -> Field {
    Field {
        name,
        low,
        high,
        names: &[],
    }
}

/// In the order of a pattern of six.
const FIELDS: [Field; 6] = [
    field("second", 0, 59),
    field("minute", 0, 59),
    field("hour", 0, 23),
    DAY,
    Field {
        names: MONTHS,
        ..field("month", 1, 12)
    },
    WEEKDAY,
];
const DAY: Field = field("day of the month", 1, 31);
const WEEKDAY: Field = Field {
    names: WEEKDAYS,
    ..field("day of the week", 0, 7)
};

/// Numbers below 64, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bits(u64);

impl Bits {
    fn add(&mut self, number: u8) {
        self.0 |= 1 << (number & 63);
    }

    fn has(self, number: u8) -> bool {
        self.0 >> (number & 63) & 1 == 1
    }

    fn all(self) -> Vec<i8> {
        let numbers = (0..64).filter(|n| self.has(*n));
        numbers.map(u8::cast_signed).collect()
    }
}

/// What one field matches.
#[derive(Debug, Clone, Copy, Default)]
struct Matches {
    /// It begins with `*`, which decides how the two fields for days go together.
    star: bool,
    numbers: Bits,
    /// The last day of the month; or which weekdays are meant where they come last in a month.
    last: Bits,
    /// Which weekdays are meant where they come for the first to the fifth time in a month.
    nth: [Bits; 5],
}

/// What a pattern matches, in civil time.
#[derive(Debug, Clone)]
struct Pattern {
    seconds: Vec<i8>,
    minutes: Vec<i8>,
    hours: Vec<i8>,
    days: Matches,
    months: Bits,
    weekdays: Matches,
}

impl Pattern {
    /// Reads five fields, or six with seconds first.
    fn parse(text: &str) -> Result<Self, CronError> {
        let words = words(text);
        let skipped = match words.len() {
            5 => 1,
            6 => 0,
            n => return Err(CronError::Fields(n)),
        };
        let mut found = [Matches::default(); 6];
        found[0].numbers.add(0);
        for ((column, word), (field, matches)) in words
            .into_iter()
            .zip(FIELDS.iter().zip(&mut found).skip(skipped))
        {
            *matches = Reader {
                field,
                word,
                column,
            }
            .read()?;
        }
        let [seconds, minutes, hours, days, months, weekdays] = found;
        Ok(Self {
            seconds: seconds.numbers.all(),
            minutes: minutes.numbers.all(),
            hours: hours.numbers.all(),
            days,
            months: months.numbers,
            weekdays,
        })
    }

    /// Whether it comes on this day. As in Debian's cron: where the field of the day or that of the
    /// weekday begins with `*`, both must match; otherwise one is enough.
    fn matches_day(&self, date: Date) -> bool {
        let (day, weekday) = (self.matches_date(date), self.matches_weekday(date));
        let days = match self.days.star || self.weekdays.star {
            true => day && weekday,
            false => day || weekday,
        };
        days && self.months.has(date.month().unsigned_abs())
    }

    fn matches_date(&self, date: Date) -> bool {
        let last = self.days.last != Bits::default() && date.day() == date.days_in_month();
        last || self.days.numbers.has(date.day().unsigned_abs())
    }

    fn matches_weekday(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset().unsigned_abs();
        let week = usize::from(date.day().unsigned_abs().saturating_sub(1) / 7);
        let is_last = date.day() + 7 > date.days_in_month();
        self.weekdays.numbers.has(weekday)
            || (is_last && self.weekdays.last.has(weekday))
            || self
                .weekdays
                .nth
                .get(week)
                .is_some_and(|bits| bits.has(weekday))
    }
}

/// The words of a pattern, each with the column of its first character.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut column = 1;
    for word in text.split([' ', '\t']) {
        if !word.is_empty() {
            found.push((column, word));
        }
        column += word.chars().count() + 1;
    }
    found
}

/// One word of a pattern, read as its field.
struct Reader<'a> {
    field: &'static Field,
    word: &'a str,
    column: usize,
}

impl Reader<'_> {
    fn read(&self) -> Result<Matches, CronError> {
        let mut found = Matches {
            star: self.word.starts_with('*'),
            ..Matches::default()
        };
        let mut column = self.column;
        for member in self.word.split(',') {
            self.member(member, column, &mut found)?;
            column += member.chars().count() + 1;
        }
        if self.is(&WEEKDAY) && found.numbers.has(7) {
            found.numbers.add(0);
        }
        Ok(found)
    }

    fn is(&self, field: &Field) -> bool {
        self.field.name == field.name
    }

    /// One member of a list: `*`, a number, a range, a step over either; or a form for days.
    fn member(&self, text: &str, column: usize, found: &mut Matches) -> Result<(), CronError> {
        let after = |part: &str| column + part.chars().count() + 1;
        if text.is_empty() {
            return Err(self.wrong(column, "a member of the list is empty"));
        }
        if self.special(text, column, found)? {
            return Ok(());
        }
        let (base, step) = match text.split_once('/') {
            Some((base, step)) => (base, Some((step, after(base)))),
            None => (text, None),
        };
        let (first, last) = match base.split_once('-') {
            _ if base == "*" => (self.field.low, self.field.high),
            Some((first, last)) => (
                self.number(first, column)?,
                self.number(last, after(first))?,
            ),
            None if step.is_some() => {
                let why = "a step follows * or a range, such as 5-59/15";
                return Err(self.wrong(column, why));
            }
            None => {
                let number = self.number(base, column)?;
                (number, number)
            }
        };
        if first > last {
            let why = match self.is(&WEEKDAY) && last == 0 {
                true => "the range runs backwards: as the end of a range, Sunday is 7",
                false => "the range runs backwards: write two, such as 22-23,0-5",
            };
            return Err(self.wrong(column, why));
        }
        let step = step.map_or(Ok(1), |(step, column)| self.step(step, column))?;
        (first..=last)
            .step_by(step)
            .for_each(|n| found.numbers.add(n));
        Ok(())
    }

    /// The forms that Debian's cron does not know: `L`, `5L` or `FRIL`, `5#2` or `FRI#2`.
    fn special(&self, text: &str, column: usize, found: &mut Matches) -> Result<bool, CronError> {
        if self.is(&DAY) && text.eq_ignore_ascii_case("L") {
            found.last.add(1);
            return Ok(true);
        }
        if !self.is(&WEEKDAY) {
            return Ok(false);
        }
        if let Some((day, nth)) = text.split_once('#') {
            let weekday = self.number(day, column)? % 7;
            let nth = nth.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let Some(bits) = nth.and_then(|nth| found.nth.get_mut(nth)) else {
                return Err(self.wrong(column, "after # comes 1 to 5: which one of the month"));
            };
            bits.add(weekday);
            return Ok(true);
        }
        let Some(day) = text.strip_suffix(['L', 'l']) else {
            return Ok(false);
        };
        if day.is_empty() {
            let why = "L alone is the last day of the month, in the field for that; here a weekday goes before it, \
                       such as 5L";
            return Err(self.wrong(column, why));
        }
        found.last.add(self.number(day, column)? % 7);
        Ok(true)
    }

    /// A number or its name, within the bounds of the field.
    fn number(&self, text: &str, column: usize) -> Result<u8, CronError> {
        let named = self
            .field
            .names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some(place) => u8::try_from(place).ok().map(|place| place + self.field.low),
            None if is_number(text) => text.parse().ok(),
            None if text.is_empty() => return Err(self.wrong(column, "a number is missing")),
            None => return Err(self.wrong(column, &self.misread(text))),
        };
        let within = |n: &u8| (self.field.low..=self.field.high).contains(n);
        number.filter(within).ok_or_else(|| {
            let why = format!(
                "{text} is not within {} to {}",
                self.field.low, self.field.high
            );
            self.wrong(column, &why)
        })
    }

    fn misread(&self, text: &str) -> String {
        if text.eq_ignore_ascii_case("L") {
            return "L stands alone in the field for the day of the month (the last one), or after a weekday (5L)"
                .to_owned();
        }
        match self.field.names {
            [] => format!("`{text}` is not a number"),
            _ => format!("`{text}` is neither a number nor a name of three letters"),
        }
    }

    fn step(&self, text: &str, column: usize) -> Result<usize, CronError> {
        let step = is_number(text).then(|| text.parse::<usize>().ok());
        let step = step.flatten().filter(|step| *step > 0);
        step.ok_or_else(|| self.wrong(column, "a step is a number from 1"))
    }

    fn wrong(&self, column: usize, why: &str) -> CronError {
        CronError::Field {
            field: self.field.name,
            text: self.word.to_owned(),
            column,
            why: why.to_owned(),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An instant that passed no longer ago than this was not missed; it is only carried out late.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(60);

/// What a job does about its earliest instant that is not decided yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobCall {
    /// Nothing until then; `None`: never again.
    Wait(Option<Timestamp>),
    /// It runs for this instant; everything until `decided_until` is decided with it.
    Run {
        /// The instant of the pattern.
        scheduled_at: Timestamp,
        /// The next instant is looked for after this one.
        decided_until: Timestamp,
    },
    /// It does not run for this instant.
    Skip {
        /// The instant of the pattern.
        scheduled_at: Timestamp,
        /// The next instant is looked for after this one.
        decided_until: Timestamp,
    },
}

/// Decides about a job whose instants up to `decided_until` are decided. The next instant is computed
/// from the scheduled one, so lateness never adds up; several that passed are one.
pub fn call(cron: &Cron, decided_until: Timestamp, missed: Missed, now: Timestamp) -> JobCall {
    let scheduled_at = match cron.next(decided_until) {
        Some(at) if at <= now => at,
        later => return JobCall::Wait(later),
    };
    let more = cron.next(scheduled_at).is_some_and(|next| next <= now);
    let decided_until = if more { now } else { scheduled_at };
    match missed {
        Missed::Skip if now.duration_since(scheduled_at) > PUNCTUAL => JobCall::Skip {
            scheduled_at,
            decided_until,
        },
        _ => JobCall::Run {
            scheduled_at,
            decided_until,
        },
    }
}

/// What can be said of the `[[job]]` sections: patterns and zones.
pub fn check_jobs(jobs: &[JobSettings]) -> Vec<Finding> {
    let jobs = jobs.iter().enumerate();
    jobs.filter_map(|(n, job)| check_job(job, n)).collect()
}

fn check_job(job: &JobSettings, n: usize) -> Option<Finding> {
    let error = match Cron::parse(&job.cron, &job.timezone) {
        // Whether it ever comes does not depend on where one starts.
        Ok(cron) if cron.next(Timestamp::UNIX_EPOCH).is_some() => return None,
        Ok(_) => CronError::Never,
        Err(error) => error,
    };
    let (key, hint) = match &error {
        CronError::Zone(name) => ("timezone", zone_hint(name)),
        CronError::Never => ("cron", "look at its day and its month".to_owned()),
        CronError::Fields(_) => (
            "cron",
            "minute hour day month weekday, such as \"0 22 * * FRI\"; with seconds \"0 0 22 * * FRI\""
                .to_owned(),
        ),
        CronError::Field { field, .. } => ("cron", field_hint(field).to_owned()),
    };
    Some(Finding {
        path: format!("job[{n}].{key}"),
        severity: Severity::Error,
        message: error.to_string(),
        hint: Some(hint),
    })
}

fn zone_hint(name: &str) -> String {
    match nearest_zone(name) {
        Some(zone) => format!("did you mean {zone:?}?"),
        None => "an IANA name such as \"Europe/Prague\", or \"UTC\"; the system's list is in /usr/share/zoneinfo"
            .to_owned(),
    }
}

fn field_hint(field: &str) -> &'static str {
    match field {
        "hour" => "0 to 23, *, lists 1,2, ranges 8-18, steps */2",
        "day of the month" => "1 to 31, L for the last, *, lists 1,15, ranges 1-7, steps */2",
        "month" => "1 to 12 or JAN to DEC, *, lists 1,7, ranges 4-6, steps */3",
        "day of the week" => {
            "0 to 7 (0 and 7 are Sunday) or SUN to SAT, *, lists 1,3, ranges MON-FRI, the last one 5L, the second 5#2"
        }
        _ => "0 to 59, *, lists 0,30, ranges 10-20, steps */5",
    }
}

#[cfg(test)]
mod debian;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod job_tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly(decided: &str, missed: Missed, now: &str) -> JobCall {
        let cron = Cron::parse("0 * * * *", "UTC").unwrap();
        call(&cron, at(decided), missed, at(now))
    }

    #[test]
    fn it_waits_for_the_instant_and_not_a_moment_less() {
        let next = Some(at("2026-11-22T11:00:00Z"));
        let decided = "2026-11-22T10:00:00Z";
        assert_eq!(
            hourly(decided, Missed::RunOnce, "2026-11-22T10:59:59.999Z"),
            JobCall::Wait(next)
        );
        assert_eq!(
            hourly(decided, Missed::Skip, "2026-11-22T11:00:00Z"),
            JobCall::Run {
                scheduled_at: at("2026-11-22T11:00:00Z"),
                decided_until: at("2026-11-22T11:00:00Z"),
            }
        );
    }

    #[test]
    fn what_was_missed_is_one_run_or_none() {
        let (decided, now) = ("2026-11-22T10:00:00Z", "2026-11-23T06:30:00Z");
        assert_eq!(
            hourly(decided, Missed::RunOnce, now),
            JobCall::Run {
                scheduled_at: at("2026-11-22T11:00:00Z"),
                decided_until: at(now),
            }
        );
        assert_eq!(
            hourly(decided, Missed::Skip, now),
            JobCall::Skip {
                scheduled_at: at("2026-11-22T11:00:00Z"),
                decided_until: at(now),
            }
        );
        assert_eq!(
            hourly(now, Missed::Skip, now),
            JobCall::Wait(Some(at("2026-11-23T07:00:00Z")))
        );
    }

    #[test]
    fn a_late_wake_is_no_missed_run() {
        let call = hourly("2026-11-22T10:00:00Z", Missed::Skip, "2026-11-22T11:00:59Z");
        assert!(matches!(call, JobCall::Run { .. }), "{call:?}");
    }
}
