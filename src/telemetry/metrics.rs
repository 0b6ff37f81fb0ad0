//! Every metric by name, unit and meaning, and how they are printed.
//!
//! [`Metrics`] counts what happens (calls, delivery lag, commits); it is made once and handed
//! down. What *is* (identities, pending deliveries, pace, health) is never counted along: it is
//! computed at each scrape from the truth that [`Scrape`] carries. No label ever holds the name of
//! an identity.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::model::{
    Counts, DispatcherView, HealthView, Operation, RenewerView, ResourceName, Served, SinkName,
    Tokens,
};

/// Name and value of each label.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What happened since the start; all clones count into the same place.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    calls: Family<CallEnded, Counter>,
    lag: Family<Labels, Histogram, fn() -> Histogram>,
    commit_rows: Histogram,
    commit_seconds: Histogram,
    operations: Family<Doing, Histogram, fn() -> Histogram>,
    operations_failed: Family<Doing, Counter>,
}

/// Calls to ACS that are counted together; made for each of them, so that it copies no text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CallEnded {
    resource: ResourceName,
    operation: Operation,
    result: &'static str,
}

impl EncodeLabelSet for CallEnded {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let labels = [
            ("resource", self.resource.as_str()),
            ("operation", self.operation.as_str()),
            ("result", self.result),
        ];
        labels.encode(encoder)
    }
}

/// What the store does.
type Doing = [(&'static str, &'static str); 1];

impl Default for Counted {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            lag: Family::new_with_constructor(lag_buckets as fn() -> Histogram),
            commit_rows: Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]),
            commit_seconds: Histogram::new([0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0]),
            operations: Family::new_with_constructor(operation_buckets as fn() -> Histogram),
            operations_failed: Family::default(),
        }
    }
}

/// Seconds: at once, the retry schedule of a sink, a lost day.
fn lag_buckets() -> Histogram {
    Histogram::new([
        0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 86_400.0,
    ])
}

/// Seconds: by index, one commit, a scan, a wait.
fn operation_buckets() -> Histogram {
    Histogram::new([0.001, 0.016, 0.25, 4.0])
}

/// The truth at one instant, for the metrics that are computed from it.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// The instant.
    pub now: Timestamp,
    /// What each renewer published.
    pub renewers: BTreeMap<ResourceName, RenewerView>,
    /// What each dispatcher published.
    pub dispatchers: BTreeMap<SinkName, DispatcherView>,
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
    pub fn call_ended(&self, resource: &ResourceName, operation: Operation, result: &'static str) {
        let ended = CallEnded {
            resource: resource.clone(),
            operation,
            result,
        };
        self.0.calls.get_or_create(&ended).inc();
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

    /// An operation of the store, named by what it does, took so long, waiting included, and ended well or not.
    pub fn store_operation(&self, doing: &'static str, took: Duration, good: bool) {
        let labels = [("operation", doing)];
        let seconds = self.0.operations.get_or_create(&labels);
        seconds.observe(took.as_secs_f64());
        if !good {
            self.0.operations_failed.get_or_create(&labels).inc();
        }
    }

    /// Everything as OpenMetrics text, which Prometheus reads.
    pub fn render(&self, scrape: &Scrape) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("renewd");
        self.register(&mut registry);
        register(&mut registry, scrape);
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
        registry.register(
            "store_operation_seconds",
            "Time that an operation of the store took, waiting for others included",
            counted.operations.clone(),
        );
        registry.register(
            "store_operations_failed",
            "Operations of the store that failed",
            counted.operations_failed.clone(),
        );
    }
}

type Whole = Family<Labels, Gauge>;
type Real = Family<Labels, Gauge<f64, AtomicU64>>;

/// Registers gauges that hold `scrape`.
pub(super) fn register(registry: &mut Registry, scrape: &Scrape) {
    daemon(registry, scrape);
    renewers(registry, scrape);
    identities(registry, scrape);
    consumers(registry, scrape);
    deliveries(registry, scrape);
}

