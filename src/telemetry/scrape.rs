//! The metrics that are computed from the truth at each scrape, rather than counted along.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::sync::atomic::AtomicU64;

use super::metrics::{Labels, Scrape};
use crate::model::{Counts, HealthView};

type Whole = Family<Labels, Gauge>;
type Real = Family<Labels, Gauge<f64, AtomicU64>>;

/// Registers gauges that hold `scrape`.
pub(super) fn register(registry: &mut Registry, scrape: &Scrape) {
    daemon(registry, scrape);
    lanes(registry, scrape);
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

fn lanes(registry: &mut Registry, scrape: &Scrape) {
    let (in_flight, used, limit, open) = <(Whole, Whole, Whole, Whole)>::default();
    let (skew, overdue) = <(Real, Real)>::default();
    for (resource, lane) in &scrape.lanes {
        let labels: Labels = vec![("resource", resource.to_string())];
        in_flight.get_or_create(&labels).set(whole(lane.in_flight));
        if let Some(overdue_since) = &scrape.overdue_since {
            let since = overdue_since.get(resource);
            let seconds = since.map_or(0.0, |at| scrape.now.duration_since(*at).as_secs_f64());
            overdue.get_or_create(&labels).set(seconds.max(0.0));
        }
        if let Some(ms) = lane.skew_ms {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a skew of 2^53 ms is not a skew"
            )]
            skew.get_or_create(&labels).set(ms as f64 / 1000.0);
        }
        for (operation, (sent, most)) in &lane.pace {
            let labels = with(&labels, "operation", operation);
            used.get_or_create(&labels).set(i64::from(*sent));
            limit.get_or_create(&labels).set(i64::from(*most));
        }
        for (operation, health) in &lane.health {
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
        "1 while calls go out freely, 0 while probing or held",
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
    for (sink, courier) in &scrape.couriers {
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
            .set(whole(courier.in_flight));
        enabled
            .get_or_create(&labels)
            .set(i64::from(courier.disabled.is_none()));
        for (result, count) in [("delivered", courier.delivered), ("failed", courier.failed)] {
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
