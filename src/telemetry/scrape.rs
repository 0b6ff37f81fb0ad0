//! [`Scrape`]: the truth at one instant, and every metric by name, unit and meaning that is computed from it.
//!
//! An instant is a metric of its own (`…_timestamp_seconds`, 0 where there is none): it stays right while nobody looks.
//! Ages that are told beside it were told before it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::exposition::Family;
use crate::model::{
    BearerCause, ClusterStanding, Consumers, Counts, DatabaseAway, DispatcherView, HealthView,
    JobName, Operation, RenewerView, ResourceName, Served, SinkAt, SourceName, SourceView, State,
    StoreStanding, Tokens, TrustFile,
};

/// Operations that are called.
pub(super) const OPERATIONS: [Operation; 4] = [
    Operation::Issue,
    Operation::CreateWithToken,
    Operation::Revoke,
    Operation::Delete,
];

/// The truth at one instant.
#[derive(Debug, Clone)]
pub struct Scrape {
    pub now: Timestamp,
    /// Since when this process runs.
    pub since: Timestamp,
    /// What each renewer published.
    pub renewers: BTreeMap<ResourceName, RenewerView>,
    /// The shortest life, in seconds, that the configuration asks for tokens of each resource.
    pub lifetimes: BTreeMap<ResourceName, u64>,
    /// What each dispatcher published.
    pub dispatchers: BTreeMap<SinkAt, DispatcherView>,
    /// What each source published.
    pub sources: BTreeMap<SourceName, SourceView>,
    /// Files of certificates that are trusted.
    pub trusted: BTreeMap<PathBuf, TrustFile>,
    /// When each loop last made or reaffirmed its decision.
    pub loops: Vec<(String, Timestamp)>,
    /// When the configuration was last taken over, and whether the last one that was offered was.
    pub configured: (Timestamp, bool),
    /// How many things of each kind need a person; every kind is there.
    pub needs: BTreeMap<String, u64>,
    /// How far the wall clock has stepped, while that is unconfirmed.
    pub held_step: Option<SignedDuration>,
    /// How this machine stands in its cluster, and how long it may still call ACS; where there is a cluster.
    pub cluster: Option<(ClusterStanding, Duration)>,
    /// How the store is.
    pub store: StoreHealth,
    /// What the store says.
    pub stored: Stored,
}

/// How the store is.
#[derive(Debug, Clone)]
pub struct StoreHealth {
    /// Whether it can be read and written.
    pub up: bool,
    /// Whether its counters could be read at this look.
    pub readable: bool,
    /// Whether it may be used.
    pub standing: StoreStanding,
    /// The database that machines share, while it is away.
    pub away: Option<DatabaseAway>,
    /// Bytes that it takes.
    pub taken: u64,
    /// Bytes that are free where it lies, where the file system says so.
    pub free: Option<u64>,
}

/// What the store says, each by itself; `None` where that is not known.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    pub counts: Option<Counts>,
    /// Who holds a live token.
    pub served: Option<Served>,
    /// Late identities by resource.
    pub late: Option<BTreeMap<ResourceName, u64>>,
    /// How the tokens of each resource stand.
    pub tokens: Option<BTreeMap<ResourceName, Tokens>>,
    /// The earliest end of a live or dead current token, by resource.
    pub earliest_expiry: Option<BTreeMap<ResourceName, Timestamp>>,
    /// Since when the oldest overdue renewal of a resource is overdue.
    pub overdue_since: Option<BTreeMap<ResourceName, Timestamp>>,
    /// Items of campaigns that are not over, by the word of their state.
    pub items: Option<BTreeMap<&'static str, u64>>,
    /// When the oldest withdrawal that ACS has not acknowledged should have been there.
    pub withdrawal_due: Option<Option<Timestamp>>,
    /// When each job ran.
    pub jobs: Option<BTreeMap<JobName, JobTimes>>,
    /// When the last backup was made that reached its place.
    pub last_backup: Option<Option<Timestamp>>,
}

/// When a job ran.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobTimes {
    /// When it did last.
    pub ran: Option<Timestamp>,
    /// When a run last came to its end without a failure.
    pub succeeded: Option<Timestamp>,
}

