//! The hours ahead as a picture: what ends and what is renewed in each, against the limit. Plain shapes in a square of
//! units that the browser stretches; what is written stands beside it, so that it is read at any width.

use jiff::Timestamp;
use serde::Serialize;

use crate::schedule::{Hour, Plan};

/// So many hours are drawn.
const HOURS: usize = 24;
/// How high and how wide the picture is, in units of its own.
const HEIGHT: f64 = 100.0;
/// How wide an hour is, and the space on each side of its bar of ends, and of renewals.
const HOUR: f64 = 10.0;
const ENDS: f64 = 1.0;
const RENEWALS: f64 = 3.0;

/// The picture of one resource.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    width: f64,
    height: f64,
    bars: Vec<Bar>,
    /// How far from the top the limit is, where it is anywhere near.
    limit_at: Option<f64>,
    /// What the limit allows in an hour.
    limit: u64,
    /// What the top means.
    top: u64,
    /// Where each quarter of it begins, and where the last ends.
    ticks: Vec<Timestamp>,
    /// The busiest hour, in words.
    summary: String,
    /// Tokens that end before their turn.
    lapses: u64,
    rows: Vec<Row>,
}

/// An hour as shapes.
#[derive(Debug, Serialize)]
struct Bar {
    ends: Option<Shape>,
    renewals: Option<Shape>,
    lapses: Option<Shape>,
    title: String,
}

/// A rectangle that stands on the ground.
#[derive(Debug, Serialize)]
struct Shape {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// The same in numbers.
#[derive(Debug, Serialize)]
struct Row {
    at: Timestamp,
    ends: u64,
    renewals: u64,
    lapses: u64,
}

impl Chart {
    pub(super) fn of(plan: &Plan) -> Self {
        let hours = plan.hours.get(..HOURS).unwrap_or(&plan.hours);
        let most = |count: fn(&Hour) -> u64| hours.iter().map(count).max().unwrap_or(0);
        let highest = most(|hour| hour.renewals.max(hour.ends)).max(1);
        let limit = plan.allowed_per_hour;
        let is_near = limit <= 2.0 * highest as f64;
        let top = match is_near {
            true => limit.max(highest as f64),
            false => highest as f64,
        };
        let last = plan.hours.get(hours.len()).map(|hour| hour.at);
        let ticks = hours.iter().step_by(HOURS / 4).map(|hour| hour.at);
        Self {
            width: HOUR * hours.len() as f64,
            height: HEIGHT,
            bars: hours
                .iter()
                .enumerate()
                .map(|(number, hour)| Bar::of(number, hour, top))
                .collect(),
            limit_at: is_near.then(|| round(HEIGHT - HEIGHT * limit / top)),
            limit: limit as u64,
            top: top as u64,
            ticks: ticks.chain(last).collect(),
            summary: summary(hours, limit),
            lapses: hours.iter().map(|hour| hour.lapses).sum(),
            rows: hours
                .iter()
                .map(|hour| Row {
                    at: hour.at,
                    ends: hour.ends,
                    renewals: hour.renewals,
                    lapses: hour.lapses,
                })
                .collect(),
        }
    }
}

impl Bar {
    fn of(number: usize, hour: &Hour, top: f64) -> Self {
        let left = HOUR * number as f64;
        let shape = |count: u64, space: f64| {
            let height = round((HEIGHT * count as f64 / top).max(1.0));
            (count > 0).then(|| Shape {
                x: left + space,
                y: round(HEIGHT - height),
                width: HOUR - 2.0 * space,
                height,
            })
        };
        let ends = format!("{} – {} ends", clock(hour.at), hour.ends);
        let lapses = match hour.lapses {
            0 => String::new(),
            lapses => format!(", {lapses} before their turn"),
        };
        Self {
            ends: shape(hour.ends, ENDS),
            renewals: shape(hour.renewals, RENEWALS),
            lapses: shape(hour.lapses, RENEWALS),
            title: format!("{ends}{lapses}, {} renewals", hour.renewals),
        }
    }
}

/// The busiest hour against the limit.
fn summary(hours: &[Hour], limit: f64) -> String {
    // Of several the first.
    let busiest = hours.iter().rev().max_by_key(|hour| hour.renewals);
    let Some(busiest) = busiest.filter(|hour| hour.renewals > 0) else {
        return "No renewal is planned in the next 24 hours.".to_owned();
    };
    let share = 100.0 * busiest.renewals as f64 / limit.max(1.0);
    let share = match share {
        0.0..1.0 => "less than 1".to_owned(),
        share => format!("{share:.0}"),
    };
    format!(
        "The busiest hour begins at {} UTC and takes {share} % of what the limit allows.",
        clock(busiest.at)
    )
}

/// The hour and minute of an instant.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M").to_string()
}

fn round(units: f64) -> f64 {
    (units * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{Limits, Renewal},
        schedule::{Basis, Cohort, Fleet, Room, plan},
    };

    fn chart(identities: u64, calls: u32) -> Chart {
        let usual = Renewal {
            lifetime: Duration::from_hours(24),
            renew_at: 0.5,
            spread: 0.02,
        };
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let fleet = Fleet::level(vec![Cohort::usual(&usual, identities)], now);
        let mut limits = Limits::default();
        limits.issue.calls = calls;
        let room = Room {
            limits,
            max_in_flight: 32,
        };
        let resource = "contoso".parse().unwrap();
        Chart::of(&plan(&resource, (&fleet, Basis::Store), room, now))
    }

    #[test]
    fn a_far_limit_is_said_and_a_near_one_is_drawn() {
        let (far, near) = (chart(1_000, 1000), chart(100_000, 90));
        assert_eq!((far.limit_at, far.bars.len()), (None, 24));
        assert!(
            far.summary.contains("takes less than 1 % of"),
            "{}",
            far.summary
        );
        let line = near.limit_at.unwrap();
        assert!((0.0..50.0).contains(&line), "{line}");
        for bar in near.bars.iter().chain(&far.bars) {
            for shape in [&bar.ends, &bar.renewals].into_iter().flatten() {
                assert!(shape.y >= 0.0 && shape.y + shape.height <= HEIGHT + 0.1);
                assert!(shape.x >= 0.0 && shape.x + shape.width <= 240.0);
            }
        }
        let hours: Vec<String> = near.ticks.iter().map(|at| clock(*at)).collect();
        assert_eq!(hours, ["12:00", "18:00", "00:00", "06:00", "12:00"]);
    }

    #[test]
    fn an_overload_shows_what_lapses_and_nobody_draws_nothing() {
        let over = chart(100_000, 30);
        assert!(over.lapses > 0 && over.bars.iter().any(|bar| bar.lapses.is_some()));
        let none = chart(0, 1000);
        assert!(none.bars.iter().all(|bar| bar.renewals.is_none()));
        assert_eq!(none.summary, "No renewal is planned in the next 24 hours.");
    }
}
