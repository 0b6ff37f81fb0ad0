//! Both clock changes of a year, on both sides of the ocean, and a brute-force walk.

use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The next instants in local time with their offset.
fn local(pattern: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = Cron::parse(pattern, zone).unwrap();
    let mut now = at(after);
    let mut found = Vec::new();
    for _ in 0..count {
        now = cron.next(now).unwrap();
        let zoned = now.to_zoned(TimeZone::get(zone).unwrap());
        found.push(zoned.strftime("%d %H:%M %:z").to_string());
    }
    found
}

#[test]
fn a_skipped_local_time_fires_at_the_next_valid_instant() {
    // Europe/Prague: 2026-03-29 02:00 becomes 03:00. America/New_York: 2026-03-08, the same.
    assert_eq!(
        local("30 2 * * *", "Europe/Prague", "2026-03-27T12:00:00Z", 4),
        [
            "28 02:30 +01:00",
            "29 03:00 +02:00",
            "30 02:30 +02:00",
            "31 02:30 +02:00"
        ]
    );
    assert_eq!(
        local("30 2 * * *", "America/New_York", "2026-03-06T12:00:00Z", 3),
        ["07 02:30 -05:00", "08 03:00 -04:00", "09 02:30 -04:00"]
    );
}

#[test]
fn a_doubled_local_time_fires_once() {
    // Europe/Prague: 2026-10-25 03:00 becomes 02:00. America/New_York: 2026-11-01 02:00 becomes 01:00.
    assert_eq!(
        local("30 2 * * *", "Europe/Prague", "2026-10-23T12:00:00Z", 4),
        [
            "24 02:30 +02:00",
            "25 02:30 +02:00",
            "26 02:30 +01:00",
            "27 02:30 +01:00"
        ]
    );
    assert_eq!(
        local("30 1 * * *", "America/New_York", "2026-10-30T12:00:00Z", 3),
        ["31 01:30 -04:00", "01 01:30 -04:00", "02 01:30 -05:00"]
    );
}

#[test]
fn every_half_hour_around_the_changes() {
    assert_eq!(
        local("*/30 * * * *", "Europe/Prague", "2026-03-29T00:15:00Z", 4),
        [
            "29 01:30 +01:00",
            "29 03:00 +02:00",
            "29 03:30 +02:00",
            "29 04:00 +02:00"
        ]
    );
    assert_eq!(
        local("*/30 * * * *", "Europe/Prague", "2026-10-24T23:45:00Z", 5),
        [
            "25 02:00 +02:00",
            "25 02:30 +02:00",
            "25 03:00 +01:00",
            "25 03:30 +01:00",
            "25 04:00 +01:00"
        ]
    );
    assert_eq!(
        local(
            "*/30 * * * *",
            "America/New_York",
            "2026-03-08T06:15:00Z",
            3
        ),
        ["08 01:30 -05:00", "08 03:00 -04:00", "08 03:30 -04:00"]
    );
    assert_eq!(
        local(
            "*/30 * * * *",
            "America/New_York",
            "2026-11-01T04:45:00Z",
            4
        ),
        [
            "01 01:00 -04:00",
            "01 01:30 -04:00",
            "01 02:00 -05:00",
            "01 02:30 -05:00"
        ]
    );
}

#[test]
fn asked_in_the_second_pass_of_a_doubled_hour_it_looks_ahead() {
    let cron = Cron::parse("*/10 * * * *", "Europe/Prague").unwrap();
    assert_eq!(
        cron.next(at("2026-10-25T01:05:00Z")),
        Some(at("2026-10-25T02:00:00Z")),
        "02:05 for the second time: 02:10 was over an hour ago"
    );
}

#[test]
fn sunday_has_two_numbers_and_a_name() {
    for day in ["0", "7", "SUN", "sun"] {
        assert_eq!(
            local(&format!("0 9 * * {day}"), "UTC", "2026-11-22T10:00:00Z", 2),
            ["29 09:00 +00:00", "06 09:00 +00:00"]
        );
    }
}

#[test]
fn six_fields_begin_with_seconds() {
    let cron = Cron::parse("15 30 22 * * FRI", "Europe/Prague").unwrap();
    assert_eq!(
        cron.next(at("2026-11-22T00:00:00.5Z")),
        Some(at("2026-11-27T21:30:15Z"))
    );
    let every = Cron::parse("* * * * * *", "UTC").unwrap();
    assert_eq!(
        every.next(at("2026-11-22T00:00:00.5Z")),
        Some(at("2026-11-22T00:00:01Z"))
    );
}

#[test]
fn rare_patterns_are_found_and_impossible_ones_end() {
    let leap = Cron::parse("0 0 29 2 *", "UTC").unwrap();
    assert_eq!(
        leap.next(at("2096-03-01T00:00:00Z")),
        Some(at("2104-02-29T00:00:00Z"))
    );
    let never = Cron::parse("0 0 30 2 *", "UTC").unwrap();
    assert_eq!(never.next(at("2026-01-01T00:00:00Z")), None);
}