impl Stored {
    /// Takes what is not known from what was known last.
    pub(super) fn fill(&mut self, last: &Self) {
        fn or<T: Clone>(now: &mut Option<T>, last: &Option<T>) {
            if now.is_none() {
                now.clone_from(last);
            }
        }
        or(&mut self.counts, &last.counts);
        or(&mut self.served, &last.served);
        or(&mut self.late, &last.late);
        or(&mut self.tokens, &last.tokens);
        or(&mut self.earliest_expiry, &last.earliest_expiry);
        or(&mut self.overdue_since, &last.overdue_since);
        or(&mut self.items, &last.items);
        or(&mut self.withdrawal_due, &last.withdrawal_due);
        or(&mut self.jobs, &last.jobs);
        or(&mut self.last_backup, &last.last_backup);
    }

    /// Whether all of it is known.
    pub(super) fn is_whole(&self) -> bool {
        self.counts.is_some()
            && self.served.is_some()
            && self.late.is_some()
            && self.tokens.is_some()
            && self.earliest_expiry.is_some()
            && self.overdue_since.is_some()
            && self.items.is_some()
            && self.withdrawal_due.is_some()
            && self.jobs.is_some()
            && self.last_backup.is_some()
    }
}

/// Everything that is computed from `scrape`.
pub(super) fn families(scrape: &Scrape) -> Vec<Family> {
    let mut all = Vec::new();
    daemon(scrape, &mut all);
    store(scrape, &mut all);
    renewers(scrape, &mut all);
    pace(scrape, &mut all);
    if let Some(overdue) = &scrape.stored.overdue_since {
        overdue_since(scrape, overdue, &mut all);
    }
    identities(scrape, &mut all);
    if let Some(served) = &scrape.stored.served {
        consumers(scrape, served, &mut all);
    }
    deliveries(scrape, &mut all);
    if let Some(counts) = &scrape.stored.counts {
        pending(scrape, counts, &mut all);
    }
    work(scrape, &mut all);
    sources(scrape, &mut all);
    certificates(scrape, &mut all);
    bearers(scrape, &mut all);
    if let Some((standing, left)) = &scrape.cluster {
        cluster(standing, *left, &mut all);
    }
    all
}

fn cluster(standing: &ClusterStanding, left: Duration, all: &mut Vec<Family>) {
    let mut up = Family::gauge(
        "renewd_cluster_node_up",
        "Whether a node said something in the last seconds, as this one last heard",
    );
    let mut heard = Family::gauge(
        "renewd_cluster_node_heartbeat_timestamp_seconds",
        "When a node last said something, by the clock of the database",
    );
    for row in &standing.nodes {
        up.set([("node", row.name.as_str())], row.alive);
        heard.set([("node", row.name.as_str())], Some(row.heartbeat_at));
    }
    all.extend([
        up,
        heard,
        Family::gauge("renewd_cluster_leader", "Whether this node leads")
            .of(standing.epoch().is_some()),
        Family::gauge(
            "renewd_cluster_epoch",
            "The epoch in which this node leads; 0 where it does not",
        )
        .of(standing.epoch().unwrap_or(0)),
        Family::gauge(
            "renewd_cluster_lease_left_seconds",
            "How long this node may still begin calls to ACS without an answer of the database",
        )
        .of(left.as_secs_f64()),
        Family::gauge(
            "renewd_cluster_clock_offset_seconds",
            "By how much the clock of this node is ahead of the database's",
        )
        .of(standing.offset_ms as f64 / 1000.0),
        Family::gauge(
            "renewd_cluster_database_heard_timestamp_seconds",
            "When the database last answered this node; 0: not yet",
        )
        .of(standing.heard_at),
    ]);
}