fn daemon(registry: &mut Registry, scrape: &Scrape) {
    let build = Whole::default();
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    build.get_or_create(&version).set(1);
    registry.register("build_info", "Always 1; the label tells the version", build);
    let step: Gauge<f64, AtomicU64> = Gauge::default();
    step.set(scrape.held_step.map_or(0.0, |step| step.as_secs_f64()));
    registry.register(
        "clock_held_step_seconds",
        "How far the wall clock stepped, while no authenticated answer has confirmed it",
        step,
    );
    // Where none was made, there is no time to tell.
    if let Some(at) = scrape.last_backup {
        let backup: Gauge = Gauge::default();
        backup.set(at.as_second());
        registry.register(
            "last_backup_timestamp_seconds",
            "When the last backup was made that reached its place",
            backup,
        );
    }
}

fn renewers(registry: &mut Registry, scrape: &Scrape) {
    let (in_flight, used, limit, open) = <(Whole, Whole, Whole, Whole)>::default();
    let (skew, overdue) = <(Real, Real)>::default();
    for (resource, renewer) in &scrape.renewers {
        let labels: Labels = vec![("resource", resource.to_string())];
        in_flight
            .get_or_create(&labels)
            .set(whole(renewer.in_flight));
        if let Some(overdue_since) = &scrape.overdue_since {
            let since = overdue_since.get(resource);
            let seconds = since.map_or(0.0, |at| scrape.now.duration_since(*at).as_secs_f64());
            overdue.get_or_create(&labels).set(seconds.max(0.0));
        }
        if let Some(ms) = renewer.skew_ms {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a skew of 2^53 ms is not a skew"
            )]
            skew.get_or_create(&labels).set(ms as f64 / 1000.0);
        }
        for (operation, (sent, most)) in &renewer.pace {
            let labels = with(&labels, "operation", operation);
            used.get_or_create(&labels).set(i64::from(*sent));
            limit.get_or_create(&labels).set(i64::from(*most));
        }
        for (operation, health) in &renewer.health {
            let labels = with(&labels, "operation", operation);
            open.get_or_create(&labels)
                .set(i64::from(*health == HealthView::Open));
        }
    }
    registry.register(
        "acs_calls_in_flight",
        "Calls to ACS that wait for an answer",
        in_flight,
    );
    registry.register(
        "pace_window_used",
        "Calls sent within the current window",
        used,
    );
    registry.register(
        "pace_window_limit",
        "Calls that renewd allows itself in a window",
        limit,
    );
    registry.register(
        "operation_open",
        "1 while calls go out freely, 0 while only probes go out, or it has to wait",
        open,
    );
    registry.register(
        "clock_skew_seconds",
        "How far the resource's clock is ahead of ours",
        skew,
    );
    registry.register(
        "overdue_seconds",
        "How long the oldest overdue renewal has been overdue, whatever attempts were made since",
        overdue,
    );
}

fn identities(registry: &mut Registry, scrape: &Scrape) {
    let (identities, tokens, expiry) = <(Whole, Whole, Whole)>::default();
    if let (Some(counts), Some(served)) = (&scrape.counts, &scrape.served) {
        for resource in counts.identities.keys() {
            let standing = counts.standing(resource, served);
            let states = standing.states.iter();
            let states = states.map(|(state, count)| (state.to_string(), *count));
            for (state, count) in states.chain([("dead".to_owned(), standing.dead)]) {
                let labels: Labels = vec![("resource", resource.to_string()), ("state", state)];
                identities.get_or_create(&labels).set(whole(count));
            }
        }
    }
    for (resource, all) in &scrape.tokens {
        for (word, count) in [
            ("good", all.good),
            ("doubtful", all.doubtful),
            ("dead", all.dead),
        ] {
            let labels: Labels = vec![
                ("resource", resource.to_string()),
                ("standing", word.to_owned()),
            ];
            tokens.get_or_create(&labels).set(whole(count));
        }
    }
    for (resource, at) in &scrape.earliest_expiry {
        let labels: Labels = vec![("resource", resource.to_string())];
        expiry.get_or_create(&labels).set(at.as_second());
    }
    if let Some(Counts { orphans, .. }) = &scrape.counts {
        let gauge: Gauge = Gauge::default();
        gauge.set(whole(*orphans));
        registry.register(
            "orphans",
            "Identities and tokens that may exist at ACS without a record",
            gauge,
        );
    }
    registry.register(
        "identities",
        "Identities by resource and state: active ones have a live token, the token of dead ones ended",
        identities,
    );
    registry.register(
        "tokens",
        "Tokens by resource and how they stand: good, doubtful (their access key is refused or no longer \
         configured: they may be dead and are minted anew), dead",
        tokens,
    );
    registry.register(
        "earliest_expiry_timestamp_seconds",
        "When the first of the current tokens ends",
        expiry,
    );
}

