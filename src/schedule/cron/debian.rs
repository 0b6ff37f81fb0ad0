//! Held against Debian's cron: an implementation after the rules of its manual and its source, by bits
//! and by a walk over five years of days, that shares nothing with ours but the calendar.

use std::collections::BTreeSet;

use jiff::{Timestamp, ToSpan, civil::Date, civil::date};
use proptest::prelude::*;

use super::Cron;

/// What a field of Debian's cron sets: `None` where it calls the field bad. Bounds as in its source:
/// a weekday is 0 to 7.
fn bits(text: &str, low: u32, high: u32, names: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| -> Option<u32> {
        let named = names
            .split(' ')
            .position(|n| !n.is_empty() && n.eq_ignore_ascii_case(text));
        let number = match named {
            Some(n) => n as u32 + low,
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (low..=high).contains(&number).then_some(number)
    };
    let mut set = BTreeSet::new();
    for member in text.split(',') {
        let mut parts = member.splitn(2, '/');
        let range = parts.next()?;
        let step = match parts.next() {
            Some(step) => step.parse::<u32>().ok().filter(|step| *step > 0)?,
            None => 1,
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((first, last)) => (number(first)?, number(last)?),
            None if member.contains('/') => return None,
            None => (number(range)?, number(range)?),
        };
        let mut n = first;
        while n <= last {
            set.insert(n);
            n += step;
        }
    }
    Some(set)
}

const MONTHS: &str = "jan feb mar apr may jun jul aug sep oct nov dec";
const WEEKDAYS: &str = "sun mon tue wed thu fri sat";

/// Every minute of five years at which Debian's cron would run it, in UTC, where nothing is skipped.
fn debian(pattern: &str, from: Date, count: usize) -> Option<Vec<Timestamp>> {
    let words: Vec<&str> = pattern.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = words[..] else {
        return None;
    };
    let minutes = bits(minute, 0, 59, "")?;
    let hours = bits(hour, 0, 23, "")?;
    let days = bits(day, 1, 31, "")?;
    let months = bits(month, 1, 12, MONTHS)?;
    let weekdays = bits(weekday, 0, 7, WEEKDAYS)?;
    let star = day.starts_with('*') || weekday.starts_with('*');
    let mut found = Vec::new();
    let mut today = from;
    while today < date(from.year() + 5, 1, 1) && found.len() < count {
        let of_month = days.contains(&(today.day() as u32));
        let number = today.weekday().to_sunday_zero_offset() as u32;
        let of_week = weekdays.contains(&number) || (number == 0 && weekdays.contains(&7));
        let fits = if star {
            of_month && of_week
        } else {
            of_month || of_week
        };
        if fits && months.contains(&(today.month() as u32)) {
            for hour in &hours {
                for minute in &minutes {
                    let at = today.at(*hour as i8, *minute as i8, 0, 0);
                    found.push(at.in_tz("UTC").unwrap().timestamp());
                }
            }
        }
        today = today.tomorrow().unwrap();
    }
    found.truncate(count);
    Some(found)
}

/// Ours, for as long.
fn ours(cron: &Cron, from: Date, count: usize) -> Vec<Timestamp> {
    let start = from.in_tz("UTC").unwrap().timestamp();
    let end = date(from.year() + 5, 1, 1)
        .in_tz("UTC")
        .unwrap()
        .timestamp();
    let mut now = start - 1.second();
    let mut found = Vec::new();
    while let Some(next) = cron
        .next(now)
        .filter(|next| *next < end && found.len() < count)
    {
        found.push(next);
        now = next;
    }
    found
}

/// Many an hour in five years would be slow to compare; so many instants are compared at most.
const MOST: usize = 4_000;

fn agrees(pattern: &str) {
    let from = date(2026, 1, 1);
    let theirs = debian(pattern, from, MOST);
    match Cron::parse(pattern, "UTC") {
        Ok(cron) => assert_eq!(Some(ours(&cron, from, MOST)), theirs, "{pattern}"),
        Err(refused) => assert!(
            refused.to_string().contains("column"),
            "{pattern}: {refused}"
        ),
    }
}

#[test]
fn what_is_taken_fires_as_in_debian_over_five_years() {
    for pattern in [
        "0 0 * * *",
        "0 0 1 * *",
        "0 0 * * 7",
        "0 0 * * 0",
        "0 0 * * 5-7",
        "0 0 * * SAT,7",
        "0 0 * * sat,sun",
        "0 0 13 * 5",
        "0 0 13 * FRI",
        "0 0 */2 * 1",
        "0 0 1-7 * 1",
        "0 0 1 * */2",
        "0 0 *,1 * 1",
        "0 0 1,* * 1",
        "0 0 * * *,1",
        "0 0 31 * *",
        "0 0 29 2 *",
        "0 0 29 2 1",
        "0 0 30 2 *",
        "0 0 30 2 0",
        "0 0 * * */3",
        "0 0 * * 1-7/2",
        "0 0 * * 0-7/7",
        "0 12 * JAN-MAR mon-fri/2",
        "*/90 0 1 * *",
        "1-5/60 0 1 * *",
        "007 00 1 * *",
        "5-59/15 */7 1 1 *",
        "0 0 31 4,6,9 *",
        "0 0 31 4,6,9 1",
        "0 0 15 */5 *",
        "0 0 */31 * *",
        "0 0 */30 2 *",
        "0 0 * feb *",
        "59 23 31 12 *",
        "0 0 1-31 * 1",
        "0 0 * * 0-6",
        "0 0 1 * 0-6",
        "0 0 1 * 0,7",
    ] {
        assert!(Cron::parse(pattern, "UTC").is_ok(), "{pattern}");
        agrees(pattern);
    }
}

#[test]
fn what_debian_calls_bad_is_refused_at_its_column() {
    // Debian's crontab answers "bad minute" and so on to the first ones; the later ones it takes and
    // reads in a way that nobody means (5~10 as 5, 50-10 as never).
    for (pattern, column) in [
        ("5/15 * * * *", 1),
        ("*/0 * * * *", 3),
        ("1,,2 * * * *", 3),
        (",1 * * * *", 1),
        ("1, * * * *", 3),
        ("* * 0 * *", 5),
        ("* * * * FRIDAY", 9),
        ("* * 15W * *", 5),
        ("? * * * *", 1),
        ("* * * * 8", 9),
        ("5- * * * *", 3),
        ("*/* * * * *", 3),
        ("+5 * * * *", 1),
        ("-5 * * * *", 1),
        ("*/+5 * * * *", 3),
        ("L * * * *", 1),
        ("* L * * *", 3),
        ("* * * L *", 7),
        ("* * * * L", 9),
        ("* * L-3 * *", 5),
        ("* * 5L * *", 5),
        ("* * * * SAT,,7L", 13),
        ("* * * * 8L", 9),
        ("* * * * 5#6", 9),
        ("* * * * 5#0", 9),
        ("* * * * 1-5L", 9),
        ("50-10 * * * *", 1),
        ("* * * * SAT-SUN", 9),
        ("5~10 * * * *", 1),
        ("*-5 * * * *", 1),
        ("** * * * *", 1),
        ("*5 * * * *", 1),
        ("*/5/5 * * * *", 3),
        ("1-2-3 * * * *", 3),
        ("@ * * * *", 1),
        ("* * * * 5;", 9),
        ("*\u{a0}* * * * *", 1),
        ("99999999999 * * * *", 1),
        ("* * * * 1.5", 9),
        ("* *  61-62,* * *", 6),
    ] {
        let refused = Cron::parse(pattern, "UTC").unwrap_err().to_string();
        let place = format!("(column {column} of the pattern)");
        assert!(refused.ends_with(&place), "{pattern}: {refused}");
    }
}

/// The days of 2026 to 2030 on which a pattern at midnight comes.
fn days(pattern: &str) -> Vec<Date> {
    let cron = Cron::parse(pattern, "UTC").unwrap();
    let found = ours(&cron, date(2026, 1, 1), usize::MAX);
    found
        .iter()
        .map(|at| at.in_tz("UTC").unwrap().date())
        .collect()
}

fn walk(fits: impl Fn(Date) -> bool) -> Vec<Date> {
    let all = date(2026, 1, 1).series(1.day());
    all.take_while(|day| day.year() < 2031)
        .filter(|day| fits(*day))
        .collect()
}

#[test]
fn what_goes_beyond_debian_says_what_it_means() {
    let is_last = |day: Date| day.checked_add(7.days()).unwrap().month() != day.month();
    let is = |day: Date, number: i8| day.weekday().to_sunday_zero_offset() == number;
    let ends = |day: Date| day.tomorrow().unwrap().day() == 1;
    for text in ["7L", "0L", "SUNL", "sunl"] {
        let sundays = walk(|day| is(day, 0) && is_last(day));
        assert_eq!(days(&format!("0 0 * * {text}")), sundays, "{text}");
    }
    assert_eq!(
        days("0 0 * * SAT,7L"),
        walk(|day| is(day, 6) || (is(day, 0) && is_last(day)))
    );
    assert_eq!(days("0 0 L * *"), walk(ends));
    assert_eq!(
        days("0 0 15,L * *"),
        walk(|day| ends(day) || day.day() == 15)
    );
    assert_eq!(
        days("0 0 L * 5L"),
        walk(|day| ends(day) || (is(day, 5) && is_last(day)))
    );
    assert_eq!(
        days("0 0 * * FRI#2"),
        walk(|day| is(day, 5) && (8..=14).contains(&day.day()))
    );
    assert_eq!(
        days("0 0 * * 7#5"),
        walk(|day| is(day, 0) && day.day() > 28)
    );
}

fn part(low: u32, high: u32) -> impl Strategy<Value = String> {
    let base = prop_oneof![
        2 => Just("*".to_owned()),
        3 => (low..=high).prop_map(|n| n.to_string()),
        3 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a}-{b}")),
        1 => "[0-9*LW?,/#~-]{0,4}",
    ];
    let step =
        prop_oneof![3 => Just(String::new()), 1 => (0..40_u32).prop_map(|n| format!("/{n}"))];
    let member = (base, step).prop_map(|(base, step)| base + &step);
    let members = proptest::collection::vec(member, 1..4);
    // Without a character there is no field.
    members
        .prop_map(|members| members.join(","))
        .prop_filter("a field", |text| !text.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is written, it is refused or it fires as Debian's cron does.
    #[test]
    fn whatever_is_written_fires_as_in_debian_or_is_refused(
        day in part(1, 31), weekday in part(0, 7), month in prop_oneof![3 => Just("*".to_owned()), 1 => part(1, 12)],
    ) {
        let beyond = day.contains('L') || weekday.contains(['L', '#']);
        prop_assume!(!beyond);
        agrees(&format!("0 0 {day} {month} {weekday}"));
    }
}