fn daemon(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut build = Family::gauge("renewd_build_info", "Always 1; the label tells the version");
    build.set([("version", env!("CARGO_PKG_VERSION"))], 1_u64);
    let mut loops = Family::gauge(
        "renewd_loop_decided_timestamp_seconds",
        "When a loop last made or reaffirmed its decision; the start of the process where it did not yet",
    );
    for (part, decided) in &scrape.loops {
        loops.set([("part", part)], Some(*decided));
    }
    let mut needs = Family::gauge("renewd_needs", "Things that need a person, by kind");
    for (kind, count) in &scrape.needs {
        needs.set([("kind", kind)], *count);
    }
    let step = scrape.held_step.map_or(0.0, |step| step.as_secs_f64());
    let (at, good) = scrape.configured;
    all.extend([
        build,
        loops,
        needs,
        Family::gauge(
            "renewd_clock_held_step_seconds",
            "How far the wall clock stepped, while no authenticated answer has confirmed it",
        )
        .of(step),
        Family::gauge(
            "renewd_config_last_reload_successful",
            "0 while a reload was refused: another configuration is in force than lies on the disk",
        )
        .of(good),
        Family::gauge(
            "renewd_config_last_reload_success_timestamp_seconds",
            "When the configuration was last taken over",
        )
        .of(Some(at)),
    ]);
}

fn store(scrape: &Scrape, all: &mut Vec<Family>) {
    let health = &scrape.store;
    let mut standing = Family::gauge(
        "renewd_store_standing",
        "1 for how the store stands: own, or restored or passive, and then nothing is done before a person says so",
    );
    for word in StoreStanding::WORDS {
        standing.set([("standing", word)], word == health.standing.as_str());
    }
    all.extend([
        standing,
        Family::gauge(
            "renewd_store_up",
            "0 while the store cannot be read, or not written: what is told here of it is what it said last, see \
             renewd_store_read_timestamp_seconds",
        )
        .of(health.up),
        Family::gauge(
            "renewd_store_readable",
            "0 while the counters of the store cannot be read",
        )
        .of(health.readable),
        Family::gauge(
            "renewd_store_bytes",
            "Bytes of the database and its journal",
        )
        .of(health.taken),
    ]);
    database(health.away.as_ref(), all);
    all.extend(health.free.map(|free| {
        Family::gauge(
            "renewd_state_dir_free_bytes",
            "Bytes that are free where the store lies",
        )
        .of(free)
    }));
    all.extend(scrape.stored.last_backup.map(|at| {
        Family::gauge(
            "renewd_last_backup_timestamp_seconds",
            "When the last backup was made that reached its place; 0: none",
        )
        .of(at)
    }));
    all.extend(scrape.stored.counts.as_ref().map(|counts| {
        Family::gauge(
            "renewd_orphans",
            "Identities and tokens that may exist at ACS without a record",
        )
        .of(counts.orphans)
    }));
}

/// The database that machines share.
fn database(away: Option<&DatabaseAway>, all: &mut Vec<Family>) {
    all.extend([
        Family::gauge(
            "renewd_database_away_timestamp_seconds",
            "Since when the database that machines share does not answer this one; 0: it does, or the store is a file",
        )
        .of(away.map(|away| away.since)),
        Family::gauge(
            "renewd_mirror_timestamp_seconds",
            "While the database is away, when this node's mirror, which is served, last agreed with it; 0: it does not \
             serve it",
        )
        .of(away.and_then(|away| away.mirror_of)),
    ]);
}

fn renewers(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut in_flight = Family::gauge(
        "renewd_acs_calls_in_flight",
        "Calls to ACS that wait for an answer",
    );
    let mut skew = Family::gauge(
        "renewd_clock_skew_seconds",
        "How far the resource's clock is ahead of ours; 0 until an authenticated answer tells it",
    );
    let mut due = Family::gauge(
        "renewd_next_due_timestamp_seconds",
        "When the next renewal is due; 0: none is known",
    );
    let mut success = Family::gauge(
        "renewd_last_success_timestamp_seconds",
        "When a token was last obtained; 0: none since the start",
    );
    let mut life = Family::gauge(
        "renewd_token_life_seconds",
        "The shortest life that the configuration asks for tokens of a resource",
    );
    let mut contended = Family::gauge(
        "renewd_resource_contended",
        "1 while ACS answers 429 far below our own pace: somebody else uses the resource",
    );
    for (resource, renewer) in &scrape.renewers {
        let labels = [("resource", resource.as_str())];
        in_flight.set(labels, renewer.in_flight);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a skew of 2^53 ms is not a skew"
        )]
        let seconds = renewer.skew_ms.unwrap_or(0) as f64 / 1000.0;
        skew.set(labels, seconds);
        life.set(
            labels,
            scrape.lifetimes.get(resource).copied().unwrap_or(86_400),
        );
        due.set(labels, renewer.next_due);
        success.set(labels, renewer.last_success);
        contended.set(labels, renewer.contention.is_some());
    }
    all.extend([in_flight, skew, life, due, success, contended]);
}

