//! Deliveries and sinks over the socket: the delivery table, what is tried again, and the types of [`sinks`](super::sinks).
//!
//! What sinks are told to do, and how they are.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};

use super::{
    admin::{Admin, PAGE, bad_cursor, record, records},
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
    shared_state::{Command, SinkAsk},
    wire::Page,
};
use crate::{
    model::{Counts, DispatcherView, Name, Num, Record, SinkAt, SinkName, Version, short_duration},
    store::{Disabled, Listed, Rows},
};

endpoints! {
    ListDeliveries: GET "/v1/deliveries" ?pending dead name sink after, () => Page<DeliveryRow>;
    /// Attempts pending deliveries now.
    RetryDeliveries: POST "/v1/deliveries/retry", AskDeliveries => AskedDeliveries;
    /// Delivers current versions once more.
    ReplayDeliveries: POST "/v1/deliveries/replay", AskDeliveries => AskedDeliveries;
    ListSinks: GET "/v1/sinks", () => Sinks;
    /// Stops deliveries to a sink until it is enabled.
    PauseSink: POST "/v1/sinks/{name}/pause", AskSink => Sinks;
    /// Lets deliveries go out again.
    EnableSink: POST "/v1/sinks/{name}/enable", AskSink => Sinks;
    /// Tries a sink out with a synthetic document.
    TestSink: POST "/v1/sinks/{name}/test", AskSink => SinkTested;
}

/// One row of `GET /v1/deliveries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeliveryRow {
    pub name: Name,
    pub sink: SinkAt,
    /// The version that the consumer should hold.
    pub wanted: Version,
    /// The version that it confirmed; 0 before the first.
    pub delivered: Version,
    /// Whether `wanted` is still to be delivered.
    pub pending: bool,
    /// Since when the consumer is behind, while pending.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Failed attempts at `wanted`.
    pub attempts: u32,
    /// The next attempt, while pending.
    pub next_at: Option<Timestamp>,
    /// Sinks that come before this one (`after`) and have not delivered this version yet.
    #[serde(default)]
    pub waits_for: Vec<SinkAt>,
    /// How the last attempt at `wanted` failed.
    pub last_error: Option<String>,
    /// When the identity's token ends.
    pub expires_at: Option<Timestamp>,
}

impl From<Listed> for DeliveryRow {
    fn from(listed: Listed) -> Self {
        let delivery = listed.delivery;
        let pending = delivery.is_pending();
        Self {
            name: delivery.name,
            sink: delivery.sink,
            wanted: delivery.wanted,
            delivered: delivery.delivered,
            pending,
            since: pending.then_some(delivery.since),
            attempts: delivery.attempts,
            next_at: pending.then_some(delivery.next_at),
            waits_for: listed.waits_for,
            last_error: delivery.last_error,
            expires_at: delivery.expires_at,
        }
    }
}

/// `POST /v1/deliveries/retry` and `/replay`: either names, or all of a choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AskDeliveries {
    #[serde(default)]
    pub names: Vec<Name>,
    #[serde(default)]
    pub all: bool,
    /// Of this sink alone.
    #[serde(default)]
    pub sink: Option<SinkName>,
    /// Only those that nothing is attempted for by itself.
    #[serde(default)]
    pub dead: bool,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How many were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AskedDeliveries {
    /// So many are due now.
    pub due: u64,
    /// Sinks among the chosen that are disabled: theirs wait until they are enabled.
    pub disabled: Vec<SinkAt>,
}

/// `GET /v1/sinks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sinks {
    /// When this was true.
    pub at: Timestamp,
    /// In the order of their names.
    pub sinks: Vec<SinkRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SinkRow {
    pub name: SinkAt,
    /// How it is, in one word.
    pub state: SinkState,
    /// Deliveries that wait or are on their way.
    pub pending: u64,
    /// Since when the oldest of them is pending.
    pub oldest_pending: Option<Timestamp>,
    /// How long that is, in seconds.
    pub lag_seconds: Option<f64>,
    /// What its dispatcher published; where another machine serves it, what the store knows of it.
    #[serde(flatten)]
    pub dispatcher: DispatcherView,
}

