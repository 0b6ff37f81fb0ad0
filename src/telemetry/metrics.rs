//! Every metric by name, unit and meaning.
//!
//! [`Metrics`] counts what happens (calls, delivery lag, commits); it is made once and handed
//! down. What *is* (identities, pending deliveries, pace, health) is never counted along: it is
//! computed at each scrape from the truth that [`Scrape`] carries. No label ever holds the name of
//! an identity.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::scrape;
use crate::model::{
    Counts, CourierView, LaneView, Operation, ResourceName, Served, SinkName, Tokens,
};

/// Name and value of each label.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What happened since the start; all clones count into the same place.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    calls: Family<Labels, Counter>,
    lag: Family<Labels, Histogram, fn() -> Histogram>,
    commit_rows: Histogram,
    commit_seconds: Histogram,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            lag: Family::new_with_constructor(lag_buckets as fn() -> Histogram),
            commit_rows: Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]),
            commit_seconds: Histogram::new([0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0]),
        }
    }
}

/// Seconds: at once, the retry schedule of a sink, a lost day.
fn lag_buckets() -> Histogram {
    Histogram::new([
        0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 86_400.0,
    ])
}

/// The truth at one instant, for the metrics that are computed from it.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// The instant.
    pub now: Timestamp,
    /// What each lane published.
    pub lanes: BTreeMap<ResourceName, LaneView>,
    /// What each courier published.
    pub couriers: BTreeMap<SinkName, CourierView>,
    /// The store's counts; `None` where they cannot be read.
    pub counts: Option<Counts>,
    /// Who holds a live token, where that is known.
    pub served: Option<Served>,
    /// How many things of each kind need a person.
    pub needs: BTreeMap<String, u64>,
    /// How the tokens of each resource stand.
    pub tokens: BTreeMap<ResourceName, Tokens>,
    /// The earliest end of a live or dead current token, by resource.
    pub earliest_expiry: BTreeMap<ResourceName, Timestamp>,
    /// Since when the oldest overdue renewal of a resource is overdue; `None` where that is not known.
    pub overdue_since: Option<BTreeMap<ResourceName, Timestamp>>,
    /// How far the wall clock has stepped, while that is unconfirmed.
    pub held_step: Option<SignedDuration>,
    /// When the last backup was made that reached its place.
    pub last_backup: Option<Timestamp>,
}

impl Metrics {
    /// How [`Metrics::render`] writes, for the `Content-Type` header.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A call to ACS ended with `result`: `ok` or the class of the failure.
    pub fn call_ended(&self, resource: &ResourceName, operation: Operation, result: &str) {
        let labels = vec![
            ("resource", resource.to_string()),
            ("operation", operation.to_string()),
            ("result", result.to_owned()),
        ];
        self.0.calls.get_or_create(&labels).inc();
    }

    /// A delivery succeeded, so long after its consumers had fallen behind.
    pub fn delivered(&self, sink: &SinkName, lag: Duration) {
        let labels = vec![("sink", sink.to_string())];
        self.0.lag.get_or_create(&labels).observe(lag.as_secs_f64());
    }

    /// The store committed a transaction that touched so many rows and took so long.
    pub fn committed(&self, rows: usize, took: Duration) {
        self.0
            .commit_rows
            .observe(f64::from(u32::try_from(rows).unwrap_or(u32::MAX)));
        self.0.commit_seconds.observe(took.as_secs_f64());
    }

    /// Everything as OpenMetrics text, which Prometheus reads.
    pub fn render(&self, scrape: &Scrape) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("renewd");
        self.register(&mut registry);
        scrape::register(&mut registry, scrape);
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn register(&self, registry: &mut Registry) {
        let counted = &self.0;
        registry.register(
            "acs_calls",
            "Calls to ACS by operation and how they ended",
            counted.calls.clone(),
        );
        registry.register(
            "delivery_lag_seconds",
            "Time from the commit that left a consumer behind to the delivery that ended it",
            counted.lag.clone(),
        );
        registry.register(
            "store_commit_rows",
            "Rows that one transaction touched",
            counted.commit_rows.clone(),
        );
        registry.register(
            "store_commit_seconds",
            "Time that one transaction took, fsync included",
            counted.commit_seconds.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> Scrape {
        let mut lane = LaneView {
            next_due: Some("2026-11-22T11:59:30Z".parse().unwrap()),
            skew_ms: Some(-1500),
            in_flight: 3,
            ..LaneView::default()
        };
        lane.pace.insert("issue".into(), (12, 970));
        Scrape {
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
            lanes: BTreeMap::from([("contoso".parse().unwrap(), lane)]),
            couriers: BTreeMap::from([(
                "crm".parse().unwrap(),
                CourierView {
                    delivered: 7,
                    failed: 2,
                    ..CourierView::default()
                },
            )]),
            counts: Some(Counts::default()),
            served: Some(Served::default()),
            needs: BTreeMap::from([("outage".to_owned(), 1)]),
            tokens: BTreeMap::from([(
                "contoso".parse().unwrap(),
                Tokens {
                    doubtful: 3,
                    ..Tokens::default()
                },
            )]),
            overdue_since: Some(BTreeMap::from([(
                "contoso".parse().unwrap(),
                "2026-11-22T11:59:30Z".parse().unwrap(),
            )])),
            earliest_expiry: BTreeMap::from([(
                "contoso".parse().unwrap(),
                "2026-11-23T00:00:00Z".parse().unwrap(),
            )]),
            held_step: None,
            last_backup: Some("2026-11-22T00:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn names_and_units_follow_the_practice() {
        let metrics = Metrics::new();
        let contoso = "contoso".parse().unwrap();
        metrics.call_ended(&contoso, Operation::Issue, "ok");
        metrics.call_ended(&contoso, Operation::Issue, "ok");
        metrics.delivered(&"crm".parse().unwrap(), Duration::from_millis(40));
        metrics.committed(64, Duration::from_millis(3));
        let text = metrics.render(&scrape()).unwrap();
        for line in [
            "renewd_acs_calls_total{resource=\"contoso\",operation=\"issue\",result=\"ok\"} 2",
            "renewd_acs_calls_in_flight{resource=\"contoso\"} 3",
            "renewd_pace_window_used{resource=\"contoso\",operation=\"issue\"} 12",
            "renewd_pace_window_limit{resource=\"contoso\",operation=\"issue\"} 970",
            "renewd_clock_skew_seconds{resource=\"contoso\"} -1.5",
            "renewd_clock_held_step_seconds 0.0",
            "renewd_tokens{resource=\"contoso\",standing=\"doubtful\"} 3",
            "renewd_last_backup_timestamp_seconds 1795305600",
            "renewd_overdue_seconds{resource=\"contoso\"} 30.0",
            "renewd_earliest_expiry_timestamp_seconds{resource=\"contoso\"} 1795392000",
            "renewd_deliveries_total{sink=\"crm\",result=\"delivered\"} 7",
            "renewd_deliveries_total{sink=\"crm\",result=\"failed\"} 2",
            "renewd_delivery_lag_seconds_bucket{le=\"1.0\",sink=\"crm\"} 1",
            "renewd_store_commit_rows_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("renewd_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn clones_count_into_the_same_place() {
        let metrics = Metrics::new();
        metrics.clone().committed(1, Duration::ZERO);
        let text = metrics.render(&scrape()).unwrap();
        assert!(
            text.contains("renewd_store_commit_seconds_count 1"),
            "{text}"
        );
    }
}