fn pace(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut used = Family::gauge(
        "renewd_pace_window_used",
        "Calls sent within the current window",
    );
    let mut limit = Family::gauge(
        "renewd_pace_window_limit",
        "Calls that renewd allows itself in a window",
    );
    let mut open = Family::gauge(
        "renewd_operation_open",
        "1 while calls go out freely, 0 while only probes go out, or it has to wait",
    );
    for (resource, renewer) in &scrape.renewers {
        let labels = |operation| [("resource", resource.as_str()), ("operation", operation)];
        for (operation, (sent, most)) in &renewer.pace {
            used.set(labels(operation), *sent);
            limit.set(labels(operation), *most);
        }
        for operation in OPERATIONS.map(Operation::as_str) {
            let health = renewer.health.get(operation);
            let is_open = health.is_none_or(|health| *health == HealthView::Open);
            open.set(labels(operation), is_open);
        }
    }
    all.extend([used, limit, open]);
}

fn overdue_since(
    scrape: &Scrape,
    overdue: &BTreeMap<ResourceName, Timestamp>,
    all: &mut Vec<Family>,
) {
    let mut age = Family::gauge(
        "renewd_overdue_seconds",
        "How long the oldest overdue renewal has been overdue, whatever attempts were made since",
    );
    let mut since = Family::gauge(
        "renewd_overdue_since_timestamp_seconds",
        "Since when the oldest overdue renewal is overdue, whatever attempts were made since; 0: none is",
    );
    for resource in scrape.renewers.keys() {
        let labels = [("resource", resource.as_str())];
        let at = overdue.get(resource).copied();
        age.set(labels, seconds_since(at, scrape.now));
        since.set(labels, at);
    }
    all.extend([age, since]);
}

fn identities(scrape: &Scrape, all: &mut Vec<Family>) {
    let stored = &scrape.stored;
    if let (Some(counts), Some(served)) = (&stored.counts, &stored.served) {
        states(scrape, counts, served, all);
    }
    let mut tokens = Family::gauge(
        "renewd_tokens",
        "Tokens by resource and how they stand: good, doubtful (their access key is refused or no longer configured: \
         they may be dead and are minted anew), dead",
    );
    let mut late = Family::gauge(
        "renewd_identities_late",
        "Identities whose token has a quarter of its life left, or less",
    );
    let mut earliest = Family::gauge(
        "renewd_earliest_expiry_timestamp_seconds",
        "When the first of the current tokens ends; 0: there is none",
    );
    for resource in scrape.renewers.keys() {
        let name = ("resource", resource.as_str());
        if let Some(known) = &stored.tokens {
            let one = known.get(resource).copied().unwrap_or_default();
            let stand = [
                ("good", one.good),
                ("doubtful", one.doubtful),
                ("dead", one.dead),
            ];
            for (standing, count) in stand {
                tokens.set([name, ("standing", standing)], count);
            }
        }
        if let Some(known) = &stored.late {
            late.set([name], known.get(resource).copied().unwrap_or(0));
        }
        if let Some(known) = &stored.earliest_expiry {
            earliest.set([name], known.get(resource).copied());
        }
    }
    all.extend([tokens, late, earliest]);
}

