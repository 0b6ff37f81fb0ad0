//! [`Metrics`] counts what happens (calls, delivery lag, commits); it is made once and handed down.
//!
//! What *is* (identities, pending deliveries, pace, health) is never counted along: it is computed at each scrape
//! from the truth that [`Scrape`](super::Scrape) carries. No label ever holds the name of an identity. Whatever can be
//! counted stands at zero from the first look on, so that the first failure is an increase.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    exposition::{Exposition, Family, Histogram, text},
    process,
    scrape::{OPERATIONS, Scrape, Stored, families},
};
use crate::model::{FailureClass, Operation, ResourceName, SinkAt};

/// How calls end besides with the class of a failure.
const ENDS: [&str; 4] = ["ok", "named", "not_sent", "panic"];

/// Seconds: an answer at once, a slow one, none.
const CALL_SECONDS: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds: at its time, in a queue, in an outage.
const DELAY_SECONDS: &[f64] = &[
    1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 10_800.0, 43_200.0,
];
/// Seconds: at once, the retry schedule of a sink, a lost day.
const LAG_SECONDS: &[f64] = &[
    0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 86_400.0,
];
const COMMIT_ROWS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];
const COMMIT_SECONDS: &[f64] = &[0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0];
/// Seconds: by index, one commit, a scan, a wait.
const OPERATION_SECONDS: &[f64] = &[0.001, 0.016, 0.25, 4.0];

/// What happened since the start; all clones count into the same place.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Counted>>);

#[derive(Debug)]
struct Counted {
    calls: BTreeMap<(ResourceName, &'static str), Calls>,
    delays: BTreeMap<ResourceName, Histogram>,
    lag: BTreeMap<SinkAt, Histogram>,
    commit_rows: Histogram,
    commit_seconds: Histogram,
    /// What the store does, by a word each.
    operations: BTreeMap<&'static str, (Histogram, u64)>,
    /// When the heartbeat was last heard.
    heartbeat: Option<Timestamp>,
    /// What the store said last, and when it said all of it.
    stored: Stored,
    read_at: Option<Timestamp>,
}

/// The calls of one operation of a resource.
#[derive(Debug)]
struct Calls {
    seconds: Histogram,
    /// By how they ended.
    ends: BTreeMap<&'static str, u64>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            calls: BTreeMap::new(),
            delays: BTreeMap::new(),
            lag: BTreeMap::new(),
            commit_rows: Histogram::new(COMMIT_ROWS),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            operations: BTreeMap::new(),
            heartbeat: None,
            stored: Stored::default(),
            read_at: None,
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        let classes = FailureClass::ALL.map(FailureClass::as_str);
        Self {
            seconds: Histogram::new(CALL_SECONDS),
            ends: ENDS
                .into_iter()
                .chain(classes)
                .map(|end| (end, 0))
                .collect(),
        }
    }
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A call to ACS took so long and ended with `result`: `ok` or the class of the failure.
    pub fn call_ended(
        &self,
        resource: &ResourceName,
        operation: Operation,
        result: &'static str,
        took: Duration,
    ) {
        let mut counted = self.counted();
        let calls = counted.calls.entry((resource.clone(), operation.as_str()));
        let calls = calls.or_default();
        *calls.ends.entry(result).or_default() += 1;
        calls.seconds.observe(took.as_secs_f64());
    }

    /// A token was obtained, so long after its renewal was due.
    pub fn renewed(&self, resource: &ResourceName, delay: Duration) {
        let mut counted = self.counted();
        let delays = counted.delays.entry(resource.clone());
        let delays = delays.or_insert_with(|| Histogram::new(DELAY_SECONDS));
        delays.observe(delay.as_secs_f64());
    }

    /// A delivery succeeded, so long after its consumers had fallen behind.
    pub fn delivered(&self, sink: &SinkAt, lag: Duration) {
        let mut counted = self.counted();
        let lags = counted.lag.entry(sink.clone());
        let lags = lags.or_insert_with(|| Histogram::new(LAG_SECONDS));
        lags.observe(lag.as_secs_f64());
    }

    /// The store committed a transaction that touched so many rows and took so long.
    pub fn committed(&self, rows: usize, took: Duration) {
        let mut counted = self.counted();
        let rows = f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
        counted.commit_rows.observe(rows);
        counted.commit_seconds.observe(took.as_secs_f64());
    }