/// Who holds what, and what needs a person; what is not known is left out.
fn consumers(registry: &mut Registry, scrape: &Scrape) {
    let (consumers, needs, readable) = <(Whole, Whole, Gauge)>::default();
    if let Some(served) = &scrape.served {
        let sinks = served.sinks.iter();
        let sinks = sinks.map(|(name, held)| (name.to_string(), *held));
        for (by, held) in sinks.chain([("socket".to_owned(), served.socket)]) {
            let labels: Labels = vec![("by", by)];
            for (word, count) in [
                ("live", held.live),
                ("none", held.without),
                ("unknown", held.unknown),
            ] {
                let labels = with(&labels, "holds", word);
                consumers.get_or_create(&labels).set(whole(count));
            }
        }
    }
    for (kind, count) in &scrape.needs {
        let labels: Labels = vec![("kind", kind.clone())];
        needs.get_or_create(&labels).set(whole(*count));
    }
    readable.set(i64::from(
        scrape.counts.is_some() && scrape.served.is_some(),
    ));
    registry.register(
        "consumers",
        "Consumers by what they hold, as it was delivered last: a live token, none, or not known",
        consumers,
    );
    registry.register("needs", "Things that need a person, by kind", needs);
    registry.register(
        "store_readable",
        "0 while the store cannot be read: what it knows is left out then",
        readable,
    );
}

fn deliveries(registry: &mut Registry, scrape: &Scrape) {
    let (pending, in_flight, enabled) = <(Whole, Whole, Whole)>::default();
    let oldest = Real::default();
    let ended = Family::<Labels, Counter>::default();
    for (sink, dispatcher) in &scrape.dispatchers {
        let labels: Labels = vec![("sink", sink.to_string())];
        if let Some(counts) = &scrape.counts {
            let waiting = counts.pending.get(sink).copied().unwrap_or(0);
            pending.get_or_create(&labels).set(whole(waiting));
            let since = counts.oldest_pending.get(sink);
            let behind = since.map_or(0.0, |since| scrape.now.duration_since(*since).as_secs_f64());
            oldest.get_or_create(&labels).set(behind.max(0.0));
        }
        in_flight
            .get_or_create(&labels)
            .set(whole(dispatcher.in_flight));
        enabled
            .get_or_create(&labels)
            .set(i64::from(dispatcher.disabled.is_none()));
        for (result, count) in [
            ("delivered", dispatcher.delivered),
            ("failed", dispatcher.failed),
        ] {
            ended
                .get_or_create(&with(&labels, "result", result))
                .inc_by(count);
        }
    }
    registry.register(
        "deliveries_pending",
        "Deliveries that wait or are on their way",
        pending,
    );
    registry.register(
        "delivery_oldest_seconds",
        "How long the oldest pending delivery has been pending",
        oldest,
    );
    registry.register("deliveries_in_flight", "Deliveries on their way", in_flight);
    registry.register("sink_enabled", "0 while a sink is disabled", enabled);
    registry.register("deliveries", "Attempts to deliver by how they ended", ended);
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}

fn whole(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> Scrape {
        let mut renewer = RenewerView {
            next_due: Some("2026-11-22T11:59:30Z".parse().unwrap()),
            skew_ms: Some(-1500),
            in_flight: 3,
            ..RenewerView::default()
        };
        renewer.pace.insert("issue".into(), (12, 970));
        Scrape {
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
            renewers: BTreeMap::from([("contoso".parse().unwrap(), renewer)]),
            dispatchers: BTreeMap::from([(
                "crm".parse().unwrap(),
                DispatcherView {
                    delivered: 7,
                    failed: 2,
                    ..DispatcherView::default()
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