fn states(scrape: &Scrape, counts: &Counts, served: &Served, all: &mut Vec<Family>) {
    let mut identities = Family::gauge(
        "renewd_identities",
        "Identities by resource and state: active ones have a live token, the token of dead ones ended",
    );
    let mut without = Family::gauge(
        "renewd_identities_without_live_token",
        "Identities that are to have a token and have none that lives, new ones included",
    );
    let known = counts.identities.keys().chain(scrape.renewers.keys());
    for resource in known {
        let name = ("resource", resource.as_str());
        let standing = counts.standing(resource, served);
        for state in State::STORED {
            let count = standing.states.get(&state).copied().unwrap_or(0);
            identities.set([name, ("state", state.as_str())], count);
        }
        identities.set([name, ("state", "dead")], standing.dead);
        let lacking = served.without.get(resource).copied().unwrap_or(0);
        without.set([name], lacking);
    }
    all.extend([identities, without]);
}

/// Who holds what, and how long that lasts.
fn consumers(scrape: &Scrape, served: &Served, all: &mut Vec<Family>) {
    let mut held = Family::gauge(
        "renewd_consumers",
        "Consumers by what they hold, as it was delivered last: a live token, none, or not known",
    );
    let mut since = Family::gauge(
        "renewd_consumer_without_token_since_timestamp_seconds",
        "Since when the first of the consumers without a live token is without one; 0: none is",
    );
    let mut end = Family::gauge(
        "renewd_consumer_next_end_timestamp_seconds",
        "When the next token ends that a consumer holds; 0: none holds one",
    );
    let mut life = Family::gauge(
        "renewd_consumer_next_end_life_seconds",
        "How long the life of the token is that ends next; a day where that is not known",
    );
    let none = Consumers::default();
    let sinks = scrape.dispatchers.keys();
    let sinks = sinks.map(|sink| (sink.as_str(), served.sinks.get(sink).unwrap_or(&none)));
    for (by, one) in sinks.chain([("socket", &served.socket)]) {
        let by = ("by", by);
        let counts = [
            ("live", one.live),
            ("none", one.without),
            ("unknown", one.unknown),
        ];
        for (holds, count) in counts {
            held.set([by, ("holds", holds)], count);
        }
        since.set([by], one.without_since);
        end.set([by], one.next_end);
        life.set([by], one.next_life_secs.unwrap_or(86_400));
    }
    all.extend([held, since, end, life]);
}

fn deliveries(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut in_flight = Family::gauge("renewd_deliveries_in_flight", "Deliveries on their way");
    let mut enabled = Family::gauge("renewd_sink_enabled", "0 while a sink is disabled");
    let mut ended = Family::counter(
        "renewd_deliveries_total",
        "Attempts to deliver by how they ended",
    );
    let mut failing = Family::gauge(
        "renewd_sink_failing_since_timestamp_seconds",
        "Since when every attempt of a sink fails; 0: the last one did not",
    );
    for (sink, dispatcher) in &scrape.dispatchers {
        let sink = ("sink", sink.as_str());
        in_flight.set([sink], dispatcher.in_flight);
        enabled.set([sink], dispatcher.disabled.is_none());
        failing.set([sink], dispatcher.failing_since);
        ended.set([sink, ("result", "delivered")], dispatcher.delivered);
        ended.set([sink, ("result", "failed")], dispatcher.failed);
    }
    all.extend([in_flight, enabled, ended, failing]);
}

fn pending(scrape: &Scrape, counts: &Counts, all: &mut Vec<Family>) {
    let mut pending = Family::gauge(
        "renewd_deliveries_pending",
        "Deliveries that wait or are on their way",
    );
    let mut age = Family::gauge(
        "renewd_delivery_oldest_seconds",
        "How long the oldest pending delivery has been pending",
    );
    let mut since = Family::gauge(
        "renewd_delivery_oldest_timestamp_seconds",
        "Since when the oldest pending delivery is pending; 0: none is",
    );
    for sink in scrape.dispatchers.keys() {
        let labels = [("sink", sink.as_str())];
        let waiting = counts.pending.get(sink).copied().unwrap_or(0);
        let oldest = counts.oldest_pending.get(sink).copied();
        pending.set(labels, waiting);
        age.set(labels, seconds_since(oldest, scrape.now));
        since.set(labels, oldest);
    }
    all.extend([pending, age, since]);
}