/// How a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    Open,
    /// The last ones failed.
    Failing,
    /// Its receiver wants nothing more (410).
    Disabled,
    /// A command stopped it.
    Paused,
}

impl SinkState {
    /// What a dispatcher's view says.
    pub fn of(dispatcher: &DispatcherView) -> Self {
        match dispatcher {
            DispatcherView { paused: true, .. } => Self::Paused,
            DispatcherView {
                disabled: Some(_), ..
            } => Self::Disabled,
            DispatcherView {
                failures_in_row: 0, ..
            } => Self::Open,
            DispatcherView { .. } => Self::Failing,
        }
    }
}

/// `POST /v1/sinks/{name}/pause`, `/enable` and `/test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AskSink {
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How `POST /v1/sinks/{name}/test` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SinkTested {
    pub sink: SinkAt,
    /// What kind it is.
    pub kind: String,
    pub target: String,
    /// Whether the synthetic document arrived.
    pub arrived: bool,
    /// How it arrived, or why it did not, in one sentence.
    pub answer: String,
    /// From the attempt's beginning to its end.
    pub took_ms: u64,
}

/// What is still to be delivered of one identity to one sink, in a sentence. Without a dispatcher it says why there is
/// none.
pub(super) fn about_one(
    of: &Listed,
    dispatcher: Result<&DispatcherView, &'static str>,
    record: &Record,
    now: Timestamp,
) -> String {
    let (sink, delivery) = (&of.delivery.sink, &of.delivery);
    let span = |from: Timestamp, to: Timestamp| {
        short_duration(to.duration_since(from).try_into().unwrap_or_default())
    };
    let what = match record.state.wants_token() {
        true => format!("its token (version {}) has", delivery.wanted),
        false => format!("that it is {} has", record.state),
    };
    let next = match dispatcher {
        Err(absent) => absent.to_owned(),
        Ok(DispatcherView {
            disabled: Some(why),
            ..
        }) => format!("the sink is disabled ({why}): `renewd sink enable {sink}`"),
        _ if !of.waits_for.is_empty() => {
            let names: Vec<&str> = of.waits_for.iter().map(SinkAt::as_str).collect();
            format!("it waits for {}", names.join(", "))
        }
        _ if delivery.next_at <= now => "it is tried as soon as its turn comes".to_owned(),
        _ => format!("it is tried again in {}", span(now, delivery.next_at)),
    };
    let last = match &delivery.last_error {
        Some(error) => format!(
            " after {} failed attempts, the last: {error}",
            delivery.attempts
        ),
        None => String::new(),
    };
    format!(
        "{what} not reached the sink {sink} since {}{last}; {next}",
        span(delivery.since, now)
    )
}

/// Which rows are listed; what is left out matches all.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    name: Option<String>,
    sink: Option<String>,
    #[serde(default)]
    pending: bool,
    #[serde(default)]
    dead: bool,
    after: Option<String>,
}

/// The delivery table. A cursor is `SINK/NUM`: the sink and the row that came last.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<Which>,
) -> EndpointAnswer<ListDeliveries> {
    let nums = match &which.name {
        Some(name) => Some(vec![record(&api, name).await?.num]),
        None => None,
    };
    let (first, mut after) = match which.after.as_deref().map(place) {
        None => (None, 0),
        Some(place) => place
            .map(|(sink, num)| (Some(sink), num))
            .ok_or_else(bad_cursor)?,
    };
    let mut items: Vec<DeliveryRow> = Vec::new();
    for sink in chosen(&api, which.sink.as_deref()).await? {
        if Some(sink.as_str()) < first {
            continue;
        }
        if Some(sink.as_str()) != first {
            after = 0;
        }
        let rows = Rows {
            nums: nums.clone(),
            sink: Some(sink.clone()),
            pending: which.pending,
            dead: which.dead,
        };
        let rows = api
            .store
            .delivery_table(rows, after, PAGE - items.len())
            .await?;
        let last = rows.last().map(|row| row.delivery.num);
        items.extend(rows.into_iter().map(DeliveryRow::from));
        if let (true, Some(num)) = (items.len() == PAGE, last) {
            let next = Some(format!("{sink}/{num}"));
            return Ok(Json(Page { items, next }));
        }
    }
    Ok(Json(Page { items, next: None }))
}

