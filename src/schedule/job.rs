//! What a job does at an instant: a plain function of what was decided last, of now, and of what is
//! still running.

use jiff::{SignedDuration, Timestamp};

use super::cron::{Cron, CronError, nearest_zone};
use crate::{
    config::{Finding, JobSettings, Severity},
    model::Missed,
};

/// An instant that passed no longer ago than this was not missed; it is only carried out late.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(60);

/// What a job does about its earliest instant that is not decided yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
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
pub fn call(cron: &Cron, decided_until: Timestamp, missed: Missed, now: Timestamp) -> Call {
    let scheduled_at = match cron.next(decided_until) {
        Some(at) if at <= now => at,
        later => return Call::Wait(later),
    };
    let more = cron.next(scheduled_at).is_some_and(|next| next <= now);
    let decided_until = if more { now } else { scheduled_at };
    match missed {
        Missed::Skip if now.duration_since(scheduled_at) > PUNCTUAL => Call::Skip {
            scheduled_at,
            decided_until,
        },
        _ => Call::Run {
            scheduled_at,
            decided_until,
        },
    }
}

/// What can be said of the `[[job]]` sections: patterns and zones.
pub fn check_jobs(jobs: &[JobSettings]) -> Vec<Finding> {
    let jobs = jobs.iter().enumerate();
    jobs.filter_map(|(n, job)| check(job, n)).collect()
}

fn check(job: &JobSettings, n: usize) -> Option<Finding> {
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
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly(decided: &str, missed: Missed, now: &str) -> Call {
        let cron = Cron::parse("0 * * * *", "UTC").unwrap();
        call(&cron, at(decided), missed, at(now))
    }

    #[test]
    fn it_waits_for_the_instant_and_not_a_moment_less() {
        let next = Some(at("2026-11-22T11:00:00Z"));
        let decided = "2026-11-22T10:00:00Z";
        assert_eq!(
            hourly(decided, Missed::RunOnce, "2026-11-22T10:59:59.999Z"),
            Call::Wait(next)
        );
        assert_eq!(
            hourly(decided, Missed::Skip, "2026-11-22T11:00:00Z"),
            Call::Run {
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
            Call::Run {
                scheduled_at: at("2026-11-22T11:00:00Z"),
                decided_until: at(now),
            }
        );
        assert_eq!(
            hourly(decided, Missed::Skip, now),
            Call::Skip {
                scheduled_at: at("2026-11-22T11:00:00Z"),
                decided_until: at(now),
            }
        );
        assert_eq!(
            hourly(now, Missed::Skip, now),
            Call::Wait(Some(at("2026-11-23T07:00:00Z")))
        );
    }

    #[test]
    fn a_late_wake_is_no_missed_run() {
        let call = hourly("2026-11-22T10:00:00Z", Missed::Skip, "2026-11-22T11:00:59Z");
        assert!(matches!(call, Call::Run { .. }), "{call:?}");
    }
}