fn work(scrape: &Scrape, all: &mut Vec<Family>) {
    let stored = &scrape.stored;
    all.extend(stored.withdrawal_due.map(|at| {
        Family::gauge(
            "renewd_withdrawal_due_timestamp_seconds",
            "When the oldest revocation or deletion that ACS has not acknowledged should have been there, by its \
             limits; 0: none waits",
        )
        .of(at)
    }));
    all.extend(stored.items.as_ref().map(|items| {
        let mut family = Family::gauge(
            "renewd_campaign_items",
            "Items of campaigns that are not over, by where they stand",
        );
        for (state, count) in items {
            family.set([("state", state)], *count);
        }
        family
    }));
    let mut ran = Family::gauge(
        "renewd_job_last_run_timestamp_seconds",
        "When a job last ran; 0: it never did",
    );
    let mut success = Family::gauge(
        "renewd_job_last_success_timestamp_seconds",
        "When a run of a job last came to its end without a failure; 0: none did",
    );
    for (job, times) in stored.jobs.iter().flatten() {
        ran.set([("job", job.as_str())], times.ran);
        success.set([("job", job.as_str())], times.succeeded);
    }
    all.extend([ran, success]);
}

fn sources(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut lapsed = Family::gauge(
        "renewd_source_lapsed",
        "1 while the list of a source is not taken over: what it listed before stays in force",
    );
    let mut taken = Family::gauge(
        "renewd_source_last_success_timestamp_seconds",
        "When the list of a source was last taken over; 0: it was not",
    );
    for (source, view) in &scrape.sources {
        lapsed.set([("source", source.as_str())], view.lapse.is_some());
        taken.set([("source", source.as_str())], view.taken_at);
    }
    all.extend([lapsed, taken]);
}

/// Of whoever is called, and of what is trusted.
fn certificates(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut ends = Family::gauge(
        "renewd_certificate_expiry_timestamp_seconds",
        "When a certificate ends: the one that a peer (a resource's endpoint, a sink's receiver) showed last, the first in \
         a file of those that are trusted, or the one of a client, which proves to Entra ID who calls a resource; 0: none \
         was shown, or it cannot be read",
    );
    for (resource, renewer) in &scrape.renewers {
        let of = ("of", resource.as_str());
        ends.set([of, ("role", "peer")], renewer.peer_ends);
        let client = renewer
            .bearer
            .as_ref()
            .and_then(|bearer| bearer.certificate_ends);
        if client.is_some() {
            ends.set([of, ("role", "client")], client);
        }
    }
    for (sink, dispatcher) in &scrape.dispatchers {
        if dispatcher.kind == "webhook" {
            let of = ("of", sink.as_str());
            ends.set([of, ("role", "peer")], dispatcher.peer_ends);
        }
    }
    for (path, file) in &scrape.trusted {
        let path = path.display().to_string();
        ends.set([("of", &path), ("role", "trusted")], file.ends);
    }
    all.push(ends);
}

/// Of Entra ID, where it says who calls.
fn bearers(scrape: &Scrape, all: &mut Vec<Family>) {
    let mut ends = Family::gauge(
        "renewd_bearer_expiry_timestamp_seconds",
        "When the bearer of Entra ID ends that calls to a resource carry; 0: none is in hand, or it has access keys",
    );
    let mut requests = Family::counter(
        "renewd_bearer_requests_total",
        "Token requests to Entra ID or to a metadata service",
    );
    let mut trouble = Family::gauge(
        "renewd_bearer_trouble",
        "1 for why there is no new bearer, or why ACS does not take the one in hand; unanswered and throttled end by themselves",
    );
    for (resource, renewer) in &scrape.renewers {
        let name = ("resource", resource.as_str());
        let bearer = renewer.bearer.as_ref();
        ends.set([name], bearer.and_then(|bearer| bearer.ends));
        requests.set([name], bearer.map_or(0, |bearer| bearer.requests));
        let trouble_of = bearer.and_then(|bearer| bearer.trouble.as_ref());
        let cause = trouble_of.map(|trouble| trouble.cause);
        for one in BearerCause::ALL {
            trouble.set([name, ("cause", one.as_str())], cause == Some(one));
        }
    }
    all.extend([ends, requests, trouble]);
}

fn seconds_since(at: Option<Timestamp>, now: Timestamp) -> f64 {
    at.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0))
}