/// Attempts what is pending among these now, whatever breaker, receiver and schedule said.
pub(super) async fn retry(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<AskDeliveries>,
) -> EndpointAnswer<RetryDeliveries> {
    let rows = rows(&api, &asked).await?;
    let due = api.store.retry_deliveries(rows, api.clock.now()).await?;
    answer(&api, &admin, "retry deliveries", asked, due).await
}

/// Delivers the current version of these once more, although it was delivered.
pub(super) async fn replay(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<AskDeliveries>,
) -> EndpointAnswer<ReplayDeliveries> {
    if asked.all && asked.sink.is_none() {
        let why = "a replay of everything is asked for one sink at a time: name the sink";
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    let rows = rows(&api, &asked).await?;
    let due = api.store.replay_deliveries(rows, api.clock.now()).await?;
    answer(&api, &admin, "replay deliveries", asked, due).await
}

async fn rows(api: &Api, asked: &AskDeliveries) -> Result<Rows, Problem> {
    if asked.all != asked.names.is_empty() {
        return Err(Problem::new(ProblemType::Invalid, "either names or all"));
    }
    let sink = match &asked.sink {
        Some(sink) => Some(of_name(api, sink.as_str()).await?),
        None => None,
    };
    let nums = match asked.all {
        true => None,
        false => {
            let found = records(api, &asked.names).await?;
            Some(found.iter().map(|row| row.num).collect())
        }
    };
    Ok(Rows {
        nums,
        sink,
        pending: false,
        dead: asked.dead,
    })
}

/// Wakes the dispatchers concerned and says which of them are disabled.
async fn answer(
    api: &Api,
    admin: &Admin,
    action: &str,
    asked: AskDeliveries,
    due: usize,
) -> Result<Json<AskedDeliveries>, Problem> {
    let views = api.shared_state().dispatcher_views();
    let mut disabled = Vec::new();
    for sink in chosen(api, asked.sink.as_ref().map(SinkName::as_str)).await? {
        // Where it is at home, its dispatcher hears of it by the store.
        let Some(view) = views.get(&sink) else {
            continue;
        };
        if view.disabled.is_some() {
            disabled.push(sink);
        } else if due > 0 {
            ask(api, sink, SinkAsk::GoOn).await?;
        }
    }
    let name = match asked.names.as_slice() {
        [name] => Some(name),
        _ => None,
    };
    let result = format!("{due} due");
    admin
        .audit(api, action, name, asked.reason, &result)
        .await?;
    let due = due as u64;
    Ok(Json(AskedDeliveries { due, disabled }))
}

/// This sink, or all of them, in the order in which they are printed.
async fn chosen(api: &Api, sink: Option<&str>) -> Result<Vec<SinkAt>, Problem> {
    if let Some(sink) = sink {
        return Ok(vec![of_name(api, sink).await?]);
    }
    let mut all = served_elsewhere(api).await?;
    all.extend(api.shared_state().dispatchers.keys().cloned());
    all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok(all)
}

/// Sinks that other machines of the cluster serve.
async fn served_elsewhere(api: &Api) -> Result<Vec<SinkAt>, Problem> {
    let mut all = api.store.sinks_of_cluster().await?;
    let here = &api.shared_state().dispatchers;
    all.retain(|sink| !here.contains_key(sink));
    Ok(all)
}

/// Reads `SINK/NUM`.
fn place(cursor: &str) -> Option<(&str, Num)> {
    let (sink, num) = cursor.rsplit_once('/')?;
    Some((sink, num.parse().ok()?))
}

/// A sink's own deadline is the limit of its test; the longest is that of a program.
const LONGEST_TEST: Duration = Duration::from_mins(10);

/// Which rows of the delivery table are listed.
#[derive(Debug, Clone, Default)]
pub struct DeliveryTable {
    pub name: Option<Name>,
    pub sink: Option<SinkName>,
    /// Those that are still to be delivered.
    pub pending: bool,
    /// Those that nothing is attempted for by itself.
    pub dead: bool,
}

impl DaemonClient {
    /// The delivery table, in pages.
    pub async fn deliveries(
        &self,
        of: &DeliveryTable,
        after: Option<&str>,
    ) -> Result<Page<DeliveryRow>, ClientError> {
        let pairs = [
            ("pending", Some(of.pending.to_string())),
            ("dead", Some(of.dead.to_string())),
            ("name", of.name.as_ref().map(ToString::to_string)),
            ("sink", of.sink.as_ref().map(ToString::to_string)),
        ];
        let call = self.call(ListDeliveries, &[]).query(pairs);
        call.after(after).send().await
    }

    /// Attempts pending deliveries now.
    pub async fn retry(&self, ask: &AskDeliveries) -> Result<AskedDeliveries, ClientError> {
        self.call(RetryDeliveries, &[]).body(ask).send().await
    }

    /// Delivers current versions once more.
    pub async fn replay(&self, ask: &AskDeliveries) -> Result<AskedDeliveries, ClientError> {
        self.call(ReplayDeliveries, &[]).body(ask).send().await
    }

    pub async fn sinks(&self) -> Result<Sinks, ClientError> {
        self.call(ListSinks, &[]).send().await
    }

    /// Stops deliveries to a sink until it is enabled.
    pub async fn pause(&self, sink: &SinkName, ask: &AskSink) -> Result<Sinks, ClientError> {
        self.call(PauseSink, &[sink]).body(ask).send().await
    }

    /// Lets deliveries go out again.
    pub async fn enable(&self, sink: &SinkName, ask: &AskSink) -> Result<Sinks, ClientError> {
        self.call(EnableSink, &[sink]).body(ask).send().await
    }

    /// Tries a sink out with a synthetic document.
    pub async fn test(&self, sink: &SinkName, ask: &AskSink) -> Result<SinkTested, ClientError> {
        let call = self.call(TestSink, &[sink]).body(ask);
        call.within(LONGEST_TEST).send().await
    }
}

/// A test ends earlier: every sink has a deadline of its own.
const SINKS_LONGEST_TEST: Duration = Duration::from_mins(10);

pub(super) async fn list_sinks(State(api): State<Api>, _: Admin) -> EndpointAnswer<ListSinks> {
    let (at, counts) = (api.clock.now(), api.store.counts().await?);
    let mut views = api.shared_state().dispatcher_views();
    views.extend(api.sinks_beside().await?);
    let row = |(name, dispatcher)| row(name, dispatcher, &counts, at);
    Ok(Json(Sinks {
        at,
        sinks: views.into_iter().map(row).collect(),
    }))
}

fn row(name: SinkAt, dispatcher: DispatcherView, counts: &Counts, at: jiff::Timestamp) -> SinkRow {
    let oldest_pending = counts.oldest_pending.get(&name).copied();
    SinkRow {
        state: SinkState::of(&dispatcher),
        pending: counts.pending.get(&name).copied().unwrap_or(0),
        oldest_pending,
        lag_seconds: oldest_pending.map(|since| at.duration_since(since).as_secs_f64().max(0.0)),
        name,
        dispatcher,
    }
}

/// Nothing goes out to it until it is enabled, over restarts.
pub(super) async fn pause(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(asked): Body<AskSink>,
) -> EndpointAnswer<PauseSink> {
    let sink = of_name(&api, &name).await?;
    let actor = admin.cause(&api, None).await.actor;
    let why = match &asked.reason {
        Some(reason) => format!("paused by {actor}: {reason}"),
        None => format!("paused by {actor}"),
    };
    let disabled = Disabled {
        why,
        by_command: true,
    };
    let now = api.clock.now();
    api.store.disable_sink(&sink, disabled, now).await?;
    let action = format!("pause sink {sink}");
    admin
        .audit(&api, &action, None, asked.reason, "paused")
        .await?;
    list_sinks(State(api), admin).await
}

/// Deliveries go out again, and what waited goes out at once.
pub(super) async fn enable(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(asked): Body<AskSink>,
) -> EndpointAnswer<EnableSink> {
    let sink = of_name(&api, &name).await?;
    api.store.enable_sink(&sink, api.clock.now()).await?;
    ask(&api, sink.clone(), SinkAsk::GoOn).await?;
    let action = format!("enable sink {sink}");
    admin
        .audit(&api, &action, None, asked.reason, "enabled")
        .await?;
    list_sinks(State(api), admin).await
}

/// Hands a synthetic document over down the real path, and tells how that went.
pub(super) async fn test(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(asked): Body<AskSink>,
) -> EndpointAnswer<TestSink> {
    let Some((sink, view)) = find(&api, &name) else {
        let sink = of_name(&api, &name).await?;
        let why = format!("another machine of the cluster serves the sink {sink}: test it there");
        return Err(Problem::new(ProblemType::Conflict, why));
    };
    let (answer, answered) = oneshot::channel();
    ask(&api, sink.clone(), SinkAsk::Test { answer }).await?;
    let Ok(Ok(tested)) = timeout(SINKS_LONGEST_TEST, answered).await else {
        let why = "renewd itself failed at the test; see its log";
        return Err(Problem::new(ProblemType::Internal, why));
    };
    let (arrived, answer) = match tested.result {
        Ok(answer) => (true, answer),
        Err(why) => (false, why),
    };
    let result = if arrived { "arrived" } else { "failed" };
    let action = format!("test sink {sink}");
    admin
        .audit(&api, &action, None, asked.reason, result)
        .await?;
    Ok(Json(SinkTested {
        sink,
        kind: view.kind,
        target: view.target,
        arrived,
        answer,
        took_ms: tested.took.as_millis().try_into().unwrap_or(u64::MAX),
    }))
}

/// The sink that this machine serves under a name, as it is printed or as it is configured, and what its dispatcher
/// published.
fn find(api: &Api, name: &str) -> Option<(SinkAt, DispatcherView)> {
    let views = api.shared_state().dispatcher_views();
    let printed = views.keys().find(|sink| sink.as_str() == name);
    let configured = || views.keys().find(|sink| sink.name().as_str() == name);
    let sink = printed.or_else(configured)?.clone();
    let view = views.get(&sink)?.clone();
    Some((sink, view))
}

/// The sink that is meant by a name: of this machine, or as it is printed, of any in the cluster.
async fn of_name(api: &Api, name: &str) -> Result<SinkAt, Problem> {
    if let Some((sink, _)) = find(api, name) {
        return Ok(sink);
    }
    let elsewhere = served_elsewhere(api).await?;
    if let Some(sink) = elsewhere.iter().find(|sink| sink.as_str() == name) {
        return Ok(sink.clone());
    }
    let here = api.shared_state();
    let known: Vec<&str> = here
        .dispatchers
        .keys()
        .chain(&elsewhere)
        .map(SinkAt::as_str)
        .collect();
    let unknown = format!("there is no sink {name:?}; there are: {}", known.join(", "));
    Err(Problem::new(ProblemType::Unknown, unknown))
}

/// Asks a dispatcher something, through `app`; one of another machine is not asked.
async fn ask(api: &Api, name: SinkAt, ask: SinkAsk) -> Result<(), Problem> {
    let command = Command::Sink { name, ask };
    let stopping = |_| Problem::new(ProblemType::Conflict, "the daemon is stopping");
    api.commands.send(command).await.map_err(stopping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_sink_and_row() {
        assert_eq!(place("crm/12"), Some(("crm", 12)));
        assert_eq!(place("crm"), None);
    }
}