    /// An operation of the store, named by what it does, took so long, waiting included, and ended well or not.
    pub fn store_operation(&self, doing: &'static str, took: Duration, good: bool) {
        let mut counted = self.counted();
        let (seconds, failed) = counted
            .operations
            .entry(doing)
            .or_insert_with(|| (Histogram::new(OPERATION_SECONDS), 0));
        seconds.observe(took.as_secs_f64());
        *failed += u64::from(!good);
    }

    /// The heartbeat was heard by its receiver.
    pub fn heard(&self, at: Timestamp) {
        self.counted().heartbeat = Some(at);
    }

    /// Everything as text. What the store does not say at the moment is told as it said it last.
    pub fn render(&self, mut scrape: Scrape, form: Exposition) -> String {
        let mut counted = self.counted();
        if scrape.stored.is_whole() {
            counted.read_at = Some(scrape.now);
        }
        scrape.stored.fill(&counted.stored);
        counted.stored = scrape.stored.clone();
        let mut all = families(&scrape);
        all.push(
            Family::gauge(
                "renewd_store_read_timestamp_seconds",
                "When all that is told here of the store was read from it",
            )
            .of(counted.read_at),
        );
        all.push(
            Family::gauge(
                "renewd_heartbeat_last_success_timestamp_seconds",
                "When the receiver of [daemon] heartbeat last heard it; 0: never, or there is none",
            )
            .of(counted.heartbeat),
        );
        counted.add(&scrape, &mut all);
        drop(counted);
        process::add(scrape.since, &mut all);
        all.sort_by_key(Family::name);
        text(&all, form)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn add(&self, scrape: &Scrape, all: &mut Vec<Family>) {
        self.add_calls(scrape, all);
        self.add_deliveries(scrape, all);
        self.add_store(all);
    }

    fn add_calls(&self, scrape: &Scrape, all: &mut Vec<Family>) {
        let mut ended = Family::counter(
            "renewd_acs_calls_total",
            "Calls to ACS by operation and how they ended",
        );
        let mut seconds = Family::histogram(
            "renewd_acs_call_duration_seconds",
            "Time from a call to ACS to its answer, or to giving it up",
        );
        let mut delays = Family::histogram(
            "renewd_renewal_delay_seconds",
            "Time from when a renewal was due to its token",
        );
        let none = Calls::default();
        for resource in scrape.renewers.keys() {
            for operation in OPERATIONS.map(Operation::as_str) {
                let calls = self.calls.get(&(resource.clone(), operation));
                let calls = calls.unwrap_or(&none);
                let labels = [("resource", resource.as_str()), ("operation", operation)];
                seconds.set(labels, calls.seconds.clone());
                let [resource, operation] = labels;
                for (end, count) in &calls.ends {
                    ended.set([resource, operation, ("result", end)], *count);
                }
            }
            let delay = self.delays.get(resource).cloned();
            delays.set(
                [("resource", resource.as_str())],
                delay.unwrap_or_else(|| Histogram::new(DELAY_SECONDS)),
            );
        }
        all.extend([ended, seconds, delays]);
    }

    fn add_deliveries(&self, scrape: &Scrape, all: &mut Vec<Family>) {
        let mut lag = Family::histogram(
            "renewd_delivery_lag_seconds",
            "Time from the commit that left a consumer behind to the delivery that ended it",
        );
        for sink in scrape.dispatchers.keys() {
            let one = self.lag.get(sink).cloned();
            lag.set(
                [("sink", sink.as_str())],
                one.unwrap_or_else(|| Histogram::new(LAG_SECONDS)),
            );
        }
        all.push(lag);
    }

    fn add_store(&self, all: &mut Vec<Family>) {
        let mut seconds = Family::histogram(
            "renewd_store_operation_seconds",
            "Time that an operation of the store took, waiting for others included",
        );
        let mut failed = Family::counter(
            "renewd_store_operations_failed_total",
            "Operations of the store that failed",
        );
        for (doing, (took, bad)) in &self.operations {
            seconds.set([("operation", doing)], took.clone());
            failed.set([("operation", doing)], *bad);
        }
        let rows = "Rows that one transaction touched";
        let took = "Time that one transaction took, fsync included";
        all.extend([
            Family::histogram("renewd_store_commit_rows", rows).of(self.commit_rows.clone()),
            Family::histogram("renewd_store_commit_seconds", took).of(self.commit_seconds.clone()),
            seconds,
            failed,
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Consumers, Counts, DispatcherView, RenewerView, Served, StoreStanding, Tokens},
        telemetry::{JobTimes, StoreHealth},
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn by_resource<T>(value: T) -> BTreeMap<ResourceName, T> {
        BTreeMap::from([("contoso".parse().unwrap(), value)])
    }

    fn stored() -> Stored {
        let served = Served {
            sinks: BTreeMap::from([(
                "crm".parse().unwrap(),
                Consumers {
                    without: 2,
                    next_end: Some(at("2026-11-22T13:00:00Z")),
                    next_life_secs: Some(3600),
                    without_since: Some(at("2026-11-22T11:00:00Z")),
                    ..Consumers::default()
                },
            )]),
            ..Served::default()
        };
        let tokens = Tokens {
            doubtful: 3,
            ..Tokens::default()
        };
        Stored {
            counts: Some(Counts::default()),
            served: Some(served),
            late: Some(BTreeMap::new()),
            tokens: Some(by_resource(tokens)),
            earliest_expiry: Some(by_resource(at("2026-11-23T00:00:00Z"))),
            overdue_since: Some(by_resource(at("2026-11-22T11:59:30Z"))),
            items: Some(BTreeMap::from([("pending", 4)])),
            withdrawal_due: Some(None),
            jobs: Some(BTreeMap::from([(
                "nightly".parse().unwrap(),
                JobTimes::default(),
            )])),
            last_backup: Some(Some(at("2026-11-22T00:00:00Z"))),
        }
    }

    fn scrape() -> Scrape {
        let mut renewer = RenewerView {
            next_due: Some(at("2026-11-22T11:59:30Z")),
            skew_ms: Some(-1500),
            in_flight: 3,
            ..RenewerView::default()
        };
        renewer.pace.insert("issue".into(), (12, 970));
        let dispatcher = DispatcherView {
            delivered: 7,
            failed: 2,
            ..DispatcherView::default()
        };
        Scrape {
            now: at("2026-11-22T12:00:00Z"),
            since: at("2026-11-22T11:00:00Z"),
            renewers: by_resource(renewer),
            lifetimes: by_resource(3600),
            dispatchers: BTreeMap::from([("crm".parse().unwrap(), dispatcher)]),
            sources: BTreeMap::new(),
            trusted: BTreeMap::new(),
            loops: vec![("jobs".to_owned(), at("2026-11-22T11:59:50Z"))],
            configured: (at("2026-11-22T11:00:00Z"), true),
            needs: BTreeMap::from([("outage".to_owned(), 1)]),
            held_step: None,
            cluster: None,
            store: StoreHealth {
                up: true,
                readable: true,
                standing: StoreStanding::Own,
                away: None,
                taken: 4096,
                free: Some(1 << 30),
            },
            stored: stored(),
        }
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn names_and_units_follow_the_practice() {
        let metrics = Metrics::new();
        let contoso = "contoso".parse().unwrap();
        let took = Duration::from_millis(40);
        metrics.call_ended(&contoso, Operation::Issue, "ok", took);
        metrics.call_ended(&contoso, Operation::Issue, "ok", took);
        metrics.renewed(&contoso, Duration::from_secs(2));
        metrics.delivered(&"crm".parse().unwrap(), took);
        metrics.committed(64, Duration::from_millis(3));
        let text = metrics.render(scrape(), Exposition::Classic);
        has(
            &text,
            &[
                "renewd_acs_calls_total{resource=\"contoso\",operation=\"issue\",result=\"ok\"} 2",
                "renewd_acs_calls_total{resource=\"contoso\",operation=\"revoke\",result=\"credentials\"} 0",
                "renewd_acs_call_duration_seconds_bucket{resource=\"contoso\",operation=\"issue\",le=\"0.05\"} 2",
                "renewd_acs_calls_in_flight{resource=\"contoso\"} 3",
                "renewd_renewal_delay_seconds_sum{resource=\"contoso\"} 2.0",
                "renewd_pace_window_used{resource=\"contoso\",operation=\"issue\"} 12",
                "renewd_pace_window_limit{resource=\"contoso\",operation=\"issue\"} 970",
                "renewd_token_life_seconds{resource=\"contoso\"} 3600",
                "renewd_operation_open{resource=\"contoso\",operation=\"delete\"} 1",
                "renewd_clock_skew_seconds{resource=\"contoso\"} -1.5",
                "renewd_clock_held_step_seconds 0.0",
                "renewd_tokens{resource=\"contoso\",standing=\"doubtful\"} 3",
                "renewd_identities_late{resource=\"contoso\"} 0",
                "renewd_identities_without_live_token{resource=\"contoso\"} 0",
                "renewd_last_backup_timestamp_seconds 1795305600",
                "renewd_overdue_seconds{resource=\"contoso\"} 30.0",
                "renewd_overdue_since_timestamp_seconds{resource=\"contoso\"} 1795348770",
                "renewd_earliest_expiry_timestamp_seconds{resource=\"contoso\"} 1795392000",
                "renewd_consumers{by=\"crm\",holds=\"none\"} 2",
                "renewd_consumers{by=\"socket\",holds=\"live\"} 0",
                "renewd_consumer_next_end_timestamp_seconds{by=\"crm\"} 1795352400",
                "renewd_consumer_next_end_life_seconds{by=\"crm\"} 3600",
                "renewd_consumer_without_token_since_timestamp_seconds{by=\"crm\"} 1795345200",
                "renewd_deliveries_pending{sink=\"crm\"} 0",
                "renewd_delivery_oldest_timestamp_seconds{sink=\"crm\"} 0",
                "renewd_deliveries_total{sink=\"crm\",result=\"delivered\"} 7",
                "renewd_deliveries_total{sink=\"crm\",result=\"failed\"} 2",
                "renewd_delivery_lag_seconds_bucket{sink=\"crm\",le=\"1.0\"} 1",
                "renewd_store_commit_rows_count 1",
                "renewd_store_standing{standing=\"restored\"} 0",
                "renewd_store_bytes 4096",
                "renewd_campaign_items{state=\"pending\"} 4",
                "renewd_withdrawal_due_timestamp_seconds 0",
                "renewd_job_last_success_timestamp_seconds{job=\"nightly\"} 0",
                "renewd_loop_decided_timestamp_seconds{part=\"jobs\"} 1795348790",
                "renewd_config_last_reload_successful 1",
            ],
        );
        assert!(text.contains("renewd_build_info{version="), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
        let open = metrics.render(scrape(), Exposition::OpenMetrics);
        assert!(open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn what_the_store_does_not_say_is_told_as_it_was_said_last() {
        let metrics = Metrics::new();
        metrics.render(scrape(), Exposition::Classic);
        let mut blind = scrape();
        blind.now = at("2026-11-22T12:10:00Z");
        blind.store.up = false;
        blind.stored = Stored {
            late: Some(by_resource(7)),
            ..Stored::default()
        };
        let text = metrics.render(blind, Exposition::Classic);
        has(
            &text,
            &[
                "renewd_store_up 0",
                "renewd_store_read_timestamp_seconds 1795348800",
                "renewd_consumers{by=\"crm\",holds=\"none\"} 2",
                "renewd_identities_late{resource=\"contoso\"} 7",
                "renewd_overdue_since_timestamp_seconds{resource=\"contoso\"} 1795348770",
                "renewd_overdue_seconds{resource=\"contoso\"} 630.0",
            ],
        );
    }

    #[test]
    fn a_failure_is_an_increase_from_the_first_operation_on() {
        let metrics = Metrics::new();
        metrics
            .clone()
            .store_operation("renew", Duration::ZERO, true);
        let failed = |metrics: &Metrics| {
            let text = metrics.render(scrape(), Exposition::Classic);
            let name = "renewd_store_operations_failed_total{operation=\"renew\"} ";
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::to_owned)
        };
        assert_eq!(failed(&metrics).as_deref(), Some("0"));
        metrics.store_operation("renew", Duration::ZERO, false);
        assert_eq!(failed(&metrics).as_deref(), Some("1"));
    }
}