#[test]
fn nonsense_names_its_field() {
    let why = |pattern: &str| Cron::parse(pattern, "UTC").unwrap_err().to_string();
    assert_eq!(
        why("61 * * * *"),
        "the minute field of the pattern cannot be `61`: 61 is not within 0 to 59 (column 1 of the pattern)"
    );
    assert_eq!(
        why("0 61 * * * *"),
        "the minute field of the pattern cannot be `61`: 61 is not within 0 to 59 (column 3 of the pattern)"
    );
    assert_eq!(
        why("0 0 * *  FRIDAYS"),
        "the day of the week field of the pattern cannot be `FRIDAYS`: `FRIDAYS` is neither a number nor a name of \
         three letters (column 10 of the pattern)"
    );
    assert!(why("@daily").contains("this one has 1"));
    assert!(why("0 0 0 * * * 2030").contains("this one has 7"));
    assert!(why("").contains("this one has 0"));
    assert_eq!(
        Cron::parse("* * * * *", "Europe/Prag")
            .unwrap_err()
            .to_string(),
        "there is no time zone `Europe/Prag`"
    );
}

#[test]
fn a_misspelt_zone_finds_its_meaning() {
    assert_eq!(
        nearest_zone("Europe/Prag").as_deref(),
        Some("Europe/Prague")
    );
    assert_eq!(nearest_zone("prague").as_deref(), Some("Europe/Prague"));
    assert_eq!(
        nearest_zone("America/New York").as_deref(),
        Some("America/New_York")
    );
    assert_eq!(nearest_zone("Middle-earth/Hobbiton"), None);
}

fn field(low: u8, high: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (low..=high).prop_map(|n| n.to_string()),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (2..=30_u8).prop_map(|n| format!("*/{n}")),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Against a walk over every minute of two days that hold a clock change: nothing is missed,
    /// nothing is doubled, the order is strict.
    #[test]
    fn it_finds_what_a_walk_over_all_minutes_finds(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31),
        month in prop_oneof![Just("*".to_owned()), field(1, 12)], weekday in field(0, 7),
        zone in prop_oneof![
            Just("Europe/Prague"), Just("America/New_York"), Just("UTC"), Just("Australia/Lord_Howe")
        ],
        start in prop_oneof![
            Just("2026-03-28T12:00:00Z"), Just("2026-10-24T12:00:00Z"), Just("2026-03-07T12:00:00Z"),
            Just("2026-10-31T12:00:00Z"), Just("2026-04-04T00:00:00Z"), Just("2026-10-03T00:00:00Z")
        ],
    ) {
        let pattern = format!("{minute} {hour} {day} {month} {weekday}");
        let cron = Cron::parse(&pattern, zone).unwrap();
        let (start, end) = (at(start), at(start) + 36.hours());
        let mut found = Vec::new();
        let mut now = start;
        while let Some(next) = cron.next(now).filter(|next| *next <= end) {
            prop_assert!(next > now, "{pattern}: {next} after {now}");
            found.push(next);
            now = next;
        }
        prop_assert_eq!(found, walk(&cron, start, end), "{} in {}", pattern, zone);
    }
}

/// Every civil minute that matches, as the design says which instant it is.
fn walk(cron: &Cron, start: Timestamp, end: Timestamp) -> Vec<Timestamp> {
    let mut civil = cron.zone.to_datetime(start - 3.hours());
    civil = civil.with().second(0).subsec_nanosecond(0).build().unwrap();
    let last = cron.zone.to_datetime(end + 3.hours());
    let mut found = Vec::new();
    while civil <= last {
        let time = (civil.hour(), civil.minute());
        if cron.pattern.matches_day(civil.date())
            && cron.pattern.hours.contains(&time.0)
            && cron.pattern.minutes.contains(&time.1)
        {
            let local = cron.zone.to_ambiguous_timestamp(civil);
            let instant = if local.is_ambiguous() {
                match local.offset() {
                    AmbiguousOffset::Gap { .. } => first_after_gap(cron, civil),
                    _ => local.earlier().unwrap(),
                }
            } else {
                local.compatible().unwrap()
            };
            found.push(instant);
        }
        civil += 1.minute();
    }
    found.sort();
    found.dedup();
    found.retain(|instant| *instant > start && *instant <= end);
    found
}

/// Minute by minute until a local time exists again.
fn first_after_gap(cron: &Cron, mut civil: DateTime) -> Timestamp {
    while matches!(
        cron.zone.to_ambiguous_timestamp(civil).offset(),
        AmbiguousOffset::Gap { .. }
    ) {
        civil += 1.minute();
    }
    cron.zone
        .to_ambiguous_timestamp(civil)
        .compatible()
        .unwrap()
}
